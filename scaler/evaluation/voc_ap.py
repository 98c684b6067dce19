"""Average precision by the rule of Pascal VOC's development kit, at IoU 0.5.

A detection, the best first, belongs to the object of its class and picture that it overlaps most. It is a hit if it
overlaps it by at least 0.5 and no better one has it already; a second one is a miss. Objects marked `ignored`
(VOC's `difficult`) need not be found, and who finds one is neither hit nor miss.

Corners are exclusive here: a box has the area `(x2 - x1) (y2 - y1)`. The kit counts inclusive corners, with `+ 1`; its
`x1, y1, x2, y2` are our `x1 - 1, y1 - 1, x2, y2`, and the areas are the same.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge" (IJCV 2010), section 4.2; for the area VOC 2010
and later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scaler.data.dataset import BoolArray, Boxes, FloatArray, IntArray
from scaler.evaluation.detections import Detections

LEAST_IOU = 0.5


class VocAp(NamedTuple):
    """AP50 of one class, fractions; None where there is no object to find."""

    area: float | None
    """Area under the precision that never rises with recall (VOC 2010 to 2012)."""
    eleven_points: float | None
    """Mean of the highest precisions from recall 0, 0.1, … 1 on (VOC 2007)."""


def voc_ap(truth: Sequence[Boxes], found: Sequence[Detections], classes: int) -> tuple[VocAp, ...]:
    """AP50 of each class by both conventions.

    Args:
        truth: Objects, picture by picture.
        found: Detections of the same pictures, best first, corners in the same pixels.
        classes: Number of classes.
    """
    judged = [_judged(boxes, detections) for boxes, detections in zip(truth, found, strict=True)]
    hit, counts = (np.concatenate([np.zeros(0, bool), *(one[part] for one in judged)]) for part in (0, 1))
    scores = np.concatenate([np.zeros(0, np.float32), *(detections.scores for detections in found)])
    labels = np.concatenate([np.zeros(0, np.int64), *(detections.labels for detections in found)])
    wanted = np.concatenate([np.zeros(0, np.int64), *(boxes.labels[~boxes.ignored] for boxes in truth)])
    to_find = np.bincount(wanted, minlength=classes)
    order = np.argsort(-scores, kind="stable")
    order = order[counts[order]]
    return tuple(_areas(np.cumsum(hit[order[labels[order] == label]]), int(to_find[label])) for label in range(classes))


def overlaps(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """Intersection over union `[boxes, others]` of corners; 0 where neither has an area."""
    first, second = np.asarray(boxes, np.float64)[:, np.newaxis], np.asarray(others, np.float64)[np.newaxis]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=-1)
    union = (first[..., 2:] - first[..., :2]).prod(axis=-1) + (second[..., 2:] - second[..., :2]).prod(axis=-1) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def _judged(boxes: Boxes, detections: Detections) -> tuple[BoolArray, BoolArray]:
    """Of the detections of one picture: whether each hits, and whether it counts at all."""
    hit, counts = np.zeros(len(detections), bool), np.ones(len(detections), bool)
    if not len(boxes) or not len(detections):
        return hit, counts
    iou = overlaps(detections.corners, boxes.corners)
    iou[detections.labels[:, np.newaxis] != boxes.labels] = 0
    nearest = iou.argmax(axis=1)
    taken: set[int] = set()
    for index in np.flatnonzero(iou.max(axis=1) >= LEAST_IOU):
        thing = int(nearest[index])
        if boxes.ignored[thing]:
            counts[index] = False
        elif thing not in taken:
            hit[index] = True
            taken.add(thing)
    return hit, counts


def _areas(hits: IntArray, to_find: int) -> VocAp:
    """From the number of hits among the best 1, 2, 3, … detections."""
    if not to_find:
        return VocAp(None, None)
    if not len(hits):
        return VocAp(0.0, 0.0)
    precision = hits / np.arange(1, len(hits) + 1)
    highest = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(hits, prepend=0)
    area = float((highest * steps).sum() / to_find)
    # whole numbers: 3 of 10 objects are recall 0.3, which 3 * 0.1 is not
    points = [highest[10 * hits >= tenth * to_find] for tenth in range(11)]
    return VocAp(area, float(np.mean([rest[0] if len(rest) else 0.0 for rest in points])))
