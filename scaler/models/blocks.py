"""The building blocks of every family, each a cached pure function from shapes and widths to a `Block`."""

from __future__ import annotations

from functools import cache

from scaler.graph.graph import Block, BlockBuilder
from scaler.graph.ops import (
    Activation,
    ActivationKind,
    Add,
    BatchNorm,
    Conv,
    Gate,
    GlobalAveragePool,
    Linear,
    MaxPool,
    PaddingStyle,
    Shape,
    Upsample,
    pad_for,
)


def round_channels(channels: float, divisor: int = 8) -> int:
    """Nearest multiple of `divisor`, never below 90 % of `channels` (MobileNet's `_make_divisible`)."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def conv_bn(
    block: BlockBuilder,
    name: str,
    value: int,
    out_channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: ActivationKind | None = None,
    norm: BatchNorm = BatchNorm(),
    padding: PaddingStyle = "same",
) -> int:
    """Append convolution (no bias), batch normalisation and activation; returns the last value."""
    pad = pad_for(padding, block.shape(value)[1], kernel, stride)
    value = block.add(f"{name}.conv", Conv(out_channels, kernel, stride, groups, pad), value)
    value = block.add(f"{name}.bn", norm, value)
    return block.add(f"{name}.{activation}", Activation(activation), value) if activation else value


def depthwise_bn(
    block: BlockBuilder,
    name: str,
    value: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    activation: ActivationKind | None = None,
    norm: BatchNorm = BatchNorm(),
    padding: PaddingStyle = "same",
) -> int:
    """Append a depthwise convolution with batch normalisation and activation; returns the last value."""
    channels = block.shape(value)[0]
    return conv_bn(
        block,
        name,
        value,
        channels,
        kernel=kernel,
        stride=stride,
        groups=channels,
        activation=activation,
        norm=norm,
        padding=padding,
    )


def squeeze_excite(block: BlockBuilder, value: int, reduced: int, activation: ActivationKind) -> int:
    """Append squeeze-and-excitation with `reduced` channels in the middle; returns the gated value."""
    channels = block.shape(value)[0]
    gate = block.add("se.squeeze", GlobalAveragePool(), value)
    gate = block.add("se.reduce", Conv(reduced, bias=True), gate)
    gate = block.add(f"se.{activation}", Activation(activation), gate)
    gate = block.add("se.expand", Conv(channels, bias=True), gate)
    gate = block.add("se.sigmoid", Activation("sigmoid"), gate)
    return block.add("se.gate", Gate(), value, gate)


@cache
def conv_block(
    shape: Shape,
    out_channels: int,
    *,
    kernel: int = 1,
    stride: int = 1,
    activation: ActivationKind | None,
    norm: BatchNorm = BatchNorm(),
    padding: PaddingStyle = "same",
) -> Block:
    """A convolution with batch normalisation and activation on its own: stems and head convolutions."""
    block = BlockBuilder("convolution", shape)
    conv_bn(
        block,
        "unit",
        0,
        out_channels,
        kernel=kernel,
        stride=stride,
        activation=activation,
        norm=norm,
        padding=padding,
    )
    return block.build()


@cache
def inverted_residual(
    shape: Shape,
    out_channels: int,
    *,
    expansion: int,
    kernel: int = 3,
    stride: int = 1,
    activation: ActivationKind = "relu6",
    se_channels: int = 0,
    norm: BatchNorm = BatchNorm(),
    padding: PaddingStyle = "same",
) -> Block:
    """MobileNetV2's inverted residual; with `se_channels` EfficientNet's MBConv.

    1x1 expansion (left out where `expansion` is 1), depthwise convolution, optional squeeze-and-excitation,
    linear 1x1 projection; residual where the shape is kept.
    """
    block = BlockBuilder("MBConv" if se_channels else "inverted residual", shape)
    value = 0
    if expansion != 1:
        value = conv_bn(block, "expand", value, shape[0] * expansion, activation=activation, norm=norm)
    value = depthwise_bn(
        block,
        "depthwise",
        value,
        kernel=kernel,
        stride=stride,
        activation=activation,
        norm=norm,
        padding=padding,
    )
    if se_channels:
        value = squeeze_excite(block, value, se_channels, activation)
    value = conv_bn(block, "project", value, out_channels, norm=norm)
    if block.shape(value) == shape:
        block.add("residual", Add(), 0, value)
    return block.build()


@cache
def classifier_block(shape: Shape, classes: int) -> Block:
    """Global average pooling and a fully connected layer: the top of an image classifier."""
    block = BlockBuilder("classifier", shape)
    value = block.add("pool", GlobalAveragePool(), 0)
    block.add("linear", Linear(classes), value)
    return block.build()


def resize(block: BlockBuilder, name: str, value: int, size: int) -> int:
    """Append what brings a square map to side `size`: nearest-neighbour up, max-pool down, or nothing."""
    side = block.shape(value)[1]
    if side < size:
        return block.add(f"{name}.up", Upsample(size // side), value)
    if side > size:
        return block.add(f"{name}.pool", MaxPool(side // size, side // size), value)
    return value
