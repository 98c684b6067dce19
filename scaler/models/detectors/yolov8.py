"""YOLOv8 n to x, whose many published measurements on Orins calibrate the device models.

Source: the configuration `yolov8.yaml` of the released code, which states the parameters and GFLOPs of every variant;
there is no paper. The outputs here are the maps before the boxes are decoded: per scale the distributions of the four
sides, 16 numbers each, and the sigmoid of the classes. What decodes them, a softmax over 16 numbers and a sum with
16 fixed weights, is no part of the graph.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder, Tensor
from scaler.graph.ops import Activation, Add, Concat, Conv, MaxPool, Padding, Shape, Slice
from scaler.models.blocks import round_channels
from scaler.models.blocks_silu import down_block, unit, unit_block, up_block
from scaler.models.detectors.checks import require


class Scaling(NamedTuple):
    """Multipliers of a variant, and the most channels that a map may have before its width applies."""

    depth: float
    width: float
    max_channels: int


VARIANTS = {
    "n": Scaling(0.33, 0.25, 1024),
    "s": Scaling(0.33, 0.5, 1024),
    "m": Scaling(0.67, 0.75, 768),
    "l": Scaling(1.0, 1.0, 512),
    "x": Scaling(1.0, 1.25, 512),
}

STAGES = ((128, 3), (256, 6), (512, 6), (1024, 3))
"""Channels and bottlenecks of the stages of stride 4 to 32, before scaling."""

NECK_REPEATS = 3
STRIDES = (8, 16, 32)
SIDES, BINS = 4, 16
"""Of a box, and of the distribution of the distance to each side."""


@cache
def c2f_block(shape: Shape, channels: int, repeats: int, shortcut: bool) -> Block:
    """Cross-stage partial layer: bottlenecks on one half one after the other, all of their outputs joined and mixed."""
    block, half = BlockBuilder("C2f layer", shape), channels // 2
    entry = unit(block, "entry", 0, 2 * half)
    value = block.add("half", Slice(half, half), entry)
    parts = [entry]
    for index in range(repeats):
        inner = unit(block, f"bottleneck{index}.conv0", value, half, 3)
        inner = unit(block, f"bottleneck{index}.conv1", inner, half, 3)
        value = block.add(f"bottleneck{index}.residual", Add(), inner, value) if shortcut else inner
        parts.append(value)
    joined = block.add("concat", Concat(), *parts)
    unit(block, "mix", joined, channels)
    return block.build()


@cache
def pyramid_pooling_block(shape: Shape) -> Block:
    """Spatial pyramid pooling: half the channels, three 5x5 max-pools one after the other, all joined and mixed."""
    block = BlockBuilder("spatial pyramid pooling", shape)
    parts = [unit(block, "reduce", 0, shape[0] // 2)]
    for index in range(3):
        parts.append(block.add(f"pool{index}", MaxPool(5, 1, Padding(2, 2, 2, 2)), parts[-1]))
    joined = block.add("concat", Concat(), *parts)
    unit(block, "expand", joined, shape[0])
    return block.build()


@cache
def head_block(shape: Shape, box_width: int, class_width: int, classes: int) -> Block:
    """The decoupled head of a scale: two 3x3 convolutions and the output for the box, the same for the classes."""
    block = BlockBuilder("decoupled head", shape)
    box = scores = 0
    for index in range(2):
        box = unit(block, f"box{index}", box, box_width, 3)
        scores = unit(block, f"class{index}", scores, class_width, 3)
    box = block.add("box.conv", Conv(SIDES * BINS, bias=True), box)
    scores = block.add("classes.conv", Conv(classes, bias=True), scores)
    scores = block.add("classes.sigmoid", Activation("sigmoid"), scores)
    block.add("concat", Concat(), box, scores)
    return block.build()


def _add_backbone(graph: GraphBuilder, scaling: Scaling) -> dict[int, Tensor]:
    """Place the backbone; returns the maps of stride 8, 16 and 32."""
    stem = unit_block(graph.input.shape, round_channels(64 * scaling.width), 3, 2)
    x = graph.add("backbone.stem", stem, graph.input)
    taps = {}
    for number, (channels, repeats) in enumerate(STAGES, start=2):
        name, stride = f"backbone.stage{number}", 2**number
        width = round_channels(min(channels, scaling.max_channels) * scaling.width)
        x = graph.add(f"{name}.down", unit_block(x.shape, width, 3, 2), x)
        layer = c2f_block(x.shape, width, max(round(repeats * scaling.depth), 1), True)
        x = graph.add(f"{name}.c2f", layer, x)
        if stride == STRIDES[-1]:
            x = graph.add(f"{name}.pooling", pyramid_pooling_block(x.shape), x)
        if stride in STRIDES:
            taps[stride] = x
    return taps


def _add_neck(graph: GraphBuilder, scaling: Scaling, taps: dict[int, Tensor]) -> dict[int, Tensor]:
    """Place the neck; returns one map a stride, as wide as the tap."""
    repeats = max(round(NECK_REPEATS * scaling.depth), 1)
    levels = dict(taps)

    def add(name: str, path: Block, incoming: Tensor, stride: int) -> Tensor:
        x = graph.add(f"neck.{name}.path{stride}", path, incoming, levels[stride])
        return graph.add(f"neck.{name}.c2f{stride}", c2f_block(x.shape, taps[stride].channels, repeats, False), x)

    for stride in (16, 8):
        incoming = levels[2 * stride]
        levels[stride] = add("top_down", up_block(incoming.shape, levels[stride].shape), incoming, stride)
    for stride in (16, 32):
        incoming = levels[stride // 2]
        levels[stride] = add("bottom_up", down_block(incoming.shape, levels[stride].shape), incoming, stride)
    return levels


def build(variant: str, resolution: int = 640, classes: int = 80) -> Graph:
    """The detector; its outputs are `(64 + classes, H, W)` of stride 8, 16 and 32.

    Args:
        variant: `n`, `s`, `m`, `l` or `x`.
        resolution: Side of the square input in pixels, a multiple of 32.
        classes: Number of classes.

    Raises:
        UsageError: An unknown variant, or a resolution that is no multiple of 32.
    """
    if variant not in VARIANTS:
        raise UsageError(unknown_name("YOLOv8 variant", variant, VARIANTS))
    require("resolution", resolution, resolution >= 32 and resolution % 32 == 0, "a multiple of 32, from 32 on")
    scaling = VARIANTS[variant]
    graph = GraphBuilder((3, resolution, resolution))
    levels = _add_neck(graph, scaling, _add_backbone(graph, scaling))
    finest = levels[STRIDES[0]].channels
    box_width, class_width = max(16, finest // 4, SIDES * BINS), max(finest, min(classes, 100))
    outputs = []
    for stride in STRIDES:
        x = levels[stride]
        head = head_block(x.shape, box_width, class_width, classes)
        outputs.append((f"stride{stride}", graph.add(f"head.stride{stride}", head, x)))
    boxes = sum(levels[stride].shape[1] * levels[stride].shape[2] for stride in STRIDES)
    return graph.build(f"yolov8-{variant}-{resolution}", outputs, boxes)
