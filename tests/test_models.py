"""Networks against their papers: published parameter counts, closed forms, configurations that are refused."""

import math
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.cost import block_cost, graph_cost
from scaler.errors import UnsupportedError, UsageError, UserError
from scaler.graph.graph import Graph
from scaler.graph.ops import Conv, WeightedSum
from scaler.models.backbones import efficientnet, mobilenetv2, resnet
from scaler.models.blocks import inverted_residual, round_channels
from scaler.models.detectors.families import FAMILIES
from scaler.models.detectors.yolo_ret import (
    BACKBONES,
    NECKS,
    YoloRetConfig,
    bifpn_width,
    build,
    max_drop,
    published_drop,
)
from scaler.models.heads import yolov3
from scaler.models.necks.light import LEVEL_WIDTHS, detection_unit, path_block
from scaler.models.necks.rfcr import collect_block

KERAS_MOBILENETV2 = {
    0.35: 1_691_208,
    0.5: 1_987_224,
    0.75: 2_663_064,
    1.0: 3_538_984,
    1.4: 6_156_712,
}
"""`tf.keras.applications.MobileNetV2(alpha).count_params()`."""
TORCHVISION_RESNET = {
    "18": 11_689_512,
    "34": 21_797_672,
    "50": 25_557_032,
    "101": 44_549_160,
    "152": 60_192_808,
}
"""Parameters of `torchvision.models.resnet*`; running statistics are buffers there."""
EFFICIENTNET = {"b0": 5_288_548, "b1": 7_794_184, "b2": 9_109_994, "b3": 12_233_232}
"""Parameters of torchvision's and timm's EfficientNets, likewise."""


class TestClassifiers:
    @pytest.mark.parametrize(("width", "params"), KERAS_MOBILENETV2.items())
    def test_mobilenetv2_has_the_parameters_of_keras(self, width, params):
        assert graph_cost(mobilenetv2.classifier(width)).params == params

    @pytest.mark.parametrize("width", [0.35, 0.42, 0.5, 0.75, 1.0, 1.3, 1.4])
    def test_mobilenetv2_has_the_parameters_of_its_table_at_any_width(self, width):
        assert graph_cost(mobilenetv2.classifier(width)).params == mobilenetv2_by_hand(width)

    @pytest.mark.parametrize(("depth", "params"), TORCHVISION_RESNET.items())
    def test_resnet_has_the_parameters_of_torchvision(self, depth, params):
        assert graph_cost(resnet.classifier(depth)).trainable_params == params

    @pytest.mark.parametrize(("variant", "params"), EFFICIENTNET.items())
    def test_efficientnet_has_its_published_parameters(self, variant, params):
        assert graph_cost(efficientnet.classifier(variant)).trainable_params == params

    @pytest.mark.parametrize(
        ("graph", "million_macs", "within"),
        [
            (mobilenetv2.classifier(1.0), 300, 3),
            (mobilenetv2.classifier(1.4), 582, 5),
            (efficientnet.classifier("b0"), 390, 10),
            (resnet.classifier("18"), 1814, 1),
            (resnet.classifier("50"), 4089, 1),
        ],
        ids=lambda value: value.name if isinstance(value, Graph) else "",
    )
    def test_macs_are_those_of_the_papers(self, graph, million_macs, within):
        """MobileNetV2 Table 4, EfficientNet Table 2, torchvision's GFLOPS (which are MACs)."""
        assert graph_cost(graph).macs / 1e6 == pytest.approx(million_macs, abs=within)

    @pytest.mark.parametrize(
        ("build_it", "name"), [(resnet.classifier, "ResNet depth"), (efficientnet.trunk, "EfficientNet variant")]
    )
    def test_an_unknown_variant_is_refused_by_name(self, build_it, name):
        with pytest.raises(UsageError, match=f"unknown {name} '51'; .*known: "):
            build_it("51", 224)


def mobilenetv2_by_hand(width: float, classes: int = 1000) -> int:
    """Table 2 of the paper, written out: convolutions and four numbers per normalised channel."""

    def scaled(channels: float) -> int:
        rounded = max(8, 8 * math.floor((channels * width + 4) / 8))
        return rounded + 8 if rounded < 0.9 * channels * width else rounded

    source = scaled(32)
    params = 27 * source + 4 * source
    table = [(1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1)]
    for expansion, channels, repeats in table:
        for _ in range(repeats):
            hidden, target = expansion * source, scaled(channels)
            params += (source * hidden + 4 * hidden) * (expansion > 1)
            params += 9 * hidden + 4 * hidden + hidden * target + 4 * target
            source = target
    head = scaled(1280) if width > 1 else 1280
    return params + source * head + 4 * head + head * classes + classes


CUMULATIVE = {
    0.75: """744 1504 7072 16528 25984 35440 44896 57904 90640 123376 156112 195856 265696 335536 426304 611824
             797344 1069744 1382064""",
    1.4: """1488 3360 14000 29680 48496 81232 113968 158384 260640 362896 465152 592944 829312 1065680 1374208
            2000064 2625920 3553728 4363712""",
}
"""Reference, section 1.1: stem, block 0 to block 16, Conv_1; batch normalisation counts four."""
CHANNELS = {
    0.5: "16 8 16 16 16 16 16 32 32 32 32 48 48 48 80 80 80 160 1280",
    0.75: "24 16 24 24 24 24 24 48 48 48 48 72 72 72 120 120 120 240 1280",
    1.0: "32 16 24 24 32 32 32 64 64 64 64 96 96 96 160 160 160 320 1280",
    1.4: "48 24 32 32 48 48 48 88 88 88 88 136 136 136 224 224 224 448 1792",
}


class TestMobileNetV2:
    @pytest.mark.parametrize(("width", "numbers"), CUMULATIVE.items())
    def test_cumulative_parameters_at_every_block_equal_the_released_code(self, width, numbers):
        sums, found = 0, []
        for placement in mobilenetv2.trunk(width, 320).placements:
            sums += block_cost(placement.block).params
            found.append(sums)
        assert found == list(map(int, numbers.split()))

    @pytest.mark.parametrize(("width", "numbers"), CHANNELS.items())
    def test_channels_of_every_block_equal_the_released_code(self, width, numbers):
        found = [placement.block.shape[0] for placement in mobilenetv2.trunk(width, 320).placements]
        assert found == list(map(int, numbers.split()))

    @pytest.mark.parametrize(("width", "cut", "complete"), [(0.5, 372_304, 706_224), (1.0, 1_364_864, 2_257_984)])
    def test_parameters_of_the_other_widths_at_the_cut_and_complete(self, width, cut, complete):
        body = mobilenetv2.trunk(width, 320)
        assert params_of(body.truncated(2)[0]) == cut
        assert params_of(body.placements) == complete

    def test_strides_of_the_blocks(self):
        body = mobilenetv2.trunk(1.0, 320)
        strides = [body.stride(place) for place in range(len(body.placements))]
        assert Counter(strides) == {2: 2, 4: 2, 8: 3, 16: 7, 32: 5}

    def test_residuals_are_where_the_shape_is_kept(self):
        residual = [p.name for p in mobilenetv2.trunk(1.0, 320).placements if p.block.nodes[-1].name == "residual"]
        repeats = {2: 2, 3: 3, 4: 4, 5: 3, 6: 3}
        assert [name.removeprefix("backbone.") for name in residual] == [
            f"stage{stage}.block{i}" for stage, count in repeats.items() for i in range(1, count)
        ]


class TestEfficientNet:
    @pytest.mark.parametrize(
        ("variant", "stage6", "head"),
        [
            ("b0", 2_912_364, 4_049_564),
            ("b1", 3_866_112, 6_575_232),
            ("b2", 4_516_646, 7_768_562),
            ("b3", 6_887_022, 10_783_528),
        ],
    )
    def test_parameters_to_the_cut_and_complete_equal_the_released_code(self, variant, stage6, head):
        body = efficientnet.trunk(variant, 320)
        assert params_of(body.truncated(published_drop(f"efficientnet-{variant}"))[0]) == stage6
        assert params_of(body.placements) == head

    def test_residuals_are_where_the_shape_is_kept_also_without_expansion(self):
        residual = [p.name for p in efficientnet.trunk("b1", 320).placements if p.block.nodes[-1].name == "residual"]
        assert Counter(name.split(".")[1] for name in residual) == {
            "stage1": 1, "stage2": 2, "stage3": 2, "stage4": 3, "stage5": 3, "stage6": 4, "stage7": 1,
        }  # fmt: skip

    def test_the_cut_of_figure_2_is_a_block_earlier(self):
        assert params_of(efficientnet.trunk("b3", 320).truncated(4)[0]) == 6_031_348

    @pytest.mark.parametrize(
        ("variant", "stages"),
        [
            ("b0", "16x1 24x2 40x2 80x3 112x3 192x4 320x1"),
            ("b1", "16x2 24x3 40x3 80x4 112x4 192x5 320x2"),
            ("b2", "16x2 24x3 48x3 88x4 120x4 208x5 352x2"),
            ("b3", "24x2 32x3 48x3 96x5 136x5 232x6 384x2"),
        ],
    )
    def test_channels_and_repeats_of_every_stage(self, variant, stages):
        placements = efficientnet.trunk(variant, 320).placements[1:-1]
        counts = Counter((p.stage, p.block.shape[0]) for p in placements)
        assert " ".join(f"{channels}x{n}" for (_, channels), n in counts.items()) == stages

    @pytest.mark.parametrize("variant", ["b0", "b3"])
    def test_excitation_is_reduced_to_a_quarter_of_the_blocks_input(self, variant):
        for placement in efficientnet.trunk(variant, 320).placements[1:-1]:
            reduce = next(node for node in placement.block.nodes if node.name == "se.reduce")
            assert reduce.op == Conv(placement.block.input_shapes[0][0] // 4, bias=True)

    def test_kernels_of_the_stages(self):
        placements = efficientnet.trunk("b0", 320).placements[1:-1]
        kernels = {p.stage: next(n.op.kernel for n in p.block.nodes if n.name == "depthwise.conv") for p in placements}
        assert list(kernels.values()) == [3, 3, 5, 3, 5, 5, 3]


def params_of(placements) -> int:
    return sum(block_cost(placement.block).params for placement in placements)


def unit_params(c_in: int, width: int, out: int) -> int:
    """Closed form of the detection unit B: reference, section 4."""
    r = width // 4
    return (c_in * width + 4 * width) + (9 * width + 4 * width) + (width * r + r + r * width + width) + (
        width * out + 4 * out
    )  # fmt: skip


def link_params(width: int, out: int) -> int:
    """Closed form of the link L."""
    return out * width + 4 * width


channel_counts = st.integers(1, 400)


class TestNecks:
    @given(channel_counts, st.sampled_from([16, 64, 128, 256, 512]), channel_counts)
    @settings(derandomize=True, max_examples=40)
    def test_a_detection_unit_has_the_parameters_of_its_closed_form(self, c_in, width, out):
        assert block_cost(detection_unit((c_in, 4, 4), width, out)).params == unit_params(c_in, width, out)

    @given(channel_counts, channel_counts, st.sampled_from([128, 256, 512]))
    @settings(derandomize=True, max_examples=40)
    def test_a_link_has_the_parameters_of_its_closed_form(self, out, lateral, width):
        path = path_block((out, 4, 4), (lateral, 8, 8), width)
        assert block_cost(path).params == link_params(width, out)
        assert path.shape == (width + lateral, 8, 8)

    @pytest.mark.parametrize("classes", [1, 20, 80])
    @pytest.mark.parametrize("neck", ["none", "fpn", "panet"])
    @pytest.mark.parametrize(("backbone", "drop"), [("mobilenetv2", 2), ("efficientnet-b3", 3), ("efficientnet-b2", 0)])
    def test_neck_and_head_have_the_parameters_of_the_wiring(self, backbone, drop, neck, classes):
        graph = build(YoloRetConfig(backbone=backbone, drop=drop, neck=neck, classes=classes))
        c5, c4, c3 = (tapped(graph, stride) for stride in (32, 16, 8))
        out = 3 * (classes + 5)
        if neck == "none":
            expected = unit_params(c5, 512, out) + unit_params(c4, 256, out) + unit_params(c3, 128, out)
        else:
            expected = unit_params(c5, 512, out) + unit_params(c4 + 256, 256, out) + unit_params(c3 + 128, 128, out)
            expected += link_params(256, out) + link_params(128, out)
        if neck == "panet":
            expected += unit_params(out, 128, out) + unit_params(128 + out, 256, out) + unit_params(256 + out, 512, out)
            expected += link_params(128, out) + link_params(256, out)
        assert params_of(p for p in graph.placements if not p.name.startswith("backbone")) == expected + 3 * out * out

    def test_panet_concatenates_the_incoming_path_before_the_lateral_map(self):
        path = path_block((75, 10, 10), (72, 20, 20), 256)
        names = [node.name for node in path.nodes]
        assert [names[v - 2] if v > 1 else f"input {v}" for v in path.nodes[-1].inputs] == ["resize.up", "input 1"]

    def test_a_second_round_of_panet_reads_the_maps_of_the_first(self):
        once, twice = (build(YoloRetConfig(backbone="mobilenetv2", neck="panet", repeats=n)) for n in (1, 2))
        out = 75
        more = unit_params(out, 512, out) + unit_params(out + 256, 256, out) + unit_params(out + 128, 128, out)
        more += unit_params(out, 128, out) + unit_params(128 + out, 256, out) + unit_params(256 + out, 512, out)
        more += 2 * link_params(256, out) + 2 * link_params(128, out)
        assert graph_cost(twice).params - graph_cost(once).params == more

    @pytest.mark.parametrize(
        ("backbone", "width", "channels"),
        [("mobilenetv2", 0.75, 48), ("mobilenetv2", 1.0, 64), ("mobilenetv2", 1.4, 88), ("efficientnet-b0", 1.0, 64),
         ("efficientnet-b1", 1.0, 88), ("efficientnet-b2", 1.0, 112), ("efficientnet-b3", 1.0, 160)],
    )  # fmt: skip
    def test_bifpn_is_as_wide_as_docs_adr_002_says(self, backbone, width, channels):
        assert bifpn_width(backbone, width) == channels
        graph = build(YoloRetConfig(backbone=backbone, width=width, neck="bifpn"))
        assert {p.block.shape[0] for p in graph.placements if p.name.startswith("neck.round0")} == {channels}

    def test_a_round_of_bifpn_is_four_nodes_with_efficientdets_wiring(self):
        graph = build(YoloRetConfig(backbone="mobilenetv2", neck="bifpn", repeats=2))
        names = [p.name for p in graph.placements]
        reads = {p.name: [names[i] for i in p.inputs] for p in graph.placements if "round1" in p.name}
        first = {32: "neck.round0.out32", 16: "neck.round0.out16", 8: "neck.round0.out8"}
        assert {name.removeprefix("neck.round1."): sources for name, sources in reads.items() if "sum" in name} == {
            "middle16_sum": [first[16], first[32]],
            "out8_sum": [first[8], "neck.round1.middle16"],
            "out16_sum": [first[16], "neck.round1.middle16", "neck.round1.out8"],
            "out32_sum": [first[32], "neck.round1.out16"],
        }
        assert len(reads) == 8

    def test_bifpn_keeps_the_size_of_each_level(self):
        graph = build(YoloRetConfig(backbone="efficientnet-b0", neck="bifpn", repeats=2, resolution=416))
        sides = {p.name.rpartition(".")[2]: p.block.shape[1] for p in graph.placements if "round1" in p.name}
        assert sides == {
            "middle16_sum": 26, "middle16": 26, "out8_sum": 52, "out8": 52,
            "out16_sum": 26, "out16": 26, "out32_sum": 13, "out32": 13,
        }  # fmt: skip


def tapped(graph: Graph, stride: int) -> int:
    """Channels of the last backbone block of a stride."""
    shapes = [p.block.shape for p in graph.placements if p.name.startswith("backbone")]
    return [shape[0] for shape in shapes if shape[1] * stride == graph.input_shape[1]][-1]


class TestRfcr:
    @pytest.mark.parametrize("kernel", [3, 5, 7])
    @pytest.mark.parametrize("shortcut", [False, True])
    @pytest.mark.parametrize(("backbone", "width", "drop"), [("mobilenetv2", 0.75, 2), ("efficientnet-b3", 1.0, 3)])
    def test_parameters_are_those_of_the_closed_form(self, backbone, width, drop, kernel, shortcut):
        config = YoloRetConfig(backbone=backbone, width=width, drop=drop, rfcr=kernel, shortcut=shortcut)
        graph = build(config)
        taps = [tapped(graph, stride) for stride in ((32, 16, 8, 4) if shortcut else (32, 16, 8))]
        mix = 48 * kernel**2 + 4 * 48 + 48 * 96 + 4 * 96
        assert mix == 6384 or kernel != 5
        assert params_of(p for p in graph.placements if p.name == "rfcr.collect") == 48 * sum(taps) + len(taps) + mix
        without = graph_cost(build(replace(config, rfcr=0, shortcut=False))).params
        assert graph_cost(graph).params - without == 48 * sum(taps) + len(taps) + mix + 96 * (512 + 256 + 128)

    def test_published_sum_for_mobilenetv2_075(self):
        config = YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True)
        without = replace(config, rfcr=0, shortcut=False)
        assert graph_cost(build(config)).params - graph_cost(build(without)).params == 103_924
        assert (graph_cost(build(config)).macs - graph_cost(build(without)).macs) / 1e6 == pytest.approx(41.0, abs=0.05)

    def test_the_shortcut_is_pooled_before_its_convolution_and_the_other_maps_after(self):
        block = collect_block(((120, 10, 10), (72, 20, 20), (24, 40, 40), (24, 80, 80)), 20, 5)
        names = [node.name for node in block.nodes][:8]
        assert names == ["in0.conv", "in0.up", "in1.conv", "in2.conv", "in2.pool", "in3.pool", "in3.conv", "sum"]

    def test_the_collecting_convolutions_are_bare(self):
        block = collect_block(((120, 10, 10), (72, 20, 20), (24, 40, 40)), 20, 5)
        assert [node.op for node in block.nodes if node.name.endswith(".conv")][:3] == [Conv(48)] * 3
        assert next(node for node in block.nodes if isinstance(node.op, WeightedSum)).inputs == (4, 5, 7)

    def test_the_mixed_map_goes_behind_the_raw_features_at_every_stride(self):
        graph = build(YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True))
        shapes = {p.name: p.block.shape for p in graph.placements if p.name.startswith("rfcr")}
        assert shapes == {
            "rfcr.collect": (96, 20, 20),
            "rfcr.stride32": (216, 10, 10),
            "rfcr.stride16": (168, 20, 20),
            "rfcr.stride8": (120, 40, 40),
        }


class TestHead:
    def test_outputs_are_named_by_stride_coarsest_first(self):
        assert [name for name, _ in build(YoloRetConfig(backbone="mobilenetv2")).outputs] == [
            "stride32",
            "stride16",
            "stride8",
        ]

    @pytest.mark.parametrize(("resolution", "boxes"), [(160, 1575), (224, 3087), (320, 6300), (416, 10647)])
    def test_three_boxes_a_cell(self, resolution, boxes):
        """10,647 is the number that YOLOv3 at 416 px is known for."""
        assert build(YoloRetConfig(backbone="mobilenetv2", resolution=resolution)).boxes == boxes

    def test_a_classifier_has_no_boxes(self):
        assert mobilenetv2.classifier(0.5).boxes == 0

    def test_anchors_are_yolov3s(self):
        assert yolov3.ANCHORS == {
            8: ((10, 13), (16, 30), (33, 23)),
            16: ((30, 61), (62, 45), (59, 119)),
            32: ((116, 90), (156, 198), (373, 326)),
        }

    def test_the_output_convolution_is_bare(self):
        graph = build(YoloRetConfig(backbone="mobilenetv2", classes=80))
        heads = [p.block for p in graph.placements if p.name.startswith("head")]
        assert [[node.op for node in block.nodes] for block in heads] == [[Conv(255)]] * 3


@st.composite
def configs(draw) -> YoloRetConfig:
    backbone = draw(st.sampled_from(BACKBONES))
    neck = draw(st.sampled_from(NECKS))
    rfcr = draw(st.sampled_from([0, 3, 5, 7]))
    return YoloRetConfig(
        backbone=backbone,
        width=draw(st.floats(0.35, 1.4)) if backbone == "mobilenetv2" else 1.0,
        drop=draw(st.integers(0, max_drop(backbone))),
        neck=neck,
        repeats=1 if neck == "none" else draw(st.integers(1, 4)),
        rfcr=rfcr,
        shortcut=bool(rfcr) and draw(st.booleans()),
        resolution=32 * draw(st.integers(5, 20)),
        classes=draw(st.integers(1, 120)),
    )


MOBILE = {"backbone": "mobilenetv2"}
EFFICIENT = {"backbone": "efficientnet-b0"}
REFUSED = [
    ({"backbone": "mobilenetv3"}, "unknown backbone 'mobilenetv3'; did you mean 'mobilenetv2'? known: mobilenetv2, "),
    ({"backbone": ""}, "unknown backbone ''; known: mobilenetv2, "),
    (MOBILE | {"neck": "panett"}, "unknown neck 'panett'; did you mean 'panet'? known: none, fpn, panet, bifpn"),
    (MOBILE | {"width": 0.34}, "width = 0.34: allowed is 0.35 to 1.4 for mobilenetv2"),
    (MOBILE | {"width": 1.41}, "width = 1.41: allowed is 0.35 to 1.4 for mobilenetv2"),
    (MOBILE | {"width": math.nan}, "width = nan: allowed is 0.35 to 1.4 for mobilenetv2"),
    (EFFICIENT | {"width": 0.75}, "1.0 for efficientnet-b0"),
    (MOBILE | {"repeats": 0}, "repeats = 0: allowed is 1 to 16"),
    (MOBILE | {"neck": "none", "repeats": 2}, "repeats = 2: allowed is 1 to 16, and 1 for the neck 'none'"),
    (MOBILE | {"rfcr": 4}, "rfcr = 4: allowed is 0 (off), 3, 5 or 7"),
    (MOBILE | {"rfcr": 9}, "rfcr = 9: allowed is 0 (off), 3, 5 or 7"),
    (MOBILE | {"shortcut": True}, "shortcut = True: allowed is false where rfcr is 0"),
    (MOBILE | {"resolution": 128}, "resolution = 128: allowed is a multiple of 32 from 160 to 640"),
    (MOBILE | {"resolution": 672}, "resolution = 672: allowed is a multiple of 32 from 160 to 640"),
    (MOBILE | {"resolution": 336}, "resolution = 336: allowed is a multiple of 32 from 160 to 640"),
    (MOBILE | {"classes": 0}, "classes = 0: allowed is 1 or more"),
    (MOBILE | {"drop": 5}, "drop = 5: mobilenetv2 allows 0 to 4"),
    (EFFICIENT | {"drop": -1}, "drop = -1: efficientnet-b0 allows 0 to 5"),
]


class TestConfiguration:
    @pytest.mark.parametrize(("fields", "message"), REFUSED, ids=lambda v: str(v)[:40])
    def test_a_value_out_of_range_is_refused_in_one_line_with_field_and_range(self, fields, message):
        with pytest.raises(UserError) as raised:
            YoloRetConfig(**fields)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)
        assert isinstance(raised.value, UnsupportedError if "drop" in fields else UsageError)

    @pytest.mark.parametrize("width", [0.35, 1.4])
    @pytest.mark.parametrize("resolution", [160, 640])
    def test_the_ends_of_the_ranges_are_allowed(self, width, resolution):
        config = YoloRetConfig(backbone="mobilenetv2", width=width, resolution=resolution, drop=4)
        assert build(config).input_shape == (3, resolution, resolution)

    @given(configs())
    @settings(derandomize=True, max_examples=60, deadline=None)
    def test_every_valid_configuration_builds_a_detector_of_three_scales(self, config):
        graph = build(config)
        shapes = [(name, graph.placements[place].block.shape) for name, place in graph.outputs]
        side = config.resolution
        assert shapes == [(f"stride{s}", (3 * (config.classes + 5), side // s, side // s)) for s in (32, 16, 8)]
        assert graph.boxes == sum(3 * shape[1] * shape[2] for _, shape in shapes)
        assert graph.name == config.name

    @pytest.mark.parametrize(
        ("config", "name"),
        [
            (YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True),
             "mobilenetv2-0.75-d2-rfcr5s-panet-320"),
            (YoloRetConfig(backbone="mobilenetv2", drop=0, rfcr=3, neck="fpn", repeats=2, resolution=416),
             "mobilenetv2-1-d0-rfcr3-fpnx2-416"),
            (YoloRetConfig(backbone="efficientnet-b3", drop=3, neck="none", resolution=224),
             "efficientnet-b3-d3-none-224"),
        ],
    )  # fmt: skip
    def test_a_name_tells_what_the_network_is(self, config, name):
        assert config.name == name

    def test_names_of_different_configurations_differ(self):
        grid = [
            YoloRetConfig(backbone=backbone, width=width, drop=drop, neck=neck, repeats=repeats, rfcr=rfcr,
                          shortcut=shortcut, resolution=resolution)
            for backbone, drop, (neck, repeats), (rfcr, shortcut), resolution in product(
                BACKBONES, (0, 2), (("none", 1), ("fpn", 1), ("fpn", 2), ("bifpn", 2)),
                ((0, False), (5, False), (5, True), (7, True)), (160, 320))
            for width in ((0.35, 0.5, 1.0) if backbone == "mobilenetv2" else (1.0,))
        ]  # fmt: skip
        assert len({config.name for config in grid}) == len(grid)

    def test_the_family_is_found_by_its_name(self):
        family = FAMILIES["yolo-ret"]
        config = family.configure(backbone="mobilenetv2", width=0.5, classes=3)
        assert family.build(config).name == "mobilenetv2-0.5-d0-panet-320"


class TestBlocks:
    @given(st.floats(1, 4000), st.sampled_from([4, 8, 16]))
    @settings(derandomize=True)
    def test_rounded_channels_are_a_multiple_near_and_never_below_nine_tenths(self, channels, divisor):
        rounded = round_channels(channels, divisor)
        assert rounded % divisor == 0
        assert rounded >= max(divisor, 0.9 * channels)
        assert rounded <= max(divisor, channels + divisor)

    @pytest.mark.parametrize(
        ("channels", "rounded"), [(11.2, 16), (8.4, 8), (12.0, 16), (11.99, 16), (33.6, 32), (3, 8)]
    )
    def test_channels_round_as_in_mobilenet(self, channels, rounded):
        assert round_channels(channels) == rounded

    def test_an_expansion_of_one_leaves_the_expanding_convolution_out(self):
        block = inverted_residual((16, 8, 8), 16, expansion=1)
        assert [node.name for node in block.nodes if isinstance(node.op, Conv)] == ["depthwise.conv", "project.conv"]

    def test_a_strided_block_has_no_residual_even_with_equal_channels(self):
        block = inverted_residual((16, 8, 8), 16, expansion=6, stride=2)
        assert block.shape == (16, 4, 4)
        assert block.nodes[-1].name == "project.bn"

    def test_widths_of_the_levels_are_the_released_codes(self):
        assert LEVEL_WIDTHS == {32: 512, 16: 256, 8: 128}
