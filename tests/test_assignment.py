"""Which boxes an object is taught to, against the rules written a second time, object by object."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from loss_cases import CLASSES, CODINGS, LOSSES, SIZE, maps, targets  # noqa: E402

from scaler.graph.boxes import BoxCoding  # noqa: E402
from scaler.training.losses import DetectionLoss, detection_loss  # noqa: E402
from scaler.training.losses.base import Objects, Said, counted  # noqa: E402
from scaler.training.losses.boxes import iou  # noqa: E402
from scaler.training.losses.retinanet import matches  # noqa: E402
from scaler.training.losses.targets import Targets  # noqa: E402
from scaler.training.losses.yolov3 import best_slots, last, overlapping  # noqa: E402
from scaler.training.losses.yolov4 import balance, candidates  # noqa: E402


def many(count: int = 150, seed: int = 0) -> Targets:
    """Objects of all sizes, some reaching over the edge, some on the borders of cells."""
    generator = np.random.default_rng(seed)
    centre = generator.uniform(0, SIZE, (count, 2))
    centre[: count // 3] = np.round(centre[: count // 3] / 4) * 4
    half = np.exp(generator.uniform(np.log(0.5), np.log(60), (count, 2)))
    boxes = np.concatenate([centre - half, centre + half], 1)
    return targets(*((int(generator.integers(2)), int(generator.integers(CLASSES)), *box) for box in boxes))


def prepared(name: str, kind: str) -> tuple[DetectionLoss, Said, Objects]:
    loss = detection_loss(CODINGS[name], CLASSES, LOSSES[kind], batch=2)
    return loss, loss._said(maps(CODINGS[name])), counted(many(), SIZE, SIZE)


def slot(coding: BoxCoding, stride: int, row: int, column: int, anchor: int) -> int:
    """Index of a box among all of a picture."""
    first = 0
    for scale in coding.scales:
        if scale.stride == stride:
            return first + (row * (SIZE // stride) + column) * len(scale.anchors) + anchor
        first += (SIZE // scale.stride) ** 2 * len(scale.anchors)
    raise AssertionError(stride)


def test_objects_are_clipped_and_those_outside_do_not_count():
    found = counted(targets((0, 1, -5, 10, 20, 200), (1, 2, 100, 0, 120, 50), (1, 0, -9, 3, 0, 9)), 96, 64)
    assert found.boxes[0].tolist() == [0, 10, 20, 64]
    assert found.alive.tolist() == [True, False, False, False]
    assert found.labels.tolist() == [1, 2, 0, 0]


def test_yolov3_gives_an_object_to_the_anchor_that_fits_best_in_the_cell_of_its_centre():
    loss, said, objects = prepared("yolov3", "yolov3")
    found = best_slots(loss.task, said, objects).tolist()
    strides = set()
    for index in range(len(objects.boxes) - 1):
        w, h = objects.sides[index].tolist()
        x, y = objects.centres[index].tolist()
        best, place = -1.0, None
        for scale in loss.task.coding.scales:
            for anchor, (aw, ah) in enumerate(scale.anchors):
                shared = min(w, aw) * min(h, ah)
                overlap = shared / (w * h + aw * ah - shared)
                if overlap > best + 1e-7:
                    last_cell = SIZE // scale.stride - 1
                    cell = (min(int(y // scale.stride), last_cell), min(int(x // scale.stride), last_cell))
                    best, place = overlap, (scale.stride, *cell, anchor)
        assert place is not None
        strides.add(place[0])
        assert found[index] == slot(loss.task.coding, *place)
    assert strides == {8, 16, 32}


def test_where_two_objects_want_one_box_the_later_gets_it():
    places = torch.tensor([3, 5, 3, 5, 3, 7])
    alive = torch.tensor([True, True, True, False, True, False])
    assert last(places, alive, 9).tolist() == [False, True, False, False, True, False]


def test_predictions_are_spared_for_objects_of_their_own_picture_only():
    objects = counted(targets((0, 0, 10, 10, 30, 30), (0, 1, 60, 60, 80, 80)), SIZE, SIZE)
    boxes = torch.tensor([[12.0, 10, 32, 30], [60, 60, 80, 79], [40, 40, 50, 50], [10, 10, 30, 20]]).repeat(2, 1, 1)
    assert overlapping(boxes, objects, 0.5).tolist() == [[True, True, False, True], [False] * 4]
    assert overlapping(boxes, objects, 0.9).tolist() == [[False, True, False, False], [False] * 4]


@pytest.mark.parametrize("name", ["yolov3", "tiny", "yolov4"])
def test_scaled_yolov4_gives_an_object_to_all_fitting_anchors_of_the_cells_that_can_reach_it(name: str):
    loss, said, objects = prepared(name, "scaled-yolov4")
    pairs = 0
    for index, scale in enumerate(loss.task.coding.scales):
        found = candidates(loss.task, said, index, objects)
        cells = SIZE // scale.stride
        for number in range(len(objects.boxes) - 1):
            w, h = objects.sides[number].tolist()
            x, y = (objects.centres[number] / scale.stride).tolist()
            column, row = min(int(x), cells - 1), min(int(y), cells - 1)
            wanted = {(row, column)}
            if name == "yolov4":
                nearest = {(row, column + (-1 if x % 1 < 0.5 else 1)) if x % 1 != 0.5 else (row, column),
                           (row + (-1 if y % 1 < 0.5 else 1), column) if y % 1 != 0.5 else (row, column)}  # fmt: skip
                wanted |= {cell for cell in nearest if 0 <= cell[0] < cells and 0 <= cell[1] < cells}
            fitting = [
                anchor
                for anchor, (aw, ah) in enumerate(scale.anchors)
                if max(w / aw, aw / w, h / ah, ah / h) < loss.task.loss.anchor_ratio
            ]
            expected = {(r * cells + c) * len(scale.anchors) + anchor for r, c in wanted for anchor in fitting}
            chosen = found.slots[:, number][found.chosen[:, number]].tolist()
            assert sorted(chosen) == sorted(expected)
            pairs += len(expected)
        assert not found.chosen[:, -1].any()
    assert pairs > 100


def test_every_box_given_by_scaled_yolov4_can_become_the_object():
    """The coding reaches the centre, and the sides."""
    loss, said, objects = prepared("yolov4", "scaled-yolov4")
    for index, scale in enumerate(loss.task.coding.scales):
        found = candidates(loss.task, said, index, objects)
        priors = said.priors[index].at(found.slots)
        shift = (objects.centres[:, None] - priors.origin) / priors.reach
        growth = objects.sides[:, None] / priors.anchor
        assert shift[found.chosen].min() >= 0 and shift[found.chosen].max() <= 1
        assert growth[found.chosen].max() < 4
        assert scale.stride * found.chosen.sum() > 0


def test_weights_of_the_scales_are_the_released_ones():
    assert [balance(levels) for levels in (2, 3, 4, 5)] == [
        (4.0, 1.0), (4.0, 1.0, 0.4), (4.0, 1.0, 0.4, 0.1), (4.0, 1.0, 0.5, 0.4, 0.1)]  # fmt: skip


def test_retinanet_gives_anchors_to_the_object_that_they_overlap_most():
    _, said, objects = prepared("retinanet", "retinanet")
    anchors = torch.cat([part.boxes for part in said.priors])
    found = matches(anchors, objects, 2)
    overlap = np.array([[iou(box, anchor).item() for anchor in anchors[::41]] for box in objects.boxes])
    exact = iou(objects.boxes[:, None], anchors[None]).numpy()
    np.testing.assert_allclose(overlap, exact[:, ::41], atol=1e-6)
    living, pictures = objects.alive.numpy(), objects.pictures.numpy()
    kinds = {"by overlap": 0, "nearest only": 0, "between": 0}
    for picture in range(2):
        mine = np.flatnonzero(living & (pictures == picture))
        nearest = {int(a) for number in mine for a in np.flatnonzero(exact[number] == exact[number].max())}
        for anchor in range(len(anchors)):
            column = exact[mine, anchor]
            best = column.max()
            positive = best >= 0.5 or anchor in nearest
            assert found.positive[picture, anchor] == positive
            assert found.background[picture, anchor] == (best < 0.4 and not positive)
            if positive:
                assert exact[found.owner[picture, anchor], anchor] == best
                assert pictures[found.owner[picture, anchor]] == picture
            kinds["by overlap"] += best >= 0.5
            kinds["nearest only"] += positive and best < 0.4
            kinds["between"] += not positive and best >= 0.4
    assert min(kinds.values()) > 5
