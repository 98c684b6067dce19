"""What a network costs before anyone times it: parameters, MACs, memory access, activation memory.

MACs are multiply-accumulates; FLOPs are 2 x MACs. The memory access cost (MAC in the VoVNet and ShuffleNetV2 papers,
here `memory_access` to keep the two apart) counts the elements that a convolution reads and writes:
`h_in w_in c_in + h_out w_out c_out + k^2 c_in c_out / groups`, which is the papers'
`hw (c_in + c_out) + k^2 c_in c_out / groups` where the stride is 1. The convolutional
input/output (CIO, HarDNet Eq. 1) is the same without the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from scaler.graph.graph import Block, Graph, Layer, Placement
from scaler.graph.ops import Activation, BatchNorm, Conv, Linear, Op, Shape, WeightedSum, elements

MIB = 2**20


class Cost(NamedTuple):
    """Cost of a layer, a block, a stage or a network, for one picture; memory access in elements."""

    params: int = 0
    """All parameters; batch normalisation counts four per channel."""
    trainable_params: int = 0
    """Without running statistics: batch normalisation counts two per channel."""
    folded_params: int = 0
    """After folding batch normalisation into biases: one per channel, two where no convolution stands before it."""
    macs: int = 0
    """Multiply-accumulates of convolutions and fully connected layers."""
    memory_access: int = 0
    """Elements moved by convolutions and fully connected layers, weights included."""
    memory_access_bound: int = 0
    """The least that these layers could move at the same MACs and map sizes (equal input and output channels)."""
    conv_io: int = 0
    """Convolutional input/output in elements: memory access without the weights."""

    @property
    def flops(self) -> int:
        """Floating-point operations: 2 x MACs."""
        return 2 * self.macs

    @property
    def arithmetic_intensity(self) -> float:
        """MACs per element moved."""
        return self.macs / self.memory_access if self.memory_access else 0.0

    @property
    def memory_access_ratio(self) -> float:
        """Memory access over its lower bound; 1 is the best that any channel ratio can do."""
        return self.memory_access / self.memory_access_bound if self.memory_access_bound else 1.0


_NOTHING = Cost()


def total(costs: Iterable[Cost]) -> Cost:
    """Sum of costs, field by field."""
    return Cost(*map(sum, zip(_NOTHING, *[cost for cost in costs if cost is not _NOTHING], strict=True)))


def op_cost(op: Op, inputs: tuple[Shape, ...], output: Shape) -> Cost:
    """Cost of one operator from its input and output shapes."""
    match op:
        case Conv():
            weights = op.kernel**2 * inputs[0][0] * op.out_channels // op.groups
            return _dense_cost(weights, op.out_channels if op.bias else 0, inputs[0], output)
        case Linear():
            weights = inputs[0][0] * op.out_features
            return _dense_cost(weights, op.out_features if op.bias else 0, inputs[0], output)
        case BatchNorm():
            channels = output[0]
            return Cost(params=4 * channels, trainable_params=2 * channels, folded_params=channels)
        case WeightedSum():
            return Cost(params=len(inputs), trainable_params=len(inputs), folded_params=len(inputs))
        case _:
            return _NOTHING


def _dense_cost(weights: int, biases: int, source: Shape, output: Shape) -> Cost:
    """A convolution or fully connected layer.

    The bound is ShuffleNetV2's G1 by AM-GM: the maps' sum is at least twice the root of their product, and the
    product is fixed by the MACs and the map sizes.
    """
    params = weights + biases
    read, written = elements(source), elements(output)
    return Cost(
        params=params,
        trainable_params=params,
        folded_params=params,
        macs=weights * output[1] * output[2],
        memory_access=read + written + weights,
        memory_access_bound=min(math.ceil(2 * math.sqrt(read * written)), read + written) + weights,
        conv_io=read + written,
    )


@cache
def block_cost(block: Block) -> Cost:
    """Cost of a block, computed once per block object."""
    return total(node_costs(block))


def node_costs(block: Block) -> Iterator[Cost]:
    """Cost of every operator of a block, in order."""
    for node in block.nodes:
        cost = op_cost(node.op, tuple([block.value_shape(value) for value in node.inputs]), node.shape)
        if isinstance(node.op, BatchNorm) and not _folds(block, node.inputs[0]):
            cost = cost._replace(folded_params=cost.trainable_params)
        yield cost


def _folds(block: Block, value: int) -> bool:
    """Whether a batch normalisation of this value folds into what computes it."""
    place = value - len(block.input_shapes)
    return place >= 0 and isinstance(block.nodes[place].op, Conv | Linear)


@cache
def _sharing(block: Block) -> Cost:
    """Cost of a block whose parameters another placement owns."""
    return _shared(block_cost(block))


def _shared(cost: Cost) -> Cost:
    """The same without parameters."""
    return cost._replace(params=0, trainable_params=0, folded_params=0)


def placement_cost(placement: Placement) -> Cost:
    """Cost of a block at its place; shared parameters count where they are owned."""
    return _sharing(placement.block) if placement.weights else block_cost(placement.block)


def graph_cost(graph: Graph) -> Cost:
    """Cost of a whole network."""
    return total([placement_cost(placement) for placement in graph.placements])


def layer_costs(graph: Graph) -> list[tuple[Layer, Cost]]:
    """Cost of every layer, in execution order."""
    costs = (cost for placement in graph.placements for cost in node_costs(placement.block))
    return [
        (layer, cost if layer.weights == layer.name else _shared(cost))
        for layer, cost in zip(graph.layers(), costs, strict=True)
    ]


def block_costs(graph: Graph) -> dict[str, Cost]:
    """Cost by block name, in execution order."""
    return {placement.name: placement_cost(placement) for placement in graph.placements}


def stage_costs(graph: Graph) -> dict[str, Cost]:
    """Cost by stage, in order of first execution."""
    return {
        stage: total(placement_cost(placement) for placement in placements)
        for stage, placements in by_stage(graph).items()
    }


def by_stage(graph: Graph) -> dict[str, list[Placement]]:
    """The placements of every stage, in order of first execution."""
    stages: dict[str, list[Placement]] = {}
    for placement in graph.placements:
        stages.setdefault(placement.stage, []).append(placement)
    return stages


def peak_activation_elements(graph: Graph) -> int:
    """Most elements alive at once, executing layer after layer.

    A tensor lives from the layer that makes it to its last reader; batch normalisation and activations work in
    place. Multiply by the bytes per element and the batch. Runtimes that fuse and reuse buffers come close to
    it, those that do not need more.
    """
    last_use = [-1] * (len(graph.placements) + 1)  # by place + 1, so that the input is the first
    for index, (_, _, inputs, _) in enumerate(graph.placements):
        for place in inputs:
            last_use[place + 1] = index
    for _, place in graph.outputs:
        last_use[place + 1] = len(graph.placements)
    sizes = [elements(graph.input_shape)]
    peak = live = sizes[0]
    for index, (_, block, inputs, _) in enumerate(graph.placements):
        dying = tuple([last_use[place + 1] == index for place in inputs])
        inside, size = _peak_inside(block, dying)
        held = live
        for place, dies in zip(inputs, dying, strict=True):
            held -= sizes[place + 1]
            if dies:
                live -= sizes[place + 1]
        peak = max(peak, held + inside)
        sizes.append(size)
        live += size
    return peak


@cache
def _peak_inside(block: Block, dying: tuple[bool, ...]) -> tuple[int, int]:
    """Peak of a block's own values and the size of its output; inputs that live on are held throughout."""
    count = len(block.input_shapes)
    last_use = {value: index for index, node in enumerate(block.nodes) for value in node.inputs}
    for value, dies in enumerate(dying):
        if not dies:
            last_use[value] = len(block.nodes)
    live = peak = sum(elements(shape) for shape in block.input_shapes)
    for index, node in enumerate(block.nodes):
        freed = sum(elements(block.value_shape(v)) for v in set(node.inputs) if last_use[v] == index)
        in_place = isinstance(node.op, BatchNorm | Activation) and freed
        live += elements(node.shape)
        peak = max(peak, live - (freed if in_place else 0))
        live -= freed
        last_use.setdefault(count + index, len(block.nodes))
    return peak, elements(block.shape)
