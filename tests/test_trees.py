"""The tree crowns: the right wheel only, and tiles whose boxes sit where they sat."""

import zipfile

import numpy as np
import pytest

from scaler.data import trees
from scaler.data.data_file import read_splits
from scaler.data.trees import SCENES, Scene, fetch_trees
from scaler.errors import FileError, UserError

pytest.importorskip("cv2")

COUNTS = {"train": (48, 541), "val": (10, 173), "test": (2, 98)}
"""Tiles, and crowns whose larger part lies in them."""


def test_another_wheel_is_refused(tmp_path):
    wheel = tmp_path / "deepforest.whl"
    wheel.write_bytes(b"no wheel")
    with pytest.raises(FileError, match=r"deepforest\.whl: its SHA-256 differs; expected the wheel of deepforest==2"):
        fetch_trees(tmp_path / "trees", wheel)
    with pytest.raises(FileError, match=r"none\.whl: No such file"):
        fetch_trees(tmp_path / "trees", tmp_path / "none.whl")
    assert not (tmp_path / "trees").exists()


def test_a_failed_download_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(trees, "PACKAGE", "no-such-package-of-anybody==0.0.0")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError, match=r"could not be downloaded: .*give it with --from"):
        fetch_trees(tmp_path / "trees")


def test_a_crown_at_the_edge_of_a_tile_counts_where_its_larger_part_is():
    boxes = np.array([[10, 10, 30, 30], [90, 40, 120, 60], [99.5, 0, 130, 20]], np.float32)
    left, right = trees._inside(boxes, 0, 0, 100), trees._inside(boxes, 100, 0, 100)
    assert left.corners.tolist() == [[10, 10, 30, 30], [90, 40, 100, 60]]
    assert left.ignored.tolist() == [False, True]
    assert right.corners.tolist() == [[0, 40, 20, 60], [0, 0, 30, 20]]
    assert right.ignored.tolist() == [False, False]


@pytest.mark.parametrize(("column", "expected"), [(0, "train"), (4, "train"), (5, "val"), (6, "val")])
def test_no_ground_is_both_trained_and_validated_on(column: int, expected: str):
    assert trees._split(Scene("a", 2), column, 7) == expected
    assert trees._split(Scene("a", -1), column, 7) == "test"


@pytest.mark.slow
def test_the_real_wheel_gives_the_crowns(tmp_path):
    splits = read_splits(fetch_trees(tmp_path / "trees"))
    counts = {split: (len(data.pictures), data.objects) for split, data in splits.splits.items()}
    assert counts == COUNTS
    assert sum(pictures for pictures, _ in counts.values()) == 7 * 7 + 3 * 3 + len(SCENES) - 2
    with zipfile.ZipFile(trees._downloaded(tmp_path)) as archive:
        image, boxes = trees._scene(archive, SCENES[0])
    assert image.shape == (2472, 2299, 3)
    assert len(boxes) == 574
