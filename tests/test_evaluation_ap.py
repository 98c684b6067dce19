"""Average precision against the reference implementations: pycocotools, and VOC's development kit by its rule."""

import contextlib
import io
import json

import numpy as np
import pytest

from scaler.data.dataset import Boxes
from scaler.evaluation.coco_ap import CocoAp, coco_ap
from scaler.evaluation.detections import Detections
from scaler.evaluation.metrics import Metrics, Skipped, score
from scaler.evaluation.voc_ap import VocAp, overlaps, voc_ap


def random_case(seed: int, pictures: int = 40, classes: int = 4, crowds: float = 0.15):
    """Objects of all sizes, some pictures and one class without any, and detections near them, twice, and anywhere."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for _ in range(pictures):
        count = int(rng.integers(0, 7))
        corner, size = rng.random((count, 2)) * 300, np.exp(rng.uniform(np.log(6), np.log(250), (count, 2)))
        corners = np.round(np.concatenate([corner, corner + size], axis=1))
        labels = rng.integers(0, classes - 1, count)
        truth.append(Boxes.of(corners, labels, rng.random(count) < crowds))
        near = np.concatenate([corners + rng.normal(0, spread, corners.shape) for spread in (1.5, 6)])
        near_labels = np.where(rng.random(2 * count) < 0.85, np.tile(labels, 2), rng.integers(0, classes, 2 * count))
        stray = int(rng.integers(0, 130 if rng.random() < 0.1 else 5))  # sometimes more than COCO's hundred
        away = np.sort(rng.random((stray, 2, 2)) * 400, axis=1).reshape(-1, 4)
        boxes = np.concatenate([near, away])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        everywhere = np.concatenate([near_labels, rng.integers(0, classes, stray)])
        scores = np.round(rng.random(len(boxes)), 2)  # equal ones occur
        found.append(Detections.of(boxes, scores, everywhere))
    return truth, found, classes


def by_pycocotools(truth, found, classes) -> list[float]:
    """The twelve numbers by COCO's own code."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, results = [], []
    for picture, boxes in enumerate(truth):
        for (x1, y1, x2, y2), label, crowd in zip(
            boxes.corners.tolist(), boxes.labels.tolist(), boxes.ignored.tolist(), strict=True
        ):
            row = {"image_id": picture, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            row |= {"area": (x2 - x1) * (y2 - y1), "iscrowd": int(crowd), "id": len(annotations) + 1}
            annotations.append(row)
    for picture, detections in enumerate(found):
        for (x1, y1, x2, y2), label, value in zip(
            detections.corners.tolist(), detections.labels.tolist(), detections.scores.tolist(), strict=True
        ):
            row = {"image_id": picture, "category_id": label, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": value}
            results.append(row)
    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO()
        objects.dataset = {
            "info": {},
            "images": [{"id": picture} for picture in range(len(truth))],
            "categories": [{"id": label} for label in range(classes)],
            "annotations": annotations,
        }
        objects.createIndex()
        judge = COCOeval(objects, objects.loadRes(results), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return [float(value) for value in judge.stats]


@pytest.mark.parametrize("seed", range(4))
def test_the_twelve_numbers_are_those_of_pycocotools(seed: int):
    case = random_case(seed)
    numbers, _ = coco_ap(*case)
    theirs = by_pycocotools(*case)
    assert [-1 if value is None else value for value in numbers] == pytest.approx(theirs, abs=1e-12)
    assert 0.1 < numbers.ap < 0.9


def test_pictures_without_crowds_give_the_numbers_of_pycocotools_too():
    case = random_case(11, pictures=15, crowds=0.0)
    numbers, _ = coco_ap(*case)
    assert list(numbers) == pytest.approx(by_pycocotools(*case), abs=1e-12)


def test_a_class_of_its_own_gives_what_the_class_has_among_others():
    truth, found, classes = random_case(5)
    together, by_class = coco_ap(truth, found, classes)
    for label in range(classes):
        alone_truth = [
            Boxes.of(b.corners[m], b.labels[m] * 0, b.ignored[m]) for b in truth for m in [b.labels == label]
        ]
        alone_found = [
            Detections.of(d.corners[m], d.scores[m], d.labels[m] * 0) for d in found for m in [d.labels == label]
        ]
        alone, _ = coco_ap(alone_truth, alone_found, 1)
        assert (by_class[label].ap, by_class[label].ap50) == pytest.approx((alone.ap, alone.ap50))
    assert by_class[-1].ap is None  # no object
    assert by_class[-1].precision == ()
    assert together.ap == pytest.approx(np.mean([row.ap for row in by_class[:-1]]))


def test_nothing_found_is_zero_and_nothing_to_find_is_no_number(capfd: pytest.CaptureFixture[str]):
    objects = [Boxes.of([[0, 0, 50, 50]], [0]), Boxes.of([], [])]
    nothing = [Detections.of([], [], [])] * 2
    missed, (one, other) = coco_ap(objects, nothing, 2)
    assert (missed.ap, missed.ap50, missed.ar_100, missed.ap_medium) == (0, 0, 0, 0)
    assert missed.ap_small is None
    assert (one.ap, other.ap) == (0, None)
    empty, _ = coco_ap([Boxes.of([], [])] * 2, [Detections.of([[0, 0, 9, 9]], [0.5], [0])] * 2, 2)
    assert empty == CocoAp(*[None] * 12)
    assert coco_ap([], [], 1)[0] == CocoAp(*[None] * 12)
    assert voc_ap(objects, nothing, 2) == (VocAp(0, 0), VocAp(None, None))
    assert voc_ap([], [], 1) == (VocAp(None, None),)
    assert capfd.readouterr() == ("", "")  # the library keeps quiet


def test_the_sizes_of_coco_are_areas_of_boxes():
    sides = {"ap_small": 31, "ap_medium": 33, "ap_large": 97}
    for name, side in sides.items():
        boxes = Boxes.of([[0, 0, side, side]], [0])
        numbers, _ = coco_ap([boxes], [Detections.of(boxes.corners, [0.9], [0])], 1)
        assert {size: getattr(numbers, size) for size in sides} == {s: 1.0 if s == name else None for s in sides}


# ---------------------------------------------------------------------------------------------------------------- VOC


def by_the_kit(truth, found, label, eleven_points):
    """VOCevaldet.m and VOCap.m put into Python step by step: inclusive 1-based corners, `+ 1` pixels."""
    objects, positives = {}, 0
    for picture, boxes in enumerate(truth):
        rows = [
            {"box": (x1 + 1, y1 + 1, x2, y2), "difficult": bool(ignored), "taken": False}
            for (x1, y1, x2, y2), own, ignored in zip(boxes.corners.tolist(), boxes.labels, boxes.ignored, strict=True)
            if own == label
        ]
        objects[picture] = rows
        positives += sum(not row["difficult"] for row in rows)
    lines = [
        (-value, picture, (x1 + 1, y1 + 1, x2, y2))
        for picture, detections in enumerate(found)
        for (x1, y1, x2, y2), value, own in zip(
            detections.corners.tolist(), detections.scores.tolist(), detections.labels, strict=True
        )
        if own == label
    ]
    lines.sort(key=lambda line: line[0])
    true, false = np.zeros(len(lines)), np.zeros(len(lines))
    for number, (_, picture, (x1, y1, x2, y2)) in enumerate(lines):
        most, nearest = -np.inf, None
        for row in objects[picture]:
            gx1, gy1, gx2, gy2 = row["box"]
            width, height = min(x2, gx2) - max(x1, gx1) + 1, min(y2, gy2) - max(y1, gy1) + 1
            if width > 0 and height > 0:
                union = (x2 - x1 + 1) * (y2 - y1 + 1) + (gx2 - gx1 + 1) * (gy2 - gy1 + 1) - width * height
                if width * height / union > most:
                    most, nearest = width * height / union, row
        if nearest is not None and most >= 0.5:
            if nearest["difficult"]:
                continue
            if nearest["taken"]:
                false[number] = 1
            else:
                true[number] = 1
                nearest["taken"] = True
        else:
            false[number] = 1
    true, false = np.cumsum(true), np.cumsum(false)
    recall, precision = true / positives, np.divide(true, true + false, out=np.zeros_like(true), where=true + false > 0)
    if eleven_points:
        return sum(
            max([p for r, p in zip(recall, precision, strict=True) if r >= t - 1e-9], default=0) / 11
            for t in np.arange(11) / 10
        )
    recall, precision = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
    for place in range(len(precision) - 2, -1, -1):
        precision[place] = max(precision[place], precision[place + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


@pytest.mark.parametrize("seed", range(6))
def test_both_conventions_are_those_of_vocs_development_kit(seed: int):
    truth, found, classes = random_case(seed)
    ours = voc_ap(truth, found, classes)
    for label in range(classes - 1):
        assert ours[label].area == pytest.approx(by_the_kit(truth, found, label, eleven_points=False), abs=1e-12)
        assert ours[label].eleven_points == pytest.approx(
            by_the_kit(truth, found, label, eleven_points=True), abs=1e-12
        )
    assert ours[-1] == VocAp(None, None)
    assert 0.1 < ours[0].area < 0.9


def one_picture(corners, scores, objects, ignored=None):
    return [Boxes.of(objects, [0] * len(objects), ignored)], [Detections.of(corners, scores, [0] * len(corners))], 1


def test_an_object_is_found_once_and_the_second_detection_is_a_miss():
    thing, other = [0, 0, 10, 10], [50, 50, 60, 60]
    (found,) = voc_ap(*one_picture([thing, thing, other], [0.9, 0.8, 0.7], [thing, other]))
    assert found.area == pytest.approx((1 + 2 / 3) / 2)
    assert found.eleven_points == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)


def test_difficult_objects_need_not_be_found_and_finding_them_is_no_miss():
    thing, hard = [0, 0, 10, 10], [50, 50, 60, 60]
    case = one_picture([hard, hard, thing], [0.9, 0.8, 0.7], [thing, hard], [False, True])
    assert voc_ap(*case) == (VocAp(1.0, 1.0),)
    assert coco_ap(*case)[0].ap50 == pytest.approx(1.0)
    assert voc_ap(*one_picture([hard], [0.9], [hard], [True])) == (VocAp(None, None),)


def test_an_overlap_of_exactly_one_half_is_enough():
    assert voc_ap(*one_picture([[0, 0, 10, 5]], [0.9], [[0, 0, 10, 10]])) == (VocAp(1.0, 1.0),)
    assert voc_ap(*one_picture([[0, 0, 10, 4.99]], [0.9], [[0, 0, 10, 10]])) == (VocAp(0.0, 0.0),)


def test_recall_of_three_tenths_reaches_the_point_of_three_tenths():
    objects = [[20 * i, 0, 20 * i + 10, 10] for i in range(10)]
    (found,) = voc_ap(*one_picture(objects[:3], [0.9, 0.8, 0.7], objects))
    assert found.eleven_points == pytest.approx(4 / 11)
    assert found.area == pytest.approx(0.3)


def test_overlap_of_boxes_without_area_is_zero():
    np.testing.assert_allclose(
        overlaps([[0, 0, 0, 0], [0, 0, 4, 2]], [[0, 0, 0, 0], [2, 0, 6, 2]]), [[0, 0], [0, 1 / 3]]
    )


# ------------------------------------------------------------------------------------------------------------ Metrics


def test_metrics_gather_all_rules_and_become_json():
    truth, found, classes = random_case(2)
    names = [f"class {label}" for label in range(classes)]
    metrics = score(truth, found, names, dataset="random", split="val", skipped=[Skipped("a.jpg", "cut off")])
    assert isinstance(metrics, Metrics)
    assert metrics.objects == sum(int((~boxes.ignored).sum()) for boxes in truth)
    assert metrics.ap50 == pytest.approx(np.mean([row.ap50 for row in metrics.by_class[:-1]]))
    assert metrics.voc_ap50_area == pytest.approx(np.mean([row.voc_ap50_area for row in metrics.by_class[:-1]]))
    assert abs(metrics.ap50 - metrics.voc_ap50_area) < 0.05  # the same thing by two rules
    data = json.loads(json.dumps(metrics.as_data(), allow_nan=False))
    assert data["ap"] == metrics.ap
    assert data["ap_small"] == metrics.coco.ap_small
    assert data["classes"][0]["name"] == "class 0"
    assert len(data["classes"][0]["precision"]) == len(data["recalls"]) == 101
    assert np.mean(data["classes"][0]["precision"]) == pytest.approx(data["classes"][0]["ap50"])
    assert data["classes"][-1] | {"name": ""} == {
        "name": "",
        "objects": 0,
        "ap": None,
        "ap50": None,
        "voc_ap50_area": None,
        "voc_ap50_11": None,
        "precision": [],
    }
    assert data["skipped"] == [{"picture": "a.jpg", "reason": "cut off"}]
    assert metrics.pictures_per_second == 0
