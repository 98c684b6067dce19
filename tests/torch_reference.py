"""A graph computed by torch, batch normalisation unfolded: a second reading that shares nothing with the writer."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as torch_nn

from scaler.export.weights import Array, WeightSource
from scaler.graph.graph import INPUT_NAME, Graph
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
    Op,
    Padding,
    Slice,
    SpaceToDepth,
    Upsample,
    WeightedSum,
)

ACTIVATIONS = {
    "relu": torch_nn.relu,
    "relu6": torch_nn.relu6,
    "leaky": partial(torch_nn.leaky_relu, negative_slope=0.1),
    "hard_sigmoid": torch_nn.hardsigmoid,
    "swish": torch_nn.silu,
    "sigmoid": torch.sigmoid,
    "hard_swish": torch_nn.hardswish,
    "mish": torch_nn.mish,
}


def run(graph: Graph, weights: WeightSource, picture: Array) -> dict[str, Array]:
    """The graph's outputs by label for a batch `[batch, 3, height, width]`."""
    values = {INPUT_NAME: torch.from_numpy(picture)}
    for layer in graph.layers():
        arrays = {name: torch.from_numpy(array) for name, array in weights(layer).items()}
        values[layer.name] = apply(layer.op, [values[name] for name in layer.inputs], arrays)
        assert tuple(values[layer.name].shape) == (len(picture), *layer.shape)
    ends = {p.name: f"{p.name}.{p.block.nodes[-1].name}" for p in graph.placements}
    return {label: np.asarray(values[ends[graph.placements[place].name]]) for label, place in graph.outputs}


def apply(op: Op, inputs: Sequence[Tensor], weights: dict[str, Tensor]) -> Tensor:
    """One operator."""
    first = inputs[0]
    match op:
        case Conv():
            source = torch_nn.pad(first, sides(op.padding))
            return torch_nn.conv2d(source, weights["weight"], weights.get("bias"), op.stride, groups=op.groups)
        case Linear():
            flat = torch_nn.linear(first.flatten(1), weights["weight"], weights.get("bias"))
            return flat[:, :, None, None]
        case BatchNorm():
            statistics = weights["mean"], weights["variance"]
            return torch_nn.batch_norm(first, *statistics, weights["gamma"], weights["beta"], eps=op.epsilon)
        case Activation():
            return ACTIVATIONS[op.kind](first)
        case Add():
            return torch.stack(list(inputs)).sum(0)
        case WeightedSum():
            return torch.einsum("i,i...->...", weights["scale"], torch.stack(list(inputs)))
        case Gate():
            return first * inputs[1]
        case Concat():
            return torch.cat(list(inputs), dim=1)
        case MaxPool():
            return torch_nn.max_pool2d(torch_nn.pad(first, sides(op.padding), value=-torch.inf), op.kernel, op.stride)
        case GlobalAveragePool():
            return first.mean((2, 3), keepdim=True)
        case Slice():
            return first[:, op.start : op.start + op.channels]
        case SpaceToDepth():
            batch, channels, height, width = first.shape
            cells = first.reshape(batch, channels, height // op.block, op.block, width // op.block, op.block)
            return cells.permute(0, 3, 5, 1, 2, 4).reshape(batch, -1, height // op.block, width // op.block)
        case Flatten():
            return first.flatten(1)[:, :, None, None]
        case Upsample():
            return torch_nn.interpolate(first, scale_factor=op.factor, mode="nearest")


def sides(padding: Padding) -> list[int]:
    """torch's order."""
    return [padding.left, padding.right, padding.top, padding.bottom]
