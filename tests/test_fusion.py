"""From operators to kernels: what TensorRT fuses, checked by hand, by sums, and by fusing a network as one block."""

from collections import Counter

import pytest

from scaler.cost import graph_cost
from scaler.graph.graph import INPUT_NAME, Block, BlockBuilder, Graph
from scaler.graph.ops import Activation, Add, BatchNorm, Concat, Conv, Gate, GlobalAveragePool, MaxPool, WeightedSum
from scaler.latency.fusion import RULES, FusionRules, block_kernels, graph_kernels, kernel_groups
from scaler.latency.kernels import Kernel
from scaler.models.backbones import efficientnet, mobilenetv2, resnet
from scaler.models.blocks import inverted_residual
from scaler.models.detectors.yolo_ret import YoloRetConfig, build
from scaler.models.necks.light import detection_unit, fusion_block, path_block
from scaler.models.necks.rfcr import collect_block, redistribute_block

DETECTORS = [
    build(config)
    for config in (
        YoloRetConfig(backbone="mobilenetv2", width=0.35, drop=4, neck="none", resolution=160),
        YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True),
        YoloRetConfig(backbone="efficientnet-b0", drop=2, neck="fpn", repeats=2, rfcr=3),
        YoloRetConfig(backbone="efficientnet-b3", drop=3, neck="bifpn", repeats=3, rfcr=7, shortcut=True, classes=80),
    )
]
CLASSIFIERS = [
    mobilenetv2.classifier(1.4),
    efficientnet.classifier("b1"),
    resnet.classifier("18"),
    resnet.classifier("50"),
]
NETWORKS = DETECTORS + CLASSIFIERS


def brief(kernels: tuple[Kernel, ...] | list[Kernel]) -> list[str]:
    """`op window/stride c_in>c_out side activation inputs`, short enough to check by eye."""
    return [
        f"{k.op} {k.kernel}/{k.stride} {k.c_in}>{k.c_out} {k.h_in}>{k.h_out} {k.activation} {k.inputs}" for k in kernels
    ]


def flattened(graph: Graph) -> Block:
    """The whole network as one block."""
    block = BlockBuilder("whole network", graph.input_shape)
    values = {INPUT_NAME: 0}
    for layer in graph.layers():
        values[layer.name] = block.add(layer.name, layer.op, *(values[name] for name in layer.inputs))
    return block.build()


class TestSums:
    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_kernels_have_the_macs_of_the_network(self, graph: Graph):
        assert sum(kernel.macs for kernel in graph_kernels(graph)) == graph_cost(graph).macs

    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_kernels_have_the_folded_parameters_and_a_bias_each(self, graph: Graph):
        """Free scalars fold into their kernel; a bare convolution is counted with a bias of zeros."""
        layers = list(graph.layers())
        normalised = {layer.inputs[0] for layer in layers if isinstance(layer.op, BatchNorm)}
        bare = [x for x in layers if isinstance(x.op, Conv) and not x.op.bias and x.name not in normalised]
        scalars = sum(len(layer.inputs) for layer in layers if isinstance(layer.op, WeightedSum))
        expected = graph_cost(graph).folded_params - scalars + sum(layer.shape[0] for layer in bare)
        assert sum(kernel.weights for kernel in graph_kernels(graph)) == expected

    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_every_convolution_is_one_kernel_with_its_shapes(self, graph: Graph):
        layers = Counter(
            (x.op.kernel, x.op.stride, x.op.groups, *x.input_shapes[0], *x.shape)
            for x in graph.layers()
            if isinstance(x.op, Conv)
        )
        kernels = Counter(
            (k.kernel, k.stride, k.groups, k.c_in, k.h_in, k.w_in, k.c_out, k.h_out, k.w_out)
            for k in graph_kernels(graph)
            if k.op in ("conv", "depthwise")
        )
        assert kernels == layers

    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_every_activation_runs_once(self, graph: Graph):
        layers = Counter(x.op.kind for x in graph.layers() if isinstance(x.op, Activation))
        labels = [label for k in graph_kernels(graph) for label in k.activation.split("+")]
        kernels = Counter(label for label in labels if label not in ("none", "add", "mul"))
        assert kernels == layers

    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_every_addition_runs_once(self, graph: Graph):
        additions = sum(isinstance(x.op, Add | WeightedSum) for x in graph.layers())
        fused = sum(k.op == "conv" and k.inputs == 2 for k in graph_kernels(graph))
        separate = sum(k.activation.split("+").count("add") for k in graph_kernels(graph))
        assert fused + separate == additions

    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_a_depthwise_kernel_is_one_whose_groups_are_its_channels(self, graph: Graph):
        grouped = {k.op for k in graph_kernels(graph) if k.groups > 1}
        assert grouped <= {"depthwise"}
        assert all(k.groups == k.c_in == k.c_out for k in graph_kernels(graph) if k.op == "depthwise")


class TestByHand:
    def test_an_inverted_residual_is_three_kernels_with_relu6_and_residual_fused(self):
        assert brief(block_kernels(inverted_residual((24, 80, 80), 24, expansion=6))) == [
            "conv 1/1 24>144 80>80 relu6 1",
            "depthwise 3/1 144>144 80>80 relu6 1",
            "conv 1/1 144>24 80>80 none 2",
        ]

    def test_without_residual_the_projection_reads_one_map(self):
        assert brief(block_kernels(inverted_residual((24, 80, 80), 32, expansion=6, stride=2))) == [
            "conv 1/1 24>144 80>80 relu6 1",
            "depthwise 3/2 144>144 80>40 relu6 1",
            "conv 1/1 144>32 40>40 none 1",
        ]

    def test_an_mbconv_runs_swish_apart_and_merges_sigmoid_with_the_gate(self):
        block = inverted_residual((40, 20, 20), 40, expansion=6, kernel=5, activation="swish", se_channels=10)
        assert brief(block_kernels(block)) == [
            "conv 1/1 40>240 20>20 none 1",
            "pointwise 1/1 240>240 20>20 swish 1",
            "depthwise 5/1 240>240 20>20 none 1",
            "pointwise 1/1 240>240 20>20 swish 1",
            "reduce 20/1 240>240 20>1 none 1",
            "conv 1/1 240>10 1>1 none 1",
            "pointwise 1/1 10>10 1>1 swish 1",
            "conv 1/1 10>240 1>1 none 1",
            "pointwise 1/1 240>240 20>20 sigmoid+mul 1",
            "conv 1/1 240>40 20>20 none 2",
        ]

    def test_a_detection_unit(self):
        assert brief(block_kernels(detection_unit((120, 10, 10), 512, 75))) == [
            "conv 1/1 120>512 10>10 relu6 1",
            "depthwise 3/1 512>512 10>10 none 1",
            "pointwise 1/1 512>512 10>10 swish 1",
            "reduce 10/1 512>512 10>1 none 1",
            "conv 1/1 512>128 1>1 none 1",
            "pointwise 1/1 128>128 1>1 swish 1",
            "conv 1/1 128>512 1>1 none 1",
            "pointwise 1/1 512>512 10>10 sigmoid+mul 1",
            "conv 1/1 512>75 10>10 none 1",
        ]

    def test_a_concat_copies_only_what_another_block_made(self):
        assert brief(block_kernels(path_block((75, 10, 10), (72, 20, 20), 256))) == [
            "conv 1/1 75>256 10>10 relu6 1",
            "resize 1/1 256>256 10>20 none 1",
            "copy 1/1 72>72 20>20 none 1",
        ]

    def test_redistribution_copies_the_raw_map_and_writes_the_resized_one_in_place(self):
        assert brief(block_kernels(redistribute_block((24, 40, 40), (96, 20, 20)))) == [
            "resize 1/1 96>96 20>40 none 1",
            "copy 1/1 24>24 40>40 none 1",
        ]

    def test_redistribution_without_resize_copies_both_maps(self):
        assert brief(block_kernels(redistribute_block((72, 20, 20), (96, 20, 20)))) == [
            "copy 1/1 72>72 20>20 none 1",
            "copy 1/1 96>96 20>20 none 1",
        ]

    def test_rfcr(self):
        block = collect_block(((120, 10, 10), (72, 20, 20), (24, 40, 40), (24, 80, 80)), 20, 5)
        assert brief(block_kernels(block)) == [
            "conv 1/1 120>48 10>10 none 1",
            "resize 1/1 48>48 10>20 none 1",
            "conv 1/1 72>48 20>20 none 1",
            "conv 1/1 24>48 40>40 none 1",
            "pool 2/2 48>48 40>20 none 1",
            "pool 4/4 24>24 80>20 none 1",
            "conv 1/1 24>48 20>20 none 1",
            "pointwise 1/1 48>48 20>20 add 4",
            "depthwise 5/1 48>48 20>20 relu6 1",
            "conv 1/1 48>96 20>20 relu6 1",
        ]

    def test_a_bifpn_sum_is_one_kernel_that_reads_every_map(self):
        assert brief(block_kernels(fusion_block((64, 20, 20), (64, 10, 10), (64, 40, 40)))) == [
            "resize 1/1 64>64 10>20 none 1",
            "pool 2/2 64>64 40>20 none 1",
            "pointwise 1/1 64>64 20>20 add 3",
        ]

    def test_a_bottleneck_adds_in_its_last_convolution_and_nowhere_else(self):
        plain = resnet.residual_block((256, 56, 56), 64, 1, bottleneck=True)
        assert brief(block_kernels(plain)) == [
            "conv 1/1 256>64 56>56 relu 1",
            "conv 3/1 64>64 56>56 relu 1",
            "conv 1/1 64>256 56>56 relu 2",
        ]

    def test_where_both_sides_of_an_addition_are_convolutions_the_later_one_takes_it(self):
        strided = resnet.residual_block((256, 56, 56), 128, 2, bottleneck=True)
        assert brief(block_kernels(strided)) == [
            "conv 1/1 256>128 56>56 relu 1",
            "conv 3/2 128>128 56>28 relu 1",
            "conv 1/1 128>512 28>28 none 1",
            "conv 1/2 256>512 56>28 relu 2",
        ]

    def test_the_stem_of_a_resnet_pools_in_a_kernel_of_its_own(self):
        assert brief(block_kernels(resnet.stem_block((3, 224, 224)))) == [
            "conv 7/2 3>64 224>112 relu 1",
            "pool 3/2 64>64 112>56 none 1",
        ]

    def test_a_classifier_ends_in_a_reduction_and_a_fully_connected_kernel(self):
        assert brief(graph_kernels(mobilenetv2.classifier(0.5))[-2:]) == [
            "reduce 7/1 1280>1280 7>1 none 1",
            "linear 1/1 1280>1000 1>1 none 1",
        ]


class TestRules:
    def test_a_convolution_that_is_read_twice_keeps_its_activation_apart(self):
        block = BlockBuilder("unit", (8, 4, 4))
        value = block.add("conv", Conv(8), 0)
        active = block.add("relu", Activation("relu"), value)
        block.add("sum", Add(), value, active)
        assert brief(block_kernels(block.build())) == [
            "conv 1/1 8>8 4>4 none 1",
            "pointwise 1/1 8>8 4>4 relu+add 2",
        ]

    def test_an_addition_and_the_activation_behind_it_are_one_kernel(self):
        block = BlockBuilder("unit", (8, 4, 4), (8, 4, 4))
        value = block.add("sum", Add(), 0, 1)
        block.add("swish", Activation("swish"), value)
        assert brief(block_kernels(block.build())) == ["pointwise 1/1 8>8 4>4 add+swish 2"]

    def test_swish_behind_a_fused_addition_is_a_kernel_of_its_own(self):
        block = BlockBuilder("unit", (8, 4, 4))
        value = block.add("conv", Conv(8), 0)
        value = block.add("sum", Add(), 0, value)
        block.add("swish", Activation("swish"), value)
        assert brief(block_kernels(block.build())) == ["conv 1/1 8>8 4>4 none 2", "pointwise 1/1 8>8 4>4 swish 1"]

    def test_a_normalisation_without_convolution_is_a_kernel(self):
        block = BlockBuilder("unit", (8, 4, 4))
        block.add("bn", BatchNorm(), 0)
        assert brief(block_kernels(block.build())) == ["pointwise 1/1 8>8 4>4 bn 1"]

    def test_a_gate_reads_its_vector_for_nothing_but_its_map(self):
        block = BlockBuilder("unit", (8, 4, 4))
        gate = block.add("pool", GlobalAveragePool(), 0)
        block.add("gate", Gate(), 0, gate)
        reduce, gating = block_kernels(block.build())
        assert (reduce.op, gating.activation, gating.inputs, gating.moved) == ("reduce", "mul", 1, 2 * 8 * 16)

    def test_a_concat_of_what_the_block_made_costs_nothing(self):
        block = BlockBuilder("unit", (8, 4, 4))
        parts = [block.add(f"conv{i}", Conv(8), 0) for i in range(2)]
        block.add("concat", Concat(), *parts)
        assert [kernel.op for kernel in block_kernels(block.build())] == ["conv", "conv"]

    def test_kernels_of_a_block_are_computed_once(self):
        block = DETECTORS[0].placements[2].block
        assert block_kernels(block) is block_kernels(block)


def groups(block: Block) -> list[tuple[str, list[str]]]:
    """Kind of kernel and names of the nodes that it computes."""
    return [(kernel.op, [block.nodes[index].name for index in nodes]) for kernel, nodes in kernel_groups(block)]


class TestGroups:
    @pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
    @pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
    def test_every_node_belongs_to_one_kernel_but_for_concatenations_in_place(self, graph: Graph, rules: FusionRules):
        for block in {placement.block for placement in graph.placements}:
            taken = Counter(index for _, nodes in kernel_groups(block, rules) for index in nodes)
            assert set(taken.values()) <= {1}
            left = [node for index, node in enumerate(block.nodes) if index not in taken]
            assert all(isinstance(node.op, Concat) and rules is RULES["tensorrt"] for node in left)
            assert all(value >= len(block.input_shapes) for node in left for value in node.inputs)

    @pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
    def test_only_further_copies_of_a_concatenation_compute_no_node(self, rules: FusionRules):
        for block in {placement.block for graph in NETWORKS for placement in graph.placements}:
            empty = [kernel.op for kernel, nodes in kernel_groups(block, rules) if not nodes]
            assert set(empty) <= ({"copy"} if rules is RULES["tensorrt"] else set())

    def test_the_kernels_are_those_of_the_block_in_its_order(self):
        for placement in DETECTORS[3].placements:
            assert tuple(kernel for kernel, _ in kernel_groups(placement.block)) == block_kernels(placement.block)

    def test_a_residual_is_computed_by_the_convolution_before_it(self):
        assert groups(inverted_residual((24, 80, 80), 24, expansion=6)) == [
            ("conv", ["expand.conv", "expand.bn", "expand.relu6"]),
            ("depthwise", ["depthwise.conv", "depthwise.bn", "depthwise.relu6"]),
            ("conv", ["project.conv", "project.bn", "residual"]),
        ]

    def test_a_sigmoid_is_computed_with_the_gate_behind_it(self):
        assert groups(detection_unit((120, 10, 10), 512, 75)) == [
            ("conv", ["expand.conv", "expand.bn", "expand.relu6"]),
            ("depthwise", ["depthwise.conv", "depthwise.bn"]),
            ("pointwise", ["depthwise.swish"]),
            ("reduce", ["se.squeeze"]),
            ("conv", ["se.reduce"]),
            ("pointwise", ["se.swish"]),
            ("conv", ["se.expand"]),
            ("pointwise", ["se.sigmoid", "se.gate"]),
            ("conv", ["project.conv", "project.bn"]),
        ]

    def test_a_concatenation_belongs_to_its_first_copy(self):
        assert groups(redistribute_block((72, 20, 20), (96, 20, 20))) == [("copy", ["concat"]), ("copy", [])]
        assert groups(path_block((75, 10, 10), (72, 20, 20), 256))[-1] == ("copy", ["concat"])

    def test_a_concatenation_in_place_belongs_to_no_kernel(self):
        block = BlockBuilder("unit", (8, 4, 4))
        block.add("concat", Concat(), *[block.add(f"conv{i}", Conv(8), 0) for i in range(2)])
        assert groups(block.build()) == [("conv", ["conv0"]), ("conv", ["conv1"])]


class TestKernel:
    def test_numbers_of_a_convolution_with_a_fused_residual(self):
        kernel = Kernel("conv", 1, 1, 1, 144, 24, 80, 80, 80, 80, "none", 2)
        assert (kernel.weights, kernel.macs, kernel.outputs) == (144 * 24 + 24, 144 * 24 * 6400, 24 * 6400)
        assert kernel.moved == 144 * 6400 + 144 * 24 + 24 + 2 * 24 * 6400

    def test_numbers_of_a_strided_depthwise_convolution(self):
        kernel = Kernel("depthwise", 5, 2, 48, 48, 48, 40, 40, 20, 20, "relu6", 1)
        assert (kernel.weights, kernel.macs) == (25 * 48 + 48, 25 * 48 * 400)
        assert kernel.moved == 48 * 1600 + 25 * 48 + 48 + 48 * 400

    def test_numbers_of_kernels_without_weights(self):
        pool = Kernel("pool", 2, 2, 1, 48, 48, 40, 40, 20, 20, "none", 1)
        addition = Kernel("pointwise", 1, 1, 1, 48, 48, 20, 20, 20, 20, "add", 4)
        assert (pool.weights, pool.macs, pool.moved) == (0, 0, 48 * 2000)
        assert (addition.weights, addition.macs, addition.moved) == (0, 0, 5 * 48 * 400)


@pytest.mark.parametrize("graph", NETWORKS, ids=lambda graph: graph.name)
def test_fusing_block_by_block_equals_fusing_the_whole_network_at_once(graph: Graph):
    """Nothing is lost at the borders of blocks.

    Copies are compared apart: within one block every input of a concatenation is written in place, while block by
    block what another block made is copied (it has other readers and cannot lie in several joint buffers).
    """
    whole = Counter(block_kernels(flattened(graph)))
    parts = Counter(graph_kernels(graph))
    copies = Counter({kernel: n for kernel, n in parts.items() if kernel.op == "copy"})
    assert parts - copies == whole
    concats = [layer for layer in graph.layers() if isinstance(layer.op, Concat)]
    assert len(concats) <= copies.total() <= sum(len(layer.inputs) for layer in concats)


def test_pooling_windows_are_kept_in_the_key():
    block = BlockBuilder("unit", (8, 8, 8))
    block.add("pool", MaxPool(4, 4), 0)
    assert brief(block_kernels(block.build())) == ["pool 4/4 8>8 8>2 none 1"]
