"""The accuracy model of a family that a small law describes: read from its shipped fit, numpy only.

The fits lie beside this file as `scaled_yolov4.json` and `retinanet.json`, written by
`scaler.accuracy.validation_laws.write_shipped`; a test refits them from the published rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaler.accuracy import retinanet_law, scaled_law
from scaler.accuracy.law import Law, LawFit, mean_and_variance, parameter_names, read_posterior
from scaler.accuracy.prediction import (
    METRIC_NAMES,
    NOISE_AP,
    AccuracyPrediction,
    Dataset,
    Facts,
    Metric,
    Predictions,
    Provenance,
    Recipe,
    Score,
    interval_90,
)
from scaler.accuracy.scores import read_score
from scaler.errors import UsageError, unknown_name
from scaler.files import Reader, read_json

__all__ = ["LAWS", "SCHEMA_VERSION", "SCHEMES", "LawAccuracy", "read_model", "read_shipped", "shipped_file"]

SCHEMA_VERSION = 2
LAWS: dict[str, Law[Any]] = {law.family: law for law in (scaled_law.LAW, retinanet_law.LAW)}
SCHEMES = ("leave-one-run-out", "leave-one-network-out")
"""What a cross-validation leaves out: one training run, or every run of one network (backbone, for RetinaNet)."""


class NetworkError(NamedTuple):
    """How a network is predicted by a fit that has seen none of its runs."""

    n: int
    """Published training runs, at any size."""
    mean_absolute_error_ap: float


@dataclass(frozen=True, slots=True)
class LawAccuracy:
    """Predicts the detectors of one family by one recipe; `classes` other than COCO's 80 make no difference to it."""

    law: Law[Any]
    key: Metric
    fit: LawFit
    runs: dict[str, int]
    """Published training runs by recipe."""
    scores: dict[str, Score]
    networks: dict[str, NetworkError]
    """Errors of leave-one-network-out by the network (backbone, for RetinaNet) that was left out."""
    recipe: str
    dataset: Dataset = "coco"
    provenance: Provenance = "calibrated"
    noise_ap: float = NOISE_AP

    @property
    def family(self) -> str:
        """Name of the family."""
        return self.law.family

    @property
    def metric(self) -> str:
        """`AP50` or `AP`."""
        return METRIC_NAMES[self.key]

    @property
    def evaluation(self) -> str:
        """How the published pictures were brought to size, in a sentence."""
        return self.law.evaluation

    @property
    def n_rows(self) -> int:
        """Published training runs behind the fit, of all recipes."""
        return sum(self.runs.values())

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """All recipes, the default first; one without a run of this metric is not among them."""
        own, deviation = len(self.law.priors(self.key)), np.sqrt(np.diag(self.fit.covariance))
        places = {name: own - 1 + i for i, name in enumerate(self.law.recipes)}
        default = next(iter(self.law.recipes))
        return tuple(
            Recipe(name, 0.0, 0.0, self.runs[name], text)
            if name == default
            else Recipe(
                name, float(self.fit.theta[places[name]]), float(deviation[places[name]]), self.runs[name], text
            )
            for name, text in self.law.recipes.items()
            if name in self.runs
        )

    @property
    def facts(self) -> Facts:
        """For a report's card."""
        run, network = (self.scores[scheme] for scheme in SCHEMES)
        chosen = next(recipe for recipe in self.recipes if recipe.name == self.recipe)
        return Facts(
            name=self.law.title,
            provenance=self.provenance,
            fitted_on=f"{self.n_rows} {self.law.fitted_on}",
            errors={
                "leave-one-run-out mean error": f"{run.mean_absolute_error_ap:.2f} AP",
                "leave-one-network-out mean error": f"{network.mean_absolute_error_ap:.2f} AP",
                "Kendall tau": f"{run.kendall_tau:.2f} / {network.kendall_tau:.2f}",
                "coverage of 90 % intervals": f"{100 * run.coverage:.0f} / {100 * network.coverage:.0f} %",
            },
            notes=(
                f"differences under {self.noise_ap:g} AP are noise in the published single training runs",
                f"predicts the recipe {chosen.name} ({chosen.description}); {self._others()}",
                f"evaluation {self.evaluation}",
                *self._left_out_whole(),
                *self.law.notes,
            ),
        )

    def _left_out_whole(self) -> tuple[str, ...]:
        """The network that the others say least about, where that is more than noise."""
        name, (n, error) = max(self.networks.items(), key=lambda item: item[1].mean_absolute_error_ap)
        if error <= self.noise_ap:
            return ()
        return (f"least known from the others is {name}: with its {n} runs left out, the mean error is {error:.1f} AP",)

    def _others(self) -> str:
        """How far the recipes lie apart."""
        ordered = sorted(self.recipes, key=lambda recipe: recipe.offset_ap)
        ends = [f"{recipe.offset_ap:+.1f} AP ({recipe.name})" for recipe in (ordered[0], ordered[-1])]
        default = self.recipes[0].name
        return f"against {default}, the {len(ordered)} published recipes lie between {ends[0]} and {ends[1]}"

    def predict(self, config: Any) -> AccuracyPrediction:
        """The prediction of one configuration; `predict_many` is far faster where there are many."""
        mean, low, high = (float(values[0]) for values in self._interval([config]))
        reasons = self.law.outside(config)
        provenance: Provenance = "estimated" if self.law.judged(config) else self.provenance
        return AccuracyPrediction(mean, low, high, not reasons, reasons, provenance)

    def predict_many(self, configs: Iterable[Any]) -> Predictions:
        """The predictions of many configurations."""
        networks = list(configs)
        inside = np.array([not self.law.outside(network) for network in networks], dtype=np.bool_)
        return Predictions(*self._interval(networks), inside)

    def _interval(self, networks: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        recipes = [self.recipe] * len(networks)
        mean, variance = mean_and_variance(self.law, self.key, self.fit, networks, recipes)
        return interval_90(mean, variance)


def shipped_file(family: str) -> Path:
    """Where the shipped fit of a family lies."""
    return Path(__file__).with_name(f"{family.replace('-', '_')}.json")


@cache
def read_shipped(family: str, metric: Metric, recipe: str | None = None) -> LawAccuracy:
    """The shipped model of a family and a recipe; None is the default recipe.

    Raises:
        UsageError: There is no such recipe with published runs of that metric.
        FileError: The shipped fit was damaged.
    """
    return read_model(shipped_file(family), family, metric, recipe)


def read_model(path: Path, family: str, metric: Metric, recipe: str | None = None) -> LawAccuracy:
    """Read a fit as `load` does, from any file.

    Raises:
        UsageError: There is no such recipe with published runs of that metric.
        FileError: The file is malformed; the message has the dotted path.
    """
    law = LAWS[family]
    reader = read_json(path, schema_version=SCHEMA_VERSION)
    reader.choice("family", (family,))
    models = {key: _read_metric(reader.table(key), law, key) for key in METRIC_NAMES}
    reader.finish()
    fit, runs, scores, networks = models[metric]
    name = recipe or next(iter(law.recipes))
    if name not in runs:
        known = [known for known in law.recipes if known in runs]
        raise UsageError(unknown_name(f"recipe of {family} with published {METRIC_NAMES[metric]}", name, known))
    return LawAccuracy(law, metric, fit, runs, scores, networks, name)


def _read_metric(
    reader: Reader, law: Law[Any], metric: Metric
) -> tuple[LawFit, dict[str, int], dict[str, Score], dict[str, NetworkError]]:
    fit = LawFit(*read_posterior(reader, parameter_names(law, metric)))
    counts, held = reader.table("runs"), reader.table("scores")
    runs = {name: counts.integer(name, minimum=1) for name in law.recipes if name in counts.keys}
    scores = {scheme: read_score(held.table(scheme)) for scheme in SCHEMES}
    return fit, runs, scores, _read_networks(reader.table("networks"))


def _read_networks(reader: Reader) -> dict[str, NetworkError]:
    if not reader.keys:
        raise reader.error("", "nothing", "expected a network at least", "write the fit again")
    tables = {name: reader.table(name) for name in reader.keys}
    return {
        name: NetworkError(table.integer("n", minimum=1), table.number("mean_absolute_error_ap", minimum=0.0))
        for name, table in tables.items()
    }
