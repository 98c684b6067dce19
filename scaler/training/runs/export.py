"""A checkpoint as an ONNX file that was compared with torch before it is written. Its parser is `scaler export`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from onnx import ModelProto, TensorProto, helper
from torch import nn

from scaler.errors import FileError, UserError
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.export.decode import BOXES, PLUGIN_DOMAIN, SCORES, Decode
from scaler.export.half import FilePrecision
from scaler.export.onnx_model import DEFAULT_OPSET
from scaler.files import write_atomic
from scaler.training.network.checkpoint import Checkpoint, load_into, read_checkpoint
from scaler.training.network.detector import TorchDetector
from scaler.training.network.module import to_torch, weights_of
from scaler.training.network.onnx_file import NO_NMS, detector_model
from scaler.training.network.spec import NetworkSpec
from scaler.training.runs.export_check import (
    TOLERANCES,
    Agreement,
    Pictures,
    Tolerance,
    compare,
    generated_pictures,
    pictures_of_data,
    pictures_of_folder,
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
    precision: FilePrecision = "fp32"
    check: bool = True
    """Whether it is compared with torch by ONNX Runtime."""
    pictures: Path | None = None
    """Folder of pictures to compare on, or one picture."""
    data: Path | None = None
    """A `data.toml` whose validation pictures it is compared on instead; noise where both are None."""
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
            f"nms-{self.decode.nms}": self.decode.nms != "none",
            "dynamic": self.dynamic_batch,
            f"batch{self.batch}": self.batch != 1 and not self.dynamic_batch,
            f"opset{self.opset}": self.opset != DEFAULT_OPSET,
        }
        stem = "-".join([self.checkpoint.stem, *(part for part, told in unusual.items() if told)])
        return self.checkpoint.with_name(f"{stem}.onnx")

    @property
    def tolerance(self) -> Tolerance:
        """How far the file may be from torch."""
        usual = TOLERANCES[self.precision]
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
    """None where it was not compared."""


def export(order: ExportOrder) -> Exported:
    """Write a checkpoint as an ONNX file, if it agrees with torch.

    Raises:
        FileError: The checkpoint is missing or damaged.
        UserError: The file differs from torch by more than the tolerance, its NMS leaves another number of boxes, ONNX
            Runtime refuses it, the pictures cannot be read, or it cannot be written. Nothing is written then.
        UnsupportedError: The network cannot be written in this opset or precision.
        UsageError: A number outside its range.
        MissingExtraError: ONNX Runtime or OpenCV is not installed, and it is to be compared.
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
        precision=order.precision,
    )
    content = model.SerializeToString()
    agreement = None
    if order.check:
        reference = TorchDetector(spec, module, "cpu", fuse=False)  # the file's own folding is compared too
        agreement = _compared(order, model, content, reference, _pictures(order, spec))
        _require(agreement, order)
    write_atomic(order.path, content)
    return Exported(order.path, len(content), spec, agreement)


def _module(checkpoint: Checkpoint, path: Path) -> nn.Module:
    module = to_torch(checkpoint.spec.graph())
    load_into(module, checkpoint, path)
    return module


def _pictures(order: ExportOrder, spec: NetworkSpec) -> Pictures:
    if order.pictures is not None:
        return pictures_of_folder(order.pictures, spec.preprocessing)
    if order.data is not None:
        return pictures_of_data(order.data, spec.preprocessing)
    return generated_pictures(spec.preprocessing)


def _compared(
    order: ExportOrder, model: ModelProto, content: bytes, reference: TorchDetector, pictures: Pictures
) -> Agreement:
    """Run the very bytes that are to be written, but for the plugin that only TensorRT has."""
    runnable = content if order.decode.nms != "efficient" else without_plugin(model).SerializeToString()
    with tempfile.TemporaryDirectory(prefix="scaler-export-") as folder:
        path = Path(folder) / order.path.name
        write_atomic(path, runnable)
        try:
            detector = OnnxDetector(path, "cpu")
        except FileError as error:
            raise UserError(
                f"{order.path}: not written: {error.what}; ask for an older --opset, or write it without a comparison "
                "by --unchecked"
            ) from None
        return compare(reference, detector, pictures, order.tolerance, batch=order.batch, dynamic=order.dynamic_batch)


def without_plugin(model: ModelProto) -> ModelProto:
    """A copy that ends with the boxes and scores that TensorRT's NMS plugin reads."""
    plain = ModelProto()
    plain.CopyFrom(model)
    kept = [node for node in plain.graph.node if node.domain != PLUGIN_DOMAIN]
    del plain.graph.node[:], plain.graph.output[:]
    plain.graph.node.extend(kept)
    plain.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in ((BOXES, [None, None, 4]), (SCORES, [None, None, None]))
    )
    domains = [entry for entry in plain.opset_import if entry.domain != PLUGIN_DOMAIN]
    del plain.opset_import[:]
    plain.opset_import.extend(domains)
    return plain


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
