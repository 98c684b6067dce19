"""Writing data sets that scaler makes: a COCO file a split, and the `data.toml` that describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scaler.data.dataset import Boxes
from scaler.files import write_atomic


class Made(NamedTuple):
    """A picture that was written."""

    file: str
    """Its name in the split's folder."""
    width: int
    height: int
    boxes: Boxes


def write_split(folder: Path, split: str, classes: Sequence[str], pictures: Sequence[Made]) -> None:
    """Write `<split>.json`, the labels of the pictures in `<split>/`, as COCO has them."""
    annotations = [
        {
            "image_id": number,
            "category_id": int(label) + 1,
            "bbox": [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)],
            "area": round(float((x2 - x1) * (y2 - y1)), 2),
            "iscrowd": int(ignored),
        }
        for number, picture in enumerate(pictures, 1)
        for (x1, y1, x2, y2), label, ignored in zip(
            picture.boxes.corners, picture.boxes.labels, picture.boxes.ignored, strict=True
        )
    ]
    labels = {
        "images": [
            {"id": number, "file_name": picture.file, "width": picture.width, "height": picture.height}
            for number, picture in enumerate(pictures, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
    }
    write_atomic(folder / f"{split}.json", json.dumps(labels))


def write_description(folder: Path, name: str, classes: Sequence[str], splits: Mapping[str, str]) -> Path:
    """Write `data.toml`; returns its path.

    Args:
        folder: Of the data set.
        name: Of the data set.
        classes: Names in order.
        splits: What to say of each split, in a comment.
    """
    lines = ["schema_version = 1", f'name = "{name}"', 'format = "coco"', f"classes = {json.dumps(list(classes))}"]
    for split, comment in splits.items():
        lines += ["", f"[{split}]  # {comment}", f'pictures = "{split}"', f'labels = "{split}.json"']
    path = folder / "data.toml"
    write_atomic(path, "\n".join([*lines, ""]))
    return path
