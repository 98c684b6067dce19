"""A float network as one of 8-bit integers: explicit QuantizeLinear and DequantizeLinear (Q/DQ) nodes.

ONNX Runtime's quantiser writes the nodes; where they may stand depends on who runs the file, which `TARGETS` says:

`tensorrt`: symmetric int8, zero points 0, a scale for every output channel of weights and one a tensor for activations.
Weights stay FP32 behind a Q/DQ pair of their own, biases FP32. Q/DQ stands before what has weights, and before the
shortcut of a residual addition; the addition's other input stays float, so that it fuses into the convolution before.
Outputs are never quantised. NVIDIA, "TensorRT Developer Guide", Q/DQ placement; TensorRT 8 refuses integer weights and
biases behind a DequantizeLinear ("only activation types allowed", github.com/microsoft/onnxruntime issue 14229).

`onnxruntime`: unsigned activations with zero points, biases int32, and Q/DQ behind every operator that its CPU provider
has in integers: that provider runs a convolution in integers only if its output is quantised too.

Decoding of boxes stays float for both. Layers that the caller keeps read and write float.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from onnx import GraphProto, ModelProto, helper, shape_inference

from scaler.errors import UsageError, UserError, listed, nearest_name, unknown_name
from scaler.export.int8_calibration import Calibration, quiet
from scaler.export.int8_graph import (
    WEIGHTED,
    check_float,
    cut,
    decodes,
    digest,
    layers,
    quantised_tensors,
    readers,
    require_onnxruntime,
)

Target: TypeAlias = Literal["tensorrt", "onnxruntime"]
METADATA_KEY = "scaler.int8"
"""Under which the file says how it was quantised, as JSON."""
_DETECTOR_KEY = "scaler"
"""Under which a detector's file says what it is, as JSON; `scaler.evaluation.onnx_metadata` reads it."""
_INFERRED = "onnx.infer"
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"

Reads: TypeAlias = Mapping[str, Collection[str]]
"""Of every node to be quantised, by name: which of its inputs are read in 8 bits."""


def quantised(
    model: ModelProto, calibration: Calibration, *, target: Target = "tensorrt", keep: Collection[str] = ()
) -> ModelProto:
    """Write a float network in 8-bit integers.

    Args:
        model: The network in FP32, opset 13 or newer; it stays as it is.
        calibration: Of this network.
        target: Who will run it.
        keep: Names of layers that stay in float, of `layers(model)`.

    Returns:
        A model with the same inputs, outputs and metadata, but for the precision that a detector's tell, and how it was
        made under `METADATA_KEY`.

    Raises:
        UsageError: An unknown target, or a layer that is not there.
        UserError: The calibration is of another network.
        UnsupportedError: The model cannot be quantised, see `check_float`.
        MissingExtraError: The package `onnxruntime` is not installed.
    """
    if target not in get_args(Target):
        raise UsageError(unknown_name("target", target, get_args(Target)))
    check_float(model)
    if calibration.model != digest(model):
        raise UserError("INT8: the calibration is of another network; calibrate this one")
    check_kept(model, keep)
    known = layers(model)
    rules = TARGETS[target]
    reads = rules.reads(model.graph, [name for name in known if name not in set(keep)])
    result = _written(model, calibration, rules, reads) if reads else _copy(model)
    facts = {"target": target, "method": calibration.method, "pictures": calibration.count, "float_layers": [*keep]}
    helper.set_model_props(result, _properties(model, as_int8=bool(reads)) | {METADATA_KEY: json.dumps(facts)})
    return result


def check_kept(model: ModelProto, keep: Collection[str]) -> None:
    """Refuse layers that are not there.

    Raises:
        UsageError: So it is.
    """
    known = layers(model)
    if strange := [name for name in keep if name not in known]:
        near = next((f"did you mean {near!r}? " for name in strange if (near := nearest_name(name, known))), "")
        raise UsageError(f"no such layers to keep: {listed(strange)}; {near}known: {listed(known)}")


def target_of(properties: Mapping[str, str]) -> Target | None:
    """For whom a file was quantised; None where it does not tell.

    Args:
        properties: The file's `metadata_props`.
    """
    try:
        facts = json.loads(properties.get(METADATA_KEY, ""))
    except ValueError:
        return None
    told = facts.get("target") if isinstance(facts, dict) else None
    return next((target for target in get_args(Target) if target == told), None)


def _after_weights(graph: GraphProto, chosen: Sequence[str]) -> dict[str, set[str]]:
    """TensorRT: what chosen layers read, and shortcuts of residual additions behind chosen layers."""
    reads = _weighted(graph, chosen)
    state, readers_of = quantised_tensors(graph, chosen), readers(graph)
    made_by_layer = {name for node in graph.node if node.op_type in WEIGHTED for name in node.output}
    for node in graph.node:
        if node.op_type != "Add" or decodes(node) or len(node.input) != 2:
            continue
        own = [name for name in node.input if len(readers_of[name]) == 1 and name in state]
        own.sort(key=lambda name: name not in made_by_layer)
        shortcut = [name for name in node.input if name in state and name not in own[:1]]
        if own and shortcut and state[own[0]] and len(readers_of[shortcut[0]]) > 1:
            reads[node.name] = set(shortcut)
    return reads


_INTEGER_CPU_OPS = frozenset(
    ("Add", "Clip", "Concat", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul", "Relu", "Resize", "Sigmoid")
)
"""Beside those with weights."""


def _throughout(graph: GraphProto, chosen: Sequence[str]) -> dict[str, set[str]]:
    """ONNX Runtime: chosen layers, and all between them that has an integer kernel."""
    reads, state = _weighted(graph, chosen), quantised_tensors(graph, chosen)
    for node in graph.node:
        if node.op_type in _INTEGER_CPU_OPS and not decodes(node) and state[node.output[0]]:
            reads[node.name] = set(node.input)
    return reads


def _weighted(graph: GraphProto, chosen: Sequence[str]) -> dict[str, set[str]]:
    wanted = set(chosen)
    return {node.name: set(node.input[:2]) for node in graph.node if node.name in wanted}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rules:
    """How one target wants its network."""

    reads: Callable[[GraphProto, Sequence[str]], Reads]
    """Which nodes read what in 8 bits, given the layers that are quantised."""
    activation: str
    """ONNX Runtime's name of their type."""
    spares: bool
    """Whether a node that is not quantised reads float although another one reads the same tensor in 8 bits."""
    options: Mapping[str, Any]
    """Of ONNX Runtime's quantiser."""


TARGETS: Mapping[Target, _Rules] = {
    "tensorrt": _Rules(
        reads=_after_weights,
        activation="QInt8",
        spares=True,
        options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
            "QDQDisableWeightAdjustForInt32Bias": True,
            "OpTypesToExcludeOutputQuantization": [*WEIGHTED, "Add"],
            "DedicatedQDQPair": True,
        },
    ),
    "onnxruntime": _Rules(reads=_throughout, activation="QUInt8", spares=False, options={"WeightSymmetric": True}),
}


def _written(model: ModelProto, calibration: Calibration, rules: _Rules, reads: Reads) -> ModelProto:
    """The model with Q/DQ nodes."""
    require_onnxruntime()
    from onnxruntime.quantization import QDQQuantizer, QuantType  # noqa: PLC0415

    prepared = shape_inference.infer_shapes(model)
    helper.set_model_props(prepared, {_INFERRED: "onnxruntime.quant"})  # or it would go through a file
    types = {node.op_type for node in model.graph.node if node.name in reads}
    with quiet():
        quantiser: Any = QDQQuantizer(
            prepared,
            True,  # a scale for every output channel of weights
            False,  # all 8 bits
            QuantType.QInt8,
            QuantType[rules.activation],
            _tensor_ranges(calibration),
            list(reads),
            [],
            sorted(types),
            dict(rules.options),
        )
        quantiser.quantize_model()
        quantiser.model.topological_sort()
    result: ModelProto = quantiser.model.model
    _spare_others(result.graph, reads, rules.spares)
    result = cut(result, [value.name for value in model.graph.output])
    for node in result.graph.node:
        if node.op_type in (_Q, _DQ):
            node.name = node.name.replace(f"_{_Q}", "/quantize").replace(f"_{_DQ}", "/dequantize")
    result.producer_name, result.producer_version = model.producer_name, model.producer_version
    return result


def _tensor_ranges(calibration: Calibration) -> Any:
    """In ONNX Runtime's form."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData  # noqa: PLC0415

    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in calibration.ranges.items()
    }
    return TensorsData(CalibrationMethod.MinMax, data)


def _spare_others(graph: GraphProto, reads: Reads, always: bool) -> None:
    """Let nodes read float where 8 bits were not meant for them."""
    by_output = {name: node for node in graph.node for name in node.output}
    sources = {
        node.output[0]: by_output[node.input[0]].input[0]
        for node in graph.node
        if node.op_type == _DQ and node.input[0] in by_output
    }
    uses = [
        (node, place, sources[name])
        for node in graph.node
        for place, name in enumerate(node.input)
        if name in sources and node.op_type != _Q
    ]
    meant = {source for node, _, source in uses if source in reads.get(node.name, ())}
    for node, place, source in uses:
        if source not in reads.get(node.name, ()) and (always or source not in meant):
            node.input[place] = source


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _properties(model: ModelProto, *, as_int8: bool) -> dict[str, str]:
    """Metadata, with a detector's precision as it is now."""
    found = {entry.key: entry.value for entry in model.metadata_props}
    try:
        detector = json.loads(found.get(_DETECTOR_KEY, ""))
    except ValueError:  # none, or damaged, which is told to whoever reads it
        return found
    if not as_int8 or not isinstance(detector, dict):
        return found
    return found | {_DETECTOR_KEY: json.dumps(detector | {"precision": "int8"})}
