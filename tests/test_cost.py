"""Cost of networks: formulas, bounds, sums by layer, block and stage, and memory against a slow twin."""

import math
from dataclasses import fields

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scaler.cost import (
    Cost,
    block_cost,
    block_costs,
    by_stage,
    graph_cost,
    layer_costs,
    op_cost,
    peak_activation_elements,
    stage_costs,
    total,
)
from scaler.graph.graph import INPUT_NAME, BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import Activation, Add, BatchNorm, Concat, Conv, Gate, Linear, MaxPool, WeightedSum, pad_for
from scaler.models.backbones import efficientnet, mobilenetv2, resnet
from scaler.models.detectors.yolo_ret import YoloRetConfig, build

DETECTORS = [
    YoloRetConfig(backbone="mobilenetv2", width=0.35, drop=4, neck="none", resolution=160),
    YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True),
    YoloRetConfig(backbone="mobilenetv2", width=1.4, rfcr=7, neck="fpn", repeats=2, resolution=416),
    YoloRetConfig(backbone="efficientnet-b0", drop=5, neck="bifpn", repeats=2, rfcr=3, classes=80),
    YoloRetConfig(backbone="efficientnet-b3", drop=3, rfcr=5, shortcut=True, classes=80, resolution=640),
    YoloRetConfig(backbone="efficientnet-b2", neck="panet", repeats=3, classes=400),
]
NETWORKS = [build(config) for config in DETECTORS] + [
    mobilenetv2.classifier(1.0),
    efficientnet.classifier("b3", 320),
    resnet.classifier("18"),
    resnet.classifier("50", 224),
]
channels = st.integers(1, 300)
sides = st.integers(4, 90)
kernels = st.sampled_from([1, 3, 5, 7])


def same_conv(c_in: int, c_out: int, side: int, kernel: int, stride: int = 1, groups: int = 1) -> Cost:
    """Cost of a convolution in the padding that keeps `side / stride`."""
    after = math.ceil(side / stride)
    op = Conv(c_out, kernel, stride, groups, pad_for("same", side, kernel, stride))
    return op_cost(op, ((c_in, side, side),), (c_out, after, after))


class TestConvolution:
    @given(channels, channels, sides, kernels)
    @settings(derandomize=True)
    def test_memory_access_is_the_papers_formula_at_stride_1(self, c_in, c_out, side, kernel):
        cost = same_conv(c_in, c_out, side, kernel)
        assert cost.memory_access == side**2 * (c_in + c_out) + kernel**2 * c_in * c_out

    @given(st.integers(1, 40), st.integers(1, 12), sides, kernels)
    @settings(derandomize=True)
    def test_groups_divide_the_weights_only(self, per_group, groups, side, kernel):
        c = per_group * groups
        cost = same_conv(c, c, side, kernel, groups=groups)
        weights = kernel**2 * c * c // groups
        assert (cost.params, cost.macs) == (weights, weights * side**2)
        assert cost.memory_access == 2 * side**2 * c + weights

    @given(channels, channels, sides, kernels, st.integers(1, 3))
    @settings(derandomize=True)
    def test_macs_are_weights_times_output_pixels(self, c_in, c_out, side, kernel, stride):
        cost = same_conv(c_in, c_out, side, kernel, stride)
        assert cost.macs == kernel**2 * c_in * c_out * math.ceil(side / stride) ** 2

    @given(channels, channels, sides, kernels, st.integers(1, 3))
    @settings(derandomize=True)
    def test_convolutional_input_output_is_memory_access_without_the_weights(self, c_in, c_out, side, kernel, stride):
        cost = same_conv(c_in, c_out, side, kernel, stride)
        assert cost.conv_io == side**2 * c_in + math.ceil(side / stride) ** 2 * c_out
        assert cost.conv_io == cost.memory_access - cost.params

    @given(channels, channels, sides, kernels, st.integers(1, 3))
    @settings(derandomize=True)
    def test_memory_access_is_never_below_its_bound(self, c_in, c_out, side, kernel, stride):
        cost = same_conv(c_in, c_out, side, kernel, stride)
        assert cost.memory_access_bound <= cost.memory_access
        assert cost.memory_access_ratio >= 1

    @given(channels, sides, kernels)
    @settings(derandomize=True)
    def test_equal_channels_at_stride_1_reach_the_bound(self, c, side, kernel):
        assert same_conv(c, c, side, kernel).memory_access_ratio == 1

    @given(channels, channels, sides, kernels)
    @settings(derandomize=True)
    def test_unequal_channels_at_stride_1_do_not_reach_the_bound(self, c_in, c_out, side, kernel):
        assume((math.sqrt(c_in) - math.sqrt(c_out)) ** 2 * side**2 >= 1)  # the bound is a whole number of elements
        assert same_conv(c_in, c_out, side, kernel).memory_access_ratio > 1

    @given(st.integers(1, 60), st.integers(1, 60), sides, st.sampled_from([1, 3]))
    @settings(derandomize=True)
    def test_no_other_channels_with_the_same_macs_move_less_than_the_bound(self, c_in, c_out, side, kernel):
        bound = same_conv(c_in, c_out, side, kernel).memory_access_bound
        product = c_in * c_out
        pairs = [(a, product // a) for a in range(1, product + 1) if product % a == 0]
        costs = [same_conv(a, b, side, kernel) for a, b in pairs]
        assert len({cost.macs for cost in costs}) == 1
        assert min(cost.memory_access for cost in costs) >= bound

    def test_the_bound_of_a_known_layer(self):
        """24 to 96 channels are worth 48 to 48: 2 x 48 x 20 x 20 elements and the weights."""
        cost = same_conv(24, 96, 20, 1)
        assert (cost.memory_access, cost.memory_access_bound) == (120 * 400 + 2304, 96 * 400 + 2304)
        assert cost.arithmetic_intensity == 2304 * 400 / (120 * 400 + 2304)

    def test_a_bias_is_one_parameter_a_channel_and_no_memory_access(self):
        shapes = ((8, 4, 4),), (16, 4, 4)
        with_bias, without = (op_cost(Conv(16, bias=bias), *shapes) for bias in (True, False))
        assert with_bias.params - without.params == 16
        assert with_bias.memory_access == without.memory_access


class TestOtherOperators:
    def test_a_fully_connected_layer_counts_like_a_1x1_convolution(self):
        shapes = ((320, 1, 1),), (1000, 1, 1)
        assert op_cost(Linear(1000), *shapes) == op_cost(Conv(1000, bias=True), *shapes)

    def test_normalisation_counts_four_two_or_one_by_the_three_rules(self):
        cost = op_cost(BatchNorm(), ((24, 8, 8),), (24, 8, 8))
        assert (cost.params, cost.trainable_params, cost.folded_params, cost.macs) == (96, 48, 24, 0)

    def test_a_weighted_sum_has_one_parameter_an_input(self):
        cost = op_cost(WeightedSum(), ((24, 8, 8),) * 4, (24, 8, 8))
        assert (cost.params, cost.trainable_params, cost.folded_params) == (4, 4, 4)

    @pytest.mark.parametrize(
        "op", [Activation("swish"), Add(), Concat(), MaxPool(2, 2), Gate()], ids=lambda op: type(op).__name__
    )
    def test_everything_else_counts_nothing(self, op):
        assert op_cost(op, ((24, 8, 8), (24, 8, 8)), (24, 8, 8)) == Cost()


class TestSums:
    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_layers_blocks_and_stages_sum_to_the_network(self, graph: Graph):
        whole = graph_cost(graph)
        assert total(cost for _, cost in layer_costs(graph)) == whole
        assert total(block_costs(graph).values()) == whole
        assert total(stage_costs(graph).values()) == whole

    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_every_layer_and_block_is_listed_once(self, graph: Graph):
        assert [layer.name for layer, _ in layer_costs(graph)] == [layer.name for layer in graph.layers()]
        assert list(block_costs(graph)) == [placement.name for placement in graph.placements]

    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_a_stage_is_the_sum_of_its_blocks(self, graph: Graph):
        blocks, stages = block_costs(graph), stage_costs(graph)
        assert list(stages) == list(by_stage(graph))
        for stage, placements in by_stage(graph).items():
            assert stages[stage] == total(blocks[placement.name] for placement in placements)
            assert all(placement.name.startswith(stage) for placement in placements)

    def test_a_repeated_block_counts_at_every_place(self):
        costs = block_costs(mobilenetv2.classifier(1.0))
        assert costs["backbone.stage4.block1"] == costs["backbone.stage4.block3"]
        assert stage_costs(mobilenetv2.classifier(1.0))["backbone.stage4"].macs == sum(
            costs[f"backbone.stage4.block{i}"].macs for i in range(4)
        )

    def test_stages_of_a_detector_come_in_order_of_execution(self):
        assert list(stage_costs(NETWORKS[1]))[-5:] == [
            "backbone.stage6",
            "rfcr",
            "neck.top_down",
            "neck.bottom_up",
            "head",
        ]

    def test_totals_add_up_field_by_field(self):
        assert total([]) == Cost()
        assert total([Cost(1, 2, 3, 4, 5, 6, 7), Cost(10, 20, 30, 40, 50, 60, 70)]) == Cost(11, 22, 33, 44, 55, 66, 77)

    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_flops_are_twice_the_macs_and_intensity_is_macs_per_element(self, graph: Graph):
        cost = graph_cost(graph)
        assert cost.flops == 2 * cost.macs
        assert cost.arithmetic_intensity == cost.macs / cost.memory_access

    def test_nothing_has_no_intensity_and_the_best_ratio(self):
        assert (Cost().arithmetic_intensity, Cost().memory_access_ratio) == (0.0, 1.0)

    def test_a_network_is_as_far_from_its_bound_as_its_layers_together(self):
        cost = graph_cost(NETWORKS[1])
        layers = [c for _, c in layer_costs(NETWORKS[1]) if c.memory_access]
        ratio = sum(c.memory_access for c in layers) / sum(c.memory_access_bound for c in layers)
        assert cost.memory_access_ratio == ratio > 1

    @pytest.mark.parametrize("graph", NETWORKS[:6], ids=lambda graph: graph.name)
    def test_folded_parameters_are_fewer_than_trainable_ones_and_those_than_all(self, graph: Graph):
        cost = graph_cost(graph)
        normalised = sum(layer.shape[0] for layer in graph.layers() if isinstance(layer.op, BatchNorm))
        assert (cost.params - cost.trainable_params, cost.trainable_params - cost.folded_params) == (
            2 * normalised,
            normalised,
        )


class TestResolution:
    @pytest.mark.parametrize("config", DETECTORS[1:4], ids=lambda config: config.name)
    def test_macs_on_maps_grow_with_the_pixels_and_those_of_excitations_stay(self, config: YoloRetConfig):
        """At 320 and 640 px every map has whole sides, so the factor is exactly 4."""
        small, large = (by_map(config, resolution) for resolution in (320, 640))
        assert large["map"] == 4 * small["map"] > 0
        assert large["vector"] == small["vector"] > 0
        assert sum(small.values()) == graph_cost(build(resized(config, 320))).macs

    @pytest.mark.parametrize("config", DETECTORS, ids=lambda config: config.name)
    def test_parameters_do_not_depend_on_the_resolution(self, config: YoloRetConfig):
        assert graph_cost(build(resized(config, 160))).params == graph_cost(build(resized(config, 608))).params

    @pytest.mark.parametrize("config", DETECTORS, ids=lambda config: config.name)
    def test_peak_memory_grows_with_the_pixels(self, config: YoloRetConfig):
        small, large = (peak_activation_elements(build(resized(config, r))) for r in (320, 640))
        assert 3.99 < large / small <= 4


def resized(config: YoloRetConfig, resolution: int) -> YoloRetConfig:
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return YoloRetConfig(**values | {"resolution": resolution})


def by_map(config: YoloRetConfig, resolution: int) -> dict[str, int]:
    macs = {"map": 0, "vector": 0}
    for layer, cost in layer_costs(build(resized(config, resolution))):
        macs["vector" if layer.shape[1:] == (1, 1) else "map"] += cost.macs
    return macs


def simulated_peak(graph: Graph) -> int:
    """Slow twin: keep a dictionary of living tensors, layer after layer."""
    layers = list(graph.layers())
    outputs = {f"{graph.placements[p].name}.{graph.placements[p].block.nodes[-1].name}" for _, p in graph.outputs}
    alive = {INPUT_NAME: math.prod(graph.input_shape)}
    peak = sum(alive.values())
    for index, layer in enumerate(layers):
        later = outputs.union(*(other.inputs for other in layers[index + 1 :]))
        dead = {name for name in layer.inputs if name not in later}
        alive[layer.name] = math.prod(layer.shape)
        reused = next(iter(dead)) if isinstance(layer.op, BatchNorm | Activation) and dead else None
        peak = max(peak, sum(size for name, size in alive.items() if name != reused))
        for name in dead:
            del alive[name]
    assert set(alive) == outputs
    return peak


class TestPeakMemory:
    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_peak_equals_a_simulation_layer_by_layer(self, graph: Graph):
        assert peak_activation_elements(graph) == simulated_peak(graph)

    def test_peak_of_a_small_network_by_hand(self):
        """The normalisation works in place, so the most is alive while the last convolution runs."""
        graph = GraphBuilder((3, 4, 4))
        block = BlockBuilder("unit", (3, 4, 4))
        value = block.add("conv", Conv(5), 0)
        value = block.add("bn", BatchNorm(), value)
        block.add("point", Conv(7), value)
        x = graph.add("unit", block.build(), graph.input)
        assert peak_activation_elements(graph.build("small", [("out", x)])) == (5 + 7) * 16

    def test_an_input_that_is_read_again_later_stays_in_memory(self):
        def network(read_again: bool) -> Graph:
            graph = GraphBuilder((10, 4, 4))
            x = graph.input
            for i in range(2):
                block = BlockBuilder("unit", (10, 4, 4))
                block.add("conv", Conv(10), 0)
                x = graph.add(f"unit{i}", block.build(), x)
            block = BlockBuilder("sum", (10, 4, 4), (10, 4, 4))
            block.add("add", Add(), 0, 1)
            other = graph.input if read_again else x
            return graph.build("net", [("out", graph.add("sum", block.build(), x, other))])

        assert peak_activation_elements(network(True)) == 3 * 160
        assert peak_activation_elements(network(False)) == simulated_peak(network(False)) == 2 * 160

    def test_outputs_stay_in_memory_to_the_end(self):
        def network(outputs: int) -> Graph:
            graph = GraphBuilder((4, 4, 4))
            x, made = graph.input, []
            for i in range(4):
                block = BlockBuilder("unit", x.shape)
                block.add("conv", Conv(4), 0)
                x = graph.add(f"unit{i}", block.build(), x)
                made.append((f"out{i}", x))
            return graph.build("net", made[-outputs:])

        assert [peak_activation_elements(network(n)) for n in (1, 2, 3, 4)] == [128, 128, 192, 256]

    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_peak_holds_the_largest_input_and_output_of_any_layer(self, graph: Graph):
        needed = max(
            sum(map(math.prod, set(layer.input_shapes))) + math.prod(layer.shape)
            for layer in graph.layers()
            if isinstance(layer.op, Conv | MaxPool)
        )
        assert peak_activation_elements(graph) >= needed


def test_a_block_is_counted_once_and_remembered():
    block = NETWORKS[0].placements[3].block
    assert block_cost(block) is block_cost(block)
