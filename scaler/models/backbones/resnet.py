"""ResNet 18 to 152: the backbones of RetinaNet, and classifiers that many measured.

Source: He et al., "Deep Residual Learning" (CVPR 2016), Table 1. A strided bottleneck has its stride in the first 1x1
convolution in the paper and in the weights that Detectron starts from (MSRA's R-50.pkl), in the 3x3 convolution
("v1.5") in torchvision and in the published TensorRT measurements.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, TypeAlias, get_args

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import Activation, ActivationKind, Add, BatchNorm, MaxPool, Shape, pad_for
from scaler.models.backbones.trunk import Trunk
from scaler.models.blocks import classifier_block, conv_bn

StrideIn: TypeAlias = Literal["1x1", "3x3"]
"""The convolution of a bottleneck that halves the map."""

DEPTHS = {
    "18": (False, (2, 2, 2, 2)),
    "34": (False, (3, 4, 6, 3)),
    "50": (True, (3, 4, 6, 3)),
    "101": (True, (3, 4, 23, 3)),
    "152": (True, (3, 8, 36, 3)),
}
"""Whether bottlenecks are used, and the blocks per stage."""

NORM = BatchNorm(epsilon=1e-5, momentum=0.9)


@cache
def stem_block(shape: Shape) -> Block:
    """7x7 convolution and 3x3 max-pool, both of stride 2."""
    block = BlockBuilder("stem", shape)
    value = conv_bn(block, "unit", 0, 64, kernel=7, stride=2, activation="relu", norm=NORM, padding="symmetric")
    size = block.shape(value)[1]
    block.add("pool", MaxPool(3, 2, pad_for("symmetric", size, 3, 2)), value)
    return block.build()


def add_path(block: BlockBuilder, layers: tuple[tuple[int, int, int], ...]) -> int:
    """Append the convolutions of a block's main path, `(kernel, channels, stride)`; the last has no activation."""
    value = 0
    for index, (kernel, channels, stride) in enumerate(layers):
        activation: ActivationKind | None = "relu" if index < len(layers) - 1 else None
        value = conv_bn(
            block, f"conv{index}", value, channels, kernel=kernel, stride=stride, activation=activation, norm=NORM,
            padding="symmetric",
        )  # fmt: skip
    return value


@cache
def residual_block(shape: Shape, width: int, stride: int, bottleneck: bool, stride_in: StrideIn = "3x3") -> Block:
    """Basic block of two 3x3 convolutions, or bottleneck 1x1, 3x3, 1x1 with four times the width."""
    block = BlockBuilder("bottleneck" if bottleneck else "residual", shape)
    out_channels = 4 * width if bottleneck else width
    first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
    narrow = ((1, width, first), (3, width, second), (1, out_channels, 1))
    value = add_path(block, narrow if bottleneck else ((3, width, stride), (3, width, 1)))
    shortcut = 0
    if block.shape(value) != shape:
        shortcut = conv_bn(block, "shortcut", 0, out_channels, stride=stride, norm=NORM, padding="symmetric")
    value = block.add("residual", Add(), value, shortcut)
    block.add("relu", Activation("relu"), value)
    return block.build()


@cache
def trunk(depth: str, resolution: int | tuple[int, int], stride_in: StrideIn = "3x3") -> Trunk:
    """The convolutional part: stem and four stages, of stride 4 to 32.

    Args:
        depth: `18`, `34`, `50`, `101` or `152`.
        resolution: Side of the square input in pixels, or height and width.
        stride_in: Of the bottlenecks; the basic blocks of 18 and 34 have no such choice.
    """
    if depth not in DEPTHS:
        raise UsageError(unknown_name("ResNet depth", depth, DEPTHS))
    if stride_in not in get_args(StrideIn):
        raise UsageError(unknown_name("place of the stride", stride_in, get_args(StrideIn)))
    bottleneck, repeats = DEPTHS[depth]
    height, width = resolution if isinstance(resolution, tuple) else (resolution, resolution)
    graph = GraphBuilder((3, height, width))
    x = graph.add("backbone.stem", stem_block(graph.input.shape), graph.input)
    for stage, count in enumerate(repeats):
        for index in range(count):
            stride = 2 if stage and index == 0 else 1
            block = residual_block(x.shape, 64 * 2**stage, stride, bottleneck, stride_in)
            x = graph.add(f"backbone.stage{stage + 1}.block{index}", block, x)
    built = graph.build("", [("features", x)])
    return Trunk(f"ResNet-{depth}", built.input_shape, built.placements)


def classifier(depth: str, resolution: int = 224, classes: int = 1000) -> Graph:
    """The image classifier, with the stride in the 3x3 convolution.

    Args:
        depth: `18`, `34`, `50`, `101` or `152`.
        resolution: Side of the square input in pixels.
        classes: Number of outputs.
    """
    body = trunk(depth, resolution)
    graph = GraphBuilder(body.input_shape, body.placements)
    _, taps = body.truncated(0)
    logits = graph.add("classifier", classifier_block(taps[32].shape, classes), taps[32])
    return graph.build(f"resnet-{depth}-{resolution}", [("logits", logits)])
