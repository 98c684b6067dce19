"""A detector that finds what it is told to, by the colour of the picture."""

from collections.abc import Mapping, Sequence

import numpy as np

from scaler.data.dataset import FloatArray, Image
from scaler.data.preprocessing import Preprocessing, fit
from scaler.evaluation.detect import detect
from scaler.evaluation.detections import Detections, Selection

SIZE = 64
STEP = 50
"""Between the reds of numbers: files may change colours a little."""


class FakeDetector:
    """Finds in a picture whose middle has the red of a number (`picture_of`) the boxes of that number.

    Args:
        classes: Names.
        found: For each number the size of its picture (width, height), and rows of x1, y1, x2, y2 in its pixels, label
            and score.
        selection: As in its training.
    """

    def __init__(
        self,
        classes: Sequence[str],
        found: Mapping[int, tuple[tuple[int, int], Sequence[Sequence[float]]]],
        selection: Selection | None = None,
    ):
        self.classes = tuple(classes)
        self.preprocessing = Preprocessing(size=SIZE, fill=0)
        self.found, self.selection = found, selection
        self.batches: list[int] = []

    def raw(self, images: Image) -> tuple[FloatArray, FloatArray]:
        """As many boxes as the richest picture has, those of the others without score."""
        self.batches.append(len(images))
        most = max(len(rows) for _, rows in self.found.values())
        boxes = np.zeros((len(images), most, 4), np.float32)
        scores = np.zeros((len(images), most, len(self.classes)), np.float32)
        for place, image in enumerate(images):
            (width, height), rows = self.found[int(image[SIZE // 2, SIZE // 2, 0]) // STEP]
            for index, (*corners, label, score) in enumerate(rows):
                boxes[place, index] = fit(width, height, SIZE).into(np.array(corners, np.float32))
                scores[place, index, int(label)] = score
        return boxes, scores

    def detect(self, images: Sequence[Image], selection: Selection) -> list[Detections]:
        """Objects of pictures of any size."""
        return detect(self, images, selection)


def picture_of(number: int, width: int, height: int) -> Image:
    """A picture that the detector knows."""
    image = np.full((height, width, 3), 90, np.uint8)
    image[..., 0] = number * STEP + STEP // 2
    return image
