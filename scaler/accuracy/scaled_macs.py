"""Multiply-accumulates of Scaled-YOLOv4 networks in closed form: thousands a second, where a graph takes milliseconds.

Every convolution's count is its kernel area times input and output channels times the pixels of its output, so
that a network's total is a constant times the resolution squared. A test compares it with the graphs.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

from scaler.models.backbones.csp_darknet import Stage
from scaler.models.detectors.scaled_yolov4 import (
    PLANS,
    TINY_GROWTHS,
    TINY_HEAD,
    TINY_LAST,
    TINY_LINKS,
    TINY_NECK,
    TINY_STEM,
    TINY_STRIDES,
    is_tiny,
    scaled_channels,
    scaled_units,
)

__all__ = ["macs_per_pixel"]

_OUTPUTS = 85  # box, objectness and the 80 classes of COCO


@cache
def macs_per_pixel(variant: str, width: float = 1.0, depth: float = 1.0) -> float:
    """Multiply-accumulates over the pixels of the square input, for 80 classes and without RFCR.

    Args:
        variant: As in `ScaledYoloV4Config`.
        width: Multiplier of the channels.
        depth: Multiplier of the blocks' units.
    """
    return _tiny(variant, width) if is_tiny(variant) else _csp(variant, width, depth)


def _csp(variant: str, width: float, depth: float) -> float:
    plan = PLANS[variant]
    wide = {c: scaled_channels(c, width) for stage in plan.stages for c in (*stage[:1], stage.channels // 2)}
    channels = [scaled_channels(plan.stem, width), *(wide[stage.channels] for stage in plan.stages)]
    total = 9.0 * 3 * channels[0]
    for level, (stage, (c_in, c)) in enumerate(zip(plan.stages, pairwise(channels), strict=True), 1):
        per_pixel = 9 * c_in * c + _stage(stage, c, scaled_units(stage.units, depth))
        total += per_pixel / 4**level
    neck = {level: wide[stage.channels // 2] for level, stage in enumerate(plan.stages, 1) if level >= 3}
    merged, coarsest = 5 + 10 * scaled_units(plan.neck_units, depth), len(plan.stages)
    for level, c in neck.items():
        tap, at_pixel = channels[level], 1 / 4**level
        if level == coarsest:
            total += _spp_block(tap, c, *plan.spp_pairs) * at_pixel
        else:  # top-down: link and lateral, then the merging block
            total += (neck[level + 1] * c / 4 + tap * c + merged * c**2) * at_pixel
        if level > 3:  # bottom-up
            total += (9 * neck[level - 1] * c + merged * c**2) * at_pixel
        total += (9 * c * tap + tap * len(plan.anchors[2**level]) * _OUTPUTS) * at_pixel
    return total


def _stage(stage: Stage, c: int, units: int) -> float:
    """Per pixel, without the down-sampling convolution."""
    if not stage.path:
        return 10.0 * units * c * (c * stage.hidden // stage.channels)
    half = c // 2
    return 4.0 * half * c + half**2 + 10 * units * half**2


def _spp_block(c_in: int, c: int, before: int, after: int) -> float:
    """Per pixel: entry and cross path, the pairs before and after the pooling, the last 1x1."""
    return 2.0 * c_in * c + 10 * before * c**2 + (13 + 10 * (after - 1)) * c**2 + 2 * c**2


def _tiny(variant: str, width: float) -> float:
    def wide(channels: int) -> int:
        return scaled_channels(channels, width)

    growths = {stride: wide(growth) for stride, growth in zip((4, 8, 16), TINY_GROWTHS, strict=True)}
    stem, x = wide(TINY_STEM), 2 * growths[4]
    total = 9.0 * 3 * stem / 2**2 + 9 * stem * x / 4**2
    for stride, g in growths.items():
        total += (9 * x * 2 * g + 9 * g**2 * 2 + 4 * g**2) / stride**2
        x = 4 * g
    last = wide(TINY_LAST)
    total += 9 * x * last / 32**2
    fine, above = {32: last, **{stride: 2 * g for stride, g in growths.items()}}, 0
    for stride in TINY_STRIDES[variant]:
        c, anchors = wide(TINY_NECK[stride]), 3 * _OUTPUTS
        if stride == 32:
            head = wide(TINY_HEAD[stride])
            total += (fine[stride] * c + 9 * c * head + head * anchors) / stride**2
        else:
            link = wide(TINY_LINKS[stride])
            total += above * link / (2 * stride) ** 2 + (9 * (link + fine[stride]) * c + c * anchors) / stride**2
        above = c
    return total
