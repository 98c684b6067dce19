"""Scaled-YOLOv4 against its golden numbers: networks, layers and modules, from the released configurations.

Trainable parameters: two a channel for batch normalisation. Fused: one bias a channel; where a concatenation is
normalised (the authors' PyTorch code), nothing folds and two remain. FLOPs are 2 x multiply-accumulates.
"""

from functools import cache

import pytest

from scaler.cost import Cost, graph_cost, layer_costs, total
from scaler.graph.graph import Graph, Layer
from scaler.graph.ops import BatchNorm, Conv
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config, build

YAML = {"concat_norm": "yaml"}
GOLDEN = [
    # variant, size, other fields, convolutions, trainable, fused, GFLOPs
    ("tiny", 416, {}, 21, 6_056_606, 6_053_502, 6.908),
    ("tiny-3l", 320, {}, 24, 6_327_453, 6_324_157, 4.913),
    ("tiny-3l", 416, {}, 24, 6_327_453, 6_324_157, 8.303),
    ("tiny-3l", 608, {}, 24, 6_327_453, 6_324_157, 17.735),
    ("csp", 512, {}, 115, 52_921_437, 52_889_053, 76.953),
    ("csp", 608, {}, 115, 52_921_437, 52_889_053, 108.516),
    ("csp", 640, {}, 115, 52_921_437, 52_889_053, 120.240),
    ("csp", 640, YAML, 115, 52_924_765, 52_895_965, 120.240),
    ("p5", 896, YAML, 163, 70_834_012, 70_794_268, 326.643),
    ("p5", 896, {}, 163, 70_830_684, 70_787_292, 326.643),
    ("p6", 1280, YAML, 205, 127_590_576, 127_530_352, 717.020),
    ("p6", 1280, {}, 205, 127_585_200, 127_519_280, 717.020),
    ("p7", 1536, {"width": 1.25, **YAML}, 247, 287_575_580, 287_474_700, 1636.704),
    ("p7", 1536, {"width": 1.25}, 247, 287_566_300, 287_455_740, 1636.704),
    ("pacsp-s", 640, {}, 69, 8_270_621, 8_260_349, 20.890),
    ("pacsp-x", 640, {}, 137, 99_751_053, 99_703_061, 221.885),
    ("csp", 640, {"depth": 0.33, "width": 0.5, **YAML}, 79, 9_329_581, 9_319_853, 21.165),
    ("csp", 640, {"depth": 0.67, "width": 0.75, **YAML}, 91, 24_676_485, 24_659_205, 53.886),
    ("csp", 640, {"depth": 1.33, "width": 1.25, **YAML}, 139, 96_944_565, 96_901_365, 226.518),
]
"""Reference, section 1. The convolutions of the scaled CSPs, which it leaves out, are 55 + 2 n + 8 m for n units in the
backbone's four CSP stages and m in each of the neck's four blocks; of CSP itself 55 + 2 * 22 + 8 * 2 = 115."""
BOXES = {("tiny", 416): 2_535, ("csp", 640): 25_200, ("p5", 896): 65_856, ("p6", 1280): 136_000, ("p7", 1536): 196_416}


@cache
def network(variant: str, resolution: int, **fields: object) -> Graph:
    return build(ScaledYoloV4Config(variant=variant, resolution=resolution, **fields))


@pytest.mark.parametrize(("variant", "resolution", "fields", "convolutions", "trainable", "fused", "gflops"), GOLDEN)
def test_networks_have_their_golden_numbers(variant, resolution, fields, convolutions, trainable, fused, gflops):
    graph = network(variant, resolution, **fields)
    cost = graph_cost(graph)
    assert sum(isinstance(layer.op, Conv) for layer in graph.layers()) == convolutions
    assert cost.trainable_params == trainable
    assert cost.folded_params == fused
    assert round(cost.flops / 1e9, 3) == gflops


def test_p7_of_width_one_has_the_numbers_of_its_configuration():
    cost = graph_cost(network("p7", 1536, concat_norm="yaml"))
    assert (cost.trainable_params, round(cost.flops / 1e9, 2)) == (184_347_140, 1050.65)


@pytest.mark.parametrize(("variant", "resolution"), BOXES)
def test_boxes_before_suppression(variant, resolution):
    assert network(variant, resolution).boxes == BOXES[variant, resolution]


@pytest.mark.parametrize(
    ("published", "variant", "resolution", "fields", "within"),
    [
        (109, "csp", 608, {}, 0.5),  # paper, Table 8
        (77, "csp", 512, {}, 0.5),  # README
        (221, "pacsp-x", 640, {}, 1),  # README
        (6.9, "tiny", 416, {}, 0.05),  # paper, Table 9
        (328, "p5", 896, {}, 2),  # YOLOR, Table A3, as the next ones
        (718.4, "p6", 1280, {}, 1.5),
        (1639, "p7", 1536, {"width": 1.25}, 3),
    ],
)
def test_flops_are_the_published_ones(published, variant, resolution, fields, within):
    assert graph_cost(network(variant, resolution, **fields)).flops / 1e9 == pytest.approx(published, abs=within)


def test_fused_parameters_of_p6_are_those_that_yolor_printed():
    assert graph_cost(network("p6", 1280, concat_norm="yaml")).folded_params == 127_530_352


@pytest.mark.parametrize(("variant", "more"), [("csp", 3_328), ("p5", 3_328), ("p6", 5_376), ("p7", 9_280)])
def test_the_second_normalisation_of_the_necks_costs_what_the_two_implementations_differ_by(variant, more):
    fields = {"resolution": 640, "width": 1.25 if variant == "p7" else 1.0}
    single, double = (
        graph_cost(network(variant, concat_norm=norm, **fields)).trainable_params for norm in ("cfg", "yaml")
    )
    assert double - single == more


TINY_LAYERS = {
    # darknet's number: name here, parameters, MFLOPs at 416
    "0": ("backbone.stem.unit", 928, 74.8),
    "1": ("backbone.stage1.down.unit", 18_560, 398.7),
    "2": ("backbone.stage1.entry.unit", 36_992, 797.4),
    "4": ("backbone.stage1.block.conv0", 9_280, 199.4),
    "5": ("backbone.stage1.block.conv1", 9_280, 199.4),
    "7": ("backbone.stage1.block.transition", 4_224, 88.6),
    "10": ("backbone.stage2.entry.unit", 147_712, 797.4),
    "12": ("backbone.stage2.block.conv0", 36_992, 199.4),
    "13": ("backbone.stage2.block.conv1", 36_992, 199.4),
    "15": ("backbone.stage2.block.transition", 16_640, 88.6),
    "18": ("backbone.stage3.entry.unit", 590_336, 797.4),
    "20": ("backbone.stage3.block.conv0", 147_712, 199.4),
    "21": ("backbone.stage3.block.conv1", 147_712, 199.4),
    "23": ("backbone.stage3.block.transition", 66_048, 88.6),
    "26": ("backbone.stage4.conv.unit", 2_360_320, 797.4),
    "27": ("neck.stride32.unit", 131_584, 44.3),
    "28": ("head.stride32.unit", 1_180_672, 398.7),
    "29": ("head.stride32.conv", 130_815, 44.1),
    "32": ("neck.stride16.link", 33_024, 11.1),
    "35": ("neck.stride16.out", 885_248, 1196.2),
    "36": ("head.stride16.conv", 65_535, 88.3),
}
TINY_3L_LAYERS = TINY_LAYERS | {
    "39": ("neck.stride8.link", 16_512, 22.2),
    "42": ("neck.stride8.out", 221_440, 1196.2),
    "43": ("head.stride8.conv", 32_895, 176.5),
}


@pytest.mark.parametrize(("variant", "table"), [("tiny", TINY_LAYERS), ("tiny-3l", TINY_3L_LAYERS)])
def test_every_layer_of_tiny_is_that_of_its_table(variant, table):
    """Reference, sections 3.2 and 3.4."""
    costs = layer_costs(network(variant, 416))
    for name, params, mflops in table.values():
        cost = summed(costs, name)
        assert (name, cost.trainable_params, round(cost.flops / 1e6, 1)) == (name, params, mflops)
    assert sum(params for _, params, _ in table.values()) == graph_cost(network(variant, 416)).trainable_params


def summed(costs: list[tuple[Layer, Cost]], *prefixes: str) -> Cost:
    """Of all layers below some names."""
    found = [cost for layer, cost in costs if any(f"{layer.name}.".startswith(f"{prefix}.") for prefix in prefixes)]
    assert found, prefixes
    return total(found)


def stage(number: int, units: int, csp: bool = True) -> list[str]:
    """Names of a stage's parts without the down-sampling convolution."""
    parts = ["entry", "merge"] if csp else []
    return [f"backbone.stage{number}.{part}" for part in [*parts, *(f"unit{i}" for i in range(units))]]


CSP_MODULES = [
    # reference, section 4.3: module, names here, parameters (yaml), GFLOPs at 640
    ("0", ["backbone.stem"], 928, 0.708),
    ("1", ["backbone.stage1.down"], 18_560, 3.775),
    ("2", stage(1, 1, csp=False), 20_672, 4.194),
    ("3", ["backbone.stage2.down"], 73_984, 3.775),
    ("4", stage(2, 2), 119_936, 6.082),
    ("5", ["backbone.stage3.down"], 295_424, 3.775),
    ("6", stage(3, 8), 1_463_552, 18.665),
    ("7", ["backbone.stage4.down"], 1_180_672, 3.775),
    ("8", stage(4, 8), 5_843_456, 18.665),
    ("9", ["backbone.stage5.down"], 4_720_640, 3.775),
    ("10", stage(5, 4), 12_858_368, 10.276),
    ("11", ["neck.spp32"], 7_610_368, 6.082),
    ("12-13", ["neck.top_down.path16.link"], 131_584, 0.105),
    ("14", ["neck.top_down.path16.lateral"], 131_584, 0.419),
    ("15-16", ["neck.top_down.stride16"], 1_642_496, 5.243),
    ("17-18", ["neck.top_down.path8.link"], 33_024, 0.105),
    ("19", ["neck.top_down.path8.lateral"], 33_024, 0.419),
    ("20-21", ["neck.top_down.stride8"], 411_648, 5.243),
    ("22", ["head.stride8.unit"], 295_424, 3.775),
    ("23", ["neck.bottom_up.path16.down"], 295_424, 0.944),
    ("24-25", ["neck.bottom_up.stride16"], 1_642_496, 5.243),
    ("26", ["head.stride16.unit"], 1_180_672, 3.775),
    ("27", ["neck.bottom_up.path32.down"], 1_180_672, 0.944),
    ("28-29", ["neck.bottom_up.stride32"], 6_561_792, 5.243),
    ("30", ["head.stride32.unit"], 4_720_640, 3.775),
    ("31", [f"head.stride{stride}.conv" for stride in (8, 16, 32)], 457_725, 1.462),
]


def test_every_module_of_csp_is_that_of_its_table():
    graph = network("csp", 640, concat_norm="yaml")
    costs = layer_costs(graph)
    for module, names, params, gflops in CSP_MODULES:
        cost = summed(costs, *names)
        assert (module, cost.trainable_params) == (module, params)
        assert cost.flops / 1e9 == pytest.approx(gflops, abs=5.1e-4)
    assert sum(params for _, _, params, _ in CSP_MODULES) == graph_cost(graph).trainable_params


UNITS = (1, 3, 15, 15, 7, 7, 7)
LARGE_MODULES = {
    # reference, section 5.1: parameters (yaml) and GFLOPs of the down-sampling and the stage, from stride 2 on
    ("p5", 896, 1.0): [
        (18_560, 7.399, 19_904, 7.810),
        (73_984, 7.399, 161_152, 16.031),
        (295_424, 7.399, 2_614_016, 65.356),
        (1_180_672, 7.399, 10_438_144, 65.356),
        (4_720_640, 7.399, 20_728_832, 32.472),
    ],
    ("p6", 1280, 1.0): [
        (18_560, 15.099, 19_904, 15.938),
        (73_984, 15.099, 161_152, 32.716),
        (295_424, 15.099, 2_614_016, 133.379),
        (1_180_672, 15.099, 10_438_144, 133.379),
        (4_720_640, 15.099, 20_728_832, 66.270),
        (9_439_232, 7.550, 20_728_832, 16.568),
    ],
    ("p7", 1536, 1.25): [
        (28_960, 33.974, 30_960, 35.861),
        (115_520, 33.974, 251_360, 73.610),
        (461_440, 33.974, 4_081_600, 300.102),
        (1_844_480, 33.974, 16_304_000, 300.102),
        (7_375_360, 33.974, 32_382_720, 149.108),
        (14_748_160, 16.987, 32_382_720, 37.277),
        (14_748_160, 4.247, 32_382_720, 9.319),
    ],
}
NECK_MODULES = {
    # stem, SPP, every reversed CSP block by its name, all output convolutions
    ("p5", 896, 1.0): {
        "backbone.stem": (928, 1.387),
        "neck.spp32": (7_610_368, 11.920),
        "neck.top_down.stride16": (2_298_880, 14.386),
        "neck.top_down.stride8": (576_000, 14.386),
        "neck.bottom_up.stride16": (2_298_880, 14.386),
        "neck.bottom_up.stride32": (9_185_280, 14.386),
        "detect": (610_300, 3.821),
    },
    ("p6", 1280, 1.0): {
        "backbone.stem": (928, 2.831),
        "neck.spp64": (7_610_368, 6.082),
        "neck.top_down.stride32": (9_185_280, 29.360),
        "neck.top_down.stride16": (2_298_880, 29.360),
        "neck.top_down.stride8": (576_000, 29.360),
        "neck.bottom_up.stride16": (2_298_880, 29.360),
        "neck.bottom_up.stride32": (9_185_280, 29.360),
        "neck.bottom_up.stride64": (9_185_280, 7.340),
        "detect": (958_800, 8.077),
    },
    ("p7", 1536, 1.25): {
        "backbone.stem": (1_160, 5.096),
        "neck.spp128": (11_888_640, 3.421),
        "neck.top_down.stride64": (14_348_800, 16.515),
        "neck.top_down.stride32": (14_348_800, 66.060),
        "neck.top_down.stride16": (3_590_400, 66.060),
        "neck.top_down.stride8": (899_200, 66.060),
        "neck.bottom_up.stride16": (3_590_400, 66.060),
        "neck.bottom_up.stride32": (14_348_800, 66.060),
        "neck.bottom_up.stride64": (14_348_800, 16.515),
        "neck.bottom_up.stride128": (14_348_800, 4.129),
        "detect": (1_633_700, 14.664),
    },
}


@pytest.mark.parametrize(("variant", "resolution", "width"), LARGE_MODULES)
def test_every_module_of_the_large_networks_is_that_of_its_table(variant, resolution, width):
    costs = layer_costs(network(variant, resolution, width=width, concat_norm="yaml"))
    found, wanted = [], []
    for number, (*down, params, gflops) in enumerate(LARGE_MODULES[variant, resolution, width], start=1):
        found += [summed(costs, f"backbone.stage{number}.down"), summed(costs, *stage(number, UNITS[number - 1]))]
        wanted += [tuple(down), (params, gflops)]
    for name, numbers in NECK_MODULES[variant, resolution, width].items():
        strides = [8 * 2**i for i in range(int(variant[1]) - 2)]
        names = [f"head.stride{stride}.conv" for stride in strides] if name == "detect" else [name]
        found.append(summed(costs, *names))
        wanted.append(numbers)
    assert [cost.trainable_params for cost in found] == [params for params, _ in wanted]
    assert [cost.flops / 1e9 for cost in found] == pytest.approx([gflops for _, gflops in wanted], abs=5.1e-4)


@pytest.mark.parametrize(
    ("width", "depth", "channels", "units"),
    [
        (0.5, 0.33, [16, 32, 64, 128, 256, 512], [1, 1, 3, 3, 1, 1]),
        (0.75, 0.67, [24, 48, 96, 192, 384, 768], [1, 1, 5, 5, 3, 1]),
        (1.0, 1.0, [32, 64, 128, 256, 512, 1024], [1, 2, 8, 8, 4, 2]),
        (1.25, 1.33, [40, 80, 160, 320, 640, 1280], [1, 3, 11, 11, 5, 3]),
    ],
)
def test_multipliers_give_the_channels_and_repeats_of_section_4_6(width, depth, channels, units):
    graph = network("csp", 640, width=width, depth=depth)
    shapes = {p.name: p.block.shape[0] for p in graph.placements}
    assert [shapes["backbone.stem"], *(shapes[f"backbone.stage{n}.down"] for n in range(1, 6))] == channels
    repeats = [sum(name.startswith(f"backbone.stage{n}.unit") for name in shapes) for n in range(1, 6)]
    neck = next(p.block for p in graph.placements if p.name == "neck.top_down.stride8")
    assert [*repeats, sum(node.name.endswith("reduce.conv") for node in neck.nodes)] == units


def test_a_normalised_concatenation_is_the_only_normalisation_that_does_not_fold():
    for norm, kept in (("cfg", 0), ("yaml", 4 + 5)):  # four CSP stages, SPP and four reversed CSP blocks
        layers = {layer.name: layer for layer in network("csp", 640, concat_norm=norm).layers()}
        bare = [
            layer.name
            for layer in layers.values()
            if isinstance(layer.op, BatchNorm) and not isinstance(layers[layer.inputs[0]].op, Conv)
        ]
        assert len(bare) == kept
        assert all(name.endswith("joint.bn") for name in bare)
