"""The formulas from raw maps to boxes of every family, written a second time in numpy, box by box."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, checker
from onnx_sessions import newest_readable_opset, picture, run

from scaler.export.decode import CODINGS, Decode
from scaler.export.onnx_model import DEFAULT_OPSET, OLDEST_OPSET, to_onnx
from scaler.export.tensorrt_ops import TENSORRT_8_2_OPS
from scaler.export.weights import Array, random_weights
from scaler.graph.boxes import BoxCoding, Scale
from scaler.graph.graph import Graph, GraphBuilder
from scaler.models.blocks import conv_block
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config, build

Doubles = npt.NDArray[np.float64]
CLASSES = 3
SMALL = {"classes": CLASSES, "width": 0.25}
TINY = build(ScaledYoloV4Config(variant="tiny", resolution=160, **SMALL))
TINY_3L = build(ScaledYoloV4Config(variant="tiny-3l", resolution=160, **SMALL))
CSP = build(ScaledYoloV4Config(variant="csp", depth=0.33, resolution=160, **SMALL))
P5 = build(ScaledYoloV4Config(variant="p5", depth=0.2, resolution=160, **SMALL))
WEIGHTS = cache(random_weights(5))

RETINA_SCALES = {8: [(32, 32), (20, 45), (60, 60)], 16: [(64, 64), (45.5, 90), (128, 100)]}


def retina() -> Graph:
    """A picture's first maps, read as those of RetinaNet: classes and boxes apart, three anchors a cell."""
    graph = GraphBuilder((3, 64, 96))
    outputs, scales, x = [], [], graph.input
    for stride, anchors in RETINA_SCALES.items():
        x = graph.add(f"body{stride}", conv_block(x.shape, 16, kernel=3, stride=8 if stride == 8 else 2,
                                                  activation="relu", padding="symmetric"), x)  # fmt: skip
        for label, fields in (("class", CLASSES), ("box", 4)):
            head = conv_block(x.shape, len(anchors) * fields, activation=None)
            outputs.append((f"{label}{stride}", graph.add(f"{label}{stride}", head, x)))
        scales.append(Scale((f"class{stride}", f"box{stride}"), stride, tuple(anchors)))
    boxes = sum(3 * (64 // stride) * (96 // stride) for stride in RETINA_SCALES)
    return graph.build("retina", outputs, boxes, BoxCoding("retinanet", tuple(scales)))


RETINA = retina()
NETWORKS = [TINY, TINY_3L, CSP, P5, RETINA]


def sigmoid(value: Array) -> Doubles:
    return 1 / (1 + np.exp(-value.astype(np.float64)))


def darknet_tiny(cell: Array, column: int, row: int, stride: int, anchor: tuple[float, float]) -> Doubles:
    """darknet's `get_yolo_box` with `scale_x_y = 1.05`: x, y, w, h."""
    x, y = (1.05 * sigmoid(cell[:2]) - 0.025 + [column, row]) * stride
    w, h = anchor * np.exp(cell[2:4].astype(np.float64))
    return np.array([x, y, w, h])


def scaled_yolov4(cell: Array, column: int, row: int, stride: int, anchor: tuple[float, float]) -> Doubles:
    """The authors' PyTorch code: `(2 s - 0.5 + grid) stride` and `(2 s)^2 anchor`."""
    x, y = (2 * sigmoid(cell[:2]) - 0.5 + [column, row]) * stride
    w, h = (2 * sigmoid(cell[2:4])) ** 2 * anchor
    return np.array([x, y, w, h])


def detectron(deltas: Array, column: int, row: int, stride: int, anchor: tuple[float, float]) -> Doubles:
    """Detectron's `bbox_transform` on an anchor in the middle of its cell."""
    dx, dy, dw, dh = deltas.astype(np.float64)
    x = dx * anchor[0] + (column + 0.5) * stride
    y = dy * anchor[1] + (row + 0.5) * stride
    w, h = (side * np.exp(min(d, np.log(1000 / 16))) for side, d in zip(anchor, (dw, dh), strict=True))
    return np.array([x, y, w, h])


def cells(
    maps: dict[str, Array], label: str, anchors: list[tuple[float, float]]
) -> Iterator[tuple[int, int, int, Array]]:
    """Row, column, anchor and the numbers of every box of a map of one picture."""
    raw = maps[label][0]
    fields = raw.shape[0] // len(anchors)
    for row, column in np.ndindex(raw.shape[1:]):
        for index in range(len(anchors)):
            yield row, column, index, raw[index * fields : (index + 1) * fields, row, column]


@cache
def expected(graph: Graph) -> tuple[Doubles, Doubles]:
    """Corners `[boxes, 4]` and scores `[boxes, classes]` of one picture."""
    maps = run(to_onnx(graph, weights=WEIGHTS), picture(1, *graph.input_shape))
    boxes, scores = [], []
    assert graph.coding is not None
    for scale in graph.coding.scales:
        anchors = list(scale.anchors)
        if graph is RETINA:
            score_label, box_label = scale.outputs
            scores += [sigmoid(logits) for *_, logits in cells(maps, score_label, anchors)]
            formula = detectron
        else:
            (box_label,) = scale.outputs
            scores += [sigmoid(cell[4]) * sigmoid(cell[5:]) for *_, cell in cells(maps, box_label, anchors)]
            formula = darknet_tiny if graph in (TINY, TINY_3L) else scaled_yolov4
        boxes += [
            formula(cell, column, row, scale.stride, anchors[index])
            for row, column, index, cell in cells(maps, box_label, anchors)
        ]
    centre, size = np.split(np.stack(boxes), 2, axis=1)
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1), np.stack(scores)


def decoded(graph: Graph, opset: int = DEFAULT_OPSET, optimise: bool = True) -> tuple[ModelProto, dict[str, Array]]:
    model = to_onnx(graph, weights=WEIGHTS, opset=opset, decode=Decode())
    return model, run(model, picture(1, *graph.input_shape), optimise)


@pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, newest_readable_opset()])
@pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
def test_boxes_and_scores_are_those_of_the_formulas(graph: Graph, opset: int):
    boxes, scores = expected(graph)
    model, found = decoded(graph, opset)
    checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= TENSORRT_8_2_OPS
    assert found["boxes"].shape == (1, graph.boxes, 4)
    assert found["scores"].shape == (1, graph.boxes, CLASSES)
    finite = np.isfinite(boxes.astype(np.float32)).all(axis=1)
    assert finite.mean() > 0.9
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)[finite]
    error = np.abs(found["boxes"][0] - boxes)[finite] / np.concatenate([sides, sides], axis=1)
    assert error.max() < 1e-3
    np.testing.assert_allclose(found["scores"][0], scores, atol=1e-4)
    assert scores.std() > 0.01


def test_every_coding_is_tried():
    assert {graph.coding.kind for graph in NETWORKS} == set(CODINGS)


def zeros(graph: Graph) -> Array:
    """Boxes of raw maps of zeros."""
    model = to_onnx(graph, weights=lambda layer: {n: 0 * a for n, a in WEIGHTS(layer).items()}, decode=Decode())
    return run(model, picture(1, *graph.input_shape))["boxes"][0]


def test_maps_of_zeros_give_each_familys_own_boxes():
    """The first box, of the first anchor in the first cell: its centre is in the middle for all."""
    np.testing.assert_allclose(zeros(TINY)[0], [16 - 40.5, 16 - 41, 16 + 40.5, 16 + 41], atol=1e-4)
    np.testing.assert_allclose(zeros(CSP)[0], [4 - 6, 4 - 8, 4 + 6, 4 + 8], atol=1e-4)
    np.testing.assert_allclose(zeros(RETINA)[0], [4 - 16, 4 - 16, 4 + 16, 4 + 16], atol=1e-4)


def test_a_box_of_retinanet_grows_no_further_than_detectron_lets_it():
    def far(layer):
        arrays = {name: 0 * array for name, array in WEIGHTS(layer).items()}
        if layer.name.startswith("box") and "beta" in arrays:
            arrays["beta"] = np.full_like(arrays["beta"], 50)
        return arrays

    found = run(to_onnx(RETINA, weights=far, decode=Decode()), picture(1, 3, 64, 96))["boxes"][0]
    size = found[:, 2:] - found[:, :2]
    np.testing.assert_allclose(size[0], np.array(RETINA_SCALES[8][0]) * 1000 / 16, rtol=1e-4)
    np.testing.assert_allclose(size[-1], np.array(RETINA_SCALES[16][-1]) * 1000 / 16, rtol=1e-4)


def test_a_centre_can_leave_its_cell_as_far_as_the_family_stretches_it():
    """Raw numbers of plus and minus infinity, as it were."""

    def at(value: float, graph: Graph) -> Array:
        def weights(layer):
            arrays = {name: 0 * array for name, array in WEIGHTS(layer).items()}
            if layer.name.startswith("head") and "bias" in arrays:
                anchors = len(graph.coding.scales[0].anchors)
                bias = arrays["bias"].reshape(anchors, -1)
                bias[:, :2] = value
                arrays["bias"] = bias.reshape(-1)
            return arrays

        box = run(to_onnx(graph, weights=weights, decode=Decode()), picture(1, *graph.input_shape))["boxes"][0, 0]
        return (box[:2] + box[2:]) / 2

    np.testing.assert_allclose(at(50, TINY), [32 * 1.025] * 2, rtol=1e-5)
    np.testing.assert_allclose(at(-50, TINY), [-32 * 0.025] * 2, rtol=1e-5)
    np.testing.assert_allclose(at(50, CSP), [8 * 1.5] * 2, rtol=1e-5)
    np.testing.assert_allclose(at(-50, CSP), [-8 * 0.5] * 2, rtol=1e-5)
