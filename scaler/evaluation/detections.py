"""What a detector says of one picture, and who says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from scaler.data.dataset import FloatArray, Image, IntArray
from scaler.data.preprocessing import Preprocessing
from scaler.reader import Reader


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes found in one picture, best first."""

    corners: FloatArray
    """`[detections, 4]`: x1, y1, x2, y2 in pixels of the picture."""
    scores: FloatArray
    """`[detections]`, 0 to 1."""
    labels: IntArray
    """`[detections]`, index into the classes."""

    def __len__(self) -> int:
        return len(self.scores)

    @staticmethod
    def of(corners: Any, scores: Any, labels: Any) -> Detections:
        """Make one from lists or arrays, sorted by score."""
        values = np.asarray(scores, np.float32).reshape(-1)
        order = np.argsort(-values, kind="stable")
        boxes = np.asarray(corners, np.float32).reshape(-1, 4)
        return Detections(boxes[order], values[order], np.asarray(labels, np.int64).reshape(-1)[order])


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of the boxes of a picture are kept."""

    confidence: float = 0.001
    """Least score. 0.001 to compute AP (Scaled-YOLOv4's `test.py`), 0.25 to draw."""
    iou: float = 0.65
    """Overlap with a better box of its class above which a box is dropped; 0.65 in Scaled-YOLOv4, 0.5 in the others."""
    most: int = 300
    """Detections of a picture."""

    @staticmethod
    def read(reader: Reader) -> Selection:
        """Read what `dataclasses.asdict` made of one.

        Raises:
            FileError: A number is missing or outside its range.
        """
        return Selection(
            confidence=reader.number("confidence", minimum=0, maximum=1),
            iou=reader.number("iou", minimum=0, maximum=1),
            most=reader.integer("most", minimum=1),
        )


class Detector(Protocol):
    """A network that finds objects, whatever runs it."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names."""

    @property
    def preprocessing(self) -> Preprocessing:
        """What it wants pictures to be like."""

    @property
    def selection(self) -> Selection | None:
        """Which boxes counted when its AP was computed in training; None where its file does not tell."""

    def raw(self, images: Image) -> tuple[FloatArray, FloatArray]:
        """Boxes and scores of fitted pictures.

        Args:
            images: `[batch, size, size, 3]`, uint8.

        Returns:
            Boxes `[batch, boxes, 4]` in input pixels, scores `[batch, boxes, classes]`.
        """

    def detect(self, images: Sequence[Image], selection: Selection) -> list[Detections]:
        """Objects of pictures of any size."""
