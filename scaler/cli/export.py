"""`scaler export`: a checkpoint as an ONNX file, compared with torch; its INT8; the engine, or the way to one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import typer

from scaler.cli import export_options as options
from scaler.cli.evaluate import in_tenths
from scaler.cli.export_engine import EngineWish, of_checkpoint, of_file, told_command
from scaler.cli.export_report import as_data, print_exported
from scaler.cli.options import Json, print_json
from scaler.errors import UsageError

if TYPE_CHECKING:
    from scaler.devices import Precision
    from scaler.evaluation.onnx_metadata import NumberFormat
    from scaler.export.decode import Decode
    from scaler.export.int8 import Target
    from scaler.export.int8_calibration import Method

_DRAWING = {"confidence": 0.25, "iou": 0.5, "max_detections": 100}
"""Of the NMS inside: those of `scaler predict`."""


def command(
    context: typer.Context,
    checkpoint: options.Checkpoint,
    format_: options.Format = "onnx",
    out: options.Out = None,
    precision: options.Precision = None,
    opset: options.Opset = None,
    nms: options.NmsInside = "none",
    confidence: options.Confidence = None,
    iou: options.Iou = None,
    max_detections: options.MaxDetections = None,
    batch: options.Batch = 1,
    dynamic_batch: options.DynamicBatch = False,
    check: options.Check = None,
    data: options.Data = None,
    unchecked: options.Unchecked = False,
    score_tolerance: options.ScoreTolerance = None,
    box_tolerance: options.BoxTolerance = None,
    calibrate: options.Calibrate = None,
    calibration: options.CalibrationMethod = "percentile",
    calibration_pictures: options.CalibrationPictures = 200,
    calibration_cache: options.CalibrationCache = None,
    target: options.Int8Target = "tensorrt",
    keep: options.Keep = None,
    sensitivity: options.Sensitivity = None,
    tensorrt: options.TensorRT = None,
    dla: options.Dla = None,
    bundle: options.Bundle = None,
    bundle_pictures: options.BundlePictures = 200,
    result: options.Result = None,
    candidate: options.Candidate = None,
    json_output: Json = False,
) -> None:
    """Write a trained network as an ONNX file that gives the same boxes as torch, and say how an engine is made of it.

    The file is compared on the pictures before it is written. It tells its classes, anchors and how it wants pictures.
    With --precision int8 it is calibrated on pictures on which it is not judged, and what 8 bits cost is measured.

    Example: scaler export runs/best/best.pt --precision int8 --data data.toml
    """
    given = options.given_options(context)
    words = {"format": format_, "nms": nms, "calibration": calibration, "target": target}
    options.check_words(words | ({} if precision is None else {"precision": precision}), out)
    options.check_together(given, format_, precision, target)
    options.check_bundle(bundle, batch, dynamic_batch, nms)
    from scaler.export import require_onnx  # noqa: PLC0415  (the help needs no numpy)

    require_onnx()
    from scaler.runtimes.tensorrt_version import STRONGLY_TYPED, check_dla, parse_version  # noqa: PLC0415
    from scaler.training.runs.engine_command import DEFAULT_VERSION  # noqa: PLC0415

    builds = format_ == "tensorrt" or bundle is not None
    wanted = cast("Precision", precision if precision and (builds or precision == "int8") else "fp16")
    version = DEFAULT_VERSION if tensorrt is None else parse_version(tensorrt)
    typed = version >= STRONGLY_TYPED and not builds  # then the engine is as the file that is written
    check_dla(dla, cast("Precision", precision or "fp32") if typed else wanted, version, open_batch=dynamic_batch)
    wish = EngineWish(
        version=version,
        elsewhere=tensorrt is not None,
        precision=wanted,
        dla=dla,
        bundle=bundle,
        bundle_pictures=bundle_pictures,
        data=data,
        result=result,
        candidate=candidate,
    )
    if checkpoint.suffix.lower() == ".onnx":
        if not builds:
            raise UsageError(
                f"{checkpoint}: is an ONNX file already; name the best.pt of a training run, or ask with --format "
                "tensorrt how an engine is made of it"
            )
        of_file(checkpoint, wish, batch, given, json_output)
        return
    from scaler.export.onnx_model import DEFAULT_OPSET  # noqa: PLC0415
    from scaler.training import require_torch  # noqa: PLC0415

    require_torch()
    from scaler.training.runs.export import ExportOrder, export  # noqa: PLC0415
    from scaler.training.runs.export_int8 import Int8Order  # noqa: PLC0415

    order = ExportOrder(
        checkpoint=checkpoint,
        out=out,
        opset=DEFAULT_OPSET if opset is None else opset,
        decode=_decode(nms, confidence, iou, max_detections),
        batch=batch,
        dynamic_batch=dynamic_batch,
        precision=cast("NumberFormat", precision or ("fp16" if builds else "fp32")),
        int8=Int8Order(
            folder=calibrate,
            method=cast("Method", calibration),
            pictures=calibration_pictures,
            cache=calibration_cache,
            target=cast("Target", target),
            keep=tuple(keep or ()),
            bound=sensitivity,
        ),
        check=not unchecked,
        pictures=check,
        data=data,
        score_tolerance=score_tolerance,
        box_tolerance=box_tolerance,
    )
    if builds:
        of_checkpoint(order, wish, given, json_output)
        return
    exported = export(order, in_tenths)
    told = told_command(order, exported.spec.preprocessing.size, wish)
    if json_output:
        print_json(as_data(order, exported) | {"tensorrt": told and told.as_data()})
    else:
        print_exported(order, exported, told)


def _decode(nms: str, confidence: float | None, iou: float | None, max_detections: int | None) -> Decode:
    """The NMS inside; refuses numbers for one that is not there."""
    from scaler.export.decode import Decode, Nms  # noqa: PLC0415

    given = {"confidence": confidence, "iou": iou, "max_detections": max_detections}
    wanted = {name: value for name, value in given.items() if value is not None}
    if nms == "none" and wanted:
        option = next(iter(wanted)).replace("_", "-")
        raise UsageError(f"--{option} is of the NMS inside the file; give --nms efficient-nms or --nms onnx too")
    numbers: dict[str, Any] = _DRAWING | wanted
    return Decode(nms=cast("Nms", options.NMS[nms]), **numbers)
