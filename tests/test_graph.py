"""Operators, builders and graphs: shapes by rule, names once, order kept, nothing to change afterwards."""

from dataclasses import FrozenInstanceError, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.errors import UnsupportedError
from scaler.graph.graph import INPUT_NAME, BlockBuilder, Graph, GraphBuilder, Placement, Tensor
from scaler.graph.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Gate,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Op,
    Padding,
    Shape,
    Upsample,
    WeightedSum,
    elements,
    output_shape,
    pad_for,
)
from scaler.models.backbones import efficientnet, mobilenetv2, resnet
from scaler.models.blocks import conv_block
from scaler.models.detectors.yolo_ret import BACKBONES, YoloRetConfig, build, max_drop, published_drop, trunk

ODD_KERNELS = st.sampled_from([1, 3, 5, 7])
CONFIGS = [
    YoloRetConfig(backbone="mobilenetv2", width=0.35, neck="none"),
    YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True),
    YoloRetConfig(backbone="efficientnet-b0", drop=5, neck="fpn", repeats=2, rfcr=3),
    YoloRetConfig(backbone="efficientnet-b3", drop=3, neck="bifpn", repeats=3, rfcr=7, shortcut=True, resolution=416),
]
GRAPHS = [build(config) for config in CONFIGS] + [
    resnet.classifier("50"),
    mobilenetv2.classifier(1.4),
    efficientnet.classifier("b1", 224),
]


def positions(size: int, kernel: int, stride: int, before: int, after: int) -> int:
    """Where a window starts, counted one by one."""
    return len(range(0, size + before + after - kernel + 1, stride))


class TestPadding:
    @given(st.integers(7, 700), ODD_KERNELS, st.integers(1, 4), st.sampled_from(["same", "symmetric"]))
    @settings(derandomize=True)
    def test_both_conventions_make_the_output_the_size_over_the_stride_rounded_up(self, size, kernel, stride, style):
        pad = pad_for(style, size, kernel, stride)
        assert positions(size, kernel, stride, pad.top, pad.bottom) == -(-size // stride)
        assert positions(size, kernel, stride, pad.left, pad.right) == -(-size // stride)

    @pytest.mark.parametrize(
        ("size", "kernel", "stride", "same"),
        [
            (224, 3, 2, (0, 0, 1, 1)),
            (225, 3, 2, (1, 1, 1, 1)),
            (224, 5, 2, (1, 1, 2, 2)),
            (225, 5, 2, (2, 2, 2, 2)),
            (224, 7, 2, (2, 2, 3, 3)),
            (224, 3, 1, (1, 1, 1, 1)),
            (225, 5, 1, (2, 2, 2, 2)),
            (224, 1, 2, (0, 0, 0, 0)),
        ],
    )
    def test_same_puts_the_surplus_at_the_bottom_and_right_as_tensorflow_does(self, size, kernel, stride, same):
        assert pad_for("same", size, kernel, stride) == same

    @pytest.mark.parametrize("size", [224, 225])
    @pytest.mark.parametrize("stride", [1, 2])
    def test_symmetric_padding_does_not_depend_on_the_size(self, size, stride):
        assert pad_for("symmetric", size, 5, stride) == (2, 2, 2, 2)

    def test_the_conventions_differ_for_even_maps_at_stride_2_only(self):
        differ = {
            (size % 2, stride)
            for size in range(20, 60)
            for stride in (1, 2)
            for kernel in (3, 5, 7)
            if pad_for("same", size, kernel, stride) != pad_for("symmetric", size, kernel, stride)
        }
        assert differ == {(0, 2)}

    def test_a_backbone_is_built_in_either_convention_with_equal_shapes(self):
        same, symmetric = (mobilenetv2.trunk(0.5, 320, padding) for padding in ("same", "symmetric"))
        assert [p.block.shape for p in same.placements] == [p.block.shape for p in symmetric.placements]
        assert same.placements[0].block is not symmetric.placements[0].block


class TestOperators:
    @pytest.mark.parametrize(
        ("op", "inputs", "expected"),
        [
            (Conv(8), [(3, 10, 12)], (8, 10, 12)),
            (Conv(8, kernel=3), [(3, 10, 12)], (8, 8, 10)),
            (Conv(8, kernel=3, stride=2, padding=Padding(0, 0, 1, 1)), [(3, 10, 11)], (8, 5, 5)),
            (Conv(8, kernel=3, stride=2, padding=Padding(1, 1, 1, 1)), [(3, 11, 11)], (8, 6, 6)),
            (Conv(6, kernel=5, groups=6, padding=Padding(2, 2, 2, 2)), [(6, 7, 9)], (6, 7, 9)),
            (MaxPool(2, 2), [(4, 8, 6)], (4, 4, 3)),
            (MaxPool(4, 4), [(4, 80, 80)], (4, 20, 20)),
            (MaxPool(3, 2, Padding(1, 1, 1, 1)), [(64, 112, 112)], (64, 56, 56)),
            (BatchNorm(), [(4, 8, 6)], (4, 8, 6)),
            (Activation("swish"), [(4, 8, 6)], (4, 8, 6)),
            (Add(), [(4, 8, 6), (4, 8, 6)], (4, 8, 6)),
            (WeightedSum(), [(4, 8, 6)] * 4, (4, 8, 6)),
            (Gate(), [(4, 8, 6), (4, 1, 1)], (4, 8, 6)),
            (Concat(), [(4, 8, 6), (5, 8, 6), (1, 8, 6)], (10, 8, 6)),
            (GlobalAveragePool(), [(4, 8, 6)], (4, 1, 1)),
            (Upsample(2), [(4, 8, 6)], (4, 16, 12)),
            (Upsample(4), [(4, 8, 6)], (4, 32, 24)),
            (Linear(10), [(4, 1, 1)], (10, 1, 1)),
        ],
        ids=lambda value: type(value).__name__ if not isinstance(value, list | tuple) else "",
    )
    def test_every_operator_shapes_its_output_by_its_rule(self, op: Op, inputs: list[Shape], expected: Shape):
        assert output_shape(op, inputs) == expected

    @given(st.integers(8, 90), st.integers(8, 90), ODD_KERNELS, st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))
    @settings(derandomize=True)
    def test_a_window_is_counted_for_height_and_width_apart(self, height, width, kernel, stride, before, after):
        padding = Padding(before, after, after, before)
        rows = positions(height, kernel, stride, before, after)
        columns = positions(width, kernel, stride, after, before)
        assert output_shape(Conv(5, kernel, stride, padding=padding), [(3, height, width)]) == (5, rows, columns)
        assert output_shape(MaxPool(kernel, stride, padding), [(3, height, width)]) == (3, rows, columns)

    @pytest.mark.parametrize(
        ("op", "inputs"),
        [
            (Conv(8, groups=3), [(4, 8, 8)]),
            (Conv(8, groups=3), [(6, 8, 8)]),
            (Conv(8, kernel=9), [(4, 8, 8)]),
            (MaxPool(4, 4), [(4, 8, 3)]),
            (Add(), [(4, 8, 8), (5, 8, 8)]),
            (WeightedSum(), [(4, 8, 8), (4, 8, 8), (4, 8, 7)]),
            (Gate(), [(4, 8, 8), (5, 1, 1)]),
            (Gate(), [(4, 8, 8), (4, 8, 8)]),
            (Concat(), [(4, 8, 8), (4, 8, 7)]),
            (Linear(10), [(4, 2, 1)]),
        ],
        ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
    )
    def test_shapes_that_do_not_fit_are_refused(self, op: Op, inputs: list[Shape]):
        with pytest.raises(ValueError, match=r"\d"):
            output_shape(op, inputs)

    def test_elements_are_channels_times_height_times_width(self):
        assert elements((3, 5, 7)) == 105


class TestBuilders:
    def test_a_block_refuses_a_node_name_twice(self):
        block = BlockBuilder("unit", (3, 8, 8))
        value = block.add("conv", Conv(4), 0)
        with pytest.raises(ValueError, match=r"'unit'.*'conv'"):
            block.add("conv", Conv(4), value)

    def test_a_block_refuses_shapes_that_do_not_fit(self):
        block = BlockBuilder("unit", (3, 8, 8))
        value = block.add("conv", Conv(4), 0)
        with pytest.raises(ValueError, match="unequal shapes"):
            block.add("sum", Add(), 0, value)

    def test_a_refused_node_leaves_the_block_as_it_was(self):
        block = BlockBuilder("unit", (3, 8, 8))
        value = block.add("conv", Conv(4), 0)
        with pytest.raises(ValueError, match="unequal shapes"):
            block.add("sum", Add(), 0, value)
        block.add("sum", Add(), value, value)
        assert [node.name for node in block.build().nodes] == ["conv", "sum"]

    def test_a_graph_refuses_a_tensor_of_another_shape_than_the_block_was_built_for(self):
        graph = GraphBuilder((3, 32, 32))
        with pytest.raises(ValueError, match=r"stem: block built for \(\(3, 64, 64\),\), given \(\(3, 32, 32\),\)"):
            graph.add("stem", conv_block((3, 64, 64), 8, activation=None), graph.input)

    def test_a_graph_refuses_another_number_of_tensors(self):
        graph = GraphBuilder((3, 32, 32))
        with pytest.raises(ValueError, match="block built for"):
            graph.add("stem", conv_block((3, 32, 32), 8, activation=None), graph.input, graph.input)

    def test_a_graph_refuses_a_block_name_twice(self):
        graph = GraphBuilder((3, 32, 32))
        block = conv_block((3, 32, 32), 3, activation=None)
        x = graph.add("stem", block, graph.input)
        with pytest.raises(ValueError, match="two blocks are called 'stem'"):
            graph.add("stem", block, x)

    def test_a_graph_that_starts_from_placed_blocks_knows_their_names(self):
        body = mobilenetv2.trunk(0.5, 160)
        graph = GraphBuilder(body.input_shape, body.placements)
        with pytest.raises(ValueError, match=r"two blocks are called 'backbone\.stem'"):
            graph.add("backbone.stem", body.placements[0].block, graph.input)

    def test_a_builder_does_not_change_the_graph_that_it_started_from(self):
        body = mobilenetv2.trunk(0.5, 160)
        before = body.placements
        graph = GraphBuilder(body.input_shape, body.placements)
        x = Tensor(len(before) - 1, before[-1].block.shape)
        graph.add("more", conv_block(x.shape, 8, activation=None), x)
        assert body.placements is before
        assert mobilenetv2.trunk(0.5, 160) is body


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.name)
class TestLayers:
    def test_names_are_unique(self, graph: Graph):
        names = [layer.name for layer in graph.layers()]
        assert len(set(names)) == len(names) == sum(len(p.block.nodes) for p in graph.placements)

    def test_every_input_is_the_picture_or_an_earlier_layer_with_the_shape_that_is_stated(self, graph: Graph):
        made = {INPUT_NAME: graph.input_shape}
        for layer in graph.layers():
            assert layer.input_shapes == tuple(made[name] for name in layer.inputs)
            made[layer.name] = layer.shape

    def test_every_shape_follows_from_the_operator_and_its_inputs(self, graph: Graph):
        assert all(output_shape(layer.op, layer.input_shapes) == layer.shape for layer in graph.layers())

    def test_every_layer_is_read_or_is_an_output(self, graph: Graph):
        read = {name for layer in graph.layers() for name in layer.inputs}
        ends = {f"{graph.placements[p].name}.{graph.placements[p].block.nodes[-1].name}" for _, p in graph.outputs}
        assert {layer.name for layer in graph.layers()} - read == ends

    def test_names_are_the_placements_name_and_the_nodes_name(self, graph: Graph):
        expected = [f"{p.name}.{node.name}" for p in graph.placements for node in p.block.nodes]
        assert [layer.name for layer in graph.layers()] == expected


class TestSharing:
    def test_equal_arguments_give_the_same_block_object(self):
        first, second = (build(replace(CONFIGS[1])) for _ in range(2))
        assert all(a.block is b.block for a, b in zip(first.placements, second.placements, strict=True))

    def test_repeated_blocks_of_one_network_are_one_object(self):
        blocks = {p.name: p.block for p in mobilenetv2.trunk(1.0, 320).placements}
        assert blocks["backbone.stage4.block1"] is blocks["backbone.stage4.block3"]
        assert blocks["backbone.stage4.block0"] is not blocks["backbone.stage4.block1"]

    def test_candidates_that_differ_in_the_neck_share_the_backbones_blocks(self):
        with_fpn, with_panet = (build(replace(CONFIGS[1], neck=neck)) for neck in ("fpn", "panet"))
        pairs = zip(with_fpn.placements, with_panet.placements, strict=False)
        shared = [a.block is b.block for a, b in pairs if a.name.startswith("backbone")]
        assert len(shared) == 17
        assert all(shared)

    def test_another_resolution_shares_nothing(self):
        small, large = (build(replace(CONFIGS[1], resolution=size)) for size in (320, 352))
        assert {p.block for p in small.placements}.isdisjoint(p.block for p in large.placements)


class TestImmutability:
    @pytest.mark.parametrize(
        ("thing", "field"),
        [
            (GRAPHS[0], "name"),
            (GRAPHS[0], "placements"),
            (GRAPHS[0].placements[0].block, "nodes"),
            (Conv(8), "stride"),
            (CONFIGS[0], "width"),
        ],
        ids=lambda value: value if isinstance(value, str) else type(value).__name__,
    )
    def test_a_field_cannot_be_set(self, thing: object, field: str):
        with pytest.raises(FrozenInstanceError):
            setattr(thing, field, getattr(thing, field))

    @pytest.mark.parametrize("thing", [GRAPHS[0].placements[0], GRAPHS[0].placements[0].block.nodes[0]])
    def test_a_placement_and_a_node_are_tuples(self, thing: Placement):
        with pytest.raises(AttributeError):
            thing.name = "other"

    def test_the_lists_of_a_graph_are_tuples(self):
        graph = GRAPHS[1]
        block = graph.placements[0].block
        assert [type(x) for x in (graph.placements, graph.outputs, block.nodes, block.input_shapes)] == [tuple] * 4

    def test_the_taps_of_a_shared_backbone_cannot_be_set(self):
        _, taps = mobilenetv2.trunk(0.75, 320).truncated(2)
        with pytest.raises(TypeError):
            taps[32] = taps[16]


PUBLISHED_TAPS = {
    ("mobilenetv2", 0.5): (80, 48, 16, 16),
    ("mobilenetv2", 0.75): (120, 72, 24, 24),
    ("mobilenetv2", 1.0): (160, 96, 32, 24),
    ("mobilenetv2", 1.4): (224, 136, 48, 32),
    ("efficientnet-b0", 1.0): (192, 112, 40, 24),
    ("efficientnet-b1", 1.0): (192, 112, 40, 24),
    ("efficientnet-b2", 1.0): (208, 120, 48, 24),
    ("efficientnet-b3", 1.0): (232, 136, 48, 32),
}
"""F5, F4, F3, F2 channels of the paper's cut: reference/yoloret_architecture.md, sections 1.1 and 1.2."""
COMPLETE = {**dict.fromkeys([("mobilenetv2", w) for w in (0.5, 0.75, 1.0)], 1280), ("mobilenetv2", 1.4): 1792} | {
    (f"efficientnet-b{i}", 1.0): channels for i, channels in enumerate((1280, 1280, 1408, 1536))
}
LAST_BLOCKS = {"mobilenetv2": 4, **dict(zip(BACKBONES[1:], (5, 7, 7, 8), strict=True))}
"""Blocks of stride 32, the head convolution among them, less one."""
ALL_DROPS = [(backbone, drop) for backbone in BACKBONES for drop in range(LAST_BLOCKS[backbone] + 1)]


class TestTruncation:
    @pytest.mark.parametrize(("body", "channels"), PUBLISHED_TAPS.items(), ids=lambda v: "-".join(map(str, v)))
    def test_the_published_cut_taps_the_published_channels(self, body, channels):
        _, taps = trunk(*body, 320).truncated(published_drop(body[0]))
        assert tuple(taps[stride].shape for stride in (32, 16, 8, 4)) == tuple(
            (c, 320 // stride, 320 // stride) for c, stride in zip(channels, (32, 16, 8, 4), strict=True)
        )
        assert set(taps) == {4, 8, 16, 32}

    @pytest.mark.parametrize(("body", "channels"), COMPLETE.items(), ids=str)
    def test_the_complete_backbone_taps_its_head_convolution(self, body, channels):
        kept, taps = trunk(*body, 320).truncated(0)
        assert taps[32].shape == (channels, 10, 10)
        assert kept[taps[32].producer].name == "backbone.head"

    @pytest.mark.parametrize(
        ("backbone", "drop", "last"),
        [
            ("mobilenetv2", 1, "stage7.block0"),
            ("mobilenetv2", 2, "stage6.block2"),
            ("efficientnet-b0", 2, "stage6.block3"),
            ("efficientnet-b1", 3, "stage6.block4"),
            ("efficientnet-b2", 3, "stage6.block4"),
            ("efficientnet-b3", 3, "stage6.block5"),
            ("efficientnet-b3", 4, "stage6.block4"),
        ],
    )
    def test_a_cut_ends_behind_the_block_that_the_released_code_taps(self, backbone, drop, last):
        kept, _ = trunk(backbone, 1.0, 320).truncated(drop)
        assert kept[-1].name == f"backbone.{last}"

    @pytest.mark.parametrize(("backbone", "drop"), ALL_DROPS)
    def test_every_drop_leaves_so_many_blocks_and_taps_the_last_of_each_stride(self, backbone, drop):
        body = trunk(backbone, 1.0, 320)
        kept, taps = body.truncated(drop)
        assert kept == body.placements[: len(body.placements) - drop]
        last = {320 // placement.block.shape[1]: index for index, placement in enumerate(kept)}
        assert {stride: tap.producer for stride, tap in taps.items()} == {s: last[s] for s in (4, 8, 16, 32)}
        assert all(tap.shape == kept[tap.producer].block.shape for tap in taps.values())
        assert taps[32].producer == len(kept) - 1

    @pytest.mark.parametrize(("backbone", "drop"), ALL_DROPS)
    def test_every_drop_builds_a_detector(self, backbone, drop):
        graph = build(YoloRetConfig(backbone=backbone, drop=drop, rfcr=5, shortcut=True, resolution=160))
        assert [shape_of(graph, name)[1] for name in ("stride32", "stride16", "stride8")] == [5, 10, 20]

    @pytest.mark.parametrize(("backbone", "last"), LAST_BLOCKS.items())
    def test_one_past_the_last_drop_is_refused_with_the_allowed_range(self, backbone, last):
        assert max_drop(backbone) == last
        with pytest.raises(UnsupportedError, match=rf"^drop = {last + 1}: {backbone} allows 0 to {last}, "):
            YoloRetConfig(backbone=backbone, drop=last + 1)
        with pytest.raises(UnsupportedError, match=rf"cannot drop {last + 1} .* 0 to {last},"):
            trunk(backbone, 1.0, 320).truncated(last + 1)

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_a_negative_drop_is_refused(self, backbone):
        with pytest.raises(UnsupportedError, match="allows 0 to"):
            YoloRetConfig(backbone=backbone, drop=-1)
        with pytest.raises(UnsupportedError, match="allowed are 0 to"):
            trunk(backbone, 1.0, 320).truncated(-1)

    @pytest.mark.parametrize("width", [0.35, 0.5, 1.4])
    def test_how_much_can_be_dropped_does_not_depend_on_the_width(self, width):
        assert trunk("mobilenetv2", width, 320).max_drop == max_drop("mobilenetv2")


def shape_of(graph: Graph, output: str) -> Shape:
    return graph.placements[dict(graph.outputs)[output]].block.shape
