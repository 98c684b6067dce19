"""YOLOv3's head as YOLO-ReT uses it: one bias-free 1x1 convolution per scale, three anchors each.

Source: Redmon and Farhadi, "YOLOv3" (2018), section 2.3, for anchors and decoding; the released YOLO-ReT code for
the bare output convolution.
"""

from __future__ import annotations

from functools import cache

from scaler.graph.boxes import BoxCoding, Scale
from scaler.graph.graph import Block, BlockBuilder, GraphBuilder, Tensor
from scaler.graph.ops import Conv, Shape

ANCHORS = {
    8: ((10, 13), (16, 30), (33, 23)),
    16: ((30, 61), (62, 45), (59, 119)),
    32: ((116, 90), (156, 198), (373, 326)),
}
"""Width and height in input pixels by stride, for COCO and VOC alike."""


def output_channels(classes: int) -> int:
    """Three anchors, each with a box, an objectness and the classes."""
    return 3 * (classes + 5)


def box_count(levels: dict[int, Tensor]) -> int:
    """Candidate boxes of all scales: three a cell."""
    return sum(len(ANCHORS[stride]) * x.shape[1] * x.shape[2] for stride, x in levels.items())


@cache
def box_coding(strides: tuple[int, ...]) -> BoxCoding:
    """How the outputs of `add_head` stand for boxes."""
    return BoxCoding(
        "yolov3",
        tuple(Scale((f"stride{stride}",), stride, ANCHORS[stride]) for stride in sorted(strides, reverse=True)),
    )


@cache
def output_block(shape: Shape, channels: int) -> Block:
    """The output convolution."""
    block = BlockBuilder("output", shape)
    block.add("conv", Conv(channels), 0)
    return block.build()


def add_head(graph: GraphBuilder, levels: dict[int, Tensor], classes: int) -> list[tuple[str, Tensor]]:
    """Place the output convolutions; returns name and raw map `(3 (classes + 5), H, W)`, coarsest first."""
    channels = output_channels(classes)
    return [
        (f"stride{stride}", graph.add(f"head.stride{stride}", output_block(x.shape, channels), x))
        for stride, x in sorted(levels.items(), reverse=True)
    ]
