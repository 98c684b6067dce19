"""Cross-validation of the YOLO-ReT model from the shipped rows, and the file that ships the fit.

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
from scaler.accuracy.features import features
from scaler.accuracy.fitting import Observation, fit, fit_ap, fit_coco, observations
from scaler.accuracy.model import SCHEMA_VERSION, SHIPPED_FILE
from scaler.accuracy.posterior import Fit, Link
from scaler.accuracy.prediction import NOISE_AP, Z_90, FloatArray
from scaler.accuracy.scores import CrossValidation, HeldOut, score
from scaler.files import write_atomic
from scaler.models.detectors.yolo_ret import YoloRetConfig

__all__ = ["NOISE_STATEMENT", "ValidationReport", "validate", "write_shipped"]

_FAMILY = "yolo-ret"
NOISE_STATEMENT = (
    f"Differences under {NOISE_AP:g} AP are noise: the published rows are single training runs without error "
    "bars, and the paper gives one network (EfficientNet-B3, complete) as 72.05 and as 72.39 AP50."
)


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What `scaler accuracy validate --family yolo-ret` prints."""

    voc: tuple[CrossValidation, CrossValidation]
    """Leave-one-out, then leave-one-backbone-out."""
    coco: tuple[CrossValidation, CrossValidation]
    coco_ap: tuple[CrossValidation, CrossValidation]
    noise: str = NOISE_STATEMENT


def validate() -> ValidationReport:
    """Cross-validate VOC AP50, COCO AP50 and COCO AP from the shipped rows; some 70 fits, about 2 s."""
    data = observations()
    voc, coco, coco_ap = zip(*(_by_figure(data, *scheme) for scheme in _schemes(data)), strict=True)
    return ValidationReport((voc[0], voc[1]), (coco[0], coco[1]), (coco_ap[0], coco_ap[1]))


def write_shipped(path: Path = SHIPPED_FILE) -> None:
    """Fit all shipped rows, cross-validate, and write the file that `scaler.accuracy.load` reads."""
    data, report = observations(), validate()
    law = fit(data)
    content = {
        "schema_version": SCHEMA_VERSION,
        "parameters": dict(zip(NAMES, _rounded(law.theta), strict=True)),
        "covariance": {name: _rounded(law.covariance[i, : i + 1]) for i, name in enumerate(NAMES)},
        "coco_link": asdict(fit_coco(data, law)),
        "ap_link": asdict(fit_ap(data)),
        "voc": _scores(report.voc),
        "coco": _scores(report.coco),
        "coco_ap": _scores(report.coco_ap),
    }
    write_atomic(path, json.dumps(content, indent=1) + "\n")


def _schemes(data: Sequence[Observation]) -> tuple[tuple[str, list[list[int]]], ...]:
    by_backbone: dict[str, list[int]] = {}
    for i, row in enumerate(data):
        by_backbone.setdefault(_backbone(row.config), []).append(i)
    singles = [[i] for i in range(len(data))]
    return ("leave-one-detector-out", singles), ("leave-one-backbone-out", list(by_backbone.values()))


def _by_figure(
    data: Sequence[Observation], scheme: str, folds: Iterable[list[int]]
) -> tuple[CrossValidation, CrossValidation, CrossValidation]:
    """VOC AP50, COCO AP50 and COCO AP of one scheme; a row's fold is left out of the law and of both links."""
    voc: list[HeldOut] = []
    coco: list[HeldOut] = []
    coco_ap: list[HeldOut] = []
    for fold in folds:
        kept = [row for i, row in enumerate(data) if i not in fold]
        law, held = fit(kept), [data[i] for i in fold]
        voc += _held_out(held, [row.voc_ap50 for row in held], law)
        if any(row.coco_ap50 is not None for row in held):
            links = [fit_coco(kept, law)]
            coco += _held_out(held, [row.coco_ap50 for row in held], law, links)
            links.append(fit_ap(kept))
            coco_ap += _held_out(held, [row.coco_ap for row in held], law, links)
    return (
        CrossValidation(_FAMILY, "VOC AP50", scheme, tuple(voc), score(voc)),
        CrossValidation(_FAMILY, "COCO AP50", scheme, tuple(coco), score(coco)),
        CrossValidation(_FAMILY, "COCO AP", scheme, tuple(coco_ap), score(coco_ap)),
    )


def _held_out(
    held: Sequence[Observation], published: Sequence[float | None], law: Fit, links: Iterable[Link] = ()
) -> list[HeldOut]:
    """The rows that have this figure, beside what a fit without them predicts."""
    mean, variance = law.mean_and_variance(features(row.config for row in held))
    for link in links:
        mean, variance = link.apply(mean, variance)
    half = Z_90 * np.sqrt(variance)
    table = np.column_stack([mean, mean - half, mean + half]).tolist()
    return [
        HeldOut(row.config, figure, mean_ap, low, high, row.config.name, _backbone(row.config), _FAMILY)
        for row, figure, (mean_ap, low, high) in zip(held, published, table, strict=True)
        if figure is not None
    ]


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
