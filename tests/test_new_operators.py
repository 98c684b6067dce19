"""Slices, pixels as channels, flattening, the other activations and shared parameters, from shape to ONNX file."""

import numpy as np
import pytest
from onnx_sessions import run as run_onnx
from torch_reference import run

from scaler.cost import block_costs, graph_cost, layer_costs, stage_costs, total
from scaler.export.onnx_model import to_onnx
from scaler.export.weights import random_weights
from scaler.graph.graph import BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import (
    Activation,
    Conv,
    Flatten,
    Linear,
    MaxPool,
    Padding,
    Slice,
    SpaceToDepth,
    output_shape,
)
from scaler.latency.fusion import ONNX_RUNTIME, TENSORRT, block_kernels
from scaler.models.blocks import conv_block


def one_block(shape, *ops) -> Graph:
    block = BlockBuilder("test", shape)
    value = 0
    for index, op in enumerate(ops):
        value = block.add(f"op{index}", op, value)
    graph = GraphBuilder(shape)
    x = graph.add("only", block.build(), graph.input)
    return graph.build("test", [("out", x)])


def shared_head() -> Graph:
    """Two scales of one picture, read by one convolution and its batch normalisation."""
    graph = GraphBuilder((3, 16, 16))
    unit = {"activation": "relu", "kernel": 3}
    fine = graph.add("fine", conv_block((3, 16, 16), 6, stride=2, **unit), graph.input)
    coarse = graph.add("coarse", conv_block((6, 8, 8), 6, stride=2, **unit), fine)
    first = graph.add("head.fine", conv_block(fine.shape, 5, **unit), fine)
    second = graph.add("head.coarse", conv_block(coarse.shape, 5, **unit), coarse, weights="head.fine")
    return graph.build("shared", [("fine_out", first), ("coarse_out", second)])


@pytest.mark.parametrize(
    ("op", "shape"),
    [(Slice(2, 3), (3, 6, 6)), (SpaceToDepth(2), (32, 3, 3)), (Flatten(), (288, 1, 1))],
)
def test_shapes(op, shape):
    assert output_shape(op, [(8, 6, 6)]) == shape


@pytest.mark.parametrize("op", [Slice(6, 3), Slice(-1, 2), Slice(0, 0), SpaceToDepth(4)])
def test_what_does_not_fit_is_refused(op):
    with pytest.raises(ValueError, match="not"):
        output_shape(op, [(8, 6, 6)])


@pytest.mark.parametrize(
    "ops",
    [
        (Slice(3, 4),),
        (SpaceToDepth(2),),
        (Flatten(), Linear(10)),
        (Conv(4, bias=True), Activation("leaky")),
        (Conv(4, bias=True), Activation("hard_sigmoid")),
        (MaxPool(5, 1, Padding(2, 2, 2, 2)),),
        (MaxPool(3, 2, Padding(0, 0, 1, 1)),),
    ],
    ids=lambda ops: type(ops[0]).__name__ + getattr(ops[-1], "kind", ""),
)
def test_onnx_and_torch_agree(ops):
    graph = one_block((8, 6, 6), *ops)
    picture = np.random.default_rng(3).standard_normal((2, 8, 6, 6), dtype=np.float32)
    weights = random_weights(1)
    expected = run(graph, weights, picture)["out"]
    found = run_onnx(to_onnx(graph, weights=weights, batch=2), picture)["out"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_slice_is_a_copy_and_flattening_is_no_kernel():
    block = one_block((8, 6, 6), Slice(3, 4), SpaceToDepth(2), Flatten(), Linear(5)).placements[0].block
    for rules in (TENSORRT, ONNX_RUNTIME):
        kernels = block_kernels(block, rules)
        assert [kernel.op for kernel in kernels] == ["copy", "copy", "linear"]
        assert kernels[0].moved == 2 * 4 * 36


def test_leaky_relu_is_a_kernel_of_its_own():
    block = one_block((8, 6, 6), Conv(4), Activation("leaky")).placements[0].block
    assert [kernel.op for kernel in block_kernels(block)] == ["conv", "pointwise"]


def test_shared_parameters_count_once_and_work_counts_twice():
    graph = shared_head()
    own = block_costs(graph)
    assert own["head.coarse"].params == own["head.coarse"].folded_params == 0
    assert own["head.coarse"].macs == own["head.fine"].macs // 4 > 0
    assert graph_cost(graph) == total(own.values()) == total(stage_costs(graph).values())
    assert graph_cost(graph) == total(cost for _, cost in layer_costs(graph))
    assert own["head.fine"].trainable_params == 9 * 6 * 5 + 2 * 5


def test_shared_parameters_are_one_array_in_the_file_and_give_torchs_numbers():
    graph, weights = shared_head(), random_weights(7)
    model = to_onnx(graph, weights=weights)
    names = [constant.name for constant in model.graph.initializer]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("head.coarse")]
    picture = np.random.default_rng(3).standard_normal((1, 3, 16, 16), dtype=np.float32)
    expected = run(graph, weights, picture)
    found = run_onnx(model, picture)
    assert list(found) == list(expected)
    for label, wanted in expected.items():
        np.testing.assert_allclose(found[label], wanted, atol=1e-5)


def test_parameters_that_do_not_fit_or_do_not_exist_are_refused():
    graph = GraphBuilder((3, 16, 16))
    first = graph.add("first", conv_block((3, 16, 16), 6, activation="relu"), graph.input)
    block = conv_block(first.shape, 6, activation="relu")
    with pytest.raises(ValueError, match="do not fit"):
        graph.add("second", block, first, weights="first")
    with pytest.raises(ValueError, match="no block 'nowhere'"):
        graph.add("second", block, first, weights="nowhere")
