"""A written network in 16 bits: its weights and everything between the input and the raw maps.

For runtimes that keep the types of the file: ONNX Runtime, TensorRT from 11.0 on. Older TensorRT builds an FP16 engine
from a file of 32 bits too and chooses the format layer by layer. Input, raw maps and whatever follows them stay in
32 bits, since coordinates above 512 pixels are exact to half a pixel only in 16.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, TypeAlias

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from scaler.errors import UnsupportedError
from scaler.export.onnx_nodes import SEPARATOR, NodeWriter
from scaler.graph.graph import INPUT_NAME

FilePrecision: TypeAlias = Literal["fp32", "fp16"]
"""Number formats in which a network is written."""

LARGEST = float(np.finfo(np.float16).max)
"""65504."""


def to_half(writer: NodeWriter, outputs: Collection[str]) -> None:
    """Turn everything that was written so far into 16 bits, with casts behind the input and before the outputs.

    Args:
        writer: The network, without its decoding; is changed.
        outputs: Names of the tensors that stay in 32 bits.

    Raises:
        UnsupportedError: A weight is too large.
    """
    inner = {name: f"{name}{SEPARATOR}half" for name in (INPUT_NAME, *outputs)}
    makers = {name: node.name for node in writer.nodes for name in node.output}
    in_32_bits = {name for node in writer.nodes if node.op_type == "Resize" for name in node.input[1:]}
    for constant in writer.constants:
        if constant.data_type == TensorProto.FLOAT and constant.name not in in_32_bits:
            _halve(constant)
    for node in writer.nodes:
        for names in (node.input, node.output):
            names[:] = [inner.get(name, name) for name in names]
    entry = _cast(INPUT_NAME, inner[INPUT_NAME], inner[INPUT_NAME], TensorProto.FLOAT16)
    exits = [_cast(inner[name], name, f"{makers[name]}{SEPARATOR}float", TensorProto.FLOAT) for name in outputs]
    writer.nodes[:] = [entry, *writer.nodes, *exits]


def _cast(source: str, target: str, name: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=name, to=kind)


def _halve(constant: TensorProto) -> None:
    values = numpy_helper.to_array(constant)
    largest = float(np.abs(values).max(initial=0))
    if not largest <= LARGEST:  # not a number is refused too
        raise UnsupportedError(
            f"{constant.name}: a weight of {largest:.3g} does not fit into 16 bits, whose largest number is "
            f"{LARGEST:.0f}; write the network in fp32"
        )
    constant.CopyFrom(numpy_helper.from_array(values.astype(np.float16), constant.name))
