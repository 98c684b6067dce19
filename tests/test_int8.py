"""Q/DQ nodes as each target wants them, their numbers by ONNX Runtime, the calibration and its cache, sensitivity."""

import json
import logging
import math
import sys
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, numpy_helper
from onnx_sessions import picture, run

from scaler.data.preprocessing import Preprocessing
from scaler.errors import FileError, MissingExtraError, UnsupportedError, UsageError, UserError
from scaler.evaluation.onnx_metadata import KEY, OnnxMetadata, read_metadata
from scaler.export.decode import Decode, Nms
from scaler.export.int8 import METADATA_KEY, Target, quantised, target_of
from scaler.export.int8_calibration import (
    Calibration,
    Method,
    calibrate,
    calibrated,
    read_calibration,
)
from scaler.export.int8_graph import layers
from scaler.export.int8_sensitivity import DetectionLoss, choose, sensitivity
from scaler.export.onnx_model import to_onnx
from scaler.export.weights import Array, WeightSource, random_weights
from scaler.graph.graph import Graph, GraphBuilder, Layer
from scaler.graph.ops import ActivationKind
from scaler.models.backbones.resnet import residual_block
from scaler.models.blocks import conv_block, inverted_residual
from scaler.models.blocks_csp import Style, residual_unit
from scaler.models.detectors.families import build
from scaler.models.detectors.retinanet import RetinaNetConfig
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.models.heads import yolov3

SIZE = 64
METHODS: tuple[Method, ...] = ("min-max", "entropy", "percentile")
BOTH: tuple[Target, ...] = ("tensorrt", "onnxruntime")


def calm(source: WeightSource) -> WeightSource:
    """Heads whose raw maps are of unit size, as after training."""

    def weights(layer: Layer) -> dict[str, Array]:
        arrays = source(layer)
        return {name: values * np.float32(0.2) for name, values in arrays.items()} if "head" in layer.name else arrays

    return weights


@cache
def graph(activation: ActivationKind = "relu6") -> Graph:
    """Five convolutions of which three scales are read, and YOLOv3's head."""
    builder = GraphBuilder((3, SIZE, SIZE))
    value, levels = builder.input, {}
    for stride in (2, 4, 8, 16, 32):
        block = conv_block(value.shape, 8, kernel=3, stride=2, activation=activation)
        value = levels[stride] = builder.add(f"backbone.stage{stride}", block, value)
    read = {stride: levels[stride] for stride in (8, 16, 32)}
    return builder.build(
        "toy", yolov3.add_head(builder, read, 2), yolov3.box_count(read), yolov3.box_coding((8, 16, 32))
    )


@cache
def network(activation: ActivationKind = "relu6", nms: Nms = "none", opset: int = 13) -> ModelProto:
    return to_onnx(graph(activation), weights=calm(random_weights()), decode=Decode(nms=nms), opset=opset)


@cache
def pictures(count: int = 3) -> list[Array]:
    return [picture(1, 3, SIZE, SIZE, seed=seed) for seed in range(count)]


@cache
def ranges(activation: ActivationKind = "relu6", method: Method = "min-max") -> Calibration:
    return calibrate(network(activation), pictures(), method)


def with_boxes(factor: float) -> ModelProto:
    """The network with sides of boxes multiplied."""
    model = ModelProto()
    model.CopyFrom(network())
    (anchor,) = [value for value in model.graph.initializer if value.name == "decode/half_anchor"]
    anchor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(anchor) * np.float32(factor), anchor.name))
    return model


def nodes(model: ModelProto, *kinds: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type in kinds]


def constants(model: ModelProto) -> dict[str, Array]:
    return {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}


def makers(model: ModelProto) -> dict[str, NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def source(made: dict[str, NodeProto], name: str) -> str:
    """The float tensor of which a tensor is the 8-bit version; the tensor itself where it is none."""
    node = made.get(name)
    if node is None or node.op_type != "DequantizeLinear":
        return name
    return made[node.input[0]].input[0] if node.input[0] in made else node.input[0]  # weights that are integers


def read_in_8_bits(model: ModelProto) -> dict[str, set[str]]:
    """Of every node but Q/DQ: the float tensors that it reads in 8 bits."""
    made = makers(model)
    return {
        node.name: {source(made, name) for name in node.input if source(made, name) != name}
        for node in model.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear")
    }


class TestTensorRT:
    def test_zero_points_are_0_and_all_is_signed_int8(self):
        model = quantised(network(), ranges())
        numbers = constants(model)
        pairs = nodes(model, "QuantizeLinear", "DequantizeLinear")
        assert pairs
        for node in pairs:
            zero = numbers[node.input[2]]
            assert zero.dtype == np.int8
            assert not zero.any()

    def test_every_layer_reads_its_picture_and_its_weights_in_8_bits_and_no_bias(self):
        model = quantised(network(), ranges())
        found = read_in_8_bits(model)
        for node in nodes(network(), "Conv"):
            assert found[node.name] == set(node.input[:2])
        assert all(values.dtype != np.int32 for values in constants(model).values())

    def test_weights_have_a_scale_for_every_output_channel_and_stay_float_behind_their_pair(self):
        model = quantised(network(), ranges())
        numbers, before = constants(model), constants(network())
        for node in nodes(network(), "Conv"):
            weight = before[node.input[1]]
            (pair,) = [q for q in nodes(model, "QuantizeLinear") if q.input[0] == node.input[1]]
            assert [a.i for a in pair.attribute if a.name == "axis"] == [0]
            largest = np.abs(weight).max(axis=(1, 2, 3))
            np.testing.assert_allclose(numbers[pair.input[1]], largest / 127, rtol=1e-6)
            np.testing.assert_array_equal(numbers[node.input[1]], weight)

    def test_an_activation_has_one_scale_of_its_largest_absolute_value(self):
        model = quantised(network("swish"), ranges("swish"))
        numbers = constants(model)
        low, high = ranges("swish").ranges["image"]
        (pair,) = [q for q in nodes(model, "QuantizeLinear") if q.input[0] == "image"]
        assert numbers[pair.input[1]] == pytest.approx(max(-low, high) / 127, rel=1e-6)

    @pytest.mark.parametrize("nms", ["none", "efficient", "onnx"])
    def test_the_decoding_of_boxes_is_the_float_files(self, nms: Nms):
        before = network(nms=nms)
        model = quantised(before, calibrate(before, pictures(1), "min-max"))
        found, wanted = (
            {node.name: node for node in each.graph.node if node.name.startswith("decode/")} for each in (model, before)
        )
        assert found == wanted
        assert len(wanted) > 10
        assert list(model.graph.output) == list(before.graph.output)
        assert list(model.graph.input) == list(before.graph.input)
        onnx.checker.check_model(model)

    def test_only_the_shortcut_of_a_residual_addition_is_read_in_8_bits(self):
        builder = GraphBuilder((3, 32, 32))
        value = builder.add(
            "stem", conv_block(builder.input.shape, 8, kernel=3, stride=2, activation="relu6"), builder.input
        )
        value = builder.add("linear", inverted_residual(value.shape, 8, expansion=2), value)
        value = builder.add("basic", residual_block(value.shape, 8, 1, bottleneck=False), value)
        value = builder.add("darknet", residual_unit(value.shape, 4, Style("leaky")), value)
        before = to_onnx(builder.build("residuals", [("end", value)]), weights=random_weights())
        calibration = calibrate(before, [picture(1, 3, 32, 32)], "min-max")
        found = read_in_8_bits(quantised(before, calibration))
        assert {node.name: found[node.name] for node in nodes(before, "Add")} == {
            "linear.residual": {"stem.unit.relu6"},
            "basic.residual": {"linear.residual"},
            "darknet.residual": {"basic.relu"},
        }
        kept = read_in_8_bits(quantised(before, calibration, keep=["basic.conv1.conv", "linear.project.conv"]))
        assert kept["linear.residual"] == set()
        assert kept["darknet.residual"] == {"basic.relu"}

    def test_nvidias_parser_and_builder_take_it(self):
        pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
        from test_tensorrt_rtx import read

        for activation in ("relu6", "swish", "leaky"):
            _, network_of_trt, log = read(quantised(network(activation), ranges(activation)))
            assert log.errors == []
            assert network_of_trt.num_outputs == 2


@pytest.mark.parametrize("target", BOTH)
class TestAnyTarget:
    @pytest.mark.parametrize("activation", ["relu6", "leaky", "swish", "mish", "hard_swish"])
    def test_detections_stay_near_the_float_networks(self, target: Target, activation: ActivationKind):
        loss = DetectionLoss(network(activation), pictures())
        model = quantised(network(activation), ranges(activation), target=target)
        assert 0 < loss(model) < 0.12
        assert loss(network(activation)) == 0

    def test_the_float_model_stays_as_it_was_and_the_8_bit_one_is_the_same_every_time(self, target: Target):
        before = network().SerializeToString(deterministic=True)
        first, second = (quantised(network(), ranges(), target=target) for _ in range(2))
        assert network().SerializeToString(deterministic=True) == before
        assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
        onnx.checker.check_model(first, full_check=True)

    def test_layers_that_are_kept_read_float_and_all_kept_is_the_float_network(self, target: Target):
        names = layers(network())
        kept = names[2]
        model = quantised(network(), ranges(), target=target, keep=[kept])
        found = read_in_8_bits(model)
        (node,) = [n for n in model.graph.node if n.name == kept]
        assert node.input[1] not in found[kept]
        assert all(found[name] for name in names if name != kept) or target == "onnxruntime"
        whole = quantised(network(), ranges(), target=target, keep=names)
        assert nodes(whole, "QuantizeLinear", "DequantizeLinear") == []
        assert whole.graph == network().graph

    def test_a_batch_that_is_open_stays_open(self, target: Target):
        before = to_onnx(graph(), weights=calm(random_weights()), decode=Decode(nms="none"), batch=None)
        model = quantised(before, calibrate(before, pictures(), "min-max"), target=target)
        together = run(model, np.concatenate(pictures()))["scores"]
        np.testing.assert_allclose(together, [run(model, each)["scores"][0] for each in pictures()], atol=2e-2)

    def test_metadata_stay_and_tell_how_it_was_made(self, target: Target):
        before = ModelProto()
        before.CopyFrom(network())
        onnx.helper.set_model_props(before, {KEY: '{"classes": ["a", "b"], "precision": "fp32"}'})
        kept = layers(before)[-1]
        model = quantised(before, ranges(), target=target, keep=[kept])
        found = {entry.key: entry.value for entry in model.metadata_props}
        assert found.keys() == {KEY, METADATA_KEY}
        assert json.loads(found[KEY]) == {"classes": ["a", "b"], "precision": "int8"}
        assert json.loads(found[METADATA_KEY]) == {
            "target": target,
            "method": "min-max",
            "pictures": 3,
            "float_layers": [kept],
        }
        assert model.producer_name == "scaler"
        assert model.opset_import == before.opset_import

    def test_a_detectors_file_says_that_it_is_of_8_bits_unless_all_stayed_float(self, target: Target):
        before = ModelProto()
        before.CopyFrom(network())
        metadata = OnnxMetadata(
            classes=("a", "b"), preprocessing=Preprocessing(size=SIZE), family="toy", parameters={"width": 0.5}
        )
        onnx.helper.set_model_props(before, {KEY: metadata.as_text()})
        for keep, precision in (([], "int8"), (layers(before)[:1], "int8"), (layers(before), "fp32")):
            model = quantised(before, ranges(), target=target, keep=keep)
            found = read_metadata({entry.key: entry.value for entry in model.metadata_props}, "file")
            assert found == replace(metadata, precision=precision)

    def test_for_whom_a_file_was_quantised_can_be_read(self, target: Target):
        model = quantised(network(), ranges(), target=target)
        assert target_of({entry.key: entry.value for entry in model.metadata_props}) == target
        for text in ("", "[1]", "no JSON", '{"target": "tpu"}'):
            assert target_of({METADATA_KEY: text}) is None
        assert target_of({}) is None

    @pytest.mark.parametrize("text", ["", "no JSON", "[1]"])
    def test_damaged_metadata_are_left_to_whoever_reads_them(self, target: Target, text: str):
        before = ModelProto()
        before.CopyFrom(network())
        onnx.helper.set_model_props(before, {KEY: text})
        model = quantised(before, ranges(), target=target)
        assert {entry.key: entry.value for entry in model.metadata_props}[KEY] == text

    def test_names_lead_back_to_layers(self, target: Target):
        before = {node.name for node in network().graph.node}
        for node in nodes(quantised(network(), ranges(), target=target), "QuantizeLinear", "DequantizeLinear"):
            assert node.name.partition("/")[0] in {name.partition("/")[0] for name in before} | {"image"}


class TestOnnxRuntime:
    def test_it_runs_convolutions_in_integers(self, tmp_path: Path):
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        model = quantised(network("leaky"), ranges("leaky"), target="onnxruntime")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
        assert kinds.count("QLinearConv") >= 5
        heads = sum(name.startswith("head") for name in layers(network()))
        assert kinds.count("QLinearConv") + heads >= len(layers(network()))


class TestCalibration:
    @pytest.mark.parametrize("method", METHODS)
    def test_ranges_lie_within_what_was_seen(self, method: Method):
        widest, found = ranges("swish").ranges, ranges("swish", method).ranges
        assert found.keys() == widest.keys()
        assert not any(name.startswith("decode/") for name in found)
        for name, (low, high) in found.items():
            assert widest[name][0] - 1e-5 <= low <= high <= widest[name][1] + 1e-5

    def test_min_max_is_what_numpy_finds_over_all_pictures(self):
        watched = ModelProto()
        watched.CopyFrom(network("leaky"))
        name = nodes(watched, "LeakyRelu")[0].output[0]
        watched.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        values = np.stack([run(watched, each)[name] for each in pictures()])
        low, high = ranges("leaky").ranges[name]
        assert (low, high) == pytest.approx((values.min(), values.max()), rel=1e-5)

    def test_a_generator_and_a_batch_give_the_same_as_a_list(self):
        assert calibrate(network(), (each for each in pictures()), "min-max") == ranges()

    @pytest.mark.parametrize("method", METHODS)
    def test_the_order_of_pictures_does_not_matter_not_even_of_black_ones(self, method: Method):
        dark = [np.full((1, 3, SIZE, SIZE), 1e-7, np.float32), *pictures(1)]
        first, second = (calibrate(network(), seen, method).ranges for seen in (dark, dark[::-1]))
        assert first == second

    def test_entropy_cuts_outliers_that_min_max_covers(self):
        wild = [each.copy() for each in pictures()]
        wild[0][0, 0, 0, 0] = 400
        found = {method: calibrate(network(), wild, method).ranges["image"][1] for method in METHODS}
        assert found["min-max"] == 400
        assert found["entropy"] < 100
        assert found["percentile"] < 100

    @pytest.mark.parametrize(("method", "runs"), [("min-max", 1), ("entropy", 2), ("percentile", 2)])
    def test_progress_is_told_after_every_picture_of_each_run(self, method: Method, runs: int):
        heard: list[tuple[int, int, str]] = []
        calibrate(network(), pictures(2), method, progress=lambda *step: heard.append(step))
        assert [done for done, _, _ in heard] == list(range(1, 2 * runs + 1))
        assert {total for _, total, _ in heard} == {2 * runs}
        assert [what for _, _, what in heard] == ["ranges"] * 2 + [method] * 2 * (runs - 1)

    def test_nothing_is_printed_or_logged_and_logging_goes_on(self, capsys: pytest.CaptureFixture[str]):
        calibrate(network(), pictures(1), "percentile")
        assert capsys.readouterr() == ("", "")
        assert logging.root.manager.disable == 0


class TestCache:
    @pytest.fixture
    def cache_file(self, tmp_path: Path) -> Path:
        path = tmp_path / "cache.json"
        calibrated(network(), pictures(), "min-max", cache=path)
        return path

    def test_it_is_written_read_and_used(self, cache_file: Path, monkeypatch: pytest.MonkeyPatch):
        assert read_calibration(cache_file) == ranges()
        monkeypatch.setattr("scaler.export.int8_calibration.calibrate", None)
        assert calibrated(network(), iter(pictures()), "min-max", cache=cache_file) == ranges()

    def test_new_metadata_do_not_make_it_stale(self, cache_file: Path):
        other = ModelProto()
        other.CopyFrom(network())
        onnx.helper.set_model_props(other, {"scaler": "{}"})
        assert calibrated(other, pictures(), "min-max", cache=cache_file) == ranges()

    @pytest.mark.parametrize(
        ("model", "seen", "method", "message"),
        [
            ("leaky", 3, "min-max", "made with another network; delete it, or name another cache"),
            ("relu6", 2, "min-max", "made with another set of pictures; delete it, or name another cache"),
            ("relu6", 3, "entropy", "method: made by min-max; asked for is entropy; delete it, or name another cache"),
        ],
    )
    def test_another_network_other_pictures_and_another_method_are_refused(
        self, cache_file: Path, model: ActivationKind, seen: int, method: Method, message: str
    ):
        before = cache_file.read_bytes()
        with pytest.raises(FileError) as error:
            calibrated(network(model), pictures(seen), method, cache=cache_file)
        assert str(error.value) == f"{cache_file}: {message}"
        assert cache_file.read_bytes() == before

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"kind": "scaler-run"}, "kind: found 'scaler-run'"),
            ({"method": "guess"}, "method"),
            ({"ranges": {"image": [1]}}, "ranges.image: found [1.0]"),
            ({"ranges": {"image": [2, 1]}}, "expected the lowest and the highest value"),
            ({"schema_version": 2}, "schema_version"),
        ],
    )
    def test_a_malformed_one_is_told(self, cache_file: Path, change: dict[str, object], message: str):
        cache_file.write_text(json.dumps(json.loads(cache_file.read_text()) | change))
        with pytest.raises(FileError) as error:
            read_calibration(cache_file)
        assert message in str(error.value)


class TestSensitivity:
    @pytest.mark.parametrize("target", BOTH)
    def test_a_layer_with_one_giant_weight_is_found_and_alone_kept(self, target: Target):
        """Its 8 bits go to the giant: per channel, so every channel of it has one."""
        model, victim = ModelProto(), layers(network("leaky"))[1]
        model.CopyFrom(network("leaky"))
        (node,) = [n for n in model.graph.node if n.name == victim]
        (weight,) = [value for value in model.graph.initializer if value.name == node.input[1]]
        values = numpy_helper.to_array(weight).copy()
        values[:, 0, 0, 0] = 60  # reads a channel that is made 0 below
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        (before,) = [n for n in model.graph.node if n.name == layers(model)[0]]
        for value in model.graph.initializer:
            if value.name in before.input[1:]:
                silent = numpy_helper.to_array(value).copy()
                silent[0] = 0
                value.CopyFrom(numpy_helper.from_array(silent, value.name))
        calibration, loss = calibrate(model, pictures(), "min-max"), DetectionLoss(model, pictures())
        alone = sensitivity(model, calibration, loss, target=target)
        assert {entry.layer for entry in alone} == set(layers(model))
        assert alone[0].layer == victim
        assert alone[0].loss > 3 * alone[1].loss
        choice = choose(model, calibration, loss, bound=alone[0].loss / 2, target=target, alone=alone)
        assert choice.keep == (victim,)
        assert choice.loss <= choice.bound < choice.loss_of_all
        kept = quantised(model, calibration, target=target, keep=choice.keep)
        assert loss(kept) == pytest.approx(choice.loss, abs=1e-6)
        table = choice.table(3)
        assert f"{victim}  " in table.splitlines()[1]
        assert table.splitlines()[1].endswith("float")
        assert "… and" in table

    def test_what_comes_behind_boxes_and_scores_does_not_matter(self):
        losses = []
        for nms in ("none", "efficient", "onnx"):
            before = network(nms=nms)
            loss = DetectionLoss(before, pictures())
            losses.append(loss(quantised(before, calibrate(before, pictures(), "min-max"))))
        assert losses[0] > 0
        assert losses == [losses[0]] * 3

    def test_a_bound_that_all_meets_keeps_nothing_and_0_keeps_all_that_cost(self):
        loss = DetectionLoss(network(), pictures(1))
        alone = sensitivity(network(), ranges(), loss)
        assert choose(network(), ranges(), loss, bound=2, alone=alone).keep == ()
        whole = choose(network(), ranges(), loss, bound=0, alone=alone)
        assert whole.loss == 0

    def test_the_loss_is_what_the_caller_measures(self):
        """Here the number of layers in 8 bits, of which three are allowed."""

        def count(model: ModelProto) -> float:
            return sum(bool(found) for name, found in read_in_8_bits(model).items() if name in layers(network()))

        choice = choose(network(), ranges(), count, bound=3)
        assert choice.loss == 3
        assert len(choice.keep) == len(layers(network())) - 3

    def test_layers_that_the_caller_keeps_are_not_tried_and_stay_float(self):
        def count(model: ModelProto) -> float:
            return sum(bool(found) for name, found in read_in_8_bits(model).items() if name in layers(network()))

        names, heard = layers(network()), list[str]()
        choice = choose(
            network(), ranges(), count, bound=3, keep=names[:2], progress=lambda *step: heard.append(step[2])
        )
        assert choice.keep[:2] == names[:2]
        assert choice.loss == 3
        assert choice.loss_of_all == len(names) - 2
        assert heard == list(names[2:])
        assert {entry.layer for entry in choice.alone} == set(names[2:])
        known = sensitivity(network(), ranges(), count)
        assert choose(network(), ranges(), count, bound=3, keep=names[:2], alone=known).keep == choice.keep

    def test_boxes_that_overlap_no_more_cost_1_and_scores_as_before_nothing(self):
        loss = DetectionLoss(network(), pictures(1))
        assert loss(with_boxes(-1)) == pytest.approx(1)

    @pytest.mark.parametrize("factor", [1, 0, 1e30, math.inf, math.nan])
    def test_a_network_compared_with_itself_loses_nothing_whatever_its_boxes(self, factor: float):
        model = with_boxes(factor)
        boxes = run(model, pictures(1)[0])["boxes"]
        assert np.isfinite(boxes).all() == math.isfinite(factor)
        assert DetectionLoss(model, pictures())(model) == 0

    @pytest.mark.parametrize(("factor", "cost"), [(0, 1), (math.inf, 1), (math.nan, 2)])
    def test_boxes_that_are_lost_cost_as_much_as_there_is_to_lose(self, factor: float, cost: float):
        assert DetectionLoss(network(), pictures())(with_boxes(factor)) == pytest.approx(cost)
        assert DetectionLoss(with_boxes(factor), pictures())(network()) == pytest.approx(cost)

    def test_infinite_boxes_that_differ_cost_no_more_than_2(self):
        assert DetectionLoss(with_boxes(math.inf), pictures())(with_boxes(-math.inf)) <= 2
        infinite, model = (
            with_boxes(math.inf),
            quantised(with_boxes(math.inf), calibrate(with_boxes(math.inf), pictures())),
        )
        assert 0 <= DetectionLoss(infinite, pictures())(model) < 0.2


class TestMistakes:
    def test_networks_that_cannot_be_quantised(self):
        with pytest.raises(UnsupportedError, match="needs opset 13 or newer; this network is in opset 11"):
            calibrate(network(opset=11), pictures())
        with pytest.raises(UnsupportedError, match="quantised already; name the FP32 file"):
            calibrate(quantised(network(), ranges()), pictures())
        half = ModelProto()
        half.CopyFrom(network())
        half.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float16), "half"))
        with pytest.raises(UnsupportedError, match="made from the FP32 file; this one is in FP16"):
            calibrate(half, pictures())

    def test_without_onnx_runtime_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(MissingExtraError, match=r"INT8 needs onnxruntime.*scaler-nas\[onnxruntime\]"):
            calibrate(network(), pictures())

    def test_pictures_that_cannot_be_used(self):
        with pytest.raises(UserError, match="no pictures"):
            calibrate(network(), [])
        with pytest.raises(UserError, match=r"a picture of shape \[3, 64, 64\]"):
            calibrate(network(), [pictures()[0][0]])
        with pytest.raises(UserError, match="does not go through the network"):
            calibrate(network(), [picture(1, 3, 32, 32)])
        with pytest.raises(UserError, match="picture 2 has values that are not finite"):
            calibrate(network(), [*pictures(1), np.full((1, 3, SIZE, SIZE), np.nan, np.float32)])
        with pytest.raises(UserError, match=r"is not finite on these pictures; does the FP32 network work\?"):
            calibrate(network(), [np.full((1, 3, SIZE, SIZE), 3e38, np.float32)], "min-max")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"target": "tpu"}, "unknown target 'tpu'"),
            ({"keep": ["nowhere"]}, "no such layers to keep: nowhere; known: backbone.stage2"),
            (
                {"keep": ["backbone.stage2.unit.con"]},
                "no such layers to keep: backbone.stage2.unit.con; did you mean 'backbone.stage2.unit.conv'? known: ",
            ),
        ],
    )
    def test_wrong_options(self, options: dict[str, Collection[str]], message: str):
        with pytest.raises(UsageError) as error:
            quantised(network(), ranges(), **options)
        assert str(error.value).startswith(message)

    def test_another_networks_calibration_and_an_unknown_method(self):
        with pytest.raises(UserError, match="calibration is of another network"):
            quantised(network("leaky"), ranges())
        with pytest.raises(UsageError, match="unknown calibration method 'max'"):
            calibrate(network(), pictures(), "max")
        with pytest.raises(UsageError, match="bound = -1"):
            choose(network(), ranges(), len, bound=-1)

    def test_a_network_without_boxes_has_no_loss_of_detections(self):
        with pytest.raises(UnsupportedError, match="no boxes and scores"):
            DetectionLoss(to_onnx(graph()), pictures(1))


@pytest.mark.slow
@pytest.mark.parametrize("target", BOTH)
@pytest.mark.parametrize(
    "config",
    [
        YoloRetConfig(backbone="mobilenetv2", width=0.35, rfcr=5, resolution=160),
        YoloRetConfig(backbone="efficientnet-b0", neck="bifpn", resolution=160),
        YoloRetConfig(backbone="vovnet2-19-slim-dw", neck="panet", resolution=160),
        ScaledYoloV4Config(variant="tiny", width=0.25, resolution=160),
        ScaledYoloV4Config(variant="csp", width=0.25, resolution=256),
        RetinaNetConfig(backbone="vovnet2-19-slim-dw", width=16, towers=2, resolution=128),
    ],
    ids=lambda config: config.name,
)
def test_every_family_is_quantised_runs_and_is_taken_by_nvidias_builder(config, target: Target):
    before = to_onnx(build(config), weights=calm(random_weights()), decode=Decode(nms="none"))
    seen = [picture(1, 3, config.resolution, config.resolution, seed=seed) for seed in range(2)]
    calibration = calibrate(before, seen, "min-max")
    model = quantised(before, calibration, target=target)
    assert 0 < DetectionLoss(before, seen)(model) < 1  # untrained
    for kept in layers(before)[-2:]:
        onnx.checker.check_model(quantised(before, calibration, target=target, keep=[kept]), full_check=True)
    onnx.checker.check_model(model, full_check=True)
    outputs = run(model, seen[0])
    assert all(np.isfinite(values).all() for values in outputs.values())
    if target == "tensorrt":
        pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
        from test_tensorrt_rtx import built

        assert built(model)
