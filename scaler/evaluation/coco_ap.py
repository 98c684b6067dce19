"""Average precision by COCO's rule, computed by faster-coco-eval from arrays, without files.

Objects whose boxes are marked `ignored` are COCO's crowds: a detection that lies in one is neither hit nor miss, and
any number of them may. COCO sorts objects into small, medium and large ones by the area of their masks; boxes have
more, so that these three numbers differ a little from those that COCO's own annotations give.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from scaler.data.dataset import Boxes, FloatArray
from scaler.errors import MissingExtraError
from scaler.evaluation.detections import Detections

RECALLS = tuple(index / 100 for index in range(101))
"""Where COCO reads the precision off."""
_ALL_AREAS, _HUNDRED_DETECTIONS, _IOU_50 = 0, -1, 0


class CocoAp(NamedTuple):
    """Fractions; None where there is no object to find."""

    ap: float | None
    """Mean of IoU 0.50, 0.55, … 0.95."""
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    """Objects of less than 32 x 32 pixels."""
    ap_medium: float | None
    ap_large: float | None
    """Objects of more than 96 x 96 pixels."""
    ar_1: float | None
    """Recall with the best detection of each class and picture."""
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None


class ClassAp(NamedTuple):
    """Of one class."""

    ap: float | None
    ap50: float | None
    precision: tuple[float, ...]
    """At IoU 0.5 and the recalls `RECALLS`: the highest there or further on; empty where there is no object."""


def coco_ap(truth: Sequence[Boxes], found: Sequence[Detections], classes: int) -> tuple[CocoAp, tuple[ClassAp, ...]]:
    """COCO's twelve numbers, and those of each class.

    Args:
        truth: Objects, picture by picture.
        found: Detections of the same pictures, corners in the same pixels.
        classes: Number of classes.

    Raises:
        MissingExtraError: The package `faster-coco-eval` is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("computing AP", "faster-coco-eval", "evaluate") from None
    pictures = [{"id": picture} for picture in range(len(truth))]
    categories = [{"id": label} for label in range(classes)]
    frame = {"images": pictures, "categories": categories}
    objects, detections = (
        COCO({**frame, "annotations": list(rows)}, print_function=_silent)
        for rows in (_object_rows(truth), _detection_rows(found))
    )
    judge = COCOeval_faster(objects, detections, "bbox", print_function=_silent)
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    precision = np.asarray(judge.eval["precision"])  # IoU, recall, class, area, detections
    by_class = precision[:, :, :, _ALL_AREAS, _HUNDRED_DETECTIONS]
    return CocoAp(*map(_fraction, judge.stats[:12])), tuple(_class_ap(by_class[:, :, k]) for k in range(classes))


def _silent(*_: object) -> None:
    """Print nothing."""


def _fraction(value: float) -> float | None:
    """COCO writes -1 where there is nothing to find."""
    return float(value) if value >= 0 else None


def _class_ap(precision: FloatArray) -> ClassAp:
    """Of the precisions `[IoU, recall]` of a class."""
    if (precision < 0).all():
        return ClassAp(None, None, ())
    at_half = precision[_IOU_50]
    return ClassAp(float(precision.mean()), float(at_half.mean()), tuple(map(float, at_half)))


def _object_rows(truth: Sequence[Boxes]) -> Iterator[dict[str, Any]]:
    number = 0
    for picture, boxes in enumerate(truth):
        for corners, label, ignored in zip(_plain(boxes.corners), boxes.labels, boxes.ignored, strict=True):
            number += 1  # COCO takes 0 for "not found"
            yield _row(number, picture, int(label), corners) | {"iscrowd": int(ignored)}


def _detection_rows(found: Sequence[Detections]) -> Iterator[dict[str, Any]]:
    number = 0
    for picture, detections in enumerate(found):
        parts = _plain(detections.corners), detections.labels, detections.scores
        for corners, label, score in zip(*parts, strict=True):
            number += 1
            yield _row(number, picture, int(label), corners) | {"iscrowd": 0, "score": float(score)}


def _plain(corners: FloatArray) -> list[list[float]]:
    rows: list[list[float]] = np.asarray(corners, np.float64).tolist()
    return rows


def _row(number: int, picture: int, label: int, corners: list[float]) -> dict[str, Any]:
    x1, y1, x2, y2 = corners
    box = [x1, y1, x2 - x1, y2 - y1]
    return {"id": number, "image_id": picture, "category_id": label, "bbox": box, "area": box[2] * box[3]}
