"""Which factors moved between two networks of the published order, and why in that order."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config as Config
from scaler.models.detectors.scaled_yolov4 import is_tiny
from scaler.scaling.ladder import Phase, Step, common_depth, stages_of, units
from scaler.scaling.rules import channel_product, darknet_receptive_field

TITLES = {
    "tiny": "YOLOv4-tiny", "tiny-3l": "YOLOv4-tiny-3l", "csp": "YOLOv4-CSP",
    "p5": "YOLOv4-P5", "p6": "YOLOv4-P6", "p7": "YOLOv4-P7",
}  # fmt: skip

_PRODUCTS = " against ".join(f"{float(channel_product(design, 2, 1, 3)):g} g²" for design in ("csp-osa-pcb", "osa"))

_WHY_UP: dict[Phase, str] = {
    "width of tiny": "growth rates stay multiples of 8",
    "size of tiny": "the only factor that its fixed block leaves beside the width",
    "structure": "the layers of tiny's block follow from its channels (b/2 + kg = 2b): it cannot get deeper",
    "depth and width": "together, as in the released s, m and l: depth = (4 width - 1) / 3",
    "size and depth": "first, and together: a larger picture needs a larger receptive field, and with five stages only "
    "depth widens it (Table 7)",
    "size and stages": "then stages with the size: the best compound (section 3.3), each doubles the receptive field",
    "width": "last, as far as the inference time allows: it leaves the receptive field as it is (section 4.3)",
}
_WHY_DOWN: dict[Phase, str] = {
    "width of tiny": "last: a still smaller picture shows too little; growth rates stay multiples of 8",
    "size of tiny": "before the width: the block keeps its equal channels, which move least (equation 1)",
    "structure": "still less depth and width meets a floor of memory access; on a TX2 the shrunk tinyCD53s "
    "(7.0 BFLOPs) runs at 30 FPS, tiny (6.9) at 42 (Table 9); tiny's block has the least channel product, "
    f"{_PRODUCTS} for OSANet (Table 5)",
    "depth and width": "together, as in the released m and s: depth = (4 width - 1) / 3",
    "size and depth": "back the way of P5, which got its size and its depth together",
    "size and stages": "back the way of P7, P6 and P5: the cost falls with the square, a smaller picture needs fewer "
    "stages",
    "width": "what was added last goes first",
}


class Move(NamedTuple):
    """What moved in one phase, and why then."""

    phase: Phase
    change: str
    """For instance `size 640 → 896, 5 stages`."""
    reason: str


def moves(order: Sequence[Step], base: Config, chosen: Config) -> tuple[Move, ...]:
    """The phases between two networks of the order, first to last; none where both are the same."""
    places = {step.config: place for place, step in enumerate(order)}
    start, end = places[base], places[chosen]
    up = end > start
    if up:
        path = [(step.phase, step.config) for step in order[start + 1 : end + 1]]
    else:
        path = [(order[place].phase, order[place - 1].config) for place in range(start, end, -1)]
    found, before = [], base
    for phase, group in groupby(path, key=lambda pair: pair[0]):
        *_, (_, after) = group
        found.append(Move(phase, _change(before, after), (_WHY_UP if up else _WHY_DOWN)[phase]))
        before = after
    return tuple(found)


def _change(before: Config, after: Config) -> str:
    """What differs, in words."""
    parts = []
    structure = is_tiny(before.variant) != is_tiny(after.variant)
    if structure:
        parts.append(f"{TITLES[before.variant]} → {TITLES[after.variant]}")
    if before.resolution != after.resolution:
        parts.append(f"size {before.resolution} → {after.resolution}")
    if stages_of(before) != stages_of(after):
        parts.append(f"{stages_of(before)} → {stages_of(after)} stages")
    if not structure and common_depth(before) != common_depth(after):
        parts.append(_depths(before, after))
    if before.width != after.width:
        parts.append(f"width ×{before.width:g} → ×{after.width:g}")
    if before.resolution != after.resolution and not is_tiny(after.variant):
        field = darknet_receptive_field(units(after)[:-1])
        parts.append(f"the backbone sees {field} px")
    return ", ".join(parts)


def _depths(before: Config, after: Config) -> str:
    """Multipliers where both have the same table of units, else the units of the stages that both have."""
    if (before.variant == "csp") == (after.variant == "csp"):
        return f"depth ×{before.depth:g} → ×{after.depth:g}"
    shared = min(stages_of(before), stages_of(after))
    old, new = ("-".join(map(str, units(config)[:shared])) for config in (before, after))
    return f"units {old} → {new}"
