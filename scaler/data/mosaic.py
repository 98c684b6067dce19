"""Where pictures lie on the square of the input, drawn there by one resampling from their own pixels, and their boxes.

Albumentations is not used here on purpose: its transforms resample once each (a crop, a resize, an affine warp are
three), its `Affine` warps bilinearly whatever the factor, so that shrunk pictures look unlike those of `letterbox`,
and its mosaic works on pictures that were resized before. Here scale, aspect, place, crop and mosaic are one mapping
of a rectangle of the picture to a rectangle of the square, drawn by one `resize` of the visible part alone, and a
rotation makes it one affine warp. The boxes follow the mapping that was drawn, to the last fraction of a pixel.

Coordinates are edges: pixel i spans i to i + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scaler.data import require_cv2
from scaler.data.augmentation import Augmentation
from scaler.data.dataset import Boxes, FloatArray, Image

Matrix = npt.NDArray[np.float64]
"""`[2, 3]`: picture pixels to pixels of the square."""

SMALLEST_SIDE = 2.0
"""Pixels; narrower boxes are not learnt. Of Scaled-YOLOv4's code."""
CUTOUT_SHARES = (0.5,) + (0.25,) * 2 + (0.125,) * 4 + (0.0625,) * 8 + (0.03125,) * 16
"""Largest side of each rectangle as a share of the square; of Scaled-YOLOv4's code."""
MOST_HIDDEN = 0.6
"""Share of a box that cutout may hide; of Scaled-YOLOv4's code."""


class Rectangle(NamedTuple):
    """Where a whole picture lies on the square before the rotation; parts outside are cropped."""

    left: float
    top: float
    right: float
    bottom: float


def arranged(
    sides: Sequence[tuple[int, int]], size: int, settings: Augmentation, rng: np.random.Generator
) -> list[Rectangle]:
    """Place one picture or four.

    One lies where `letterbox` has it, if the settings leave it there. Four lie around a common corner as in
    Scaled-YOLOv4's code, where the square is cut from the middle of one of twice its side: each fills the square
    before one scale is drawn for all, and the corner is anywhere within half the (scaled) side of the middle.

    Args:
        sides: Width and height of the picture, or of those at the top left, top right, bottom left, bottom right.
        size: Side of the square.
        settings: `scale`, `aspect`, `translate` count, and `random_place` for a single picture.
        rng: What is drawn from.
    """
    longest = size * rng.uniform(*settings.scale)
    drawn = [_drawn_sides(width, height, longest, settings.aspect, rng) for width, height in sides]
    shift = rng.uniform(-1, 1, 2) * settings.translate * size
    if len(drawn) == 1:
        return [_single(*drawn[0], size, shift, settings.random_place, rng)]
    x, y = size / 2 + shift + rng.uniform(-0.5, 0.5, 2) * longest
    (a, b, c, d) = drawn
    return [
        Rectangle(x - a[0], y - a[1], x, y),
        Rectangle(x, y - b[1], x + b[0], y),
        Rectangle(x - c[0], y, x, y + c[1]),
        Rectangle(x, y, x + d[0], y + d[1]),
    ]


def _single(
    width: float, height: float, size: int, shift: npt.NDArray[np.float64], anywhere: bool, rng: np.random.Generator
) -> Rectangle:
    across, down = max(1, round(width)), max(1, round(height))
    spare = np.array([size - across, size - down])
    left, top = rng.uniform(np.minimum(spare, 0), np.maximum(spare, 0)) if anywhere else spare // 2 + shift
    return Rectangle(left, top, left + across, top + down)


def _drawn_sides(
    width: int, height: int, longest: float, aspect: float, rng: np.random.Generator
) -> tuple[float, float]:
    wide = width * (rng.uniform(1 - aspect, 1 + aspect) / rng.uniform(1 - aspect, 1 + aspect))
    factor = longest / max(wide, height)
    return wide * factor, height * factor


def draw(
    canvas: Image, image: Image, place: Rectangle, *, degrees: float = 0.0, area_below: float = 1.0
) -> Matrix | None:
    """Draw a picture on the square, from its own pixels by one resampling.

    Args:
        canvas: The square `[size, size, 3]`, drawn on.
        image: The picture `[height, width, 3]`.
        place: Where all of it lies, before the rotation.
        degrees: Rotation about the middle of the square, clockwise.
        area_below: Pictures that shrink by a smaller factor are averaged over areas, the others are interpolated.

    Returns:
        The mapping that was drawn, or None where nothing of the picture is visible.
    """
    shrinks = (place.right - place.left) * (place.bottom - place.top) < image.shape[0] * image.shape[1] * area_below**2
    return _turned(canvas, image, place, degrees, shrinks) if degrees else _upright(canvas, image, place, shrinks)


def _upright(canvas: Image, image: Image, place: Rectangle, shrinks: bool) -> Matrix | None:
    cv2 = require_cv2()
    size = canvas.shape[0]
    height, width = image.shape[:2]
    spans = []
    for start, end, pixels in ((place.left, place.right, width), (place.top, place.bottom, height)):
        low, high = round(start), max(round(end), round(start) + 1)
        first, last = max(low, 0), min(high, size)
        if first >= last:
            return None
        factor = pixels / (high - low)
        begin = min(round((first - low) * factor), pixels - 1)
        spans.append((first, last, begin, max(round((last - low) * factor), begin + 1)))
    (x, x_end, u, u_end), (y, y_end, v, v_end) = spans
    part, target = image[v:v_end, u:u_end], canvas[y:y_end, x:x_end]
    if part.shape == target.shape:
        target[:] = part
    else:
        cv2.resize(part, (x_end - x, y_end - y), dst=target, interpolation=_filter(cv2, shrinks))
    across, down = (x_end - x) / (u_end - u), (y_end - y) / (v_end - v)
    return np.array([[across, 0.0, x - across * u], [0.0, down, y - down * v]])


def _turned(canvas: Image, image: Image, place: Rectangle, degrees: float, shrinks: bool) -> Matrix | None:
    """One affine warp; a picture that shrinks is averaged to its size before, which a warp cannot."""
    cv2 = require_cv2()
    size = canvas.shape[0]
    height, width = image.shape[:2]
    across, down = place.right - place.left, place.bottom - place.top
    turn = _rotation(degrees, size / 2)
    matrix = _after(turn, np.array([[across / width, 0.0, place.left], [0.0, down / height, place.top]]))
    quad = mapped(matrix, np.array([[0.0, 0.0, width, height]]))[0]
    x, y, x_end, y_end = (int(edge) for edge in np.clip([*np.floor(quad[:2]), *np.ceil(quad[2:])], 0, size))
    if x >= x_end or y >= y_end:
        return None
    pixels = image
    if shrinks:
        pixels = cv2.resize(image, (max(1, round(across)), max(1, round(down))), interpolation=cv2.INTER_AREA)
    ratio = np.array([width / pixels.shape[1], height / pixels.shape[0]])
    centres = matrix.copy()  # of the pixels that are warped, onto the window, pixel centres at whole numbers
    centres[:, :2] *= ratio
    centres[:, 2] += centres[:, :2] @ [0.5, 0.5] - 0.5 - [x, y]
    window = (x_end - x, y_end - y)
    warped = cv2.warpAffine(pixels, centres, window, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = np.ones(pixels.shape[:2], np.uint8)
    mask = cv2.warpAffine(inside, centres, window, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
    cv2.copyTo(warped, mask, canvas[y:y_end, x:x_end])
    return matrix


def _filter(cv2: Any, shrinks: bool) -> int:
    return int(cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _rotation(degrees: float, middle: float) -> Matrix:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([turn, middle - turn @ [middle, middle]])


def _after(second: Matrix, first: Matrix) -> Matrix:
    joined = second[:, :2] @ first
    joined[:, 2] += second[:, 2]
    return np.asarray(joined)


def mapped(matrix: Matrix, corners: npt.ArrayLike) -> Matrix:
    """Boxes `[n, 4]` under a mapping: the upright boxes around their four mapped corners, not clipped, float64."""
    edges = np.asarray(corners, np.float64)
    points = edges[:, [[0, 1], [2, 1], [2, 3], [0, 3]]] @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([points.min(1), points.max(1)], 1)


def placed(boxes: Boxes, matrix: Matrix, size: int, least_visible: float) -> Boxes:
    """Boxes of a picture on the square: mapped, clipped, without those of which too little is left.

    Args:
        boxes: Of the picture.
        matrix: How the picture was drawn.
        size: Side of the square.
        least_visible: Least share of a box's area that stays inside.
    """
    whole = mapped(matrix, boxes.corners)
    inside = np.clip(whole, 0, size)
    sides = inside[:, 2:] - inside[:, :2]
    full = np.maximum((whole[:, 2:] - whole[:, :2]).prod(1), 1e-9)
    return chosen(
        Boxes(inside.astype(np.float32), boxes.labels, boxes.ignored),
        (sides.min(1, initial=np.inf) >= SMALLEST_SIDE) & (sides.prod(1) >= least_visible * full * (1 - 1e-9)),
    )


def flipped(image: Image, boxes: Boxes) -> tuple[Image, Boxes]:
    """The square and its boxes, left and right swapped."""
    size = image.shape[1]
    corners = boxes.corners.copy()
    corners[:, [0, 2]] = size - boxes.corners[:, [2, 0]]
    return require_cv2().flip(image, 1), Boxes(corners, boxes.labels, boxes.ignored)


def blended(first: Image, second: Image, share: float) -> Image:
    """Mixup: the first square at this share over the second."""
    mixed: Image = require_cv2().addWeighted(first, share, second, 1 - share, 0)
    return mixed


def cut_out(image: Image, boxes: Boxes, fill: int, rng: np.random.Generator) -> tuple[Image, Boxes]:
    """Hide parts of the square, in place, under grey rectangles; drop the boxes that are mostly hidden.

    Thirty-one rectangles, one with sides of up to half the square, twice as many of each half as large.
    """
    size = image.shape[0]
    hidden = np.zeros((size, size), bool)
    for share in CUTOUT_SHARES:
        width, height = rng.integers(1, max(1, int(size * share)) + 1, 2)
        left, top = rng.integers(0, size, 2) - (width // 2, height // 2)
        window = (slice(max(0, top), top + height), slice(max(0, left), left + width))
        hidden[window] = True
        image[window] = fill
    keep = [_share(hidden, box) <= MOST_HIDDEN for box in boxes.corners]
    return image, chosen(boxes, np.array(keep, bool))


def _share(hidden: npt.NDArray[np.bool_], box: FloatArray) -> float:
    x, y, x_end, y_end = np.rint(box).astype(int)
    return float(hidden[y:y_end, x:x_end].mean())


def chosen(boxes: Boxes, keep: npt.NDArray[np.bool_]) -> Boxes:
    """Those boxes."""
    return Boxes(boxes.corners[keep], boxes.labels[keep], boxes.ignored[keep])


def joined(parts: list[Boxes]) -> Boxes:
    """The boxes of several pictures one after the other."""
    if not parts:
        return Boxes.of([], [])
    return Boxes(
        np.concatenate([part.corners for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.ignored for part in parts]),
    )
