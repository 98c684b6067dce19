"""A trained detector as an ONNX file that says of itself what it needs. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, helper

from scaler.evaluation.detections import Selection
from scaler.evaluation.onnx_metadata import KEY, OnnxMetadata
from scaler.export import onnx_model
from scaler.export.decode import Decode
from scaler.export.onnx_model import DEFAULT_OPSET
from scaler.export.weights import WeightSource
from scaler.training.network.spec import NetworkSpec


def write_onnx(
    spec: NetworkSpec,
    weights: WeightSource,
    path: Path | str,
    *,
    selection: Selection | None = None,
    batch: int = 1,
    opset: int = DEFAULT_OPSET,
) -> None:
    """Write a detector that decodes its boxes but leaves NMS to whoever runs it.

    Args:
        spec: The network.
        weights: Its numbers: `scaler.training.network.module.weights_of(module)`.
        path: The file, written whole or not at all.
        selection: Which boxes counted when the network's AP was computed; the file tells, so that whoever evaluates it
            gets the same.
        batch: Pictures at a time, fixed.
        opset: Version of the operators.

    Raises:
        UserError: The file cannot be written.
        UnsupportedError: The network is no detector, or needs operators that the opset does not have.
    """
    model = detector_model(spec, weights, selection=selection, batch=batch, opset=opset)
    onnx_model.write_onnx(model, Path(path))


def detector_model(
    spec: NetworkSpec,
    weights: WeightSource,
    *,
    selection: Selection | None = None,
    batch: int = 1,
    opset: int = DEFAULT_OPSET,
) -> ModelProto:
    """What `write_onnx` writes."""
    model = onnx_model.to_onnx(spec.graph(), weights=weights, batch=batch, opset=opset, decode=Decode(nms="none"))
    metadata = OnnxMetadata(
        classes=spec.classes,
        preprocessing=spec.preprocessing,
        family=spec.family,
        parameters=spec.parameters,
        selection=selection,
    )
    helper.set_model_props(model, {KEY: metadata.as_text()})
    return model
