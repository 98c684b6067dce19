"""The accuracy of a space's candidates: the model of each family, behind one face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from scaler.accuracy import AccuracyModel, AccuracyPrediction, Predictions, load
from scaler.models.detectors.families import FAMILIES, Config, family_of
from scaler.search.result import ModelCard
from scaler.space import Space

__all__ = ["Predictor", "default_dataset", "load_predictor"]


@dataclass(frozen=True, slots=True)
class Predictor:
    """One metric on one data set, for the families of a space."""

    models: Mapping[str, AccuracyModel]
    """By family."""

    @property
    def dataset(self) -> str:
        """`voc` or `coco`."""
        return next(iter(self.models.values())).dataset

    @property
    def metric(self) -> str:
        """What is predicted: `VOC AP50`, `COCO AP50`, `COCO AP`."""
        return f"{self.dataset.upper()} {next(iter(self.models.values())).metric}"

    def predict(self, config: Config) -> AccuracyPrediction:
        """The prediction of one configuration."""
        return self.models[family_of(config).name].predict(config)

    def predict_many(self, configs: Iterable[Config]) -> Predictions:
        """The predictions of many configurations, in their order."""
        places: dict[str, list[int]] = {}
        listed = list(configs)
        for place, config in enumerate(listed):
            places.setdefault(family_of(config).name, []).append(place)
        mean, low, high = np.empty((3, len(listed)))
        inside = np.empty(len(listed), dtype=np.bool_)
        for family, mine in places.items():
            part = self.models[family].predict_many([listed[place] for place in mine])
            mean[mine], low[mine], high[mine], inside[mine] = part
        return Predictions(mean, low, high, inside)

    @property
    def card(self) -> ModelCard:
        """For the reports; of several families, each with its name."""
        facts = {name: model.facts for name, model in self.models.items()}
        if len(facts) == 1:
            (one,) = facts.values()
            return ModelCard(
                name=one.name,
                provenance=one.provenance,
                fitted_on=one.fitted_on,
                errors=one.errors,
                notes=one.notes,
            )
        estimated = any(one.provenance == "estimated" for one in facts.values())
        return ModelCard(
            name="accuracy laws of " + ", ".join(facts),
            provenance="estimated" if estimated else "calibrated",
            fitted_on="; ".join(dict.fromkeys(one.fitted_on for one in facts.values())),
            errors={f"{name}: {what}": said for name, one in facts.items() for what, said in one.errors.items()},
            notes=(
                "each family as its own recipe trains it: small differences between families say little",
                *dict.fromkeys(note for one in facts.values() for note in one.notes),
            ),
        )


def default_dataset(space: Space) -> str:
    """The data set that all families of a space were published on."""
    published = {FAMILIES[family].dataset for family in space.families}
    return published.pop() if len(published) == 1 else "coco"


def load_predictor(space: Space, dataset: str | None = None, metric: str | None = None) -> Predictor:
    """Load the models of a space's families.

    Args:
        space: The space.
        dataset: `voc` or `coco`; the one of their publications where None.
        metric: `ap50` or `ap`; where None that of the family's publication, of several families `ap`.

    Raises:
        UsageError: A family has no such model.
    """
    wanted = dataset or default_dataset(space)
    if metric is None and len(space.families) > 1:
        metric = "ap"
    return Predictor({family: load(family, wanted, metric) for family in space.families})
