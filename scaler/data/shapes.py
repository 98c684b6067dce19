"""A generated data set: circles, squares and triangles, small and hidden ones too, on uneven ground.

It needs no download, is the same for a seed on every machine, and is hard enough that a detector must learn: sizes span
a factor of ten, shapes cover each other, turn, and may have nearly the colour of the ground.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.data import require_cv2
from scaler.data.dataset import Boxes, Image
from scaler.data.images import write_image
from scaler.data.made import Made, write_description, write_split
from scaler.errors import UsageError
from scaler.files import make_folder

CLASSES = ("circle", "square", "triangle")
SIDES = (8.0, 80.0)
"""Smallest and largest diameter in a picture of 160 px; sizes are drawn evenly on a logarithmic scale."""
MOST_OBJECTS = 8
LEAST_VISIBLE = 0.5
"""Share of its pixels that a shape must show, or it is not drawn at all."""
LEAST_CONTRAST = 40
"""Difference of colour between a shape and what lies behind it, summed over red, green and blue."""
_FINER = 4  # times the resolution at which outlines are drawn, so that small shapes keep their form

Progress: TypeAlias = Callable[[int, int], None]
"""Called with pictures done and pictures in all."""
Mask: TypeAlias = npt.NDArray[np.bool_]


def make_shapes(
    folder: Path,
    *,
    train: int = 1000,
    val: int = 200,
    size: int = 160,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write the data set; returns its `data.toml`.

    Args:
        folder: Where to; made if missing.
        train: Pictures to train on.
        val: Pictures to validate on, drawn independently.
        size: Side of the pictures in pixels, 64 to 1024.
        seed: Equal seeds give equal files.
        progress: Told of every picture.

    Raises:
        UsageError: A number outside its range.
        FileError: The folder cannot be written.
    """
    if not 64 <= size <= 1024:
        raise UsageError(f"--size {size}: allowed is 64 to 1024 pixels")
    counts = {"train": train, "val": val}
    for split, count in counts.items():
        if not 1 <= count <= 100_000:
            raise UsageError(f"--{split} {count}: allowed is 1 to 100000 pictures")
    done, total = 0, train + val
    for number, (split, count) in enumerate(counts.items()):
        make_folder(folder / split)
        made = []
        for index in range(count):
            image, boxes = drawn(size, np.random.default_rng((seed, number, index)))
            name = f"{index:05d}.png"
            write_image(folder / split / name, image)
            made.append(Made(name, size, size, boxes))
            done += 1
            if progress is not None:
                progress(done, total)
        write_split(folder, split, CLASSES, made)
    return write_description(folder, "shapes", CLASSES, dict.fromkeys(counts, f"generated with seed {seed}"))


def drawn(size: int, rng: np.random.Generator) -> tuple[Image, Boxes]:
    """One picture and its objects."""
    image = _ground(size, rng)
    visible: list[Mask] = []
    whole: list[int] = []
    labels: list[int] = []
    for _ in range(rng.integers(1, MOST_OBJECTS + 1)):
        label = int(rng.integers(len(CLASSES)))
        cover = _cover(size, label, rng)
        mask = cover[..., 0] >= 0.5
        colour = rng.integers(0, 256, 3)
        if not mask.any() or _contrast(image, mask, colour) < LEAST_CONTRAST:
            continue
        if any((other & ~mask).sum() < LEAST_VISIBLE * area for other, area in zip(visible, whole, strict=True)):
            continue
        visible = [other & ~mask for other in visible]
        visible.append(mask)
        whole.append(int(mask.sum()))
        labels.append(label)
        shade = rng.normal(0, 6, (size, size, 1))
        image = (image * (1 - cover) + np.clip(colour + shade, 0, 255) * cover).astype(np.uint8)
    return _blurred(image, rng), Boxes.of([_bounds(mask) for mask in visible], labels)


def _ground(size: int, rng: np.random.Generator) -> Image:
    """A colour gradient with blotches."""
    cv2 = require_cv2()
    blotches = cv2.resize(rng.normal(0, 25, (5, 5, 3)), (size, size), interpolation=cv2.INTER_CUBIC)
    ends = rng.uniform(30, 220, (2, 3))
    share = np.linspace(0, 1, size)[:, None, None]
    ground = ends[0] * (1 - share) + ends[1] * share + blotches + rng.normal(0, 4, (size, size, 3))
    found: Image = np.clip(ground, 0, 255).astype(np.uint8)
    return found


def _cover(size: int, label: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """How much of each pixel `[size, size, 1]` a turned shape covers; it may reach over the edge by a quarter."""
    cv2 = require_cv2()
    low, high = (math.log(side * size / 160) for side in SIDES)
    radius = math.exp(rng.uniform(low, high)) / 2
    centre = rng.uniform(0.5 * radius, size - 0.5 * radius, 2)
    corners = {0: 64, 1: 4, 2: 3}[label]
    angles = rng.uniform(0, 2 * math.pi) + np.arange(corners) * 2 * math.pi / corners
    points = (centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)) * _FINER - 0.5
    canvas = np.zeros((size * _FINER, size * _FINER), np.float32)
    cv2.fillPoly(canvas, [np.round(points).astype(np.int32)], 1)
    return np.asarray(cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA), np.float64)[..., None]


def _contrast(image: Image, mask: Mask, colour: npt.NDArray[np.int64]) -> float:
    return float(np.abs(image[mask].mean(axis=0) - colour).sum())


def _bounds(mask: Mask) -> tuple[int, int, int, int]:
    """The box of what is visible."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _blurred(image: Image, rng: np.random.Generator) -> Image:
    """As a lens does, by up to 0.8 pixels."""
    found: Image = require_cv2().GaussianBlur(image, (5, 5), float(rng.uniform(0.2, 0.8)))
    return found
