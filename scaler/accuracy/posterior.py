"""What a fit leaves behind: the law's parameters with their covariance, and links from one figure to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scaler.accuracy.curve import gradient
from scaler.accuracy.features import Features
from scaler.accuracy.prediction import FloatArray

__all__ = ["BACKBONE_SD_AP", "Fit", "Link", "scatter_ap"]

# The next four are round values where the marginal likelihood of the published rows is near its maximum
# (docs/adr/004-accuracy-model.md).
BACKBONE_SD_AP = 0.25
"""Scatter of the backbones around the law of their size."""
_SCATTER_AP = 0.15
_SCATTER_BY_NARROWNESS = 2.5
_SCATTER_BY_SCALE = 3.0
_BEYOND_SD_AP = 2.5
"""Doubt about the resolution curve per e-fold outside the published 224..416 px; no data, a judgement."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The law's parameters, shape ``[COUNT]``, and their posterior covariance."""

    theta: FloatArray
    covariance: FloatArray

    def mean_and_variance(self, x: Features) -> tuple[FloatArray, FloatArray]:
        """VOC AP50 and the variance of a published figure around it: parameters, backbone and run."""
        mean, by_theta = gradient(self.theta, x)
        variance = np.einsum("ij,ij->i", by_theta @ self.covariance, by_theta)
        unseen = x.off_knot * BACKBONE_SD_AP**2 + (_BEYOND_SD_AP * x.beyond) ** 2
        return mean, variance + scatter_ap(x) ** 2 + unseen


@dataclass(frozen=True, slots=True)
class Link:
    """One figure as a fixed share of another: COCO AP50 of VOC AP50 (nine pairs), COCO AP of COCO AP50 (three)."""

    ratio: float
    ratio_sd: float
    scatter_ap: float

    def apply(self, figure: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and variance of the other figure; the errors of the first and of the link both count."""
        total = self.ratio**2 * variance + (figure * self.ratio_sd) ** 2 + self.scatter_ap**2
        return self.ratio * figure, total


def scatter_ap(x: Features) -> FloatArray:
    """Standard deviation of a single published run around the law.

    It grows for narrow backbones and away from 320 px, where the paper's rows scatter more.
    """
    by_backbone = 1.0 + _SCATTER_BY_NARROWNESS * x.narrowness
    by_resolution = 1.0 + _SCATTER_BY_SCALE * np.abs(x.ln_scale)
    return _SCATTER_AP * by_backbone * by_resolution
