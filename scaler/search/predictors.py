"""The accuracy of a space's candidates: the model of each family, behind one face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from scaler.accuracy import AccuracyModel, AccuracyPrediction, Predictions, load, metrics
from scaler.models.detectors.families import FAMILIES, Config, family_of
from scaler.search.published_models import starting_points
from scaler.search.result import ModelCard
from scaler.space import Space

_SAMPLE = 8
"""Candidates that tell what a space is made of."""

__all__ = ["Predictor", "default_dataset", "load_predictor"]


@dataclass(frozen=True, slots=True)
class Predictor:
    """One metric on one data set, for the families of a space."""

    models: Mapping[str, AccuracyModel]
    """By family."""
    unpublished: tuple[str, ...] = ()
    """The spaces of whose detectors none was published."""

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
                provenance="estimated" if self.unpublished else one.provenance,
                fitted_on=one.fitted_on,
                errors={} if self.unpublished else one.errors,
                notes=(*self._doubts(), *one.notes),
            )
        estimated = any(one.provenance == "estimated" for one in facts.values())
        return ModelCard(
            name="accuracy laws of " + ", ".join(facts),
            provenance="estimated" if estimated else "calibrated",
            fitted_on="; ".join(dict.fromkeys(one.fitted_on for one in facts.values())),
            errors={f"{name}: {what}": said for name, one in facts.items() for what, said in one.errors.items()},
            notes=(
                *self._doubts(),
                "each family as its own recipe trains it: small differences between families say little",
                *dict.fromkeys(note for one in facts.values() for note in one.notes),
            ),
        )

    def _doubts(self) -> tuple[str, ...]:
        return tuple(
            f"no detector of {space} was published: every AP of it is estimated from other detectors on its backbones; "
            "scaler accuracy validate --family vovnet says how well such gains carry over"
            for space in self.unpublished
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
    for family in space.families:
        metrics(family, wanted)  # says of which family there is nothing, before any question of metric
    if metric is None and len(space.families) > 1:
        metric = "ap"
    models = {family: load(family, wanted, metric) for family in space.families}
    members = space.members or (space,)
    return Predictor(models, tuple(member.name for member in members if _unpublished(member, models)))


def _unpublished(space: Space, models: Mapping[str, AccuracyModel]) -> bool:
    """Whether no published detector is in a space, and every one of a few candidates is of another kind."""
    if any(space.find(config) is not None for config in starting_points()):
        return False
    rng, model = np.random.default_rng(0), models[space.families[0]]
    configs = (space.configure(space.sample(rng), classes=80) for _ in range(_SAMPLE))
    return all(model.predict(config).provenance == "estimated" for config in configs)
