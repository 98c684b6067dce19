"""The blocks of the CSP networks: YOLOv4, Scaled-YOLOv4 and what was built on them.

Source: Wang, Bochkovskiy, Liao, "Scaled-YOLOv4" (CVPR 2021), and the configurations and code that its authors
released; where the figures and the code differ, the code (docs/adr/013-scaled-yolov4.md). Every concatenation lies in
the block of the convolutions that write it.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from scaler.graph.graph import Block, BlockBuilder
from scaler.graph.ops import (
    Activation,
    ActivationKind,
    Add,
    BatchNorm,
    Concat,
    Conv,
    MaxPool,
    Shape,
    Slice,
    Upsample,
    pad_for,
)
from scaler.models.blocks import conv_block, conv_bn

SPP_KERNELS = (5, 9, 13)


class Style(NamedTuple):
    """What all blocks of a network have in common."""

    activation: ActivationKind = "mish"
    norm: BatchNorm = BatchNorm(epsilon=1e-5, momentum=0.97)
    concat_norm: bool = False
    """Whether the two paths of a CSP block are normalised and activated together after their concatenation (a path
    that ends in a normalised convolution then is so twice), or each by itself."""


def unit(
    block: BlockBuilder, name: str, value: int, channels: int, style: Style, *, kernel: int = 1, stride: int = 1
) -> int:
    """Append convolution, batch normalisation and activation."""
    return conv_bn(
        block,
        name,
        value,
        channels,
        kernel=kernel,
        stride=stride,
        activation=style.activation,
        norm=style.norm,
        padding="symmetric",
    )


def unit_block(shape: Shape, channels: int, style: Style, *, kernel: int = 1, stride: int = 1) -> Block:
    """The same as a block."""
    return conv_block(
        shape,
        channels,
        kernel=kernel,
        stride=stride,
        activation=style.activation,
        norm=style.norm,
        padding="symmetric",
    )


def _path_end(block: BlockBuilder, name: str, value: int, channels: int, style: Style) -> int:
    """Append the 1x1 convolution that ends a path; it is bare where the concatenation is normalised."""
    if style.concat_norm:
        return block.add(f"{name}.conv", Conv(channels), value)
    return unit(block, name, value, channels, style)


def _joined(block: BlockBuilder, main: int, cross: int, channels: int, style: Style) -> int:
    """Append the end of a CSP block: concatenation of the paths and a 1x1 convolution over both."""
    value = block.add("concat", Concat(), main, cross)
    if style.concat_norm:
        value = block.add("joint.bn", style.norm, value)
        value = block.add(f"joint.{style.activation}", Activation(style.activation), value)
    return unit(block, "out", value, channels, style)


@cache
def residual_unit(shape: Shape, hidden: int, style: Style) -> Block:
    """Darknet's residual: 1x1 to `hidden`, 3x3 back, addition behind the activation."""
    block = BlockBuilder("residual", shape)
    value = unit(block, "reduce", 0, hidden, style)
    value = unit(block, "conv", value, shape[0], style, kernel=3)
    block.add("residual", Add(), 0, value)
    return block.build()


@cache
def csp_merge(main: Shape, source: Shape, channels: int, style: Style) -> Block:
    """The end of a CSP stage: 1x1 of the main path, 1x1 of the stage's input as cross path, 1x1 over both."""
    block = BlockBuilder("CSP", main, source)
    ends = {name: _path_end(block, name, value, main[0], style) for value, name in enumerate(("main", "cross"))}
    _joined(block, ends["main"], ends["cross"], channels, style)
    return block.build()


@cache
def reversed_csp(shape: Shape, channels: int, units: int, style: Style) -> Block:
    """The neck's CSP block: 1x1 to `channels`, where the cross path leaves; `units` of 1x1 and 3x3, no residual."""
    block = BlockBuilder("rCSP", shape)
    entry = value = unit(block, "entry", 0, channels, style)
    for index in range(units):
        value = unit(block, f"unit{index}.reduce", value, channels, style)
        value = unit(block, f"unit{index}.conv", value, channels, style, kernel=3)
    _joined(block, value, _path_end(block, "cross", entry, channels, style), channels, style)
    return block.build()


@cache
def spp_csp(shape: Shape, channels: int, style: Style, before: int = 1, after: int = 1) -> Block:
    """Spatial pyramid pooling inside a CSP block whose cross path leaves the block's input.

    Args:
        shape: Of the input.
        channels: Of both paths and the output.
        style: Of the network.
        before: Pairs of 3x3 and 1x1 convolutions between entry and pooling.
        after: Pairs of 1x1 and 3x3 convolutions behind the pooling.
    """
    block = BlockBuilder("SPPCSP", shape)
    value = unit(block, "entry", 0, channels, style)
    for index in range(before):
        value = unit(block, f"before{index}.conv", value, channels, style, kernel=3)
        value = unit(block, f"before{index}.reduce", value, channels, style)
    pools = [
        block.add(f"pool{kernel}", MaxPool(kernel, 1, pad_for("symmetric", shape[1], kernel, 1)), value)
        for kernel in SPP_KERNELS
    ]
    value = block.add("pyramid", Concat(), value, *pools)
    for index in range(after):
        value = unit(block, f"after{index}.reduce", value, channels, style)
        value = unit(block, f"after{index}.conv", value, channels, style, kernel=3)
    _joined(block, value, _path_end(block, "cross", 0, channels, style), channels, style)
    return block.build()


@cache
def top_down_block(coarse: Shape, lateral: Shape, channels: int, style: Style) -> Block:
    """1x1 of the lateral map, 1x1 and enlargement of the coarse one, concatenated in this order."""
    block = BlockBuilder("path", coarse, lateral)
    value = unit(block, "link", 0, channels, style)
    value = block.add("up", Upsample(lateral[1] // coarse[1]), value)
    side = unit(block, "lateral", 1, channels, style)
    block.add("concat", Concat(), side, value)
    return block.build()


@cache
def bottom_up_block(fine: Shape, lateral: Shape, style: Style) -> Block:
    """3x3 of stride 2 of the fine map to the lateral map's channels, concatenated before that map."""
    block = BlockBuilder("path", fine, lateral)
    value = unit(block, "down", 0, lateral[0], style, kernel=3, stride=2)
    block.add("concat", Concat(), value, 1)
    return block.build()


@cache
def partial_osa(entry: Shape, style: Style) -> Block:
    """CSPOSANet's partial computational block behind its 3x3 entry: section 3.2 and Figure 3 of the paper.

    Two 3x3 on the second half of the channels, then the transition, 1x1 to all channels over the concatenation of the
    two, newest first.
    """
    block = BlockBuilder("CSPOSA", entry)
    growth = entry[0] // 2
    value = block.add("half", Slice(growth, growth), 0)
    first = unit(block, "conv0", value, growth, style, kernel=3)
    second = unit(block, "conv1", first, growth, style, kernel=3)
    value = block.add("concat", Concat(), second, first)
    unit(block, "transition", value, 2 * growth, style)
    return block.build()


@cache
def pooled_paths(*shapes: Shape) -> Block:
    """A 2x2 max-pool of every path and their concatenation, which is the pool of the concatenation."""
    block = BlockBuilder("pool", *shapes)
    block.add("concat", Concat(), *[block.add(f"pool{path}", MaxPool(2, 2), path) for path in range(len(shapes))])
    return block.build()
