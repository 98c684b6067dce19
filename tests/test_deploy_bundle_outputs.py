"""What trtexec writes of a network's outputs, and the objects in it."""

import numpy as np
import pytest
from deploy_device import exported
from toy_detector import CLASSES, PREPROCESSING

from scaler.data.preprocessing import fit
from scaler.deploy.bundle_accuracy import found_in_outputs
from scaler.deploy.bundle_results import parse_outputs
from scaler.errors import FileError
from scaler.evaluation.detections import Selection
from scaler.evaluation.onnx_metadata import NmsInside, OnnxMetadata


def test_outputs_are_read_as_trtexec_writes_them():
    values = {"boxes": np.arange(8, dtype=np.float32).reshape(1, 2, 4), "scores": np.array([[[1e-7], [0.123456]]])}
    found = parse_outputs(exported(values), "outputs.json")
    for name, value in values.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_numbers_that_are_none_are_read_too():
    text = exported({"scores": np.array([[np.nan, -np.inf, np.inf, 0.5, -np.nan]])})
    (found,) = parse_outputs(text, "outputs.json")["scores"]
    np.testing.assert_array_equal(found, [np.nan, -np.inf, np.inf, 0.5, np.nan])


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[1]", '[{"name": "a", "dimensions": "2", "values": [1]}]', "[" * 9999]
)
def test_other_texts_are_refused(text):
    with pytest.raises(FileError, match=r"outputs\.json: no outputs of trtexec, or cut off"):
        parse_outputs(text, "outputs.json")


def test_detections_of_an_nms_inside_are_taken_as_they_are():
    metadata = OnnxMetadata(
        classes=CLASSES,
        preprocessing=PREPROCESSING,
        family="f",
        parameters={},
        nms=NmsInside("efficient", 0.25, 0.5, 3),
    )
    outputs = {
        "num_detections": np.array([[2]]),
        "detection_boxes": np.array([[[0, 0, 80, 80], [80, 80, 160, 160], [0, 0, 0, 0]]], np.float32),
        "detection_scores": np.array([[0.9, 0.5, 0.0]]),
        "detection_classes": np.array([[1, 0, 0]]),
    }
    found = found_in_outputs(outputs, metadata, fit(320, 320, 160), Selection(), "a.png")
    np.testing.assert_array_equal(found.corners, [[0, 0, 160, 160], [160, 160, 320, 320]])
    assert found.labels.tolist() == [1, 0]
    for wrong in ({"num_detections": np.array([[4]])}, {"detection_classes": np.array([[7, 0, 0]])}):
        with pytest.raises(FileError, match="outputs of another network"):
            found_in_outputs({**outputs, **wrong}, metadata, fit(320, 320, 160), Selection(), "a.png")
