"""Fusion rules: from the operators of a block to the kernels that a runtime launches for it.

TensorRT's, from its documentation of layer fusion and from the layer names of published engines:

- convolution + batch normalisation (+ ReLU or ReLU6) is one kernel; so is a residual addition behind a
  convolution without activation; where both sides of the addition are convolutions, the later one takes it;
- every other activation is a point-wise kernel; chains of element-wise operators are one kernel, and a sigmoid
  merges with the gate it feeds (`sigmoid, mul`), swish with nothing before it;
- the free scalars of a weighted sum fold into its point-wise kernel;
- concatenation costs nothing for inputs that a kernel of the same block writes, since it writes into
  the joint buffer; inputs from elsewhere are copied;
- pooling, resizing and global pooling are kernels of their own; taking some channels, or pixels as channels, is a
  copy; flattening is none.

ONNX Runtime's on a CPU, read from the graphs that it optimises: a sigmoid joins the convolution before it; a gate, a
sum and a concatenation are kernels of their own, which copy everything and answer for the layout changes around them.

A block is a fusion boundary: its last kernel never merges with the next block's first. Blocks of
`scaler.models` are cut so that nothing is lost by this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from scaler.graph.graph import Block, Graph, Node
from scaler.graph.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    Gate,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Shape,
    Slice,
    SpaceToDepth,
    Upsample,
    WeightedSum,
)
from scaler.latency.kernels import Kernel, KernelOp


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionRules:
    """What a runtime merges."""

    fused_activations: tuple[str, ...]
    """Activations that become part of the convolution before them."""
    chains: bool
    """Whether element-wise operators that follow each other are one kernel."""
    copies_all: bool
    """Whether a concatenation copies all its inputs, in one kernel; else each that does not lie in place yet."""


TENSORRT = FusionRules(fused_activations=("relu", "relu6"), chains=True, copies_all=False)
ONNX_RUNTIME = FusionRules(fused_activations=("relu", "relu6", "sigmoid"), chains=False, copies_all=True)
RULES = {"tensorrt": TENSORRT, "onnxruntime": ONNX_RUNTIME}
"""By the name of the runtime."""


@cache
def block_kernels(block: Block, rules: FusionRules = TENSORRT) -> tuple[Kernel, ...]:
    """The kernels of a block, in execution order."""
    return tuple(kernel for kernel, _ in kernel_groups(block, rules))


@cache
def kernel_groups(block: Block, rules: FusionRules = TENSORRT) -> tuple[tuple[Kernel, tuple[int, ...]], ...]:
    """The kernels of a block in execution order, each with the indices of the nodes that it computes, in their order.

    Every node belongs to one kernel, but for flattening and a concatenation whose inputs are all written in place: to
    none. Where a
    concatenation copies several inputs, it belongs to the first copy and the others compute no node of their own.
    """
    return tuple(_Fuser(block, rules).groups())


def graph_kernels(graph: Graph, rules: FusionRules = TENSORRT) -> list[Kernel]:
    """The kernels of a network, in execution order."""
    return [kernel for placement in graph.placements for kernel in block_kernels(placement.block, rules)]


class _Fuser:
    """Walks a block once; `_taken` holds the nodes that a kernel has swallowed, `_group` those of the current one."""

    def __init__(self, block: Block, rules: FusionRules) -> None:
        self._block = block
        self._rules = rules
        self._offset = len(block.input_shapes)
        self._readers: dict[int, list[int]] = {}
        for index, node in enumerate(block.nodes):
            for value in node.inputs:
                self._readers.setdefault(value, []).append(index)
        self._taken: set[int] = set()
        self._group: list[int] = []

    def groups(self) -> Iterator[tuple[Kernel, tuple[int, ...]]]:
        for index, node in enumerate(self._block.nodes):
            if index not in self._taken:
                self._group = [index]
                kernels = self._kernels_of(index, node)
                for position, kernel in enumerate(kernels):
                    yield kernel, () if position else tuple(self._group)

    def _kernels_of(self, index: int, node: Node) -> list[Kernel]:
        shapes = [self._block.value_shape(value) for value in node.inputs]
        match node.op:
            case Conv() | Linear():
                return [self._dense(index, node, shapes[0])]
            case Concat() if self._rules.copies_all:
                return [_simple("copy", node.shape, node.shape)._replace(inputs=len(shapes))]
            case Concat():
                outer = [s for s, value in zip(shapes, node.inputs, strict=True) if value < self._offset]
                return [_simple("copy", shape, shape) for shape in outer]
            case MaxPool():
                return [_simple("pool", shapes[0], node.shape, node.op.kernel, node.op.stride)]
            case GlobalAveragePool():
                return [_simple("reduce", shapes[0], node.shape, shapes[0][1])]
            case Slice():
                return [_simple("copy", node.shape, node.shape)]
            case SpaceToDepth():
                return [_simple("copy", shapes[0], node.shape)]
            case Flatten():
                return []
            case Upsample():
                return [_simple("resize", shapes[0], node.shape)]
            case Activation() | BatchNorm() | Add() | WeightedSum() | Gate():
                return [self._pointwise(index, node)]

    def _only_reader(self, index: int) -> tuple[int, Node] | None:
        """The node that alone reads the value of node `index`, if it follows in this block."""
        readers = self._readers.get(index + self._offset, ())
        return (readers[0], self._block.nodes[readers[0]]) if len(readers) == 1 else None

    def _dense(self, index: int, node: Node, source: Shape) -> Kernel:
        """A convolution or fully connected layer with whatever TensorRT fuses behind it."""
        op, activation, inputs = node.op, "none", 1
        last, reader = index, self._only_reader(index)
        if reader and isinstance(reader[1].op, BatchNorm):
            last = self._take(reader[0])
            reader = self._only_reader(last)
        if reader and isinstance(reader[1].op, Add) and max(reader[1].inputs) == last + self._offset:
            last, inputs = self._take(reader[0]), 2
            reader = self._only_reader(last)
        if reader and isinstance(reader[1].op, Activation) and reader[1].op.kind in self._rules.fused_activations:
            activation = reader[1].op.kind
            self._take(reader[0])
        if isinstance(op, Conv):
            name: KernelOp = "depthwise" if op.groups == source[0] > 1 else "conv"
            window = (op.kernel, op.stride, op.groups)
        else:
            name, window = "linear", (1, 1, 1)
        return Kernel(name, *window, source[0], node.shape[0], *source[1:], *node.shape[1:], activation, inputs)

    def _pointwise(self, index: int, node: Node) -> Kernel:
        """An element-wise kernel with the chain of element-wise operators that follow it."""
        labels, values = [_label(node)], list(node.inputs)
        reader = self._only_reader(index)
        while self._rules.chains and reader and isinstance(reader[1].op, Activation | Add | Gate):
            place, node = reader
            labels.append(_label(node))
            values += [value for value in node.inputs if value - self._offset != index]
            index = self._take(place)
            reader = self._only_reader(index)
        shape = node.shape
        inputs = sum(self._block.value_shape(value) == shape for value in values)
        return Kernel("pointwise", 1, 1, 1, shape[0], shape[0], *shape[1:], *shape[1:], "+".join(labels), inputs)

    def _take(self, index: int) -> int:
        self._taken.add(index)
        self._group.append(index)
        return index


def _label(node: Node) -> str:
    match node.op:
        case Activation():
            return node.op.kind
        case Gate():
            return "mul"
        case BatchNorm():
            return "bn"
        case _:
            return "add"


def _simple(op: KernelOp, source: Shape, output: Shape, kernel: int = 1, stride: int = 1) -> Kernel:
    return Kernel(op, kernel, stride, 1, source[0], output[0], *source[1:], *output[1:], "none", 1)
