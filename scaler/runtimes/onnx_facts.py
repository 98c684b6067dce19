"""What a runtime needs to know of an ONNX model before it runs it, read without running it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scaler.errors import MissingExtraError
from scaler.runtimes.protocol import ModelRejectedError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

_FORMATS = {1: "fp32", 10: "fp16", 16: "bf16"}  # TensorProto.DataType
_WITH_WEIGHTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFacts:
    """Names and number formats of a model."""

    nodes: tuple[str, ...]
    """Names of the nodes in execution order, unnamed ones left out."""
    makers: dict[str, str]
    """Name of the node that makes a tensor, by the tensor."""
    formats: frozenset[str]
    """Number formats in which it computes, by the weights of its convolutions and products: `fp32`, `fp16`, `bf16`."""
    quantised: bool
    """Whether it has quantisation nodes."""
    open_input: OpenInput | None = None
    """The input whose batch is open; None where the file fixes it."""


class OpenInput(NamedTuple):
    """An input that takes any number of pictures."""

    name: str
    picture: tuple[int, ...]
    """Shape of one of them."""


def load_model(model: Path, purpose: str) -> ModelProto:
    """Load a model, its external data left aside.

    Args:
        model: The file.
        purpose: What needs this, for the message of a missing package.

    Raises:
        MissingExtraError: The package `onnx` is not installed.
        ModelRejectedError: There is no such file, or it is no ONNX model.
    """
    try:
        import onnx  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError(purpose, "onnx", "export") from None
    require_file(model)
    try:
        loaded = onnx.load(str(model), load_external_data=False)
    except Exception:  # protobuf's own error, whose module depends on its version
        raise ModelRejectedError(f"{model.name}: no ONNX model, or a damaged one; export it again") from None
    if not loaded.graph.node:
        raise ModelRejectedError(f"{model.name}: no ONNX model: it has no nodes; export it again")
    return loaded


def read_facts(model: Path, purpose: str) -> OnnxFacts:
    """Read names and number formats of a model; arguments and errors are those of `load_model`."""
    graph = load_model(model, purpose).graph
    weights = {name for node in graph.node if node.op_type in _WITH_WEIGHTS for name in node.input[1:2]}
    return OnnxFacts(
        nodes=tuple(node.name for node in graph.node if node.name),
        makers={output: node.name for node in graph.node for output in node.output},
        formats=frozenset(
            _FORMATS[item.data_type]
            for item in graph.initializer
            if item.name in weights and item.data_type in _FORMATS
        ),
        quantised=any(node.op_type == "QuantizeLinear" for node in graph.node),
        open_input=_open_input(graph),
    )


def _open_input(graph: GraphProto) -> OpenInput | None:
    constants = {item.name for item in graph.initializer}
    for value in graph.input:
        shape = [size.dim_value for size in value.type.tensor_type.shape.dim]
        if value.name not in constants and shape and not shape[0] and all(shape[1:]):
            return OpenInput(value.name, tuple(shape[1:]))
    return None


def require_file(model: Path) -> None:
    """Refuse a path that is no file.

    Raises:
        ModelRejectedError: So it is.
    """
    if not model.is_file():
        raise ModelRejectedError(f"{model}: no such file; check the path")
