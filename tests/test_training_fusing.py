"""Batch normalisation folded into convolutions: the same numbers, wherever it is folded and where it is not."""

import pytest
from unit_graphs import chained, joined, unit_graph

from scaler.export.weights import random_weights
from scaler.graph.graph import BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import Activation, Add, BatchNorm, Concat, Conv, MaxPool, Padding
from scaler.models.blocks import conv_block
from scaler.models.detectors.families import FAMILIES

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import nn  # noqa: E402

from scaler.training.network.fusing import fused  # noqa: E402
from scaler.training.network.module import load_weights, to_torch  # noqa: E402


def twice_read(block: BlockBuilder) -> None:
    """A convolution that is normalised and also read as it is."""
    conv = block.add("conv", Conv(6), 0)
    block.add("sum", Add(), conv, block.add("bn", BatchNorm(), conv))


def shared(own_norms: bool) -> Graph:
    """One convolution for two scales, with one normalisation or one each."""
    graph = GraphBuilder((3, 16, 16))
    fine = graph.add("fine", conv_block((3, 16, 16), 6, kernel=3, stride=2, activation="relu"), graph.input)
    coarse = graph.add("coarse", conv_block(fine.shape, 6, kernel=3, stride=2, activation="relu"), fine)
    ends = []
    for name, value in (("fine", fine), ("coarse", coarse)):
        block = BlockBuilder("conv", value.shape)
        conv = block.add("conv", Conv(5), 0)
        if not own_norms:
            block.add("bn", BatchNorm(), conv)
        end = graph.add(f"head.{name}", block.build(), value, weights="" if name == "fine" else "head.fine")
        if own_norms:
            norm = BlockBuilder("norm", end.shape)
            norm.add("bn", BatchNorm(), 0)
            end = graph.add(f"norm.{name}", norm.build(), end)
        ends.append((f"{name}_out", end))
    return graph.build("shared", ends)


def family(name: str, **parameters: object) -> Graph:
    return FAMILIES[name].build(FAMILIES[name].configure(**parameters, classes=3, resolution=160))


CASES = {
    "convolution": (lambda: unit_graph(chained(Conv(4, 3), BatchNorm(), Activation("relu"))), 0),
    "convolution with a bias": (lambda: unit_graph(chained(Conv(4, 3, bias=True), BatchNorm())), 0),
    "padded below and right": (lambda: unit_graph(chained(Conv(4, 3, 2, padding=Padding(0, 0, 1, 1)), BatchNorm())), 0),
    "depthwise convolution": (lambda: unit_graph(chained(Conv(6, 3, groups=6), BatchNorm())), 0),
    "normalisation first": (lambda: unit_graph(chained(BatchNorm(), Conv(4))), 1),
    "after pooling": (lambda: unit_graph(chained(Conv(4), MaxPool(2, 2), BatchNorm())), 1),
    "after a concatenation": (lambda: unit_graph(chained_after_concat), 1),
    "read twice": (lambda: unit_graph(twice_read), 1),
    "shared with its normalisation": (lambda: shared(own_norms=False), 0),
    "shared without": (lambda: shared(own_norms=True), 2),
    "yolo-ret": (
        lambda: family("yolo-ret", backbone="mobilenetv2", width=0.35, drop=2, rfcr=5, shortcut=True, neck="bifpn"),
        0,
    ),
    "scaled-yolov4": (lambda: family("scaled-yolov4", variant="csp", width=0.25, depth=0.33), None),
    "retinanet": (lambda: family("retinanet", backbone="resnet-18", width=32), 0),
}


def chained_after_concat(block: BlockBuilder) -> None:
    joined(Concat(), 2)(block)
    block.add("bn", BatchNorm(), 2)


@pytest.mark.parametrize("name", CASES)
def test_the_fused_network_computes_the_same(name: str):
    build, left = CASES[name]
    graph = build()
    module = to_torch(graph)
    load_weights(module, graph, random_weights(3))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    lighter = fused(module)
    norms = sum(isinstance(part, nn.BatchNorm2d) for part in lighter.modules())
    all_norms = sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    assert norms < all_norms if left is None else norms == left
    source = torch.randn(2, *graph.input_shape, generator=torch.Generator().manual_seed(1))
    assert difference(module.eval(), lighter, source) <= 1e-4
    assert difference(module.double(), fused(module), source.double()) < 1e-12  # so the rest is rounding
    assert all(torch.equal(value, before[key]) for key, value in module.float().state_dict().items())


def test_the_given_module_keeps_its_mode_and_normalisations():
    module = to_torch(CASES["convolution"][0]())
    assert not fused(module).training
    assert module.training
    assert any(isinstance(part, nn.BatchNorm2d) for part in module.modules())


def test_a_module_of_torch_is_traced():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
    source = torch.randn(1, 3, 8, 8)
    lighter = fused(module)
    torch.testing.assert_close(lighter(source), module(source))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in lighter.modules())


def difference(one: nn.Module, other: nn.Module, source: torch.Tensor) -> float:
    """The largest difference of all outputs, as a share of the largest number in each."""
    with torch.no_grad():
        expected, found = one(source), other(source)
    assert list(found) == list(expected)
    assert all(float(value.abs().max()) > 1e-3 for value in expected.values())
    return max(
        float((found[label] - value).abs().max()) / max(1.0, float(value.abs().max()))
        for label, value in expected.items()
    )
