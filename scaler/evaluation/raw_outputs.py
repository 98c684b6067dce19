"""From what exported networks write to the boxes and scores of `Detector.raw`, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from scaler.data.dataset import FloatArray, Image, IntArray
from scaler.data.preprocessing import Preprocessing, normalised

BoxesAndScores: TypeAlias = tuple[FloatArray, FloatArray]


def in_batches(
    images: Image,
    preprocessing: Preprocessing,
    run: Callable[[FloatArray], BoxesAndScores],
    *,
    most: int,
    fixed: bool,
) -> BoxesAndScores:
    """Run fitted pictures through a network, as many at a time as it takes.

    Args:
        images: `[pictures, size, size, 3]`, uint8.
        preprocessing: What the network wants pictures to be like.
        run: Makes boxes and scores of the network's input `[batch, 3, size, size]`.
        most: Pictures at a time; 0: all at once.
        fixed: Whether the network takes no fewer; the last ones are then filled up with zeros.

    Returns:
        Boxes `[pictures, boxes, 4]`, scores `[pictures, boxes, classes]`.
    """
    step = most or len(images)
    parts = []
    for start in range(0, len(images), step):
        values = normalised(images[start : start + step], preprocessing)
        if fixed and len(values) < step:
            values = np.concatenate([values, np.zeros((step - len(values), *values.shape[1:]), np.float32)])
        parts.append(run(values))
    boxes, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    return boxes[: len(images)], scores[: len(images)]


def only_selected(scores: FloatArray, selected: IntArray) -> FloatArray:
    """Scores `[batch, boxes, classes]`, 0 but where a row of picture, class, box selects them (ONNX' NMS)."""
    kept = np.zeros_like(scores)
    place = selected[:, 0], selected[:, 2], selected[:, 1]
    kept[place] = scores[place]
    return kept


def scattered(counts: IntArray, scores: FloatArray, labels: IntArray, classes: int) -> FloatArray:
    """Scores `[batch, boxes, classes]` of the detections that TensorRT's EfficientNMS leaves.

    Args:
        counts: `[batch, 1]`, detections of each picture; what lies behind them is without meaning.
        scores: `[batch, boxes]`.
        labels: `[batch, boxes]`.
        classes: How many there are.
    """
    every = np.zeros((*scores.shape, classes), np.float32)
    picture, place = np.nonzero(np.arange(scores.shape[1]) < counts.reshape(-1, 1))
    every[picture, place, labels[picture, place]] = scores[picture, place]
    return every
