"""RetinaNet's feature pyramid: one map of equal width per level, P3 to P7.

Source: Lin et al., "Feature Pyramid Networks" (CVPR 2017), section 3, and "Focal Loss for Dense Object Detection"
(ICCV 2017), section 4: P6 is a strided convolution of C5 and P7 one of P6 behind a ReLU. All convolutions have a bias
and no normalisation, as in Detectron. A level `l` has the stride `2 ** l`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from scaler.graph.graph import Block, BlockBuilder, GraphBuilder, Tensor
from scaler.graph.ops import Activation, Add, Conv, Shape, Upsample, pad_for

Pyramid = dict[int, Tensor]
"""Feature maps by level, finest first: 3 to 7."""

LEVELS = (3, 4, 5, 6, 7)
BACKBONE_LEVELS = (3, 4, 5)


def bare_conv(
    block: BlockBuilder, name: str, value: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> int:
    """Append a convolution with bias and without normalisation; returns its value."""
    padding = pad_for("symmetric", block.shape(value)[1], kernel, stride)
    return block.add(name, Conv(out_channels, kernel, stride, groups, padding, bias=True), value)


@cache
def conv_block(shape: Shape, width: int, kernel: int, *, stride: int = 1, relu_first: bool = False) -> Block:
    """A bare convolution on its own; behind a ReLU for P7."""
    block = BlockBuilder("convolution", shape)
    value = block.add("relu", Activation("relu"), 0) if relu_first else 0
    bare_conv(block, "conv", value, width, kernel, stride=stride)
    return block.build()


@cache
def top_down_block(lateral: Shape, coarser: Shape, width: int) -> Block:
    """1x1 convolution of a backbone's map plus the coarser map, enlarged twice."""
    block = BlockBuilder("top-down", lateral, coarser)
    value = bare_conv(block, "lateral", 0, width, 1)
    enlarged = block.add("up", Upsample(2), 1)
    block.add("sum", Add(), value, enlarged)
    return block.build()


def add_fpn(graph: GraphBuilder, taps: Mapping[int, Tensor], width: int) -> Pyramid:
    """Place the pyramid.

    The map of stride 8 must be exactly twice that of stride 16 and so on, hence the sides of the picture multiples
    of 32; P6 and P7 may round up.

    Args:
        graph: Where to place it.
        taps: Backbone maps by stride; 8, 16 and 32 are read.
        width: Channels of all levels.
    """
    inner: Pyramid = {}
    for level in sorted(BACKBONE_LEVELS, reverse=True):
        x = taps[2**level]
        if level + 1 in inner:
            block = top_down_block(x.shape, inner[level + 1].shape, width)
            inner[level] = graph.add(f"neck.p{level}.lateral", block, x, inner[level + 1])
        else:
            inner[level] = graph.add(f"neck.p{level}.lateral", conv_block(x.shape, width, 1), x)
    pyramid = {
        level: graph.add(f"neck.p{level}.output", conv_block(inner[level].shape, width, 3), inner[level])
        for level in BACKBONE_LEVELS
    }
    c5 = taps[2 ** BACKBONE_LEVELS[-1]]
    pyramid[6] = graph.add("neck.p6.output", conv_block(c5.shape, width, 3, stride=2), c5)
    seven = conv_block(pyramid[6].shape, width, 3, stride=2, relu_first=True)
    pyramid[7] = graph.add("neck.p7.output", seven, pyramid[6])
    return pyramid
