"""Detections instead of raw maps: box decoding and non-maximum suppression (NMS) as ONNX nodes.

Every kind of `scaler.graph.boxes.BoxCoding` has one function here, in `CODINGS`; all else is the same for every
family. Boxes are corners `x1, y1, x2, y2` in pixels of the network's input, not clipped to it: whoever undoes the
letterbox clips, as the released YOLO-ReT code does. Their order is that of the scales, within a scale row by row,
cell by cell, anchor by anchor.

Every operator is one of TensorRT 8.2. In FP16 a coordinate above 512 pixels is exact to half a pixel only, above 1024
to a whole one, and a box of `yolov3` becomes infinite where exp overflows, from a raw width of 11 on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from onnx import TensorProto, helper

from scaler.errors import UnsupportedError, UsageError, unknown_name
from scaler.export.onnx_nodes import NodeWriter, Value
from scaler.export.weights import Array
from scaler.graph.boxes import BoxCoding, BoxCodingKind, Scale
from scaler.graph.graph import Graph
from scaler.graph.ops import Shape

Nms: TypeAlias = Literal["none", "efficient", "onnx"]

PLUGIN_DOMAIN = "TRT"
"""TensorRT's parser looks a plugin up by the type of its node, whatever the domain; the ONNX checker takes a foreign
operator only from a domain of its own. Detectors in the wild carry this one."""
MAX_DETECTIONS = 4096
"""The most boxes that EfficientNMS_TRT looks at."""
LARGEST_GROWTH = math.log(1000 / 16)
"""Of a box of RetinaNet, as a logarithm: Detectron's clamp."""
BOXES, SCORES = "boxes", "scores"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decode:
    """What the network writes instead of its raw maps.

    `none`: `boxes` `[batch, boxes, 4]` and `scores` `[batch, boxes, classes]`.

    `efficient`: what TensorRT's plugin EfficientNMS_TRT makes of them, `num_detections` `[batch, 1]` (int32),
    `detection_boxes` `[batch, max_detections, 4]`, `detection_scores` `[batch, max_detections]` and
    `detection_classes` `[batch, max_detections]` (int32). NVIDIA deprecated the plugin in TensorRT 10.12.

    `onnx`: `boxes`, `scores`, and `selected_indices` `[detections, 3]` (int64; picture, class, box) of ONNX'
    NonMaxSuppression, the one output whose size is not known before. TensorRT 8.2 takes it on trial and pads it.

    Raises:
        UsageError: An unknown kind of NMS, or a number outside its range.
    """

    nms: Nms = "none"
    confidence: float = 0.2
    """Least score of a detection, 0 to 1; the released YOLO-ReT code has 0.2 to draw boxes and 0 to compute AP."""
    iou: float = 0.5
    """Overlap with a better box of its class above which a box is dropped, 0 to 1; the released code's."""
    max_detections: int = 100
    """Most detections of a picture (`efficient`), or of a class in a picture (`onnx`); 1 to `MAX_DETECTIONS`."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.nms not in get_args(Nms):
            raise UsageError(unknown_name("nms", self.nms, get_args(Nms)))
        for name in ("confidence", "iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} = {getattr(self, name)!r}: allowed is 0 to 1")
        if type(self.max_detections) is not int or not 1 <= self.max_detections <= MAX_DETECTIONS:
            raise UsageError(
                f"max_detections = {self.max_detections!r}: allowed is a whole number from 1 to {MAX_DETECTIONS}"
            )


class Priors(NamedTuple):
    """Names of the constants that a coding may use, `[1, boxes, ...]`, in input pixels."""

    origin: str
    """Centre of the box, `x, y`, where what the network says of it is 0."""
    reach: str
    """How far the centre moves as that goes to 1: one number, or one for `x` and one for `y`."""
    half_anchor: str
    """Half of width and height of the anchor box."""


class Decoded(NamedTuple):
    """What a coding makes: names of tensors `[batch, boxes, 2]` and the number of classes.

    It also writes the tensor `SCORES`, `[batch, boxes, classes]`.
    """

    centre: str
    half_size: str
    classes: int


Predictions: TypeAlias = Sequence[tuple[str, int]]
"""One of each output of a scale: the tensor `[batch, boxes, fields]` of all scales together, and its fields."""


def _yolov3(writer: NodeWriter, predictions: Predictions, priors: Priors) -> Decoded:
    """Redmon and Farhadi, "YOLOv3" (2018), section 2.1, and `yolo_head` of the released YOLO-ReT code.

    Fields: x, y, width, height, objectness, classes. Centre `(sigmoid(xy) + cell) stride`, size `exp(wh) anchor`,
    score `sigmoid(objectness) sigmoid(class)`. YOLOv4-tiny stretches the sigmoid by `scale_x_y` (darknet).
    """
    ((value, fields),) = predictions
    in_cell = writer.node("Sigmoid", "decode/in_cell", [_columns(writer, "xy", value, 0, 2)])
    growth = writer.node("Exp", "decode/growth", [_columns(writer, "wh", value, 2, 4)])
    chances = writer.node("Sigmoid", "decode/chances", [_columns(writer, "logits", value, 4, fields)])
    classes = _scored(writer, chances, 0, fields - 4)
    return Decoded(_moved(writer, in_cell, priors), _grown(writer, growth, priors), classes)


def _yolov4(writer: NodeWriter, predictions: Predictions, priors: Priors) -> Decoded:
    """Wang et al., "Scaled-YOLOv4" (CVPR 2021), released code; darknet's `new_coords` with `scale_x_y = 2`.

    Fields as in YOLOv3, p their sigmoids. Centre `(2 p_xy - 0.5 + cell) stride`, size `(2 p_wh)^2 anchor`, score
    `p_objectness p_class`.
    """
    ((value, fields),) = predictions
    chances = writer.node("Sigmoid", "decode/chances", [value])
    in_cell = _columns(writer, "in_cell", chances, 0, 2)
    two = writer.shared("decode/two", np.array(2, np.float32))
    doubled = writer.node("Mul", "decode/doubled", [_columns(writer, "wh", chances, 2, 4), two])
    growth = writer.node("Mul", "decode/growth", [doubled, doubled])
    classes = _scored(writer, chances, 4, fields)
    return Decoded(_moved(writer, in_cell, priors), _grown(writer, growth, priors), classes)


def _retinanet(writer: NodeWriter, predictions: Predictions, priors: Priors) -> Decoded:
    """Lin et al., "Focal Loss" (ICCV 2017), section 4, with Faster R-CNN's deltas as Detectron applies them.

    Class map: a logit a class. Box map: dx, dy, dw, dh. Centre `dxy anchor + middle of the cell`, size
    `exp(min(dwh, log(1000 / 16))) anchor`, score `sigmoid(class)`; Detectron's surplus pixel (`+ 1`) is left out.
    """
    (logits, classes), (deltas, _) = predictions
    writer.node("Sigmoid", "decode/chances", [logits], SCORES)
    shift = _columns(writer, "dxy", deltas, 0, 2)
    most = writer.shared("decode/most", np.array(LARGEST_GROWTH, np.float32))
    clamped = writer.node("Min", "decode/clamped", [_columns(writer, "dwh", deltas, 2, 4), most])
    growth = writer.node("Exp", "decode/growth", [clamped])
    return Decoded(_moved(writer, shift, priors), _grown(writer, growth, priors), classes)


CODINGS: Mapping[BoxCodingKind, Callable[[NodeWriter, Predictions, Priors], Decoded]] = {
    "yolov3": _yolov3,
    "yolov4": _yolov4,
    "retinanet": _retinanet,
}


def _moved(writer: NodeWriter, shift: str, priors: Priors) -> str:
    shift = writer.node("Mul", "decode/shift", [shift, priors.reach])
    return writer.node("Add", "decode/centre", [shift, priors.origin])


def _grown(writer: NodeWriter, growth: str, priors: Priors) -> str:
    return writer.node("Mul", "decode/half_size", [growth, priors.half_anchor])


def _scored(writer: NodeWriter, chances: str, start: int, stop: int) -> int:
    """Write the scores from columns of objectness and classes; returns the number of classes."""
    objectness = _columns(writer, "objectness", chances, start, start + 1)
    classes = _columns(writer, "classes", chances, start + 1, stop)
    writer.node("Mul", "decode/scores", [classes, objectness], SCORES)
    return stop - start - 1


def add_decoding(writer: NodeWriter, graph: Graph, decode: Decode, batch: int | str) -> dict[str, Value]:
    """Write the nodes that follow the raw maps; returns the outputs by name. A batch that is open has a name.

    Raises:
        UnsupportedError: The network is no detector.
    """
    if graph.coding is None:
        raise UnsupportedError(f"{graph.name}: it is no detector, there are no boxes to decode; write it without")
    coding = graph.coding
    scales = coding.scales
    maps = {label: graph.placements[place].block.shape for label, place in graph.outputs}
    predictions = [
        _joined(writer, [(scale.outputs[position], scale) for scale in scales], maps, batch)
        for position in range(len(scales[0].outputs))
    ]
    priors = [_scale_priors(coding, scale, maps[scale.outputs[0]]) for scale in scales]
    decoded = CODINGS[coding.kind](writer, predictions, _stored(writer, priors))
    ends = [writer.node(kind, f"decode/{kind.lower()}", [decoded.centre, decoded.half_size]) for kind in ("Sub", "Add")]
    writer.node("Concat", "decode/boxes", ends, BOXES, axis=2)
    count = sum(len(origin) for origin, _, _ in priors)
    raw = {BOXES: Value((batch, count, 4)), SCORES: Value((batch, count, decoded.classes))}
    match decode.nms:
        case "none":
            return raw
        case "efficient":
            return _efficient_nms(writer, decode, batch)
        case "onnx":
            return raw | _onnx_nms(writer, decode)


def _joined(
    writer: NodeWriter, parts: Sequence[tuple[str, Scale]], maps: Mapping[str, Shape], batch: int | str
) -> tuple[str, int]:
    """Turn maps `[batch, anchors fields, height, width]` into one `[batch, boxes, fields]`; also gives the fields."""
    rows, fields = [], 0
    pictures = batch if isinstance(batch, int) else 0  # ONNX' Reshape: 0 is what the input has
    for label, scale in parts:
        channels, height, width = maps[label]
        anchors, cells = len(scale.anchors), height * width
        fields = channels // anchors
        name = f"decode/{label}"
        value = _reshaped(writer, f"{name}_split", label, (pictures, anchors, fields, cells))
        value = writer.node("Transpose", f"{name}_cells", [value], perm=[0, 3, 1, 2])
        rows.append(_reshaped(writer, f"{name}_rows", value, (pictures, cells * anchors, fields)))
    return writer.node("Concat", f"decode/{'_'.join(label for label, _ in parts)}", rows, axis=1), fields


def _scale_priors(coding: BoxCoding, scale: Scale, shape: Shape) -> tuple[Array, Array, Array]:
    """Origin `[boxes, 2]`, reach `[boxes, 1 or 2]` and half anchor `[boxes, 2]` of a scale with maps of this shape."""
    _, height, width = shape
    stride = np.float32(scale.stride)
    y, x = np.mgrid[:height, :width].astype(np.float32) * stride
    corner = np.stack([x, y], axis=-1).reshape(-1, 2).repeat(len(scale.anchors), axis=0)
    anchor = np.tile(np.array(scale.anchors, np.float32), (height * width, 1))
    half_anchor = anchor * np.float32(0.5)
    if coding.kind == "retinanet":
        return corner + stride / 2, anchor, half_anchor
    stretch = np.float32(coding.xy_scale)
    return corner - (stretch - 1) / 2 * stride, np.full((len(corner), 1), stretch * stride), half_anchor


def _stored(writer: NodeWriter, priors: Sequence[tuple[Array, Array, Array]]) -> Priors:
    """Store the priors of all scales, one below the other."""
    joined = [np.concatenate(parts)[np.newaxis] for parts in zip(*priors, strict=True)]
    return Priors(*[writer.constant(f"decode/{n}", part) for n, part in zip(Priors._fields, joined, strict=True)])


def _columns(writer: NodeWriter, name: str, value: str, start: int, stop: int) -> str:
    """Take a range of the last of three axes."""
    bounds = [writer.shared(f"index{place}", np.array([place], np.int64)) for place in (start, stop, 2)]
    return writer.node("Slice", f"decode/{name}", [value, *bounds])


def _reshaped(writer: NodeWriter, name: str, value: str, shape: tuple[int, ...]) -> str:
    return writer.node("Reshape", name, [value, writer.constant(f"{name}_shape", np.array(shape, np.int64))])


def _efficient_nms(writer: NodeWriter, decode: Decode, batch: int | str) -> dict[str, Value]:
    """TensorRT's plugin, with the attributes and outputs of its documentation (TensorRT, plugin/efficientNMSPlugin)."""
    most = decode.max_detections
    outputs = {
        "num_detections": Value((batch, 1), TensorProto.INT32),
        "detection_boxes": Value((batch, most, 4)),
        "detection_scores": Value((batch, most)),
        "detection_classes": Value((batch, most), TensorProto.INT32),
    }
    node = helper.make_node(
        "EfficientNMS_TRT",
        [BOXES, SCORES],
        list(outputs),
        name="decode/nms",
        domain=PLUGIN_DOMAIN,
        plugin_version="1",
        score_threshold=float(decode.confidence),
        iou_threshold=float(decode.iou),
        max_output_boxes=most,
        background_class=-1,
        score_activation=0,
        box_coding=0,
    )
    writer.nodes.append(node)
    return outputs


def _onnx_nms(writer: NodeWriter, decode: Decode) -> dict[str, Value]:
    """ONNX' own operator; it wants the scores class by class."""
    by_class = writer.node("Transpose", "decode/by_class", [SCORES], perm=[0, 2, 1])
    limits = [
        writer.constant(f"decode/{name}", np.array([value], kind))
        for name, value, kind in (
            ("max_detections", decode.max_detections, np.int64),
            ("iou", decode.iou, np.float32),
            ("confidence", decode.confidence, np.float32),
        )
    ]
    selected = writer.node("NonMaxSuppression", "decode/nms", [BOXES, by_class, *limits], "selected_indices")
    return {selected: Value(("detections", 3), TensorProto.INT64)}
