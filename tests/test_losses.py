"""The losses: numbers by hand, what they make of free maps, and odd batches."""

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from loss_cases import CLASSES, CODINGS, LOSSES, TRAINED_BY, YOLO_SCALES, maps, targets  # noqa: E402
from torch import Tensor  # noqa: E402

from scaler.errors import UserError  # noqa: E402
from scaler.graph.boxes import BoxCoding, Scale  # noqa: E402
from scaler.training.losses import DetectionLoss, detection_loss  # noqa: E402
from scaler.training.losses.boxes import pairwise_iou  # noqa: E402
from scaler.training.losses.targets import LossParts, Targets  # noqa: E402
from scaler.training.network.codings import decoded  # noqa: E402
from scaler.training.recipe import Loss  # noqa: E402

EVERY = pytest.mark.parametrize(("coding", "kind"), TRAINED_BY)
SCENE = targets(
    (0, 0, 10, 12, 22, 24), (0, 1, 50, 20, 84, 44), (0, 2, 5, 40, 70, 90),
    (1, 1, 8, 60, 36, 92), (1, 2, 61, 5, 75, 33), (1, 2, 40, 40, 72, 70),
)  # fmt: skip
"""Small and large, one that overlaps another."""


def loss_of(coding: str, kind: str, classes: int = CLASSES, batch: int = 2) -> DetectionLoss:
    return detection_loss(CODINGS[coding], classes, LOSSES[kind], batch=batch)


def gradients(loss: DetectionLoss, outputs: dict[str, Tensor], objects: Targets) -> list[Tensor]:
    return list(torch.autograd.grad(loss(outputs, objects).total, list(outputs.values())))


def quiet(coding: BoxCoding) -> dict[str, Tensor]:
    """Maps that see nothing: what no loss teaches, since it overlaps an object, stays so."""
    outputs = {label: value.detach() for label, value in maps(coding).items()}
    for scale in coding.scales:
        fields = outputs[scale.outputs[0]].unflatten(1, (len(scale.anchors), -1))
        fields[:, :, slice(None) if coding.kind == "retinanet" else 4] -= 4
    return {label: value.requires_grad_() for label, value in outputs.items()}


@EVERY
def test_free_maps_learn_the_objects(coding: str, kind: str):
    """Loss, assignment and decoding agree: the best box of every object becomes the object, and no other is loud."""
    loss = loss_of(coding, kind)
    outputs = quiet(CODINGS[coding])
    optimiser = torch.optim.Adam(outputs.values(), lr=0.2)
    for step in range(100):
        optimiser.param_groups[0]["lr"] = 0.2 * (1 - step / 100) + 0.01
        optimiser.zero_grad()
        parts = loss(outputs, SCENE)
        parts.total.backward()
        optimiser.step()
    boxes, scores = decoded(outputs, CODINGS[coding])
    for picture in range(2):
        mine = SCENE.pictures == picture
        overlap = pairwise_iou(SCENE.boxes[mine], boxes[picture])
        own = scores[picture][:, SCENE.labels[mine]].T
        assert ((overlap > 0.9) & (own > 0.8)).any(1).all()
        loud = scores[picture].amax(1) > 0.5
        assert (overlap.amax(0)[loud] > 0.8).all()
        right = SCENE.labels[mine][overlap.argmax(0)] == scores[picture].argmax(1)
        assert right[loud].all()


ODD = {
    "no objects at all": targets(),
    "a picture without objects": targets((1, 0, 10, 10, 40, 50)),
    "outside": targets((0, 0, 200, 200, 240, 240), (0, 1, -50, -50, -10, -10)),
    "tiny": targets((0, 0, 30.1, 30.1, 30.2, 30.15), (1, 1, 0, 0, 1e-3, 1e-3), (1, 2, 95.999, 95.999, 96, 96)),
    "without area": targets((0, 0, 10, 10, 10, 20), (1, 1, 5, 5, 5, 5), (1, 1, 9, 9, 3, 3)),
    "huge": targets((0, 0, -1e4, -1e4, 1e4, 1e4), (1, 1, 0, 0, 96, 96)),
    "twice": targets((0, 0, 10, 10, 40, 50), (0, 1, 10, 10, 40, 50), (0, 1, 10, 10, 40, 50)),
    "on the edge": targets((0, 0, 90, 90, 96, 96), (0, 0, 95, 0, 97, 96), (1, 0, 0, 0, 16, 16)),
}


@EVERY
@pytest.mark.parametrize("size", [1, 30])
def test_odd_batches_have_finite_losses_and_gradients(coding: str, kind: str, size: float):
    loss = loss_of(coding, kind)
    for name, objects in ODD.items():
        outputs = {label: (value * size).detach().requires_grad_() for label, value in maps(CODINGS[coding]).items()}
        parts = loss(outputs, objects)
        assert all(part.isfinite() and part >= 0 for part in parts), name
        parts.total.backward()
        assert all(value.grad is not None and value.grad.isfinite().all() for value in outputs.values()), name
        if name in ("no objects at all", "outside", "without area"):
            assert parts.box == 0, name
        if kind != "retinanet":
            assert parts.objectness > 0, name


@EVERY
def test_one_class_is_learned_too(coding: str, kind: str):
    outputs = maps(CODINGS[coding], classes=1)
    parts = loss_of(coding, kind, classes=1)(outputs, targets((0, 0, 10, 12, 40, 44)))
    assert all(part.isfinite() for part in parts) and parts.classes > 0
    parts.total.backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in outputs.values())


@EVERY
def test_the_loss_follows_the_size_of_the_maps(coding: str, kind: str):
    loss = loss_of(coding, kind)
    moved = Targets(SCENE.boxes + torch.tensor([64.0, 0, 64, 0]), SCENE.labels, SCENE.pictures)
    parts = loss(maps(CODINGS[coding], height=128, width=192), moved)
    assert all(part.isfinite() for part in parts) and parts.box > 0


@EVERY
def test_maps_of_16_bits_cost_the_same(coding: str, kind: str):
    loss = loss_of(coding, kind)
    outputs = {
        label: value.detach().to(torch.bfloat16).requires_grad_() for label, value in maps(CODINGS[coding]).items()
    }
    exact = loss({label: value.float() for label, value in outputs.items()}, SCENE)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(outputs, SCENE)
    torch.testing.assert_close(found, exact)
    assert all(part.dtype == torch.float32 for part in found)
    found.total.backward()
    assert all(value.grad is not None and value.grad.dtype == torch.bfloat16 for value in outputs.values())


@EVERY
def test_maps_that_are_channels_last_cost_the_same(coding: str, kind: str):
    loss, outputs = loss_of(coding, kind), maps(CODINGS[coding])
    last = {label: value.contiguous(memory_format=torch.channels_last) for label, value in outputs.items()}
    torch.testing.assert_close(loss(last, SCENE), loss(outputs, SCENE))


@EVERY
def test_the_order_of_objects_that_want_different_boxes_does_not_matter(coding: str, kind: str):
    loss, outputs = loss_of(coding, kind), maps(CODINGS[coding])
    flipped = Targets(*(part.flip(0) for part in SCENE))
    torch.testing.assert_close(loss(outputs, flipped), loss(outputs, SCENE))


@EVERY
def test_the_mean_over_processes_is_the_loss_of_one(coding: str, kind: str, monkeypatch: pytest.MonkeyPatch):
    """Two processes with different numbers of objects each: what they divide by is what both have."""
    loss, outputs = loss_of(coding, kind, batch=4), maps(CODINGS[coding], batch=4)
    objects = Targets(SCENE.boxes, SCENE.labels, torch.tensor([0, 1, 2, 2, 2, 3]))
    whole = gradients(loss, outputs, objects)
    halves = []
    for first in (0, 2):
        mine = (objects.pictures >= first) & (objects.pictures < first + 2)
        part = Targets(objects.boxes[mine], objects.labels[mine], objects.pictures[mine] - first)
        halves.append(({label: value[first : first + 2] for label, value in outputs.items()}, part))
    counts: list[Tensor] = []
    monkeypatch.setattr(loss, "_mean", lambda count: counts.append(count) or count)
    for half in halves:
        loss(*half)
    assert len(counts) == 2
    monkeypatch.setattr(loss, "_mean", lambda _: (counts[0] + counts[1]) / 2)
    mean = sum(loss(*half).total for half in halves) / 2
    for found, expected in zip(torch.autograd.grad(mean, list(outputs.values())), whole, strict=True):
        torch.testing.assert_close(found, expected)


ONE = BoxCoding("yolov3", (Scale(("map",), 32, ((40, 20), (16, 16))),))
"""A single scale of two anchors."""


def zeros(coding: BoxCoding, classes: int = CLASSES) -> dict[str, Tensor]:
    return {label: torch.zeros_like(value) for label, value in maps(coding, batch=2, classes=classes).items()}


def test_yolov3_by_hand():
    """Maps of zeros: every box is its anchor in the middle of its cell, every chance a half."""
    loss = detection_loss(ONE, CLASSES, LOSSES["yolov3"], batch=2)
    parts = loss(zeros(ONE), targets((0, 1, 32, 40, 64, 56)))
    own = 1 - (16 * 32) / (40 * 20)  # the object lies inside its anchor's box, so GIoU is IoU
    spared = 1  # the other anchor's box, of 16 x 16 within 32 x 16, overlaps it by just a half
    boxes = 2 * 9 * 2
    assert parts.box.item() == pytest.approx(own / 2, rel=1e-5)
    assert parts.objectness.item() == pytest.approx((boxes - spared) * math.log(2) / 2, rel=1e-5)
    assert parts.classes.item() == pytest.approx(3 * math.log(2) / 2, rel=1e-5)


def test_scaled_yolov4_by_hand():
    """One scale: every gain is tripled, its objectness weighs 4."""
    coding = BoxCoding("yolov4", ONE.scales, 2.0)
    loss = detection_loss(coding, CLASSES, LOSSES["scaled-yolov4"], batch=8)
    parts = loss(zeros(coding), targets((0, 1, 28, 38, 68, 58)))
    unlike = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
    # the first anchor in its cell is the object; the second is smaller and square; no neighbour: it lies in the middle
    overlap = 16 * 16 / (40 * 20)
    second = overlap - unlike**2 / (1 - overlap + unlike)
    assert parts.box.item() == pytest.approx(0.05 * 8 * 3 * (1 - second) / 2, rel=1e-4)
    entropy = 4 * math.log(2)  # of a chance of a half, whatever the truth
    assert parts.objectness.item() == pytest.approx(8 * 3 * entropy, rel=1e-5)
    assert parts.classes.item() == pytest.approx(0.5 * 3 / 80 * 8 * 3 * math.log(2), rel=1e-5)


def test_scaled_yolov4_teaches_the_overlap_as_objectness():
    """The logit of the overlap is where the objectness of the object's box has no gradient."""
    coding = BoxCoding("yolov4", ONE.scales, 2.0)
    loss = detection_loss(coding, CLASSES, LOSSES["scaled-yolov4"], batch=2)
    outputs = zeros(coding)
    wanted = math.sqrt(20 * 10 / (40 * 20))  # a box of half the sides would be 1/4; this one has 40 x 10: 1/2
    outputs["map"][0, 4, 1, 1] = math.log(wanted / (1 - wanted))
    value = outputs["map"].requires_grad_()
    loss(outputs, targets((0, 1, 28, 43, 68, 53))).total.backward()
    assert value.grad is not None
    unlike = 4 / math.pi**2 * (math.atan(4) - math.atan(2)) ** 2
    residual = wanted - (0.5 - unlike**2 / (0.5 + unlike))
    assert value.grad[0, 4, 1, 1].item() == pytest.approx(residual * 2 * 3 * 4 / 36, rel=1e-4)


def test_retinanet_by_hand():
    coding = BoxCoding("retinanet", (Scale(("class", "box"), 32, ((40, 20), (16, 16))),))
    loss = detection_loss(coding, CLASSES, LOSSES["retinanet"], batch=2)
    parts = loss(zeros(coding), targets((0, 1, 28, 38, 68, 57)))
    divisor = 1 + 2  # one anchor, two pictures
    deltas = (0.025, abs(math.log(19 / 20)))  # half a pixel up, a pixel lower
    smooth = sum(0.5 * delta**2 * 9 for delta in deltas)
    assert parts.box.item() == pytest.approx(smooth / divisor, rel=1e-4)
    half = 0.25 * math.log(2)
    elements = 2 * 9 * 2 * CLASSES
    assert parts.classes.item() == pytest.approx((0.25 * half + 0.75 * half * (elements - 1)) / divisor, rel=1e-4)
    assert parts.objectness == 0


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_objectness_of_scaled_yolov4_is_weighted_by_scale(levels: int):
    """Maps of zeros without objects: ln 2 times the weights."""
    strides = (8, 16, 32, 64, 128)[:levels]
    coding = BoxCoding("yolov4", tuple(Scale((f"s{s}",), s, ((s, s),)) for s in reversed(strides)), 2.0)
    outputs = {f"s{s}": torch.zeros(1, 5 + CLASSES, 128 // s, 128 // s) for s in strides}
    found = detection_loss(coding, CLASSES, LOSSES["scaled-yolov4"], batch=1)(outputs, targets())
    weights = {2: 5.0, 3: 5.4, 4: 5.5 * 1.4, 5: 6.0 * 1.4}[levels]
    assert found.objectness.item() == pytest.approx(math.log(2) * 3 / levels * weights, rel=1e-5)
    outputs["s8"][:, 4] = -30.0  # the finest map alone says that nothing is there, and has the largest weight
    rest = detection_loss(coding, CLASSES, LOSSES["scaled-yolov4"], batch=1)(outputs, targets())
    gain = 3 / levels * (1.4 if levels >= 4 else 1)
    assert (found.objectness - rest.objectness).item() == pytest.approx(math.log(2) * gain * 4, rel=1e-5)


@pytest.mark.parametrize(("coding", "kind"), [("retinanet", "yolov3"), ("retinanet", "scaled-yolov4"),
                                              ("yolov3", "retinanet"), ("yolov4", "retinanet")])  # fmt: skip
def test_a_loss_for_other_boxes_is_refused_in_one_line(coding: str, kind: str):
    with pytest.raises(UserError, match=f"the loss '{kind}' cannot train a network whose boxes are coded as") as told:
        loss_of(coding, kind)
    assert "\n" not in str(told.value) and "take a recipe" in str(told.value)


@EVERY
def test_maps_of_another_number_of_classes_are_refused(coding: str, kind: str):
    with pytest.raises(UserError, match="the loss of 7 classes wants"):
        loss_of(coding, kind, classes=7)(maps(CODINGS[coding]), SCENE)


def test_weights_of_the_parts_are_applied():
    outputs = maps(CODINGS["yolov3"])
    plain = loss_of("yolov3", "yolov3")(outputs, SCENE)
    weighed = Loss(kind="yolov3", box=2, objectness=3, classes=5)
    found = detection_loss(CODINGS["yolov3"], CLASSES, weighed, batch=2)(outputs, SCENE)
    torch.testing.assert_close(found, LossParts(2 * plain.box, 3 * plain.objectness, 5 * plain.classes))
    assert found.total == found.box + found.objectness + found.classes


def test_the_constants_move_with_the_module_and_are_no_part_of_its_state():
    loss = loss_of("yolov3", "yolov3")
    assert [buffer.shape[0] for buffer in loss.buffers()] == [len(scale.anchors) for scale in YOLO_SCALES]
    assert not loss.state_dict()
    assert all(buffer.device.type == "meta" for buffer in loss.to("meta").buffers())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("coding", "kind"), [("yolov3", "yolov3"), ("yolov4", "scaled-yolov4"), ("retinanet", "retinanet")]
)
def test_torch_compiles_the_losses(coding: str, kind: str):
    loss, outputs = loss_of(coding, kind), maps(CODINGS[coding])
    compiled = torch.compile(loss, backend="eager", dynamic=True)
    torch.testing.assert_close(compiled(outputs, SCENE), loss(outputs, SCENE))
    torch.testing.assert_close(compiled(outputs, ODD["huge"]), loss(outputs, ODD["huge"]))
