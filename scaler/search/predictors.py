"""The accuracy of a space's candidates: the model of each family, behind one face."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaler.accuracy import AccuracyModel, AccuracyPrediction, Predictions, load, metrics
from scaler.accuracy.runs_fit import RunsFit, read_fit
from scaler.accuracy.runs_model import CorrectedAccuracy, facts
from scaler.errors import UsageError, unknown_name
from scaler.models.detectors.families import FAMILIES, Config, family_of
from scaler.search.published_models import starting_points
from scaler.search.result import ModelCard, Trained
from scaler.search.trained import trained_of
from scaler.space import Space

_SAMPLE = 8
"""Candidates that tell what a space is made of."""

CLASSES = {"voc": 20, "coco": 80}
"""Number of classes of the published data sets."""

__all__ = ["CLASSES", "Predictor", "classes_of", "default_dataset", "load_predictor"]


@dataclass(frozen=True, slots=True)
class Predictor:
    """One metric on one data set, for the families of a space."""

    models: Mapping[str, AccuracyModel]
    """By family."""
    unpublished: tuple[str, ...] = ()
    """The spaces of whose detectors none was published."""
    fit: RunsFit | None = None
    """The user's runs that correct the models; None where the published laws stand alone."""
    file: str = ""
    """Where the fit was read from."""

    @property
    def dataset(self) -> str:
        """`voc` or `coco`, or the name of the user's data set."""
        return next(iter(self.models.values())).dataset

    @property
    def metric(self) -> str:
        """What is predicted: `VOC AP50`, `COCO AP50`, `COCO AP`, `shapes AP50`."""
        if self.fit is not None:
            return self.fit.title
        return f"{self.dataset.upper()} {next(iter(self.models.values())).metric}"

    @property
    def classes(self) -> int:
        """Number of classes of the networks."""
        return CLASSES[self.dataset] if self.fit is None else len(self.fit.classes)

    def trained(self, candidate: str) -> tuple[Trained, ...]:
        """The runs behind the predictions that are of a candidate, oldest first."""
        runs = {} if self.fit is None else self.fit.trained(candidate)
        found = [trained_of(run, name, self.metric) for name, run in runs.items()]
        return tuple(sorted(found, key=lambda one: (one.created, one.run)))

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
        if self.fit is not None:
            provenances = {model.provenance for model in self.models.values()}
            own = facts(self.fit, "estimated" if "estimated" in provenances else "calibrated", tuple(self.models))
            return ModelCard(
                name=own.name, provenance=own.provenance, fitted_on=own.fitted_on, errors=own.errors, notes=own.notes
            )
        by_family = {name: model.facts for name, model in self.models.items()}
        if len(by_family) == 1:
            (one,) = by_family.values()
            return ModelCard(
                name=one.name,
                provenance="estimated" if self.unpublished else one.provenance,
                fitted_on=one.fitted_on,
                errors={} if self.unpublished else one.errors,
                notes=(*self._doubts(), *one.notes),
            )
        estimated = any(one.provenance == "estimated" for one in by_family.values())
        return ModelCard(
            name="accuracy laws of " + ", ".join(by_family),
            provenance="estimated" if estimated else "calibrated",
            fitted_on="; ".join(dict.fromkeys(one.fitted_on for one in by_family.values())),
            errors={f"{name}: {what}": said for name, one in by_family.items() for what, said in one.errors.items()},
            notes=(
                *self._doubts(),
                "each family as its own recipe trains it: small differences between families say little",
                *dict.fromkeys(note for one in by_family.values() for note in one.notes),
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


def classes_of(dataset: str) -> int:
    """The number of classes of a published data set, or the number itself where that is given in its place.

    Raises:
        UsageError: Neither; the message says what is known.
    """
    if dataset in CLASSES:
        return CLASSES[dataset]
    if dataset.isascii() and dataset.isdigit() and int(dataset) > 0:
        return int(dataset)
    raise UsageError(unknown_name("data set", dataset, (*CLASSES, "a number of classes")))


def load_predictor(
    space: Space, dataset: str | None = None, metric: str | None = None, accuracy: Path | str | None = None
) -> Predictor:
    """Load the models of a space's families.

    Args:
        space: The space.
        dataset: `voc` or `coco`; the one of their publications where None.
        metric: `ap50` or `ap`; where None that of the family's publication, of several families `ap`.
        accuracy: A fit to the user's own runs, which says data set and metric; None takes the published laws.

    Raises:
        UsageError: A family has no such model, or the fit is of another data set or metric.
        FileError: The fit cannot be read.
    """
    if accuracy is not None:
        return _corrected(space, dataset, metric, accuracy)
    wanted = dataset or default_dataset(space)
    for family in space.families:
        metrics(family, wanted)  # says of which family there is nothing, before any question of metric
    if metric is None and len(space.families) > 1:
        metric = "ap"
    models = {family: load(family, wanted, metric) for family in space.families}
    members = space.members or (space,)
    return Predictor(models, tuple(member.name for member in members if _unpublished(member, models)))


def _corrected(space: Space, dataset: str | None, metric: str | None, file: Path | str) -> Predictor:
    """The predictor from a fit to the user's runs."""
    fit = read_fit(file)
    for option, asked, has in (("dataset", dataset, fit.dataset), ("metric", metric, fit.metric)):
        if asked is not None and asked.lower() != has.lower():
            raise UsageError(f"--{option} {asked}: {file} is of {has}; leave --{option} out, or fit the runs anew")
    models: dict[str, AccuracyModel] = {family: CorrectedAccuracy(fit, family) for family in space.families}
    return Predictor(models, fit=fit, file=str(file))


def _unpublished(space: Space, models: Mapping[str, AccuracyModel]) -> bool:
    """Whether no published detector is in a space, and every one of a few candidates is of another kind."""
    if any(space.find(config) is not None for config in starting_points()):
        return False
    rng, model = np.random.default_rng(0), models[space.families[0]]
    configs = (space.configure(space.sample(rng), classes=80) for _ in range(_SAMPLE))
    return all(model.predict(config).provenance == "estimated" for config in configs)
