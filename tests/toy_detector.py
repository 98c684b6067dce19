"""A detector small enough to be written by hand: it tells red from green in the quarters of a picture."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scaler.data.images import write_image
from scaler.data.preprocessing import IMAGENET, Preprocessing
from scaler.evaluation.onnx_metadata import KEY, OnnxMetadata

CLASSES = ("red", "green")
SIDE = 160
CELL = SIDE // 2
PICTURE = 80
PREPROCESSING = Preprocessing(size=SIDE, fill=0, mean=IMAGENET[0], std=IMAGENET[1])


def toy_model(parameters: dict[str, Any], *, batch: int = 1, **metadata: Any) -> onnx.ModelProto:
    """Boxes are the quarters; the score of a colour is how much of it there is in the quarter's mean."""
    weights = np.full((2, 3, CELL, CELL), -4 / CELL**2, np.float32)
    weights[0, 0] = weights[1, 1] = 8 / CELL**2
    corners = [[x, y, x + CELL, y + CELL] for y in (0, CELL) for x in (0, CELL)]
    constants = {
        "conv.weight": weights,
        "conv.bias": np.full(2, -3, np.float32),
        "flat": np.array([batch, 2, 4]),
        "one": np.array([batch, 1, 1]),
        "zero": np.array(0, np.float32),
        "corners": np.array([corners], np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "conv.weight", "conv.bias"], ["map"], name="conv", strides=[CELL, CELL]),
        helper.make_node("Sigmoid", ["map"], ["chances"], name="chances"),
        helper.make_node("Reshape", ["chances", "flat"], ["flattened"], name="flatten"),
        helper.make_node("Transpose", ["flattened"], ["scores"], name="turn", perm=[0, 2, 1]),
        helper.make_node("ReduceMean", ["image"], ["mean"], name="mean", axes=[1, 2, 3]),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"], name="nothing"),
        helper.make_node("Reshape", ["nothing", "one"], ["shift"], name="shift"),
        helper.make_node("Add", ["corners", "shift"], ["boxes"], name="place"),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, 4, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 4, 2]),
        ],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    facts = {"preprocessing": PREPROCESSING, **metadata}
    said = OnnxMetadata(classes=CLASSES, family="yolo-ret", parameters=parameters, **facts)
    helper.set_model_props(model, {KEY: said.as_text()})
    return model


def write_toy(path: Path, parameters: dict[str, Any], **changes: Any) -> Path:
    onnx.save(toy_model(parameters, **changes), str(path))
    return path


def write_quarters(folder: Path, count: int, seed: int = 0) -> Path:
    """A data set whose val split has pictures of one to three coloured quarters, some not quite filled."""
    rng = np.random.default_rng(seed)
    (folder / "val").mkdir(parents=True)
    images, annotations = [], []
    for number in range(count):
        picture = rng.integers(90, 130, (PICTURE, PICTURE, 3), dtype=np.uint8)
        for quarter in rng.permutation(4)[: rng.integers(1, 4)].tolist():
            label, side = int(rng.integers(2)), int(rng.integers(26, 41))
            x, y = PICTURE // 2 * (quarter % 2), PICTURE // 2 * (quarter // 2)
            picture[y : y + side, x : x + side] = rng.integers(0, 60, (side, side, 3), dtype=np.uint8)
            picture[y : y + side, x : x + side, label] += np.uint8(rng.integers(60, 190))
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": label, "bbox": [x, y, side, side]}
            )
        write_image(folder / "val" / f"{number}.png", picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": PICTURE, "height": PICTURE})
    categories = [{"id": place, "name": name} for place, name in enumerate(CLASSES)]
    labels = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "val.json").write_text(json.dumps(labels))
    path = folder / "data.toml"
    path.write_text(
        f'schema_version = 1\nname = "quarters"\nformat = "coco"\nclasses = {json.dumps(CLASSES)}\n'
        '[val]\npictures = "val"\nlabels = "val.json"\n'
    )
    return path
