"""Boxes and scores in torch are those of the exported file, and those of the formulas at any input size."""

import numpy as np
import pytest
from onnx_sessions import picture
from onnx_sessions import run as run_onnx

from scaler.export import decode
from scaler.export.onnx_model import to_onnx
from scaler.export.weights import random_weights
from scaler.graph.boxes import BoxCoding, Scale
from scaler.graph.graph import Graph, GraphBuilder
from scaler.models.blocks import conv_block
from scaler.models.detectors import scaled_yolov4, yolo_ret

torch = pytest.importorskip("torch", reason="torch is not installed")

from loss_cases import ANCHORS, CLASSES, CODINGS, maps  # noqa: E402

from scaler.training.network.codings import (  # noqa: E402
    LARGEST_GROWTH,
    anchors_of,
    by_scale,
    decoded,
    deltas_to,
    joined,
    map_sizes,
    priors_of,
)

WEIGHTS = random_weights(5)


def retina() -> Graph:
    """A picture's first maps, read as those of RetinaNet."""
    graph = GraphBuilder((3, 64, 96))
    outputs, scales, x = [], [], graph.input
    for stride, anchors in {8: ((32, 32), (20, 45)), 16: ((64, 64), (45.5, 90))}.items():
        x = graph.add(f"body{stride}", conv_block(x.shape, 16, kernel=3, stride=8 if stride == 8 else 2,
                                                  activation="relu", padding="symmetric"), x)  # fmt: skip
        for label, fields in (("class", CLASSES), ("box", 4)):
            head = conv_block(x.shape, len(anchors) * fields, activation=None)
            outputs.append((f"{label}{stride}", graph.add(f"{label}{stride}", head, x)))
        scales.append(Scale((f"class{stride}", f"box{stride}"), stride, anchors))
    return graph.build("retina", outputs, 2 * (8 * 12 + 4 * 6), BoxCoding("retinanet", tuple(scales)))


NETWORKS = [
    yolo_ret.build(yolo_ret.YoloRetConfig(backbone="mobilenetv2", width=0.5, resolution=160, classes=CLASSES)),
    scaled_yolov4.build(scaled_yolov4.ScaledYoloV4Config(variant="tiny", width=0.25, resolution=160, classes=CLASSES)),
    scaled_yolov4.build(
        scaled_yolov4.ScaledYoloV4Config(variant="csp", width=0.25, depth=0.33, resolution=160, classes=CLASSES)
    ),
    retina(),
]


def test_every_coding_is_tried():
    assert {(graph.coding.kind, graph.coding.xy_scale) for graph in NETWORKS} == {
        ("yolov3", 1.0), ("yolov3", 1.05), ("yolov4", 2.0), ("retinanet", 1.0)}  # fmt: skip


@pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
def test_boxes_and_scores_are_those_of_the_exported_file(graph: Graph):
    source = picture(2, *graph.input_shape)
    raw, expected = (run_onnx(to_onnx(graph, batch=2, weights=WEIGHTS, decode=how), source, optimise=False)
                     for how in (None, decode.Decode()))  # fmt: skip
    boxes, scores = decoded({label: torch.from_numpy(value) for label, value in raw.items()}, graph.coding)
    assert boxes.shape == expected["boxes"].shape == (2, graph.boxes, 4)
    size = expected["boxes"][..., 2:] - expected["boxes"][..., :2]
    sound = (size < 1e5).all(-1)
    assert sound.mean() > 0.7
    tolerance = np.tile(size, 2).clip(1) * 1e-4
    assert (np.abs(boxes.numpy() - expected["boxes"]) < tolerance)[sound].all()
    np.testing.assert_allclose(scores.numpy(), expected["scores"], atol=1e-4)
    assert scores.std() > 0.01


def test_retinanets_clamp_is_the_exported_one():
    assert LARGEST_GROWTH == decode.LARGEST_GROWTH


def sigmoid(value: float) -> float:
    return 1 / (1 + np.exp(-value))


def by_hand(coding: BoxCoding, numbers: np.ndarray, column: int, row: int, stride: int, anchor) -> list[float]:
    """The published formulas for one box."""
    dx, dy, dw, dh = (float(number) for number in numbers)
    match coding.kind:
        case "yolov3":
            stretch = coding.xy_scale
            x, y = (stretch * sigmoid(d) - (stretch - 1) / 2 + cell for d, cell in ((dx, column), (dy, row)))
            x, y, w, h = x * stride, y * stride, np.exp(dw) * anchor[0], np.exp(dh) * anchor[1]
        case "yolov4":
            x, y = (2 * sigmoid(dx) - 0.5 + column) * stride, (2 * sigmoid(dy) - 0.5 + row) * stride
            w, h = (2 * sigmoid(dw)) ** 2 * anchor[0], (2 * sigmoid(dh)) ** 2 * anchor[1]
        case _:
            x, y = (column + 0.5) * stride + dx * anchor[0], (row + 0.5) * stride + dy * anchor[1]
            w, h = np.exp(dw) * anchor[0], np.exp(dh) * anchor[1]
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


@pytest.mark.parametrize("name", CODINGS)
@pytest.mark.parametrize(("height", "width"), [(96, 96), (64, 160)])
def test_boxes_of_any_input_size_follow_the_formulas(name: str, height: int, width: int):
    coding = CODINGS[name]
    outputs = {label: value.detach() for label, value in maps(coding, height=height, width=width).items()}
    boxes, scores = decoded(outputs, coding)
    index = 0
    for scale in coding.scales:
        raw = outputs[scale.outputs[-1]][1].numpy()
        fields = raw.shape[0] // len(scale.anchors)
        for row, column, anchor in np.ndindex(*raw.shape[1:], len(scale.anchors)):
            numbers = raw[anchor * fields : (anchor + 1) * fields, row, column]
            expected = by_hand(coding, numbers[:4], column, row, scale.stride, scale.anchors[anchor])
            np.testing.assert_allclose(boxes[1, index].numpy(), expected, rtol=1e-4, atol=1e-3)
            if name != "retinanet":
                np.testing.assert_allclose(
                    scores[1, index].numpy(), sigmoid(numbers[4]) * sigmoid(numbers[5:]), rtol=1e-4
                )
            index += 1
    assert index == boxes.shape[1] == scores.shape[1]


@pytest.mark.parametrize("name", CODINGS)
def test_maps_that_are_channels_last_give_the_same_boxes(name: str):
    outputs = maps(CODINGS[name])
    last = {label: value.contiguous(memory_format=torch.channels_last) for label, value in outputs.items()}
    for mine, theirs in zip(decoded(outputs, CODINGS[name]), decoded(last, CODINGS[name]), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CODINGS)
def test_maps_of_16_bits_are_decoded_at_32(name: str, kind: torch.dtype):
    outputs = {label: value.to(kind) for label, value in maps(CODINGS[name]).items()}
    exact = decoded({label: value.float() for label, value in outputs.items()}, CODINGS[name])
    with torch.autocast("cpu", kind):
        found = decoded(outputs, CODINGS[name])
    for mine, theirs in zip(found, exact, strict=True):
        assert mine.dtype == torch.float32 and torch.equal(mine, theirs)


def test_a_yolov3_box_stays_finite_where_the_network_is_mad():
    outputs = {label: torch.full_like(value, 1e4) for label, value in maps(CODINGS["yolov3"]).items()}
    boxes, scores = decoded(outputs, CODINGS["yolov3"])
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    assert areas.isfinite().all() and scores.isfinite().all()
    assert (boxes[0, 0, 2] - boxes[0, 0, 0]) / ANCHORS[32][0][0] > 1e6


def test_deltas_lead_back_to_the_boxes():
    coding = CODINGS["retinanet"]
    outputs = maps(coding)
    boxes, _ = decoded(outputs, coding)
    priors = joined(priors_of(coding, map_sizes(outputs, coding), anchors_of(coding)))
    deltas = torch.cat([part[1] for part in by_scale(outputs, coding)], 1)
    clamped = torch.cat([deltas[..., :2], deltas[..., 2:].clamp(max=LARGEST_GROWTH)], -1)
    torch.testing.assert_close(deltas_to(boxes, priors), clamped, atol=1e-3, rtol=1e-3)
    assert deltas_to(torch.zeros_like(boxes), priors).isfinite().all()
