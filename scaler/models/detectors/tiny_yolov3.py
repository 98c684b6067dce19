"""Tiny-YOLOv3: seven convolutions with max-pools between them, heads of stride 32 and 16.

Source: `yolov3-tiny.cfg` of the code that came with Redmon and Farhadi, "YOLOv3" (2018). Its anchors of stride 16 are
the first three, as that file has them.
"""

from __future__ import annotations

from functools import cache

from scaler.graph.boxes import BoxCoding, Scale
from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder, Tensor
from scaler.graph.ops import Concat, Shape, Upsample
from scaler.models.backbones.darknet import STYLE, pooled_unit_block
from scaler.models.blocks_csp import unit, unit_block
from scaler.models.detectors.checks import require
from scaler.models.heads.yolov3 import output_channels
from scaler.models.heads.yolov4 import head_block

ANCHORS = {32: ((81, 82), (135, 169), (344, 319)), 16: ((10, 14), (23, 27), (37, 58))}
"""Width and height in input pixels by stride."""

WIDTHS = (16, 32, 64, 128, 256, 512, 1024)
TAPPED = 4
"""Place of the convolution of stride 16 that the finer head reads."""

CODING = BoxCoding("yolov3", tuple(Scale((f"stride{stride}",), stride, anchors) for stride, anchors in ANCHORS.items()))


@cache
def path_block(coarse: Shape, lateral: Shape) -> Block:
    """1x1 convolution to half the channels, enlarged twofold, and the lateral map behind it."""
    block = BlockBuilder("path", coarse, lateral)
    value = unit(block, "link", 0, coarse[0] // 2, STYLE)
    value = block.add("up", Upsample(2), value)
    block.add("concat", Concat(), value, 1)
    return block.build()


def _add_backbone(graph: GraphBuilder) -> tuple[Tensor, Tensor]:
    """Place the convolutions; returns the last map and the tapped one. The last pool has stride 1."""
    x = tapped = graph.add("backbone.conv0", unit_block(graph.input.shape, WIDTHS[0], STYLE, kernel=3), graph.input)
    for index, width in enumerate(WIDTHS[1:], start=1):
        stride = 1 if index == len(WIDTHS) - 1 else 2
        x = graph.add(f"backbone.conv{index}", pooled_unit_block(x.shape, width, stride), x)
        tapped = x if index == TAPPED else tapped
    return x, tapped


def build(resolution: int = 416, classes: int = 80) -> Graph:
    """The detector; its outputs are `(3 (5 + classes), H, W)` of stride 32 and 16.

    Args:
        resolution: Side of the square input in pixels, a multiple of 32.
        classes: Number of classes.

    Raises:
        UsageError: A resolution that is no multiple of 32.
    """
    require("resolution", resolution, resolution >= 32 and resolution % 32 == 0, "a multiple of 32, from 32 on")
    graph = GraphBuilder((3, resolution, resolution))
    x, tapped = _add_backbone(graph)
    x = graph.add("neck.reduce", unit_block(x.shape, 256, STYLE), x)
    fine = graph.add("neck.path16", path_block(x.shape, tapped.shape), x, tapped)
    outputs = []
    for stride, source, width in ((32, x, 512), (16, fine, 256)):
        head = head_block(source.shape, width, output_channels(classes), STYLE)
        outputs.append((f"stride{stride}", graph.add(f"head.stride{stride}", head, source)))
    boxes = sum(len(ANCHORS[stride]) * (resolution // stride) ** 2 for stride in ANCHORS)
    return graph.build(f"yolov3-tiny-{resolution}", outputs, boxes, CODING)
