"""Anchors by k-means."""

from pathlib import Path

import numpy as np
import pytest

from scaler.data.anchors import cluster_anchors, iou, k_means, mean_best_iou, object_sizes
from scaler.data.dataset import Boxes, Dataset, Picture
from scaler.errors import UserError
from scaler.graph.boxes import Scale

SCALES = (Scale(("coarse",), 32, ((100, 90), (150, 190))), Scale(("fine",), 8, ((10, 13), (16, 30))))
CENTRES = np.array([[12, 20], [40, 12], [80, 60], [200, 180]], np.float32)


def scattered(count: int = 400, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (CENTRES[rng.integers(4, size=count)] * rng.uniform(0.95, 1.05, (count, 2))).astype(np.float32)


def dataset(sizes: np.ndarray, width: int = 640, height: int = 480) -> Dataset:
    corners = np.concatenate([np.zeros_like(sizes), sizes], axis=1)
    picture = Picture(Path("a.png"), Boxes.of(corners, np.zeros(len(sizes))), width, height)
    return Dataset("made", "train", ("thing",), (picture,))


def test_iou_of_sizes_by_hand():
    assert iou(np.array([[10, 10]], np.float32), np.array([[10, 10], [20, 10], [5, 20]], np.float32)).tolist() == [
        pytest.approx([1, 0.5, 50 / 150])
    ]


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_found_whatever_the_first_guess(seed: int):
    found = k_means(scattered(), 4, np.random.default_rng(seed))
    found = found[np.argsort(found.prod(axis=1))]
    expected = CENTRES[np.argsort(CENTRES.prod(axis=1))]
    assert np.allclose(found, expected, rtol=0.03)


def test_small_anchors_go_to_the_fine_scale_wherever_it_stands():
    found = cluster_anchors(dataset(scattered()), SCALES, 640)
    coarse, fine = found.anchors
    assert np.allclose(coarse, [[80, 60], [200, 180]], rtol=0.05)
    assert np.allclose(fine, [[12, 20], [40, 12]], rtol=0.05)
    assert found.mean_iou > 0.93 > found.mean_iou_before
    assert cluster_anchors(dataset(scattered()), SCALES, 640) == found, "the same seed"


def test_sizes_are_those_in_the_network_s_input():
    sizes = object_sizes(dataset(np.array([[64, 32], [2, 2]], np.float32)), 320)
    assert sizes.tolist() == [[32, 16]], "halved, and what is smaller than two pixels is left out"


def test_ignored_objects_do_not_count():
    picture = Picture(Path("a.png"), Boxes.of([[0, 0, 9, 9], [0, 0, 50, 50]], [0, 0], [False, True]), 100, 100)
    assert object_sizes(Dataset("made", "train", ("thing",), (picture,)), 100).tolist() == [[9, 9]]


def test_too_few_objects_are_told():
    with pytest.raises(UserError, match="made: 3 objects of 2 pixels or more at 640 px are too few for 4 anchors"):
        cluster_anchors(dataset(scattered(3)), SCALES, 640)


def test_the_anchors_fit_no_worse_than_any_sample_of_the_data():
    sizes = np.random.default_rng(0).lognormal(3, 0.8, (500, 2)).astype(np.float32)
    best = mean_best_iou(sizes, k_means(sizes, 6, np.random.default_rng(0)))
    for seed in range(10):
        assert best > mean_best_iou(sizes, np.random.default_rng(seed).permutation(sizes)[:6])
