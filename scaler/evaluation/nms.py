"""Non-maximum suppression: which of a network's boxes are the objects of a picture.

A box counts once for every class whose score is high enough, as in Scaled-YOLOv4's `test.py`, and is dropped only by a
better box of the same class. OpenCV compares the boxes.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.data import require_cv2
from scaler.data.dataset import BoolArray, FloatArray, IntArray
from scaler.evaluation.detections import Detections, Selection

DoubleArray: TypeAlias = npt.NDArray[np.float64]

LARGEST = 1e5
"""Pixels. Boxes are cut there: an untrained network of YOLOv3's coding makes infinite ones."""
MOST_PAIRS = 30_000
"""Pairs of box and class of a picture, the best, that are looked at; an untrained network has hundreds of thousands."""
_FIRST_LOOK = 2
"""Pairs that are looked at first, as a multiple of those that are wanted."""
_GROWTH = 2


def nms(boxes: FloatArray, scores: FloatArray, selection: Selection) -> Detections:
    """The best boxes of one picture.

    Whether a box stays depends on better ones alone, so the best pairs of box and class are looked at first and more
    of them only while fewer than `selection.most` stay: the result is that of all pairs, but for those beyond the best
    `MOST_PAIRS`.

    Args:
        boxes: `[boxes, 4]`, corners; in the same pixels as the result.
        scores: `[boxes, classes]`, 0 to 1.
        selection: Least score, largest overlap, how many.

    Returns:
        Best first; of equal scores the one of the earlier box, then of the earlier class. Boxes without area, and what
        is not a number, are never among them.
    """
    corners = np.clip(np.asarray(boxes, np.float64), -LARGEST, LARGEST)
    sizes = corners[:, 2:] - corners[:, :2]
    solid: BoolArray = np.all(sizes > 0, axis=1, keepdims=True)  # not where a corner is not a number
    everything = np.asarray(scores, np.float32)
    candidates = np.flatnonzero((everything > selection.confidence) & solid)
    values = everything.reshape(-1)[candidates]
    pairs = min(len(values), MOST_PAIRS)
    look = _FIRST_LOOK * selection.most
    while True:
        best = _best(values, min(look, pairs))
        rows, labels = np.divmod(candidates[best], everything.shape[1])
        kept = _kept(corners[rows], sizes[rows], labels, values[best], selection.iou)
        if len(kept) >= selection.most or look >= pairs:
            break
        look *= _GROWTH
    kept = kept[: selection.most]
    return Detections(np.asarray(corners[rows[kept]], np.float32), values[best[kept]], labels[kept])


def _best(values: FloatArray, count: int) -> IntArray:
    """Indices of the `count` largest values, best first; of equal ones the earlier."""
    chosen: IntArray = np.arange(len(values))
    if count < len(values):
        least = np.partition(values, len(values) - count)[len(values) - count]
        above, equal = np.flatnonzero(values > least), np.flatnonzero(values == least)
        chosen = np.sort(np.concatenate([above, equal[: count - len(above)]]))
    return chosen[np.argsort(-values[chosen], kind="stable")]


def _kept(corners: DoubleArray, sizes: DoubleArray, labels: IntArray, values: FloatArray, iou: float) -> IntArray:
    """Indices of boxes, given the best first, that no better box of their class overlaps by more than `iou`."""
    if not len(labels):
        return np.zeros(0, np.int64)
    # OpenCV moves the boxes of each class beyond those of the class before, which wants them to begin at 0
    rectangles = np.concatenate([corners[:, :2] - corners[:, :2].min(), sizes], axis=1)
    found = require_cv2().dnn.NMSBoxesBatched(rectangles, values, labels.astype(np.int32), -1.0, iou)
    return np.asarray(found, np.int64).reshape(-1)
