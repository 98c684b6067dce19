"""Light-Weight RetinaNet's trade-off against a smaller input, from what was published.

The curve of a smaller input is measured (Lin et al., "Focal Loss", Table 1e). Of Light-Weight RetinaNet itself two
statements of its abstract are known, and we read them as gains over a smaller input at equal FLOPs, since that is what
the abstract compares with; the paper's table was not available. No accuracy of the released head is published.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scaler.cost import graph_cost
from scaler.models.detectors.retinanet import RetinaNetConfig, build
from scaler.published.retinanet import LIGHTER_GAINS, retinanet_rows

__all__ = ["Curve", "Fit", "PublishedTradeoff", "Statement", "published_tradeoff"]

RECIPE = "focal-loss"
FULL_SIZE = 800
"""Shorter side in pixels at which RetinaNet's FLOPs are 1."""
_RATES = np.linspace(0.1, 12.0, 1191)


class Fit(NamedTuple):
    """`top - drop exp(-rate flops)`: what more input saturates to, and how fast."""

    top: float
    drop: float
    rate: float
    rms: float
    """Of what is left, in AP."""

    def ap(self, flops: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """AP at FLOPs relative to the curve's own full size."""
        return self.top - self.drop * np.exp(-self.rate * np.asarray(flops, dtype=float))


class Published(NamedTuple):
    """A published network."""

    size: int
    """Shorter side in pixels."""
    flops: float
    """Relative to RetinaNet-ResNet50 at `FULL_SIZE`."""
    ap: float
    """COCO AP on test-dev."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One network at several input sizes."""

    backbone: str
    cost: float
    """FLOPs at `FULL_SIZE`, relative to ResNet50's."""
    points: tuple[Published, ...]
    """Smallest first."""
    fit: Fit

    def ap(self, flops: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The fitted AP at FLOPs relative to RetinaNet-ResNet50 at `FULL_SIZE`."""
        return self.fit.ap(np.asarray(flops, dtype=float) / self.cost)


class Statement(NamedTuple):
    """A gain that the abstract states."""

    reduction: float
    gain: float
    flops: float
    ap: float
    """What it comes to on the fitted curve, on test-dev: by our reading, never printed anywhere."""


@dataclass(frozen=True, slots=True)
class PublishedTradeoff:
    """Everything that the picture shows."""

    curves: tuple[Curve, ...]
    """ResNet50's first."""
    statements: tuple[Statement, ...]
    released: float
    """FLOPs of RetinaNet-ResNet50 with the released head; no AP was published."""


@cache
def published_tradeoff() -> PublishedTradeoff:
    """Collect and fit the published figures."""
    curves = tuple(_curve(backbone) for backbone in ("resnet-50", "resnet-101"))
    statements = []
    for reduction, gain in LIGHTER_GAINS:
        flops = 1 / reduction
        statements.append(Statement(reduction, gain, flops, float(curves[0].ap(flops)) + gain))
    return PublishedTradeoff(curves, tuple(statements), _macs("resnet-50", "released") / _macs("resnet-50"))


def _curve(backbone: str) -> Curve:
    cost = _macs(backbone) / _macs("resnet-50")
    points = tuple(
        Published(row.resolution, cost * (row.resolution / FULL_SIZE) ** 2, row.ap)
        for row in sorted(retinanet_rows(), key=lambda row: row.resolution)
        if (row.backbone, row.recipe) == (backbone, RECIPE) and row.ap is not None
    )
    fit = fitted([point.flops / cost for point in points], [point.ap for point in points])
    return Curve(backbone, cost, points, fit)


@cache
def _macs(backbone: str, lighten: str = "none") -> int:
    return graph_cost(build(RetinaNetConfig(backbone=backbone, lighten=lighten, resolution=FULL_SIZE))).macs


def fitted(flops: npt.ArrayLike, ap: npt.ArrayLike) -> Fit:
    """The exponential of least squares: for each rate the other two are a linear regression."""
    x, y = np.asarray(flops, dtype=float), np.asarray(ap, dtype=float)
    best: Fit | None = None
    for rate in _RATES.tolist():
        design = np.column_stack([np.ones_like(x), -np.exp(-rate * x)])
        (top, drop), *_ = np.linalg.lstsq(design, y, rcond=None)
        rms = float(np.sqrt(np.mean((design @ (top, drop) - y) ** 2)))
        if best is None or rms < best.rms:
            best = Fit(float(top), float(drop), rate, rms)
    assert best is not None
    return best
