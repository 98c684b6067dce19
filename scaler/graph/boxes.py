"""How a detector's outputs stand for boxes: what decoding needs to know beside the maps themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

BoxCodingKind: TypeAlias = Literal["yolov3", "yolov4", "retinanet"]
"""Formula from a cell's numbers to boxes and scores; `scaler.export.decode` holds them."""


class Scale(NamedTuple):
    """One scale of a detector."""

    outputs: tuple[str, ...]
    """The graph's outputs that hold its predictions, anchor by anchor along the channels."""
    stride: int
    """Input pixels per cell."""
    anchors: tuple[tuple[float, float], ...]
    """Width and height of the anchor boxes of every cell, in input pixels."""


@dataclass(frozen=True, slots=True)
class BoxCoding:
    """The formula and the scales that it is applied to, in the order of the decoded boxes."""

    kind: BoxCodingKind
    scales: tuple[Scale, ...]
    xy_scale: float = 1.0
    """How far the sigmoid of a centre is stretched around the middle of its cell, so that it reaches the edges: 1.05 in
    YOLOv4-tiny, 2 in YOLOv4-CSP; `retinanet` has no sigmoid there."""
