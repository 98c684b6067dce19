"""The accuracy model of YOLO-ReT: VOC AP50, COCO AP50 and COCO AP from the shipped fit; needs numpy only.

The fit lies beside this file as `yolo_ret.json`, written by `scaler.accuracy.validation.write_shipped`; a
test refits it from the shipped rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scaler.accuracy.curve import NAMES
from scaler.accuracy.features import REFERENCE_RESOLUTION, Features, features, outside
from scaler.accuracy.law import read_posterior
from scaler.accuracy.posterior import Fit, Link
from scaler.accuracy.prediction import (
    METRIC_NAMES,
    NOISE_AP,
    AccuracyPrediction,
    Dataset,
    Facts,
    FloatArray,
    Metric,
    Predictions,
    Provenance,
    Recipe,
    Score,
    interval_90,
)
from scaler.accuracy.scores import read_score
from scaler.errors import UsageError, listed, unknown_name
from scaler.files import Reader, read_json
from scaler.models.detectors.yolo_ret import VOVNETS, YoloRetConfig

__all__ = ["SCHEMA_VERSION", "SHIPPED_FILE", "YoloRetAccuracy", "read_model", "read_shipped"]

SHIPPED_FILE = Path(__file__).with_name("yolo_ret.json")
SCHEMA_VERSION = 2
_RECIPE = Recipe("yolo-ret", 0.0, 0.0, 61, "the paper's two stages (100 and 150 epochs) from ImageNet weights")
_RATIO_SD_BY_SCALE = 0.025
"""Doubt about the share of AP in AP50 per e-fold of the resolution; RetinaNet's drifts by 0.016 (its Table 1e)."""
_TARGETS: dict[tuple[Dataset, Metric], str] = {
    ("voc", "ap50"): "voc",
    ("coco", "ap50"): "coco",
    ("coco", "ap"): "coco_ap",
}
"""Where the file keeps the errors of each figure that is predicted."""


@dataclass(frozen=True, slots=True)
class YoloRetAccuracy:
    """Predicts YOLO-ReT detectors trained by the paper's recipe, whatever their `classes` say."""

    dataset: Dataset
    n_rows: int
    """Published figures of this metric."""
    fit: Fit
    """Of VOC AP50."""
    coco: Link | None
    """From VOC AP50 to COCO AP50; None for a model of VOC."""
    ap: Link | None
    """From COCO AP50 to COCO AP; None for a model of AP50."""
    leave_one_out: Score
    leave_one_backbone_out: Score
    family: str = "yolo-ret"
    recipe: str = _RECIPE.name
    recipes: tuple[Recipe, ...] = (_RECIPE,)
    evaluation: str = "square: the picture is letterboxed into resolution x resolution"
    provenance: Provenance = "calibrated"
    noise_ap: float = NOISE_AP

    @property
    def metric(self) -> str:
        """`AP50` or `AP`."""
        return METRIC_NAMES["ap50" if self.ap is None else "ap"]

    @property
    def scores(self) -> dict[str, Score]:
        """Errors on what the fit has not seen, by the scheme of leaving out."""
        return {"leave-one-detector-out": self.leave_one_out, "leave-one-backbone-out": self.leave_one_backbone_out}

    @property
    def facts(self) -> Facts:
        """For a report's card."""
        rows, backbones = self.leave_one_out, self.leave_one_backbone_out
        few = () if self.ap is None else (f"only {self.n_rows} detectors have a published COCO AP, all at 320 px",)
        return Facts(
            name="YOLO-ReT accuracy law",
            provenance=self.provenance,
            fitted_on=f"{self.n_rows} published detectors (YOLO-ReT, WACV 2022)",
            errors={
                "leave-one-detector-out mean error": f"{rows.mean_absolute_error_ap:.2f} AP",
                "leave-one-backbone-out mean error": f"{backbones.mean_absolute_error_ap:.2f} AP",
                "Kendall tau": f"{rows.kendall_tau:.2f} / {backbones.kendall_tau:.2f}",
                "coverage of 90 % intervals": f"{100 * rows.coverage:.0f} / {100 * backbones.coverage:.0f} %",
            },
            notes=(
                f"differences under {self.noise_ap:g} AP are noise in the published single training runs",
                "predicts the paper's training recipe with ImageNet weights; another recipe gives another AP",
                *few,
            ),
        )

    def predict(self, config: YoloRetConfig) -> AccuracyPrediction:
        """The prediction of one configuration; `predict_many` is 30 times as fast where there are many."""
        mean, low, high = (float(values[0]) for values in self._interval(features([config])))
        reasons = outside(config) + self._without_ap(config.resolution)
        provenance: Provenance = "estimated" if config.backbone in VOVNETS else self.provenance
        return AccuracyPrediction(mean, low, high, not reasons, reasons, provenance)

    def predict_many(self, configs: Iterable[YoloRetConfig]) -> Predictions:
        """The predictions of many configurations."""
        x = features(configs)
        known = x.inside > 0.0 if self.ap is None else (x.inside > 0.0) & (x.ln_scale == 0.0)
        return Predictions(*self._interval(x), known)

    def _without_ap(self, resolution: int) -> tuple[str, ...]:
        """Why COCO AP is less known than AP50."""
        if self.ap is None or resolution == REFERENCE_RESOLUTION:
            return ()
        return (f"no COCO AP was published at {resolution} px, only at {REFERENCE_RESOLUTION}",)

    def _interval(self, x: Features) -> tuple[FloatArray, FloatArray, FloatArray]:
        mean, variance = self.fit.mean_and_variance(x)
        if self.coco is not None:
            mean, variance = self.coco.apply(mean, variance)
        if self.ap is not None:
            drift = _RATIO_SD_BY_SCALE * x.ln_scale * mean
            mean, variance = self.ap.apply(mean, variance)
            variance = variance + drift**2
        return interval_90(mean, variance)


@cache
def read_shipped(dataset: Dataset, metric: Metric, recipe: str | None = None) -> YoloRetAccuracy:
    """The shipped model.

    Raises:
        UsageError: The recipe is not the paper's, the only one.
        FileError: The shipped fit was damaged.
    """
    if recipe not in (None, _RECIPE.name):
        raise UsageError(unknown_name("recipe of yolo-ret", str(recipe), [_RECIPE.name]))
    return read_model(SHIPPED_FILE, dataset, metric)


def read_model(path: Path, dataset: str, metric: str = "ap50") -> YoloRetAccuracy:
    """Read a fit as `load` does, from any file.

    Raises:
        UsageError: There is no model of that data set or metric.
        FileError: The file is malformed; the message has the dotted path.
    """
    if dataset not in ("voc", "coco"):
        raise UsageError(unknown_name("dataset", dataset, ("voc", "coco")))
    found = next((target for target in _TARGETS if target == (dataset, metric)), None)
    if found is None:
        known = [name for of, name in _TARGETS if of == dataset]
        raise UsageError(f"metric = {metric!r}: allowed for yolo-ret on {dataset} is {listed(known)}")
    reader = read_json(path, schema_version=SCHEMA_VERSION)
    law = Fit(*read_posterior(reader, NAMES))
    coco, ap = _read_link(reader.table("coco_link")), _read_link(reader.table("ap_link"))
    scores = {name: _read_scores(reader.table(name)) for name in _TARGETS.values()}
    reader.finish()
    name, figure = found
    n_rows, by_row, by_backbone = scores[_TARGETS[found]]
    return YoloRetAccuracy(
        name, n_rows, law, coco if name == "coco" else None, ap if figure == "ap" else None, by_row, by_backbone
    )


def _read_link(reader: Reader) -> Link:
    return Link(
        reader.number("ratio", minimum=0.0),
        reader.number("ratio_sd", minimum=0.0),
        reader.number("scatter_ap", minimum=0.0),
    )


def _read_scores(reader: Reader) -> tuple[int, Score, Score]:
    return (
        reader.integer("n_rows", minimum=1),
        read_score(reader.table("leave_one_out")),
        read_score(reader.table("leave_one_backbone_out")),
    )
