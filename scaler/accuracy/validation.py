"""Cross-validation of the accuracy model from the shipped rows, and the file that ships the fit.

A detector that stands in several tables is one row, so it is left out everywhere at once.
Leave-one-backbone-out leaves out every row of one backbone (one width of MobileNetV2, one EfficientNet).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from scaler.accuracy.curve import NAMES
from scaler.accuracy.features import FloatArray, features
from scaler.accuracy.fitting import Observation, fit, fit_coco, observations
from scaler.accuracy.model import NOISE_AP, SCHEMA_VERSION, SHIPPED_FILE, Dataset, Score
from scaler.accuracy.posterior import Z_90, CocoLink, Fit
from scaler.files import write_atomic
from scaler.models.detectors.yolo_ret import YoloRetConfig

__all__ = ["CrossValidation", "HeldOut", "ValidationReport", "validate", "write_shipped"]

NOISE_STATEMENT = (
    f"Differences under {NOISE_AP:g} AP are noise: the published rows are single training runs without error "
    "bars, and the paper gives one network (EfficientNet-B3, complete) as 72.05 and as 72.39 AP50."
)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A published figure beside its prediction by a fit that has not seen it."""

    config: YoloRetConfig
    published: float
    predicted: float
    low: float
    high: float

    @property
    def error_ap(self) -> float:
        """Predicted less published."""
        return self.predicted - self.published

    @property
    def covered(self) -> bool:
        """Whether the 90 % interval holds the published figure."""
        return self.low <= self.published <= self.high


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """One scheme on one dataset."""

    dataset: Dataset
    scheme: str
    """`leave-one-out` or `leave-one-backbone-out`."""
    rows: tuple[HeldOut, ...]
    score: Score

    def worst(self, count: int = 5) -> tuple[HeldOut, ...]:
        """The rows with the largest errors, largest first."""
        return tuple(sorted(self.rows, key=lambda row: -abs(row.error_ap))[:count])

    def error_by_backbone(self) -> dict[str, float]:
        """Mean absolute error in AP of every backbone's rows."""
        errors: dict[str, list[float]] = {}
        for row in self.rows:
            errors.setdefault(_backbone(row.config), []).append(abs(row.error_ap))
        return {name: float(np.mean(values)) for name, values in errors.items()}


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What `scaler accuracy validate` prints."""

    voc: tuple[CrossValidation, CrossValidation]
    """Leave-one-out, then leave-one-backbone-out."""
    coco: tuple[CrossValidation, CrossValidation]
    noise: str = NOISE_STATEMENT


def validate() -> ValidationReport:
    """Cross-validate VOC and COCO AP50 from the shipped rows; some 70 fits, about 2 s."""
    data = observations()
    voc, coco = zip(*(_both(data, *scheme) for scheme in _schemes(data)), strict=True)
    return ValidationReport((voc[0], voc[1]), (coco[0], coco[1]))


def write_shipped(path: Path = SHIPPED_FILE) -> None:
    """Fit all shipped rows, cross-validate, and write the file that `scaler.accuracy.load` reads."""
    data, report = observations(), validate()
    law = fit(data)
    content = {
        "schema_version": SCHEMA_VERSION,
        "parameters": dict(zip(NAMES, _rounded(law.theta), strict=True)),
        "covariance": {name: _rounded(law.covariance[i, : i + 1]) for i, name in enumerate(NAMES)},
        "coco_link": asdict(fit_coco(data, law)),
        "voc": _scores(report.voc),
        "coco": _scores(report.coco),
    }
    write_atomic(path, json.dumps(content, indent=1) + "\n")


def _schemes(data: Sequence[Observation]) -> tuple[tuple[str, list[list[int]]], ...]:
    by_backbone: dict[str, list[int]] = {}
    for i, row in enumerate(data):
        by_backbone.setdefault(_backbone(row.config), []).append(i)
    singles = [[i] for i in range(len(data))]
    return ("leave-one-out", singles), ("leave-one-backbone-out", list(by_backbone.values()))


def _both(
    data: Sequence[Observation], scheme: str, folds: Iterable[list[int]]
) -> tuple[CrossValidation, CrossValidation]:
    """VOC and COCO of one scheme; a COCO row's fold is left out of the VOC fit and of the link."""
    voc: dict[int, HeldOut] = {}
    coco: dict[int, HeldOut] = {}
    for fold in folds:
        kept = [row for i, row in enumerate(data) if i not in fold]
        law, held = fit(kept), [data[i] for i in fold]
        voc.update(zip(fold, _held_out(held, law, None), strict=True))
        if any(row.coco_ap50 is not None for row in held):
            coco.update(zip(fold, _held_out(held, law, fit_coco(kept, law)), strict=True))
    with_coco = [i for i in sorted(coco) if data[i].coco_ap50 is not None]
    return (
        _scored("voc", scheme, [voc[i] for i in range(len(data))]),
        _scored("coco", scheme, [coco[i] for i in with_coco]),
    )


def _held_out(held: Sequence[Observation], law: Fit, link: CocoLink | None) -> list[HeldOut]:
    mean, variance = law.mean_and_variance(features(row.config for row in held))
    published = [row.voc_ap50 for row in held]
    if link is not None:
        mean, variance = link.apply(mean, variance)
        published = [np.nan if row.coco_ap50 is None else row.coco_ap50 for row in held]
    half = Z_90 * np.sqrt(variance)
    table = np.column_stack([published, mean, mean - half, mean + half]).tolist()
    return [HeldOut(row.config, *figures) for row, figures in zip(held, table, strict=True)]


def _scored(dataset: Dataset, scheme: str, rows: Sequence[HeldOut]) -> CrossValidation:
    errors = np.array([row.error_ap for row in rows])
    score = Score(
        n=len(rows),
        mean_absolute_error_ap=float(np.mean(np.abs(errors))),
        kendall_tau=kendall_tau([row.published for row in rows], [row.predicted for row in rows]),
        coverage=float(np.mean([row.covered for row in rows])),
        mean_half_width_ap=float(np.mean([row.high - row.low for row in rows])) / 2.0,
    )
    return CrossValidation(dataset, scheme, tuple(rows), score)


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b: agreement of two orders, ties allowed for."""
    above = np.triu_indices(len(first), 1)
    signs = [np.sign(np.subtract.outer(values, values))[above] for values in (first, second)]
    return float(np.sum(signs[0] * signs[1]) / np.sqrt(np.prod([np.count_nonzero(sign) for sign in signs])))


def _backbone(config: YoloRetConfig) -> str:
    return f"{config.backbone}-{config.width:g}" if config.backbone == "mobilenetv2" else config.backbone


def _scores(pair: tuple[CrossValidation, CrossValidation]) -> dict[str, object]:
    by_row, by_backbone = pair
    return {
        "n_rows": by_row.score.n,
        "leave_one_out": asdict(by_row.score),
        "leave_one_backbone_out": asdict(by_backbone.score),
    }


def _rounded(values: FloatArray) -> list[float]:
    return [float(f"{value:.10g}") for value in values]
