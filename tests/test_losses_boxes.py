"""Overlaps of boxes by hand, their bounds, and that gradients are finite wherever boxes are."""

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from scaler.training.losses.boxes import area, ciou, giou, iou, pairwise_iou  # noqa: E402
from scaler.training.losses.focal import focal  # noqa: E402

KINDS = (iou, giou, ciou)


def box(*corners: float) -> torch.Tensor:
    return torch.tensor(corners, dtype=torch.float32)


def aspect(first: float, second: float) -> float:
    """CIoU's v of two ratios of width over height."""
    return 4 / math.pi**2 * (math.atan(first) - math.atan(second)) ** 2


CASES = {
    "a quarter of each": (box(0, 0, 2, 2), box(1, 1, 3, 3), 1 / 7, 1 / 7 - 2 / 9, 1 / 7 - 2 / 18),
    "apart": (box(0, 0, 1, 1), box(3, 0, 4, 1), 0, -2 / 4, -9 / 17),
    "touching": (box(0, 0, 1, 1), box(1, 0, 2, 1), 0, 0, -1 / 5),
    "the same": (box(5, 6, 9, 8), box(5, 6, 9, 8), 1, 1, 1),
    "across": (box(0, 1, 4, 3), box(1, 0, 3, 4), 4 / 12, 4 / 12 - 4 / 16,
               1 / 3 - aspect(2, 0.5) ** 2 / (1 - 1 / 3 + aspect(2, 0.5))),
    "inside": (box(0, 0, 4, 4), box(1, 1, 2, 3), 2 / 16, 2 / 16,
               2 / 16 - 0.25 / 32 - aspect(1, 0.5) ** 2 / (1 - 2 / 16 + aspect(1, 0.5))),
}  # fmt: skip
"""Two boxes and their IoU, GIoU and CIoU, by hand."""


@pytest.mark.parametrize("name", CASES)
def test_overlaps_are_those_by_hand(name: str):
    first, second, *expected = CASES[name]
    for kind, value in zip(KINDS, expected, strict=True):
        assert kind(first, second).item() == pytest.approx(value, abs=1e-6), kind.__name__
        assert kind(second, first).item() == pytest.approx(value, abs=1e-6), kind.__name__


def test_the_matrix_holds_every_pair():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(2, 7, 2, generator=generator) * 50
    boxes = torch.cat([low, low + 30 * torch.rand(2, 7, 2, generator=generator)], -1)
    found = pairwise_iou(boxes[0], boxes[1][:5])
    assert found.shape == (7, 5)
    for row in range(7):
        for column in range(5):
            assert found[row, column] == iou(boxes[0, row], boxes[1, column])
    torch.testing.assert_close(pairwise_iou(boxes, boxes).diagonal(dim1=1, dim2=2), torch.ones(2, 7))


coordinate = st.floats(-1e4, 1e4, width=32)
side = st.one_of(st.just(0.0), st.floats(0, 1e4, width=32), st.floats(0, 2**-20, width=32))
boxes_of = st.tuples(coordinate, coordinate, side, side).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))


@settings(max_examples=150, deadline=None)
@given(boxes_of, boxes_of)
def test_overlaps_and_gradients_are_finite_and_bounded(first: tuple[float, ...], second: tuple[float, ...]):
    bounds = {iou: (0, 1), giou: (-1, 1), ciou: (-2, 1)}
    for kind, (least, most) in bounds.items():
        one, two = box(*first).requires_grad_(), box(*second).requires_grad_()
        value = kind(one, two)
        value.backward()
        assert least - 1e-4 <= value.item() <= most + 1e-4, kind.__name__
        assert one.grad is not None and two.grad is not None
        assert one.grad.isfinite().all() and two.grad.isfinite().all(), kind.__name__


def test_an_inverted_box_has_no_area():
    assert area(box(4, 4, 1, 2)).item() == 0
    assert iou(box(4, 4, 1, 2), box(0, 0, 5, 5)).item() == 0


def test_boxes_apart_are_pulled_together():
    """The gradient of every one but the plain IoU moves the left box to the right."""
    for kind in (giou, ciou):
        left = box(0, 0, 1, 1).requires_grad_()
        kind(left, box(3, 0, 4, 1)).backward()
        assert left.grad is not None and left.grad[2] > 0, kind.__name__


def test_focal_loss_by_hand():
    chance = torch.tensor([0.9, 0.9, 0.2])
    truth = torch.tensor([1.0, 0.0, 1.0])
    expected = [0.25 * 0.1**2 * -math.log(0.9), 0.75 * 0.9**2 * -math.log(0.1), 0.25 * 0.8**2 * -math.log(0.2)]
    found = focal(chance.logit(), truth, gamma=2, alpha=0.25)
    torch.testing.assert_close(found, torch.tensor(expected))


def test_focal_loss_without_focus_is_half_the_cross_entropy():
    logits = torch.linspace(-8, 8, 33)
    truth = (torch.arange(33) % 2).float()
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    torch.testing.assert_close(focal(logits, truth, gamma=0, alpha=0.5), entropy / 2)


def test_focal_loss_of_certain_logits_has_finite_gradients():
    logits = torch.tensor([-200.0, 200.0, -200.0, 200.0], requires_grad=True)
    focal(logits, torch.tensor([0.0, 1.0, 1.0, 0.0]), gamma=2, alpha=0.25).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
