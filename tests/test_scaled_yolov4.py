"""Scaled-YOLOv4: what is refused, names, wiring, RFCR on the tiny networks, kernels, and ONNX against torch."""

import math
import re
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from onnx import checker
from onnx_sessions import picture
from onnx_sessions import run as run_onnx
from torch_reference import run as run_torch

from scaler.cost import graph_cost, peak_activation_elements
from scaler.errors import UsageError
from scaler.export.onnx_model import to_onnx
from scaler.export.weights import Array, random_weights
from scaler.graph.graph import BlockBuilder, Graph, GraphBuilder, Layer
from scaler.graph.ops import Activation, Conv, MaxPool, Slice
from scaler.latency.fusion import block_kernels, graph_kernels
from scaler.models.backbones import csp_darknet, tiny_cspdarknet
from scaler.models.blocks_csp import Style, pooled_paths
from scaler.models.detectors.scaled_yolov4 import (
    VARIANTS,
    ScaledYoloV4Config,
    build,
    is_tiny,
    max_stride,
    scaled_channels,
    scaled_units,
)
from scaler.space_file import read_space


def config(variant: str, resolution: int = 640, **fields: object) -> ScaledYoloV4Config:
    return ScaledYoloV4Config(variant=variant, resolution=resolution, **fields)


class TestRefusals:
    @pytest.mark.parametrize(
        ("variant", "fields", "message"),
        [
            ("p8", {}, "unknown variant 'p8'; "),
            ("csp", {"activation": "msh"}, "unknown activation 'msh'; did you mean 'mish'? known: native, leaky, mish"),
            ("csp", {"concat_norm": "onnx"}, "unknown concat_norm 'onnx'; known: cfg, yaml"),
            ("csp", {"width": 0.1}, "width = 0.1: allowed is 0.25 to 2.0, and 1.0 for pacsp-s and pacsp-x"),
            ("csp", {"width": float("nan")}, "width = nan: allowed is 0.25 to 2.0"),
            ("csp", {"depth": 2.5}, "depth = 2.5: allowed is 0.2 to 2.0, and 1.0 for tiny, tiny-3l, pacsp-s and"),
            ("tiny", {"depth": 0.67}, "depth = 0.67: allowed is 0.2 to 2.0, and 1.0 for tiny, tiny-3l"),
            ("pacsp-s", {"width": 0.5}, "width = 0.5: allowed is 0.25 to 2.0, and 1.0 for pacsp-s and pacsp-x"),
            ("pacsp-x", {"depth": 1.33}, "depth = 1.33: allowed is"),
            ("csp", {"rfcr": 5}, "rfcr = 5: allowed is 0 (off), 3, 5 or 7, and 0 for all but tiny and tiny-3l"),
            ("tiny", {"rfcr": 4}, "rfcr = 4: allowed is 0 (off), 3, 5 or 7"),
            ("tiny", {"rfcr": True}, "rfcr = True: allowed is a whole number"),
            ("tiny", {"concat_norm": "yaml"}, "concat_norm = 'yaml': allowed is cfg for tiny, tiny-3l, pacsp-s and"),
            ("csp", {"resolution": 600}, "resolution = 600: allowed is a multiple of 32, the coarsest stride of csp"),
            ("p6", {"resolution": 672}, "resolution = 672: allowed is a multiple of 64, the coarsest stride of p6, "),
            ("p7", {"resolution": 1344}, "resolution = 1344: allowed is a multiple of 128, the coarsest stride of p7"),
            ("csp", {"resolution": 2080}, "from 160 to 2048"),
            ("csp", {"resolution": 640.0}, "resolution = 640.0: allowed is a whole number"),
            ("csp", {"classes": 0}, "classes = 0: allowed is 1 or more"),
        ],
    )
    def test_a_bad_field_is_named_with_value_and_what_is_allowed(self, variant, fields, message):
        with pytest.raises(UsageError, match=re.escape(message)):
            config(variant, **fields)

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_every_multiple_of_the_coarsest_stride_is_built_and_halves_whole(self, variant):
        stride = max_stride(variant)
        for resolution in {math.ceil(160 / stride) * stride, 1280}:
            graph = build(config(variant, resolution))
            strides = [int(label.removeprefix("stride")) for label, _ in graph.outputs]
            assert max(strides) == stride
            sides = [graph.placements[place].block.shape[1:] for _, place in graph.outputs]
            assert sides == [(resolution // s,) * 2 for s in strides]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"variant": "tiny", "resolution": 416}, "yolov4-tiny-416"),
        ({"variant": "tiny-3l", "rfcr": 5, "resolution": 608}, "yolov4-tiny-3l-rfcr5-608"),
        ({"variant": "csp", "width": 0.5, "depth": 0.33}, "yolov4-csp-w0.5-d0.33-640"),
        ({"variant": "csp", "activation": "mish"}, "yolov4-csp-640"),
        ({"variant": "csp", "activation": "relu", "concat_norm": "yaml"}, "yolov4-csp-relu-yaml-640"),
        ({"variant": "tiny", "activation": "leaky", "width": 0.75}, "yolov4-tiny-w0.75-640"),
        ({"variant": "p7", "width": 1.25, "resolution": 1536}, "yolov4-p7-w1.25-1536"),
    ],
)
def test_names(fields, name):
    assert ScaledYoloV4Config(**fields).name == build(ScaledYoloV4Config(**fields)).name == name


@pytest.mark.parametrize(
    ("channels", "width", "scaled"), [(64, 0.5, 32), (32, 0.3, 16), (32, 0.75, 24), (512, 1.25, 640), (64, 1.01, 72)]
)
def test_channels_are_rounded_up_to_eights(channels, width, scaled):
    assert scaled_channels(channels, width) == scaled


@pytest.mark.parametrize(
    ("units", "depth", "scaled"), [(1, 2.0, 1), (2, 0.67, 1), (8, 0.67, 5), (4, 0.67, 3), (3, 0.2, 1), (15, 1.33, 20)]
)
def test_repeats_are_rounded_and_at_least_one(units, depth, scaled):
    assert scaled_units(units, depth) == scaled


def inputs_of(graph: Graph, name: str) -> list[str]:
    place = next(p for p in graph.placements if p.name == name)
    return [graph.placements[i].name for i in place.inputs]


def sources_of(graph: Graph, layer_name: str) -> list[str]:
    return list(next(layer.inputs for layer in graph.layers() if layer.name == layer_name))


class TestWiring:
    def test_csp_pan_goes_down_and_up_and_concatenates_as_the_released_code(self):
        graph = build(config("csp"))
        assert inputs_of(graph, "neck.spp32") == ["backbone.stage5.merge"]
        assert inputs_of(graph, "neck.top_down.path16") == ["neck.spp32", "backbone.stage4.merge"]
        assert inputs_of(graph, "neck.top_down.path8") == ["neck.top_down.stride16", "backbone.stage3.merge"]
        assert inputs_of(graph, "neck.bottom_up.path16") == ["neck.top_down.stride8", "neck.top_down.stride16"]
        assert inputs_of(graph, "neck.bottom_up.path32") == ["neck.bottom_up.stride16", "neck.spp32"]
        assert sources_of(graph, "neck.top_down.path16.concat") == [
            "neck.top_down.path16.lateral.mish",
            "neck.top_down.path16.up",
        ]
        assert sources_of(graph, "neck.bottom_up.path16.concat") == [
            "neck.bottom_up.path16.down.mish",
            "neck.top_down.stride16.out.mish",
        ]
        heads = [inputs_of(graph, f"head.stride{stride}") for stride in (8, 16, 32)]
        assert heads == [["neck.top_down.stride8"], ["neck.bottom_up.stride16"], ["neck.bottom_up.stride32"]]

    def test_the_cross_path_leaves_a_stage_at_its_input_and_a_neck_block_behind_its_entry(self):
        graph = build(config("csp"))
        assert inputs_of(graph, "backbone.stage3.merge") == ["backbone.stage3.unit7", "backbone.stage3.down"]
        assert sources_of(graph, "neck.bottom_up.stride16.cross.conv") == ["neck.bottom_up.stride16.entry.mish"]
        assert sources_of(graph, "neck.spp32.cross.conv") == ["backbone.stage5.merge.out.mish"]

    def test_the_first_stage_of_csp_is_a_plain_residual_and_that_of_the_large_ones_is_not(self):
        names = {variant: {p.name for p in build(config(variant)).placements} for variant in ("csp", "p5")}
        assert "backbone.stage1.merge" in names["p5"] - names["csp"]

    def test_pooling_is_of_stride_one_and_follows_the_map_itself(self):
        graph = build(config("csp"))
        assert sources_of(graph, "neck.spp32.pyramid") == [
            "neck.spp32.before0.reduce.mish",
            *(f"neck.spp32.pool{kernel}" for kernel in (5, 9, 13)),
        ]
        pools = [layer for layer in graph.layers() if isinstance(layer.op, MaxPool)]
        assert {(layer.op.kernel, layer.op.stride, *layer.op.padding) for layer in pools} == {
            (k, 1, *[k // 2] * 4) for k in (5, 9, 13)
        }

    @pytest.mark.parametrize("norm", ["cfg", "yaml"])
    def test_the_main_path_of_a_neck_block_is_activated_twice_in_the_yaml_form_only(self, norm):
        graph = build(config("csp", concat_norm=norm))
        layers = {layer.name: layer for layer in graph.layers()}
        name = layers["neck.top_down.stride8.out.conv"].inputs[0]
        activations = 0
        while name != "neck.top_down.stride8.unit1.conv.conv":
            activations += isinstance(layers[name].op, Activation)
            name = layers[name].inputs[0]
        assert activations == (1 if norm == "cfg" else 2)

    def test_the_neck_of_tiny_reads_transitions_and_not_the_outputs_of_blocks(self):
        graph = build(config("tiny-3l", 608))
        assert inputs_of(graph, "neck.stride32") == ["backbone.stage4.conv"]
        assert inputs_of(graph, "neck.stride16") == ["neck.stride32", "backbone.stage3.block"]
        assert inputs_of(graph, "neck.stride8") == ["neck.stride16", "backbone.stage2.block"]
        shapes = {p.name: p.block.shape for p in graph.placements}
        assert (shapes["backbone.stage3.block"], shapes["backbone.stage4.pool"]) == ((256, 38, 38), (512, 19, 19))
        assert sources_of(graph, "neck.stride16.concat") == [
            "neck.stride16.up",
            "backbone.stage3.block.transition.leaky",
        ]

    def test_the_newest_of_the_grown_maps_comes_first_and_the_entry_before_the_transition(self):
        graph = build(config("tiny"))
        block = "backbone.stage1.block"
        assert sources_of(graph, f"{block}.concat") == [f"{block}.conv1.leaky", f"{block}.conv0.leaky"]
        assert sources_of(graph, f"{block}.half") == ["backbone.stage1.entry.unit.leaky"]
        assert inputs_of(graph, "backbone.stage2.pool") == ["backbone.stage1.entry", block]

    def test_pooling_both_paths_is_pooling_their_concatenation(self):
        graph = GraphBuilder((7, 6, 6))
        parts = []
        for start, channels in ((0, 4), (4, 3)):
            part = BlockBuilder("part", (7, 6, 6))
            part.add("slice", Slice(start, channels), 0)
            parts.append(graph.add(f"part{start}", part.build(), graph.input))
        pooled = graph.add("pool", pooled_paths(*(part.shape for part in parts)), *parts)
        values = picture(2, 7, 6, 6)
        found = run_torch(graph.build("pool", [("out", pooled)]), weights, values)["out"]
        np.testing.assert_array_equal(found, values.reshape(2, 7, 3, 2, 3, 2).max((3, 5)))

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_the_coding_covers_all_boxes_and_the_anchors_keep_their_pixels(self, variant):
        coarsest = max_stride(variant)
        small, large = (build(config(variant, coarsest * cells)) for cells in (12, 15) if coarsest * cells >= 160)
        assert small.coding == large.coding is not None
        for graph in (small, large):
            scales = graph.coding.scales
            assert [scale.outputs[0] for scale in scales] == [label for label, _ in graph.outputs]
            cells = [(graph.input_shape[1] // scale.stride) ** 2 * len(scale.anchors) for scale in scales]
            assert sum(cells) == graph.boxes
            for scale, (_, place) in zip(scales, graph.outputs, strict=True):
                assert graph.placements[place].block.shape[0] == 85 * len(scale.anchors)

    def test_anchors_are_the_published_ones(self):
        def anchors(variant: str) -> dict[int, tuple[tuple[float, float], ...]]:
            return {scale.stride: scale.anchors for scale in build(config(variant)).coding.scales}

        assert anchors("tiny") == {32: ((81, 82), (135, 169), (344, 319)), 16: ((23, 27), (37, 58), (81, 82))}
        assert anchors("tiny-3l") == anchors("csp") == anchors("pacsp-s") == anchors("pacsp-x")
        assert anchors("csp") == {
            8: ((12, 16), (19, 36), (40, 28)),
            16: ((36, 75), (76, 55), (72, 146)),
            32: ((142, 110), (192, 243), (459, 401)),
        }
        assert anchors("p5")[32] == ((171, 384), (324, 451), (616, 618), (800, 800))
        assert anchors("p6")[64] == ((324, 451), (545, 357), (616, 618), (1024, 1024))
        assert anchors("p7")[128] == ((812, 393), (477, 808), (1070, 908), (1408, 1408))
        border = [set(fine) & set(coarse) for fine, coarse in pairwise(anchors("p6").values())]
        assert border == [{(61, 45)}, {(97, 189)}, {(324, 451)}]  # they stand on both levels


class TestRfcr:
    @pytest.mark.parametrize(("variant", "targets"), [("tiny", [32, 16]), ("tiny-3l", [32, 16, 8])])
    def test_it_collects_four_maps_and_gives_one_to_each_level_of_the_neck(self, variant, targets):
        graph = build(config(variant, 416, rfcr=5))
        blocks = [f"backbone.stage{n}.block" for n in (3, 2, 1)]
        assert inputs_of(graph, "rfcr.collect") == ["backbone.stage4.conv", *blocks]
        given = [p.name for p in graph.placements if p.name.startswith("rfcr.stride")]
        assert sorted(given) == sorted(f"rfcr.stride{stride}" for stride in targets)
        for stride in targets:
            assert f"rfcr.stride{stride}" in inputs_of(graph, f"neck.stride{stride}")

    @pytest.mark.parametrize("kernel", [3, 5, 7])
    def test_it_adds_what_its_parts_add(self, kernel):
        plain, more = (graph_cost(build(config("tiny", 416, rfcr=k))).trainable_params for k in (0, kernel))
        collect = 48 * (512 + 256 + 128 + 64) + 4
        mix = kernel**2 * 48 + 2 * 48 + 48 * 96 + 2 * 96
        wider = 96 * 256 + 9 * 96 * 256  # the neck's root, and its 3x3 at stride 16
        assert more - plain == collect + mix + wider


class TestScaling:
    def test_a_wider_tiny_has_the_published_structure_with_more_channels(self):
        one, two = (build(config("tiny", 416, width=width)) for width in (1.0, 2.0))
        assert [p.name for p in one.placements] == [p.name for p in two.placements]
        for small, large in zip(one.placements, two.placements, strict=True):
            if not small.name.startswith("head"):
                assert large.block.shape[0] == 2 * small.block.shape[0]

    @pytest.mark.parametrize("variant", ["csp", "p5", "p6", "p7"])
    @pytest.mark.parametrize(("field", "values"), [("width", (0.25, 0.5, 1.0, 1.25)), ("depth", (0.33, 0.67, 1, 1.33))])
    def test_every_factor_grows_what_a_network_costs(self, variant, field, values):
        costs = [graph_cost(build(config(variant, **{field: value}))) for value in values]
        assert all(a.params < b.params and a.macs < b.macs for a, b in pairwise(costs))

    @pytest.mark.parametrize("variant", VARIANTS)
    def test_macs_grow_with_the_pixels_exactly_and_parameters_do_not(self, variant):
        small, large = (graph_cost(build(config(variant, resolution))) for resolution in (256, 1024))
        assert large.macs == 16 * small.macs
        assert large.params == small.params
        peaks = [peak_activation_elements(build(config(variant, resolution))) for resolution in (256, 1024)]
        assert peaks[1] == 16 * peaks[0]

    def test_equal_stages_share_their_blocks(self):
        placed = [p.block for p in build(config("p7", 1536)).placements]
        assert len(placed) == 99
        assert len(set(placed)) < 60

    def test_the_space_holds_the_published_networks_and_nothing_impossible(self):
        space = read_space("scaled-yolov4")
        candidates = list(space.candidates())
        assert len(candidates) == space.size == 3_490
        assert len({space.configure(params, 80) for params in candidates}) == space.size
        for published in (
            {"variant": "tiny", "width": 1.0, "rfcr": 0, "resolution": 416},
            {"variant": "csp", "width": 1.25, "depth": 1.33, "resolution": 640},
            {"variant": "p5", "width": 1.0, "depth": 1.0, "resolution": 896},
            {"variant": "p6", "width": 1.0, "depth": 1.0, "resolution": 1280},
            {"variant": "p7", "width": 1.25, "depth": 1.0, "resolution": 1536},
        ):
            assert published in candidates


class TestKernels:
    @pytest.mark.parametrize("norm", ["cfg", "yaml"])
    @pytest.mark.parametrize("variant", ["csp", "p6"])
    def test_only_the_maps_that_come_from_another_block_are_copied(self, variant, norm):
        graph = build(config(variant, concat_norm=norm))
        copied = [p.name for p in graph.placements for k in block_kernels(p.block) if k.op == "copy"]
        assert copied == [p.name for p in graph.placements if "bottom_up.path" in p.name]

    def test_tiny_copies_three_halves_and_the_lateral_map(self):
        graph = build(config("tiny"))
        copied = [p.name for p in graph.placements for k in block_kernels(p.block) if k.op == "copy"]
        assert copied == [*(f"backbone.stage{n}.block" for n in (1, 2, 3)), "neck.stride16"]

    def test_a_joint_normalisation_is_one_kernel_with_its_activation(self):
        kernels = graph_kernels(build(config("csp", concat_norm="yaml")))
        assert sum(kernel.activation == "bn+mish" for kernel in kernels) == 9

    def test_relu_saves_a_kernel_a_convolution_but_before_additions(self):
        mish, relu = (graph_kernels(build(config("csp", activation=kind))) for kind in ("mish", "relu"))
        assert sum(k.activation == "relu" for k in relu) == 112  # all but the three outputs
        assert len(mish) - len(relu) == 112 - 23  # the additions of 23 residual units


SMALL = [
    config("tiny", 160, classes=3, rfcr=5, width=0.5),
    config("tiny-3l", 160, classes=3, width=0.5),
    config("csp", 160, classes=3, width=0.25, depth=0.33),
    config("csp", 160, classes=3, width=0.25, depth=0.67, concat_norm="yaml"),
    config("p5", 160, classes=3, width=0.25, depth=0.2, activation="swish"),
    config("p6", 192, classes=3, width=0.25, depth=0.2, concat_norm="yaml"),
    config("p7", 256, classes=3, width=0.25, depth=0.2),
]
FULL = [
    config("tiny", 160),
    config("tiny-3l", 160, rfcr=7),
    config("pacsp-s", 160),
    config("pacsp-x", 160),
    config("csp", 160),
    config("csp", 160, concat_norm="yaml", activation="leaky"),
    config("p5", 160),
    config("p6", 192),
    config("p7", 256),
]
RANDOM = random_weights(3)
RESIDUAL = re.compile(r"backbone\..*unit\d+\.conv\.bn")


def weights(layer: Layer) -> dict[str, Array]:
    """Random weights with small residuals: sums of 15 residuals of unit size would grow beyond all float accuracy."""
    arrays = RANDOM(layer)
    return arrays | {"gamma": arrays["gamma"] * np.float32(0.2)} if RESIDUAL.fullmatch(layer.name) else arrays


@cache
def by_torch(chosen: ScaledYoloV4Config) -> dict[str, np.ndarray]:
    size = chosen.resolution
    return run_torch(build(chosen), weights, picture(1, 3, size, size, seed=4))


def check_against_torch(chosen: ScaledYoloV4Config, opset: int) -> None:
    graph, size = build(chosen), chosen.resolution
    model = to_onnx(graph, weights=weights, opset=opset)
    checker.check_model(model, full_check=True)
    found, expected = run_onnx(model, picture(1, 3, size, size, seed=4)), by_torch(chosen)
    assert list(found) == list(expected) == [label for label, _ in graph.outputs]
    for label, wanted in expected.items():
        np.testing.assert_allclose(found[label], wanted, rtol=0, atol=1e-4 * max(1, wanted.std()))
        assert 0.1 < wanted.std() < 30


@pytest.mark.parametrize("chosen", SMALL, ids=lambda chosen: chosen.name)
def test_onnx_gives_the_numbers_of_torch(chosen):
    check_against_torch(chosen, 13)


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("chosen", SMALL[:3], ids=lambda chosen: chosen.name)
def test_every_opset_gives_the_same_numbers(chosen, opset):
    check_against_torch(chosen, opset)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", FULL, ids=lambda chosen: chosen.name)
def test_onnx_gives_the_numbers_of_torch_at_full_width(chosen):
    check_against_torch(chosen, 13)


def test_every_variant_is_tried_against_torch():
    assert {chosen.variant for chosen in FULL} == set(VARIANTS)
    assert {chosen.variant for chosen in SMALL} == {v for v in VARIANTS if not v.startswith("pacsp")}


def test_backbones_say_what_they_are():
    style = Style()
    body = csp_darknet.trunk("CSP-Darknet", 8, (csp_darknet.dark_stage(16, 1), csp_darknet.csp_stage(32, 2)), 64, style)
    assert [p.name for p in body.placements] == [
        f"backbone.{name}"
        for name in ("stem", "stage1.down", "stage1.unit0", "stage2.down", "stage2.entry", "stage2.unit0",
                     "stage2.unit1", "stage2.merge")
    ]  # fmt: skip
    tiny = tiny_cspdarknet.trunk(8, (8, 16, 32), 64, 160, Style("leaky"))
    _, taps = tiny.truncated(0)
    assert {stride: tap.shape for stride, tap in taps.items()} == {
        4: (16, 40, 40), 8: (32, 20, 20), 16: (64, 10, 10), 32: (64, 5, 5)
    }  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_native_activation_and_its_name_give_one_network(variant):
    named = "leaky" if is_tiny(variant) else "mish"
    one = config(variant)
    two = replace(one, activation=named)
    assert [p.block for p in build(one).placements] == [p.block for p in build(two).placements]
    assert {layer.op.kind for layer in build(one).layers() if isinstance(layer.op, Activation)} == {named}
    biased = [layer.name for layer in build(one).layers() if isinstance(layer.op, Conv) and layer.op.bias]
    assert biased == [f"head.{label}.conv" for label, _ in build(one).outputs]
