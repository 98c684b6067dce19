"""MobileNetV3 large and small as image classifiers: they calibrate the device models.

Source: Howard et al., "Searching for MobileNetV3" (ICCV 2019), Tables 1 and 2; squeeze-and-excitation is reduced to a
quarter of the expanded channels, rounded to a multiple of 8, as in torchvision.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import Activation, ActivationKind, Add, BatchNorm, Conv, Gate, GlobalAveragePool, Linear, Shape
from scaler.models.blocks import conv_block, conv_bn, depthwise_bn, round_channels

NORM = BatchNorm(epsilon=1e-3, momentum=0.99)
STEM_CHANNELS = 16


class Bottleneck(NamedTuple):
    """A row of the paper's tables."""

    kernel: int
    expanded: int
    channels: int
    excited: bool
    activation: ActivationKind
    stride: int = 1


VARIANTS = {
    "large": (
        Bottleneck(3, 16, 16, False, "relu"),
        Bottleneck(3, 64, 24, False, "relu", 2),
        Bottleneck(3, 72, 24, False, "relu"),
        Bottleneck(5, 72, 40, True, "relu", 2),
        Bottleneck(5, 120, 40, True, "relu"),
        Bottleneck(5, 120, 40, True, "relu"),
        Bottleneck(3, 240, 80, False, "hard_swish", 2),
        Bottleneck(3, 200, 80, False, "hard_swish"),
        Bottleneck(3, 184, 80, False, "hard_swish"),
        Bottleneck(3, 184, 80, False, "hard_swish"),
        Bottleneck(3, 480, 112, True, "hard_swish"),
        Bottleneck(3, 672, 112, True, "hard_swish"),
        Bottleneck(5, 672, 160, True, "hard_swish", 2),
        Bottleneck(5, 960, 160, True, "hard_swish"),
        Bottleneck(5, 960, 160, True, "hard_swish"),
    ),
    "small": (
        Bottleneck(3, 16, 16, True, "relu", 2),
        Bottleneck(3, 72, 24, False, "relu", 2),
        Bottleneck(3, 88, 24, False, "relu"),
        Bottleneck(5, 96, 40, True, "hard_swish", 2),
        Bottleneck(5, 240, 40, True, "hard_swish"),
        Bottleneck(5, 240, 40, True, "hard_swish"),
        Bottleneck(5, 120, 48, True, "hard_swish"),
        Bottleneck(5, 144, 48, True, "hard_swish"),
        Bottleneck(5, 288, 96, True, "hard_swish", 2),
        Bottleneck(5, 576, 96, True, "hard_swish"),
        Bottleneck(5, 576, 96, True, "hard_swish"),
    ),
}
FEATURES = {"large": 1280, "small": 1024}
"""Outputs of the hidden fully connected layer."""


@cache
def bottleneck_block(shape: Shape, row: Bottleneck) -> Block:
    """Inverted residual with the excitation of MobileNetV3, whose gate is a hard sigmoid."""
    block, value = BlockBuilder("inverted residual", shape), 0
    if row.expanded != shape[0]:
        value = conv_bn(block, "expand", value, row.expanded, activation=row.activation, norm=NORM)
    value = depthwise_bn(
        block, "depthwise", value, kernel=row.kernel, stride=row.stride, activation=row.activation, norm=NORM,
        padding="symmetric",
    )  # fmt: skip
    if row.excited:
        value = _excited(block, value)
    value = conv_bn(block, "project", value, row.channels, norm=NORM)
    if block.shape(value) == shape:
        block.add("residual", Add(), 0, value)
    return block.build()


def _excited(block: BlockBuilder, value: int) -> int:
    channels = block.shape(value)[0]
    gate = block.add("se.squeeze", GlobalAveragePool(), value)
    gate = block.add("se.reduce", Conv(round_channels(channels // 4), bias=True), gate)
    gate = block.add("se.relu", Activation("relu"), gate)
    gate = block.add("se.expand", Conv(channels, bias=True), gate)
    gate = block.add("se.hard_sigmoid", Activation("hard_sigmoid"), gate)
    return block.add("se.gate", Gate(), value, gate)


@cache
def top_block(shape: Shape, features: int, classes: int) -> Block:
    """Global average pooling, a hidden fully connected layer with hard swish, and the classes."""
    block = BlockBuilder("classifier", shape)
    value = block.add("pool", GlobalAveragePool(), 0)
    value = block.add("hidden.linear", Linear(features), value)
    value = block.add("hidden.hard_swish", Activation("hard_swish"), value)
    block.add("linear", Linear(classes), value)
    return block.build()


def classifier(variant: str, resolution: int = 224, classes: int = 1000) -> Graph:
    """The image classifier.

    Args:
        variant: `large` or `small`.
        resolution: Side of the square input in pixels.
        classes: Number of outputs.

    Raises:
        UsageError: An unknown variant.
    """
    if variant not in VARIANTS:
        raise UsageError(unknown_name("MobileNetV3", variant, VARIANTS))
    graph = GraphBuilder((3, resolution, resolution))
    stem = conv_block(
        graph.input.shape, STEM_CHANNELS, kernel=3, stride=2, activation="hard_swish", norm=NORM, padding="symmetric"
    )
    x = graph.add("backbone.stem", stem, graph.input)
    for index, row in enumerate(VARIANTS[variant]):
        x = graph.add(f"backbone.block{index}", bottleneck_block(x.shape, row), x)
    x = graph.add("backbone.head", conv_block(x.shape, 6 * x.channels, activation="hard_swish", norm=NORM), x)
    logits = graph.add("classifier", top_block(x.shape, FEATURES[variant], classes), x)
    return graph.build(f"mobilenetv3-{variant}-{resolution}", [("logits", logits)])
