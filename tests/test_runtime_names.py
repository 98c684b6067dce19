"""From TensorRT's layer names to ONNX nodes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.runtimes.tensorrt_names import Region, attributed, is_reformat, layer_nodes, metadata_nodes, name_parts


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("Conv_0", ("Conv_0",)),
        ("Conv_5 + Add_6 + Relu_7", ("Conv_5", "Add_6", "Relu_7")),
        ("backbone.stem.conv + backbone.stem.act", ("backbone.stem.conv", "backbone.stem.act")),
        ("PWN(Sigmoid_1)", ("Sigmoid_1",)),
        ("PWN(Sigmoid_1, Mul_2)", ("Sigmoid_1", "Mul_2")),
        ("PWN(PWN(Sigmoid_1), Mul_2)", ("Sigmoid_1", "Mul_2")),
        ("PWN(PWN(PWN(a + b), c), d)", ("a", "b", "c", "d")),
        ("Conv_3 + PWN(PWN(Sigmoid_4), Mul_5)", ("Conv_3", "Sigmoid_4", "Mul_5")),
        ("head.a.conv || head.b.conv", ("head.a.conv", "head.b.conv")),
        ("a + b || c + d", ("a", "b", "c", "d")),
        ("{ForeignNode[/m.10/a/Split_16.../m.10/b/Add]}", ("/m.10/a/Split_16", "/m.10/b/Add")),
        ("{ForeignNode[alone]}", ("alone",)),
        ("Reformatting CopyNode for Input Tensor 0 to Conv_3 + Relu_4", ("Conv_3", "Relu_4")),
        ("Reformatting CopyNode for Output Tensor 0 to {ForeignNode[a...b]}", ("a", "b")),
        ("Reformatting CopyNode for Network Output stride8", ("stride8",)),
        ("Conv_0 input reformatter 0", ("Conv_0",)),
        ("Conv_0 + Relu_1 output reformatter 1", ("Conv_0", "Relu_1")),
        ("onnx::Concat_12 copy", ("onnx::Concat_12",)),
        ("Conv_1 [profile 2]", ("Conv_1",)),
        ("__myl_SigmMul_myl0_1", ()),
        ("(Unnamed Layer* 5) [Activation]", ()),
        ("PWN((Unnamed Layer* 5) [Activation], Mul_6)", ("Mul_6",)),
        ("MatMul_3_myl109_2", ("MatMul_3_myl109_2",)),
        ("a + a", ("a",)),
        ("a (x + y) + b", ("a (x + y)", "b")),
        ("unbalanced( + b", ("unbalanced(", "b")),
        ("", ()),
    ],
)
def test_names_lead_to_their_nodes(name: str, nodes: tuple[str, ...]):
    assert layer_nodes(name) == nodes


def test_a_region_keeps_its_ends_together():
    assert name_parts("x + {ForeignNode[a...b]}") == ("x", Region("a", "b"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Reformatting CopyNode for Input Tensor 0 to Conv_3", True),
        ("Conv_0 output reformatter 0", True),
        ("Conv_3", False),
        ("PWN(Reformatting CopyNode)", False),
    ],
)
def test_reformats_are_told_by_their_name(name: str, expected: bool):
    assert is_reformat(name) is expected


@pytest.mark.parametrize("separator", ["\x1e", "\x1f", "", " ", "\n"])
def test_metadata_lists_nodes_whatever_stands_between(separator: str):
    metadata = separator.join(["[ONNX Layer: /m.1/Conv]", "[ONNX Layer: act[0]]", "[ONNX Layer: /m.1/Conv]"])
    assert metadata_nodes(metadata) == ("/m.1/Conv", "act[0]")


def test_empty_metadata_names_nobody():
    assert metadata_nodes("") == ()
    assert metadata_nodes("[SHUFFLE]") == ()


NODES = ("stem.conv", "stem.act", "squeeze", "excite", "gate", "head.conv")


def owners(*layers: tuple[str, str] | str) -> tuple[tuple[str, ...], ...]:
    pairs = [(layer, "") if isinstance(layer, str) else layer for layer in layers]
    return attributed(pairs, NODES, {"stem.out": "stem.act", "stride8": "head.conv"})


def test_names_and_tensors_of_the_model_are_found():
    assert owners("stem.conv + stem.act", "stem.out copy") == (("stem.conv", "stem.act"), ("stem.act",))


def test_what_the_model_does_not_know_is_left_out():
    assert owners("stem.conv.weight + stem.conv", "[trainStation1]", "nobody") == (("stem.conv",), (), ())


def test_what_the_compiler_appends_or_replaces_is_seen_through():
    assert owners("stem_conv_myl0_3", "gate_clone_1", "squeeze_quantize_scale_node") == (
        ("stem.conv",),
        ("gate",),
        ("squeeze",),
    )


def test_metadata_is_better_than_the_name():
    assert owners(("stem.conv", "[ONNX Layer: squeeze]\x1e[ONNX Layer: excite]")) == (("squeeze", "excite"),)


def test_metadata_that_knows_nothing_leaves_it_to_the_name():
    assert owners(("stem.conv", "[ONNX Layer: ONNXTRT_Shape_1]")) == (("stem.conv",),)


def test_a_region_has_the_nodes_between_its_ends_that_nobody_else_has():
    assert owners("stem.conv", "{ForeignNode[stem.act...head.conv]}", "excite") == (
        ("stem.conv",),
        ("stem.act", "squeeze", "gate", "head.conv"),
        ("excite",),
    )


def test_a_region_with_one_known_end_has_that_one():
    assert owners("{ForeignNode[ONNXTRT_x...gate]}") == (("gate",),)
    assert owners("{ForeignNode[x...y]}") == ((),)


def test_chains_may_nest_deeply():
    name = "PWN(" * 3000 + "x" + ")" * 3000
    assert layer_nodes(name) == ("x",)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                "PWN(",
                ")",
                "{ForeignNode[",
                "]}",
                "...",
                " + ",
                " || ",
                ", ",
                "a",
                " copy",
                "[ONNX Layer: ",
                "]",
                "\x1e",
                "(",
            ]
        ),
        max_size=25,
    ).map("".join)
)
def test_no_name_is_too_strange(name: str):
    assert all(isinstance(node, str) for node in layer_nodes(name))
    assert len(attributed([(name, name)], NODES, {})) == 1
    assert isinstance(metadata_nodes(name), tuple)
