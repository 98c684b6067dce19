"""`scaler export`: a checkpoint as an ONNX file, compared with torch; the command that makes an engine of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from scaler.cli.evaluate import tell_broken
from scaler.cli.options import Json, console, print_json, say
from scaler.errors import UnsupportedError, UsageError, UserError, unknown_name

if TYPE_CHECKING:
    from scaler.export.decode import Decode
    from scaler.export.half import FilePrecision
    from scaler.runtimes.tensorrt_version import Version
    from scaler.training.runs.export import Exported, ExportOrder
    from scaler.training.runs.export_check import Agreement

_FORMATS = ("onnx", "tensorrt")
_PRECISIONS = ("fp32", "fp16")
_NMS = {"none": "none", "efficient-nms": "efficient", "onnx": "onnx"}
"""What a user writes, and `scaler.export.decode.Nms`."""
_DRAWING = {"confidence": 0.25, "iou": 0.5, "max_detections": 100}
"""Of the NMS inside: those of `scaler predict`."""


def command(
    checkpoint: Annotated[Path, typer.Argument(help="The best.pt of a training run.")],
    format_: Annotated[
        str, typer.Option("--format", help="onnx; tensorrt tells the command that builds an engine on the target.")
    ] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file; otherwise beside the checkpoint, named by the options."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", help="Number format of the file, fp32 or fp16; fp32 by default. Of an engine: fp16."
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option("--opset", help="Version of ONNX' operators; 13 by default, the newest of TensorRT 8.2."),
    ] = None,
    nms: Annotated[
        str,
        typer.Option(
            "--nms", help="NMS inside the file: none, efficient-nms (TensorRT's plugin), onnx (the operator)."
        ),
    ] = "none",
    confidence: Annotated[
        float | None,
        typer.Option("--confidence", min=0, max=1, help="Of the NMS inside: least score; 0.25 by default."),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(
            "--iou", min=0, max=1, help="Of the NMS inside: overlap above which a box is dropped; 0.5 by default."
        ),
    ] = None,
    max_detections: Annotated[
        int | None,
        typer.Option(
            "--max-detections",
            min=1,
            max=4096,
            help="Of the NMS inside: most of a picture, or of a class with onnx; 100 by default.",
        ),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures at a time.")] = 1,
    dynamic_batch: Annotated[
        bool,
        typer.Option("--dynamic-batch", help="Any number of pictures at a time; --batch is the most to be expected."),
    ] = False,
    check: Annotated[
        Path | None, typer.Option("--check", help="Pictures on which the file is compared with torch: a folder.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Instead of --check: a data.toml, whose val pictures are taken.")
    ] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Write the file without comparing it.")] = False,
    score_tolerance: Annotated[
        float | None, typer.Option("--score-tolerance", min=0, help="Largest difference of a score that is accepted.")
    ] = None,
    box_tolerance: Annotated[
        float | None, typer.Option("--box-tolerance", min=0, help="Largest difference of a corner, in input pixels.")
    ] = None,
    tensorrt: Annotated[
        str | None, typer.Option("--tensorrt", help="TensorRT of the target, for its command; 10.3 by default.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Write a trained network as an ONNX file that gives the same boxes as torch, and say how an engine is made of it.

    The file is compared on the pictures before it is written. It tells its classes, anchors and how it wants pictures.

    Example: scaler export runs/best/best.pt --nms efficient-nms --data data.toml
    """
    for option, name, known in (
        ("format", format_, _FORMATS),
        ("precision", precision or _PRECISIONS[0], _PRECISIONS),
        ("nms", nms, tuple(_NMS)),
    ):
        if name not in known:
            raise UsageError(f"--{option}: {unknown_name(option, name, known)}")
    if sum((check is not None, data is not None, unchecked)) > 1:
        raise UsageError("--check, --data and --unchecked exclude each other; give one of them")
    if out is not None and out.suffix.lower() != ".onnx":
        raise UsageError(f"--out {out}: an ONNX file is called .onnx")
    from scaler.export import require_onnx  # noqa: PLC0415  (the help needs no numpy)

    require_onnx()
    from scaler.training.runs.engine_command import DEFAULT_VERSION, parse_version  # noqa: PLC0415

    version = DEFAULT_VERSION if tensorrt is None else parse_version(tensorrt)
    if checkpoint.suffix.lower() == ".onnx":
        raise _of_file(checkpoint, format_, version, precision, batch)
    from scaler.export.onnx_model import DEFAULT_OPSET  # noqa: PLC0415
    from scaler.training import require_torch  # noqa: PLC0415

    require_torch()
    from scaler.training.runs.export import ExportOrder, export  # noqa: PLC0415

    order = ExportOrder(
        checkpoint=checkpoint,
        out=out,
        opset=DEFAULT_OPSET if opset is None else opset,
        decode=_decode(nms, confidence, iou, max_detections),
        batch=batch,
        dynamic_batch=dynamic_batch,
        precision=cast("FilePrecision", precision or ("fp32" if format_ == "onnx" else "fp16")),
        check=not unchecked,
        pictures=check,
        data=data,
        score_tolerance=score_tolerance,
        box_tolerance=box_tolerance,
    )
    if format_ == "tensorrt":
        raise _of_checkpoint(order, version)
    exported = export(order)
    told = _command(order, exported.spec.preprocessing.size, version, "fp16")
    if json_output:
        print_json(_as_data(order, exported, told, version))
    else:
        _print(order, exported, told, version)


def _decode(nms: str, confidence: float | None, iou: float | None, max_detections: int | None) -> Decode:
    """The NMS inside; refuses numbers for one that is not there."""
    from scaler.export.decode import Decode, Nms  # noqa: PLC0415

    given = {"confidence": confidence, "iou": iou, "max_detections": max_detections}
    wanted = {name: value for name, value in given.items() if value is not None}
    if nms == "none" and wanted:
        option = next(iter(wanted)).replace("_", "-")
        raise UsageError(f"--{option} is of the NMS inside the file; give --nms efficient-nms or --nms onnx too")
    numbers: dict[str, Any] = _DRAWING | wanted
    return Decode(nms=cast("Nms", _NMS[nms]), **numbers)


def _command(order: ExportOrder, size: int, version: Version, precision: FilePrecision) -> str:
    """How an engine of this precision is made of the file of an order."""
    from scaler.training.runs.engine_command import EngineFile, engine_command  # noqa: PLC0415

    file = EngineFile(order.path, size, order.dynamic_batch, order.precision)
    return engine_command(file, version, precision=precision, batch=order.batch)


def _of_file(path: Path, format_: str, version: Version, precision: str | None, batch: int) -> UserError:
    """What there is to say of an ONNX file: how an engine is made of it."""
    if format_ == "onnx":
        return UsageError(
            f"{path}: is an ONNX file already; name the best.pt of a training run, or ask with --format tensorrt how "
            "an engine is made of it"
        )
    from scaler.training.runs.engine_command import engine_command, read_engine_file  # noqa: PLC0415

    file = read_engine_file(path)
    how = engine_command(file, version, precision=cast("FilePrecision", precision or "fp16"), batch=batch)
    return _on_the_target(f"copy {path.name} there", how, version)


def _of_checkpoint(order: ExportOrder, version: Version) -> UserError:
    """Which file an engine of a checkpoint is made of, and how."""
    from scaler.runtimes.tensorrt_version import STRONGLY_TYPED  # noqa: PLC0415
    from scaler.training.network.checkpoint import read_checkpoint  # noqa: PLC0415

    typed = version >= STRONGLY_TYPED and order.precision == "fp16"
    file = order if typed else replace(order, precision="fp32")
    size = read_checkpoint(order.checkpoint).spec.preprocessing.size
    how = _command(file, size, version, order.precision)
    option = " --precision fp16" if typed else ""
    return _on_the_target(f"write {file.path.name} by --format onnx{option}, copy it there", how, version)


def _on_the_target(steps: str, how: str, version: Version) -> UnsupportedError:
    return UnsupportedError(
        f"--format tensorrt: an engine is built on its target and does not travel; {steps} and run, for TensorRT "
        f"{version.major}.{version.minor}: {how}"
    )


def _as_data(order: ExportOrder, exported: Exported, command: str, version: Version) -> dict[str, Any]:
    agreement = exported.agreement
    return {
        "file": str(exported.path),
        "bytes": exported.size,
        "family": exported.spec.family,
        "classes": list(exported.spec.classes),
        "input_size": exported.spec.preprocessing.size,
        "opset": order.opset,
        "precision": order.precision,
        "nms": order.decode.nms,
        "batch": None if order.dynamic_batch else order.batch,
        "comparison": None
        if agreement is None
        else {
            "pictures": agreement.pictures,
            "source": agreement.source,
            "generated": agreement.generated,
            "score": agreement.score,
            "px": agreement.px,
            "tolerance": agreement.tolerance._asdict(),
            "detections": agreement.detections and dict(zip(("file", "torch"), agreement.detections, strict=True)),
            "skipped": [row._asdict() for row in agreement.skipped],
        },
        "tensorrt": {"version": str(version), "command": command},
    }


def _print(order: ExportOrder, exported: Exported, command: str, version: Version) -> None:
    screen = console()

    def show(line: str) -> None:
        screen.print(line, markup=False, soft_wrap=True)

    spec = exported.spec
    pictures = f"any batch, tried with up to {order.batch}" if order.dynamic_batch else f"batch {order.batch}"
    nms = {"none": "NMS left to whoever runs it", "efficient": "TensorRT's NMS inside", "onnx": "ONNX' NMS inside"}
    show(
        f"{exported.path}: {spec.family}, {spec.preprocessing.size} px, {len(spec.classes)} classes, "
        f"{exported.size / 1e6:.1f} MB; opset {order.opset}, {order.precision}, {pictures}, {nms[order.decode.nms]}"
    )
    if exported.agreement is None:
        show("not compared with torch")
    else:
        _print_agreement(exported.agreement, order, show)
    show(f"engine, built on a target with TensorRT {version.major}.{version.minor}: {command}")
    if order.precision == "fp16":
        say(
            "scaler: fp16 in the file is for runtimes that keep its types; TensorRT before 11 builds FP16 from fp32 too"
        )


def _print_agreement(agreement: Agreement, order: ExportOrder, show: Callable[[str], None]) -> None:
    tolerance, what = agreement.tolerance, "before its NMS, " if order.decode.nms != "none" else ""
    show(
        f"largest difference from torch by ONNX Runtime, {what}on {agreement.pictures} pictures ({agreement.source}): "
        f"{agreement.score:.2g} in a score, allowed {tolerance.score:g}; {agreement.px:.2g} px in a corner, allowed "
        f"{tolerance.px:g}"
    )
    if agreement.detections is not None:
        show("detections: {} by the NMS in the file, {} by scaler's of torch's boxes".format(*agreement.detections))
    if agreement.generated:
        say("scaler: compared on generated noise; give --check FOLDER or --data data.toml to compare on real pictures")
    tell_broken(agreement.skipped, agreement.pictures + len(agreement.skipped))
