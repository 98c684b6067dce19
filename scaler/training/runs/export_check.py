"""A written ONNX file beside the torch network that it came from, on the same pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scaler.data import images
from scaler.data.data_file import read_splits
from scaler.data.dataset import FloatArray, Image
from scaler.data.images import BrokenPictureError, read_image
from scaler.data.preprocessing import Preprocessing, letterbox
from scaler.errors import UserError
from scaler.evaluation.detections import Detector, Selection
from scaler.evaluation.metrics import Skipped
from scaler.evaluation.nms import nms
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.evaluation.onnx_metadata import NmsInside
from scaler.export.half import FilePrecision

MOST_PICTURES = 16
"""Pictures of a folder or split that are looked at, evenly spread over it."""
GENERATED = 4
"""Pictures of noise where there are no real ones."""
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


class Pictures(NamedTuple):
    """What a file is tried on."""

    images: Image
    """`[pictures, size, size, 3]`, uint8, fitted into the input."""
    source: str
    """To be told."""
    generated: bool
    skipped: tuple[Skipped, ...] = ()
    """That could not be read."""


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


def pictures_of_folder(place: Path, preprocessing: Preprocessing) -> Pictures:
    """Pictures of a folder and those in it, or one picture.

    Raises:
        UserError: There is none, or none can be read.
    """
    if not place.exists():
        raise UserError(f"--check {place}: no such folder or picture; check the path")
    inside = sorted(place.rglob("*")) if place.is_dir() else [place]
    paths = [path for path in inside if path.suffix.lower() in images.SUFFIXES and path.is_file()]
    if not paths:
        raise UserError(f"--check {place}: no picture there; known: {', '.join(sorted(images.SUFFIXES))}")
    return _read(paths, str(place), preprocessing)


def pictures_of_data(data: Path, preprocessing: Preprocessing) -> Pictures:
    """Pictures of the validation split of a `data.toml`.

    Raises:
        UserError: It cannot be read, or has no such split or pictures.
    """
    dataset = read_splits(data, ["val"]).splits["val"]
    return _read([Path(picture.path) for picture in dataset.pictures], f"{dataset.name} val", preprocessing)


def generated_pictures(preprocessing: Preprocessing) -> Pictures:
    """Noise, the same every time."""
    size = preprocessing.size
    noise = np.random.default_rng(0).integers(0, 256, (GENERATED, size, size, 3), dtype=np.uint8)
    return Pictures(noise, "generated noise", generated=True)


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


def _read(paths: Sequence[Path], source: str, preprocessing: Preprocessing) -> Pictures:
    count = min(len(paths), MOST_PICTURES)
    fitted: list[Image] = []
    skipped: list[Skipped] = []
    for path in (paths[place * len(paths) // count] for place in range(count)):
        try:
            fitted.append(letterbox(read_image(path), preprocessing)[0])
        except BrokenPictureError as error:
            skipped.append(Skipped(str(path), error.reason))
    if not fitted:
        reason = f"; the first: {skipped[0].picture}: {skipped[0].reason}" if skipped else ""
        raise UserError(f"{source}: no picture can be read{reason}")
    return Pictures(np.stack(fitted), source, generated=False, skipped=tuple(skipped))


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
