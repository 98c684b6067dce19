"""YOLOX nano to x: CSPDarknet with Focus, PAFPN, decoupled head; they calibrate the device models.

Source: Ge, Liu, Wang, Li, Sun, "YOLOX: Exceeding YOLO Series in 2021" (arXiv 2107.08430) and its released code. What
the released export writes is the output here too: per scale box, sigmoid of the objectness and sigmoid of the
classes, one below the other. Focus reads the four pixels of a cell in ONNX' order, the released code in another: a
permutation of the first convolution's weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder, Tensor
from scaler.graph.ops import Activation, Add, Concat, Conv, MaxPool, Padding, Shape, SpaceToDepth
from scaler.models.blocks_silu import down_block, unit, unit_block, up_block
from scaler.models.detectors.checks import require


class Scaling(NamedTuple):
    """How a variant differs from YOLOX-L."""

    depth: float
    width: float
    depthwise: bool = False
    """Whether its 3x3 convolutions are depthwise separable."""


VARIANTS = {
    "nano": Scaling(0.33, 0.25, depthwise=True),
    "tiny": Scaling(0.33, 0.375),
    "s": Scaling(0.33, 0.5),
    "m": Scaling(0.67, 0.75),
    "l": Scaling(1.0, 1.0),
    "x": Scaling(1.33, 1.25),
}

POOLS = (5, 9, 13)
STRIDES = (8, 16, 32)
HEAD_WIDTH = 256
"""Of YOLOX-L, as the level of stride 8."""


@cache
def focus_block(shape: Shape, channels: int) -> Block:
    """Pixels of 2x2 cells as channels, and a 3x3 convolution."""
    block = BlockBuilder("focus", shape)
    value = block.add("space_to_depth", SpaceToDepth(2), 0)
    unit(block, "unit", value, channels, 3)
    return block.build()


@cache
def pyramid_pooling_block(shape: Shape) -> Block:
    """Spatial pyramid pooling: half the channels, three max-pools of stride 1 beside them, back to all channels."""
    block = BlockBuilder("spatial pyramid pooling", shape)
    value = unit(block, "reduce", 0, shape[0] // 2)
    pools = [block.add(f"pool{k}", MaxPool(k, 1, Padding(*[k // 2] * 4)), value) for k in POOLS]
    joined = block.add("concat", Concat(), value, *pools)
    unit(block, "expand", joined, shape[0])
    return block.build()


@cache
def csp_layer(shape: Shape, channels: int, repeats: int, shortcut: bool, separable: bool) -> Block:
    """Cross-stage partial layer: bottlenecks on one half, the other half passed by, both joined and mixed."""
    block = BlockBuilder("CSP layer", shape)
    half = channels // 2
    value, bypass = unit(block, "main", 0, half), unit(block, "bypass", 0, half)
    for index in range(repeats):
        inner = unit(block, f"bottleneck{index}.reduce", value, half)
        inner = unit(block, f"bottleneck{index}.conv", inner, half, 3, separable=separable)
        value = block.add(f"bottleneck{index}.residual", Add(), inner, value) if shortcut else inner
    joined = block.add("concat", Concat(), value, bypass)
    unit(block, "mix", joined, channels)
    return block.build()


@cache
def head_block(shape: Shape, width: int, classes: int, separable: bool) -> Block:
    """The decoupled head of a scale: two 3x3 convolutions for the classes, two for box and objectness."""
    block = BlockBuilder("decoupled head", shape)
    stem = unit(block, "stem", 0, width)
    classify = regress = stem
    for index in range(2):
        classify = unit(block, f"class{index}", classify, width, 3, separable=separable)
        regress = unit(block, f"box{index}", regress, width, 3, separable=separable)
    box = block.add("box.conv", Conv(4, bias=True), regress)
    objectness = block.add("objectness.conv", Conv(1, bias=True), regress)
    objectness = block.add("objectness.sigmoid", Activation("sigmoid"), objectness)
    scores = block.add("classes.conv", Conv(classes, bias=True), classify)
    scores = block.add("classes.sigmoid", Activation("sigmoid"), scores)
    block.add("concat", Concat(), box, objectness, scores)
    return block.build()


def _add_backbone(graph: GraphBuilder, scaling: Scaling) -> dict[int, Tensor]:
    """Place CSPDarknet; returns the maps of stride 8, 16 and 32."""
    base, separable = int(64 * scaling.width), scaling.depthwise
    repeats = max(round(3 * scaling.depth), 1)
    x = graph.add("backbone.stem", focus_block(graph.input.shape, base), graph.input)
    taps = {}
    for stage, (multiple, stride) in enumerate(((1, 4), (3, 8), (3, 16), (1, 32)), start=2):
        name = f"backbone.dark{stage}"
        x = graph.add(f"{name}.down", unit_block(x.shape, 2 * x.channels, 3, 2, separable), x)
        if stride == STRIDES[-1]:
            x = graph.add(f"{name}.pooling", pyramid_pooling_block(x.shape), x)
        layer = csp_layer(x.shape, x.channels, multiple * repeats, stride != STRIDES[-1], separable)
        x = taps[stride] = graph.add(f"{name}.csp", layer, x)
    return taps


def _add_neck(graph: GraphBuilder, scaling: Scaling, taps: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Place PAFPN; returns one map a stride, as wide as the tap."""
    repeats, separable = round(3 * scaling.depth), scaling.depthwise
    laterals, x = {}, taps[32]
    for stride in (16, 8):
        reduced = unit_block(x.shape, taps[stride].channels)
        x = laterals[2 * stride] = graph.add(f"neck.top_down.reduce{2 * stride}", reduced, x)
        x = graph.add(f"neck.top_down.path{stride}", up_block(x.shape, taps[stride].shape), x, taps[stride])
        layer = csp_layer(x.shape, taps[stride].channels, repeats, False, separable)
        x = graph.add(f"neck.top_down.csp{stride}", layer, x)
    levels = {8: x}
    for stride in (16, 32):
        path = down_block(x.shape, laterals[stride].shape, separable)
        x = graph.add(f"neck.bottom_up.path{stride}", path, x, laterals[stride])
        layer = csp_layer(x.shape, taps[stride].channels, repeats, False, separable)
        x = levels[stride] = graph.add(f"neck.bottom_up.csp{stride}", layer, x)
    return levels


def build(variant: str, resolution: int = 640, classes: int = 80) -> Graph:
    """The detector; its outputs are `(5 + classes, H, W)` of stride 8, 16 and 32: box, objectness, classes.

    Args:
        variant: `nano`, `tiny`, `s`, `m`, `l` or `x`.
        resolution: Side of the square input in pixels, a multiple of 32.
        classes: Number of classes.

    Raises:
        UsageError: An unknown variant, or a resolution that is no multiple of 32.
    """
    if variant not in VARIANTS:
        raise UsageError(unknown_name("YOLOX variant", variant, VARIANTS))
    require("resolution", resolution, resolution >= 32 and resolution % 32 == 0, "a multiple of 32, from 32 on")
    scaling = VARIANTS[variant]
    graph = GraphBuilder((3, resolution, resolution))
    levels = _add_neck(graph, scaling, _add_backbone(graph, scaling))
    outputs = []
    for stride, x in levels.items():
        head = head_block(x.shape, int(HEAD_WIDTH * scaling.width), classes, scaling.depthwise)
        outputs.append((f"stride{stride}", graph.add(f"head.stride{stride}", head, x)))
    boxes = sum(x.shape[1] * x.shape[2] for x in levels.values())
    return graph.build(f"yolox-{variant}-{resolution}", outputs, boxes)
