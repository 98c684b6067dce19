"""SqueezeNet 1.0 and 1.1, and AlexNet that they shrink, as image classifiers: they calibrate the device models.

Sources: Iandola et al., "SqueezeNet" (arXiv 1602.07360), Table 1, and the authors' release 1.1; Krizhevsky, "One weird
trick for parallelizing convolutional neural networks" (arXiv 1404.5997) for AlexNet, as torchvision builds it.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import Activation, Concat, Conv, GlobalAveragePool, MaxPool, Padding, Shape
from scaler.models.backbones.vgg import FEATURES, dense_classifier
from scaler.models.detectors.checks import require

Fire: TypeAlias = tuple[int, int]
"""Channels of the squeeze, and of each of the two expansions."""

VARIANTS: dict[str, tuple[tuple[int, int], tuple[tuple[Fire, ...], ...]]] = {
    "1.0": (
        (96, 7),
        (((16, 64), (16, 64), (32, 128)), ((32, 128), (48, 192), (48, 192), (64, 256)), ((64, 256),)),
    ),
    "1.1": (
        (64, 3),
        (((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256))),
    ),
}
"""Channels and kernel of the stem, and the fire modules between the pools."""

ALEXNET_CONVOLUTIONS = ((64, 11, 4, 2, True), (192, 5, 1, 2, True), (384, 3, 1, 1, False), (256, 3, 1, 1, False),
                        (256, 3, 1, 1, True))  # fmt: skip
"""Channels, kernel, stride, padding, and whether a 3x3 max-pool of stride 2 follows."""

LEAST_RESOLUTION = 64


def _conv(block: BlockBuilder, name: str, value: int, channels: int, kernel: int = 1, stride: int = 1,
          padding: int = 0) -> int:  # fmt: skip
    """Append a convolution with bias and ReLU; returns the last value."""
    value = block.add(f"{name}.conv", Conv(channels, kernel, stride, 1, Padding(*[padding] * 4), bias=True), value)
    return block.add(f"{name}.relu", Activation("relu"), value)


@cache
def conv_pool_block(shape: Shape, channels: int, kernel: int, stride: int, padding: int, pooled: bool) -> Block:
    """A convolution with bias and ReLU, and a 3x3 max-pool of stride 2 where `pooled`."""
    block = BlockBuilder("convolution", shape)
    value = _conv(block, "unit", 0, channels, kernel, stride, padding)
    if pooled:
        block.add("pool", MaxPool(3, 2), value)
    return block.build()


@cache
def pool_block(shape: Shape) -> Block:
    """3x3 max-pool of stride 2 whose last window may hang over the bottom and right edge."""
    block, over = BlockBuilder("pool", shape), (shape[1] - 3) % 2
    block.add("pool", MaxPool(3, 2, Padding(0, 0, over, over)), 0)
    return block.build()


@cache
def fire_block(shape: Shape, squeezed: int, expanded: int) -> Block:
    """The fire module: 1x1 to `squeezed` channels, from there 1x1 and 3x3 to `expanded` each, side by side."""
    block = BlockBuilder("fire", shape)
    value = _conv(block, "squeeze", 0, squeezed)
    parts = [_conv(block, f"expand{kernel}x{kernel}", value, expanded, kernel, 1, kernel // 2) for kernel in (1, 3)]
    block.add("concat", Concat(), *parts)
    return block.build()


@cache
def top_block(shape: Shape, classes: int) -> Block:
    """1x1 convolution to the classes with ReLU, and the mean over the map."""
    block = BlockBuilder("convolutional classifier", shape)
    block.add("pool", GlobalAveragePool(), _conv(block, "unit", 0, classes))
    return block.build()


def classifier(version: str, resolution: int = 224, classes: int = 1000) -> Graph:
    """SqueezeNet.

    Args:
        version: `1.0` or `1.1`.
        resolution: Side of the square input in pixels, 64 or more.
        classes: Number of outputs.

    Raises:
        UsageError: An unknown version, or too small a resolution.
    """
    if version not in VARIANTS:
        raise UsageError(unknown_name("SqueezeNet", version, VARIANTS))
    require("resolution", resolution, resolution >= LEAST_RESOLUTION, f"{LEAST_RESOLUTION} or more")
    (channels, kernel), stages = VARIANTS[version]
    graph = GraphBuilder((3, resolution, resolution))
    x = graph.add("backbone.stem", conv_pool_block(graph.input.shape, channels, kernel, 2, 0, False), graph.input)
    for stage, fires in enumerate(stages, start=1):
        x = graph.add(f"backbone.stage{stage}.pool", pool_block(x.shape), x)
        for index, fire in enumerate(fires):
            x = graph.add(f"backbone.stage{stage}.fire{index}", fire_block(x.shape, *fire), x)
    logits = graph.add("classifier", top_block(x.shape, classes), x)
    return graph.build(f"squeezenet-{version}-{resolution}", [("logits", logits)])


def alexnet(resolution: int = 224, classes: int = 1000) -> Graph:
    """AlexNet; its first fully connected layer reads the whole map, so its parameters are the published ones at 224.

    Args:
        resolution: Side of the square input in pixels, 64 or more.
        classes: Number of outputs.

    Raises:
        UsageError: Too small a resolution.
    """
    require("resolution", resolution, resolution >= LEAST_RESOLUTION, f"{LEAST_RESOLUTION} or more")
    graph = GraphBuilder((3, resolution, resolution))
    x = graph.input
    for index, row in enumerate(ALEXNET_CONVOLUTIONS):
        x = graph.add(f"backbone.conv{index}", conv_pool_block(x.shape, *row), x)
    logits = graph.add("classifier", dense_classifier(x.shape, FEATURES, classes), x)
    return graph.build(f"alexnet-{resolution}", [("logits", logits)])
