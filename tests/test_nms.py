"""Suppression against the rule written down as it is told: take the best, drop what overlaps it, go on."""

import numpy as np
import pytest

from scaler.evaluation import nms as module
from scaler.evaluation.detections import Detections, Selection
from scaler.evaluation.nms import nms


def random_boxes(rng, count, area=200.0, largest=80.0):
    corner, size = rng.random((count, 2)) * area, rng.random((count, 2)) * largest + 1
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def iou(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / ((one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared)


def greedy(boxes, scores, selection):
    """Every pair of box and class above the confidence, compared with all better ones of its class."""
    pairs = sorted(
        (-float(scores[box, label]), box, label)
        for box in range(len(boxes))
        for label in range(scores.shape[1])
        if scores[box, label] > selection.confidence
    )
    kept = []
    for negative, box, label in pairs:
        if all(
            other != label or iou(boxes[box].tolist(), boxes[better].tolist()) <= selection.iou
            for _, better, other in kept
        ):
            kept.append((negative, box, label))
    kept = kept[: selection.most]
    rows = [box for _, box, _ in kept]
    return boxes[rows], np.array([-negative for negative, _, _ in kept], np.float32), [label for _, _, label in kept]


def assert_same(found: Detections, corners, scores, labels):
    np.testing.assert_array_equal(found.corners, np.asarray(corners, np.float32).reshape(-1, 4))
    np.testing.assert_array_equal(found.scores, scores)
    assert found.labels.tolist() == list(labels)
    assert (found.corners.dtype, found.scores.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)


@pytest.mark.parametrize("seed", range(6))
def test_random_boxes_are_suppressed_as_the_rule_says(seed: int):
    rng = np.random.default_rng(seed)
    boxes, scores = random_boxes(rng, 120) - 40, rng.random((120, 3)).astype(np.float32)  # some beyond the edges
    selection = Selection(confidence=0.3, iou=[0.3, 0.5, 0.65][seed % 3], most=[10, 300][seed % 2])
    found = nms(boxes, scores, selection)
    assert_same(found, *greedy(boxes, scores, selection))
    assert 0 < len(found) <= selection.most


def test_equal_scores_are_taken_in_the_order_of_boxes_then_classes():
    boxes = random_boxes(np.random.default_rng(1), 60)
    scores = np.random.default_rng(2).choice(np.array([0.25, 0.5], np.float32), (60, 4))
    selection = Selection(confidence=0.1, iou=0.4, most=50)
    assert_same(nms(boxes, scores, selection), *greedy(boxes, scores, selection))


def test_a_box_may_be_several_things_but_drops_only_boxes_of_its_own_class():
    boxes = np.array([[10, 10, 50, 50], [12, 10, 52, 50]], np.float32)
    scores = np.array([[0.9, 0.6], [0.8, 0.0]], np.float32)
    found = nms(boxes, scores, Selection(confidence=0.1, iou=0.5))
    assert_same(found, boxes[[0, 0]], np.array([0.9, 0.6], np.float32), [0, 1])


def test_a_box_of_one_class_left_of_the_picture_leaves_other_classes_alone():
    boxes = np.array([[0, 0, 600, 600], [-590, -590, 10, 10]], np.float32)
    found = nms(boxes, np.array([[0.9, 0], [0, 0.8]], np.float32), Selection(iou=0.1))
    assert found.labels.tolist() == [0, 1]


def test_looking_at_the_best_pairs_first_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(3)
    boxes = random_boxes(rng, 400, area=60)  # crowded: many looks until enough stay
    scores = rng.choice(np.linspace(0.1, 0.9, 12, dtype=np.float32), (400, 5))  # many equal ones at the border
    selection = Selection(confidence=0.15, iou=0.3, most=40)
    monkeypatch.setattr(module, "_FIRST_LOOK", 10**6)
    whole = nms(boxes, scores, selection)
    monkeypatch.setattr(module, "_FIRST_LOOK", 1)
    assert_same(nms(boxes, scores, selection), whole.corners, whole.scores, whole.labels)


def test_an_untrained_network_of_coco_makes_no_more_detections_than_wanted():
    rng = np.random.default_rng(4)
    boxes = random_boxes(rng, 10_647, area=600)
    scores = np.full((10_647, 80), 0.25, np.float32)
    found = nms(boxes, scores, Selection(confidence=0.001, iou=0.65, most=300))
    assert len(found) == 300
    assert (found.scores == 0.25).all()


@pytest.mark.parametrize("boxes", [0, 5])
def test_no_box_above_the_confidence_is_no_detection(boxes: int):
    found = nms(np.zeros((boxes, 4), np.float32), np.zeros((boxes, 3), np.float32), Selection(confidence=0.0))
    assert len(found) == 0
    assert found.corners.shape == (0, 4)


def test_what_is_no_box_is_left_out_and_what_is_endless_is_cut():
    nan, inf = np.nan, np.inf
    boxes = np.array(
        [[0, 0, 0, 9], [5, 5, 2, 9], [nan, 0, 5, 5], [0, 0, inf, 9], [1, 1, 5, 5], [1, 1, 5, 5]], np.float32
    )
    scores = np.array([[0.9], [0.9], [0.9], [0.8], [nan], [0.7]], np.float32)
    found = nms(boxes, scores, Selection())
    assert_same(found, [[0, 0, module.LARGEST, 9], [1, 1, 5, 5]], np.array([0.8, 0.7], np.float32), [0, 0])
