"""Which networks scaling passes through: each factor alone, and all of them in the published order.

A factor moves in steps that make a difference: the input size by the largest stride, the width by one tensor-core tile
of 8 channels at the finest detection level, the depth where a number of units changes, stages one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

from scaler.errors import UsageError, unknown_name
from scaler.models.detectors.scaled_yolov4 import (
    DEPTHS,
    PLANS,
    RESOLUTIONS,
    WIDTHS,
    Variant,
    is_tiny,
    max_stride,
    scaled_units,
)
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config as Config
from scaler.scaling.rules import STAGE_SIZES, depth_for

Factor = Literal["size", "depth", "width", "stages"]
FACTORS: tuple[Factor, ...] = get_args(Factor)

Phase = Literal[
    "width of tiny", "size of tiny", "structure", "depth and width", "size and depth", "size and stages", "width"
]
"""What moves between two neighbours in the published order; read backwards on the way down."""

BASES = {
    "yolov4-tiny": Config(variant="tiny", resolution=416),
    "yolov4-tiny-3l": Config(variant="tiny-3l", resolution=416),
    "yolov4-csp": Config(variant="csp", resolution=640),
    "yolov4-p5": Config(variant="p5", resolution=896),
    "yolov4-p6": Config(variant="p6", resolution=1280),
    "yolov4-p7": Config(variant="p7", width=1.25, resolution=1536),
}
"""The published networks at their published sizes."""

HOME_SIZE = BASES["yolov4-csp"].resolution
"""Where the way up starts, and at which s and m were released."""

CSP_DEPTH = 0.53
"""Depth at which P5, P6 and P7 have YOLOv4-CSP's 2, 8, 8 and 4 units, and 2 in the neck."""

_VARIANTS: dict[int, Variant] = {5: "p5", 6: "p6", 7: "p7"}
_LEAST_TINY_SIZE = 256
_LEAST_RELEASED_WIDTH = 0.5
_WIDTH_STEP, _TINY_WIDTH_STEP = 1 / 16, 1 / 4
"""8 of the 128 channels at stride 8; 8 of tiny's least growth rate, 32."""


def base_config(model: str, resolution: int | None = None) -> Config:
    """The network to start from.

    Raises:
        UsageError: Unknown model, or a resolution that it cannot have.
    """
    if model not in BASES:
        raise UsageError(unknown_name("model", model, BASES))
    base = BASES[model]
    return base if resolution is None else replace(base, resolution=resolution)


def stages_of(config: Config) -> int:
    """Number of times that the backbone halves the map."""
    return int(math.log2(max_stride(config.variant)))


def common_depth(config: Config) -> float:
    """The depth multiplier of a CSP network as P5 to P7 count it: equal for equal numbers of units."""
    return round(config.depth * CSP_DEPTH, 2) if config.variant == "csp" else config.depth


# --- one factor alone ------------------------------------------------------------------------------------------------


def alone(base: Config, factor: Factor) -> tuple[Config, ...]:
    """The base with one factor moved, from cheap to dear; the base alone where the factor has no other step."""
    fixed = is_tiny(base.variant)
    match factor:
        case "size":
            return tuple(replace(base, resolution=size) for size in _sizes(base, *RESOLUTIONS))
        case "width":
            step = _TINY_WIDTH_STEP if fixed else _WIDTH_STEP
            return tuple(replace(base, width=width) for width in _widths(step, *WIDTHS))
        case "depth":
            return (base,) if fixed else tuple(replace(base, depth=depth) for depth in _depths(base))
        case "stages":
            return (base,) if fixed else tuple(with_stages(base, stages) for stages in STAGE_SIZES)


def with_stages(base: Config, stages: int) -> Config:
    """As wide and as deep with so many stages, at the nearest size that their stride and the family allow."""
    if stages_of(base) == stages:
        return base
    stride, (low, high) = 2**stages, RESOLUTIONS
    size = min(max(round(base.resolution / stride), math.ceil(low / stride)), high // stride) * stride
    return replace(base, variant=_VARIANTS[stages], depth=common_depth(base), resolution=size)


def units(config: Config) -> tuple[int, ...]:
    """Residual units of each stage of the backbone of a CSP network, then those of a block of the neck."""
    plan = PLANS[config.variant]
    return tuple(scaled_units(n, config.depth) for n in (*(stage.units for stage in plan.stages), plan.neck_units))


def _sizes(config: Config, low: int, high: int) -> range:
    stride = max_stride(config.variant)
    return range(-(-low // stride) * stride, high + 1, stride)


def _widths(step: float, low: float, high: float) -> list[float]:
    return [step * n for n in range(round(low / step), round(high / step) + 1)]


def _depths(base: Config) -> list[float]:
    """The least depth, in hundredths, of each different list of units; the base's own for its list."""
    low, high = DEPTHS
    grid = [n / 100 for n in range(round(100 * low), round(100 * high) + 1)]
    by_units: dict[tuple[int, ...], float] = {}
    for depth in (base.depth, *grid):
        by_units.setdefault(units(replace(base, depth=depth)), depth)
    return sorted(by_units.values())


# --- all factors in the published order ------------------------------------------------------------------------------


class Step(NamedTuple):
    """One network of the published order."""

    config: Config
    phase: Phase
    """What moved to get here from the next smaller one."""


def compound(base: Config) -> tuple[Step, ...]:
    """The networks that the published order passes through, from cheap to dear.

    A base at a size of its own that the order does not pass through is missing.
    """
    fixed = is_tiny(base.variant)
    body = BASES["yolov4-csp"] if fixed else replace(base, width=1.0)
    home = HOME_SIZE if fixed else min(base.resolution, HOME_SIZE)
    tiny = base if fixed else BASES["yolov4-tiny"]
    phases: dict[Config, Phase] = {}
    for config, phase in (*_low_end(tiny, home), *_depth_and_width(body, home), *_upwards(body, home)):
        phases.setdefault(config, phase)
    return tuple(Step(config, phase) for config, phase in phases.items())


def _low_end(tiny: Config, home: int) -> Iterator[tuple[Config, Phase]]:
    """The other structure: at the least size from narrow to full width, then larger."""
    least = min(_LEAST_TINY_SIZE, home)
    for width in _widths(_TINY_WIDTH_STEP, WIDTHS[0], 1.0):
        yield replace(tiny, width=width, resolution=least), "width of tiny"
    for size in _sizes(tiny, least, home):
        yield replace(tiny, resolution=size), "size of tiny"


def _depth_and_width(body: Config, home: int) -> Iterator[tuple[Config, Phase]]:
    """From s over m to the full network of five stages, depth and width together at one size."""
    full = replace(with_stages(body, min(STAGE_SIZES)), resolution=home)
    least, *wider = _widths(_WIDTH_STEP, _LEAST_RELEASED_WIDTH, 1.0)
    yield replace(full, width=least, depth=depth_for(least)), "structure"
    for width in wider:
        yield replace(full, width=width, depth=depth_for(width)), "depth and width"


def _upwards(body: Config, home: int) -> Iterator[tuple[Config, Phase]]:
    """Up to P5, with depth as far as it is missing; P6 and P7, size and stages together; then width."""
    (fewest, reached), *more = STAGE_SIZES.items()
    start = common_depth(body)
    for size in _sizes(five := _published(fewest), home + 1, reached):
        depth = round(start + (1 - start) * (size - home) / (reached - home), 2)
        yield replace(five, depth=depth, resolution=size), "size and depth" if start < 1 else "size and stages"
    for stages, largest in more:
        for size in _sizes(_published(stages), reached + 1, largest):
            yield replace(_published(stages), resolution=size), "size and stages"
        reached = largest
    for width in _widths(_WIDTH_STEP, 1.0, WIDTHS[1]):
        yield replace(_published(max(STAGE_SIZES)), width=width), "width"


def _published(stages: int) -> Config:
    """P5, P6 or P7 at width 1."""
    return Config(variant=_VARIANTS[stages], resolution=STAGE_SIZES[stages])
