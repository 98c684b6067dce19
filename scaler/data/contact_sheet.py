"""A picture of a data set: some pictures of each split with their boxes, to look at before training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaler.data.dataset import Dataset, Image, Picture, Splits
from scaler.data.drawing import class_colour, draw_boxes, text_size, write_text
from scaler.data.images import BrokenPictureError, read_image
from scaler.data.preprocessing import Preprocessing, letterbox

CELL = 300
"""Pixels of a picture's side on the sheet."""
COLUMNS = 4
PICTURES = 8
"""Of a split."""
CROWD = 12
"""Boxes of a picture above which only colours tell the classes."""
_PAPER, _EMPTY, _GAP = 255, 225, 8
_INK, _PALE = (20, 20, 20), (110, 110, 110)
_HEADING, _SMALL = 0.6, 0.42
_LEGEND = 40  # classes of the legend


def contact_sheet(splits: Splits, *, pictures: int = PICTURES, seed: int = 0) -> Image:
    """Return a sheet `[height, width, 3]`: a grid for each split, and the colours of the classes below.

    Every class is shown if the pictures suffice. Ignored objects are drawn like the others.

    Args:
        splits: The data set.
        pictures: How many to show of a split.
        seed: Of their choice.
    """
    rows = [_heading(f"{splits.name}: {splits.file}", _HEADING)]
    for dataset in splits.splits.values():
        chosen = choose(dataset, pictures, seed)
        title = f"{dataset.split}: {len(chosen)} of {len(dataset.pictures):,} pictures with {dataset.objects:,} objects"
        cells = [_cell(picture, dataset.classes) for picture in chosen]
        rows += [_heading(title, _HEADING), *_grid(cells)]
    return np.concatenate([*rows, _legend(splits.classes)])


def choose(dataset: Dataset, count: int, seed: int = 0) -> list[Picture]:
    """Choose pictures at random, but so that every class is among them as soon as possible, the rarest first."""
    order = np.random.default_rng(seed).permutation(len(dataset.pictures)).tolist()
    holders: list[list[int]] = [[] for _ in dataset.classes]
    for row in order:
        for label in set(dataset.pictures[row].boxes.labels.tolist()):
            holders[label].append(row)
    chosen: dict[int, None] = {}
    shown: set[int] = set()
    for label in sorted(range(len(holders)), key=lambda label: len(holders[label])):
        if holders[label] and label not in shown and len(chosen) < count:
            chosen[holders[label][0]] = None
            shown.update(dataset.pictures[holders[label][0]].boxes.labels.tolist())
    for row in order:
        if len(chosen) >= count:
            break
        chosen[row] = None
    return [dataset.pictures[row] for row in chosen]


def _cell(picture: Picture, classes: Sequence[str]) -> Image:
    """A picture with its boxes, and its name below."""
    try:
        image, fit = letterbox(read_image(picture.path), Preprocessing(size=CELL, fill=_EMPTY))
        boxes = picture.boxes
        image = draw_boxes(image, fit.into(boxes.corners), boxes.labels, classes, names=len(boxes) <= CROWD)
        caption = f"{picture.path.name}  {fit.width} x {fit.height}, boxes: {len(boxes)}"
    except BrokenPictureError as error:
        image, caption = np.full((CELL, CELL, 3), _EMPTY, np.uint8), f"{picture.path.name}: {error.reason}"
    while text_size(caption, _SMALL)[0] > CELL:
        caption = caption[: len(caption) * 9 // 10]
    return np.concatenate([image, _line(caption, _SMALL, CELL, _PALE)])


def _grid(cells: Sequence[Image]) -> list[Image]:
    """Rows of cells with gaps."""
    rows = []
    for start in range(0, len(cells), COLUMNS):
        row = _paper(cells[0].shape[0] + _GAP)
        for column, cell in enumerate(cells[start : start + COLUMNS]):
            left = _GAP + column * (CELL + _GAP)
            row[: cell.shape[0], left : left + CELL] = cell
        rows.append(row)
    return rows


def _legend(classes: Sequence[str]) -> Image:
    """The classes in their colours, in as many lines as it takes."""
    names = [*classes[:_LEGEND], *([f"and {len(classes) - _LEGEND} more"] if len(classes) > _LEGEND else [])]
    lines, left = [_paper(0)], _width()
    for label, name in enumerate(names):
        wide, high = text_size(name, _SMALL)
        if left + wide + high > _width() - _GAP:
            lines.append(_paper(high + _GAP // 2))
            left = _GAP
        if label < _LEGEND:
            lines[-1][3 : high - 3, left : left + high - 6] = class_colour(label)
        write_text(lines[-1], name, (left + high - 4, 0), _INK, _SMALL)
        left += high + wide + _GAP
    return np.concatenate([*lines, _paper(_GAP)])


def _heading(text: str, scale: float) -> Image:
    line = _line(text, scale, _width() - _GAP, _INK)
    return np.concatenate([_paper(_GAP), np.pad(line, ((0, 0), (_GAP, 0), (0, 0)), constant_values=_PAPER)])


def _line(text: str, scale: float, width: int, colour: tuple[int, int, int]) -> Image:
    line = np.full((text_size(text, scale)[1], width, 3), _PAPER, np.uint8)
    write_text(line, text, (0, 0), colour, scale)
    return line


def _paper(height: int) -> Image:
    return np.full((height, _width(), 3), _PAPER, np.uint8)


def _width() -> int:
    return COLUMNS * (CELL + _GAP) + _GAP
