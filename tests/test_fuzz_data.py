"""Whatever stands in labels, the reader gives a data set or one line, never another exception."""

import json
from pathlib import Path

import numpy as np
import pytest
from data_sets import coco_labels, voc_labels, write_data_set, yolo_labels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_fuzz_readers import mutated

from scaler.data.check import check
from scaler.data.data_file import read_splits
from scaler.data.images import BrokenPictureError, picture_size, read_image
from scaler.errors import UserError

EXAMPLES = settings(
    max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
seeds = st.integers(min_value=0, max_value=2**32)
numbers = st.one_of(st.integers(), st.floats(), st.integers(0, 60), st.floats(-10, 60), st.booleans(), st.none())
values = st.recursive(numbers | st.text(max_size=5), lambda inner: st.lists(inner, max_size=5), max_leaves=6)
KEYS = ("id", "file_name", "width", "height", "image_id", "category_id", "bbox", "iscrowd", "name", "segmentation")


def read_and_look(path: Path) -> None:
    """Read strictly and leniently; whatever comes through has boxes with area inside their pictures."""
    try:
        assert read_splits(path).splits["train"].objects
    except UserError as error:
        assert "\n" not in str(error)
    splits = read_splits(path, strict=False)
    for picture in splits.splits["train"].pictures:
        corners = picture.boxes.corners
        assert np.isfinite(corners).all()
        assert (corners[:, 2:] > corners[:, :2]).all()
        assert (corners >= 0).all()
        assert (corners <= np.array([picture.width, picture.height] * 2)).all()
        assert ((picture.boxes.labels >= 0) & (picture.boxes.labels < 2)).all()
    json.dumps(check(splits, quick=True).as_data(), allow_nan=False)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    for layout in ("coco", "voc", "yolo"):
        (tmp_path / layout).mkdir()
        write_data_set(tmp_path / layout, layout)
    return {layout: tmp_path / layout for layout in ("coco", "voc", "yolo")}


@EXAMPLES
@given(seed=seeds)
@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_labels_with_pieces_lost_or_doubled(folders: dict[str, Path], layout: str, seed: int):
    file, whole = {
        "coco": ("train.json", json.dumps(coco_labels())),
        "voc": ("train-xml/a.xml", voc_labels("a.png")),
        "yolo": ("train-txt/a.txt", yolo_labels("a.png")),
    }[layout]
    (folders[layout] / file).write_bytes(mutated(whole.encode(), seed))
    read_and_look(folders[layout] / "data.toml")


@EXAMPLES
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(("images", "annotations", "categories")), st.integers(0, 3), st.sampled_from(KEYS), values
        ),
        min_size=1,
        max_size=4,
    )
)
def test_coco_labels_with_values_of_any_kind(folders: dict[str, Path], rows: list):
    data = coco_labels()
    for table, row, key, value in rows:
        data[table][row % len(data[table])][key] = value
    (folders["coco"] / "train.json").write_text(json.dumps(data))
    read_and_look(folders["coco"] / "data.toml")


@EXAMPLES
@given(boxes=st.lists(st.lists(st.floats() | st.floats(-1, 2), min_size=4, max_size=4), max_size=4))
def test_boxes_of_any_numbers(folders: dict[str, Path], boxes: list[list[float]]):
    text = "".join(f"1 {' '.join(map(repr, box))}\n" for box in boxes)
    (folders["yolo"] / "train-txt" / "a.txt").write_text(text)
    read_and_look(folders["yolo"] / "data.toml")
    rows = [{"image_id": 11, "category_id": 7, "bbox": [50 * value for value in box]} for box in boxes]
    (folders["coco"] / "train.json").write_text(json.dumps({**coco_labels(), "annotations": rows}))
    read_and_look(folders["coco"] / "data.toml")


@EXAMPLES
@given(seed=seeds)
def test_a_data_toml_with_pieces_lost_or_doubled(folders: dict[str, Path], seed: int):
    whole = write_data_set(folders["voc"], "voc").read_bytes()
    path = folders["voc"] / "other.toml"
    path.write_bytes(mutated(whole, seed))
    for strict in (True, False):
        try:
            read_splits(path, strict=strict)
        except UserError as error:
            assert "\n" not in str(error)


@EXAMPLES
@given(seed=seeds, suffix=st.sampled_from((".png", ".jpg", ".bmp")))
def test_pictures_with_pieces_lost_or_doubled(tmp_path: Path, seed: int, suffix: str):
    import cv2

    whole = cv2.imencode(suffix, np.full((20, 30, 3), 99, np.uint8))[1].tobytes()
    path = tmp_path / f"a{suffix}"
    path.write_bytes(mutated(whole, seed))
    for read in (read_image, picture_size):
        try:
            read(path)
        except BrokenPictureError as error:
            assert str(error).startswith(f"{path}: ")
