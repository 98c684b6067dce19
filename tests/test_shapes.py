"""The generated shapes: the same everywhere, and their boxes lie on what is seen."""

import json

import numpy as np
import pytest

from scaler.data import shapes
from scaler.data.shapes import CLASSES, drawn, make_shapes
from scaler.errors import UsageError

pytest.importorskip("cv2")


@pytest.mark.parametrize("index", range(20))
def test_a_picture_depends_on_its_seed_alone(index: int):
    first, again = (drawn(96, np.random.default_rng((1, 0, index))) for _ in range(2))
    assert (first[0] == again[0]).all()
    assert (first[1].corners == again[1].corners).all()
    assert not (first[0] == drawn(96, np.random.default_rng((2, 0, index)))[0]).all()


@pytest.mark.slow
def test_boxes_are_whole_pixels_inside_the_picture_and_of_every_size():
    boxes = [drawn(160, np.random.default_rng((0, 0, index)))[1] for index in range(150)]
    corners = np.concatenate([found.corners for found in boxes])
    sides = corners[:, 2:] - corners[:, :2]
    assert corners.min() >= 0
    assert corners.max() <= 160
    assert sides.min() >= 3
    assert (sides.max(axis=1) < 16).mean() > 0.2, "small ones"
    assert (sides.max(axis=1) > 48).mean() > 0.1, "large ones"
    counts = np.bincount(np.concatenate([found.labels for found in boxes]), minlength=len(CLASSES))
    assert counts.min() > 0.8 * counts.mean()


def test_a_box_holds_what_is_visible_of_its_shape(monkeypatch: pytest.MonkeyPatch):
    """On a black ground with sharp edges and no blur, what is lit lies in a box, and every box touches its shape."""
    soft = shapes._cover
    monkeypatch.setattr(shapes, "_cover", lambda *drawn: (soft(*drawn) >= 0.5).astype(float))
    monkeypatch.setattr(shapes, "_ground", lambda size, _: np.zeros((size, size, 3), np.uint8))
    monkeypatch.setattr(shapes, "_blurred", lambda image, _: image)
    for index in range(30):
        image, boxes = drawn(128, np.random.default_rng(index))
        inside = np.zeros((128, 128), bool)
        for x1, y1, x2, y2 in boxes.corners.astype(int):
            inside[y1:y2, x1:x2] = True
            lit = image[y1:y2, x1:x2].any(axis=2)
            assert lit[0].any()
            assert lit[-1].any()
            assert lit[:, 0].any()
            assert lit[:, -1].any()
        assert not image.any(axis=2)[~inside].any()


def test_the_files_are_a_coco_data_set(tmp_path):
    told = []
    path = make_shapes(tmp_path / "s", train=3, val=2, size=64, seed=5, progress=lambda *done: told.append(done))
    assert told == [(number, 5) for number in range(1, 6)]
    assert path == tmp_path / "s" / "data.toml"
    labels = json.loads((tmp_path / "s" / "train.json").read_text())
    assert [image["file_name"] for image in labels["images"]] == ["00000.png", "00001.png", "00002.png"]
    assert [category["name"] for category in labels["categories"]] == list(CLASSES)
    first = [a["bbox"] for a in labels["annotations"] if a["image_id"] == 1]
    expected = drawn(64, np.random.default_rng((5, 0, 0)))[1].corners
    assert np.allclose(np.array(first)[:, 2:], expected[:, 2:] - expected[:, :2])


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        make_shapes(tmp_path / name, train=2, val=1, size=64, seed=3)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize(("wrong", "message"), [({"size": 8}, "--size 8"), ({"train": 0}, "--train 0")])
def test_numbers_outside_their_range_are_refused(tmp_path, wrong, message):
    with pytest.raises(UsageError, match=message):
        make_shapes(tmp_path / "s", **wrong)
    assert not (tmp_path / "s").exists()
