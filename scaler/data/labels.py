"""What the readers of COCO, VOC and YOLO labels have in common: where to look, and what they give.

A reader turns one split's files into `Labels`, columns as long as there are boxes; `pictures_of` clips, drops and
groups them. No picture is decoded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scaler.data.dataset import BoolArray, Boxes, FloatArray, IntArray, Picture
from scaler.data.findings import Kind, Notes
from scaler.data.images import SUFFIXES
from scaler.data.sizes import picture_sizes
from scaler.errors import FileError

TOLERANCE = 1.0
"""Pixels by which a box may lie outside its picture before it is worth a word: rounding."""
_FLAG = re.compile(r"(.*\S)\s+-?[01]")  # VOC's lists of one class: a name, then 1, 0 or -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the pictures and labels of a split lie."""

    data_file: Path
    split: str
    pictures: Path
    """Folder."""
    labels: Path
    """File of COCO, folder otherwise."""
    list_file: Path | None = None
    chosen: tuple[str, ...] | None = None
    """The lines of the list; None for all pictures."""
    classes: tuple[str, ...] = ()
    """Empty where the labels say them."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Labels:
    """The labels of a split as its files have them."""

    classes: tuple[str, ...]
    paths: Sequence[Path]
    """Of the pictures."""
    sizes: IntArray
    """`[pictures, 2]`: width, height; 0 where the files do not say."""
    owners: IntArray
    """`[boxes]`, row of the picture."""
    corners: npt.NDArray[np.float64]
    """`[boxes, 4]`: x1, y1, x2, y2 in pixels, or in shares of the picture where `relative`."""
    labels: IntArray
    ignored: BoolArray
    relative: bool = False


def labels_of(
    classes: tuple[str, ...], paths: Sequence[Path], sizes: Any, owners: Any, corners: Any, labels: Any, ignored: Any
) -> Labels:
    """Make them from lists or arrays of any number type."""
    return Labels(
        classes=classes,
        paths=paths,
        sizes=np.asarray(sizes, np.int64).reshape(-1, 2),
        owners=np.asarray(owners, np.int64).reshape(-1),
        corners=np.asarray(corners, np.float64).reshape(-1, 4),
        labels=np.asarray(labels, np.int64).reshape(-1),
        ignored=np.asarray(ignored, bool).reshape(-1),
    )


def listing(folder: Path, suffixes: Iterable[str] = SUFFIXES) -> list[str]:
    """Files below a folder with one of these suffixes, as paths relative to it with `/`, sorted."""
    wanted, found = tuple(suffixes), []
    for place, _, names in os.walk(folder):
        inner = os.path.relpath(place, folder).replace(os.sep, "/")
        prefix = "" if inner == "." else f"{inner}/"
        found += [prefix + name for name in names if name.lower().endswith(wanted)]
    return sorted(found)


def stem_of(name: str) -> str:
    """A relative path without the suffix of the file."""
    return name.rpartition(".")[0] or name


def by_stem(names: Iterable[str]) -> dict[str, str]:
    """Files by their path without the suffix; of `a.jpg` and `a.png` the first."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(stem_of(name), name)
    return found


def chosen_rows(names: Sequence[str], source: Source, notes: Notes) -> list[int]:
    """Rows of the pictures in the split's list, in the order of the pictures; all without a list.

    A line names a picture by its path or its last parts, with or without suffix: VOC's `ImageSets/Main`, YOLO's
    `./images/train/a.jpg`. Lines without a picture are noted.
    """
    if source.chosen is None:
        return list(range(len(names)))
    row_of: dict[str, int] = {}
    for key in (str, stem_of, _last, lambda name: stem_of(_last(name))):
        for row, name in enumerate(names):
            row_of.setdefault(key(name), row)
    found = [_row(line, row_of) for line in source.chosen]
    lost = (line for line, row in zip(source.chosen, found, strict=True) if row is None)
    notes.add("missing-picture", (f"{line} of {source.list_file}" for line in lost))
    return sorted({row for row in found if row is not None})


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _row(line: str, row_of: dict[str, int]) -> int | None:
    flagged = _FLAG.fullmatch(line)
    for name in (line, flagged.group(1)) if flagged else (line,):
        parts = name.replace("\\", "/").split("/")
        for start in range(len(parts)):
            if (row := row_of.get("/".join(parts[start:]))) is not None:
                return row
    return None


def without(labels: Labels, rows: Iterable[int]) -> Labels:
    """The labels without some pictures and their boxes."""
    gone = np.zeros(len(labels.paths), bool)
    gone[list(rows)] = True
    if not gone.any():
        return labels
    place = np.cumsum(~gone) - 1
    kept = ~gone[labels.owners]
    return replace(
        _boxes_where(labels, kept),
        paths=[path for path, left_out in zip(labels.paths, gone, strict=True) if not left_out],
        sizes=labels.sizes[~gone],
        owners=place[labels.owners[kept]],
    )


def pictures_of(labels: Labels, cache: Path, notes: Notes) -> tuple[Picture, ...]:
    """Group the labels by picture, clipped to it; boxes that have no area there are dropped.

    Args:
        labels: Of a split.
        cache: File that remembers the sizes of pictures.
        notes: Get what was clipped, dropped or left out.
    """
    labels = _within(_in_pixels(_sized(labels, cache, notes)), notes)
    order = np.argsort(labels.owners, kind="stable")
    corners, names, ignored = labels.corners[order].astype(np.float32), labels.labels[order], labels.ignored[order]
    ends = np.searchsorted(labels.owners[order], np.arange(len(labels.paths) + 1)).tolist()
    return tuple(
        Picture(path, Boxes(corners[start:end], names[start:end], ignored[start:end]), width, height)
        for path, (width, height), start, end in zip(
            labels.paths, labels.sizes.tolist(), ends[:-1], ends[1:], strict=True
        )
    )


def is_one_line(text: str) -> bool:
    """Whether a name can be printed and be a file's: neither blank, nor with line breaks or what is no text."""
    return bool(text.strip()) and len(text.splitlines()) == 1 and "\0" not in text and _encodes(text)


def _encodes(text: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in text)  # JSON lets halves of a pair through


def placed(path: Path, name: str, corners: Iterable[float]) -> str:
    """Where a box is, in words."""
    return f"{path}: {name} {' '.join(f'{value:.6g}' for value in corners)}"


def cannot_read(path: Path, error: Exception, expected: str) -> FileError:
    """The error of a label file that cannot be opened or is no text."""
    if isinstance(error, FileNotFoundError):
        return FileError(path, "", "no such file", f"expected {expected}", "check the path")
    if isinstance(error, IsADirectoryError):
        return FileError(path, "", "is a folder", f"expected {expected}", "name a file in it")
    reason = (getattr(error, "strerror", None) or str(error)).lower()
    return FileError(path, "", f"cannot be read: {reason[:120]}", f"expected {expected}", "correct the file")


def _sized(labels: Labels, cache: Path, notes: Notes) -> Labels:
    """Fill in the sizes that the files do not say; pictures without one are left out."""
    unknown = np.flatnonzero((labels.sizes <= 0).any(axis=1)).tolist()
    if not unknown:
        return labels
    found = picture_sizes([labels.paths[row] for row in unknown], cache)
    notes.add("corrupt-picture", (f"{labels.paths[unknown[row]]}: {why}" for row, why in found.broken.items()))
    sizes = labels.sizes.copy()
    sizes[unknown] = found.values
    return without(replace(labels, sizes=sizes), [unknown[row] for row in found.broken])


def _in_pixels(labels: Labels) -> Labels:
    if not labels.relative:
        return labels
    return replace(labels, corners=labels.corners * np.tile(labels.sizes, 2)[labels.owners], relative=False)


def _within(labels: Labels, notes: Notes) -> Labels:
    """Clip the boxes to their pictures; drop and note those without an area."""
    before, ends = labels.corners, np.tile(labels.sizes, 2)[labels.owners].astype(np.float64)
    whole = _has_area(before)
    clipped = np.clip(before, 0, ends)
    inside = whole & _has_area(clipped.astype(np.float32))
    shifted = inside & ((before < -TOLERANCE) | (before > ends + TOLERANCE)).any(axis=1)
    wrong: dict[Kind, BoolArray] = {"empty-box": ~whole, "outside-box": whole & ~inside, "clipped-box": shifted}
    for kind, mask in wrong.items():
        rows = np.flatnonzero(mask).tolist()
        owners, classes = labels.owners, labels.classes
        notes.add(kind, (placed(labels.paths[owners[r]], classes[labels.labels[r]], before[r]) for r in rows))
    return _boxes_where(replace(labels, corners=clipped), inside)


def _has_area(corners: FloatArray | npt.NDArray[np.float64]) -> BoolArray:
    with np.errstate(invalid="ignore"):
        return np.asarray(np.isfinite(corners).all(axis=1) & (corners[:, 2:] > corners[:, :2]).all(axis=1))


def _boxes_where(labels: Labels, kept: BoolArray) -> Labels:
    return replace(
        labels,
        owners=labels.owners[kept],
        corners=labels.corners[kept],
        labels=labels.labels[kept],
        ignored=labels.ignored[kept],
    )
