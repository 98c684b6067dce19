"""Operators as ONNX nodes: one rule an operator, the same from opset 11 to the newest.

A layer may need several nodes. The last one carries the layer's name and so does its output; helpers before it are
called `<layer>/<part>`, so that whatever name a runtime gives a fused kernel leads back to the graph. HardSwish and
Mish are written with operators that opset 11 knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from onnx import NodeProto, TensorProto, helper, numpy_helper

from scaler.export.weights import Array
from scaler.graph.graph import Layer
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
    Shape,
    Slice,
    SpaceToDepth,
    Upsample,
    WeightedSum,
)

SEPARATOR = "/"
"""Between a layer's name and the part of it that a helper node or a constant is."""


class Value(NamedTuple):
    """What an input or output of a model holds."""

    shape: tuple[int | str, ...]
    """A name stands for a size that is known at run time only."""
    kind: int = TensorProto.FLOAT
    """Of its elements, one of `TensorProto`'s."""


class NodeWriter:
    """Collects the nodes and constants of one network."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._shared: set[str] = set()

    def constant(self, name: str, values: npt.NDArray[Any]) -> str:
        """Add a constant; returns its name."""
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def shared(self, name: str, values: npt.NDArray[Any]) -> str:
        """Add a constant once, however often it is asked for."""
        if name not in self._shared:
            self._shared.add(name)
            self.constant(name, values)
        return name

    def node(self, kind: str, name: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        """Add a node whose output is called like it, or as said; returns the output's name."""
        output = name if output is None else output
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=name, **attributes))
        return output


def add_layer(
    writer: NodeWriter, layer: Layer, inputs: Sequence[str], weights: dict[str, Array], output: str | None = None
) -> str:
    """Write one layer.

    Args:
        writer: Where to.
        layer: The layer.
        inputs: Names of the tensors that it reads.
        weights: Its arrays, see `scaler.export.weights.shapes`; `bias` is added where it is given.
        output: Name of its output where another layer is folded into this one.
    """
    name, op = layer.name, layer.op
    match op:
        case Conv():
            window = _window(op) | {"group": op.groups}
            return writer.node("Conv", name, [*inputs, *_stored(writer, layer, weights)], output, **window)
        case MaxPool():
            return writer.node("MaxPool", name, inputs, output, **_window(op))
        case Linear():
            return _linear(writer, layer, inputs, weights, output)
        case BatchNorm():
            stored = _stored(writer, layer, weights)
            return writer.node("BatchNormalization", name, [*inputs, *stored], output, epsilon=op.epsilon)
        case Activation():
            return _activation(writer, name, inputs[0], op.kind, output)
        case Add():
            return _sum(writer, name, inputs, output)
        case WeightedSum():
            return _sum(writer, name, _scaled(writer, layer, inputs, weights), output)
        case Gate():
            return writer.node("Mul", name, inputs, output)
        case Concat():
            return writer.node("Concat", name, inputs, output, axis=1)
        case GlobalAveragePool():
            return writer.node("GlobalAveragePool", name, inputs, output)
        case Slice():
            return _slice(writer, name, inputs, op, output)
        case SpaceToDepth():
            return writer.node("SpaceToDepth", name, inputs, output, blocksize=op.block)
        case Flatten():
            return _reshaped(writer, name, inputs[0], layer.shape, output)
        case Upsample():
            return _upsample(writer, name, inputs, op.factor, output)


def _window(op: Conv | MaxPool) -> dict[str, Any]:
    return {"kernel_shape": [op.kernel] * 2, "strides": [op.stride] * 2, "pads": list(op.padding)}


def _linear(
    writer: NodeWriter, layer: Layer, inputs: Sequence[str], weights: dict[str, Array], output: str | None
) -> str:
    name = layer.name
    flat = writer.node("Flatten", f"{name}/flatten", inputs)
    product = writer.node("Gemm", f"{name}/gemm", [flat, *_stored(writer, layer, weights)], transB=1)
    return _reshaped(writer, name, product, layer.shape, output)


def _reshaped(writer: NodeWriter, name: str, value: str, shape: Shape, output: str | None) -> str:
    wanted = writer.constant(f"{name}/shape", np.array([0, *shape], np.int64))
    return writer.node("Reshape", name, [value, wanted], output)


def _scaled(writer: NodeWriter, layer: Layer, inputs: Sequence[str], weights: dict[str, Array]) -> list[str]:
    """Each input of a weighted sum times its factor."""
    factors = [writer.shared(f"{layer.weights}/weight{i}", factor) for i, factor in enumerate(weights["scale"])]
    return [
        writer.node("Mul", f"{layer.name}/scale{i}", list(pair))
        for i, pair in enumerate(zip(inputs, factors, strict=True))
    ]


def _slice(writer: NodeWriter, name: str, inputs: Sequence[str], op: Slice, output: str | None) -> str:
    bounds = {"starts": op.start, "ends": op.start + op.channels, "axes": 1}
    given = [writer.shared(f"{part}{at}", np.array([at], np.int64)) for part, at in bounds.items()]
    return writer.node("Slice", name, [*inputs, *given], output)


def _upsample(writer: NodeWriter, name: str, inputs: Sequence[str], factor: int, output: str | None) -> str:
    nothing = writer.shared("no_region", np.zeros(0, np.float32))
    scales = writer.shared(f"scales{factor}", np.array([1, 1, factor, factor], np.float32))
    return writer.node(
        "Resize",
        name,
        [*inputs, nothing, scales],
        output,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


_PARTS = ("weight", "bias", "gamma", "beta", "mean", "variance")
"""In the order in which ONNX' operators read them."""


def _stored(writer: NodeWriter, layer: Layer, weights: dict[str, Array]) -> list[str]:
    """Store what a layer has of `_PARTS`, once for all layers that share it."""
    return [writer.shared(f"{layer.weights}/{part}", weights[part]) for part in _PARTS if part in weights]


def _activation(writer: NodeWriter, name: str, value: str, kind: ActivationKind, output: str | None) -> str:
    match kind:
        case "relu":
            return writer.node("Relu", name, [value], output)
        case "relu6":
            limits = [writer.shared(f"limit{limit}", np.array(limit, np.float32)) for limit in (0, 6)]
            return writer.node("Clip", name, [value, *limits], output)
        case "leaky":
            return writer.node("LeakyRelu", name, [value], output, alpha=LEAKY_SLOPE)
        case "hard_sigmoid":
            return writer.node("HardSigmoid", name, [value], output, alpha=1 / 6, beta=0.5)
        case "sigmoid":
            return writer.node("Sigmoid", name, [value], output)
        case "swish":
            return writer.node("Mul", name, [value, writer.node("Sigmoid", f"{name}/sigmoid", [value])], output)
        case "hard_swish":
            gate = writer.node("HardSigmoid", f"{name}/gate", [value], alpha=1 / 6, beta=0.5)
            return writer.node("Mul", name, [value, gate], output)
        case "mish":
            gate = writer.node("Tanh", f"{name}/tanh", [writer.node("Softplus", f"{name}/softplus", [value])])
            return writer.node("Mul", name, [value, gate], output)


def _sum(writer: NodeWriter, name: str, values: Sequence[str], output: str | None) -> str:
    """Add tensors two at a time, which every runtime fuses."""
    total = values[0]
    for index, value in enumerate(values[1:-1], start=1):
        total = writer.node("Add", f"{name}/add{index}", [total, value])
    return writer.node("Add", name, [total, values[-1]], output)
