"""The options of `scaler export`, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from scaler.errors import UsageError, listed, unknown_name

FORMATS = ("onnx", "tensorrt")
PRECISIONS = ("fp32", "fp16", "int8")
NMS = {"none": "none", "efficient-nms": "efficient", "onnx": "onnx"}
"""What a user writes, and `scaler.export.decode.Nms`."""
METHODS = ("percentile", "entropy", "min-max")
"""As `scaler.export.int8_calibration.Method`; the help needs no numpy."""
TARGETS = ("tensorrt", "onnxruntime")
"""As `scaler.export.int8.Target`."""
INT8_ALONE = (
    "calibrate",
    "calibration",
    "calibration_pictures",
    "calibration_cache",
    "target",
    "keep",
    "sensitivity",
)
"""Parameters that mean nothing without `--precision int8`."""
BUNDLE_ALONE = ("bundle_pictures", "result", "candidate")
"""Parameters that mean nothing without `--bundle`."""
BUNDLE_OF_DATA = ("bundle_pictures",)
"""Of these: that mean nothing without `--data`."""
OF_A_FILE = ("precision", "batch", "tensorrt", "format_", "dla", "json_output")
"""Parameters that the engine of an ONNX file depends on."""
OF_A_BUNDLE = ("bundle", "data", *BUNDLE_ALONE)
"""Parameters that its bundle depends on too."""

Given: TypeAlias = Mapping[str, Sequence[str]]
"""Options on the command line as a user writes them, by the name of their parameter."""

Checkpoint = Annotated[Path, typer.Argument(help="The best.pt of a training run; its ONNX file for an engine of it.")]
Format = Annotated[
    str,
    typer.Option(
        "--format", help="onnx; tensorrt builds the engine where TensorRT is, and tells the steps to it elsewhere."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The ONNX file; otherwise beside the checkpoint, named by the options."),
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision", help="Number format of the file, fp32, fp16 or int8; fp32 by default. Of an engine: fp16."
    ),
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
    Path | None,
    typer.Option(
        "--data",
        help="Instead of --check: a data.toml, whose val pictures are taken. INT8 is calibrated on its train split, "
        "and the AP of both files told.",
    ),
]
Unchecked = Annotated[bool, typer.Option("--unchecked", help="Write the file without comparing it.")]
ScoreTolerance = Annotated[
    float | None, typer.Option("--score-tolerance", min=0, help="Largest difference of a score that is accepted.")
]
BoxTolerance = Annotated[
    float | None, typer.Option("--box-tolerance", min=0, help="Largest difference of a corner, in input pixels.")
]
Calibrate = Annotated[
    Path | None,
    typer.Option("--calibrate", help="INT8: pictures to calibrate on, a folder; otherwise the train split of --data."),
]
CalibrationMethod = Annotated[
    str, typer.Option("--calibration", help="INT8: how ranges are found: percentile, entropy or min-max.")
]
CalibrationPictures = Annotated[
    int, typer.Option("--calibration-pictures", min=1, max=10000, help="INT8: the most that are taken, evenly spread.")
]
CalibrationCache = Annotated[
    Path | None,
    typer.Option("--calibration-cache", help="INT8: file that remembers the ranges; beside the output by default."),
]
Int8Target = Annotated[
    str, typer.Option("--target", help="INT8: who runs the file, tensorrt or onnxruntime; they want opposite files.")
]
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", help="INT8: a layer that stays in float; as often as there are such layers."),
]
Sensitivity = Annotated[
    float | None,
    typer.Option(
        "--sensitivity",
        min=0,
        help="INT8: measure every layer, and keep in float those that cost most until the loss is at most this; 0.05 "
        "is 5 % less overlap, or scores 0.05 off.",
    ),
]
TensorRT = Annotated[
    str | None,
    typer.Option("--tensorrt", help="Of another target: tells its command instead of building here, 10.3 otherwise."),
]
Dla = Annotated[
    int | None,
    typer.Option("--dla", min=0, max=7, help="Core of a DLA (Xavier, Orin) for the engine; the GPU does the rest."),
]
Bundle = Annotated[
    Path | None,
    typer.Option(
        "--bundle", help="Archive that builds, times and judges the engine on a device with trtexec; see scaler import."
    ),
]
BundlePictures = Annotated[
    int, typer.Option("--bundle-pictures", min=1, help="Val pictures of --data in the bundle, to compute AP there.")
]
Result = Annotated[
    Path | None, typer.Option("--result", help="Of a bundle: the pareto.json that the candidate comes from.")
]
Candidate = Annotated[str | None, typer.Option("--candidate", help="Of a bundle: its id in that result.")]


def given_options(context: typer.Context) -> dict[str, list[str]]:
    """What stands on the command line: the option and its values, as a user writes them."""
    given: dict[str, list[str]] = {}
    for option in context.command.params:
        name = str(option.name)
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and option.param_type_name == "option":
            value = context.params[name]
            values = value if isinstance(value, list | tuple) else [value]
            given[name] = [word for each in values for word in _words(option.opts[0], each)]
    return given


def _words(option: str, value: object) -> list[str]:
    return [option] if value is True else [option, str(value)]


def check_words(words: Mapping[str, str], out: Path | None) -> None:
    """Refuse names that do not exist.

    Args:
        words: What was written, by option.
        out: The file to be.
    """
    known = {
        "format": FORMATS,
        "precision": PRECISIONS,
        "nms": tuple(NMS),
        "calibration": METHODS,
        "target": TARGETS,
    }
    for option, name in words.items():
        if name not in known[option]:
            raise UsageError(f"--{option}: {unknown_name(option, name, known[option])}")
    if out is not None and out.suffix.lower() != ".onnx":
        raise UsageError(f"--out {out}: an ONNX file is called .onnx")


def check_together(given: Given, format_: str, precision: str | None, target: str) -> None:
    """Refuse options that exclude each other or that mean nothing without another one."""
    judges = [given[name][0] for name in ("check", "data", "unchecked") if name in given]
    if len(judges) > 1:
        raise UsageError(f"{' and '.join(judges)} exclude each other; give one of --check, --data and --unchecked")
    for names, there, needed in (
        (INT8_ALONE, precision == "int8", "--precision int8"),
        (BUNDLE_ALONE, "bundle" in given, "--bundle FILE"),
        (BUNDLE_OF_DATA, "data" in given, "--data data.toml"),
    ):
        if not there and (lonely := [given[name][0] for name in names if name in given]):
            raise UsageError(f"{listed(lonely)} would change nothing without {needed}; give that too, or leave it out")
    if "candidate" in given and "result" not in given:
        raise UsageError("--candidate is an id of a search; name its pareto.json too: --result pareto.json")
    engine = format_ == "tensorrt" or "bundle" in given or "dla" in given
    if target == "onnxruntime" and engine:
        raise UsageError("--target onnxruntime: no engine is made of such a file; leave it out for --target tensorrt")


def check_bundle(bundle: Path | None, batch: int, dynamic_batch: bool, nms: str) -> None:
    """Refuse, before the file is made, what no bundle can hold (`scaler.deploy.bundle.check_file`)."""
    if bundle is None:
        return
    if not bundle.name.endswith((".tar.gz", ".tgz")):
        raise UsageError(f"--bundle {bundle}: a bundle is called .tar.gz")
    if batch != 1 or dynamic_batch:
        raise UsageError("--bundle measures one picture at a time; leave --batch and --dynamic-batch out")
    if nms == "onnx":
        raise UsageError(
            "--bundle: how many boxes ONNX' NMS leaves is not known before, and trtexec cannot export that; give --nms "
            "none or --nms efficient-nms"
        )
