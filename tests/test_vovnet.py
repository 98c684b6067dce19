"""VoVNet: counts of the reference and of the publications, wiring by a second hand, ONNX, kernels, its search space."""

import csv
import math
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
from onnx import checker
from onnx_sessions import picture
from onnx_sessions import run as run_onnx

from scaler.cost import Cost, block_cost, graph_cost, op_cost, placement_cost, total
from scaler.errors import UnsupportedError, UsageError, UserError
from scaler.export.onnx_model import to_onnx
from scaler.export.tensorrt_ops import TENSORRT_8_2_OPS
from scaler.export.weights import WeightSource, random_weights
from scaler.graph.graph import Graph, GraphBuilder
from scaler.graph.ops import BatchNorm, Concat, Conv, Linear, MaxPool, Padding, elements
from scaler.latency.fusion import ONNX_RUNTIME, TENSORRT, block_kernels
from scaler.models.backbones import mobilenetv2, resnet, vovnet
from scaler.models.backbones.trunk import Trunk
from scaler.models.backbones.vovnet import MODELS, classifier, osa_block, stem_block, trunk
from scaler.models.detectors.yolo_ret import (
    BACKBONES,
    NECKS,
    VOVNETS,
    YoloRetConfig,
    bifpn_width,
    build,
    max_drop,
    published_drop,
)
from scaler.space import Space, key
from scaler.space_file import read_space

DERIVED = list(csv.DictReader((Path(__file__).parent / "golden" / "vovnet_derived.csv").read_text().splitlines()))
"""Counts made by a script of their own from the tables of the papers and the authors' code; published ones agree."""
ESE = {"none": "all", "all": "all", "last_per_stage": "last"}
HEADS_OF_CENTERMASK = 27.38
"""Millions of parameters of CenterMask beside its backbone."""


def body_cost(body: Trunk) -> Cost:
    return total(map(placement_cost, body.placements))


def convolutions(body: Trunk) -> list[int]:
    """Output elements of every convolution."""
    return [elements(node.shape) for p in body.placements for node in p.block.nodes if isinstance(node.op, Conv)]


def million_params(model: str, **variant: str) -> float:
    return body_cost(trunk(model, 64, **variant)).trainable_params / 1e6


class TestCounts:
    @pytest.mark.parametrize("row", DERIVED, ids=lambda row: "-".join(list(row.values())[:4]))
    def test_a_trunk_has_every_count_of_the_reference(self, row: dict[str, str]):
        model = row["model"].lower().replace("v2", "2")
        body = trunk(model, int(row["input"]), ESE[row["ese_where"]], row["stem"])
        cost, outputs = body_cost(body), convolutions(body)
        assert {
            "params_M_no_classifier": f"{cost.trainable_params / 1e6:.3f}",
            "gmacs": f"{cost.macs / 1e9:.3f}",
            "conv_out_acts_M": f"{sum(outputs) / 1e6:.2f}",
            "mem_access_M_elements": f"{cost.memory_access / 1e6:.2f}",
            "cio_M_elements": f"{cost.conv_io / 1e6:.2f}",
            "macs_per_cio": f"{cost.macs / cost.conv_io:.0f}",
            "conv_layers_executed": f"{len(outputs)}",
        }.items() <= row.items()

    def test_the_reference_has_every_model_stem_and_placement_of_ese(self):
        rows = {(row["model"].lower().replace("v2", "2"), row["stem"], ESE[row["ese_where"]]) for row in DERIVED}
        assert rows >= {(model, stem, "all") for model, stem in product(MODELS, vovnet.STEM_KINDS)}
        assert rows >= {(m, s, "last") for m, s in product(MODELS, vovnet.STEM_KINDS) if MODELS[m].ese_matters}

    @pytest.mark.parametrize(
        ("model", "ese", "params", "macs", "activations"),
        [
            ("vovnet-39", "all", "22.60", "7.09", "6.73"),
            ("vovnet-57", "all", "36.64", "8.95", "7.52"),
            ("vovnet2-19-slim-dw", "last", "1.90", "0.40", "5.28"),
            ("vovnet2-19-dw", "last", "6.54", "1.34", "8.25"),
            ("vovnet2-19-slim", "last", "3.17", "1.69", "3.52"),
            ("vovnet2-39", "last", "24.57", "7.09", "6.74"),
            ("vovnet2-57", "last", "38.61", "8.95", "7.52"),
            ("vovnet2-99", "last", "63.20", "16.51", "11.27"),
        ],
    )
    def test_classifiers_have_timms_counts(self, model: str, ese: str, params: str, macs: str, activations: str):
        """timm's model cards and benchmark: 1000 classes at 224; eSE in the last module of each stage.

        Its counter, fvcore, adds two for every normalised element.
        """
        graph = classifier(model, ese=ese)
        cost = graph_cost(graph)
        assert f"{cost.trainable_params / 1e6:.2f}" == params
        normalised = sum(elements(layer.shape) for layer in graph.layers() if isinstance(layer.op, BatchNorm))
        assert f"{(cost.macs + 2 * normalised) / 1e9:.2f}" == macs
        outputs = [elements(layer.shape) for layer in graph.layers() if isinstance(layer.op, Conv | Linear)]
        assert f"{sum(outputs) / 1e6:.2f}" == activations

    @pytest.mark.parametrize(
        ("model", "params"),
        [("vovnet2-19", 11.2), ("vovnet2-19-dw", 6.5), ("vovnet2-19-slim", 3.1), ("vovnet2-19-slim-dw", 1.8)],
    )
    def test_the_light_classifiers_have_the_authors_parameters(self, model: str, params: float):
        """vovnet-detectron2's README, which cuts the second digit off."""
        found = graph_cost(classifier(model)).trainable_params / 1e6
        assert math.floor(10 * found) / 10 == params

    @pytest.mark.parametrize(
        ("model", "params"),
        [
            ("vovnet-39", 49.0),
            ("vovnet-57", 63.0),
            ("vovnet-93", 83.6),
            ("vovnet2-19", 37.6),
            ("vovnet2-39", 52.6),
            ("vovnet2-57", 68.9),
            ("vovnet2-99", 96.9),
        ],
    )
    def test_backbones_have_the_parameters_of_centermask_less_its_heads(self, model: str, params: float):
        """CenterMask, Table 4, and its README: eSE is in every module; what they call 99 without eSE is 93."""
        assert million_params(model) + HEADS_OF_CENTERMASK == pytest.approx(params, abs=0.07)

    def test_ese_in_the_last_modules_only_is_not_what_centermask_has(self):
        more = million_params("vovnet2-39") - million_params("vovnet-39")
        assert more == pytest.approx(52.6 - 49.0, abs=0.05)
        assert million_params("vovnet2-39", ese="last") - million_params("vovnet-39") < 2

    def test_depth_changes_refinedet_as_published(self):
        """VoVNet, Table 4 (RefineDet320): 32.6 and 36.45 G multiply-accumulates, 56.28 and 70.32 M parameters."""
        shallow, deep = (body_cost(trunk(model, 320, stem="pool")) for model in ("vovnet-39", "vovnet-57"))
        assert (deep.trainable_params - shallow.trainable_params) / 1e6 == pytest.approx(70.32 - 56.28, abs=0.01)
        assert (deep.macs - shallow.macs) / 1e9 == pytest.approx(36.45 - 32.6, abs=0.1)
        assert shallow.macs / 1e9 == pytest.approx(15.85, abs=0.005)

    @pytest.mark.parametrize("model", MODELS)
    def test_a_name_counts_the_convolutions(self, model: str):
        variant = MODELS[model]
        assert f"-{3 + sum(variant.modules) * (variant.convs + 1)}" in f"{model}-"

    def test_the_generations_differ_in_ese_alone(self):
        """The identity has no parameters."""
        for name in ("39", "57", "93", "99"):
            first, second = (body_cost(trunk(f"{series}-{name}", 64)) for series in ("vovnet", "vovnet2"))
            variant = MODELS[f"vovnet2-{name}"]
            modules = zip(variant.modules, variant.widths, strict=True)
            assert second.params - first.params == sum(count * (out**2 + out) for count, (_, out) in modules)


class TestMemoryAccess:
    """Section 3.1 of the VoVNet paper: the bound at fixed computation, reached by equal channels."""

    def test_the_bound_is_the_papers_formula_for_every_convolution_of_stride_1(self):
        for placement in trunk("vovnet-39", 224).placements:
            for node in placement.block.nodes:
                if isinstance(node.op, Conv) and node.op.stride == 1:
                    source = placement.block.value_shape(node.inputs[0])
                    cost = op_cost(node.op, (source,), node.shape)
                    area, work = node.shape[1] * node.shape[2], cost.macs
                    bound = 2 * math.sqrt(area * work / node.op.kernel**2) + work / area
                    assert cost.memory_access_bound == pytest.approx(bound, abs=1)
                    assert (cost.memory_access == cost.memory_access_bound) == (source[0] == node.shape[0])

    def test_vovnet_is_nearer_to_its_bound_than_bottlenecks_and_inverted_residuals(self):
        graphs = (classifier("vovnet-39"), resnet.classifier("50"), mobilenetv2.classifier(1.0))
        bodies = [total(map(placement_cost, graph.placements[:-1])) for graph in graphs]
        assert [f"{cost.memory_access_ratio:.3f}" for cost in bodies] == ["1.027", "1.078", "1.178"]
        vov, res, mobile = (cost.macs / cost.conv_io for cost in bodies)
        assert vov > 2 * res > 10 * mobile


def names(block, kind: type | None = None) -> list[str]:
    return [node.name for node in block.nodes if kind is None or isinstance(node.op, kind)]


class TestWiring:
    def test_a_module_concatenates_its_input_and_every_convolution_of_the_chain(self):
        block = osa_block((128, 56, 56), 128, 256, convs=5, depthwise=False, pool=False, ese=False, identity=False)
        concat = next(node for node in block.nodes if isinstance(node.op, Concat))
        assert [0 if value == 0 else block.nodes[value - 1].name for value in concat.inputs] == [
            0, *[f"conv{i}.relu" for i in range(5)],
        ]  # fmt: skip
        assert concat.shape == (128 + 5 * 128, 56, 56)
        assert names(block)[-4:] == ["concat", "fuse.conv", "fuse.bn", "fuse.relu"]

    @pytest.mark.parametrize(("channels", "reduced"), [(64, []), (96, ["reduce.conv"])])
    def test_a_depthwise_module_reduces_its_input_for_the_chain_but_concatenates_it_whole(self, channels, reduced):
        block = osa_block((channels, 8, 8), 64, 112, convs=3, depthwise=True, pool=False, ese=True, identity=False)
        assert [name for name in names(block, Conv) if name.startswith("reduce")] == reduced
        concat = next(node for node in block.nodes if isinstance(node.op, Concat))
        assert concat.inputs[0] == 0
        assert concat.shape[0] == channels + 3 * 64
        chain = [name for name in names(block) if name.startswith("conv0")]
        assert chain == ["conv0.depthwise", "conv0.conv", "conv0.bn", "conv0.relu"]

    @pytest.mark.parametrize(("size", "pooled"), [(56, 28), (7, 3), (8, 4), (75, 37)])
    def test_pools_are_in_ceil_mode_without_padding(self, size: int, pooled: int):
        block = osa_block((64, size, size), 8, 16, convs=3, depthwise=False, pool=True, ese=False, identity=False)
        over = 1 - size % 2
        assert block.nodes[0].op == MaxPool(3, 2, Padding(0, 0, over, over))
        assert block.shape == (16, pooled, pooled) == (16, math.ceil((size - 3) / 2) + 1, pooled)

    @pytest.mark.parametrize(("stem", "first"), [("stride4", 3), ("pool", 2)])
    def test_every_stage_starts_with_a_pool_but_for_the_second_behind_a_strided_stem(self, stem: str, first: int):
        body = trunk("vovnet-57", 224, stem=stem)
        pooled = [p.name.removeprefix("backbone.") for p in body.placements if names(p.block, MaxPool)]
        assert pooled == [f"stage{stage}.block0" for stage in range(first, 6)]
        assert body.placements[0].block.shape == (128, *[224 // {"stride4": 4, "pool": 2}[stem]] * 2)

    def test_the_depthwise_stem_is_narrower_and_starts_with_a_whole_convolution(self):
        block = stem_block((3, 64, 64), stride=4, depthwise=True)
        groups = [(node.name, node.op.groups, node.op.stride) for node in block.nodes if isinstance(node.op, Conv)]
        assert groups == [
            ("conv0.conv", 1, 2), ("conv1.depthwise", 64, 1), ("conv1.conv", 1, 1),
            ("conv2.depthwise", 64, 2), ("conv2.conv", 1, 1),
        ]  # fmt: skip
        assert block.shape == (64, 16, 16)

    @pytest.mark.parametrize(
        ("model", "ese", "gated", "added"),
        [
            ("vovnet-57", "all", "", ""),
            ("vovnet2-39", "all", "20 30 40 41 50 51", "41 51"),
            ("vovnet2-39", "last", "20 30 41 51", "41 51"),
            ("vovnet2-57", "last", "20 30 43 52", "41 42 43 51 52"),
            ("vovnet2-19", "all", "20 30 40 50", ""),
        ],
    )
    def test_ese_and_identity_are_where_they_belong(self, model: str, ese: str, gated: str, added: str):
        places = trunk(model, 64, ese).placements[1:]
        found = {p.name.removeprefix("backbone.stage").replace(".block", ""): names(p.block) for p in places}
        assert " ".join(place for place, nodes in found.items() if "ese.gate" in nodes) == gated
        assert " ".join(place for place, nodes in found.items() if nodes[-1] == "identity") == added

    @pytest.mark.parametrize("stem", vovnet.STEM_KINDS)
    @pytest.mark.parametrize("model", MODELS)
    @pytest.mark.parametrize("resolution", [160, 224, 544])
    def test_taps_have_the_strides_and_widths_of_the_table(self, model: str, stem: str, resolution: int):
        _, taps = trunk(model, resolution, stem=stem).truncated(0)
        assert {stride: tap.shape for stride, tap in taps.items()} == {
            4 * 2**i: (out, *[resolution // (4 * 2**i)] * 2) for i, (_, out) in enumerate(MODELS[model].widths)
        }

    @pytest.mark.parametrize("model", MODELS)
    def test_blocks_that_can_be_dropped_are_modules_of_the_last_stage(self, model: str):
        body = trunk(model, 320)
        assert body.max_drop == max_drop(model) == MODELS[model].modules[3] - 1
        with pytest.raises(UnsupportedError, match=f"cannot drop {body.max_drop + 1} .* a block of stride 32"):
            body.truncated(body.max_drop + 1)

    def test_placements_are_a_chain(self):
        assert [p.inputs for p in trunk("vovnet-39", 64).placements] == [(i - 1,) for i in range(7)]

    def test_equal_modules_are_one_object(self):
        blocks = [p.block for p in trunk("vovnet2-99", 64).placements if p.name.startswith("backbone.stage4")]
        assert len(set(blocks)) == 2
        assert trunk("vovnet-39", 64).placements[1].block is trunk("vovnet-57", 64).placements[1].block

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (("vovnet-3", 64), "unknown VoVNet 'vovnet-3'; did you mean 'vovnet-"),
            (("vovnet-39", 64, "first"), "unknown eSE 'first'; known: all, last"),
            (("vovnet-39", 64, "all", "pol"), "unknown stem 'pol'; did you mean 'pool'"),
        ],
    )
    def test_an_unknown_name_is_refused(self, fields: tuple, message: str):
        with pytest.raises(UsageError) as raised:
            trunk(*fields)
        assert message in str(raised.value)


def features(body: Trunk) -> Graph:
    """The taps of a trunk as outputs."""
    graph = GraphBuilder(body.input_shape, body.placements)
    _, taps = body.truncated(0)
    return graph.build("features", [(f"stride{stride}", tap) for stride, tap in taps.items()])


class ByHand:
    """VoVNet in torch from the reference's text alone; it shares the names of the weights, no more."""

    def __init__(self, graph: Graph, source: WeightSource) -> None:
        import torch

        self.torch, self.functional = torch, torch.nn.functional
        self.weights = {
            layer.name.removeprefix("backbone."): {k: torch.from_numpy(v) for k, v in source(layer).items()}
            for layer in graph.layers()
        }

    def norm_relu(self, x, name):
        w = self.weights[f"{name}.bn"]
        return self.functional.batch_norm(x, w["mean"], w["variance"], w["gamma"], w["beta"], eps=1e-5).relu()

    def point(self, x, name):
        return self.norm_relu(self.functional.conv2d(x, self.weights[f"{name}.conv"]["weight"]), name)

    def unit(self, x, name, stride, depthwise):
        if depthwise:
            weight = self.weights[f"{name}.depthwise"]["weight"]
            x = self.functional.conv2d(x, weight, stride=stride, padding=1, groups=x.shape[1])
            return self.point(x, name)
        weight = self.weights[f"{name}.conv"]["weight"]
        return self.norm_relu(self.functional.conv2d(x, weight, stride=stride, padding=1), name)

    def ese(self, x, name):
        w = self.weights[f"{name}.ese.conv"]
        gate = self.functional.conv2d(x.mean((2, 3), keepdim=True), w["weight"], w["bias"])
        return x * (self.functional.relu6(gate + 3) / 6)

    def module(self, x, name, convs, depthwise, ese, identity):
        collected = [x]
        chain = self.point(x, f"{name}.reduce") if f"{name}.reduce.conv" in self.weights else x
        for i in range(convs):
            chain = self.unit(chain, f"{name}.conv{i}", 1, depthwise)
            collected.append(chain)
        z = self.point(self.torch.cat(collected, 1), f"{name}.fuse")
        z = self.ese(z, name) if ese else z
        return z + x if identity else z

    def run(self, image, model: str, ese: str, stem: str) -> dict[str, np.ndarray]:
        second, layers = model.startswith("vovnet2"), int(model.split("-")[1])
        depthwise, convs = model.endswith("dw"), 3 if layers == 19 else 5
        counts = {19: (1, 1, 1, 1), 39: (1, 1, 2, 2), 57: (1, 1, 4, 3)}[layers]
        x = self.unit(self.torch.from_numpy(image), "stem.conv0", 2, False)
        x = self.unit(x, "stem.conv1", 1, depthwise)
        x = self.unit(x, "stem.conv2", 2 if stem == "stride4" else 1, depthwise)
        found = {}
        for stage, count in enumerate(counts):
            if stage or stem == "pool":
                x = self.functional.max_pool2d(x, 3, 2, ceil_mode=True)
            for i in range(count):
                gated = second and (ese == "all" or i == count - 1)
                x = self.module(x, f"stage{stage + 2}.block{i}", convs, depthwise, gated, second and i > 0)
            found[f"stride{4 * 2**stage}"] = np.asarray(x)
        return found


NUMBERS = [
    ("vovnet2-19-slim-dw", "all", "stride4"),
    ("vovnet2-19-slim-dw", "all", "pool"),
    ("vovnet2-19-slim", "all", "stride4"),
    ("vovnet2-19-slim", "all", "pool"),
    ("vovnet-39", "all", "stride4"),
    ("vovnet-39", "all", "pool"),
    ("vovnet2-39", "all", "pool"),
    ("vovnet2-39", "last", "stride4"),
]


class TestNumbers:
    @pytest.mark.parametrize(("model", "ese", "stem"), NUMBERS)
    def test_torch_by_hand_and_by_the_graph_and_onnx_agree(self, model: str, ese: str, stem: str):
        """72 pixels make maps of even and of odd sizes, where the pools of the stages pad differently."""
        reference = pytest.importorskip("torch_reference", reason="torch is not installed", exc_type=ImportError)
        graph, image, weights = features(trunk(model, 72, ese, stem)), picture(1, 3, 72, 72), cache(random_weights(5))
        expected = ByHand(graph, weights).run(image, model, ese, stem)
        written = to_onnx(graph, weights=weights)
        checker.check_model(written, full_check=True)
        assert {node.op_type for node in written.graph.node} <= TENSORRT_8_2_OPS
        for found in (reference.run(graph, weights, image), run_onnx(written, image)):
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                assert np.abs(value).max() > 1e-3
                np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-4 * np.abs(value).max(), err_msg=name)

    @pytest.mark.slow
    @pytest.mark.parametrize(("ese", "stem"), [("all", "pool"), ("last", "stride4")])
    def test_a_detector_and_a_classifier_give_torchs_numbers_as_onnx(self, ese: str, stem: str):
        reference = pytest.importorskip("torch_reference", reason="torch is not installed", exc_type=ImportError)
        detector = YoloRetConfig(backbone="vovnet2-39", drop=1, neck="bifpn", rfcr=5, shortcut=True, ese=ese, stem=stem,
                                 resolution=160)  # fmt: skip
        small = "vovnet2-39" if ese == "last" else "vovnet2-19-dw"
        for graph in (build(detector), classifier(small, 64, 10, ese, stem)):
            image, weights = picture(1, *graph.input_shape), cache(random_weights(2))
            written = to_onnx(graph, weights=weights)
            checker.check_model(written, full_check=True)
            found, expected = run_onnx(written, image), reference.run(graph, weights, image)
            for name, value in expected.items():
                np.testing.assert_allclose(found[name].reshape(value.shape), value, atol=1e-4 * np.abs(value).max())


class TestKernels:
    def test_a_module_of_v1_is_its_convolutions_and_its_pool_alone(self):
        """Everything that the module concatenates is written in place."""
        (block,) = {p.block for p in trunk("vovnet-39", 224).placements if p.name == "backbone.stage3.block0"}
        assert [kernel.op for kernel in block_kernels(block, TENSORRT)] == ["pool"] + ["conv"] * 6
        assert {kernel.activation for kernel in block_kernels(block)[1:]} == {"relu"}

    def test_an_input_from_another_module_is_moved_into_the_concatenation(self):
        (block,) = {p.block for p in trunk("vovnet-39", 224).placements if p.name == "backbone.stage4.block1"}
        kernels = block_kernels(block, TENSORRT)
        assert [kernel.op for kernel in kernels] == ["conv"] * 5 + ["copy", "conv"]
        assert kernels[5].outputs == elements(block.input_shapes[0])

    def test_the_gate_the_hard_sigmoid_and_the_identity_are_one_kernel(self):
        block = trunk("vovnet2-39", 224).placements[-1].block
        *_, squeeze, excite, gate = block_kernels(block, TENSORRT)
        assert (squeeze.op, squeeze.h_in, squeeze.h_out) == ("reduce", 7, 1)
        assert (excite.op, excite.c_in, excite.c_out, excite.weights) == ("conv", 1024, 1024, 1024 * 1025)
        assert (gate.op, gate.activation, gate.outputs, gate.inputs) == (
            "pointwise", "hard_sigmoid+mul+add", 1024 * 49, 2,
        )  # fmt: skip

    def test_onnx_runtime_copies_the_whole_concatenation(self):
        block = trunk("vovnet-39", 224).placements[-1].block
        copies = [kernel for kernel in block_kernels(block, ONNX_RUNTIME) if kernel.op == "copy"]
        assert [kernel.outputs for kernel in copies] == [(1024 + 5 * 224) * 49]

    @pytest.mark.parametrize("model", MODELS)
    def test_kernels_do_all_the_work_of_the_blocks(self, model: str):
        for placement in trunk(model, 64).placements:
            kernels = block_kernels(placement.block, TENSORRT)
            assert sum(kernel.macs for kernel in kernels) == block_cost(placement.block).macs


MOST = {"neck": "bifpn", "repeats": 2, "rfcr": 5, "shortcut": True, "resolution": 160}
REFUSED = [
    ({"backbone": "vovnet2-19slim"}, "unknown backbone 'vovnet2-19slim'; did you mean 'vovnet2-19-slim'"),
    ({"backbone": "vovnet-39", "width": 0.5}, "width = 0.5: allowed is 0.35 to 1.4 for mobilenetv2, 1.0 for vovnet-39"),
    ({"backbone": "vovnet2-39", "ese": "none"}, "unknown ese 'none'; known: all, last"),
    ({"backbone": "vovnet2-39", "stem": "stride2"}, "unknown stem 'stride2'; did you mean 'stride4'"),
    ({"backbone": "vovnet-39", "ese": "last"}, "ese = last: vovnet-39 allows all; vovnet2-39, vovnet2-57"),
    ({"backbone": "vovnet2-19", "ese": "last"}, "ese = last: vovnet2-19 allows all; vovnet2-39, vovnet2-57"),
    ({"backbone": "mobilenetv2", "ese": "last"}, "ese = last: mobilenetv2 allows all; vovnet2-39, vovnet2-57"),
    ({"backbone": "efficientnet-b0", "stem": "pool"}, "stem = pool: efficientnet-b0 allows stride4"),
    ({"backbone": "vovnet2-19-dw", "drop": 1}, "drop = 1: vovnet2-19-dw allows 0 to 0"),
    ({"backbone": "vovnet-57", "drop": 3}, "drop = 3: vovnet-57 allows 0 to 2"),
]


class TestDetector:
    @pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda v: str(v)[:40])
    def test_what_the_backbone_does_not_have_is_refused(self, fields: dict, message: str):
        with pytest.raises(UserError) as raised:
            YoloRetConfig(**fields)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
        assert isinstance(raised.value, UsageError) == ("unknown" in message or "width" in fields)

    @pytest.mark.parametrize("neck", NECKS)
    @pytest.mark.parametrize("backbone", VOVNETS)
    def test_every_backbone_builds_a_detector_of_three_scales_with_every_neck(self, backbone: str, neck: str):
        repeats = 1 if neck == "none" else 2
        for stem, drop in product(vovnet.STEM_KINDS, {0, max_drop(backbone)}):
            config = YoloRetConfig(backbone=backbone, **MOST | {"neck": neck, "repeats": repeats}, drop=drop, stem=stem)
            graph = build(config)
            shapes = [(name, graph.placements[place].block.shape) for name, place in graph.outputs]
            assert shapes == [(f"stride{s}", (75, 160 // s, 160 // s)) for s in (32, 16, 8)]
            assert graph.name == config.name

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"backbone": "vovnet-27-slim"}, "vovnet-27-slim-d0-panet-320"),
            ({"backbone": "vovnet-39", "stem": "pool", "drop": 1}, "vovnet-39-poolstem-d1-panet-320"),
            ({"backbone": "vovnet2-57", "ese": "last", "stem": "pool", "rfcr": 5, "neck": "fpn"},
             "vovnet2-57-lastese-poolstem-d0-rfcr5-fpn-320"),
        ],
    )  # fmt: skip
    def test_a_name_tells_what_the_network_is(self, fields: dict, name: str):
        assert YoloRetConfig(**fields).name == build(YoloRetConfig(**fields)).name == name

    def test_a_cut_leaves_the_rest_as_it_was(self):
        """With eSE in the last modules only, the cut takes stage 5's away: a slice, not another network."""
        whole, cut = (build(YoloRetConfig(backbone="vovnet2-39", ese="last", drop=drop)) for drop in (0, 1))
        blocks = [[p.block for p in graph.placements if p.name.startswith("backbone")] for graph in (whole, cut)]
        assert blocks[1] == blocks[0][:-1]
        assert "ese.gate" not in names(blocks[1][-1])

    def test_nobody_published_a_cut_and_bifpn_is_as_wide_as_the_authors_pyramids(self):
        assert {published_drop(backbone) for backbone in VOVNETS} == {0}
        widths = {backbone: bifpn_width(backbone, 1.0) for backbone in VOVNETS}
        assert {backbone for backbone, width in widths.items() if width == 128} == {
            "vovnet-27-slim", "vovnet2-19", "vovnet2-19-dw", "vovnet2-19-slim", "vovnet2-19-slim-dw",
        }  # fmt: skip
        assert set(widths.values()) == {128, 256}
        graph = build(YoloRetConfig(backbone="vovnet-39", **MOST))
        assert {p.block.shape[0] for p in graph.placements if p.name.startswith("neck.round0")} == {256}


@pytest.fixture(scope="module")
def space() -> Space:
    return read_space("vovnet-ret")


class TestSpace:
    def test_the_family_takes_every_candidate_and_no_two_share_an_id_or_a_name(self, space: Space):
        candidates = list(space.candidates())
        assert space.size == len(candidates) == 58 * 3 * 6 * 10
        assert len({key(params) for params in candidates}) == space.size
        assert len({space.candidate_id(params) for params in candidates}) == space.size
        assert len({space.configure(params, classes=20).name for params in candidates}) == space.size

    def test_the_number_in_the_file_is_right(self, space: Space):
        text = (Path(__file__).parent.parent / "search_spaces" / "vovnet-ret.toml").read_text()
        assert f"{space.size:,} candidates" in text

    def test_every_module_of_stride_32_but_one_can_be_dropped(self, space: Space):
        drops: dict[str, set[object]] = {}
        for params in space.candidates():
            drops.setdefault(str(params["backbone"]), set()).add(params.get("drop", 0))
        assert drops == {backbone: set(range(max_drop(backbone) + 1)) for backbone in drops}
        assert set(drops) == set(VOVNETS) - {"vovnet-75", "vovnet-93", "vovnet2-93"}

    def test_candidates_of_the_paper_keep_their_ids(self):
        """Written down before the family had `ese` and `stem`."""
        paper = read_space("yolo-ret")
        params = {"width": 0.75, "drop": 2, "rfcr": 5, "shortcut": True, "neck": "panet", "resolution": 320}
        first = paper.canonical({"backbone": "mobilenetv2", **params})
        second = paper.canonical({"backbone": "efficientnet-b3", "drop": 3, "neck": "bifpn", "repeats": 3})
        assert [paper.candidate_id(params) for params in (first, second)] == ["2528addf", "39ad5e74"]
        assert set(BACKBONES).isdisjoint(VOVNETS)

    def test_neighbours_move_between_the_generations(self, space: Space):
        params = space.canonical({"backbone": "vovnet2-39", "ese": "last", "stem": "pool", "drop": 1})
        others = {other["backbone"]: other for other in space.neighbours(params) if other["backbone"] != "vovnet2-39"}
        assert "ese" not in others["vovnet-39"]
        assert others["vovnet2-57"]["ese"] == "last"
        assert others["vovnet-39"]["stem"] == "pool"


def test_deeper_is_larger_and_slower_to_compute():
    costs = [body_cost(trunk(f"vovnet-{name}", 224)) for name in ("27-slim", "39", "57", "75", "93", "99")]
    for smaller, larger in pairwise(costs):
        assert smaller.params < larger.params
        assert smaller.macs < larger.macs


@pytest.mark.slow
def test_nvidias_compiler_writes_the_concatenations_of_convolutions_in_place():
    """TensorRT for RTX: a kernel for each convolution with its ReLU, a move for the output of each pool, none else."""
    compiler = pytest.importorskip("test_tensorrt_rtx")
    graph = classifier("vovnet-39")
    layers = [built.layers for built in compiler.built(to_onnx(graph))]
    found = [names for names in layers if any(name.endswith(".conv") for name in names)]
    assert found == [
        {f"{layer.name}", f"{layer.name.removesuffix('conv')}relu"}
        for layer in graph.layers()
        if isinstance(layer.op, Conv)
    ]
    pools = [place for place, names in enumerate(layers) if any(name.endswith("block0.pool") for name in names)]
    assert [place for place, names in enumerate(layers) if not names] == [0, *[place + 1 for place in pools]]
    assert len(pools) == 3
