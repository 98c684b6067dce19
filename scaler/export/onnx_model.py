"""A graph as an ONNX model: batch normalisation folded, names the graph's, shapes static, the batch if wanted not.

No framework is needed, only the `onnx` package. The model reads a batch of pictures called `image`,
`[batch, 3, height, width]`, and writes the raw maps of the graph's outputs, or boxes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
from onnx import ModelProto, ValueInfoProto, helper

from scaler import __version__
from scaler.errors import UnsupportedError, UsageError, unknown_name
from scaler.export.decode import Decode, add_decoding
from scaler.export.half import FilePrecision, to_half
from scaler.export.onnx_nodes import NodeWriter, Value, add_layer
from scaler.export.tensorrt_ops import TENSORRT_8_2_OPS
from scaler.export.weights import Array, WeightSource, timing_weights
from scaler.files import write_atomic
from scaler.graph.graph import INPUT_NAME, Graph, Layer
from scaler.graph.ops import BatchNorm, Conv

OLDEST_OPSET = 11
DEFAULT_OPSET = 13
"""The newest that TensorRT 8.2 reads, the last release for the Jetson Nano and TX2."""
DYNAMIC_BATCH = "batch"
"""What the number of pictures is called in files that leave it open."""


def newest_opset() -> int:
    """The newest opset that was released with or before the installed `onnx` package.

    Runtimes lag behind: ONNX Runtime 1.31 reads 26 where onnx 1.23 writes 28.
    """
    return max(opset for _, _, opset, *_ in helper.VERSION_TABLE)


def to_onnx(
    graph: Graph,
    *,
    weights: WeightSource = timing_weights,
    batch: int | None = 1,
    opset: int = DEFAULT_OPSET,
    decode: Decode | None = None,
    precision: FilePrecision = "fp32",
) -> ModelProto:
    """Write a graph as an ONNX model.

    Args:
        graph: The network.
        weights: Where its arrays come from.
        batch: Pictures at a time; None leaves it open until the model runs.
        opset: Version of the operators, `OLDEST_OPSET` to `newest_opset()`.
        decode: What becomes of the raw maps; they are the outputs where it is None.
        precision: Number format of the network; input, decoding and outputs stay in 32 bits.

    Raises:
        UsageError: No such opset or precision, or a batch below 1.
        UnsupportedError: The network needs an operator that TensorRT 8.2 does not have, and the opset is one of its;
            it is no detector and there is nothing to decode; or a weight is too large for the precision.
    """
    check_opset(opset)
    if batch is not None and (type(batch) is not int or batch < 1):
        raise UsageError(f"batch = {batch!r}: allowed is a whole number from 1")
    if precision not in get_args(FilePrecision):
        raise UsageError(unknown_name("precision", precision, get_args(FilePrecision)))
    writer, count = NodeWriter(), DYNAMIC_BATCH if batch is None else batch
    _add_layers(writer, graph, weights, _output_labels(graph))
    if precision == "fp16":
        to_half(writer, [label for label, _ in graph.outputs])
    if decode:
        outputs = add_decoding(writer, graph, decode, count)
    else:
        outputs = {label: Value((count, *graph.placements[place].block.shape)) for label, place in graph.outputs}
    return assemble(writer, graph.name, {INPUT_NAME: Value((count, *graph.input_shape))}, outputs, opset)


def write_onnx(model: ModelProto, path: Path) -> None:
    """Write a model as one file, whole or not at all."""
    write_atomic(path, model.SerializeToString())


def check_opset(opset: int) -> None:
    """Refuse an opset that cannot be written.

    Raises:
        UsageError: No such opset.
    """
    if type(opset) is not int or not OLDEST_OPSET <= opset <= newest_opset():
        raise UsageError(
            f"opset = {opset!r}: allowed is {OLDEST_OPSET} to {newest_opset()}, the newest of onnx {onnx.__version__}"
        )


def assemble(
    writer: NodeWriter, name: str, inputs: Mapping[str, Value], outputs: Mapping[str, Value], opset: int
) -> ModelProto:
    """Put nodes and constants together to a model; its file format is the oldest that the opset came with.

    Raises:
        UnsupportedError: An operator is not among those of TensorRT 8.2, and the opset is one of its.
    """
    domains = sorted({node.domain for node in writer.nodes} | {""})
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
        _infos(inputs),
        _infos(outputs),
        writer.constants,
    )
    opsets = [helper.make_opsetid(domain, 1 if domain else opset) for domain in domains]
    return helper.make_model(
        body,
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets, ignore_unknown=True),
        producer_name="scaler",
        producer_version=__version__,
    )


def _infos(values: Mapping[str, Value]) -> list[ValueInfoProto]:
    return [helper.make_tensor_value_info(name, value.kind, value.shape) for name, value in values.items()]


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
