"""The heads of Scaled-YOLOv4: a 3x3 and a linear 1x1 convolution a scale, three or four anchors.

Source: Wang et al., "Scaled-YOLOv4" (CVPR 2021), and the released configurations. The anchors are given in pixels of
the published input size and stay so at any other, as in the released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TypeAlias

from scaler.graph.boxes import BoxCoding, BoxCodingKind, Scale
from scaler.graph.graph import Block, BlockBuilder, GraphBuilder, Tensor
from scaler.graph.ops import Conv, Shape
from scaler.models.blocks_csp import Style, unit

Anchors: TypeAlias = Mapping[int, tuple[tuple[int, int], ...]]
"""Width and height in input pixels, by stride."""


def _anchors(**levels: str) -> Anchors:
    """Read `stride8="12,16 19,36"`."""
    return {
        int(level.removeprefix("stride")): tuple((int(w), int(h)) for w, h in (p.split(",") for p in pairs.split()))
        for level, pairs in levels.items()
    }


TINY_ANCHORS = _anchors(stride32="81,82 135,169 344,319", stride16="23,27 37,58 81,82")
"""The released file's masks: one anchor stands twice and the smallest, 10,14, nowhere."""
ANCHORS = _anchors(stride8="12,16 19,36 40,28", stride16="36,75 76,55 72,146", stride32="142,110 192,243 459,401")
"""Of YOLOv4-CSP and its scalings, and of tiny-3l."""
P5_ANCHORS = _anchors(
    stride8="13,17 31,25 24,51 61,45",
    stride16="48,102 119,96 97,189 217,184",
    stride32="171,384 324,451 616,618 800,800",
)
P6_ANCHORS = _anchors(
    stride8="13,17 31,25 24,51 61,45",
    stride16="61,45 48,102 119,96 97,189",
    stride32="97,189 217,184 171,384 324,451",
    stride64="324,451 545,357 616,618 1024,1024",
)
P7_ANCHORS = _anchors(
    stride8="13,17 22,25 27,66 55,41",
    stride16="57,88 112,69 69,177 136,138",
    stride32="136,138 287,114 134,275 268,248",
    stride64="268,248 232,504 445,416 640,640",
    stride128="812,393 477,808 1070,908 1408,1408",
)

XY_SCALES: Mapping[BoxCodingKind, float] = {"yolov3": 1.05, "yolov4": 2.0}
"""`scale_x_y` of the tiny networks and of the others."""


def box_count(maps: Mapping[int, Tensor], anchors: Anchors) -> int:
    """Candidate boxes of all scales."""
    return sum(len(anchors[stride]) * x.shape[1] * x.shape[2] for stride, x in maps.items())


def box_coding(kind: BoxCodingKind, strides: tuple[int, ...], anchors: Anchors) -> BoxCoding:
    """How the outputs of `add_head` stand for boxes, in the order of `strides`."""
    scales = tuple(Scale((f"stride{stride}",), stride, anchors[stride]) for stride in strides)
    return BoxCoding(kind, scales, XY_SCALES[kind])


@cache
def head_block(shape: Shape, width: int, out_channels: int, style: Style) -> Block:
    """3x3 to `width`, none where it is 0, and the output convolution with bias."""
    block = BlockBuilder("output", shape)
    value = unit(block, "unit", 0, width, style, kernel=3) if width else 0
    block.add("conv", Conv(out_channels, bias=True), value)
    return block.build()


def add_head(
    graph: GraphBuilder,
    maps: Mapping[int, Tensor],
    widths: Mapping[int, int],
    anchors: Anchors,
    classes: int,
    style: Style,
) -> list[tuple[str, Tensor]]:
    """Place the output convolutions.

    Args:
        graph: Where to place them.
        maps: The neck's maps by stride.
        widths: Channels of the 3x3 convolution by stride; without one where the stride is not named.
        anchors: Of every stride.
        classes: Number of classes.
        style: Activation and normalisation.

    Returns:
        Name and raw map `(anchors (classes + 5), H, W)`, in the order of `maps`.
    """
    return [
        (
            f"stride{stride}",
            graph.add(
                f"head.stride{stride}",
                head_block(x.shape, widths.get(stride, 0), len(anchors[stride]) * (classes + 5), style),
                x,
            ),
        )
        for stride, x in maps.items()
    ]
