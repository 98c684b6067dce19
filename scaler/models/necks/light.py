"""The lightweight necks of YOLO-ReT: none, FPN, PANet, and our BiFPN.

Source: Ganesh et al., "YOLO-ReT" (WACV 2022), section 3.2; widths, order of operations and the quirk that all
maps between the levels carry `3 (classes + 5)` channels come from the released code. Down-sampling is max-pool.
BiFPN is not in the released code nor described in the paper: ours is derived in docs/adr/002-bifpn.md.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, TypeAlias

from scaler.graph.graph import Block, BlockBuilder, GraphBuilder, Tensor
from scaler.graph.ops import BatchNorm, Concat, Shape, WeightedSum
from scaler.models.blocks import conv_block, conv_bn, depthwise_bn, resize, squeeze_excite

NeckKind: TypeAlias = Literal["none", "fpn", "panet", "bifpn"]
Levels: TypeAlias = dict[int, Tensor]
"""Feature maps by stride: 8, 16, 32."""

LEVEL_WIDTHS = {32: 512, 16: 256, 8: 128}
NORM = BatchNorm(epsilon=1e-3, momentum=0.9)


@cache
def detection_unit(shape: Shape, width: int, out_channels: int) -> Block:
    """The paper's single MBConvSE block: 1x1 to `width`, depthwise 3x3, SE, linear 1x1 to `out_channels`."""
    block = BlockBuilder("detection unit", shape)
    value = conv_bn(block, "expand", 0, width, activation="relu6", norm=NORM)
    value = depthwise_bn(block, "depthwise", value, activation="swish", norm=NORM)
    value = squeeze_excite(block, value, width // 4, "swish")
    conv_bn(block, "project", value, out_channels, norm=NORM)
    return block.build()


@cache
def path_block(incoming: Shape, lateral: Shape, width: int) -> Block:
    """1x1 link of the incoming map to `width`, resize to the lateral map, concatenate incoming first."""
    block = BlockBuilder("path", incoming, lateral)
    value = conv_bn(block, "link", 0, width, activation="relu6", norm=NORM)
    value = resize(block, "resize", value, lateral[1])
    block.add("concat", Concat(), value, 1)
    return block.build()


@cache
def fusion_block(*shapes: Shape) -> Block:
    """The sum at a BiFPN node: resize all maps to the first one's size, add them with free weights."""
    block = BlockBuilder("weighted fusion", *shapes)
    values = [resize(block, f"in{index}", index, shapes[0][1]) for index in range(len(shapes))]
    block.add("sum", WeightedSum(), *values)
    return block.build()


def _unit(graph: GraphBuilder, name: str, x: Tensor, stride: int, out_channels: int) -> Tensor:
    block = detection_unit(x.shape, LEVEL_WIDTHS[stride], out_channels)
    return graph.add(f"{name}.stride{stride}", block, x)


def _walk(graph: GraphBuilder, name: str, levels: Levels, order: tuple[int, ...], out_channels: int) -> Levels:
    """Aggregate along `order`: the first level alone, every next one with a link from the one before.

    The link has the width of the finer of its two levels.
    """
    outputs: Levels = {}
    for position, stride in enumerate(order):
        x = levels[stride]
        if position:
            before = order[position - 1]
            link = min(LEVEL_WIDTHS[before], LEVEL_WIDTHS[stride])
            path = path_block(outputs[before].shape, x.shape, link)
            x = graph.add(f"{name}.path{stride}", path, outputs[before], x)
        outputs[stride] = _unit(graph, name, x, stride, out_channels)
    return outputs


def _none(graph: GraphBuilder, name: str, levels: Levels, out_channels: int) -> Levels:
    return {stride: _unit(graph, name, x, stride, out_channels) for stride, x in levels.items()}


def _fpn(graph: GraphBuilder, name: str, levels: Levels, out_channels: int) -> Levels:
    return _walk(graph, f"{name}.top_down", levels, (32, 16, 8), out_channels)


def _panet(graph: GraphBuilder, name: str, levels: Levels, out_channels: int) -> Levels:
    top_down = _fpn(graph, name, levels, out_channels)
    return _walk(graph, f"{name}.bottom_up", top_down, (8, 16, 32), out_channels)


def _bifpn_round(graph: GraphBuilder, name: str, levels: Levels, width: int) -> Levels:
    """Tan et al., "EfficientDet" (CVPR 2020), Figure 2d on three levels, with the detection unit at each node."""

    def node(label: str, *inputs: Tensor) -> Tensor:
        fused = graph.add(f"{name}.{label}_sum", fusion_block(*(x.shape for x in inputs)), *inputs)
        return graph.add(f"{name}.{label}", detection_unit(fused.shape, width, width), fused)

    middle = node("middle16", levels[16], levels[32])
    fine = node("out8", levels[8], middle)
    centre = node("out16", levels[16], middle, fine)
    return {32: node("out32", levels[32], centre), 16: centre, 8: fine}


def _bifpn(graph: GraphBuilder, levels: Levels, repeats: int, width: int, out_channels: int) -> Levels:
    levels = {
        stride: graph.add(f"neck.lateral.stride{stride}", conv_block(x.shape, width, activation=None, norm=NORM), x)
        for stride, x in levels.items()
    }
    for index in range(repeats):
        levels = _bifpn_round(graph, f"neck.round{index}", levels, width)
    return _none(graph, "neck.out", levels, out_channels)


def add_neck(
    graph: GraphBuilder, kind: NeckKind, levels: Levels, *, repeats: int, bifpn_width: int, out_channels: int
) -> Levels:
    """Place a neck; returns one map of `out_channels` per stride.

    Args:
        graph: Where to place it.
        kind: `none`, `fpn`, `panet` or `bifpn`.
        levels: Feature maps of stride 8, 16 and 32.
        repeats: How often the aggregation runs; the paper repeats BiFPN only.
        bifpn_width: Channels inside BiFPN.
        out_channels: Channels of all maps between levels and at the end.
    """
    if kind == "bifpn":
        return _bifpn(graph, levels, repeats, bifpn_width, out_channels)
    aggregate = {"none": _none, "fpn": _fpn, "panet": _panet}[kind]
    for index in range(repeats):
        levels = aggregate(graph, f"neck.round{index}" if repeats > 1 else "neck", levels, out_channels)
    return levels
