"""The accuracy law of Scaled-YOLOv4: what is left to the ceiling falls as a power of compute, depth and native size.

    AP = ceiling - error x compute^-p x depth^-q x native^-g x (leaky, swish) - tiny's structure + three levels + RFCR
         - loss of a size below the native one + gain of a size above it

`compute` is the MACs at a fixed size over YOLOv4-CSP's, `depth` its backbone's units likewise, and `native` the size
that a variant is made for over 640: a larger one comes with more stages or depth, as in the paper's compound scaling.
All exponents and gains are positive, so that the orders hold for the whole space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np

from scaler.accuracy.curve import Prior
from scaler.accuracy.law import Law, beyond, columns
from scaler.accuracy.prediction import FloatArray, Metric
from scaler.accuracy.scaled_macs import macs_per_pixel
from scaler.accuracy.scaled_recipes import RECIPES
from scaler.models.detectors.scaled_yolov4 import PLANS, is_tiny, native_activation, scaled_units

__all__ = ["LAW", "NATIVE", "Features", "features", "outside", "value"]

NATIVE = {"tiny": 416, "tiny-3l": 416, **{variant: plan.resolution for variant, plan in PLANS.items()}}
"""The size in pixels that each variant was published for; tiny-3l takes that of tiny."""


class Network(Protocol):
    """What the law reads of a configuration or of a published row."""

    @property
    def variant(self) -> str: ...
    @property
    def width(self) -> float: ...
    @property
    def depth(self) -> float: ...
    @property
    def rfcr(self) -> int: ...
    @property
    def activation(self) -> str: ...
    @property
    def resolution(self) -> int: ...


class Features(NamedTuple):
    """One array a feature, all of the length of the configurations."""

    ln_compute: FloatArray
    """Logarithm of the MACs at a fixed size over those of YOLOv4-CSP."""
    ln_depth: FloatArray
    """Logarithm of the backbone's residual units at strides 2 to 32 over CSP's 23; 0 for tiny."""
    ln_native: FloatArray
    """Logarithm of the native size over 640."""
    leaky: FloatArray
    """Leaky ReLU, and ReLU, which nobody published."""
    swish: FloatArray
    tiny: FloatArray
    three_levels: FloatArray
    """1 for tiny-3l."""
    rfcr: FloatArray
    below: FloatArray
    """Native size over the size, at least 1."""
    above: FloatArray
    """Native size over the size, at most 1."""
    doubt: FloatArray
    """Standard deviation in points of what has no data behind it."""


_FITTED = {
    "ceiling": (Prior(62.0, 3.0, 57.5, 75.0), Prior(79.0, 3.0, 75.0, 95.0)),
    "error": (Prior(12.5, 1.5, 3.0, 40.0), Prior(12.5, 2.0, 3.0, 40.0)),
    "compute_power": (Prior(0.3, 0.1, 0.05, 0.8),) * 2,
    "depth_power": (Prior(0.05, 0.05, 0.0, 0.5),) * 2,
    "native_power": (Prior(0.7, 0.25, 0.1, 1.5),) * 2,
    "leaky": (Prior(0.1, 0.06, 0.0, 0.4),) * 2,
    "swish": (Prior(0.0, 0.04, -0.2, 0.2),) * 2,
    "tiny": (Prior(6.0, 5.0, -20.0, 30.0),) * 2,
    "three_levels": (Prior(1.5, 2.5, -6.0, 10.0),) * 2,
    "rfcr": (Prior(0.6, 0.5, 0.0, 3.0), Prior(0.9, 0.6, 0.0, 3.0)),
    "below_loss": (Prior(3.0, 1.0, 0.3, 8.0),) * 2,
    "below_power": (Prior(1.5, 0.4, 0.5, 3.0),) * 2,
    "above_gain": (Prior(0.5, 0.5, 0.0, 3.0),) * 2,
}
"""Beliefs about AP and AP50. RFCR's are Table 7's gain on a three-level network whose own level is not comparable."""


@cache
def _priors(metric: Metric) -> dict[str, Prior]:
    return {name: beliefs[metric == "ap50"] for name, beliefs in _FITTED.items()}


class _Range(NamedTuple):
    """What was published of a variant."""

    sizes: tuple[int, int]
    widths: tuple[float, float] = (1.0, 1.0)
    depths: tuple[float, float] = (1.0, 1.0)


_CSP_SIZES = (256, 736)
_PUBLISHED = {
    "tiny": _Range((288, 416)),
    "tiny-3l": _Range((288, 416)),
    "csp": _Range(_CSP_SIZES, (0.5, 1.25), (0.33, 1.33)),
    "pacsp-s": _Range(_CSP_SIZES),
    "pacsp-x": _Range(_CSP_SIZES),
    "p5": _Range((896, 896)),
    "p6": _Range((1280, 1280)),
    "p7": _Range((1536, 1536), (1.25, 1.25)),
}
_DEPTH_BY_WIDTH = 1.5
"""Power of the width by which the published multipliers deepen: 0.33 at 0.5, 1.33 at 1.25."""
_APART = 0.35
"""How far from it, as a logarithm, width and depth count as scaled apart."""
_APART_SD, _BEYOND_WIDTH_SD, _BEYOND_TINY_WIDTH_SD, _BEYOND_DEPTH_SD, _BEYOND_SIZE_SD = 0.6, 1.5, 4.0, 0.8, 2.5
_ACTIVATION_SD = 0.5
"""Doubts in points, all but the last per unit of logarithm; no data, a judgement."""


class _Piece(NamedTuple):
    """What one part of a configuration contributes: a stretch of `Features`, doubts, reasons in `outside`."""

    values: tuple[float, ...]
    doubt: float
    reasons: tuple[str, ...]


def features(networks: Iterable[Network]) -> Features:
    """The features of many networks."""
    return Features(*columns((_row(network) for network in networks), len(Features._fields)))


def outside(network: Network) -> tuple[str, ...]:
    """Why a network lies outside the published data; empty where it lies inside."""
    return tuple(reason for piece in _pieces(network) for reason in piece.reasons)


def value(theta: FloatArray, x: Features) -> FloatArray:
    """Accuracy in points by the paper's recipe.

    Args:
        theta: Parameters in the order of `LAW.priors`, shape ``[..., count]``.
        x: Features of n networks.

    Returns:
        Shape ``[..., n]``.
    """
    p = dict(zip(_FITTED, np.moveaxis(theta[..., None], -2, 0), strict=True))
    ln_error = (
        -p["compute_power"] * x.ln_compute
        - p["depth_power"] * x.ln_depth
        - p["native_power"] * x.ln_native
        + p["leaky"] * x.leaky
        + p["swish"] * x.swish
    )
    result: FloatArray = (
        p["ceiling"]
        - p["error"] * np.exp(ln_error)
        - p["below_loss"] * (x.below ** p["below_power"] - 1.0)
        + p["above_gain"] * (1.0 - x.above ** p["below_power"])
        - p["tiny"] * x.tiny
        + p["three_levels"] * x.three_levels
        + p["rfcr"] * x.rfcr
    )
    return result


def _row(network: Network) -> tuple[float, ...]:
    pieces = _pieces(network)
    doubt = math.hypot(*(piece.doubt for piece in pieces))
    return (*(value for piece in pieces for value in piece.values), doubt)


def _pieces(network: Network) -> tuple[_Piece, _Piece, _Piece, _Piece]:
    return (
        _of_scale(network.variant, network.width, network.depth),
        _of_activation(network.variant, network.activation),
        _of_structure(network.variant, network.rfcr),
        _of_size(network.variant, network.resolution),
    )


@cache
def _of_scale(variant: str, width: float, depth: float) -> _Piece:
    compute = math.log(macs_per_pixel(variant, width, depth) / macs_per_pixel("csp"))
    units = 0.0 if is_tiny(variant) else math.log(_units(variant, depth) / _units("csp", 1.0))
    values = (compute, units, math.log(NATIVE[variant] / NATIVE["csp"]))
    known, reasons = _PUBLISHED[variant], []
    beyond_width, beyond_depth = beyond(width, known.widths), beyond(depth, known.depths)
    if beyond_width:
        reasons.append(f"width {width:g} of {variant} was not published, {_span(known.widths)} was")
    if beyond_depth:
        reasons.append(f"depth {depth:g} of {variant} was not published, {_span(known.depths)} was")
    apart = abs(math.log(depth) - _DEPTH_BY_WIDTH * math.log(width)) if variant == "csp" else 0.0
    if apart > _APART and not reasons:
        reasons.append(f"width {width:g} with depth {depth:g}: the published multipliers grow together")
    by_width = (_BEYOND_TINY_WIDTH_SD if is_tiny(variant) else _BEYOND_WIDTH_SD) * beyond_width
    doubt = math.hypot(_APART_SD * apart, by_width, _BEYOND_DEPTH_SD * beyond_depth)
    return _Piece(values, doubt, tuple(reasons))


def _units(variant: str, depth: float) -> int:
    """Residual units up to stride 32."""
    return sum(scaled_units(stage.units, depth) for stage in PLANS[variant].stages[:5])


@cache
def _of_activation(variant: str, activation: str) -> _Piece:
    kind = native_activation(variant) if activation == "native" else activation
    values = (float(kind in ("leaky", "relu")), float(kind == "swish"))
    large = variant in ("p5", "p6", "p7")
    published = ("leaky",) if is_tiny(variant) else ("mish",) if large else ("leaky", "mish", "swish")
    if kind in published:
        return _Piece(values, 0.0, ())
    return _Piece(values, _ACTIVATION_SD, (f"{variant} with {kind} was not published",))


@cache
def _of_structure(variant: str, rfcr: int) -> _Piece:
    reasons = []
    if variant == "tiny-3l":
        reasons.append("no AP of AlexeyAB's tiny-3l was published; the paper's three-level network is another one")
    if rfcr not in (0, 5):
        reasons.append(f"RFCR kernel {rfcr} has no published figure, only 5")
    values = (float(is_tiny(variant)), float(variant == "tiny-3l"), float(rfcr > 0))
    return _Piece(values, 0.0, tuple(reasons))


@cache
def _of_size(variant: str, resolution: int) -> _Piece:
    ratio, known = NATIVE[variant] / resolution, _PUBLISHED[variant].sizes
    outlying = beyond(resolution, known)
    reasons = (f"resolution {resolution} of {variant} was not published, {_span(known)} was",) if outlying else ()
    return _Piece((max(ratio, 1.0), min(ratio, 1.0)), _BEYOND_SIZE_SD * outlying, reasons)


def _span(known: tuple[float, float]) -> str:
    low, high = known
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"


LAW: Law[Features] = Law(
    family="scaled-yolov4",
    title="Scaled-YOLOv4 accuracy law",
    fitted_on="published training runs (Scaled-YOLOv4 and its repositories)",
    priors=_priors,
    features=features,
    value=value,
    size=lambda x: x.ln_compute,
    doubt_ap=lambda x: x.doubt,
    outside=outside,
    judged=lambda network: network.variant == "tiny-3l" or network.activation == "relu",
    evaluation=(
        "rectangular: the long side is the resolution, padded to whole strides and one more (928 px for 896); tiny "
        "square"
    ),
    notes=(
        "the paper's recipe was published for tiny, CSP and P5 to P7; others are carried over from other recipes",
        "a square letterboxed engine sees objects at the same scale, and padding of its own",
    ),
    scatter_ap=0.3,
    recipes=RECIPES,
    recipe_sd_ap=1.3,
    slope_sd_ap=0.4,
)
"""Scatters are round values near the maximum of the marginal likelihood (docs/adr/010-accuracy-of-all-families.md)."""
