"""A trained detector as an ONNX file that says of itself what it needs. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, helper

from scaler.evaluation.detections import Selection
from scaler.evaluation.onnx_metadata import KEY, NmsInside, OnnxMetadata, ScaleAnchors
from scaler.export import onnx_model
from scaler.export.decode import Decode
from scaler.export.half import FilePrecision
from scaler.export.onnx_model import DEFAULT_OPSET
from scaler.export.weights import WeightSource
from scaler.graph.graph import Graph
from scaler.training.network.spec import NetworkSpec

NO_NMS = Decode(nms="none")


def write_onnx(
    spec: NetworkSpec,
    weights: WeightSource,
    path: Path | str,
    *,
    selection: Selection | None = None,
    batch: int | None = 1,
    opset: int = DEFAULT_OPSET,
    decode: Decode = NO_NMS,
    precision: FilePrecision = "fp32",
) -> None:
    """Write a detector that decodes its boxes and, by default, leaves NMS to whoever runs it.

    Args:
        spec: The network.
        weights: Its numbers: `scaler.training.network.module.weights_of(module)`.
        path: The file, written whole or not at all.
        selection: Which boxes counted when the network's AP was computed; the file tells, so that whoever evaluates it
            gets the same.
        batch: Pictures at a time; None leaves it open until the file is run.
        opset: Version of the operators.
        decode: Which NMS the file does itself.
        precision: Number format of the network; input, decoding and outputs stay in 32 bits.

    Raises:
        UserError: The file cannot be written.
        UnsupportedError: The network is no detector, needs operators that the opset does not have, or has a weight that
            is too large for the precision.
    """
    model = detector_model(
        spec, weights, selection=selection, batch=batch, opset=opset, decode=decode, precision=precision
    )
    onnx_model.write_onnx(model, Path(path))


def detector_model(
    spec: NetworkSpec,
    weights: WeightSource,
    *,
    selection: Selection | None = None,
    batch: int | None = 1,
    opset: int = DEFAULT_OPSET,
    decode: Decode = NO_NMS,
    precision: FilePrecision = "fp32",
) -> ModelProto:
    """What `write_onnx` writes."""
    graph = spec.graph()
    model = onnx_model.to_onnx(graph, weights=weights, batch=batch, opset=opset, decode=decode, precision=precision)
    metadata = OnnxMetadata(
        classes=spec.classes,
        preprocessing=spec.preprocessing,
        family=spec.family,
        parameters=spec.parameters,
        selection=selection,
        anchors=_anchors(graph),
        precision=precision,
        nms=_nms(decode),
    )
    helper.set_model_props(model, {KEY: metadata.as_text()})
    return model


def _anchors(graph: Graph) -> tuple[ScaleAnchors, ...] | None:
    scales = graph.coding.scales if graph.coding else ()
    return tuple(ScaleAnchors(s.stride, tuple((float(w), float(h)) for w, h in s.anchors)) for s in scales) or None


def _nms(decode: Decode) -> NmsInside | None:
    if decode.nms == "none":
        return None
    return NmsInside(decode.nms, decode.confidence, decode.iou, decode.max_detections)
