"""A graph as a torch module, and its numbers in and out.

The module is a `torch.fx.GraphModule`: a tree of the plain modules of `torch.nn` under the graph's names, and a
`forward` that torch writes as one flat list of calls and that forgets every map after its last reader. It compiles
(`torch.compile`, `fullgraph=True`), exports, traces, copies and pickles as any module does, and takes pictures of other
sizes wherever the graph's padding fits them.

Names are a contract: the numbers of layer `backbone.stem.unit.conv` lie under `backbone.stem.unit.conv.weight`, called
as in `STATE`. A part of a name that is a word of Python's, such as `class`, gets a `_` behind it. Layers that share
parameters have one module, named after their owner.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from keyword import iskeyword
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument
from torch.nn import functional

from scaler.export.weights import Array, WeightSource, shapes
from scaler.graph.graph import INPUT_NAME, Graph, Layer
from scaler.graph.ops import (
    LEAKY_SLOPE,
    Activation,
    ActivationKind,
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

STATE: Mapping[type, Mapping[str, str]] = MappingProxyType(
    {
        Conv: {"weight": "weight", "bias": "bias"},
        Linear: {"weight": "weight", "bias": "bias"},
        BatchNorm: {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"},
        WeightedSum: {"scale": "scale"},
    }
)
"""Array of a layer (`scaler.export.weights.shapes`) by the name that torch gives it; by kind of operator."""


class ScaledSum(nn.Module):
    """Sum of equally shaped tensors, each times one learnable scalar."""

    def __init__(self, terms: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(terms))

    def forward(self, *values: Tensor) -> Tensor:
        """Sum `[batch, channels, height, width]` tensors."""
        total = values[0] * self.scale[0]
        for index, value in enumerate(values[1:], start=1):
            total = total + value * self.scale[index]
        return total


def to_torch(graph: Graph, *, seed: int = 0) -> fx.GraphModule:
    """Write a graph as a torch module in training mode, initialised.

    It reads pictures `[batch, 3, height, width]` and returns the raw maps `[batch, channels, height, width]` by the
    labels of the graph's outputs.

    Args:
        graph: The network.
        seed: Of the initialisation, see `initialise`.
    """
    calls, root = fx.Graph(), nn.Module()
    values = {INPUT_NAME: calls.placeholder(INPUT_NAME)}
    with torch.device("meta"):  # without numbers, since torch's own initialisation is replaced
        for layer in graph.layers():
            if layer.name == layer.weights and type(layer.op) in STATE:
                _plant(root, module_name(layer), _module(layer))
            values[layer.name] = _call(calls, layer, [values[name] for name in layer.inputs])
    ends = {placement.name: f"{placement.name}.{placement.block.nodes[-1].name}" for placement in graph.placements}
    calls.output({label: values[ends[graph.placements[place].name]] for label, place in graph.outputs})
    module = fx.GraphModule(root, calls, class_name="Network")
    module.to_empty(device="cpu")
    initialise(module, seed)
    return module


def _plant(root: nn.Module, name: str, leaf: nn.Module) -> None:
    """Put a module at its dotted name."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    root.add_module(last, leaf)


def _module(layer: Layer) -> nn.Module:
    """What holds the numbers of a layer."""
    channels = layer.input_shapes[0][0]
    match layer.op:
        case Conv() as op:
            padding = _both_sides(op.padding) or (0, 0)
            return nn.Conv2d(channels, op.out_channels, op.kernel, op.stride, padding, groups=op.groups, bias=op.bias)
        case BatchNorm() as op:
            return nn.BatchNorm2d(channels, op.epsilon, momentum=1 - op.momentum)  # torch: share that a step replaces
        case Linear() as op:
            return nn.Linear(channels, op.out_features, op.bias)
        case WeightedSum():
            return ScaledSum(len(layer.inputs))
        case op:
            raise TypeError(f"{op} has no parameters")


def _call(calls: fx.Graph, layer: Layer, inputs: list[fx.Node]) -> fx.Node:
    """Append the calls that compute a layer; returns the last, which has the layer's name."""
    first = inputs[0]
    match layer.op:
        case Conv() as op:
            if _both_sides(op.padding) is None:
                first = calls.call_function(functional.pad, (first, _sides(op.padding)))
            return calls.create_node("call_module", module_name(layer), (first,), name=layer.name)
        case Linear():
            features = calls.call_module(module_name(layer), (calls.call_function(torch.flatten, (first, 1)),))
            return calls.create_node("call_function", as_map, (features,), name=layer.name)
        case BatchNorm() | WeightedSum():
            return calls.create_node("call_module", module_name(layer), tuple(inputs), name=layer.name)
        case op:
            function, options = _function(op)
            arguments = (inputs,) if isinstance(op, Concat | Add) else tuple(inputs)
            return calls.create_node("call_function", function, arguments, options, layer.name)


Call: TypeAlias = tuple[Callable[..., Tensor], dict[str, Argument]]
"""A function of tensors and its named arguments."""

_ACTIVATIONS: Mapping[ActivationKind, Call] = MappingProxyType(
    {
        "relu": (functional.relu, {}),
        "relu6": (functional.relu6, {}),
        "leaky": (functional.leaky_relu, {"negative_slope": LEAKY_SLOPE}),
        "swish": (functional.silu, {}),
        "sigmoid": (torch.sigmoid, {}),
        "hard_sigmoid": (functional.hardsigmoid, {}),
        "hard_swish": (functional.hardswish, {}),
        "mish": (functional.mish, {}),
    }
)


def _function(op: Op) -> Call:
    """The function of an operator without parameters."""
    match op:
        case Activation():
            return _ACTIVATIONS[op.kind]
        case Add():
            return total, {}
        case Concat():
            return torch.cat, {"dim": 1}
        case Gate():
            return torch.mul, {}
        case MaxPool():
            padding = _both_sides(op.padding)
            if padding is None:
                return padded_max_pool, {"kernel": op.kernel, "stride": op.stride, "sides": _sides(op.padding)}
            return functional.max_pool2d, {"kernel_size": op.kernel, "stride": op.stride, "padding": padding}
        case GlobalAveragePool():
            return functional.adaptive_avg_pool2d, {"output_size": 1}
        case Upsample():
            return functional.interpolate, {"scale_factor": op.factor, "mode": "nearest"}
        case Slice():
            return torch.narrow, {"dim": 1, "start": op.start, "length": op.channels}
        case SpaceToDepth():
            return space_to_depth, {"block": op.block}
        case Flatten():
            return flattened, {}
        case _:
            raise TypeError(f"{op} is no function")


def total(values: Sequence[Tensor]) -> Tensor:
    """Sum of equally shaped tensors."""
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


def as_map(features: Tensor) -> Tensor:
    """Features `[batch, features]` as a map `[batch, features, 1, 1]`."""
    return features[:, :, None, None]


def flattened(values: Tensor) -> Tensor:
    """All elements of a map as channels of a map of one pixel."""
    return as_map(values.flatten(1))


def padded_max_pool(values: Tensor, kernel: int, stride: int, sides: list[int]) -> Tensor:
    """Maximum over windows where the sides are padded unequally; padding never wins."""
    return functional.max_pool2d(functional.pad(values, sides, value=-math.inf), kernel, stride)


def space_to_depth(values: Tensor, block: int) -> Tensor:
    """Cells of `block` x `block` pixels as channels in ONNX' order: row of the cell, column, old channel."""
    old_channel_first = functional.pixel_unshuffle(values, block)
    batch, _, height, width = old_channel_first.shape
    return old_channel_first.reshape(batch, -1, block**2, height, width).transpose(1, 2).flatten(1, 2)


def _both_sides(padding: Padding) -> tuple[int, int] | None:
    """Padding along height and width where opposite sides are alike."""
    if (padding.top, padding.left) == (padding.bottom, padding.right):
        return padding.top, padding.left
    return None


def _sides(padding: Padding) -> list[int]:
    """Padding in torch's order: the last dimension first."""
    return [padding.left, padding.right, padding.top, padding.bottom]


def initialise(module: nn.Module, seed: int = 0) -> None:
    """Fill a module with the numbers that training starts from; equal seeds give equal numbers.

    Convolutions: He et al. (ICCV 2015), normal with variance 2 / fan-out, as ResNet, MobileNetV2 and EfficientNet do.
    Fully connected layers: normal, deviation 0.01. Biases 0, normalisation 1 and 0, scales of weighted sums 1.
    """
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        match part:
            case nn.Conv2d():
                fan_out = part.weight[0, 0].numel() * part.out_channels // part.groups
                nn.init.normal_(part.weight, 0, math.sqrt(2 / fan_out), generator)
            case nn.Linear():
                nn.init.normal_(part.weight, 0, 0.01, generator)
            case nn.BatchNorm2d():
                part.reset_parameters()
            case ScaledSum():
                nn.init.ones_(part.scale)
        if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


def module_name(layer: Layer) -> str:
    """Dotted name of the module that holds a layer's numbers."""
    return ".".join(f"{part}_" if iskeyword(part) else part for part in layer.weights.split("."))


def state_names(layer: Layer) -> dict[str, str]:
    """Keys of a layer's arrays in the module's `state_dict`, by the arrays' names."""
    return {part: f"{module_name(layer)}.{STATE[type(layer.op)][part]}" for part in shapes(layer)}


def weights_of(module: nn.Module) -> WeightSource:
    """The numbers of a module for whoever writes its graph: `to_onnx(graph, weights=weights_of(module))`."""
    state = module.state_dict()

    def source(layer: Layer) -> dict[str, Array]:
        return {
            part: np.ascontiguousarray(state[key].detach().to("cpu", torch.float32).numpy())
            for part, key in state_names(layer).items()
        }

    return source


def load_weights(module: nn.Module, graph: Graph, source: WeightSource) -> None:
    """Put numbers of any source into the module of a graph."""
    state = module.state_dict()
    with torch.no_grad():
        for layer in graph.layers():
            if layer.name == layer.weights:
                arrays = source(layer)
                for part, key in state_names(layer).items():
                    state[key].copy_(torch.from_numpy(arrays[part]))
