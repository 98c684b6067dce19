"""What every accuracy model answers, whatever the family: a figure, its interval, and where it is from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "METRIC_NAMES", "NOISE_AP", "Z_90", "AccuracyModel", "AccuracyPrediction", "Dataset", "Facts", "FloatArray",
    "Metric", "Predictions", "Provenance", "Recipe", "Score", "interval_90",
]  # fmt: skip

FloatArray = npt.NDArray[np.float64]
Dataset = Literal["voc", "coco"]
Metric = Literal["ap50", "ap"]
Provenance = Literal["calibrated", "estimated", "measured"]

METRIC_NAMES: dict[Metric, str] = {"ap50": "AP50", "ap": "AP"}
"""`ap50` counts a box as found at an IoU of 0.5, `ap` is the mean over IoU 0.50 to 0.95."""

Z_90 = 1.645
"""Half width of a central 90 % interval in standard deviations."""

NOISE_AP = 0.3
"""Differences below this are noise: published rows are single training runs without error bars."""


@dataclass(frozen=True, slots=True)
class AccuracyPrediction:
    """Accuracy in points with its 90 % interval: where the figure of one training run by the recipe would lie."""

    mean: float
    low: float
    high: float
    inside_support: bool
    outside: tuple[str, ...]
    """Why the prediction is an extrapolation; empty where it is not."""
    provenance: Provenance = "calibrated"
    """`estimated` where nobody published a network of this kind, so that even its level is inferred; `measured` where
    the user trained this very network and the prediction takes that run in."""


class Predictions(NamedTuple):
    """Predictions of many configurations, an array each, in their order."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray
    inside: npt.NDArray[np.bool_]


def interval_90(mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean and ends of the central 90 % interval, all in the range of an accuracy, 0 to 100 points."""
    half = Z_90 * np.sqrt(variance)
    return np.clip(mean, 0.0, 100.0), np.clip(mean - half, 0.0, 100.0), np.clip(mean + half, 0.0, 100.0)


@dataclass(frozen=True, slots=True)
class Score:
    """How a model fares on detectors that its fit has not seen."""

    n: int
    mean_absolute_error_ap: float
    kendall_tau: float
    coverage: float
    """Share of the published figures inside their 90 % interval."""
    mean_half_width_ap: float


class Recipe(NamedTuple):
    """A way of training and evaluating that published rows share; rows of two recipes are never mixed."""

    name: str
    offset_ap: float
    """What it brings over the model's own default recipe, in points; 0 for the default."""
    offset_sd_ap: float
    runs: int
    """Published training runs."""
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Where the numbers of a model come from, in the words of a report's card."""

    name: str
    provenance: Provenance
    fitted_on: str
    errors: dict[str, str]
    notes: tuple[str, ...]


class AccuracyModel(Protocol):
    """Predicts one metric of one family's detectors, trained by one recipe."""

    @property
    def family(self) -> str:
        """Name of the family, as in `scaler.models.detectors.families`."""

    @property
    def dataset(self) -> str:
        """`voc` or `coco`, or the name of the user's own data set."""

    @property
    def metric(self) -> str:
        """`AP50` or `AP`."""

    @property
    def recipe(self) -> str:
        """Name of the recipe that predictions are for."""

    @property
    def recipes(self) -> tuple[Recipe, ...]:
        """All recipes that `load` takes, the default first."""

    @property
    def evaluation(self) -> str:
        """How the published pictures were brought to size, in a sentence."""

    @property
    def n_rows(self) -> int:
        """Published figures behind the fit."""

    @property
    def provenance(self) -> Provenance:
        """`calibrated` where published figures of the family itself are behind it, else `estimated`."""

    @property
    def noise_ap(self) -> float:
        """Differences below this say nothing."""

    @property
    def scores(self) -> Mapping[str, Score]:
        """Errors on what the fit has not seen, by the scheme of leaving out."""

    @property
    def facts(self) -> Facts:
        """For a report's card."""

    def predict(self, config: Any) -> AccuracyPrediction:
        """The prediction of one configuration of the family."""

    def predict_many(self, configs: Iterable[Any]) -> Predictions:
        """The predictions of many configurations of the family."""
