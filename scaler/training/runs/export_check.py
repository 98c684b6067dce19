"""A written ONNX file beside the torch network that it came from, on the same pictures."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from onnx import ModelProto, TensorProto, helper

from scaler.data.dataset import FloatArray, Image
from scaler.errors import FileError, UserError
from scaler.evaluation.detections import Detector, Selection
from scaler.evaluation.metrics import Skipped
from scaler.evaluation.nms import nms
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.evaluation.onnx_metadata import NmsInside
from scaler.export.decode import BOXES, PLUGIN_DOMAIN, SCORES
from scaler.export.half import FilePrecision
from scaler.files import write_atomic
from scaler.training.runs.export_pictures import Pictures

BEST = 100
"""Boxes of a picture whose corners are compared, those of the highest scores."""
_ONE_IN = 50
"""Detections may be more or fewer by the NMS in the file; one, at the threshold, always may."""


class Tolerance(NamedTuple):
    """How far a file may be from torch."""

    score: float
    px: float
    """Of a corner, in pixels of the input."""


TOLERANCES: Mapping[FilePrecision, Tolerance] = {
    "fp32": Tolerance(1e-3, 0.1),
    "fp16": Tolerance(0.02, 4.0),
}
"""In 32 bits the order of additions differs, no more: trained networks of 160 px differed by up to 6e-6 and 0.0008 px.
In 16 bits a number is exact to a part in 2048, and a box follows its exponential or square: 0.003 and 0.7 px."""


class Agreement(NamedTuple):
    """How far a file is from torch."""

    pictures: int
    source: str
    generated: bool
    score: float
    """Largest difference of a score, of all boxes and classes."""
    px: float
    """Largest difference of a corner in pixels of the input, of the `BEST` boxes of every picture, cut at its edges."""
    detections: tuple[int, int] | None
    """What the NMS in the file leaves in all pictures, and what scaler's leaves of torch's boxes; None without NMS, and
    where ONNX Runtime cannot run it."""
    tolerance: Tolerance
    skipped: tuple[Skipped, ...]

    @property
    def near(self) -> bool:
        """Whether boxes and scores are within the tolerance; what is not a number never is."""
        return self.score <= self.tolerance.score and self.px <= self.tolerance.px

    @property
    def most_more_or_fewer(self) -> int:
        """How many detections more or fewer than torch's are accepted of the NMS in the file, in all pictures."""
        return 0 if self.detections is None else max(1, self.detections[1] // _ONE_IN)

    @property
    def counts_agree(self) -> bool:
        """Whether the NMS in the file leaves as many boxes as scaler's, but for a few; also where there is none."""
        return self.detections is None or abs(self.detections[0] - self.detections[1]) <= self.most_more_or_fewer

    @property
    def holds(self) -> bool:
        """Whether the file gives what torch gives."""
        return self.near and self.counts_agree


@contextmanager
def running(model: ModelProto, path: Path) -> Iterator[OnnxDetector]:
    """Run the very bytes that are to be written, but for the plugin that only TensorRT has.

    Args:
        model: What is to be written.
        path: Where; nothing is there yet.

    Raises:
        UserError: ONNX Runtime refuses it.
    """
    plugin = any(node.domain == PLUGIN_DOMAIN for node in model.graph.node)
    content = (without_plugin(model) if plugin else model).SerializeToString()
    with tempfile.TemporaryDirectory(prefix="scaler-export-") as folder:
        copy = Path(folder) / path.name
        write_atomic(copy, content)
        try:
            detector = OnnxDetector(copy, "cpu")
        except FileError as error:
            raise UserError(
                f"{path}: not written: {error.what}; ask for an older --opset, or write it without a comparison by "
                "--unchecked"
            ) from None
        yield detector


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


def compare(
    reference: Detector,
    detector: OnnxDetector,
    pictures: Pictures,
    tolerance: Tolerance,
    *,
    batch: int = 1,
    dynamic: bool = False,
) -> Agreement:
    """Run both on the same pictures.

    Args:
        reference: Torch.
        detector: The file.
        pictures: Fitted into the input.
        tolerance: To be judged by.
        batch: Pictures at a time.
        dynamic: Whether the file takes any number of them: then it is also given one at a time.
    """
    sizes, limits = sorted({1, batch}) if dynamic else [batch], detector.metadata.nms
    score = px = 0.0
    counts: list[tuple[int, int]] = []
    for start in range(0, len(pictures.images), batch):
        part = pictures.images[start : start + batch]
        expected = reference.raw(part)
        for size in sizes:
            found = _in_parts(detector, part, size)
            score, px = (_largest(*pair) for pair in zip((score, px), _differences(expected, found, part), strict=True))
        if limits is not None and limits.kind == "onnx":
            own = int((detector.raw(part)[1] > 0).sum())
            counts.append((own, _kept(expected, limits, len(detector.classes))))
    detections = (sum(own for own, _ in counts), sum(torch for _, torch in counts)) if counts else None
    return Agreement(
        len(pictures.images),
        pictures.source,
        pictures.generated,
        score,
        px,
        detections,
        tolerance,
        pictures.skipped,
    )


def _in_parts(detector: OnnxDetector, part: Image, size: int) -> tuple[FloatArray, FloatArray]:
    found = [detector.before_nms(part[at : at + size]) for at in range(0, len(part), size)]
    boxes, scores = (np.concatenate(rows) for rows in zip(*found, strict=True))
    return boxes, scores


def _differences(
    expected: tuple[FloatArray, FloatArray], found: tuple[FloatArray, FloatArray], part: Image
) -> tuple[float, float]:
    """Largest difference of a score, and of a corner of the best boxes."""
    best = np.argsort(-expected[1].max(axis=2), axis=1, kind="stable")[:, :BEST, np.newaxis]
    side = part.shape[1]  # an untrained network's boxes may be infinite, in both
    ours, theirs = (np.clip(np.take_along_axis(boxes, best, axis=1), 0, side) for boxes in (expected[0], found[0]))
    return float(np.abs(expected[1] - found[1]).max()), float(np.abs(ours - theirs).max())


def _largest(one: float, other: float) -> float:
    """The larger, and not a number where either is none."""
    return max(one, other) if not math.isnan(one + other) else math.nan


def _kept(expected: tuple[FloatArray, FloatArray], limits: NmsInside, classes: int) -> int:
    """Detections that scaler's NMS leaves of torch's boxes, under the limits of the file."""
    selection = Selection(confidence=limits.confidence, iou=limits.iou, most=limits.max_detections)
    return sum(
        len(nms(boxes, scores[:, [label]], selection))
        for boxes, scores in zip(*expected, strict=True)
        for label in range(classes)
    )
