"""`scaler export`: a checkpoint as an ONNX file, compared with torch; the command that makes an engine of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from scaler.cli.evaluate import tell_broken
from scaler.cli.options import Json, console, print_json, say
from scaler.errors import UsageError, listed, unknown_name

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
_OF_A_FILE = ("precision", "batch", "tensorrt", "format_", "json_output")
"""Parameters that the command for an engine of an ONNX file depends on."""

Checkpoint = Annotated[Path, typer.Argument(help="The best.pt of a training run.")]
Format = Annotated[
    str, typer.Option("--format", help="onnx; tensorrt tells the command that builds an engine on the target.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The file; otherwise beside the checkpoint, named by the options."),
]
Precision = Annotated[
    str | None,
    typer.Option("--precision", help="Number format of the file, fp32 or fp16; fp32 by default. Of an engine: fp16."),
]
Opset = Annotated[
    int | None,
    typer.Option("--opset", help="Version of ONNX' operators; 13 by default, the newest of TensorRT 8.2."),
]
NmsInside = Annotated[
    str,
    typer.Option("--nms", help="NMS inside the file: none, efficient-nms (TensorRT's plugin), onnx (the operator)."),
]
Confidence = Annotated[
    float | None,
    typer.Option("--confidence", min=0, max=1, help="Of the NMS inside: least score; 0.25 by default."),
]
Iou = Annotated[
    float | None,
    typer.Option(
        "--iou", min=0, max=1, help="Of the NMS inside: overlap above which a box is dropped; 0.5 by default."
    ),
]
MaxDetections = Annotated[
    int | None,
    typer.Option(
        "--max-detections",
        min=1,
        max=4096,
        help="Of the NMS inside: most of a picture, or of a class with onnx; 100 by default.",
    ),
]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Pictures at a time.")]
DynamicBatch = Annotated[
    bool,
    typer.Option("--dynamic-batch", help="Any number of pictures at a time; --batch is the most to be expected."),
]
Check = Annotated[
    Path | None, typer.Option("--check", help="Pictures on which the file is compared with torch: a folder.")
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Instead of --check: a data.toml, whose val pictures are taken.")
]
Unchecked = Annotated[bool, typer.Option("--unchecked", help="Write the file without comparing it.")]
ScoreTolerance = Annotated[
    float | None, typer.Option("--score-tolerance", min=0, help="Largest difference of a score that is accepted.")
]
BoxTolerance = Annotated[
    float | None, typer.Option("--box-tolerance", min=0, help="Largest difference of a corner, in input pixels.")
]
TensorRT = Annotated[
    str | None, typer.Option("--tensorrt", help="TensorRT of the target, for its command; 10.3 by default.")
]


def command(
    context: typer.Context,
    checkpoint: Checkpoint,
    format_: Format = "onnx",
    out: Out = None,
    precision: Precision = None,
    opset: Opset = None,
    nms: NmsInside = "none",
    confidence: Confidence = None,
    iou: Iou = None,
    max_detections: MaxDetections = None,
    batch: Batch = 1,
    dynamic_batch: DynamicBatch = False,
    check: Check = None,
    data: Data = None,
    unchecked: Unchecked = False,
    score_tolerance: ScoreTolerance = None,
    box_tolerance: BoxTolerance = None,
    tensorrt: TensorRT = None,
    json_output: Json = False,
) -> None:
    """Write a trained network as an ONNX file that gives the same boxes as torch, and say how an engine is made of it.

    The file is compared on the pictures before it is written. It tells its classes, anchors and how it wants pictures.

    Example: scaler export runs/best/best.pt --nms efficient-nms --data data.toml
    """
    _check_words(format_, precision, nms, out)
    if sum((check is not None, data is not None, unchecked)) > 1:
        raise UsageError("--check, --data and --unchecked exclude each other; give one of them")
    from scaler.export import require_onnx  # noqa: PLC0415  (the help needs no numpy)

    require_onnx()
    from scaler.training.runs.engine_command import DEFAULT_VERSION, parse_version  # noqa: PLC0415

    version = DEFAULT_VERSION if tensorrt is None else parse_version(tensorrt)
    if checkpoint.suffix.lower() == ".onnx":
        if format_ == "onnx":
            raise UsageError(
                f"{checkpoint}: is an ONNX file already; name the best.pt of a training run, or ask with --format "
                "tensorrt how an engine is made of it"
            )
        _tell_of_file(checkpoint, version, precision, batch, _given(context), json_output)
        return
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
        _tell_of_checkpoint(order, version, _given(context), json_output)
        return
    exported = export(order)
    told = _command(order, exported.spec.preprocessing.size, version, "fp16")
    if json_output:
        print_json(_as_data(order, exported, told, version))
    else:
        _print(order, exported, told, version)


def _check_words(format_: str, precision: str | None, nms: str, out: Path | None) -> None:
    """Refuse names that do not exist."""
    for option, name, known in (
        ("format", format_, _FORMATS),
        ("precision", precision or _PRECISIONS[0], _PRECISIONS),
        ("nms", nms, tuple(_NMS)),
    ):
        if name not in known:
            raise UsageError(f"--{option}: {unknown_name(option, name, known)}")
    if out is not None and out.suffix.lower() != ".onnx":
        raise UsageError(f"--out {out}: an ONNX file is called .onnx")


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


def _given(context: typer.Context) -> dict[str, list[str]]:
    """Options on the command line as a user writes them, by the name of their parameter."""
    given = {}
    for option in context.command.params:
        name, source = str(option.name), context.get_parameter_source(str(option.name))
        if source is not None and source.name == "COMMANDLINE" and option.param_type_name == "option":
            value = context.params[name]
            given[name] = [option.opts[0]] if value is True else [option.opts[0], str(value)]
    return given


def _tell_of_file(
    path: Path,
    version: Version,
    precision: str | None,
    batch: int,
    given: Mapping[str, Sequence[str]],
    json_output: bool,
) -> None:
    """How an engine is made of an ONNX file; refuses options that would change nothing."""
    from scaler.training.runs.engine_command import engine_command, engine_precision, read_engine_file  # noqa: PLC0415

    if strange := [words[0] for name, words in given.items() if name not in _OF_A_FILE]:
        raise UsageError(
            f"{path}: is an ONNX file already: {listed(strange)} would change nothing; name the best.pt of a "
            "training run, or leave that out"
        )
    file, wanted = read_engine_file(path), cast("FilePrecision", precision or "fp16")
    built = engine_precision(file, version, wanted)
    if precision is not None and precision != built:
        raise UsageError(
            f"--precision {precision}: an engine of {path.name} is {built} with TensorRT {version.major}; leave it "
            f"out, or export the checkpoint with --precision {precision}"
        )
    if "batch" in given and not file.dynamic:
        raise UsageError(
            f"--batch {batch}: the batch of {path.name} is fixed; leave it out, or export the checkpoint with it"
        )
    _tell_target(path, engine_command(file, version, precision=wanted, batch=batch), version, None, json_output)


def _tell_of_checkpoint(
    order: ExportOrder, version: Version, given: Mapping[str, Sequence[str]], json_output: bool
) -> None:
    """Which file an engine of a checkpoint is made of, and how."""
    from scaler.runtimes.tensorrt_version import STRONGLY_TYPED  # noqa: PLC0415
    from scaler.training.network.checkpoint import read_checkpoint  # noqa: PLC0415

    typed = version >= STRONGLY_TYPED and order.precision == "fp16"
    file = order if typed else replace(order, precision="fp32")
    size = read_checkpoint(order.checkpoint).spec.preprocessing.size
    options = {name: words for name, words in given.items() if name not in ("format_", "precision", "json_output")}
    if typed:
        options["precision"] = ["--precision", "fp16"]
    words = [word for option in options.values() for word in option]
    write = shlex.join(["scaler", "export", str(order.checkpoint), *words])
    _tell_target(file.path, _command(file, size, version, order.precision), version, write, json_output)


def _tell_target(file: Path, how: str, version: Version, write: str | None, json_output: bool) -> None:
    """What is to be done for an engine: on standard output the steps, or the one command where the file is there."""
    if json_output:
        print_json({"file": str(file), "export": write, "tensorrt": {"version": str(version), "command": how}})
        return
    say("scaler: an engine is built on its target and does not travel, so that none is built here")
    if write is None:
        say(f"scaler: copy {file} to the target; there, in its folder, with TensorRT {version.major}.{version.minor}:")
        _show(how)
        return
    _show(f"1. here: {write}")
    _show(f"2. copy {file} to the target")
    _show(f"3. there, in its folder, with TensorRT {version.major}.{version.minor}: {how}")


def _show(line: str) -> None:
    console().print(line, markup=False, emoji=False, soft_wrap=True)


def _any_batch(order: ExportOrder, agreement: Agreement | None) -> str:
    """Of a file with an open batch: with how many pictures it was tried."""
    return "any batch" + (f", tried with up to {min(order.batch, agreement.pictures)}" if agreement else "")


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
    spec = exported.spec
    pictures = _any_batch(order, exported.agreement) if order.dynamic_batch else f"batch {order.batch}"
    nms = {"none": "NMS left to whoever runs it", "efficient": "TensorRT's NMS inside", "onnx": "ONNX' NMS inside"}
    _show(
        f"{exported.path}: {spec.family}, {spec.preprocessing.size} px, {len(spec.classes)} classes, "
        f"{exported.size / 1e6:.1f} MB; opset {order.opset}, {order.precision}, {pictures}, {nms[order.decode.nms]}"
    )
    if exported.agreement is None:
        _show("not compared with torch")
    else:
        _print_agreement(exported.agreement, order)
    _show(f"engine, built on a target with TensorRT {version.major}.{version.minor}: {command}")
    if order.precision == "fp16":
        say(
            "scaler: fp16 in the file is for runtimes that keep its types; TensorRT before 11 builds FP16 from fp32 too"
        )


def _print_agreement(agreement: Agreement, order: ExportOrder) -> None:
    tolerance, what = agreement.tolerance, "before its NMS, " if order.decode.nms != "none" else ""
    _show(
        f"largest difference from torch by ONNX Runtime, {what}on {agreement.pictures} pictures ({agreement.source}): "
        f"{agreement.score:.2g} in a score, allowed {tolerance.score:g}; {agreement.px:.2g} px in a corner, allowed "
        f"{tolerance.px:g}"
    )
    if agreement.detections is not None:
        _show("detections: {} by the NMS in the file, {} by scaler's of torch's boxes".format(*agreement.detections))
    if agreement.generated:
        say("scaler: compared on generated noise; give --check FOLDER or --data data.toml to compare on real pictures")
    tell_broken(agreement.skipped, agreement.pictures + len(agreement.skipped))
