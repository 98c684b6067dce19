"""The intermediate representation: one immutable graph per candidate network.

A graph is a list of placed blocks, a block is a list of operators. Blocks know neither their name nor
their neighbours, so one block object serves every place and every candidate where it occurs: cost, kernels
and latency are computed once per block, and a candidate costs little more than the sum over its blocks.
Whoever wants the plain list of operators (writers, torch, reports) reads `Graph.layers()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from scaler.graph.boxes import BoxCoding
from scaler.graph.ops import Op, Shape, output_shape


class Tensor(NamedTuple):
    """A value in a graph under construction: the block that makes it (-1: the graph's input) and its shape."""

    producer: int
    shape: Shape

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[0]


class Node(NamedTuple):
    """One operator of a block; `inputs` index the block's values: its inputs first, then its nodes."""

    name: str
    op: Op
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A nameless piece of network with one output: the value of its last node.

    Blocks are compared by identity. Their builders are cached, so equal arguments give the same object.
    """

    kind: str
    """What it is, in the field's words: `inverted residual`, `mbconv`, ..."""
    input_shapes: tuple[Shape, ...]
    nodes: tuple[Node, ...]
    shape: Shape
    """Of the output."""

    def value_shape(self, value: int) -> Shape:
        """Shape of a value by its index: inputs first, then nodes."""
        count = len(self.input_shapes)
        return self.input_shapes[value] if value < count else self.nodes[value - count].shape


class Placement(NamedTuple):
    """A block at its place: `name` is hierarchical, `inputs` are the producing placements (-1: the input)."""

    name: str
    block: Block
    inputs: tuple[int, ...]
    weights: str = ""
    """The placement whose parameters this one uses too, as a head shared by all scales does; its own where empty."""

    @property
    def stage(self) -> str:
        """The part of the name above the block: `backbone.stage3` of `backbone.stage3.block1`."""
        return self.name.rpartition(".")[0] or self.name


class Layer(NamedTuple):
    """One operator with its absolute name and the names of its inputs, for whoever reads a graph flat."""

    name: str
    op: Op
    inputs: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    shape: Shape
    weights: str
    """Name of the layer that owns the parameters: its own, unless they are shared."""


INPUT_NAME = "image"


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A whole network: blocks in execution order and the named outputs."""

    name: str
    input_shape: Shape
    placements: tuple[Placement, ...]
    outputs: tuple[tuple[str, int], ...]
    """Output name and the placement that makes it."""
    boxes: int = 0
    """Candidate boxes that the outputs decode to; 0 for classifiers."""
    coding: BoxCoding | None = None
    """How the outputs stand for boxes; None for classifiers."""

    def layers(self) -> Iterator[Layer]:
        """Every operator in execution order, with absolute names."""
        results: list[str] = []
        for placement in self.placements:
            block = placement.block
            names = [INPUT_NAME if place < 0 else results[place] for place in placement.inputs]
            shapes = list(block.input_shapes)
            for node in block.nodes:
                yield Layer(
                    f"{placement.name}.{node.name}",
                    node.op,
                    tuple(names[value] for value in node.inputs),
                    tuple(shapes[value] for value in node.inputs),
                    node.shape,
                    f"{placement.weights or placement.name}.{node.name}",
                )
                names.append(f"{placement.name}.{node.name}")
                shapes.append(node.shape)
            results.append(names[-1])


class BlockBuilder:
    """Collects the nodes of one block; values are addressed by the index that `add` returns."""

    def __init__(self, kind: str, *input_shapes: Shape) -> None:
        self._kind = kind
        self._inputs = input_shapes
        self._shapes: list[Shape] = list(input_shapes)
        self._nodes: list[Node] = []
        self._names: set[str] = set()

    def shape(self, value: int) -> Shape:
        """Shape of a value."""
        return self._shapes[value]

    def add(self, name: str, op: Op, *inputs: int) -> int:
        """Append an operator; returns the index of its value."""
        if name in self._names:
            raise ValueError(f"block {self._kind!r}: two nodes are called {name!r}")
        shape = output_shape(op, [self._shapes[value] for value in inputs])
        self._names.add(name)
        self._nodes.append(Node(name, op, inputs, shape))
        self._shapes.append(shape)
        return len(self._shapes) - 1

    def build(self) -> Block:
        """The finished block; its output is the node added last."""
        return Block(self._kind, self._inputs, tuple(self._nodes), self._shapes[-1])


class GraphBuilder:
    """Places blocks one after the other."""

    def __init__(self, input_shape: Shape, placements: Sequence[Placement] = ()) -> None:
        self._input_shape = input_shape
        self._placements = list(placements)
        self._names = {placement.name for placement in placements}

    @property
    def input(self) -> Tensor:
        """The picture."""
        return Tensor(-1, self._input_shape)

    def add(self, name: str, block: Block, *inputs: Tensor, weights: str = "") -> Tensor:
        """Place a block; returns its output.

        Args:
            name: Of the placement.
            block: What to place.
            inputs: What it reads.
            weights: A placement before this one whose parameters it uses too; its own where empty.

        Raises:
            ValueError: The name is taken, or the tensors do not have the shapes that the block was built for, or the
                parameters of the other placement do not fit.
        """
        if name in self._names:
            raise ValueError(f"two blocks are called {name!r}")
        shapes = tuple([tensor.shape for tensor in inputs])
        if shapes != block.input_shapes:
            raise ValueError(f"{name}: block built for {block.input_shapes}, given {shapes}")
        if weights:
            self._check_shared(name, block, weights)
        self._names.add(name)
        self._placements.append(Placement(name, block, tuple([tensor.producer for tensor in inputs]), weights))
        return Tensor(len(self._placements) - 1, block.shape)

    def _check_shared(self, name: str, block: Block, owner: str) -> None:
        other = next((placement for placement in self._placements if placement.name == owner), None)
        if other is None or other.weights:
            raise ValueError(f"{name}: there is no block {owner!r} with parameters of its own")
        if _parameters(block) != _parameters(other.block):
            raise ValueError(f"{name}: the parameters of {owner!r} do not fit")

    def build(
        self, name: str, outputs: Sequence[tuple[str, Tensor]], boxes: int = 0, coding: BoxCoding | None = None
    ) -> Graph:
        """The finished graph."""
        return Graph(
            name,
            self._input_shape,
            tuple(self._placements),
            tuple((label, tensor.producer) for label, tensor in outputs),
            boxes,
            coding,
        )


def _parameters(block: Block) -> list[tuple[str, Op, int]]:
    """Name, operator and input channels of every node: equal where the parameters fit."""
    return [(node.name, node.op, block.value_shape(node.inputs[0])[0]) for node in block.nodes]
