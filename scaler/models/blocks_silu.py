"""Blocks that YOLOX and YOLOv8 have in common: convolutions with SiLU, and the paths of their necks."""

from __future__ import annotations

from functools import cache

from scaler.graph.graph import Block, BlockBuilder
from scaler.graph.ops import BatchNorm, Concat, Shape, Upsample
from scaler.models import blocks_csp
from scaler.models.blocks import depthwise_bn
from scaler.models.blocks_csp import Style

STYLE = Style("swish", BatchNorm(epsilon=1e-3, momentum=0.97))


def unit(
    block: BlockBuilder, name: str, value: int, channels: int, kernel: int = 1, stride: int = 1, separable: bool = False
) -> int:
    """Append convolution, batch normalisation and SiLU; where `separable`, depthwise first and 1x1 behind it."""
    if separable:
        value = depthwise_bn(
            block, f"{name}.depthwise", value, kernel=kernel, stride=stride, activation=STYLE.activation,
            norm=STYLE.norm, padding="symmetric",
        )  # fmt: skip
        return blocks_csp.unit(block, f"{name}.pointwise", value, channels, STYLE)
    return blocks_csp.unit(block, name, value, channels, STYLE, kernel=kernel, stride=stride)


@cache
def unit_block(shape: Shape, channels: int, kernel: int = 1, stride: int = 1, separable: bool = False) -> Block:
    """A convolution with batch normalisation and SiLU on its own."""
    block = BlockBuilder("separable convolution" if separable else "convolution", shape)
    unit(block, "unit", 0, channels, kernel, stride, separable)
    return block.build()


@cache
def up_block(coarse: Shape, lateral: Shape) -> Block:
    """The coarse map enlarged twofold, and the lateral map behind it."""
    block = BlockBuilder("top-down path", coarse, lateral)
    value = block.add("up", Upsample(2), 0)
    block.add("concat", Concat(), value, 1)
    return block.build()


@cache
def down_block(fine: Shape, lateral: Shape, separable: bool = False) -> Block:
    """3x3 convolution of stride 2 on the fine map, and the lateral map behind it."""
    block = BlockBuilder("bottom-up path", fine, lateral)
    value = unit(block, "down", 0, fine[0], 3, 2, separable)
    block.add("concat", Concat(), value, 1)
    return block.build()
