"""The operator vocabulary: what a network is made of, and how each operator shapes its output.

A tensor's shape is `(channels, height, width)`; the batch is kept apart. Padding is explicit,
`(top, left, bottom, right)`, because TensorFlow's `same` pads a stride-2 convolution on the bottom and
right only while the symmetric convention pads all four sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Shape: TypeAlias = tuple[int, int, int]
"""`(channels, height, width)`."""

ActivationKind: TypeAlias = Literal["relu", "relu6", "leaky", "swish", "sigmoid", "hard_sigmoid", "hard_swish", "mish"]
"""`leaky` has the slope `LEAKY_SLOPE`; the hard ones are `relu6(x + 3) / 6` and x times it."""

LEAKY_SLOPE = 0.1
"""Of darknet's leaky ReLU."""

PaddingStyle: TypeAlias = Literal["same", "symmetric"]
"""`same` is TensorFlow's rule (surplus on the bottom and right), `symmetric` is `(kernel - 1) // 2`."""


class Padding(NamedTuple):
    """Zeros added on each side of the input, in pixels."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0


@dataclass(frozen=True, slots=True)
class Conv:
    """2-D convolution; depthwise where `groups` equals the input and output channels."""

    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    padding: Padding = Padding()
    bias: bool = False


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """Batch normalisation; folds into the convolution before it at inference."""

    epsilon: float = 1e-3
    momentum: float = 0.9
    """Share of the running statistics that a step keeps (the Keras convention)."""


@dataclass(frozen=True, slots=True)
class Activation:
    """Element-wise non-linearity."""

    kind: ActivationKind


@dataclass(frozen=True, slots=True)
class Add:
    """Element-wise sum of equally shaped tensors."""


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """Sum of equally shaped tensors, each times one free learnable scalar that starts at 1."""


@dataclass(frozen=True, slots=True)
class Gate:
    """First tensor times the second, one factor per channel: the excitation of squeeze-and-excitation."""


@dataclass(frozen=True, slots=True)
class Concat:
    """Concatenation along the channels."""


@dataclass(frozen=True, slots=True)
class MaxPool:
    """Maximum over `kernel` x `kernel` windows."""

    kernel: int
    stride: int
    padding: Padding = Padding()


@dataclass(frozen=True, slots=True)
class GlobalAveragePool:
    """Mean over the whole map: `(channels, 1, 1)`."""


@dataclass(frozen=True, slots=True)
class Upsample:
    """Nearest-neighbour enlargement by a whole factor."""

    factor: int = 2


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the channels: `channels` from `start` on."""

    start: int
    channels: int


@dataclass(frozen=True, slots=True)
class SpaceToDepth:
    """Cells of `block` x `block` pixels as channels, in ONNX' order: row of the cell, column, old channel."""

    block: int = 2


@dataclass(frozen=True, slots=True)
class Flatten:
    """All elements as channels, `(channels * height * width, 1, 1)`: what a fully connected layer reads."""


@dataclass(frozen=True, slots=True)
class Linear:
    """Fully connected layer on a `(features, 1, 1)` tensor."""

    out_features: int
    bias: bool = True


Op: TypeAlias = (
    Conv
    | BatchNorm
    | Activation
    | Add
    | WeightedSum
    | Gate
    | Concat
    | MaxPool
    | GlobalAveragePool
    | Upsample
    | Slice
    | SpaceToDepth
    | Flatten
    | Linear
)


def pad_for(style: PaddingStyle, size: int, kernel: int, stride: int) -> Padding:
    """Padding that makes the output `ceil(size / stride)` long for a square map of side `size`."""
    if style == "symmetric":
        return Padding(*[(kernel - 1) // 2] * 4)
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    before = total // 2
    return Padding(before, before, total - before, total - before)


def output_shape(op: Op, inputs: Sequence[Shape]) -> Shape:
    """Shape that `op` makes of `inputs`.

    Raises:
        ValueError: The shapes do not fit the operator: a fault of the network's builder.
    """
    first = inputs[0]
    channels, height, width = first
    match op:
        case Conv():
            if channels % op.groups or op.out_channels % op.groups:
                raise ValueError(f"{op}: groups do not divide {channels} input channels")
            return (op.out_channels, *_window(first, op.kernel, op.stride, op.padding))
        case MaxPool():
            return (channels, *_window(first, op.kernel, op.stride, op.padding))
        case BatchNorm() | Activation():
            return first
        case Add() | WeightedSum():
            if any(shape != first for shape in inputs):
                raise ValueError(f"{op}: unequal shapes {list(inputs)}")
            return first
        case Gate():
            if inputs[1] != (channels, 1, 1):
                raise ValueError(f"{op}: gate {inputs[1]} does not fit {first}")
            return first
        case Concat():
            if any(shape[1:] != first[1:] for shape in inputs):
                raise ValueError(f"{op}: unequal maps {list(inputs)}")
            return (sum(shape[0] for shape in inputs), height, width)
        case GlobalAveragePool():
            return (channels, 1, 1)
        case Upsample():
            return (channels, height * op.factor, width * op.factor)
        case Slice():
            if op.start < 0 or op.channels < 1 or op.start + op.channels > channels:
                raise ValueError(f"{op}: not among {channels} channels")
            return (op.channels, height, width)
        case SpaceToDepth():
            if height % op.block or width % op.block:
                raise ValueError(f"{op}: does not divide a map of {height}x{width}")
            return (channels * op.block**2, height // op.block, width // op.block)
        case Flatten():
            return (elements(first), 1, 1)
        case Linear():
            if (height, width) != (1, 1):
                raise ValueError(f"{op}: needs a (features, 1, 1) tensor, got {first}")
            return (op.out_features, 1, 1)


def _window(shape: Shape, kernel: int, stride: int, padding: Padding) -> tuple[int, int]:
    height = (shape[1] + padding.top + padding.bottom - kernel) // stride + 1
    width = (shape[2] + padding.left + padding.right - kernel) // stride + 1
    if height < 1 or width < 1:
        raise ValueError(f"a {kernel}x{kernel} window does not fit a map of {shape[1]}x{shape[2]}")
    return height, width


def elements(shape: Shape) -> int:
    """Number of elements of a tensor."""
    return shape[0] * shape[1] * shape[2]
