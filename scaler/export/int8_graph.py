"""What quantisation asks of an ONNX graph: its quantisable layers, who reads a tensor, and parts of it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto

from scaler.errors import MissingExtraError, UnsupportedError
from scaler.export.decode import BOXES, SCORES

WEIGHTED = frozenset({"Conv", "Gemm"})
"""Operators with weights: the layers that can be quantised or kept, each by itself."""
DECODING = "decode/"
"""How the nodes that make boxes of raw maps are called (`scaler.export.decode`): they stay in float."""
OLDEST_OPSET = 13
"""The first with a scale for every channel (`axis` of QuantizeLinear), and the newest that TensorRT 8.2 reads."""
_Q = "QuantizeLinear"
_SEVERITY_ERROR = 3


def layers(model: ModelProto) -> tuple[str, ...]:
    """Names of the layers that can be quantised, in the order in which they run."""
    return tuple(node.name for node in model.graph.node if node.op_type in WEIGHTED and not decodes(node))


def decodes(node: NodeProto) -> bool:
    """Whether a node belongs to the decoding of boxes."""
    return node.name.startswith(DECODING)


def readers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Nodes that read a tensor, by its name."""
    found: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            found.setdefault(name, []).append(node)
    return found


def check_float(model: ModelProto) -> None:
    """Refuse a model that cannot be quantised.

    Raises:
        UnsupportedError: It is older than opset `OLDEST_OPSET`, quantised already, or not in FP32.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < OLDEST_OPSET:
        raise UnsupportedError(f"INT8 needs opset {OLDEST_OPSET} or newer; this network is in opset {opset}")
    if any(node.op_type == _Q for node in model.graph.node):
        raise UnsupportedError("this network is quantised already; name the FP32 file")
    if any(value.data_type == TensorProto.FLOAT16 for value in model.graph.initializer):
        raise UnsupportedError("INT8 is made from the FP32 file; this one is in FP16")


def cut(model: ModelProto, outputs: Sequence[str]) -> ModelProto:
    """The part of a model that makes these tensors, which are its outputs; names, weights and metadata as they were."""
    part, needed = ModelProto(), set(outputs)
    part.CopyFrom(model)
    kept: list[NodeProto] = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    constants = [value for value in model.graph.initializer if value.name in needed]
    known = {value.name: value for value in model.graph.output}
    ends = [known.get(name, _unshaped(name)) for name in outputs]
    replace(part.graph, node=reversed(kept), initializer=constants, output=ends, value_info=())
    return part


def replace(graph: GraphProto, **fields: Any) -> None:
    """Put other contents into repeated fields of a graph."""
    for name, values in fields.items():
        contents = list(values)
        del getattr(graph, name)[:]
        getattr(graph, name).extend(contents)


def body(model: ModelProto) -> ModelProto:
    """The network without the decoding of its boxes."""
    made = {name for node in model.graph.node if not decodes(node) for name in node.output}
    read = [name for node in model.graph.node if decodes(node) for name in node.input if name in made]
    ends = [value.name for value in model.graph.output if value.name in made]
    return cut(model, list(dict.fromkeys([*ends, *read])))


def detector(model: ModelProto) -> ModelProto:
    """The network up to `boxes` and `scores`, whatever NMS comes behind.

    Raises:
        UnsupportedError: It has no such tensors.
    """
    made = {name for node in model.graph.node for name in node.output}
    if not made >= {BOXES, SCORES}:
        raise UnsupportedError("this network makes no boxes and scores, so what quantising costs it cannot be told")
    return cut(model, [BOXES, SCORES])


def digest(model: ModelProto) -> str:
    """Of nodes and numbers, SHA-256 in hexadecimal; metadata do not count."""
    return hashlib.sha256(model.graph.SerializeToString(deterministic=True)).hexdigest()


def quantised_tensors(graph: GraphProto, chosen: Collection[str]) -> Mapping[str, bool]:
    """Whether what a tensor holds comes from a chosen layer: through activations, additions, ... back to layers.

    Args:
        graph: Of a float model, nodes in the order in which they run.
        chosen: Names of layers.
    """
    found: dict[str, bool] = {}
    for node in graph.node:
        if node.op_type in WEIGHTED:
            state = node.name in chosen
        else:
            inputs = [found[name] for name in node.input if name in found]
            state = bool(inputs) and all(inputs)
        found.update(dict.fromkeys(node.output, state))
    return found


def require_onnxruntime() -> Any:
    """The package.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import onnxruntime  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("INT8", "onnxruntime", "onnxruntime") from None
    return onnxruntime


def session(model: ModelProto) -> Any:
    """An ONNX Runtime session on the CPU, for numbers and not for speed."""
    package = require_onnxruntime()
    options = package.SessionOptions()
    options.log_severity_level = _SEVERITY_ERROR
    return package.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _unshaped(name: str) -> ValueInfoProto:
    return ValueInfoProto(name=name, type=TypeProto(tensor_type=TypeProto.Tensor(elem_type=TensorProto.FLOAT)))
