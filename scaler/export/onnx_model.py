"""A graph as an ONNX model: batch normalisation folded, names the graph's, shapes static.

No framework is needed, only the `onnx` package. The model reads a batch of pictures called `image`,
`[batch, 3, height, width]`, and writes the raw maps of the graph's outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from scaler import __version__
from scaler.errors import UnsupportedError, UsageError
from scaler.export.onnx_nodes import NodeWriter, add_layer
from scaler.export.tensorrt_ops import TENSORRT_8_2_OPS
from scaler.export.weights import Array, WeightSource, timing_weights
from scaler.files import write_atomic
from scaler.graph.graph import INPUT_NAME, Graph, Layer
from scaler.graph.ops import BatchNorm, Conv

Dimensions: TypeAlias = tuple[int, ...]
"""`(batch, channels, height, width)`."""

OLDEST_OPSET = 11
DEFAULT_OPSET = 13
"""The newest that TensorRT 8.2 reads, the last release for the Jetson Nano and TX2."""
IR_VERSION = 7
"""Version of the file format; the one that belongs to opset 13 and that every later reader takes."""


def newest_opset() -> int:
    """The newest opset that the installed `onnx` package writes."""
    return int(onnx.defs.onnx_opset_version())


def to_onnx(
    graph: Graph, *, weights: WeightSource = timing_weights, batch: int = 1, opset: int = DEFAULT_OPSET
) -> ModelProto:
    """Write a graph as an ONNX model.

    Args:
        graph: The network.
        weights: Where its arrays come from.
        batch: Pictures at a time.
        opset: Version of the operators, `OLDEST_OPSET` to the newest that the `onnx` package knows.

    Raises:
        UsageError: No such opset, or a batch below 1.
        UnsupportedError: The network needs an operator that TensorRT 8.2 does not have, and the opset is one of its.
    """
    check_opset(opset)
    if batch < 1:
        raise UsageError(f"batch = {batch}: allowed is 1 or more")
    writer = NodeWriter()
    labels = _output_labels(graph)
    _add_layers(writer, graph, weights, labels)
    shapes = {label: (batch, *graph.placements[place].block.shape) for label, place in graph.outputs}
    return assemble(writer, graph.name, {INPUT_NAME: (batch, *graph.input_shape)}, shapes, opset)


def write_onnx(model: ModelProto, path: Path) -> None:
    """Write a model as one file, whole or not at all."""
    write_atomic(path, model.SerializeToString())


def check_opset(opset: int) -> None:
    """Refuse an opset that cannot be written.

    Raises:
        UsageError: No such opset.
    """
    if not OLDEST_OPSET <= opset <= newest_opset():
        raise UsageError(
            f"opset = {opset}: allowed is {OLDEST_OPSET} to {newest_opset()}, the newest of this onnx package"
        )


def assemble(
    writer: NodeWriter, name: str, inputs: Mapping[str, Dimensions], outputs: Mapping[str, Dimensions], opset: int
) -> ModelProto:
    """Put nodes and constants together to a model.

    Raises:
        UnsupportedError: An operator is not among those of TensorRT 8.2, and the opset is one of its.
    """
    if opset <= DEFAULT_OPSET:
        strange = sorted({node.op_type for node in writer.nodes if not node.domain} - TENSORRT_8_2_OPS)
        if strange:
            raise UnsupportedError(
                f"{name}: TensorRT 8.2 has no {', '.join(strange)}, and opset {opset} is meant for it; "
                f"ask for opset {DEFAULT_OPSET + 1} or newer"
            )
    body = helper.make_graph(
        writer.nodes,
        name or "network",
        [helper.make_tensor_value_info(label, TensorProto.FLOAT, shape) for label, shape in inputs.items()],
        [helper.make_tensor_value_info(label, TensorProto.FLOAT, shape) for label, shape in outputs.items()],
        writer.constants,
    )
    return helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
        producer_name="scaler",
        producer_version=__version__,
    )


def _output_labels(graph: Graph) -> dict[str, str]:
    """The graph's outputs: label by the name of the layer that makes it."""
    made_by = {p.name: f"{p.name}.{p.block.nodes[-1].name}" for p in graph.placements}
    return {made_by[graph.placements[place].name]: label for label, place in graph.outputs}


def _add_layers(writer: NodeWriter, graph: Graph, weights: WeightSource, labels: dict[str, str]) -> None:
    """Write all layers, batch normalisation folded into the convolution before it."""
    layers = list(graph.layers())
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for source in layer.inputs:
            readers.setdefault(source, []).append(layer)
    names = {INPUT_NAME: INPUT_NAME}
    for layer in layers:
        if layer.name in names:  # folded into the one before
            continue
        arrays, last = weights(layer), layer
        following = readers.get(layer.name, [])
        if isinstance(layer.op, Conv) and len(following) == 1 and layer.name not in labels:
            (reader,) = following
            if isinstance(reader.op, BatchNorm):
                arrays, last = folded(arrays, weights(reader), reader.op.epsilon), reader
        output = labels.get(last.name, last.name)
        names[layer.name] = names[last.name] = output
        add_layer(writer, layer, [names[source] for source in layer.inputs], arrays, output)


def folded(convolution: dict[str, Array], norm: dict[str, Array], epsilon: float) -> dict[str, Array]:
    """Weight and bias of a convolution with the batch normalisation behind it folded in."""
    factor = norm["gamma"] / np.sqrt(norm["variance"] + np.float32(epsilon))
    bias = convolution.get("bias", np.float32(0))
    return {
        "weight": convolution["weight"] * factor.reshape(-1, 1, 1, 1),
        "bias": np.asarray((bias - norm["mean"]) * factor + norm["beta"], np.float32),
    }
