"""From a picture of any size to the square that a network reads, and boxes back.

The same in training, evaluation, prediction and for exported files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scaler.data import require_cv2
from scaler.data.dataset import FloatArray, Image

RGB3 = tuple[float, float, float]
UNIT: tuple[RGB3, RGB3] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
IMAGENET: tuple[RGB3, RGB3] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Of torchvision's and timm's ImageNet weights."""
SYMMETRIC: tuple[RGB3, RGB3] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Of Keras' MobileNetV2, which was trained on -1 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How a picture is fitted into the input and scaled."""

    size: int
    """Side of the square input in pixels."""
    fill: int = 114
    """Grey of the border, 0 to 255: 114 in Scaled-YOLOv4's code, 0 in YOLO-ReT's."""
    mean: RGB3 = UNIT[0]
    """Of each channel, for pictures from 0 to 1; red, green, blue."""
    std: RGB3 = UNIT[1]


class Fit(NamedTuple):
    """How a picture lies in the square."""

    scale: float
    """Input pixels per picture pixel."""
    left: float
    """Border on the left in input pixels."""
    top: float
    width: int
    """Of the picture before, in pixels."""
    height: int

    def into(self, corners: FloatArray) -> FloatArray:
        """Boxes `[..., 4]` of the picture in pixels of the input."""
        return np.asarray(corners * self.scale + self._shift, np.float32)

    def back(self, corners: FloatArray) -> FloatArray:
        """Boxes `[..., 4]` of the input in pixels of the picture, clipped to it."""
        found = (corners - self._shift) / self.scale
        ends = np.array([self.width, self.height] * 2, np.float32)
        return np.asarray(np.clip(found, 0, ends), np.float32)

    @property
    def _shift(self) -> FloatArray:
        return np.array([self.left, self.top] * 2, np.float32)


def fit(width: int, height: int, size: int) -> Fit:
    """How a picture of this size lies in a square: aspect kept, centred."""
    scale = size / max(width, height)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    return Fit(scale, (size - new_width) // 2, (size - new_height) // 2, width, height)


def letterbox(image: Image, preprocessing: Preprocessing) -> tuple[Image, Fit]:
    """Resize a picture (bilinear; by area where it shrinks) into the square `[size, size, 3]` with a grey border."""
    cv2 = require_cv2()
    height, width = image.shape[:2]
    size = preprocessing.size
    place = fit(width, height, size)
    inner = (max(1, round(width * place.scale)), max(1, round(height * place.scale)))
    if inner != (width, height):
        image = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if place.scale < 1 else cv2.INTER_LINEAR)
    canvas = np.full((size, size, 3), preprocessing.fill, np.uint8)
    top, left = int(place.top), int(place.left)
    canvas[top : top + inner[1], left : left + inner[0]] = image
    return canvas, place


def normalised(images: Image, preprocessing: Preprocessing) -> FloatArray:
    """Pictures `[batch, size, size, 3]`, 0 to 255, as the network's input `[batch, 3, size, size]`."""
    values = images.astype(np.float32) * np.float32(1 / 255)
    values -= np.array(preprocessing.mean, np.float32)
    values /= np.array(preprocessing.std, np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
