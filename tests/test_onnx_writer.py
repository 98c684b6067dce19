"""The ONNX writer: valid at every opset, shapes and names the graph's, batch normalisation folded, clear errors."""

import re
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, checker, helper, numpy_helper, shape_inference
from onnx_sessions import newest_readable_opset, picture, run, session

from scaler.errors import MissingExtraError, UnsupportedError, UsageError, UserError
from scaler.export import onnx_model, require_onnx
from scaler.export.decode import Decode
from scaler.export.onnx_model import DEFAULT_OPSET, OLDEST_OPSET, newest_opset, to_onnx, write_onnx
from scaler.export.onnx_nodes import SEPARATOR
from scaler.export.tensorrt_ops import TENSORRT_8_2_OPS
from scaler.export.weights import random_weights, shapes, timing_weights
from scaler.graph.graph import INPUT_NAME, BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import Activation, Add, BatchNorm, Conv, WeightedSum
from scaler.models.backbones import efficientnet, mobilenetv2, resnet
from scaler.models.detectors.yolo_ret import BACKBONES, NECKS, YoloRetConfig, build, published_drop

RFCR = ((0, False), (3, False), (5, True), (7, False))


def detector(backbone: str = "mobilenetv2", width: float = 0.35, **chosen: object) -> Graph:
    return build(YoloRetConfig(
        backbone=backbone, width=width if backbone == "mobilenetv2" else 1.0,
        drop=published_drop(backbone), **{"resolution": 160, **chosen},
    ))  # fmt: skip


VARIANTS = [
    *(
        detector(backbone, neck=neck, rfcr=5, shortcut=True)
        for backbone, neck in zip(BACKBONES, (*NECKS, "panet"), strict=True)
    ),
    *(detector(neck=neck, rfcr=rfcr, shortcut=shortcut) for neck in NECKS for rfcr, shortcut in RFCR),
    detector(neck="bifpn", repeats=3, classes=1),
    detector(neck="panet", repeats=2, classes=80),
]
CLASSIFIERS = [mobilenetv2.classifier(0.5), efficientnet.classifier("b0", 64), resnet.classifier("18", 64)]
SMALL = detector(rfcr=5, shortcut=True)


def check(model: ModelProto) -> None:
    """What `onnx` itself can check: operators, attributes, types and every shape, strictly."""
    checker.check_model(model, full_check=True)


def by_layer(graph: Graph, model: ModelProto) -> dict[str, list[str]]:
    """Operator types by the name of the layer that they belong to, each in order."""
    kinds: dict[str, list[str]] = {}
    for node in model.graph.node:
        kinds.setdefault(node.name.partition(SEPARATOR)[0], []).append(node.op_type)
    assert kinds.keys() <= {layer.name for layer in graph.layers()}
    return kinds


class TestValidity:
    @pytest.mark.parametrize("graph", VARIANTS, ids=lambda graph: graph.name)
    def test_a_detector_is_valid_has_the_maps_of_its_graph_and_operators_of_tensorrt_8_2(self, graph: Graph):
        model = to_onnx(graph)
        check(model)
        assert {node.op_type for node in model.graph.node} <= TENSORRT_8_2_OPS
        declared = {o.name: tuple(d.dim_value for d in o.type.tensor_type.shape.dim) for o in model.graph.output}
        assert declared == {label: (1, *graph.placements[place].block.shape) for label, place in graph.outputs}

    @pytest.mark.slow
    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_every_combination_of_backbone_neck_and_rfcr_is_valid(self, backbone: str):
        for neck, (rfcr, shortcut) in product(NECKS, (*RFCR, (3, True), (5, False), (7, True))):
            model = to_onnx(detector(backbone, neck=neck, rfcr=rfcr, shortcut=shortcut))
            check(model)
            assert {node.op_type for node in model.graph.node} <= TENSORRT_8_2_OPS

    @pytest.mark.parametrize("graph", CLASSIFIERS, ids=lambda graph: graph.name)
    def test_a_classifier_is_valid_and_has_operators_of_tensorrt_8_2(self, graph: Graph):
        model = to_onnx(graph, batch=2)
        check(model)
        assert {node.op_type for node in model.graph.node} <= TENSORRT_8_2_OPS

    @pytest.mark.parametrize("opset", range(OLDEST_OPSET, newest_opset() + 1))
    def test_every_opset_is_valid_and_stamped_as_asked_for(self, opset: int):
        model = to_onnx(SMALL, opset=opset)
        check(model)
        assert [(o.domain, o.version) for o in model.opset_import] == [("", opset)]
        assert model.ir_version == helper.find_min_ir_version_for(model.opset_import)

    def test_the_newest_opset_is_a_released_one(self):
        assert newest_opset() == helper.VERSION_TABLE[-1][2] <= onnx.defs.onnx_opset_version()

    def test_the_file_format_of_the_default_opset_is_one_that_every_reader_since_2020_takes(self):
        assert to_onnx(SMALL, opset=DEFAULT_OPSET).ir_version == 7

    @pytest.mark.parametrize(
        "graph", [SMALL, detector("efficientnet-b0", neck="bifpn"), *CLASSIFIERS], ids=lambda g: g.name
    )
    def test_every_tensor_has_the_inferred_shape_of_its_layer(self, graph: Graph):
        model = shape_inference.infer_shapes(to_onnx(graph, batch=3), strict_mode=True)
        inferred = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in model.graph.value_info}
        tensors = {node.name: node.output[0] for node in model.graph.node}
        compared = 0
        for layer in graph.layers():
            if (name := tensors.get(layer.name)) in inferred:
                assert inferred[name] == (3, *layer.shape), layer.name
                compared += 1
        assert compared >= len(tensors.keys() & {layer.name for layer in graph.layers()}) - len(graph.outputs)


class TestRuns:
    @pytest.mark.parametrize("batch", [1, 3])
    @pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET, 17, newest_readable_opset()])
    def test_onnx_runtime_runs_a_detector(self, opset: int, batch: int):
        outputs = run(to_onnx(SMALL, opset=opset, batch=batch), picture(batch, 3, 160, 160))
        assert {name: value.shape for name, value in outputs.items()} == {
            label: (batch, *SMALL.placements[place].block.shape) for label, place in SMALL.outputs
        }
        assert all(np.isfinite(value).all() and value.std() > 0 for value in outputs.values())

    def test_pictures_of_a_batch_do_not_touch_each_other(self):
        pictures = picture(3, 3, 160, 160)
        together = run(to_onnx(SMALL, batch=3), pictures)
        alone = session(to_onnx(SMALL, batch=1))
        for index in range(3):
            for name, value in zip(
                together, alone.run(list(together), {"image": pictures[index : index + 1]}), strict=True
            ):
                np.testing.assert_allclose(
                    together[name][index : index + 1], value, rtol=1e-4, atol=1e-4 * np.abs(value).max()
                )

    def test_onnx_runtime_reads_opsets_far_beyond_that_of_tensorrt_8_2(self):
        assert DEFAULT_OPSET < 17 <= newest_readable_opset() <= newest_opset()


class TestNodes:
    @pytest.mark.parametrize("graph", [*VARIANTS[:3], *CLASSIFIERS], ids=lambda graph: graph.name)
    def test_nodes_are_named_after_the_layers_and_batch_normalisation_is_gone(self, graph: Graph):
        model = to_onnx(graph)
        kinds = by_layer(graph, model)
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)
        for layer in graph.layers():
            assert (layer.name in names) == (not isinstance(layer.op, BatchNorm)), layer.name
            assert ("BatchNormalization" in kinds.get(layer.name, [])) is False

    def test_the_last_node_of_a_layer_carries_its_name_and_helpers_stand_before_it(self):
        model = to_onnx(detector("efficientnet-b0", rfcr=5, shortcut=True))
        kinds = by_layer(SMALL, to_onnx(SMALL))
        assert kinds["rfcr.collect.sum"] == ["Mul"] * 4 + ["Add"] * 3
        assert kinds["neck.top_down.stride32.depthwise.swish"] == ["Sigmoid", "Mul"]
        last: dict[str, str] = {}
        for node in model.graph.node:
            last[node.name.partition(SEPARATOR)[0]] = node.name
        assert all(layer == node for layer, node in last.items())

    def test_a_folded_convolution_has_one_node_whose_output_is_the_normalisations(self):
        model = to_onnx(SMALL)
        node = next(node for node in model.graph.node if node.name == "backbone.stem.unit.conv")
        assert list(node.output) == ["backbone.stem.unit.bn"]
        assert [name.rpartition(SEPARATOR)[2] for name in node.input[1:]] == ["weight", "bias"]

    def test_a_normalisation_that_cannot_fold_stays(self):
        graph = GraphBuilder((3, 8, 8))
        block = BlockBuilder("unit", (3, 8, 8))
        first = block.add("alone", BatchNorm(), 0)
        twice = block.add("conv", Conv(3), first)
        block.add("sum", Add(), twice, block.add("bn", BatchNorm(), twice))
        model = to_onnx(graph.build("net", [("out", graph.add("net", block.build(), graph.input))]))
        check(model)
        assert [node.op_type for node in model.graph.node] == [
            "BatchNormalization",
            "Conv",
            "BatchNormalization",
            "Add",
        ]

    def test_a_convolution_that_is_an_output_keeps_its_normalisation_apart(self):
        graph = GraphBuilder((3, 8, 8))
        conv, norm = BlockBuilder("conv", (3, 8, 8)), BlockBuilder("norm", (4, 8, 8))
        conv.add("conv", Conv(4), 0)
        norm.add("bn", BatchNorm(), 0)
        x = graph.add("first", conv.build(), graph.input)
        model = to_onnx(graph.build("net", [("raw", x), ("normal", graph.add("second", norm.build(), x))]))
        check(model)
        assert [(node.name, list(node.output)) for node in model.graph.node] == [
            ("first.conv", ["raw"]),
            ("second.bn", ["normal"]),
        ]

    def test_an_output_that_is_read_again_keeps_its_label(self):
        graph = GraphBuilder((3, 8, 8))
        block = BlockBuilder("unit", (3, 8, 8))
        block.add("relu", Activation("relu"), 0)
        x = graph.add("first", block.build(), graph.input)
        model = to_onnx(graph.build("net", [("a", x), ("b", graph.add("second", block.build(), x))]))
        check(model)
        assert [(list(node.input), list(node.output)) for node in model.graph.node] == [
            (["image"], ["a"]),
            (["a"], ["b"]),
        ]

    def test_writing_twice_gives_the_same_bytes(self):
        assert to_onnx(SMALL).SerializeToString() == to_onnx(detector(rfcr=5, shortcut=True)).SerializeToString()

    def test_a_written_file_holds_the_model(self, tmp_path: Path):
        model = to_onnx(SMALL)
        write_onnx(model, tmp_path / "net.onnx")
        assert onnx.load(tmp_path / "net.onnx") == model
        assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


class TestWeights:
    @pytest.mark.parametrize("source", [timing_weights, random_weights(7)])
    def test_the_constants_are_the_sources(self, source: Callable):
        model = to_onnx(SMALL, weights=source)
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        bare = next(layer for layer in SMALL.layers() if layer.name == "head.stride8.conv")
        np.testing.assert_array_equal(stored["head.stride8.conv/weight"], source(bare)["weight"])
        scale = next(layer for layer in SMALL.layers() if isinstance(layer.op, WeightedSum))
        assert [stored[f"{scale.name}/weight{i}"] for i in range(4)] == list(source(scale)["scale"])

    def test_every_source_gives_the_shapes_that_a_layer_needs(self):
        for layer in SMALL.layers():
            for source in (timing_weights, random_weights(1)):
                arrays = source(layer)
                assert {name: array.shape for name, array in arrays.items()} == shapes(layer)
                assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays.values())

    def test_random_weights_depend_on_seed_and_layer_and_on_nothing_else(self):
        convolutions = [layer for layer in SMALL.layers() if isinstance(layer.op, Conv)]
        once, again, other = (random_weights(seed)(convolutions[0])["weight"] for seed in (3, 3, 4))
        np.testing.assert_array_equal(once, again)
        assert not np.array_equal(once, other)

    def test_constants_that_layers_share_are_stored_once(self):
        names = [tensor.name for tensor in to_onnx(SMALL).graph.initializer]
        assert len(set(names)) == len(names)
        assert sum(name.startswith("limit") for name in names) == 2


class TestTensorRT:
    @pytest.mark.parametrize("kind", ["hard_swish", "mish"])
    def test_activations_that_it_lacks_are_written_with_others(self, kind: str):
        model = to_onnx(of_one(Activation(kind)))
        assert {node.op_type for node in model.graph.node} <= TENSORRT_8_2_OPS - {"HardSwish", "Mish"}

    @pytest.mark.parametrize("opset", [OLDEST_OPSET, DEFAULT_OPSET])
    def test_an_operator_that_it_lacks_is_refused_at_its_opsets_in_one_line(
        self, monkeypatch: pytest.MonkeyPatch, opset: int
    ):
        monkeypatch.setattr(onnx_model, "TENSORRT_8_2_OPS", TENSORRT_8_2_OPS - {"Clip", "Resize"})
        with pytest.raises(UnsupportedError) as caught:
            to_onnx(SMALL, opset=opset)
        refusal = f"TensorRT 8.2 has no Clip, Resize, and opset {opset} is meant for it; ask for opset 14 or newer"
        assert str(caught.value) == f"{SMALL.name}: {refusal}"

    def test_an_operator_that_it_lacks_is_written_at_newer_opsets(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(onnx_model, "TENSORRT_8_2_OPS", frozenset())
        check(to_onnx(SMALL, opset=14))


class TestErrors:
    @pytest.mark.parametrize("opset", [10, newest_opset() + 1, 0, -1, True, 13.0, "13"])
    def test_an_unknown_opset(self, opset: object):
        with pytest.raises(UsageError, match=f"opset = {re.escape(repr(opset))}: allowed is 11 to {newest_opset()}"):
            to_onnx(SMALL, opset=opset)

    @pytest.mark.parametrize("batch", [0, -2, 1.5, "2"])
    def test_a_batch_that_is_none(self, batch: object):
        with pytest.raises(UsageError, match=f"batch = {re.escape(repr(batch))}: allowed is a whole number from 1"):
            to_onnx(SMALL, batch=batch)

    def test_boxes_of_a_classifier(self):
        with pytest.raises(
            UnsupportedError, match=r"mobilenetv2-0\.5-224: it is no detector, there are no boxes to decode"
        ):
            to_onnx(CLASSIFIERS[0], decode=Decode())

    def test_a_folder_that_is_not_there(self, tmp_path: Path):
        with pytest.raises(UserError, match="there is no folder"):
            write_onnx(to_onnx(of_one(Add(), 2)), tmp_path / "nowhere" / "net.onnx")

    def test_without_onnx_it_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch):
        require_onnx()
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(MissingExtraError) as caught:
            require_onnx()
        assert (
            str(caught.value)
            == "writing ONNX files needs onnx, which is not installed: pip install 'scaler-nas[export]'"
        )


def of_one(op: Activation | Add, inputs: int = 1) -> Graph:
    """A graph of one operator that reads the picture."""
    block = BlockBuilder("single", (3, 8, 8))
    block.add("op", op, *[0] * inputs)
    graph = GraphBuilder((3, 8, 8))
    return graph.build("single", [("out", graph.add("net", block.build(), graph.input))])


def test_the_input_is_a_batch_of_pictures():
    (entry,) = to_onnx(SMALL, batch=4).graph.input
    assert (entry.name, [d.dim_value for d in entry.type.tensor_type.shape.dim]) == (INPUT_NAME, [4, 3, 160, 160])
