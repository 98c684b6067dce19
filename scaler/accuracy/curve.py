"""The accuracy law: VOC AP50 of a YOLO-ReT detector from its features and named parameters.

    AP50 = backbone + resolution + relief of the cut + RFCR + shortcut + BiFPN + repeats
           - (1 - restored by RFCR) x loss of the cut, which a weak neck amplifies
           - (1 - restored by RFCR) x loss of a weak neck

Every loss and gain has a sign of its own (see the bounds of `PRIORS`), so that the orders which the paper
shows hold for the whole space: more pixels, a wider backbone, a stronger neck, RFCR and its shortcut never
cost accuracy; RFCR brings less where the neck is strong; a cut hurts a narrow backbone more, and never more
with RFCR.
"""

from __future__ import annotations

import math
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from scaler.accuracy.features import KNOTS, Features
from scaler.accuracy.prediction import FloatArray

__all__ = [
    "COUNT",
    "NAMES",
    "PRIORS",
    "Parameters",
    "Prior",
    "ap50",
    "base_levels",
    "expected_levels",
    "gradient",
]

T = TypeVar("T")


class Prior(NamedTuple):
    """What is believed of a parameter before the data: a normal law within hard bounds."""

    mean: float
    sd: float
    low: float
    high: float


class Parameters(NamedTuple, Generic[T]):
    """The parameters of the law, in AP50 points unless the name says otherwise."""

    level: T
    """A MobileNetV2 of 4.36 M parameters (x1.4): complete, PANet, no RFCR, 320 px."""
    per_ln_params: T
    """Gain when the backbone's parameters grow e-fold."""
    efficient_gain: T
    """EfficientNet over a MobileNetV2 of as many parameters."""
    collapse_slope: T
    """Further gain per e-fold among backbones too small for the task."""
    collapse_at: T
    """Logarithm of the millions of parameters below which a backbone is too small."""
    collapse_width: T
    """How gradual that is."""
    resolution_gain: T
    """From 320 px to very many."""
    resolution_power: T
    """Exponent of its saturation."""
    cut_relief: T
    """What cutting the classification-specific tail gains."""
    cut_loss: T
    """Loss at the published cut per unit of narrowness."""
    deeper_loss: T
    """Loss of every block cut beyond it (no data; its pretraining is worth 0.04 to 0.3 in Figure 2)."""
    neck_amplification: T
    """How much more a cut costs without a neck, relative."""
    neck_gain: T
    """PANet over no neck where nothing is cut."""
    fpn_share: T
    """Share of that which FPN reaches."""
    bifpn_offset: T
    """BiFPN with one repeat over PANet."""
    repeat_gain: T
    """From one to very many repeats of BiFPN."""
    repeat_share: T
    """Share of that for repeated FPN or PANet (no data)."""
    rfcr_gain: T
    """RFCR's gain whatever the rest."""
    rfcr_for_neck: T
    """Share of a weak neck's loss that RFCR restores."""
    rfcr_for_cut: T
    """Share of a cut's loss that RFCR restores."""
    bifpn_overlap: T
    """Share of the latter that BiFPN leaves nothing to restore of."""
    small_kernel_share: T
    """RFCR with a 3x3 kernel relative to 5x5 (no data)."""
    shortcut_gain: T
    """The stride-4 input of RFCR."""
    vovnet_transfer: T
    """AP50 here per COCO AP that a VoVNet gains over MobileNetV2 x1.0 in other detectors (no data)."""


PRIORS = Parameters(
    level=Prior(70.0, 2.0, 60.0, 80.0),
    per_ln_params=Prior(0.8, 0.5, 0.05, 4.0),
    efficient_gain=Prior(1.0, 1.0, -2.0, 4.0),
    collapse_slope=Prior(6.0, 3.0, 0.1, 20.0),
    collapse_at=Prior(0.3, 0.4, -1.0, 2.0),
    collapse_width=Prior(0.25, 0.1, 0.05, 2.0),
    resolution_gain=Prior(12.0, 4.0, 0.5, 40.0),
    resolution_power=Prior(1.5, 0.5, 0.5, 3.0),
    cut_relief=Prior(0.2, 0.2, 0.0, 1.0),
    cut_loss=Prior(2.5, 1.5, 0.1, 8.0),
    deeper_loss=Prior(0.4, 0.4, 0.02, 3.0),
    neck_amplification=Prior(1.5, 1.0, 0.0, 10.0),
    neck_gain=Prior(1.2, 0.6, 0.1, 10.0),
    fpn_share=Prior(0.5, 0.2, 0.05, 0.95),
    bifpn_offset=Prior(0.0, 0.3, -1.0, 1.0),
    repeat_gain=Prior(0.4, 0.2, 0.02, 2.0),
    repeat_share=Prior(0.5, 0.3, 0.0, 1.0),
    rfcr_gain=Prior(0.5, 0.3, 0.05, 3.0),
    rfcr_for_neck=Prior(0.3, 0.2, 0.0, 0.9),
    rfcr_for_cut=Prior(0.4, 0.2, 0.0, 0.9),
    bifpn_overlap=Prior(0.5, 0.3, 0.0, 1.0),
    small_kernel_share=Prior(0.85, 0.1, 0.3, 1.0),
    shortcut_gain=Prior(0.2, 0.15, 0.0, 2.0),
    vovnet_transfer=Prior(0.35, 0.2, 0.0, 1.5),
)
"""Weak beliefs, of the order of the paper's own differences.

`deeper_loss`, `repeat_share`, `small_kernel_share` and `vovnet_transfer` have no data and stay at their priors. The
last is what MobileNetV2 x1.0 to EfficientNet-B3 gives: 2.7 AP50 here, some 7 COCO AP in detectors that train longer.
"""

_LAW = len(PRIORS)
NAMES = (*Parameters._fields, *(f"step {knot.name}" for knot in KNOTS))
"""The law's parameters, then one a knot: its AP50 over the next smaller one's; the smallest's own."""
COUNT = len(NAMES)

_MOBILE = sum(not knot.efficient for knot in KNOTS)
_KNOT_LN_PARAMS = np.log([knot.million_params for knot in KNOTS])
_KNOT_EFFICIENT = np.array([float(knot.efficient) for knot in KNOTS])
_LEVEL_LN_PARAMS = math.log(KNOTS[_MOBILE - 1].million_params)
_STEP = 1e-6


def ap50(theta: FloatArray, x: Features) -> FloatArray:
    """VOC AP50 in points.

    Args:
        theta: Parameter vectors, shape ``[..., COUNT]``.
        x: Features of n configurations.

    Returns:
        Shape ``[..., n]``.
    """
    p = _named(theta)
    rfcr = x.rfcr * (1.0 - (1.0 - p.small_kernel_share) * x.small_kernel)
    weak_neck = x.none + (1.0 - p.fpn_share) * x.fpn
    cut_loss = p.cut_loss * x.narrowness * x.cut + p.deeper_loss * x.deeper
    restored = p.rfcr_for_cut * (1.0 - p.bifpn_overlap * x.bifpn) * rfcr
    return (
        _backbone(theta, p, x)
        + p.resolution_gain * (1.0 - np.exp(-p.resolution_power * x.ln_scale))
        + p.cut_relief * x.cut_share
        - (1.0 - restored) * cut_loss * (1.0 + p.neck_amplification * weak_neck)
        - (1.0 - p.rfcr_for_neck * rfcr) * p.neck_gain * weak_neck
        + p.rfcr_gain * rfcr
        + p.shortcut_gain * x.shortcut
        + p.vovnet_transfer * x.vovnet_gain
        + p.bifpn_offset * x.bifpn
        + p.repeat_gain * (x.bifpn_refinement + p.repeat_share * x.other_refinement)
    )


def gradient(theta: FloatArray, x: Features) -> tuple[FloatArray, FloatArray]:
    """AP50, shape ``[n]``, and by forward differences its derivatives, shape ``[n, COUNT]``."""
    stacked = ap50(theta + _STEP * np.vstack([np.zeros(COUNT), np.eye(COUNT)]), x)
    return stacked[0], ((stacked[1:] - stacked[0]) / _STEP).T


def base_levels(theta: FloatArray) -> FloatArray:
    """AP50 of every knot, complete with PANet at 320 px, shape ``[..., knots]``; never falls in a family."""
    steps = theta[..., _LAW:]
    families = (steps[..., :_MOBILE], steps[..., _MOBILE:])
    return np.concatenate([np.cumsum(family, axis=-1) for family in families], axis=-1)


def expected_levels(theta: FloatArray) -> FloatArray:
    """What the smooth law of the backbone's size expects of every knot; `base_levels` scatter around it."""
    p = _named(theta)
    levels: FloatArray = _size_law(p, _KNOT_LN_PARAMS) + p.efficient_gain * _KNOT_EFFICIENT
    return levels


def _named(theta: FloatArray) -> Parameters[FloatArray]:
    return Parameters(*(theta[..., i, None] for i in range(_LAW)))


def _size_law(p: Parameters[FloatArray], ln_params: FloatArray) -> FloatArray:
    too_small = np.logaddexp(0.0, (p.collapse_at - ln_params) / p.collapse_width)
    size: FloatArray = (
        p.level + p.per_ln_params * (ln_params - _LEVEL_LN_PARAMS) - p.collapse_slope * p.collapse_width * too_small
    )
    return size


def _backbone(theta: FloatArray, p: Parameters[FloatArray], x: Features) -> FloatArray:
    """The knots' levels; between two knots the size law says how far along."""
    low, high = x.low.astype(np.intp), x.high.astype(np.intp)
    levels, between = base_levels(theta), np.flatnonzero(low != high)
    result = levels[..., low]
    if between.size:
        low, high = low[between], high[between]
        law = _size_law(p, _KNOT_LN_PARAMS)
        along = (_size_law(p, x.ln_params[between]) - law[..., low]) / (law[..., high] - law[..., low])
        result[..., between] += along * (levels[..., high] - levels[..., low])
    return result
