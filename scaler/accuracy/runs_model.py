"""The law of a family corrected by the user's runs, behind the face of every other accuracy model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from scaler.accuracy.prediction import (
    METRIC_NAMES,
    NOISE_AP,
    AccuracyModel,
    AccuracyPrediction,
    Facts,
    Predictions,
    Provenance,
    Recipe,
    Score,
)
from scaler.accuracy.runs_fit import ENOUGH, RunsFit, law_of, networks_of, recipe_of

__all__ = ["CorrectedAccuracy"]


@dataclass(frozen=True, eq=False)
class CorrectedAccuracy:
    """Predicts the detectors of one family on the user's data set, trained by the user's recipe."""

    fit: RunsFit
    family: str
    noise_ap: float = NOISE_AP

    @property
    def law(self) -> AccuracyModel:
        """What is corrected."""
        return law_of(self.family, self.fit.metric)

    @property
    def dataset(self) -> str:
        """Name of the user's data set."""
        return self.fit.dataset

    @property
    def metric(self) -> str:
        """`AP50` or `AP`."""
        return METRIC_NAMES[self.fit.metric]

    @property
    def recipe(self) -> str:
        """Of the runs that predictions are for."""
        return str(self.fit.recipe)

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """The only one: that of the runs."""
        law, here, half = self.fit.shift_ap
        return (Recipe(self.recipe, here - law, half / 1.645, self.fit.recipes[self.fit.recipe], "your own runs"),)

    @property
    def evaluation(self) -> str:
        """How the pictures were brought to size, in a sentence."""
        return "as the runs were evaluated: letterboxed into a square"

    @property
    def n_rows(self) -> int:
        """Runs behind the correction."""
        return len(self.fit.runs)

    @property
    def provenance(self) -> Provenance:
        """`calibrated` from `ENOUGH` runs by the recipe on, else `estimated`."""
        return "calibrated" if self.fit.recipes[self.fit.recipe] >= ENOUGH else "estimated"

    @property
    def scores(self) -> dict[str, Score]:
        """Errors on runs that the fit has not seen."""
        return {} if self.fit.corrected is None else {"leave-one-run-out": self.fit.corrected}

    @property
    def facts(self) -> Facts:
        """For a report's card."""
        return facts(self.fit, self.provenance, (self.family,))

    @cached_property
    def _seen(self) -> tuple[set[Any], set[Any]]:
        """Configurations that were trained, by the recipe that predictions are for and by any."""
        mine = [run for run in self.fit.runs.values() if run.family == self.family]
        return {run.config for run in mine if recipe_of(run) == self.fit.recipe}, {run.config for run in mine}

    def predict(self, config: Any) -> AccuracyPrediction:
        """The prediction of one configuration."""
        law = self.law.predict(config)
        mean, low, high = (float(values[0]) for values in self._interval([config]))
        by_recipe, by_any = self._seen
        outside = () if config in by_any else law.outside
        provenance: Provenance = "measured" if config in by_recipe else self.provenance
        if law.provenance == "estimated" and config not in by_any:
            provenance = "estimated"
        return AccuracyPrediction(mean, low, high, not outside, outside, provenance)

    def predict_many(self, configs: Iterable[Any]) -> Predictions:
        """The predictions of many configurations."""
        listed = list(configs)
        inside = self.law.predict_many(listed).inside | np.array([c in self._seen[1] for c in listed], dtype=np.bool_)
        return Predictions(*self._interval(listed), inside)

    def _interval(self, configs: list[Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.fit.regression.predict(networks_of(configs, self.fit.recipe, self.fit.metric))


def facts(fit: RunsFit, provenance: Provenance, families: tuple[str, ...]) -> Facts:
    """Of a fit, for a report's card."""
    count = fit.recipes[fit.recipe]
    law, here, half = fit.shift_ap
    laws = " and ".join(law_of(family, fit.metric).facts.name for family in families)
    return Facts(
        name=f"{fit.title} by {count} own run{'s' * (count != 1)} over the published law",
        provenance=provenance,
        fitted_on=f"{len(fit.runs)} runs on {fit.dataset} ({_by_recipe(fit)}), correcting the {laws}",
        errors=_errors(fit),
        notes=(
            f"predicts the recipe {fit.recipe} on {fit.dataset}; runs by other recipes or epochs have a level of "
            "their own and only tell how networks differ",
            f"these figures differ from the published law's since data set, classes and recipe differ: a network that "
            f"the law puts at {law:.1f} {METRIC_NAMES[fit.metric]} (COCO) reaches {here:.1f} ± {half:.1f} here, and "
            f"differences between networks are {fit.regression.slope.mean:.2f} ± {1.645 * fit.regression.slope.sd:.2f} "
            "times the law's, in logits",
            *filter(None, (fit.lacking,)),
            f"AP50 is COCO's; the scatter of one run is taken as {fit.regression.noise_ap:.1f} AP",
        ),
    )


def _errors(fit: RunsFit) -> dict[str, str]:
    if fit.corrected is None or fit.law is None:
        return {}
    return {
        "leave-one-run-out mean error": f"{fit.corrected.mean_absolute_error_ap:.2f} AP",
        "the published law alone": f"{fit.law.mean_absolute_error_ap:.2f} AP",
        "Kendall tau, law alone": f"{fit.corrected.kendall_tau:.2f}, {fit.law.kendall_tau:.2f}",
        "coverage of 90 % intervals": f"{100 * fit.corrected.coverage:.0f} % of {fit.corrected.n} runs",
    }


def _by_recipe(fit: RunsFit) -> str:
    return "; ".join(f"{recipe}: {count}" for recipe, count in fit.recipes.most_common())
