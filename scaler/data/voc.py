"""Pascal VOC's labels: an XML file a picture.

Format: Everingham et al., "The PASCAL VOC Challenge 2012 Development Kit", section 9. Corners count pixels from 1 and
include both ends, so that here x1 - 1, y1 - 1, x2, y2. `difficult` objects are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from scaler.data.findings import Notes
from scaler.data.labels import Labels, Source, by_stem, cannot_read, chosen_rows, labels_of, listing, stem_of
from scaler.errors import FileError, unknown_name

_EXPECTED = "Pascal VOC's XML"
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_LARGEST_SIDE = 2**20
_SHOWN = 60


class _Object(NamedTuple):
    label: int
    corners: tuple[float, float, float, float]
    difficult: bool


def read(source: Source, notes: Notes) -> Labels:
    """Read the labels of a split; pictures and labels that lack each other are noted and left out.

    Raises:
        FileError: For strict notes: an XML file is malformed or has an unknown class.
    """
    names = list(by_stem(listing(source.pictures)).values())
    files = by_stem(listing(source.labels, (".xml",)))
    place = {name: i for i, name in enumerate(source.classes)}
    paths, sizes = list[Path](), list[tuple[int, int]]()
    owners, objects = list[int](), list[_Object]()
    for row in chosen_rows(names, source, notes):
        path = source.pictures / names[row]
        label_file = files.get(stem_of(names[row]))
        if label_file is None:
            notes.add("unlabelled-picture", [str(path)])
            continue
        try:
            size, found = _parse(source.labels / label_file, place)
        except FileError as error:
            notes.refuse(error)
            continue
        owners += [len(paths)] * len(found)
        objects += found
        paths.append(path)
        sizes.append(size)
    if source.chosen is None:
        stems = {stem_of(name) for name in names}
        notes.add("orphan-label", (str(source.labels / file) for stem, file in files.items() if stem not in stems))
    return labels_of(
        source.classes,
        paths,
        sizes,
        owners,
        [found.corners for found in objects],
        [found.label for found in objects],
        [found.difficult for found in objects],
    )


def _parse(path: Path, place: Mapping[str, int]) -> tuple[tuple[int, int], list[_Object]]:
    """Size of the picture, zeros where it is not told, and the objects."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        line, column = error.position
        what = str(error).partition(":")[0]
        raise FileError(
            path, f"line {line}, column {column + 1}", what, f"expected {_EXPECTED}", "correct it"
        ) from None
    except (OSError, ValueError, LookupError) as error:
        raise cannot_read(path, error, _EXPECTED) from None
    if root.tag != "annotation":
        raise FileError(path, "", f"the root is <{root.tag[:_SHOWN]}>", "expected <annotation>", "name another folder")
    objects = [_object(path, f"object[{i}]", node, place) for i, node in enumerate(root.findall("object"))]
    return (_side(root, "width"), _side(root, "height")), objects


def _object(path: Path, where: str, node: ElementTree.Element, place: Mapping[str, int]) -> _Object:
    name = (node.findtext("name") or "").strip()
    if name not in place:
        what = unknown_name("class", name, place) if name else "missing"
        raise FileError(path, f"{where}.name", what, todo="correct it, or classes in data.toml")
    box = node.find("bndbox")
    if box is None:
        raise FileError(path, f"{where}.bndbox", "missing", f"expected {', '.join(_SIDES)}", "add it")
    left, top, right, bottom = (_number(path, f"{where}.bndbox", box, side) for side in _SIDES)
    return _Object(place[name], (left - 1, top - 1, right, bottom), (node.findtext("difficult") or "").strip() == "1")


def _number(path: Path, where: str, box: ElementTree.Element, side: str) -> float:
    text = (box.findtext(side) or "").strip()
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        what = f"found {text[:_SHOWN]!r}" if text else "missing"
        raise FileError(path, f"{where}.{side}", what, "expected pixels, a number", "correct it")
    return value


def _side(root: ElementTree.Element, name: str) -> int:
    try:
        value = int(float(root.findtext(f"size/{name}") or 0))
    except (ValueError, OverflowError):
        return 0
    return value if 0 < value < _LARGEST_SIDE else 0
