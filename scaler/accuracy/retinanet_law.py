"""The accuracy law of RetinaNet: input scaling saturates in the FLOPs, the backbone sets the level.

    AP = (level + gain of the backbone) x (1 - share x exp(-rate x (size / 800)^2)) - narrower pyramid - shorter towers

A lighter head stands where input scaling would stand at as few FLOPs, plus the gain over input scaling that the
abstract of Light-Weight RetinaNet prints: 0.1 AP at 1.15 times fewer FLOPs, 0.3 at 1.8 times. That is all that is
published of it, so its intervals are wide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from scaler.accuracy.backbone_gains import REFERENCE, Gain, backbone_gains
from scaler.accuracy.curve import Prior
from scaler.accuracy.law import Law, beyond, columns
from scaler.accuracy.prediction import FloatArray, Metric
from scaler.accuracy.retinanet_macs import reduction
from scaler.models.detectors.retinanet import BACKBONES, PUBLISHED_TOWERS, RetinaNetConfig
from scaler.published.retinanet import LIGHTER_GAINS, SHORT_SIDE

__all__ = ["LAW", "Features", "features", "lighter_gain", "outside", "value"]

RECIPES = {
    "focal-loss": "Focal Loss paper, Table 1e: 90 000 steps of 16 pictures, test-dev",
    "detectron-1x": "Detectron's model zoo, 1x",
    "detectron-2x": "Detectron's model zoo, 2x",
    "maskrcnn-benchmark-1x": "maskrcnn-benchmark, 1x",
    "mmdet-1x": "mmdetection, 1x, torchvision's ResNet",
    "mmdet-1x-caffe": "mmdetection, 1x, Detectron's ResNet",
    "mmdet-2x": "mmdetection, 2x",
    "mmdet-3x": "mmdetection, 3x, multi-scale training",
    "detectron2-1x": "detectron2, 1x, scale jitter",
    "detectron2-3x": "detectron2, 3x, scale jitter",
}
"""Descriptions; the first is the default."""

_NATIVE, _PUBLISHED_SIZES, _PUBLISHED_WIDTH = 800, (400, 800), 256
_PUBLISHED_BACKBONES = ("resnet-18", REFERENCE, "resnet-101")
_OTHERS = tuple(name for name in BACKBONES if name != REFERENCE)
_OTHER_DETECTOR_SD_AP = 0.6
"""Doubt about a backbone's gain in RetinaNet beside those in other detectors; no data, a judgement."""
_BEYOND_SIZE_SD, _LIGHTER_SD, _LIGHTER_SD_OF_LOSS = 2.5, 0.4, 0.5
"""Doubts in points: per unit of logarithm of the size; of any lighter head; as a share of what it loses."""


class Features(NamedTuple):
    """One array a feature, all of the length of the configurations."""

    backbone: FloatArray
    """Index of the backbone in the law's gains; 0 is ResNet-50."""
    flops: FloatArray
    """(short side / 800)^2 over the reduction of the lighter head."""
    lighter_gain: FloatArray
    """Over input scaling at the same FLOPs, in points of AP."""
    halvings: FloatArray
    """Logarithm to the base 2 of 256 over the width."""
    fewer_towers: FloatArray
    more_towers: FloatArray
    doubt: FloatArray
    """Standard deviation in points of what has no data behind it."""


def _gain_prior(gain: Gain, metric: Metric) -> Prior:
    scale = 1.15 if metric == "ap50" else 1.0  # AP50 over AP between ResNet-50 and -101 in Table 1e and RefineDet
    sd = math.hypot(gain.sd_ap, _OTHER_DETECTOR_SD_AP)
    return Prior(scale * gain.ap, scale * sd, -25.0, 25.0)


@cache
def _priors(metric: Metric) -> dict[str, Prior]:
    level = Prior(36.0, 3.0, 25.0, 50.0) if metric == "ap" else Prior(55.0, 4.0, 40.0, 75.0)
    gains = backbone_gains()
    return {
        "level": level,
        "share": Prior(0.35, 0.1, 0.05, 0.9),
        "rate": Prior(3.3, 1.0, 0.5, 10.0),
        "per_halving": Prior(1.0, 0.6, 0.0, 4.0),
        "per_missing_tower": Prior(0.5, 0.3, 0.0, 2.0),
        "more_towers": Prior(0.1, 0.1, 0.0, 0.5),
        **{name: _gain_prior(gains[name], metric) for name in _OTHERS},
    }


def features(networks: Iterable[Any]) -> Features:
    """The features of many networks: configurations, or published rows, which have full heads of 256 channels."""
    return Features(*columns((_row(*_fields(network)) for network in networks), len(Features._fields)))


def outside(network: Any) -> tuple[str, ...]:
    """Why a network lies outside the published data; empty where it lies inside."""
    backbone, _, width, towers, lighten, size = _fields(network)
    reasons = []
    if backbone not in _PUBLISHED_BACKBONES:
        source = backbone_gains()[backbone].source
        how = "its gain over ResNet-50 in other detectors" if source == "published" else f"its level, {source}"
        reasons.append(f"nobody published a RetinaNet on {backbone}; estimated from {how}")
    if lighten != "none":
        reasons.append(f"no AP of the lighter head {lighten} was published, only two gains over input scaling")
    if width != _PUBLISHED_WIDTH:
        reasons.append(f"{width} channels were not published, only {_PUBLISHED_WIDTH}")
    if towers != PUBLISHED_TOWERS:
        reasons.append(f"towers of {towers} were not published, only of {PUBLISHED_TOWERS}")
    low, high = _PUBLISHED_SIZES
    if not low <= size <= high:
        side = "below" if size < low else "above"
        reasons.append(f"a short side of {size:g} px lies {side} the published {low}..{high}")
    return tuple(reasons)


def value(theta: FloatArray, x: Features) -> FloatArray:
    """Accuracy in points by the recipe of the Focal Loss paper.

    Args:
        theta: Parameters in the order of `LAW.priors`, shape ``[..., count]``.
        x: Features of n networks.

    Returns:
        Shape ``[..., n]``.
    """
    level, share, rate, per_halving, per_tower, more_towers = (theta[..., i, None] for i in range(6))
    gains = np.concatenate([np.zeros_like(theta[..., :1]), theta[..., 6:]], axis=-1)
    top = level + gains[..., x.backbone.astype(np.intp)]
    result: FloatArray = (
        top * (1.0 - share * np.exp(-rate * x.flops))
        + x.lighter_gain
        - per_halving * x.halvings
        - per_tower * x.fewer_towers
        + more_towers * x.more_towers
    )
    return result


def lighter_gain(flops_reduction: float) -> float:
    """AP over input scaling at the same FLOPs: the line through the two published gains, 0 at no reduction."""
    (first, gain), (second, more) = LIGHTER_GAINS
    slope = (more - gain) / (second - first)
    if flops_reduction < first:
        return gain * (flops_reduction - 1.0) / (first - 1.0)
    return gain + slope * (flops_reduction - first)


def _fields(network: Any) -> tuple[str, str, int, int, str, float]:
    """What the law reads; a configuration is of a square, which shows a 4:3 picture smaller than published."""
    square = isinstance(network, RetinaNetConfig)
    return (
        network.backbone,
        getattr(network, "stride_in", "1x1"),
        getattr(network, "width", _PUBLISHED_WIDTH),
        getattr(network, "towers", PUBLISHED_TOWERS),
        getattr(network, "lighten", "none"),
        SHORT_SIDE * network.resolution if square else network.resolution,
    )


@cache
def _row(backbone: str, stride_in: str, width: int, towers: int, lighten: str, size: float) -> tuple[float, ...]:
    fewer = reduction(backbone, stride_in, width, towers, lighten)
    flops = (size / _NATIVE) ** 2
    doubt = _BEYOND_SIZE_SD * beyond(size, _PUBLISHED_SIZES)
    if lighten != "none":
        lost = 13.0 * (math.exp(-3.4 * flops / fewer) - math.exp(-3.4 * flops))  # of RetinaNet-ResNet50, fitted
        doubt = math.hypot(doubt, _LIGHTER_SD, _LIGHTER_SD_OF_LOSS * lost)
    index = 0 if backbone == REFERENCE else 1 + _OTHERS.index(backbone)
    missing = PUBLISHED_TOWERS - towers
    return (
        index,
        flops / fewer,
        lighter_gain(fewer),
        math.log2(_PUBLISHED_WIDTH / width),
        max(missing, 0),
        max(-missing, 0),
        doubt,
    )


LAW: Law[Features] = Law(
    family="retinanet",
    title="RetinaNet accuracy law",
    fitted_on="published training runs (Focal Loss paper and four model zoos)",
    priors=_priors,
    features=features,
    value=value,
    size=lambda x: np.zeros_like(x.flops),
    doubt_ap=lambda x: x.doubt,
    outside=outside,
    judged=lambda network: network.backbone not in _PUBLISHED_BACKBONES or network.lighten != "none",
    evaluation="rectangular: published for short sides of 400 to 800 px, the long side at most 1333",
    notes=(
        "predictions are for square engines: one of side s shows a 4:3 picture with a short side of 0.75 s, and has "
        "the published AP of that (ResNet-50 at 800 px: 34.3, published for 600)",
    ),
    scatter_ap=0.2,
    recipes=RECIPES,
    recipe_sd_ap=1.3,
    slope_sd_ap=0.4,
)
"""The scatter is a round value near the maximum of the marginal likelihood."""
