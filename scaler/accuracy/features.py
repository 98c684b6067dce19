"""What the accuracy of a YOLO-ReT detector depends on, as numbers, and where the published data end.

Every feature is physical: how large the backbone is, how narrow the map that the detector reads at stride 32,
how much of the backbone is cut, which neck and RFCR, which resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

import numpy as np

from scaler.accuracy.backbone_gains import backbone_gains
from scaler.accuracy.prediction import FloatArray
from scaler.models.detectors.yolo_ret import VOVNETS, YoloRetConfig, published_drop

__all__ = ["KNOTS", "REFERENCE_RESOLUTION", "Features", "Knot", "features", "outside"]


class Knot(NamedTuple):
    """A backbone whose accuracy has a parameter of its own; widths between two knots are interpolated."""

    name: str
    efficient: bool
    """Whether it is an EfficientNet."""
    width: float
    million_params: float
    """Parameters of the complete backbone without its classifier, batch normalisation included."""
    channels: int
    """Channels of the stride-32 map at the published cut."""


KNOTS = (
    Knot("mobilenetv2-0.35", False, 0.35, 0.410208, 56),
    Knot("mobilenetv2-0.5", False, 0.5, 0.706224, 80),
    Knot("mobilenetv2-0.75", False, 0.75, 1.382064, 120),
    Knot("mobilenetv2-1.0", False, 1.0, 2.257984, 160),
    Knot("mobilenetv2-1.4", False, 1.4, 4.363712, 224),
    Knot("efficientnet-b0", True, 1.0, 4.049564, 192),
    Knot("efficientnet-b1", True, 1.0, 6.575232, 192),
    Knot("efficientnet-b2", True, 1.0, 7.768562, 208),
    Knot("efficientnet-b3", True, 1.0, 10.783528, 232),
)
"""Parameters and channels counted on the released networks; x0.35 has no published detector."""

REFERENCE_RESOLUTION = 320
"""All ablations of the paper (Tables 2 to 4) are at 320 px."""

_PUBLISHED_WIDTHS = (0.5, 1.4)
_PUBLISHED_RESOLUTIONS = (224, 416)
_PUBLISHED_KERNEL = 5
_PUBLISHED_REPEATS = {"none": 1, "fpn": 1, "panet": 1, "bifpn": 3}
_CHANNELS_AT_X1 = 160
_WIDEST = max(knot.channels for knot in KNOTS)
_MOBILE = [(math.log(knot.width), math.log(knot.million_params)) for knot in KNOTS if not knot.efficient]
_MOBILENET = "mobilenetv2-1.0"
_VOVNET_DOUBT = 23.0  # a standard deviation of 1.2 AP50, by judgement
_VOVNET_BLOCK = 2.0  # a block of a VoVNet is a large part of a stage
_REPEAT_DECAY = 4.0  # a repeat of BiFPN brings a quarter of the one before: in Table 3 +0.31, then +0.08 AP


class Features(NamedTuple):
    """One array a feature, all of the length of the configurations."""

    ln_params: FloatArray
    """Logarithm of the complete backbone's parameters in millions."""
    low: FloatArray
    """Index of the knot at or below the backbone."""
    high: FloatArray
    """Index of the knot above it; the same where the backbone is a knot."""
    off_knot: FloatArray
    """0 at a knot, 1 halfway between two; how many times the variance of a backbone's own level is in doubt."""
    narrowness: FloatArray
    """Logarithm of B3's channels at stride 32 over the backbone's: 0 for B3, 1.06 for MobileNetV2 x0.5."""
    cut: FloatArray
    """Dropped blocks over those of the published cut; 0 for a VoVNet, of which no cut was published."""
    cut_share: FloatArray
    """The same, at most 1."""
    deeper: FloatArray
    """Blocks dropped beyond the published cut."""
    vovnet_gain: FloatArray
    """COCO AP of a VoVNet over MobileNetV2 x1.0 in other detectors; 0 for the others."""
    none: FloatArray
    fpn: FloatArray
    bifpn: FloatArray
    bifpn_refinement: FloatArray
    """0 for one repeat of BiFPN, then nearing 1."""
    other_refinement: FloatArray
    """The same for repeated FPN and PANet, which nobody published."""
    rfcr: FloatArray
    small_kernel: FloatArray
    """1 for RFCR's unpublished 3x3 kernel; 7x7 counts as 5x5, as the paper found no gain from it."""
    shortcut: FloatArray
    ln_scale: FloatArray
    """Logarithm of the resolution over 320."""
    beyond: FloatArray
    """How far the resolution lies outside the published ones, as a logarithm of the ratio."""
    inside: FloatArray
    """1 inside the published data, 0 where `outside` has reasons."""


class _Piece(NamedTuple):
    """What one part of a configuration contributes: a stretch of `Features`, its reasons in `outside`."""

    values: tuple[float, ...]
    reasons: tuple[str, ...] = ()


def features(configs: Iterable[YoloRetConfig]) -> Features:
    """The features of many configurations."""
    table = np.array([_row(config) for config in configs], dtype=np.float64)
    return Features(*np.ascontiguousarray(table.reshape(-1, len(Features._fields)).T))


def outside(config: YoloRetConfig) -> tuple[str, ...]:
    """Why a configuration lies outside the published data; empty where it lies inside."""
    return tuple(reason for piece in _pieces(config) for reason in piece.reasons)


def _row(config: YoloRetConfig) -> tuple[float, ...]:
    backbone, neck, rfcr, scale = _pieces(config)
    inside = not (backbone.reasons or neck.reasons or rfcr.reasons or scale.reasons)
    return (*backbone.values, *neck.values, *rfcr.values, *scale.values, inside)


def _pieces(config: YoloRetConfig) -> tuple[_Piece, _Piece, _Piece, _Piece]:
    return (
        _of_backbone(config.backbone, config.width, config.drop),
        _of_neck(config.neck, config.repeats),
        _of_rfcr(config.rfcr, config.shortcut),
        _of_resolution(config.resolution),
    )


@cache
def _of_backbone(backbone: str, width: float, drop: int) -> _Piece:
    if backbone in VOVNETS:
        return _of_vovnet(backbone, drop)
    published = published_drop(backbone)
    cut, deeper = drop / published, max(drop - published, 0)
    mobile = backbone == "mobilenetv2"
    place = _between_widths(width) if mobile else _at_knot(backbone)
    reasons = []
    low, high = _PUBLISHED_WIDTHS
    if mobile and width < low:
        reasons.append(f"width {width:g} lies below the published {low:g}..{high:g}")
    if deeper:
        reasons.append(f"{drop} dropped blocks cut deeper than the published {published}")
    return _Piece((*place, cut, min(cut, 1.0), deeper, 0.0), tuple(reasons))


def _of_vovnet(backbone: str, drop: int) -> _Piece:
    """The level of MobileNetV2 x1.0, from which the law carries the gains in other detectors over."""
    gains = backbone_gains()
    gain = gains[backbone]
    low = next(i for i, knot in enumerate(KNOTS) if knot.name == _MOBILENET)
    how = "its gains in other detectors" if gain.source == "published" else f"a gain {gain.source}"
    reasons = [f"nobody published a YOLO-ReT on {backbone}; estimated from {how}"]
    if drop:
        reasons.append(f"{drop} dropped blocks: no cut of a VoVNet was published")
    wide = 0.0  # its stride-32 map is wider than any published one
    place = (math.log(KNOTS[low].million_params), low, low, _VOVNET_DOUBT, wide)
    return _Piece((*place, 0.0, 0.0, _VOVNET_BLOCK * drop, gain.ap - gains[_MOBILENET].ap), tuple(reasons))


def _at_knot(backbone: str) -> tuple[float, ...]:
    index, knot = next((i, knot) for i, knot in enumerate(KNOTS) if knot.name == backbone)
    return (math.log(knot.million_params), index, index, 0.0, math.log(_WIDEST / knot.channels))


def _between_widths(width: float) -> tuple[float, ...]:
    place = math.log(width)
    low = max(i for i, (ln_width, _) in enumerate(_MOBILE) if ln_width <= place)
    high = low if place == _MOBILE[low][0] else low + 1
    (start, low_params), (end, high_params) = _MOBILE[low], _MOBILE[high]
    share = (place - start) / (end - start) if high > low else 0.0
    ln_params = low_params + share * (high_params - low_params)
    return (ln_params, low, high, 4.0 * share * (1.0 - share), math.log(_WIDEST / (_CHANNELS_AT_X1 * width)))


@cache
def _of_neck(neck: str, repeats: int) -> _Piece:
    refinement = 1.0 - _REPEAT_DECAY ** -(repeats - 1)
    by_bifpn, by_other = (refinement, 0.0) if neck == "bifpn" else (0.0, refinement)
    values = (neck == "none", neck == "fpn", neck == "bifpn", by_bifpn, by_other)
    if repeats > _PUBLISHED_REPEATS[neck]:
        return _Piece(values, (f"{neck} repeated {repeats} times was not published",))
    return _Piece(values)


@cache
def _of_rfcr(kernel: int, shortcut: bool) -> _Piece:
    values = (kernel > 0, 0 < kernel < _PUBLISHED_KERNEL, kernel > 0 and shortcut)
    if kernel not in (0, _PUBLISHED_KERNEL):
        return _Piece(values, (f"RFCR kernel {kernel} has no published figure, only {_PUBLISHED_KERNEL}",))
    return _Piece(values)


@cache
def _of_resolution(resolution: int) -> _Piece:
    low, high = _PUBLISHED_RESOLUTIONS
    beyond = max(math.log(low / resolution), math.log(resolution / high), 0.0)
    values = (math.log(resolution / REFERENCE_RESOLUTION), beyond)
    if low <= resolution <= high:
        return _Piece(values)
    side = "below" if resolution < low else "above"
    return _Piece(values, (f"resolution {resolution} lies {side} the published {low}..{high}",))
