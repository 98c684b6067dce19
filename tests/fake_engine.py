"""The "engine" of the fake TensorRT: an ONNX file that ONNX Runtime computes, EfficientNMS_TRT included."""

import base64
import json
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

PLUGIN = "EfficientNMS_TRT"
_RAW = ("boxes", "scores")


class Value(NamedTuple):
    """An input or output."""

    name: str
    dims: tuple[int | str, ...]
    """A name where it is open."""
    dtype: np.dtype


def described(values) -> list[Value]:
    """What a model says of its inputs or outputs."""
    return [
        Value(
            value.name,
            tuple(d.dim_value or d.dim_param or "open" for d in value.type.tensor_type.shape.dim),
            helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type),
        )
        for value in values
    ]


def plan_of(model: onnx.ModelProto, version: str, most: int, dla: int | None) -> bytes:
    """The content of an engine file."""
    text = base64.b64encode(model.SerializeToString()).decode()
    return json.dumps({"version": version, "most": most, "dla": dla, "model": text}).encode()


class Network:
    """What an engine computes.

    Args:
        plan: Of `plan_of`.
    """

    def __init__(self, plan: bytes) -> None:
        content = json.loads(bytes(plan))
        self.version, self.most, self.dla = content["version"], content["most"], content["dla"]
        self.model = onnx.load_model_from_string(base64.b64decode(content["model"]))
        graph = self.model.graph
        self.nodes = [node.name for node in graph.node]
        self.inputs, self.outputs = described(graph.input), described(graph.output)
        self._session = None

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Compute the network."""
        plugin = next((node for node in self.model.graph.node if node.op_type == PLUGIN), None)
        session, names = self._runner(plugin)
        outputs = dict(zip(names, session.run(names, inputs), strict=True))
        return outputs if plugin is None else efficient_nms(plugin, *(outputs[name] for name in _RAW))

    def _runner(self, plugin):
        import onnxruntime

        names = [value.name for value in self.outputs] if plugin is None else list(_RAW)
        if self._session is None:
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            if plugin is not None:
                model.graph.node.remove(plugin)
                del model.graph.output[:]
                model.graph.output.extend(
                    helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
                )
            self._session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return self._session, names


def efficient_nms(node: onnx.NodeProto, boxes: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """What TensorRT's plugin makes of boxes `[batch, n, 4]` and scores `[batch, n, classes]`.

    As its documentation says (plugin/efficientNMSPlugin/README.md): scores from the threshold on, class by class the
    better box suppresses those that overlap it by more than the threshold, the best of all classes stay.
    """
    attributes = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    most, count = attributes["max_output_boxes"], len(boxes)
    number = np.zeros((count, 1), np.int32)
    found = np.zeros((count, most, 4), np.float32), np.ones((count, most), np.float32)
    found[0][..., 2:] = 40  # behind the detections lies anything: here good boxes
    classes = np.full((count, most), 1, np.int32)
    for picture in range(count):
        kept: list[tuple[float, int, int]] = []
        places, labels = np.nonzero(scores[picture] >= attributes["score_threshold"])
        values = scores[picture][places, labels]
        for index in np.argsort(-values, kind="stable"):
            place, label = int(places[index]), int(labels[index])
            rivals = [boxes[picture][other] for _, other, kind in kept if kind == label]
            if all(overlap(boxes[picture][place], rival) <= attributes["iou_threshold"] for rival in rivals):
                kept.append((float(values[index]), place, label))
            if len(kept) == most:
                break
        number[picture] = len(kept)
        for row, (value, place, label) in enumerate(kept):
            found[0][picture, row], found[1][picture, row] = boxes[picture][place], value
            classes[picture, row] = label
    return dict(zip(node.output, (number, *found, classes), strict=True))


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    inner = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None).prod()
    return float(inner / max((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod() - inner, 1e-12))
