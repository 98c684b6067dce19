"""The published scaling rules: their invariants, and their agreement with convolutions that are counted."""

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise

import pytest

from scaler.cost import block_costs, layer_costs, op_cost
from scaler.graph.graph import Graph, Layer
from scaler.graph.ops import Conv, MaxPool, Slice
from scaler.models.backbones import csp_darknet, resnet, vovnet
from scaler.models.blocks_csp import Style
from scaler.models.detectors.scaled_yolov4 import (
    PLANS,
    ScaledYoloV4Config,
    build,
    max_stride,
    scaled_channels,
    scaled_units,
)
from scaler.scaling import rules

KINDS = tuple(rules.GROUPS)
INSIDE = {"res": 4, "resx": 2, "dark": 2}
"""Base channels over those of the bottleneck."""
W, H, B = 24, 16, 128


def counted(*convolutions: tuple[int, int, int, int]) -> int:
    """MACs of `(c_in, c_out, kernel, groups)` on a map of W x H, by the cost of our own operators."""
    return sum(
        op_cost(Conv(c_out, kernel=k, groups=groups), ((c_in, H, W),), (c_out, H, W)).macs
        for c_in, c_out, k, groups in convolutions
    )


def layer(kind: rules.LayerKind, ends: int, inside: int) -> int:
    """MACs of one layer of a kind, from its definition in section 3.1."""
    if kind == "dark":
        return counted((ends, inside, 1, 1), (inside, ends, 3, 1))
    groups = 32 if kind == "resx" else 1
    return counted((ends, inside, 1, 1), (inside, inside, 3, groups), (inside, ends, 1, 1))


# --- groups of layers, Tables 1 and 2 ---


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [1, 3, 16])
def test_a_group_costs_what_its_convolutions_cost(kind: rules.LayerKind, k: int):
    assert rules.group_macs(kind, W, H, k, B) == k * layer(kind, B, B // INSIDE[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_csp_halves_the_ends_of_each_layer_and_keeps_its_bottleneck(kind: rules.LayerKind):
    once = counted((B // 2, B // 2, 1, 1), (B, B // 2, 1, 1))
    for k in (1, 5):
        halved = k * layer(kind, B // 2, B // INSIDE[kind])
        assert rules.csp_group_macs(kind, W, H, k, B) == once + halved


@pytest.mark.parametrize("kind", KINDS)
def test_size_depth_and_width_scale_a_group_as_table_1_says(kind: rules.LayerKind):
    once = rules.group_macs(kind, W, H, 3, B)
    assert rules.group_macs(kind, 2 * W, 2 * H, 3, B) == once * rules.scaled_cost(size=2)
    assert rules.group_macs(kind, W, H, 6, B) == once * rules.scaled_cost(depth=2)
    assert rules.group_macs(kind, W, H, 3, 2 * B) == once * rules.scaled_cost(width=2)
    assert rules.group_macs(kind, 2 * W, 2 * H, 9, 3 * B) == once * rules.scaled_cost(size=2, depth=3, width=3)


@pytest.mark.parametrize(("kind", "percent"), [("res", 23.5), ("resx", 46.7), ("dark", 50.0)])
def test_csp_saves_the_published_share_of_many_layers(kind: rules.LayerKind, percent: float):
    assert round(100 * float(rules.csp_saving(kind)), 1) == percent
    assert abs(rules.csp_saving(kind, 10_000) - rules.csp_saving(kind)) < Fraction(1, 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_csp_saves_more_the_more_layers_there_are(kind: rules.LayerKind):
    savings = [rules.csp_saving(kind, k) for k in range(1, 20)]
    assert all(fewer < more < rules.csp_saving(kind) for fewer, more in pairwise(savings))


def test_csp_pays_for_more_than_one_layer_only():
    assert not rules.csp_pays(1)
    assert all(rules.csp_pays(k) for k in range(2, 20))


def test_the_released_csp_block_is_cheaper_than_darknets_for_one_layer_too():
    assert rules.csp_block_macs(64, 100, 1) / rules.dark_residual_macs(64, 100) == Fraction(95, 100)


# --- receptive field, Table 7 ---


def test_a_convolution_widens_the_receptive_field_by_its_kernel_less_one():
    plain = [(3, 1), (3, 1)]
    for kernel in (1, 3, 5, 7):
        assert rules.receptive_field([*plain, (kernel, 1)]) - rules.receptive_field(plain) == kernel - 1


def test_a_stage_doubles_what_the_layers_after_it_add():
    def added(stages: int) -> int:
        before = [(2, 2)] * stages
        return rules.receptive_field([*before, (3, 1)]) - rules.receptive_field(before)

    assert [added(stages) for stages in range(5)] == [2, 4, 8, 16, 32]


def test_each_published_stage_more_doubles_darknets_receptive_field_at_least_nearly():
    fields = {stages: rules.darknet_receptive_field((1, 3, 15, 15, 7, 7, 7)[:stages]) for stages in (5, 6, 7)}
    assert fields == {5: 1261, 6: 2221, 7: 4141}
    assert rules.darknet_receptive_field((1, 2, 8, 8, 4)) == 725


def test_the_published_sizes_keep_or_widen_what_share_of_the_picture_is_seen():
    shares = [
        rules.darknet_receptive_field((1, 3, 15, 15, 7, 7, 7)[:stages]) / size
        for stages, size in rules.STAGE_SIZES.items()
    ]
    assert shares == sorted(shares)
    assert shares[0] > rules.darknet_receptive_field((1, 2, 8, 8, 4)) / 640


# --- order of the factors ---


def test_width_comes_last_and_structure_changes_first():
    assert rules.SCALE_ORDER[0] == "structure"
    assert rules.SCALE_ORDER[-2:] == ("size and stages", "width")


def test_stages_grow_with_the_input_size_as_p5_p6_and_p7_do():
    assert [rules.stages_for(size) for size in (640, 896, 960, 1280, 1408, 1536, 2048)] == [5, 5, 6, 6, 7, 7, 7]


# --- multipliers of the released files, section 4.6 of the notes ---


@pytest.mark.parametrize(
    ("depth", "width", "channels", "repeats", "neck"),
    [
        (0.33, 0.50, [16, 32, 64, 128, 256, 512], [1, 1, 3, 3, 1], 1),
        (0.67, 0.75, [24, 48, 96, 192, 384, 768], [1, 1, 5, 5, 3], 1),
        (1.00, 1.00, [32, 64, 128, 256, 512, 1024], [1, 2, 8, 8, 4], 2),
        (1.33, 1.25, [40, 80, 160, 320, 640, 1280], [1, 3, 11, 11, 5], 3),
    ],
)
def test_multipliers_give_the_released_s_m_l_and_x(
    depth: float, width: float, channels: list[int], repeats: list[int], neck: int
):
    assert [scaled_channels(c, width) for c in (32, 64, 128, 256, 512, 1024)] == channels
    assert [scaled_units(n, depth) for n in (1, 2, 8, 8, 4)] == repeats
    assert scaled_units(2, depth) == neck
    assert rules.depth_for(width) == depth


def test_channels_are_multiples_of_eight_and_never_too_few():
    for channels in range(8, 1100, 24):
        for width in (0.25, 0.33, 0.5, 0.61, 1.0, 1.25):
            scaled = scaled_channels(channels, width)
            assert scaled % 8 == 0
            assert 0 <= scaled - channels * width < 8


def test_a_stage_keeps_one_unit_at_least_and_a_single_unit_stays_one():
    assert scaled_units(8, 0.01) == 1
    assert scaled_units(1, 3.0) == 1


# --- low end, Tables 3 to 5 ---

TINY = [(b, rules.growth_rate(b), rules.layers_for(b, rules.growth_rate(b))) for b in (64, 128, 256)]
"""b, g and k of YOLOv4-tiny's three blocks."""


def test_tinys_growth_rates_are_half_of_what_enters_and_take_three_layers():
    assert TINY == [(64, 32, 3), (128, 64, 3), (256, 128, 3)]


def test_tinys_blocks_split_into_equal_paths_without_rounding():
    for b, g, k in TINY:
        assert 2 * rules.split_channels(b, g, k, tau=8) == b + k * g


@pytest.mark.parametrize("tau", [8, 16, 32])
def test_a_split_is_the_least_multiple_of_tau_that_holds_half(tau: int):
    for b in range(8, 200, 8):
        half = Fraction(b + 3 * (b // 2), 2)
        split = rules.split_channels(b, b // 2, 3, tau)
        assert split % tau == 0
        assert half <= split < half + tau


def test_channel_products_of_tinys_block_are_those_of_table_5():
    for b, g, k in TINY:
        products = {design: rules.channel_product(design, b, g, k) / g**2 for design in ("osa", "csp-osa")}
        assert products == {"osa": Fraction(33, 2), "csp-osa": 12}
        assert rules.channel_product("csp-osa-pcb", b, g, k) / g**2 == Fraction(37, 4)


def test_channel_products_are_the_sums_over_the_layers_of_table_4():
    b, g, k = 96, 40, 5
    inner = [(g, g)] * (k - 1)
    layers = {
        "osa": [(b, g), *inner, (b + k * g, Fraction(b + k * g, 2))],
        "csp-osa": [(g, g), *inner, (k * g, k * g)],
        "csp-osa-pcb": [(g, g), *inner, (Fraction(b + k * g, 2), Fraction(b + k * g, 2))],
    }
    for design, sizes in layers.items():
        assert rules.channel_product(design, b, g, k) == sum(c_in * c_out for c_in, c_out in sizes)  # type: ignore[arg-type]


def test_the_cut_inside_the_block_pays_exactly_where_its_channel_product_is_less():
    for b in (32, 64, 100):
        for g in (8, 16, 32, 50):
            for k in range(1, 8):
                less = rules.channel_product("csp-osa-pcb", b, g, k) < rules.channel_product("csp-osa", b, g, k)
                assert rules.cut_inside_block_pays(b, g, k) is less


def test_half_of_the_base_channels_is_not_enough_for_the_cut_inside_the_block():
    b, g, k = 64, 16, 3
    assert k * g > b / 2
    assert not rules.cut_inside_block_pays(b, g, k)
    assert all(rules.cut_inside_block_pays(*block) for block in TINY)


def test_one_shot_aggregation_costs_less_than_dense_connections():
    for k in range(2, 8):
        assert rules.osa_macs(W, H, 64, 16, k) < rules.dense_macs(W, H, 64, 16, k)
    assert rules.osa_macs(W, H, 64, 16, 1) == rules.dense_macs(W, H, 64, 16, 1)


def test_dense_and_one_shot_blocks_cost_what_their_layers_cost():
    b, g, k = 64, 16, 4
    assert rules.dense_macs(W, H, b, g, k) == counted(*[(b + i * g, g, 1, 1) for i in range(k)])
    assert rules.osa_macs(W, H, b, g, k) == counted((b, g, 1, 1), *[(g, g, 1, 1)] * (k - 1))


@pytest.mark.parametrize("kernel", [1, 3])
def test_equal_channels_move_least(kernel: int):
    product = 64 * 64
    macs = kernel**2 * H * W * product
    least = rules.least_memory_access(H, W, macs, kernel)
    moved = {c_in: rules.memory_access(H, W, c_in, product // c_in, kernel) for c_in in (8, 16, 32, 64, 128, 256)}

    assert min(moved, key=lambda c_in: moved[c_in]) == 64
    assert moved[64] == pytest.approx(least)
    assert all(value > least for c_in, value in moved.items() if c_in != 64)


def test_memory_access_is_that_of_our_costs():
    cost = op_cost(Conv(96, kernel=3), ((32, H, W),), (96, H, W))
    assert rules.memory_access(H, W, 32, 96, 3) == cost.memory_access
    least = rules.least_memory_access(H, W, cost.macs, 3)
    assert cost.memory_access_bound == pytest.approx(least, rel=1e-5)


# --- the networks that we build obey the rules ---

LARGE = {"csp": 640, "p5": 896, "p6": 1280, "p7": 1536}
"""Variants of the CSP networks at their published sizes."""


@cache
def built(variant: str, **fields: float) -> Graph:
    return build(replace(ScaledYoloV4Config(variant=variant, resolution=LARGE.get(variant, 416)), **fields))


def stage_macs(graph: Graph, number: int, only: str = "") -> int:
    """MACs of a stage of the backbone behind its down-sampling convolution, or of its blocks of a name."""
    prefix = f"backbone.stage{number}."
    return sum(
        cost.macs
        for name, cost in block_costs(graph).items()
        if name.startswith(prefix + only) and name != f"{prefix}down"
    )


def units_in(graph: Graph, number: int) -> int:
    return sum(p.name.startswith(f"backbone.stage{number}.unit") for p in graph.placements)


def output_of(graph: Graph, number: int) -> tuple[int, int, int]:
    """Shape of what a stage writes last."""
    return next(p.block.shape for p in reversed(graph.placements) if p.name.startswith(f"backbone.stage{number}."))


@pytest.mark.parametrize(
    ("variant", "fields"),
    [("csp", {}), ("csp", {"width": 0.5, "depth": 0.33}), ("csp", {"width": 1.25, "depth": 1.33})]
    + [(variant, {}) for variant in ("p5", "p6", "p7")],
)
def test_every_stage_of_the_built_networks_costs_what_the_exact_block_costs(variant: str, fields: dict[str, float]):
    graph = built(variant, **fields)
    for number, stage in enumerate(PLANS[variant].stages, start=1):
        (c, h, w), n = output_of(graph, number), units_in(graph, number)
        exact = rules.csp_block_macs(c, h * w, n) if stage.path else n * rules.dark_residual_macs(c, h * w)
        assert stage_macs(graph, number) == exact
        assert n == scaled_units(stage.units, fields.get("depth", 1.0))
        if stage.path:
            per_layer = rules.csp_group_macs("dark", w, h, n, c) - w * h * c**2 * rules.GROUPS["dark"].split
            assert stage_macs(graph, number, "unit") == per_layer
        else:
            assert stage_macs(graph, number, "unit") == rules.group_macs("dark", w, h, n, c)


def test_a_bottleneck_of_the_built_resnet_costs_what_table_1_says():
    graph = resnet.classifier("50")
    for number in range(1, 5):
        c, h, w = output_of(graph, number)
        assert block_costs(graph)[f"backbone.stage{number}.block1"].macs == rules.group_macs("res", w, h, 1, c)


@pytest.mark.parametrize(
    ("fields", "factors"),
    [({"resolution": 1280}, {"size": 2}), ({"width": 2.0}, {"width": 2}), ({"depth": 0.5}, {"depth": 0.5})],
)
def test_the_units_of_the_built_network_scale_as_table_1_says(fields: dict[str, float], factors: dict[str, float]):
    for number in (3, 4, 5):
        scaled, base = stage_macs(built("csp", **fields), number, "unit"), stage_macs(built("csp"), number, "unit")
        assert scaled == base * rules.scaled_cost(**factors)


def test_yolov4_csp_has_csp_stages_where_they_pay():
    graph = built("csp")
    merged = {p.name.split(".")[1] for p in graph.placements if p.name.endswith(".merge")}
    for number in range(1, 6):
        assert rules.csp_pays(units_in(graph, number)) is (f"stage{number}" in merged)


@pytest.mark.parametrize("n", [1, 4, 64])
def test_a_csp_stage_saves_against_the_plain_one_what_the_rules_say_in_the_limit(n: int):
    plain, csp = (
        csp_darknet.trunk("", 32, (make(64, n),), 64, Style()).placements
        for make in (csp_darknet.dark_stage, csp_darknet.csp_stage)
    )
    macs = [stage_macs(Graph("", (3, 64, 64), placements, ()), 1) for placements in (plain, csp)]
    assert macs == [n * rules.dark_residual_macs(64, 32 * 32), rules.csp_block_macs(64, 32 * 32, n)]
    # the rules leave out 3/2 of the paths' convolutions, which many layers outweigh
    assert float(rules.csp_saving("dark", n)) - (1 - macs[1] / macs[0]) == pytest.approx(1.5 / (5 * n))


def seen(layers: Iterable[Layer]) -> int:
    """Side of the square of pixels that the last of these layers sees, by the widest path."""
    sides: dict[str, tuple[int, int]] = {}
    side = cell = 1
    for layer in layers:
        known = [sides.get(name, (1, 1)) for name in layer.inputs]
        side, cell = max(known)
        if isinstance(layer.op, Conv | MaxPool):
            side, cell = side + (layer.op.kernel - 1) * cell, cell * layer.op.stride
        sides[layer.name] = side, cell
    return side


@pytest.mark.parametrize("variant", LARGE)
def test_the_built_backbones_see_what_the_rule_says(variant: str):
    graph = built(variant)
    stages = len(PLANS[variant].stages)
    backbone = [layer for layer in graph.layers() if layer.name.startswith("backbone.")]
    assert seen(backbone) == rules.darknet_receptive_field([units_in(graph, n) for n in range(1, stages + 1)])


@pytest.mark.parametrize("variant", ["p5", "p6", "p7"])
def test_the_built_large_networks_have_the_stages_that_their_size_asks_for(variant: str):
    graph, size = built(variant), LARGE[variant]
    stages = rules.stages_for(size)
    assert graph.input_shape == (3, size, size) and rules.STAGE_SIZES[stages] == size
    assert min(output_of(graph, number)[1] for number in range(1, stages + 1)) == size / 2**stages
    assert not [p for p in graph.placements if p.name.startswith(f"backbone.stage{stages + 1}.")]
    assert 2**stages == max_stride(variant)
    coarsest = min(p.block.shape[1] for p in graph.placements)
    assert coarsest == size / 2**stages


@pytest.mark.parametrize("width", [0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
def test_the_built_tiny_has_the_growth_layers_and_paths_of_the_rules(width: float):
    graph = built("tiny", width=width)
    by_name = {placement.name: placement for placement in graph.placements}
    for number in (1, 2, 3):
        entry, block = by_name[f"backbone.stage{number}.entry"].block, by_name[f"backbone.stage{number}.block"].block
        b = entry.input_shapes[0][0]
        (half,) = [node.shape[0] for node in block.nodes if isinstance(node.op, Slice)]
        inner = [node.shape[0] for node in block.nodes if isinstance(node.op, Conv) and node.op.kernel == 3]
        g, k = inner[0], 1 + len(inner)  # the half of the entry that goes on is the first of the layers
        assert {half, *inner} == {rules.growth_rate(b)}
        assert k == rules.layers_for(b, g)
        assert rules.cut_inside_block_pays(b, g, k)
        paths = {shape[0] for shape in by_name[f"backbone.stage{number + 1}.pool"].block.input_shapes}
        assert paths == {rules.split_channels(entry.shape[0], g, len(inner), tau=8)} == {b}
        following = by_name[f"backbone.stage{number + 1}.pool"].block.shape[0]
        assert following == b // 2 + k * g == 2 * b


@pytest.mark.parametrize("model", ["vovnet-27-slim", "vovnet-39"])
def test_the_built_one_shot_modules_cost_what_the_rule_says_and_move_the_least(model: str):
    graph = vovnet.classifier(model)
    convs = vovnet.MODELS[model].convs
    costs = {layer.name: (layer, cost) for layer, cost in layer_costs(graph)}
    modules = [p.name for p in graph.placements if p.name.startswith("backbone.stage")]
    assert len(modules) >= 4
    for module in modules:
        chain = [costs[f"{module}.conv{index}.conv"] for index in range(convs)]
        (b, h, w), g = chain[0][0].input_shapes[0], chain[0][0].shape[0]
        macs = sum(cost.macs for _, cost in chain)
        assert macs == 9 * rules.osa_macs(w, h, b, g, convs) < 9 * rules.dense_macs(w, h, b, g, convs)
        for layer, cost in chain:
            c_in = layer.input_shapes[0][0]
            assert cost.memory_access == rules.memory_access(h, w, c_in, g, 3)
            least = rules.least_memory_access(h, w, cost.macs, 3)
            assert cost.memory_access == pytest.approx(least) if c_in == g else cost.memory_access > least
