"""A detector on the user's pictures and videos: what it finds, drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

from scaler.data.dataset import Image
from scaler.data.drawing import draw_boxes
from scaler.data.images import BrokenPictureError, read_image, write_image
from scaler.evaluation.detections import Detections, Detector, Selection
from scaler.evaluation.metrics import Skipped
from scaler.evaluation.sources import Source
from scaler.evaluation.video import BrokenVideoError, VideoReader, VideoWriter
from scaler.files import make_folder

Progress: TypeAlias = Callable[[int, int, str], None]
"""Told how many sources are done, of how many, and the name of the last."""


class Prediction(NamedTuple):
    """What was found in one picture or video."""

    source: Path
    output: Path
    width: int
    height: int
    frames: tuple[Detections, ...]
    """One of a picture."""
    seconds: float
    """Of the detector, from the picture in memory to its boxes."""

    def as_data(self, classes: Sequence[str]) -> dict[str, Any]:
        """Plain data for a JSON file; a box is x1, y1, x2, y2 in pixels."""
        return {
            "source": str(self.source),
            "output": str(self.output),
            "width": self.width,
            "height": self.height,
            "frames": [_rows(detections, classes) for detections in self.frames],
        }


def _rows(detections: Detections, classes: Sequence[str]) -> list[dict[str, Any]]:
    parts = detections.corners.tolist(), detections.scores.tolist(), detections.labels.tolist()
    return [
        {"class": classes[label], "score": round(score, 4), "box": [round(corner, 2) for corner in corners]}
        for corners, score, label in zip(*parts, strict=True)
    ]


class Predictions(NamedTuple):
    """What was found in all of them."""

    done: tuple[Prediction, ...]
    broken: tuple[Skipped, ...]
    """That could not be read."""
    seconds: float
    """Reading, drawing and writing included."""

    @property
    def frames(self) -> int:
        """Pictures and frames of videos."""
        return sum(len(prediction.frames) for prediction in self.done)

    @property
    def fps(self) -> float:
        """Frames per second of the detector alone, one at a time; 0 where there was none."""
        seconds = sum(prediction.seconds for prediction in self.done)
        return self.frames / seconds if seconds else 0.0


def predict(
    detector: Detector, sources: Sequence[Source], selection: Selection, *, progress: Progress | None = None
) -> Predictions:
    """Find objects in pictures and videos, one frame at a time, and draw them.

    What cannot be read is left out and told in `Predictions.broken`.

    Raises:
        UserError: A result cannot be written.
    """
    done: list[Prediction] = []
    broken: list[Skipped] = []
    start = perf_counter()
    for number, source in enumerate(sources, 1):
        make_folder(source.output.parent)
        try:
            work = _in_video if source.is_video else _in_picture
            done.append(work(detector, source, selection))
        except (BrokenPictureError, BrokenVideoError) as error:
            broken.append(Skipped(str(source.path), error.reason))
        if progress:
            progress(number, len(sources), source.path.name)
    return Predictions(tuple(done), tuple(broken), perf_counter() - start)


def _in_picture(detector: Detector, source: Source, selection: Selection) -> Prediction:
    image = read_image(source.path)
    found, seconds = _timed(detector, image, selection)
    write_image(source.output, drawn(image, found, detector.classes))
    height, width = image.shape[:2]
    return Prediction(source.path, source.output, width, height, (found,), seconds)


def _in_video(detector: Detector, source: Source, selection: Selection) -> Prediction:
    frames: list[Detections] = []
    total, shape = 0.0, (0, 0)
    with VideoReader(source.path) as reader, VideoWriter(source.output, reader.fps) as writer:
        for frame in reader:
            found, seconds = _timed(detector, frame, selection)
            writer.write(drawn(frame, found, detector.classes))
            frames.append(found)
            total, shape = total + seconds, frame.shape[:2]
    return Prediction(source.path, source.output, shape[1], shape[0], tuple(frames), total)


def _timed(detector: Detector, image: Image, selection: Selection) -> tuple[Detections, float]:
    start = perf_counter()
    (found,) = detector.detect([image], selection)
    return found, perf_counter() - start


def drawn(image: Image, found: Detections, classes: Sequence[str]) -> Image:
    """A copy of a picture with what was found in it: boxes, classes and scores."""
    return draw_boxes(image, found.corners, found.labels, classes, found.scores)
