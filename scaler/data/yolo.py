"""YOLO's labels: a text file a picture, with a line an object: class, centre x, centre y, width, height.

The class counts from 0 in the order of `classes`; the rest are shares of the picture, 0 to 1. A picture without a file,
or with an empty one, has no objects. Source: https://github.com/AlexeyAB/Yolo_mark.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from scaler.data.findings import Notes
from scaler.data.labels import Labels, Source, by_stem, cannot_read, chosen_rows, labels_of, listing, stem_of
from scaler.errors import FileError

_EXPECTED = "a line an object: class, centre x, centre y, width, height"
_NO_LABELS = frozenset(("classes", "obj.names", "train", "val", "test", "readme"))
"""Text files that tools put beside the labels."""
_SHOWN = 60


def read(source: Source, notes: Notes) -> Labels:
    """Read the labels of a split; pictures without a file are noted and have no objects.

    Raises:
        FileError: For strict notes: a text file is malformed or has an unknown class.
    """
    names = list(by_stem(listing(source.pictures)).values())
    files = by_stem(listing(source.labels, (".txt",)))
    paths, owners, rows = list[Path](), list[int](), list[list[float]]()
    for row in chosen_rows(names, source, notes):
        path, label_file = source.pictures / names[row], files.get(stem_of(names[row]))
        try:
            found = [] if label_file is None else _parse(source.labels / label_file, len(source.classes))
        except FileError as error:
            notes.refuse(error)
            continue
        if label_file is None:
            notes.add("unlabelled-picture", [str(path)])
        owners += [len(paths)] * len(found)
        rows += found
        paths.append(path)
    if source.chosen is None:
        stems = {stem_of(name) for name in names} | _NO_LABELS
        notes.add("orphan-label", (str(source.labels / file) for stem, file in files.items() if stem not in stems))
    table = np.array(rows, np.float64).reshape(-1, 5)
    centres, halves = table[:, 1:3], table[:, 3:] / 2
    corners = np.concatenate([centres - halves, centres + halves], axis=1)
    sizes, ignored = np.zeros((len(paths), 2)), np.zeros(len(table))
    return replace(labels_of(source.classes, paths, sizes, owners, corners, table[:, 0], ignored), relative=True)


def _parse(path: Path, classes: int) -> list[list[float]]:
    """The numbers of every line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise cannot_read(path, error, _EXPECTED) from None
    lines = text.splitlines()
    return [_numbers(path, number, words, classes) for number, line in enumerate(lines, 1) if (words := line.split())]


def _numbers(path: Path, line: int, words: list[str], classes: int) -> list[float]:
    if len(words) != 5:
        what = f"{len(words)} words" + ("; outlines are not read" if len(words) > 6 else "")
        raise FileError(path, f"line {line}", what, f"expected {_EXPECTED}", "correct this line")
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        shown = " ".join(words)[:_SHOWN]
        raise FileError(path, f"line {line}", f"found {shown!r}", "expected five finite numbers", "correct this line")
    if values[0] != int(values[0]) or not 0 <= values[0] < classes:
        what, known = f"unknown class {words[0][:_SHOWN]}", f"data.toml has {classes}: 0 to {classes - 1}"
        raise FileError(path, f"line {line}", what, known, "correct this line, or classes in data.toml")
    if max(map(abs, values[1:])) > 100:
        todo = "divide by the picture's width and height"
        raise FileError(path, f"line {line}", "pixels", "expected shares of the picture, 0 to 1", todo)
    return values
