"""Boxes and detections: the written nodes against formulas in numpy, and NMS in ONNX Runtime against NMS in numpy."""

import re
from collections.abc import Iterator
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from onnx import ModelProto, TensorProto, checker, helper
from onnx_sessions import newest_readable_opset, picture, run

from scaler.errors import UsageError
from scaler.export import decode as decode_module
from scaler.export.decode import Decode, Decoded, Predictions, Priors
from scaler.export.onnx_model import DEFAULT_OPSET, OLDEST_OPSET, newest_opset, to_onnx
from scaler.export.onnx_nodes import NodeWriter
from scaler.export.tensorrt_ops import TENSORRT_8_2_OPS
from scaler.export.weights import Array, random_weights, shapes
from scaler.graph.boxes import BoxCoding, Scale
from scaler.graph.graph import Graph, GraphBuilder, Layer
from scaler.models.blocks import conv_block
from scaler.models.detectors.yolo_ret import BACKBONES, NECKS, YoloRetConfig, build, published_drop

CLASSES = 4
NET = build(YoloRetConfig(backbone="mobilenetv2", width=0.35, drop=2, neck="fpn", resolution=160, classes=CLASSES))
WEIGHTS = cache(random_weights(5))
ANCHORS = {
    32: ((116, 90), (156, 198), (373, 326)),
    16: ((30, 61), (62, 45), (59, 119)),
    8: ((10, 13), (16, 30), (33, 23)),
}
"""Redmon and Farhadi, "YOLOv3", section 2.3; written down here a second time."""


def sigmoid(value: Array) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-value.astype(np.float64)))


def rows(maps: dict[str, Array]) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Box by box `[batch, 4]` and its scores `[batch, classes]`, in the order of the released YOLO-ReT code."""
    for stride, anchors in ANCHORS.items():
        raw = maps[f"stride{stride}"]
        _, _, height, width = raw.shape
        for row in range(height):
            for column in range(width):
                for index, (anchor_width, anchor_height) in enumerate(anchors):
                    cell = raw[:, index * (5 + CLASSES) : (index + 1) * (5 + CLASSES), row, column]
                    x = (sigmoid(cell[:, 0]) + column) * stride
                    y = (sigmoid(cell[:, 1]) + row) * stride
                    w = anchor_width * np.exp(cell[:, 2].astype(np.float64))
                    h = anchor_height * np.exp(cell[:, 3].astype(np.float64))
                    box = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)
                    yield box, sigmoid(cell[:, 4:5]) * sigmoid(cell[:, 5:])


def decoded(maps: dict[str, Array]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """`[batch, boxes, 4]` and `[batch, boxes, classes]`."""
    boxes, scores = zip(*rows(maps), strict=True)
    return np.stack(boxes, axis=1), np.stack(scores, axis=1)


def overlaps(box: Array, others: Array) -> Array:
    """Intersection over union of a box of corners `[4]` with others `[n, 4]`."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    common = np.prod(np.maximum(sides, 0), axis=1)
    return common / (np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - common)


def greedy_nms(boxes: Array, scores: Array, chosen: Decode) -> dict[tuple[int, int], list[int]]:
    """Kept boxes, best first, by picture and class."""
    kept: dict[tuple[int, int], list[int]] = {}
    for image, klass in np.ndindex(scores.shape[0], scores.shape[2]):
        found: list[int] = []
        for index in np.argsort(-scores[image, :, klass]):
            if scores[image, index, klass] <= chosen.confidence or len(found) == chosen.max_detections:
                break
            if (overlaps(boxes[image, index], boxes[image, found]) <= chosen.iou).all():
                found.append(int(index))
        if found:
            kept[image, klass] = found
    return kept


def zeros(layer: Layer) -> dict[str, Array]:
    return {name: np.zeros(shape, np.float32) for name, shape in shapes(layer).items()}


@cache
def expected() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Boxes and scores of two pictures, from the raw maps."""
    return decoded(run(to_onnx(NET, weights=WEIGHTS, batch=2), picture(2, 3, 160, 160)))


class TestBoxes:
    @pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, newest_readable_opset()])
    @pytest.mark.parametrize("optimise", [False, True])
    def test_boxes_and_scores_are_those_of_the_formulas(self, opset: int, optimise: bool):
        pictures = picture(2, 3, 160, 160)
        boxes, scores = expected()
        found = run(to_onnx(NET, weights=WEIGHTS, batch=2, opset=opset, decode=Decode()), pictures, optimise)
        assert list(found) == ["boxes", "scores"]
        assert found["boxes"].shape == (2, NET.boxes, 4)
        assert found["scores"].shape == (2, NET.boxes, CLASSES)
        assert scores.std() > 0.01
        np.testing.assert_allclose(found["boxes"], boxes, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(found["scores"], scores, rtol=1e-4, atol=1e-5)

    def test_maps_of_zeros_give_the_anchors_in_the_middle_of_their_cells(self):
        found = run(to_onnx(NET, weights=zeros, decode=Decode()), picture(1, 3, 160, 160))
        np.testing.assert_array_equal(found["scores"], np.full((1, NET.boxes, CLASSES), 0.25, np.float32))
        boxes = found["boxes"][0]
        np.testing.assert_array_equal(boxes[0], [16 - 58, 16 - 45, 16 + 58, 16 + 45])
        np.testing.assert_array_equal(boxes[4], [48 - 78, 16 - 99, 48 + 78, 16 + 99])  # next cell, second anchor
        np.testing.assert_array_equal(boxes[15], [16 - 58, 48 - 45, 16 + 58, 48 + 45])  # next row of 5 cells
        np.testing.assert_array_equal(boxes[75], [8 - 15, 8 - 30.5, 8 + 15, 8 + 30.5])  # first of stride 16
        np.testing.assert_array_equal(boxes[375], [4 - 5, 4 - 6.5, 4 + 5, 4 + 6.5])  # first of stride 8
        np.testing.assert_array_equal(boxes[-1], [156 - 16.5, 156 - 11.5, 156 + 16.5, 156 + 11.5])

    @pytest.mark.parametrize("backbone", BACKBONES)
    @pytest.mark.parametrize("neck", NECKS)
    def test_every_detector_says_how_to_decode_all_its_boxes(self, backbone: str, neck: str):
        graph = build(YoloRetConfig(backbone=backbone, drop=published_drop(backbone), neck=neck))
        assert graph.coding is not None
        assert [label for scale in graph.coding.scales for label in scale.outputs] == [
            label for label, _ in graph.outputs
        ]
        assert {scale.stride: scale.anchors for scale in graph.coding.scales} == ANCHORS
        sides = {label: graph.placements[place].block.shape[1] for label, place in graph.outputs}
        assert all(sides[scale.outputs[0]] * scale.stride == 320 for scale in graph.coding.scales)
        assert sum(sides[scale.outputs[0]] ** 2 * len(scale.anchors) for scale in graph.coding.scales) == graph.boxes


class TestNms:
    @pytest.mark.parametrize(
        "chosen",
        [
            Decode(nms="onnx", confidence=0.4, iou=0.5),
            Decode(nms="onnx", confidence=0.25, iou=0.3, max_detections=20),
            Decode(nms="onnx", confidence=0.5, iou=0.9, max_detections=3),
            Decode(nms="onnx", confidence=0.3, iou=0.0, max_detections=4096),
            Decode(nms="onnx", confidence=1.0),
        ],
        ids=lambda chosen: f"{chosen.confidence}-{chosen.iou}-{chosen.max_detections}",
    )
    def test_onnx_runtime_selects_the_boxes_that_numpy_selects(self, chosen: Decode):
        found = run(to_onnx(NET, weights=WEIGHTS, batch=2, decode=chosen), picture(2, 3, 160, 160))
        assert list(found) == ["boxes", "scores", "selected_indices"]
        kept: dict[tuple[int, int], list[int]] = {}
        for image, klass, box in found["selected_indices"].tolist():
            kept.setdefault((image, klass), []).append(box)
        assert kept == greedy_nms(found["boxes"], found["scores"], chosen)
        assert bool(kept) == (chosen.confidence < 1)
        assert not kept or len(found["selected_indices"]) < (found["scores"] > chosen.confidence).sum()

    @pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, 17, newest_readable_opset()])
    def test_it_runs_at_every_opset(self, opset: int):
        outputs = run(to_onnx(NET, opset=opset, decode=Decode(nms="onnx")), picture(1, 3, 160, 160))
        assert outputs["selected_indices"].shape[1] == 3
        assert outputs["selected_indices"].dtype == np.int64


def signature(model: ModelProto) -> dict[str, tuple[int, list[int | str]]]:
    """Element type and shape of every output."""
    return {
        output.name: (
            output.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim],
        )
        for output in model.graph.output
    }


class TestModels:
    @pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, 17, newest_opset()])
    @pytest.mark.parametrize("nms", ["none", "efficient", "onnx"])
    def test_it_is_valid_and_made_of_operators_of_tensorrt_8_2(self, nms: str, opset: int):
        model = to_onnx(NET, batch=2, opset=opset, decode=Decode(nms=nms))
        checker.check_model(model, full_check=True)
        assert {node.op_type for node in model.graph.node if not node.domain} <= TENSORRT_8_2_OPS

    def test_the_plugin_has_the_attributes_and_outputs_of_its_documentation(self):
        chosen = Decode(nms="efficient", confidence=0.25, iou=0.6, max_detections=50)
        model = to_onnx(NET, batch=3, decode=chosen)
        node = model.graph.node[-1]
        assert (node.op_type, list(node.input)) == ("EfficientNMS_TRT", ["boxes", "scores"])
        assert {a.name: helper.get_attribute_value(a) for a in node.attribute} == {
            "plugin_version": b"1",
            "score_threshold": pytest.approx(0.25),
            "iou_threshold": pytest.approx(0.6),
            "max_output_boxes": 50,
            "background_class": -1,
            "score_activation": 0,
            "box_coding": 0,
        }
        assert list(node.output) == list(signature(model))
        assert signature(model) == {
            "num_detections": (TensorProto.INT32, [3, 1]),
            "detection_boxes": (TensorProto.FLOAT, [3, 50, 4]),
            "detection_scores": (TensorProto.FLOAT, [3, 50]),
            "detection_classes": (TensorProto.INT32, [3, 50]),
        }

    def test_the_plugin_reads_the_boxes_and_scores_that_are_written_without_it(self):
        plain, plugin = (to_onnx(NET, decode=Decode(nms=nms)).graph for nms in ("none", "efficient"))
        assert list(plain.node) == list(plugin.node)[:-1]
        assert list(plain.initializer) == list(plugin.initializer)

    def test_a_plugin_needs_a_domain_of_its_own(self):
        """Where it does not say one, the checker looks for the operator in ONNX itself."""
        model = to_onnx(NET, decode=Decode(nms="efficient"))
        assert {(o.domain, o.version) for o in model.opset_import} == {("", 13), ("TRT", 1)}
        model.graph.node[-1].domain = ""
        with pytest.raises(checker.ValidationError, match="No Op registered for EfficientNMS_TRT"):
            checker.check_model(model)

    def test_only_the_number_of_selected_boxes_is_open(self):
        assert signature(to_onnx(NET, decode=Decode(nms="onnx"))) == {
            "boxes": (TensorProto.FLOAT, [1, NET.boxes, 4]),
            "scores": (TensorProto.FLOAT, [1, NET.boxes, CLASSES]),
            "selected_indices": (TensorProto.INT64, ["detections", 3]),
        }

    def test_decoding_changes_no_node_of_the_network(self):
        raw = to_onnx(NET).graph.node
        assert list(to_onnx(NET, decode=Decode()).graph.node)[: len(raw)] == list(raw)


def test_a_family_with_two_maps_a_scale_needs_one_function(monkeypatch: pytest.MonkeyPatch):
    """The design holds for heads like RetinaNet's: box offsets and classes in maps of their own, other formulas."""

    def offsets(writer: NodeWriter, predictions: Predictions, priors: Priors) -> Decoded:
        (boxes, four), (classes, count) = predictions
        assert four == 4
        shift = writer.node("Slice", "shift", [boxes, *[writer.shared(f"index{i}", np.array([i])) for i in (0, 2, 2)]])
        writer.node("Sigmoid", "chances", [classes], "scores")
        return Decoded(writer.node("Add", "centre", [shift, priors.origin]), priors.half_anchor, count)

    def make(shape: tuple[int, int, int]) -> Graph:
        graph = GraphBuilder(shape)
        outputs, scales = [], []
        for stride in (8, 4):
            x = graph.add(f"body{stride}", conv_block(shape, 5, stride=stride, activation="relu"), graph.input)
            for name, channels in (("boxes", 2 * 4), ("classes", 2 * 3)):
                head = graph.add(f"{name}{stride}", conv_block(x.shape, channels, activation=None), x)
                outputs.append((f"{name}_{stride}", head))
            scales.append(Scale((f"boxes_{stride}", f"classes_{stride}"), stride, ((2, 6), (4, 4))))
        return graph.build("two maps", outputs, 2 * (2 * 3 + 4 * 6), BoxCoding("offsets", tuple(scales)))

    monkeypatch.setattr(decode_module, "CODINGS", {"offsets": offsets})
    graph = make((3, 16, 24))
    maps = run(to_onnx(graph, weights=WEIGHTS), picture(1, 3, 16, 24))
    model = to_onnx(graph, weights=WEIGHTS, decode=Decode())
    checker.check_model(model, full_check=True)
    found = run(model, picture(1, 3, 16, 24))
    boxes, scores = found["boxes"], found["scores"]
    assert (boxes.shape, scores.shape) == ((1, graph.boxes, 4), (1, graph.boxes, 3))
    for box, stride, anchor, row, column in ((0, 8, 0, 0, 0), (9, 8, 1, 1, 1), (12, 4, 0, 0, 0), (59, 4, 1, 3, 5)):
        x, y = maps[f"boxes_{stride}"][0, 4 * anchor : 4 * anchor + 2, row, column] + [column * stride, row * stride]
        w, h = ((2, 6), (4, 4))[anchor]
        np.testing.assert_allclose(boxes[0, box], [x - w / 2, y - h / 2, x + w / 2, y + h / 2], rtol=1e-5, atol=1e-4)
        classes = maps[f"classes_{stride}"][0, 3 * anchor : 3 * anchor + 3, row, column]
        np.testing.assert_allclose(scores[0, box], sigmoid(classes), rtol=1e-5, atol=1e-5)


class TestErrors:
    def test_an_unknown_nms_names_the_kinds(self):
        with pytest.raises(
            UsageError, match=re.escape("unknown nms 'eficient'; did you mean 'efficient'? known: none,")
        ):
            Decode(nms="eficient")

    @pytest.mark.parametrize("name", ["confidence", "iou"])
    @pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
    def test_a_threshold_outside_its_range(self, name: str, value: float):
        with pytest.raises(UsageError, match=f"{name} = {value}: allowed is 0 to 1"):
            Decode(**{name: value})

    @pytest.mark.parametrize("value", [0, -1, 4097, 1.5])
    def test_a_number_of_detections_outside_its_range(self, value: object):
        with pytest.raises(UsageError, match=f"max_detections = {value}: allowed is a whole number from 1 to 4096"):
            Decode(max_detections=value)
