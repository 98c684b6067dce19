"""Boxes drawn on a picture, a colour for each class."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np

from scaler.data import require_cv2
from scaler.data.dataset import FloatArray, Image, IntArray

RGB = tuple[int, int, int]
GOLDEN = 0.618033988749895
"""Turn of the hue from one class to the next: any few neighbours lie far apart (Knuth, TAOCP 3, section 6.4)."""
_TONES = ((1.0, 0.95), (0.45, 1.0), (0.7, 0.7))  # saturation and brightness, in turn
_LETTER_SIDE = 22  # pixels of a letter's height at the font's scale 1
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


def class_colour(label: int) -> RGB:
    """The colour of a class, the same in every picture."""
    saturation, brightness = _TONES[label % len(_TONES)]
    red, green, blue = colorsys.hsv_to_rgb(label * GOLDEN % 1, saturation, brightness)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(
    image: Image,
    corners: FloatArray,
    labels: IntArray,
    classes: Sequence[str],
    scores: FloatArray | None = None,
    *,
    names: bool = True,
) -> Image:
    """Return a copy of a picture with boxes, each with its class and score above it, inside where there is no room.

    Args:
        image: RGB.
        corners: `[boxes, 4]` in pixels of the picture.
        labels: `[boxes]`, index into the classes.
        classes: Names.
        scores: `[boxes]`, 0 to 1; the best are drawn last, on top.
        names: Whether to write the class; the colour tells it too.
    """
    cv2 = require_cv2()
    canvas = np.ascontiguousarray(image).copy()
    thickness, scale = weights(canvas)
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
    order = np.argsort(-areas if scores is None else scores, kind="stable")  # small ones, or sure ones, on top
    for row in order:
        x1, y1, x2, y2 = (int(value) for value in np.round(corners[row]))
        colour = class_colour(int(labels[row]))
        cv2.rectangle(canvas, (x1, y1), (max(x2 - 1, x1), max(y2 - 1, y1)), colour, thickness, cv2.LINE_8)
    for row in order if names else ():
        text = classes[int(labels[row])] + ("" if scores is None else f" {scores[row]:.2f}")
        left, top = (int(value) for value in np.round(corners[row, :2]))
        _write(cv2, canvas, text, (left, top), class_colour(int(labels[row])), scale)
    return canvas


def text_size(text: str, scale: float) -> tuple[int, int]:
    """Width and height in pixels of a line of text with the room around it."""
    cv2 = require_cv2()
    (width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    side = round(_LETTER_SIDE * scale)
    return int(width) + side // 2 + 2, side + side // 2 + 2


def write_text(canvas: Image, text: str, place: tuple[int, int], colour: RGB, scale: float) -> None:
    """Write a line of text into a picture; the place is its upper left corner."""
    cv2 = require_cv2()
    _, height = text_size(text, scale)
    side = round(_LETTER_SIDE * scale)
    origin = (place[0] + side // 4 + 1, place[1] + (height + side) // 2 - 1)
    cv2.putText(canvas, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)


def _write(cv2: Any, canvas: Image, text: str, place: tuple[int, int], colour: RGB, scale: float) -> None:
    """Write a text on a ground of a colour above a place, within the picture."""
    height, width = canvas.shape[:2]
    wide, high = text_size(text, scale)
    left = max(0, min(place[0], width - wide))
    top = place[1] - high if place[1] >= high else min(max(place[1], 0), height - high)
    cv2.rectangle(canvas, (left, top), (left + wide - 1, top + high - 1), colour, -1)
    write_text(canvas, text, (left, top), ink_on(colour), scale)


def ink_on(colour: RGB) -> RGB:
    """Black or white, what is read better on a colour (ITU-R BT.601's luma)."""
    return _BLACK if colour[0] * 0.299 + colour[1] * 0.587 + colour[2] * 0.114 > 140 else _WHITE


def weights(image: Image) -> tuple[int, float]:
    """Thickness of lines in pixels and scale of the font for a picture."""
    side = min(image.shape[:2])
    return max(1, round(side / 480)), min(max(side / 1100, 0.36), 1.2)
