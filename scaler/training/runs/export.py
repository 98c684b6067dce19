"""A checkpoint as an ONNX file that was compared with torch before it is written. Its parser is `scaler export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import nn

from scaler.data.data_file import read_splits
from scaler.data.dataset import Dataset
from scaler.data.preprocessing import Preprocessing
from scaler.errors import UserError
from scaler.evaluation.onnx_metadata import NumberFormat
from scaler.export.decode import Decode
from scaler.export.half import FilePrecision
from scaler.export.onnx_model import DEFAULT_OPSET
from scaler.files import write_atomic
from scaler.training.network.checkpoint import Checkpoint, load_into, read_checkpoint
from scaler.training.network.detector import TorchDetector
from scaler.training.network.module import to_torch, weights_of
from scaler.training.network.onnx_file import NO_NMS, detector_model
from scaler.training.network.spec import NetworkSpec
from scaler.training.runs.export_check import TOLERANCES, Agreement, Tolerance, compare, running
from scaler.training.runs.export_int8 import (
    DEFAULT_INT8,
    Int8Order,
    Material,
    Quantised,
    Watch,
    calibration_pictures,
    check_int8,
    quantise,
    unwatched,
)
from scaler.training.runs.export_pictures import (
    Inputs,
    Pictures,
    generated_pictures,
    paths_of_split,
    pictures_held_out,
    pictures_of_folder,
    pictures_of_split,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOrder:
    """What a user wants of a checkpoint."""

    checkpoint: Path
    out: Path | None = None
    """The file; beside the checkpoint, with what is unusual in its name, where None."""
    opset: int = DEFAULT_OPSET
    decode: Decode = NO_NMS
    """Which NMS the file does itself."""
    batch: int = 1
    """Pictures at a time; with `dynamic_batch` the most that it is tried with, where there are as many."""
    dynamic_batch: bool = False
    """Whether the batch is left open until the file is run."""
    precision: NumberFormat = "fp32"
    int8: Int8Order = DEFAULT_INT8
    """Of the precision int8 alone."""
    check: bool = True
    """Whether it is compared with torch by ONNX Runtime."""
    pictures: Path | None = None
    """Folder of pictures to compare on, or one picture."""
    data: Path | None = None
    """A `data.toml` whose validation pictures it is compared on instead; noise where both are None. INT8 is calibrated
    on its train split, and AP is computed on all of the validation split."""
    score_tolerance: float | None = None
    """Largest difference of a score; that of the precision where None."""
    box_tolerance: float | None = None
    """Largest difference of a corner in pixels of the input; that of the precision where None."""

    @property
    def path(self) -> Path:
        """The file: `best.onnx` beside `best.pt`, `best-fp16-batch8.onnx` where it is not as training writes it."""
        if self.out is not None:
            return self.out
        unusual = {
            self.precision: self.precision != "fp32",
            self.int8.target: self.precision == "int8" and self.int8.target != "tensorrt",
            f"nms-{self.decode.nms}": self.decode.nms != "none",
            "dynamic": self.dynamic_batch,
            f"batch{self.batch}": self.batch != 1 and not self.dynamic_batch,
            f"opset{self.opset}": self.opset != DEFAULT_OPSET,
        }
        stem = "-".join([self.checkpoint.stem, *(part for part, told in unusual.items() if told)])
        return self.checkpoint.with_name(f"{stem}.onnx")

    @property
    def before(self) -> FilePrecision:
        """Number format that is compared with torch: INT8 is made of FP32 and judged by itself."""
        return "fp32" if self.precision == "int8" else self.precision

    @property
    def tolerance(self) -> Tolerance:
        """How far the file may be from torch."""
        usual = TOLERANCES[self.before]
        return Tolerance(
            usual.score if self.score_tolerance is None else self.score_tolerance,
            usual.px if self.box_tolerance is None else self.box_tolerance,
        )


class Exported(NamedTuple):
    """A file that was written."""

    path: Path
    size: int
    """In bytes."""
    spec: NetworkSpec
    agreement: Agreement | None
    """None where it was not compared. Of INT8: of the float network that it is made of."""
    int8: Quantised | None = None
    """Of the precision int8."""


def export(order: ExportOrder, watch: Watch = unwatched) -> Exported:
    """Write a checkpoint as an ONNX file, if it agrees with torch; in INT8, if the float network does.

    Args:
        order: What is wanted.
        watch: Told of what takes long.

    Raises:
        FileError: The checkpoint is missing or damaged.
        UserError: The file differs from torch by more than the tolerance, its NMS leaves another number of boxes, ONNX
            Runtime refuses it, the pictures cannot be read, or it cannot be written. Nothing is written then.
            The same where there are no pictures to calibrate INT8 on but those on which it is judged.
        UnsupportedError: The network cannot be written in this opset or precision.
        UsageError: A number outside its range, no such layer to keep, or nothing to calibrate INT8 on.
        MissingExtraError: ONNX Runtime or OpenCV is not installed, and it is to be compared or calibrated.
    """
    checkpoint = read_checkpoint(order.checkpoint)
    spec, module = checkpoint.spec, _module(checkpoint, order.checkpoint)
    model = detector_model(
        spec,
        weights_of(module),
        selection=checkpoint.selection,
        batch=None if order.dynamic_batch else order.batch,
        opset=order.opset,
        decode=order.decode,
        precision=order.before,
    )
    if order.precision == "int8":
        check_int8(model, order.int8)
    val = read_splits(order.data, ["val"]).splits["val"] if order.check and order.data is not None else None
    pictures = _pictures(order, spec.preprocessing, val) if order.check else None
    material = _material(order, spec.preprocessing, pictures, val) if order.precision == "int8" else None
    agreement = None
    if pictures is not None:
        reference = TorchDetector(spec, module, "cpu", fuse=False)  # the file's own folding is compared too
        with running(model, order.path) as file:
            agreement = compare(
                reference, file, pictures, order.tolerance, batch=order.batch, dynamic=order.dynamic_batch
            )
        _require(agreement, order)
    int8 = quantise(model, order.int8, order.path, material, watch) if material is not None else None
    content = (model if int8 is None else int8.model).SerializeToString()
    write_atomic(order.path, content)
    return Exported(order.path, len(content), spec, agreement, int8)


def _module(checkpoint: Checkpoint, path: Path) -> nn.Module:
    module = to_torch(checkpoint.spec.graph())
    load_into(module, checkpoint, path)
    return module


def _pictures(order: ExportOrder, preprocessing: Preprocessing, val: Dataset | None) -> Pictures:
    """To compare on: real ones where the user names some, noise otherwise."""
    if order.pictures is not None:
        return pictures_of_folder(order.pictures, preprocessing)
    if val is not None:
        return pictures_of_split(val, preprocessing)
    if order.precision == "int8" and order.int8.folder is not None:
        return pictures_held_out(order.int8.folder, preprocessing)
    return generated_pictures(preprocessing)


def _material(
    order: ExportOrder, preprocessing: Preprocessing, check: Pictures | None, val: Dataset | None
) -> Material:
    """Of INT8: what is judged on is never calibrated on."""
    judged = {path.resolve() for path in (*(check.paths if check else ()), *(paths_of_split(val) if val else ()))}
    seen = calibration_pictures(order.int8, order.data, judged, preprocessing)
    batch = 1 if order.dynamic_batch else order.batch
    return Material(
        calibration=Inputs(seen, preprocessing, batch),
        check=None if check is None else Inputs(check, preprocessing, batch),
        val=val,
    )


def _require(agreement: Agreement, order: ExportOrder) -> None:
    if agreement.holds:
        return
    where = f"{order.path}: not written: on {agreement.pictures} pictures ({agreement.source})"
    better = "write it in fp32, or " if order.precision == "fp16" else ""
    if agreement.near and agreement.detections is not None:
        own, torch = agreement.detections
        raise UserError(
            f"{where} its NMS leaves {own} detections, scaler's leaves {torch} of torch's boxes, allowed are "
            f"{agreement.most_more_or_fewer} more or fewer; {better}leave the NMS out by --nms none"
        )
    score, px = agreement.tolerance
    raise UserError(
        f"{where} it differs from torch by up to {agreement.score:.2g} in a score, allowed {score:g}, and "
        f"{agreement.px:.2g} px in a corner, allowed {px:g}; {better}allow more by --score-tolerance and "
        "--box-tolerance"
    )
