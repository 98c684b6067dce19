"""COCO's detection labels: one JSON file a split.

Format: https://cocodataset.org/#format-data. Boxes are x, y, width, height from 0; category ids are any numbers.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scaler.data.dataset import IntArray
from scaler.data.findings import Notes
from scaler.data.labels import Labels, Source, cannot_read, chosen_rows, is_one_line, labels_of, without
from scaler.errors import FileError, listed, unknown_name

Row = dict[str, Any]
_EXPECTED = "COCO's labels, a JSON file with images, annotations and categories"
_LARGEST_SIDE = 2**20
_SHOWN = 60


def read(source: Source, notes: Notes) -> Labels:
    """Read the labels of a split; pictures that are not there are noted and left out.

    The classes are the source's; without any, the file's in the order of their ids.

    Raises:
        FileError: The file is not COCO's; or, for strict notes, a class is unknown.
    """
    path = source.labels
    data = _load(path)
    images, categories = _rows(data, "images", path), _rows(data, "categories", path)
    annotations = _rows(data, "annotations", path) if "annotations" in data else []
    classes = source.classes or _names(categories, path)
    names = _texts(images, "images", "file_name", path)
    sizes = [(_side(image.get("width")), _side(image.get("height"))) for image in images]
    owners = _owners(images, annotations, path, notes)
    labels = _labels(categories, annotations, classes, source, notes)
    known = np.flatnonzero((owners >= 0) & (labels >= 0))
    found = labels_of(
        classes,
        [source.pictures / name for name in names],
        sizes,
        owners[known],
        _corners(annotations, path)[known],
        labels[known],
        np.array([bool(row.get("iscrowd")) for row in annotations], bool)[known],
    )
    return without(found, _left_out(names, source, notes))


def class_names(path: Path) -> tuple[str, ...]:
    """Classes of a file in the order of their ids.

    Raises:
        FileError: The file is not COCO's.
    """
    return _names(_rows(_load(path), "categories", path), path)


def _load(path: Path) -> Row:
    collecting = gc.isenabled()
    gc.disable()  # it would go through the millions of objects again and again: a fifth of the time
    try:
        data = json.loads(path.read_bytes(), object_hook=_lean)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise FileError(path, where, error.msg, f"expected {_EXPECTED}", "is the file cut off?") from None
    except RecursionError:
        raise FileError(path, "", "nested too deep", f"expected {_EXPECTED}", "name another file") from None
    except (OSError, ValueError) as error:
        raise cannot_read(path, error, _EXPECTED) from None
    finally:
        if collecting:
            gc.enable()
    if not isinstance(data, dict):
        raise FileError(path, "", "the top level is no object", f"expected {_EXPECTED}", "name another file")
    return data


def _lean(table: Row) -> Row:
    """Forget outlines as they are read: nine tenths of the memory of COCO's own files."""
    table.pop("segmentation", None)
    return table


def _rows(data: Row, key: str, path: Path) -> list[Row]:
    rows = data.get(key)
    if not isinstance(rows, list):
        what = "missing" if key not in data else "no list"
        raise FileError(path, key, what, f"expected {_EXPECTED}", "name another file")
    for i, row in enumerate(rows):
        if type(row) is not dict:
            raise FileError(path, f"{key}[{i}]", "no object", "expected one in braces", "correct the file there")
    return rows


def _values(rows: Sequence[Row], key: str, name: str, path: Path) -> list[Any]:
    """A required entry of every row."""
    try:
        return [row[name] for row in rows]
    except KeyError:
        i = next(i for i, row in enumerate(rows) if name not in row)
        raise FileError(path, f"{key}[{i}].{name}", "missing", todo="add it") from None


def _ids(rows: Sequence[Row], key: str, name: str, path: Path) -> list[int | str]:
    found = _values(rows, key, name, path)
    for i, value in enumerate(found):
        if type(value) is not int and type(value) is not str:
            where = f"{key}[{i}].{name}"
            raise FileError(path, where, f"found {_shown(value)}", "expected a whole number or a text", "correct it")
    return found


def _own_ids(rows: Sequence[Row], key: str, path: Path) -> dict[int | str, int]:
    """Rows by their id."""
    ids = _ids(rows, key, "id", path)
    row_of = {value: row for row, value in enumerate(ids)}
    if len(row_of) != len(ids):
        i = next(i for i, value in enumerate(ids) if row_of[value] != i)
        where = f"{key}[{i}].id"
        raise FileError(path, where, f"{_shown(ids[i])} stands twice", todo="give each an id of its own")
    return row_of


def _texts(rows: Sequence[Row], key: str, name: str, path: Path) -> list[str]:
    found = _values(rows, key, name, path)
    for i, value in enumerate(found):
        if not isinstance(value, str) or not is_one_line(value):
            where = f"{key}[{i}].{name}"
            raise FileError(path, where, f"found {_shown(value)}", "expected a text on one line", "correct it")
    return found


def _names(categories: Sequence[Row], path: Path) -> tuple[str, ...]:
    """Classes in the order of their ids, numbers before texts."""
    names = _texts(categories, "categories", "name", path)
    ids = list(_own_ids(categories, "categories", path))
    if not names:
        raise FileError(path, "categories", "none", "expected at least one class", "name them in data.toml or here")
    if len(set(names)) != len(names):
        i = next(i for i, name in enumerate(names) if name in names[:i])
        where = f"categories[{i}].name"
        raise FileError(path, where, f"{_shown(names[i])} stands twice", todo="give each category its own name")
    order = sorted(range(len(ids)), key=lambda i: (isinstance(ids[i], str), ids[i]))
    return tuple(names[i] for i in order)


def _owners(images: Sequence[Row], annotations: Sequence[Row], path: Path, notes: Notes) -> IntArray:
    """Row of every annotation's picture; -1 where there is none, which is noted."""
    row_of = _own_ids(images, "images", path)
    ids = _ids(annotations, "annotations", "image_id", path)
    owners = np.array([row_of.get(value, -1) for value in ids], np.int64)
    lost = np.flatnonzero(owners < 0).tolist()
    notes.add("orphan-label", (f"{path}: annotations[{i}].image_id: no image {_shown(ids[i])}" for i in lost))
    return owners


def _labels(
    categories: Sequence[Row], annotations: Sequence[Row], classes: Sequence[str], source: Source, notes: Notes
) -> IntArray:
    """Class of every annotation; -1 where it is not among the classes, which is refused."""
    path = source.labels
    names = _texts(categories, "categories", "name", path)
    row_of = _own_ids(categories, "categories", path)
    ids = _ids(annotations, "annotations", "category_id", path)
    rows = np.array([row_of.get(value, -1) for value in ids], np.int64)
    if (rows < 0).any():
        i = int(np.argmax(rows < 0))
        allowed = f"the file has {listed(map(_shown, row_of))}"
        where = f"annotations[{i}].category_id"
        notes.refuse(FileError(path, where, f"no category {_shown(ids[i])}", allowed, "correct it"))
    place = {name: i for i, name in enumerate(classes)}
    label_of = np.array([*(place.get(name, -1) for name in names), -1], np.int64)
    counts = np.bincount(rows[rows >= 0], minlength=len(names))
    for row, name in enumerate(names):
        if counts[row] and name not in place:
            boxes = f"{counts[row]} boxes of {unknown_name('class', name, classes)}"
            todo = f"correct classes in {source.data_file}, which has {len(classes)}"
            notes.refuse(FileError(path, f"categories[{row}].name", boxes, todo=todo))
    found: IntArray = label_of[rows]
    return found


def _corners(annotations: Sequence[Row], path: Path) -> npt.NDArray[np.float64]:
    """Corners `[annotations, 4]` in pixels."""
    boxes = _values(annotations, "annotations", "bbox", path)
    try:
        found = np.array(boxes, np.float64).reshape(-1, 4)
        if len(found) != len(boxes) or not all(map(_is_box, boxes)):
            raise ValueError  # to the message below
    except (ValueError, TypeError, OverflowError):
        i = next((i for i, box in enumerate(boxes) if not (_is_box(box) and all(map(_is_number, box)))), 0)
        where, allowed = f"annotations[{i}].bbox", "expected [x, y, width, height] in pixels"
        raise FileError(path, where, f"found {_shown(boxes[i])}", allowed, "correct it") from None
    with np.errstate(over="ignore", invalid="ignore"):
        found[:, 2:] += found[:, :2]
    return found


def _is_box(value: object) -> bool:
    return type(value) is list and len(value) == 4


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < _LARGEST_SIDE)


def _left_out(names: Sequence[str], source: Source, notes: Notes) -> Iterable[int]:
    """Rows of the pictures that the list does not have or that are not there."""
    chosen = set(chosen_rows(names, source, notes))
    folders: dict[str, frozenset[str]] = {}
    gone = []
    for row, name in enumerate(names):
        if row not in chosen:
            gone.append(row)
            continue
        inner, _, last = name.rpartition("/")
        if inner not in folders:
            folders[inner] = _files(source.pictures / inner)
        if last not in folders[inner]:
            gone.append(row)
            notes.add("missing-picture", [str(source.pictures / name)])
    return gone


def _files(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))  # noqa: PTH208 (a Path for each of 100,000 files takes longer)
    except (OSError, ValueError):
        return frozenset()


def _side(value: object) -> int:
    """A width or height; 0 where it is none, so that the picture is asked."""
    return value if type(value) is int and 0 < value < _LARGEST_SIDE else 0


def _shown(value: object) -> str:
    if isinstance(value, Mapping | list) and not _is_box(value):
        return "an object" if isinstance(value, Mapping) else f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) > 2**63:
        return "a whole number of more than 64 bits"
    text = repr(value) if not isinstance(value, list) else json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
