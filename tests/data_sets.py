"""Small data sets on the disk for the tests of the readers: the same two pictures in every format."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaler.data.images import write_image

CLASSES = ("cat", "dog")
SIZES = {"a.png": (40, 30), "b.png": (20, 50)}
"""Width and height."""
OBJECTS = {"a.png": [("cat", (1, 2, 11, 22)), ("dog", (20, 0, 40, 30))], "b.png": [("dog", (3, 4, 5, 9))]}
"""Class and corners, in pixels."""


def write_pictures(folder: Path, sizes: Mapping[str, tuple[int, int]] = SIZES, seed: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name, (width, height) in sizes.items():
        write_image(folder / name, rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def write_toml(folder: Path, layout: str, splits: Sequence[str] = ("train",), extra: str = "") -> Path:
    ends = {"coco": ".json", "voc": "-xml", "yolo": "-txt"}
    lines = ["schema_version = 1", 'name = "pets"', f'format = "{layout}"', f"classes = {json.dumps(CLASSES)}"]
    for split in splits:
        lines += [f"[{split}]", f'pictures = "{split}"', f'labels = "{split}{ends[layout]}"', extra]
    path = folder / "data.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def coco_labels() -> dict[str, Any]:
    """Ids with gaps and out of order, as exports have them."""
    annotations = [
        {"id": 1, "image_id": image, "category_id": {"cat": 90, "dog": 7}[name], "bbox": [x1, y1, x2 - x1, y2 - y1]}
        for image, objects in zip((11, "b"), OBJECTS.values(), strict=True)
        for name, (x1, y1, x2, y2) in objects
    ]
    images = [
        {"id": image, "file_name": name, "width": width, "height": height}
        for image, (name, (width, height)) in zip((11, "b"), SIZES.items(), strict=True)
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 90, "name": "cat"}, {"id": 7, "name": "dog"}],
    }


def voc_labels(name: str) -> str:
    width, height = SIZES[name]
    objects = "".join(
        f"<object><name>{label}</name><difficult>0</difficult><part><bndbox><xmin>1</xmin></bndbox></part><bndbox>"
        f"<xmax>{x2}</xmax><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin><ymax>{y2}</ymax></bndbox></object>"
        for label, (x1, y1, x2, y2) in OBJECTS[name]
    )
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}</annotation>"


def yolo_labels(name: str) -> str:
    width, height = SIZES[name]
    lines = [
        f"{CLASSES.index(label)} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
        f"{(x2 - x1) / width} {(y2 - y1) / height}"
        for label, (x1, y1, x2, y2) in OBJECTS[name]
    ]
    return "\n".join(lines) + "\n"


def write_labels(folder: Path, layout: str, split: str = "train") -> Path:
    """The labels of a split; returns their file or folder."""
    if layout == "coco":
        path = folder / f"{split}.json"
        path.write_text(json.dumps(coco_labels()))
        return path
    suffix, text = (".xml", voc_labels) if layout == "voc" else (".txt", yolo_labels)
    path = folder / f"{split}-{suffix[1:]}"
    path.mkdir(parents=True, exist_ok=True)
    for name in SIZES:
        (path / name).with_suffix(suffix).write_text(text(name))
    return path


def write_data_set(folder: Path, layout: str, splits: Sequence[str] = ("train",)) -> Path:
    """The whole data set, its splits with different pixels; returns its `data.toml`."""
    for seed, split in enumerate(splits):
        write_pictures(folder / split, seed=seed)
        write_labels(folder, layout, split)
    return write_toml(folder, layout, splits)


def edit_coco(path: Path, **changes: Any) -> None:
    """Replace top-level entries of COCO labels."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
