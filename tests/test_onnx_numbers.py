"""What a written network computes: ONNX Runtime against torch, operator by operator and network by network."""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_sessions import newest_readable_opset, picture, run
from unit_graphs import chained, gated, joined, unit_graph

from scaler.export.onnx_model import DEFAULT_OPSET, OLDEST_OPSET, newest_opset, to_onnx
from scaler.export.weights import Array, random_weights
from scaler.graph.graph import BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Padding,
    PaddingStyle,
    Upsample,
    WeightedSum,
)
from scaler.models.backbones import efficientnet, mobilenetv2, resnet
from scaler.models.detectors.yolo_ret import NECKS, YoloRetConfig, build, published_drop

torch_reference = pytest.importorskip("torch_reference", reason="torch is not installed", exc_type=ImportError)

WEIGHTS = cache(random_weights(3))
SIDE = 9


def near(found: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float = 1e-4) -> None:
    """Every output agrees within a share of its largest number, and says something at all."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape
        assert np.abs(value).max() > 1e-3
        np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance * np.abs(value).max(), err_msg=name)


OPERATORS: dict[str, Callable[[BlockBuilder], object]] = {
    "1x1 convolution": chained(Conv(4)),
    "convolution with bias": chained(Conv(4, 3, padding=Padding(1, 1, 1, 1), bias=True)),
    "convolution without padding": chained(Conv(4, 3)),
    "strided convolution padded below and right": chained(Conv(4, 3, 2, padding=Padding(0, 0, 1, 1))),
    "strided convolution padded all around": chained(Conv(4, 3, 2, padding=Padding(1, 1, 1, 1))),
    "convolution padded above and left": chained(Conv(4, 3, 2, padding=Padding(1, 2, 0, 0))),
    "7x7 convolution": chained(Conv(4, 7, 2, padding=Padding(3, 3, 3, 3))),
    "grouped convolution": chained(Conv(4, 3, groups=2)),
    "depthwise convolution": chained(Conv(6, 5, 2, 6, Padding(1, 1, 2, 2))),
    "normalisation": chained(BatchNorm(1e-2)),
    "folded normalisation": chained(Conv(8, 3), BatchNorm(1e-2)),
    "folded normalisation, convolution with bias": chained(Conv(8, 3, bias=True), BatchNorm(1e-3)),
    "folded normalisation, depthwise": chained(Conv(6, 3, groups=6), BatchNorm(1e-3)),
    "normalisation before a convolution": chained(BatchNorm(), Conv(8, 3)),
    **{
        kind: chained(Activation(kind)) for kind in ("relu", "relu6", "swish", "sigmoid", "hard_swish", "mish")
    },
    "sum of 2": joined(Add(), 2),
    "sum of 3": joined(Add(), 3),
    "weighted sum of 2": joined(WeightedSum(), 2),
    "weighted sum of 4": joined(WeightedSum(), 4),
    "gate": gated,
    "concatenation of 2": joined(Concat(), 2),
    "concatenation of 4": joined(Concat(), 4),
    "pooling": chained(MaxPool(2, 2)),
    "overlapping pooling with padding": chained(MaxPool(3, 2, Padding(1, 1, 1, 1))),
    "pooling of negative numbers with padding": chained(Conv(6), MaxPool(3, 2, Padding(0, 0, 1, 1))),
    "global pooling": chained(GlobalAveragePool()),
    "enlargement by 2": chained(Upsample(2)),
    "enlargement by 4": chained(Upsample(4)),
    "fully connected": chained(GlobalAveragePool(), Linear(5)),
    "fully connected without bias": chained(GlobalAveragePool(), Linear(5, bias=False)),
    "two fully connected": chained(GlobalAveragePool(), Linear(5), Activation("relu"), Linear(3)),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATORS)
class TestOperators:
    def test_onnx_runtime_agrees_with_torch(self, name: str):
        graph, batch = unit_graph(OPERATORS[name], SIDE), 4 * picture(2, 6, SIDE, SIDE)
        expected = torch_reference.run(graph, WEIGHTS, batch)
        for opset in (OLDEST_OPSET, DEFAULT_OPSET, newest_readable_opset()):
            for optimise in (False, True):
                near(run(to_onnx(graph, weights=WEIGHTS, batch=2, opset=opset), batch, optimise), expected, 1e-5)

    def test_the_reference_implementation_of_onnx_agrees_at_the_newest_opset(self, name: str):
        graph, batch = unit_graph(OPERATORS[name], SIDE), 4 * picture(2, 6, SIDE, SIDE)
        model = to_onnx(graph, weights=WEIGHTS, batch=2, opset=newest_opset())
        (found,) = ReferenceEvaluator(model).run(None, {"image": batch})
        near({"out": found}, torch_reference.run(graph, WEIGHTS, batch), 1e-5)


def detector(backbone: str, neck: str, rfcr: int) -> Graph:
    config = YoloRetConfig(
        backbone=backbone,
        width=0.35 if backbone == "mobilenetv2" else 1.0,
        drop=published_drop(backbone),
        neck=neck,
        rfcr=rfcr,
        shortcut=bool(rfcr),
        resolution=160,
        classes=3,
    )
    return build(config)


class TestNetworks:
    @pytest.mark.parametrize("rfcr", [0, 5])
    @pytest.mark.parametrize("neck", NECKS)
    @pytest.mark.parametrize("backbone", ["mobilenetv2", "efficientnet-b0"])
    def test_a_detector_computes_what_torch_computes(self, backbone: str, neck: str, rfcr: int):
        graph, pictures = detector(backbone, neck, rfcr), picture(1, 3, 160, 160)
        expected = torch_reference.run(graph, WEIGHTS, pictures)
        model = to_onnx(graph, weights=WEIGHTS)
        for optimise in (False, True):
            near(run(model, pictures, optimise), expected)

    @pytest.mark.parametrize("padding", ["same", "symmetric"])
    @pytest.mark.parametrize("side", [64, 100])
    @pytest.mark.parametrize("family", ["mobilenetv2", "efficientnet"])
    def test_both_conventions_of_padding_agree_at_every_tap(self, family: str, side: int, padding: PaddingStyle):
        trunk = (
            mobilenetv2.trunk(0.5, side, padding)
            if family == "mobilenetv2"
            else efficientnet.trunk("b0", side, padding)
        )
        kept, taps = trunk.truncated(1)
        outputs = [(f"stride{stride}", tap) for stride, tap in taps.items()]
        graph, pictures = GraphBuilder(trunk.input_shape, kept).build(family, outputs), picture(2, 3, side, side)
        expected = torch_reference.run(graph, WEIGHTS, pictures)
        for optimise in (False, True):
            near(run(to_onnx(graph, weights=WEIGHTS, batch=2), pictures, optimise), expected)

    def test_the_conventions_of_padding_differ(self):
        """Else the test above would not see that one is written as the other."""
        pictures, results = picture(1, 3, 96, 96), []
        for padding in ("same", "symmetric"):
            trunk = mobilenetv2.trunk(0.5, 96, padding)
            kept, taps = trunk.truncated(0)
            graph = GraphBuilder(trunk.input_shape, kept).build("net", [("out", taps[32])])
            results.append(run(to_onnx(graph, weights=WEIGHTS), pictures)["out"])
        assert np.abs(results[0] - results[1]).max() > 0.01 * np.abs(results[0]).max()

    @pytest.mark.parametrize(
        "graph",
        [
            mobilenetv2.classifier(0.5, 96),
            efficientnet.classifier("b0", 96),
            resnet.classifier("18", 96),
        ],
        ids=lambda graph: graph.name,
    )
    def test_a_classifier_computes_what_torch_computes(self, graph: Graph):
        pictures = picture(2, *graph.input_shape)
        expected = torch_reference.run(graph, WEIGHTS, pictures)
        near(run(to_onnx(graph, weights=WEIGHTS, batch=2), pictures), expected)

    def test_timing_weights_give_finite_numbers_too(self):
        """A network that is timed must not compute with infinities or denormals."""
        outputs = run(to_onnx(detector("efficientnet-b0", "bifpn", 5)), picture(1, 3, 160, 160))
        assert all(np.isfinite(value).all() and 1e-6 < np.abs(value).max() < 1e6 for value in outputs.values())
