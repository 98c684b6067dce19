"""What a backbone gains over ResNet-50 in COCO AP, from detectors that were published on several backbones.

    AP of a detector on a backbone = level of the detector + gain of the backbone + scatter

Fitted by least squares with weak priors to the published rows; what a gain is worth in one more detector has the
posterior's variance and the scatter. Numpy only, a few milliseconds, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from scaler.accuracy.prediction import Z_90, FloatArray
from scaler.accuracy.scores import CrossValidation, HeldOut, score
from scaler.published.vovnet import BackboneRow, backbone_rows

__all__ = ["REFERENCE", "Gain", "backbone_gains", "leave_one_out"]

REFERENCE = "resnet-50"
_GAIN_SD_AP, _LEVEL_SD_AP, _LEVEL_AP = 4.0, 20.0, 40.0
_SCATTER_AP = 0.5
"""Of a backbone's gain from detector to detector; near the maximum of the marginal likelihood of the rows."""


class Gain(NamedTuple):
    """Over ResNet-50 in one more detector, in COCO AP."""

    ap: float
    sd_ap: float
    source: str
    """`published` in other detectors, or from what it was judged."""


_JUDGED = {
    "resnet-18": (REFERENCE, -5.0, 1.5),
    "resnet-34": (REFERENCE, -2.2, 1.5),
    "resnet-152": ("resnet-101", 0.7, 0.7),
    "vovnet-27-slim": ("vovnet2-19-slim", 0.5, 1.5),
    "vovnet-99": ("vovnet-93", 0.2, 0.7),
    "vovnet2-93": ("vovnet2-99", -0.2, 0.7),
}
"""Backbones without rows here: the nearest one that has some, what we add to its gain, and how sure that is."""


@cache
def backbone_gains() -> dict[str, Gain]:
    """Gain by backbone: those of the published rows, and the few that are judged from their nearest relative."""
    means, variances = _fit([row for row in backbone_rows() if not row.unused])
    gains = {
        name: Gain(mean, float(np.sqrt(variances[name] + _SCATTER_AP**2)), "published") for name, mean in means.items()
    }
    gains[REFERENCE] = Gain(0.0, 0.0, "published")
    for name, (relative, more, sd) in _JUDGED.items():
        base = gains[relative]
        gains[name] = Gain(base.ap + more, float(np.hypot(base.sd_ap, sd)), f"judged from {relative}")
    return gains


def leave_one_out() -> CrossValidation:
    """Every used row predicted from the others; rows whose backbone or detector then has none are left aside."""
    rows = [row for row in backbone_rows() if not row.unused]
    held = []
    for i, row in enumerate(rows):
        kept = rows[:i] + rows[i + 1 :]
        if row.backbone in {r.backbone for r in kept} and row.detector in {r.detector for r in kept}:
            mean, sd = _predict(kept, row)
            half = Z_90 * sd
            held.append(HeldOut(row, row.ap, mean, mean - half, mean + half, row.backbone, row.backbone, row.detector))
    return CrossValidation("vovnet", "COCO AP of other detectors", "leave-one-row-out", tuple(held), score(held))


def _predict(rows: Sequence[BackboneRow], row: BackboneRow) -> tuple[float, float]:
    names, mean, covariance = _posterior(rows)
    place = np.array([float(name in (row.backbone, row.detector)) for name in names])
    return float(place @ mean), float(np.sqrt(place @ covariance @ place + _SCATTER_AP**2))


def _fit(rows: Sequence[BackboneRow]) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and variance of every backbone's gain."""
    names, mean, covariance = _posterior(rows)
    backbones = {row.backbone for row in rows}
    places = {name: i for i, name in enumerate(names) if name in backbones}
    return (
        {name: float(mean[i]) for name, i in places.items()},
        {name: float(covariance[i, i]) for name, i in places.items()},
    )


def _posterior(rows: Sequence[BackboneRow]) -> tuple[list[str], FloatArray, FloatArray]:
    """Names of the unknowns (gains without the reference's, then levels), their means and covariance."""
    backbones = [name for name in dict.fromkeys(row.backbone for row in rows) if name != REFERENCE]
    names = backbones + list(dict.fromkeys(row.detector for row in rows))
    design = np.array([[float(name in (row.backbone, row.detector)) for name in names] for row in rows])
    center = np.array([0.0 if name in backbones else _LEVEL_AP for name in names])
    sd = np.array([_GAIN_SD_AP if name in backbones else _LEVEL_SD_AP for name in names])
    residual = np.array([row.ap for row in rows]) - design @ center
    covariance = np.linalg.inv(design.T @ design / _SCATTER_AP**2 + np.diag(sd**-2))
    return names, center + covariance @ design.T @ residual / _SCATTER_AP**2, covariance
