"""Exported files: 16 bits, an open batch, NMS inside, what they say of themselves, and how they agree with torch."""

import json
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from fake_trtexec import options_of
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, shape_inference
from onnx_sessions import newest_readable_opset, picture, run
from test_onnx_detector import CLASSES, SPECS, TINY, checkpoint, fitted, network, one_line, pictures

from scaler.data.dataset import FloatArray, Image
from scaler.data.images import write_image
from scaler.data.preprocessing import letterbox
from scaler.errors import UnsupportedError, UsageError, UserError
from scaler.evaluation.detections import Selection
from scaler.evaluation.nms import nms
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.evaluation.onnx_metadata import KEY, NmsInside, OnnxMetadata, ScaleAnchors, read_metadata
from scaler.export.decode import Decode
from scaler.export.half import FilePrecision
from scaler.export.onnx_model import DEFAULT_OPSET, OLDEST_OPSET, newest_opset, to_onnx
from scaler.export.tensorrt_ops import TENSORRT_8_2_OPS
from scaler.export.weights import Array, random_weights
from scaler.graph.graph import Layer
from scaler.models.detectors.yolo_ret import YoloRetConfig, build
from scaler.runtimes.onnx_facts import read_facts
from scaler.runtimes.tensorrt_version import Version, parse_version
from scaler.training.network.checkpoint import write_checkpoint
from scaler.training.network.detector import TorchDetector
from scaler.training.network.module import weights_of
from scaler.training.network.onnx_file import detector_model, write_onnx
from scaler.training.runs.engine_command import EngineFile, engine_command, read_engine_file
from scaler.training.runs.export import ExportOrder, export
from scaler.training.runs.export_check import TOLERANCES, Agreement, Tolerance, compare, without_plugin
from scaler.training.runs.export_pictures import MOST_PICTURES, Pictures, generated_pictures, pictures_of_folder

WEIGHTS = cache(random_weights(5))
NET = build(YoloRetConfig(backbone="mobilenetv2", width=0.35, drop=2, neck="fpn", rfcr=5, resolution=160, classes=4))
LIMITS = Decode(nms="onnx", confidence=0.3, iou=0.5, max_detections=7)


def entry_shape(model: ModelProto) -> list[int | str]:
    (entry,) = model.graph.input
    return [d.dim_param or d.dim_value for d in entry.type.tensor_type.shape.dim]


def constants(model: ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


# ------------------------------------------------------------------------------------------------------ 16 bits


@pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, newest_opset()])
@pytest.mark.parametrize("family", SPECS)
def test_a_file_of_16_bits_is_valid_and_made_of_operators_of_tensorrt_8_2(family: str, opset: int):
    for decode in (None, Decode(nms="none"), Decode(nms="efficient")):
        model = to_onnx(SPECS[family].graph(), weights=WEIGHTS, opset=opset, decode=decode, precision="fp16")
        checker.check_model(model, full_check=True)
        assert {node.op_type for node in model.graph.node if not node.domain} <= TENSORRT_8_2_OPS
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)


def test_weights_are_of_16_bits_and_input_decoding_and_outputs_of_32():
    model = shape_inference.infer_shapes(to_onnx(NET, weights=WEIGHTS, decode=Decode(), precision="fp16"))
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) > 20
    assert {kinds[node.output[0]] for node in convolutions} == {TensorProto.FLOAT16}
    stored = constants(model)
    assert {stored[name].dtype for node in convolutions for name in node.input[1:]} == {np.dtype(np.float16)}
    assert {stored[node.input[2]].dtype for node in model.graph.node if node.op_type == "Resize"} == {np.dtype("f4")}
    decoding = [node for node in model.graph.node if node.name.startswith("decode/") and node.output[0] in kinds]
    assert {kinds[node.output[0]] for node in decoding} == {TensorProto.FLOAT}
    ends = [*model.graph.input, *model.graph.output]
    assert {end.type.tensor_type.elem_type for end in ends} == {TensorProto.FLOAT}


def test_only_casts_are_added_to_the_network_and_its_layers_keep_their_names():
    full, half = (to_onnx(NET, weights=WEIGHTS, precision=precision) for precision in ("fp32", "fp16"))
    others = [(n.op_type, n.name) for n in half.graph.node if n.op_type != "Cast"]
    assert others == [(n.op_type, n.name) for n in full.graph.node]
    assert [output.name for output in half.graph.output] == [label for label, _ in NET.outputs]
    assert sum(n.op_type == "Cast" for n in half.graph.node) == 1 + len(NET.outputs)


def test_maps_of_16_bits_are_those_of_32_to_a_few_parts_in_a_hundred():
    source = picture(1, 3, 160, 160)
    full, half = (run(to_onnx(NET, weights=WEIGHTS, precision=p), source, optimise=False) for p in ("fp32", "fp16"))
    for label, values in full.items():
        assert half[label].dtype == np.float32
        difference = np.abs(half[label] - values).max()
        assert 0 < difference < 0.03 * np.abs(values).max()


def test_the_runtimes_recognise_a_file_of_16_bits(tmp_path):
    write_onnx(TINY, weights_of(network()), tmp_path / "half.onnx", precision="fp16")
    assert read_facts(tmp_path / "half.onnx", "testing").formats == {"fp16"}
    assert OnnxDetector(tmp_path / "half.onnx", "cpu").metadata.precision == "fp16"


@pytest.mark.parametrize("value", [7e4, math.nan])
def test_a_weight_that_16_bits_cannot_hold_is_refused(value: float):
    def huge(layer: Layer) -> dict[str, Array]:
        return {name: np.full_like(values, value) for name, values in WEIGHTS(layer).items()}

    with pytest.raises(UnsupportedError, match="does not fit into 16 bits, whose largest number is 65504; write"):
        to_onnx(NET, weights=huge, precision="fp16")


def test_an_unknown_precision_is_told():
    with pytest.raises(UsageError, match="unknown precision 'fp8'; known: fp32, fp16"):
        to_onnx(NET, precision="fp8")


# -------------------------------------------------------------------------------------------------- an open batch


@pytest.mark.parametrize("opset", [OLDEST_OPSET, newest_readable_opset()])
def test_a_file_with_an_open_batch_gives_for_every_batch_what_one_of_that_batch_gives(opset: int):
    pictures_ = picture(3, 3, 160, 160)
    model = to_onnx(NET, weights=WEIGHTS, batch=None, opset=opset, decode=Decode())
    checker.check_model(model, full_check=True)
    assert entry_shape(model) == ["batch", 3, 160, 160]
    for count in (1, 3):
        closed = to_onnx(NET, weights=WEIGHTS, batch=count, opset=opset, decode=Decode())
        expected, found = (run(one, pictures_[:count], optimise=False) for one in (closed, model))
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("decode", [None, Decode(), Decode(nms="efficient"), Decode(nms="onnx")], ids=str)
def test_every_output_of_an_open_batch_is_open_and_nothing_else(decode: Decode | None):
    model = to_onnx(NET, batch=None, decode=decode)
    shapes = [[d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] for output in model.graph.output]
    closed = to_onnx(NET, batch=5, decode=decode)
    for shape, other in zip(shapes, closed.graph.output, strict=True):
        expected = [d.dim_param or d.dim_value for d in other.type.tensor_type.shape.dim]
        assert shape == (expected if expected[0] == "detections" else ["batch", *expected[1:]])


def test_a_fixed_batch_is_written_as_before():
    model = to_onnx(NET, batch=2, decode=Decode())
    shapes = [values for name, values in constants(model).items() if name.endswith("_shape")]
    assert len(shapes) == 6
    assert {int(values[0]) for values in shapes} == {2}


def test_a_detector_of_an_open_batch_takes_any_number_of_pictures(tmp_path):
    module = network()
    write_onnx(TINY, weights_of(module), tmp_path / "open.onnx", batch=None)
    images = np.stack([fitted(image, TINY) for image in pictures(5)])
    detector, by_torch = OnnxDetector(tmp_path / "open.onnx", "cpu"), TorchDetector(TINY, module).raw(images)
    for count in (1, 3, 5):
        boxes, scores = detector.raw(images[:count])
        np.testing.assert_allclose(boxes, by_torch[0][:count], rtol=1e-3, atol=0.1)
        np.testing.assert_allclose(scores, by_torch[1][:count], atol=1e-4)


# ------------------------------------------------------------------------------------------------------ NMS inside


@pytest.fixture(scope="module")
def with_nms(tmp_path_factory: pytest.TempPathFactory) -> OnnxDetector:
    path = tmp_path_factory.mktemp("nms") / "nms.onnx"
    write_onnx(TINY, weights_of(network()), path, batch=2, decode=LIMITS)
    return OnnxDetector(path, "cpu")


def test_a_file_with_nms_inside_finds_what_its_own_nms_leaves(with_nms: OnnxDetector):
    images = pictures(3)
    found = with_nms.detect(images, Selection(confidence=0.001, iou=0.95, most=300))
    counts = [0, 0]
    for image, ours in zip(images, found, strict=True):
        inner, fit = letterbox(image, TINY.preprocessing)
        boxes, scores = (values[0] for values in with_nms.before_nms(inner[np.newaxis]))
        every = nms(boxes, scores, Selection(confidence=LIMITS.confidence, iou=LIMITS.iou, most=10_000))
        for label in range(len(CLASSES)):
            expected = every.scores[every.labels == label][: LIMITS.max_detections]
            np.testing.assert_allclose(ours.scores[ours.labels == label], expected, atol=1e-6)
            counts = [counts[0] + len(expected), counts[1] + int((every.labels == label).sum())]
        assert ours.corners.max(initial=0) <= max(fit.width, fit.height)
    assert 10 < counts[0] < counts[1], "its limits matter"


def test_the_scores_that_nms_drops_are_0_and_the_others_as_before(with_nms: OnnxDetector):
    images = np.stack([fitted(image, TINY) for image in pictures(3)])
    (boxes, scores), (all_boxes, all_scores) = with_nms.raw(images), with_nms.before_nms(images)
    np.testing.assert_array_equal(boxes, all_boxes)
    kept = scores > 0
    np.testing.assert_array_equal(scores[kept], all_scores[kept])
    assert 0 < kept.sum() < (all_scores > LIMITS.confidence).sum()
    assert (kept.sum(axis=1) <= LIMITS.max_detections).all()


def test_a_file_with_the_plugin_of_tensorrt_is_refused_by_onnx_runtime_in_one_line(tmp_path):
    write_onnx(TINY, weights_of(network()), tmp_path / "plugin.onnx", decode=Decode(nms="efficient"))
    with pytest.raises(UnsupportedError) as error:
        OnnxDetector(tmp_path / "plugin.onnx")
    assert "a plugin of TensorRT" in one_line(error)
    assert "--nms none" in one_line(error)


def test_without_its_plugin_a_file_is_the_one_that_is_written_without_nms():
    plugin = detector_model(TINY, weights_of(network()), batch=2, decode=Decode(nms="efficient"))
    plain = without_plugin(plugin)
    checker.check_model(plain, full_check=True)
    other = detector_model(TINY, weights_of(network()), batch=2)
    assert list(plain.graph.node) == list(other.graph.node)
    assert [output.name for output in plain.graph.output] == ["boxes", "scores"]
    assert len(plugin.graph.output) == 4, "the original stays"


# -------------------------------------------------------------------------------------------------- what files say


def test_a_file_says_its_anchors_precision_and_nms(with_nms: OnnxDetector):
    metadata = with_nms.metadata
    assert TINY.anchors is not None
    assert metadata.anchors == (ScaleAnchors(32, TINY.anchors[0]), ScaleAnchors(16, TINY.anchors[1]))
    assert metadata.nms == NmsInside("onnx", 0.3, 0.5, 7)
    assert metadata.precision == "fp32"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("inside", [None, NmsInside("efficient", 0.25, 0.5, 100)])
@pytest.mark.parametrize("anchors", [None, (ScaleAnchors(8, ((1.5, 2.0), (3.0, 4.0))),)])
def test_metadata_come_back_as_they_were_written(precision, inside: NmsInside | None, anchors):
    metadata = OnnxMetadata(
        classes=CLASSES,
        preprocessing=TINY.preprocessing,
        family="f",
        parameters={"width": 0.5},
        selection=Selection(),
        anchors=anchors,
        precision=precision,
        nms=inside,
    )
    assert read_metadata({KEY: metadata.as_text()}, "file") == metadata


def test_metadata_of_earlier_versions_say_nothing_of_it():
    old = json.loads(
        OnnxMetadata(classes=("a",), preprocessing=TINY.preprocessing, family="f", parameters={}).as_text()
    )
    del old["precision"], old["nms"]
    found = read_metadata({KEY: json.dumps(old)}, "file")
    assert (found.anchors, found.precision, found.nms) == (None, "fp32", None)


# ------------------------------------------------------------------------------------------------------ comparison


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint, and pictures of which one is broken."""
    write_checkpoint(tmp_path / "best.pt", checkpoint(TINY, network()))
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for place, image in enumerate(pictures(3)):
        write_image(tmp_path / "photos" / "deep" / f"{place}.png", image)
    (tmp_path / "photos" / "z.jpg").write_bytes(b"no picture")
    (tmp_path / "photos" / "notes.txt").write_text("no picture either")
    return tmp_path


def ordered(folder: Path, **wanted: object) -> ExportOrder:
    return ExportOrder(checkpoint=folder / "best.pt", pictures=folder / "photos", **wanted)


def test_an_export_without_wishes_is_the_file_of_a_training(folder: Path):
    done = export(ordered(folder))
    assert done.path == folder / "best.onnx"
    write_onnx(TINY, weights_of(network()), folder / "trained.onnx")
    assert done.path.read_bytes() == (folder / "trained.onnx").read_bytes()
    assert done.size == done.path.stat().st_size


def test_it_is_compared_on_the_pictures_that_can_be_read(folder: Path):
    agreement = export(ordered(folder)).agreement
    assert agreement is not None
    assert (agreement.pictures, agreement.generated, agreement.source) == (3, False, str(folder / "photos"))
    assert [(Path(row.picture).name, row.reason) for row in agreement.skipped] == [("z.jpg", "no picture, or cut off")]
    assert 0 < agreement.score < 1e-4
    assert 0 < agreement.px < 0.01
    assert agreement.holds
    assert agreement.detections is None


def test_without_pictures_it_is_compared_on_noise_that_says_so(folder: Path):
    agreement = export(ExportOrder(checkpoint=folder / "best.pt")).agreement
    assert agreement is not None
    assert agreement.generated
    assert agreement.holds


@pytest.mark.parametrize(
    "family", ["yolov4-tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("yolo-ret", "retinanet"))]
)
@pytest.mark.parametrize(
    "wanted",
    [
        {"precision": "fp16", "decode": Decode(nms="efficient"), "batch": 2, "box_tolerance": 20},  # it is untrained
        {"batch": 2, "dynamic_batch": True, "decode": Decode(nms="onnx", confidence=0.2)},
    ],
    ids=["fp16-plugin", "dynamic-onnx-nms"],
)
def test_every_family_agrees_with_torch_in_every_form(family: str, wanted: dict[str, object], tmp_path: Path):
    write_checkpoint(tmp_path / "best.pt", checkpoint(SPECS[family], network(family)))
    for place, image in enumerate(pictures(3)):
        write_image(tmp_path / f"{place}.png", image)
    done = export(ExportOrder(checkpoint=tmp_path / "best.pt", pictures=tmp_path, **wanted))
    assert done.agreement is not None
    assert done.agreement.holds
    assert done.path.exists()
    checker.check_model(onnx.load(done.path), full_check=True)


def test_what_nms_in_the_file_leaves_is_counted_beside_scalers(folder: Path):
    agreement = export(ordered(folder, decode=LIMITS, batch=2)).agreement
    assert agreement is not None
    assert agreement.detections is not None
    own, torch_ = agreement.detections
    assert own == torch_ > 10


@pytest.mark.parametrize(("limit", "value"), [("confidence", 1), ("confidence", 0), ("iou", 1), ("max_detections", 1)])
def test_a_file_whose_nms_is_made_wrong_is_not_written(
    folder: Path, limit: str, value: float, monkeypatch: pytest.MonkeyPatch
):
    def wrong(*arguments: Any, **wanted: Any) -> ModelProto:
        model = detector_model(*arguments, **wanted)
        (constant,) = [each for each in model.graph.initializer if each.name == f"decode/{limit}"]
        constant.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(constant), value), constant.name))
        return model

    order = ordered(folder, decode=LIMITS, batch=2)
    right = export(order).agreement
    assert right is not None and right.detections is not None
    order.path.unlink()
    monkeypatch.setattr("scaler.training.runs.export.detector_model", wrong)
    with pytest.raises(UserError) as error:
        export(order)
    assert "best-nms-onnx-batch2.onnx: not written: on 3 pictures" in one_line(error)
    counts = re.search(r"its NMS leaves (\d+) detections, scaler's leaves (\d+) of torch's boxes", one_line(error))
    assert counts is not None
    own, by_torch = map(int, counts.groups())
    assert by_torch == right.detections[1]
    assert own == 0 if value == 1 and limit == "confidence" else own != by_torch
    assert one_line(error).endswith("more or fewer; leave the NMS out by --nms none")
    assert not list(folder.glob("*.onnx"))


@pytest.mark.parametrize(
    ("own", "by_torch", "holds"),
    [
        (0, 0, True),
        (1, 0, True),
        (2, 0, False),
        (0, 1, True),
        (0, 120, False),
        (118, 120, True),
        (122, 120, True),
        (117, 120, False),
        (123, 120, False),
        (980, 1000, True),
        (979, 1000, False),
    ],
)
def test_the_nms_in_the_file_may_leave_2_in_100_more_or_fewer_and_always_1(own: int, by_torch: int, holds: bool):
    agreement = Agreement(3, "three", False, 0, 0, (own, by_torch), TOLERANCES["fp32"], ())
    assert agreement.holds == holds
    assert not agreement._replace(px=1).holds


def test_a_file_that_differs_too_much_is_not_written(folder: Path):
    with pytest.raises(UserError) as error:
        export(ordered(folder, precision="fp16", score_tolerance=1e-7))
    assert "best-fp16.onnx: not written: on 3 pictures" in one_line(error)
    assert "write it in fp32, or allow more by --score-tolerance" in one_line(error)
    assert not list(folder.glob("*.onnx"))


def test_another_network_is_recognised(tmp_path):
    """The comparison can fail: the same architecture with one convolution changed."""
    module = network()
    weights = weights_of(module)

    def changed(layer: Layer) -> dict[str, Array]:
        factor = np.float32(1.05 if layer.name == first else 1)
        return {name: values * factor if name == "weight" else values for name, values in weights(layer).items()}

    first = next(layer.name for layer in TINY.graph().layers() if weights(layer))
    write_onnx(TINY, changed, tmp_path / "other.onnx")
    images = np.stack([fitted(image, TINY) for image in pictures(3)])
    agreement = compare(
        TorchDetector(TINY, module),
        OnnxDetector(tmp_path / "other.onnx", "cpu"),
        Pictures(images, "three", generated=False),
        TOLERANCES["fp32"],
    )
    assert not agreement.holds
    assert agreement.score > 1e-3


def fake(boxes: FloatArray, scores: FloatArray, sizes: list[int] | None = None) -> SimpleNamespace:
    """A detector that gives the same for every picture."""

    def raw(images: Image) -> tuple[FloatArray, FloatArray]:
        if sizes is not None:
            sizes.append(len(images))
        return np.stack([boxes] * len(images)), np.stack([scores] * len(images))

    return SimpleNamespace(raw=raw, before_nms=raw, metadata=SimpleNamespace(nms=None), classes=("a",))


BLANK = Pictures(np.zeros((5, 8, 8, 3), np.uint8), "blank", generated=True)


def found_by(boxes: Sequence[Sequence[float]], scores: Sequence[float]) -> tuple[float, float, bool]:
    """Differences from one box (0, 0, 4, 4) of score 0.5 and one without score."""
    reference = fake(np.array([[0, 0, 4, 4], [0, 0, 1, 1]], np.float32), np.array([[0.5], [0]], np.float32))
    other = fake(np.array(boxes, np.float32), np.array(scores, np.float32)[:, np.newaxis])
    agreement = compare(reference, other, BLANK, Tolerance(0.1, 1.0), batch=2)
    return agreement.score, agreement.px, agreement.holds


def test_differences_are_the_largest_and_corners_are_cut_at_the_edge():
    assert found_by([[0, 0, 4, 4.5], [0, 0, 1, 1]], [0.5, 0.0]) == (0, 0.5, True)
    assert found_by([[0, 0, 4, 4], [0, 0, 1, 1]], [0.25, 0.0]) == (0.25, 0, False)
    assert found_by([[0, 0, 4, math.inf], [0, 0, 1, 1]], [0.5, 0.0]) == (0, 4, False)


@pytest.mark.parametrize(("boxes", "score"), [(math.nan, 0.5), (4, math.nan)])
def test_what_is_not_a_number_never_agrees(boxes: float, score: float):
    assert not found_by([[0, 0, 4, boxes], [0, 0, 1, 1]], [score, 0.0])[2]


def test_a_file_with_an_open_batch_is_tried_one_by_one_and_together():
    boxes, scores, sizes = np.zeros((1, 4), np.float32), np.zeros((1, 1), np.float32), list[int]()
    compare(fake(boxes, scores), fake(boxes, scores, sizes), BLANK, Tolerance(0, 0), batch=2, dynamic=True)
    assert sizes == [1, 1, 2, 1, 1, 2, 1, 1]


def test_many_pictures_are_looked_at_evenly(tmp_path):
    for place in range(2 * MOST_PICTURES):
        write_image(tmp_path / f"{place:02}.png", np.full((4, 4, 3), place, np.uint8))
    found = pictures_of_folder(tmp_path, TINY.preprocessing)
    assert found.images[:, 80, 80, 0].tolist() == list(range(0, 2 * MOST_PICTURES, 2))


def test_noise_is_the_same_every_time():
    one, other = (generated_pictures(TINY.preprocessing) for _ in range(2))
    np.testing.assert_array_equal(one.images, other.images)
    assert one.generated
    assert one.images.std() > 50


def test_a_network_is_written_under_a_name_of_what_is_unusual():
    def name(**wanted: object) -> str:
        return ExportOrder(checkpoint=Path("runs/best.pt"), **wanted).path.as_posix()

    assert name() == "runs/best.onnx"
    assert name(precision="fp16", batch=8, opset=17) == "runs/best-fp16-batch8-opset17.onnx"
    assert name(decode=Decode(nms="efficient"), batch=8, dynamic_batch=True) == "runs/best-nms-efficient-dynamic.onnx"
    assert name(out=Path("here.onnx"), precision="fp16") == "here.onnx"


# ------------------------------------------------------------------------------------------------------ engines

VERSIONS = [(8, 0), (8, 2), (8, 4), (8, 6), (10, 0), (10, 3), (11, 0), (11, 1)]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_no_trtexec_gets_an_option_that_it_does_not_know(version, dynamic: bool, precision: FilePrecision):
    file = EngineFile(Path("a folder/net.onnx"), 320, dynamic, "fp32")
    program, *options = engine_command(file, Version(*version, 0), precision=precision, batch=4).split()
    assert program == "trtexec"
    assert {option.removeprefix("--").partition("=")[0] for option in options} <= options_of(version)
    assert "--onnx=net.onnx" in options and "--saveEngine=net.engine" in options
    assert ("--fp16" in options) == (precision == "fp16" and version < (11, 0))
    shapes = {f"--{key}Shapes=image:{count}x3x320x320" for key, count in (("min", 1), ("opt", 4), ("max", 4))}
    assert shapes <= set(options) if dynamic else not any("Shapes" in option for option in options)


@pytest.mark.parametrize("version", [(8, 2), (10, 3)])
def test_a_file_of_8_bits_stays_one(version):
    file = EngineFile(Path("net.onnx"), 320, False, "int8")
    assert {"--int8", "--fp16"} <= set(engine_command(file, Version(*version, 0)).split())


def test_a_name_with_blanks_is_quoted():
    assert "'--onnx=my net.onnx'" in engine_command(EngineFile(Path("my net.onnx"), 9, False, "fp32"), Version(8, 2, 0))


def test_a_file_tells_what_its_engine_needs(tmp_path):
    for batch, precision in ((None, "fp16"), (2, "fp32")):
        write_onnx(TINY, weights_of(network()), tmp_path / "net.onnx", batch=batch, precision=precision)
        assert read_engine_file(tmp_path / "net.onnx") == (tmp_path / "net.onnx", 160, batch is None, precision)


def test_quantisation_nodes_make_a_file_one_of_8_bits_whatever_its_metadata_say(tmp_path):
    model = detector_model(TINY, weights_of(network()))
    model.graph.node.append(helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"]))
    onnx.save(model, tmp_path / "net.onnx")
    assert read_engine_file(tmp_path / "net.onnx").precision == "int8"


def test_a_model_of_somebody_else_has_no_engine_command(tmp_path):
    model = to_onnx(NET)
    helper.set_model_props(model, {})
    onnx.save(model, tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match=r"metadata_props\.scaler: missing"):
        read_engine_file(tmp_path / "foreign.onnx")


@pytest.mark.parametrize(
    ("text", "version"), [("8.2", (8, 2, 0)), ("8.5.2", (8, 5, 2)), ("10.3.0.30", (10, 3, 0)), ("8.2.1.9", (8, 2, 1))]
)
def test_versions_are_read(text: str, version):
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["", "ten", "8", "8.x", "-8.2", "10.3 "])
def test_no_version_is_told(text: str):
    with pytest.raises(UsageError, match=r"expected a version, such as 8\.2"):
        parse_version(text)


def test_an_old_version_is_refused():
    with pytest.raises(UnsupportedError, match=r"older than 8\.0"):
        parse_version("7.1")
