"""Prediction of AP50 with a 90 % interval, from the shipped fit; needs numpy only.

The fit lies beside this file as `yolo_ret.json`, written by `scaler.accuracy.validation.write_shipped`; a
test refits it from the shipped rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from scaler.accuracy.curve import NAMES
from scaler.accuracy.features import Features, FloatArray, features, outside
from scaler.accuracy.posterior import Z_90, CocoLink, Fit
from scaler.errors import UsageError, unknown_name
from scaler.files import Reader, read_json
from scaler.models.detectors.yolo_ret import YoloRetConfig

__all__ = [
    "NOISE_AP", "SCHEMA_VERSION", "SHIPPED_FILE", "AccuracyModel", "AccuracyPrediction", "Dataset",
    "Predictions", "Score", "load", "read_model",
]  # fmt: skip

Dataset = Literal["voc", "coco"]

SHIPPED_FILE = Path(__file__).with_name("yolo_ret.json")
SCHEMA_VERSION = 1
NOISE_AP = 0.3
"""Differences below this are noise: the paper's rows are single training runs without error bars."""


@dataclass(frozen=True, slots=True)
class AccuracyPrediction:
    """AP50 in points with its 90 % interval: where the figure of one training run by the recipe would lie."""

    mean: float
    low: float
    high: float
    inside_support: bool
    outside: tuple[str, ...]
    """Why the prediction is an extrapolation; empty where it is not."""


class Predictions(NamedTuple):
    """Predictions of many configurations, an array each, in their order."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray
    inside: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Score:
    """How a model fares on detectors that its fit has not seen."""

    n: int
    mean_absolute_error_ap: float
    kendall_tau: float
    coverage: float
    """Share of the published figures inside their 90 % interval."""
    mean_half_width_ap: float


@dataclass(frozen=True, slots=True)
class AccuracyModel:
    """Predicts AP50 of YOLO-ReT detectors trained by the paper's recipe, whatever their `classes` say."""

    dataset: Dataset
    n_rows: int
    """Published detectors behind the fit."""
    fit: Fit
    """Of VOC AP50."""
    coco: CocoLink | None
    """From VOC to COCO; None for a model of VOC."""
    leave_one_out: Score
    leave_one_backbone_out: Score
    metric: str = "AP50"
    recipe: str = "yolo-ret"

    def predict(self, config: YoloRetConfig) -> AccuracyPrediction:
        """The prediction of one configuration; `predict_many` is 30 times as fast where there are many."""
        mean, low, high = (float(values[0]) for values in self._interval(features([config])))
        reasons = outside(config)
        return AccuracyPrediction(mean, low, high, not reasons, reasons)

    def predict_many(self, configs: Iterable[YoloRetConfig]) -> Predictions:
        """The predictions of many configurations."""
        x = features(configs)
        return Predictions(*self._interval(x), x.inside > 0.0)

    def _interval(self, x: Features) -> tuple[FloatArray, FloatArray, FloatArray]:
        mean, variance = self.fit.mean_and_variance(x)
        if self.coco is not None:
            mean, variance = self.coco.apply(mean, variance)
        half = Z_90 * np.sqrt(variance)
        return np.clip(mean, 0.0, 100.0), np.clip(mean - half, 0.0, 100.0), np.clip(mean + half, 0.0, 100.0)


@cache
def load(dataset: str) -> AccuracyModel:
    """The shipped model of a dataset, `voc` or `coco`.

    Raises:
        UsageError: There is no model of that dataset.
        FileError: The shipped fit was damaged.
    """
    return read_model(SHIPPED_FILE, dataset)


def read_model(path: Path, dataset: str) -> AccuracyModel:
    """Read a fit as `load` does, from any file.

    Raises:
        UsageError: There is no model of that dataset.
        FileError: The file is malformed; the message has the dotted path.
    """
    names: tuple[Dataset, ...] = get_args(Dataset)
    if dataset not in names:
        raise UsageError(unknown_name("dataset", dataset, names))
    reader = read_json(path, schema_version=SCHEMA_VERSION)
    law = _read_fit(reader)
    link = _read_link(reader.table("coco_link"))
    scores = {name: _read_scores(reader.table(name)) for name in names}
    reader.finish()
    of_coco = dataset == "coco"
    name: Dataset = "coco" if of_coco else "voc"
    n_rows, by_row, by_backbone = scores[name]
    return AccuracyModel(name, n_rows, law, link if of_coco else None, by_row, by_backbone)


def _read_fit(reader: Reader) -> Fit:
    means, triangle = reader.table("parameters"), reader.table("covariance")
    theta = np.array([means.number(name) for name in NAMES])
    lower = np.zeros((len(NAMES), len(NAMES)))
    for i, name in enumerate(NAMES):
        row = triangle.numbers(name)
        if len(row) != i + 1:
            raise triangle.error(name, f"{len(row)} numbers", f"expected {i + 1}", "write the fit again")
        lower[i, : i + 1] = row
    return Fit(theta, lower + np.tril(lower, -1).T)


def _read_link(reader: Reader) -> CocoLink:
    return CocoLink(
        reader.number("ratio", minimum=0.0),
        reader.number("ratio_sd", minimum=0.0),
        reader.number("scatter_ap", minimum=0.0),
    )


def _read_scores(reader: Reader) -> tuple[int, Score, Score]:
    return (
        reader.integer("n_rows", minimum=1),
        _read_score(reader.table("leave_one_out")),
        _read_score(reader.table("leave_one_backbone_out")),
    )


def _read_score(reader: Reader) -> Score:
    return Score(
        reader.integer("n", minimum=1),
        reader.number("mean_absolute_error_ap", minimum=0.0),
        reader.number("kendall_tau", minimum=-1.0, maximum=1.0),
        reader.number("coverage", minimum=0.0, maximum=1.0),
        reader.number("mean_half_width_ap", minimum=0.0),
    )
