"""Classifiers against implementations by other hands (pytorchcv, geffnet), with random numbers.

Both list the same layers in the graph's order, so the naming is `in_order`; the named ones must agree with it.
"""

import warnings
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

from scaler.graph.graph import Graph, GraphBuilder
from scaler.models.backbones import (
    darknet,
    efficientnet,
    mnasnet,
    mobilenetv2,
    mobilenetv3,
    resnet,
    squeezenet,
    vgg,
    vovnet,
)
from scaler.models.backbones.trunk import Trunk
from scaler.models.blocks import classifier_block

torch = pytest.importorskip("torch", reason="torch is not installed")

from equality import compare, settled  # noqa: E402

from scaler.training.network.mapping import in_order, timm_efficientnet  # noqa: E402

pytestmark = pytest.mark.slow


def other(module: str) -> ModuleType:
    """A module of a package that only these tests need."""
    pytest.importorskip(module.partition(".")[0], reason="not installed: .ci/equality.txt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # geffnet compiles scripts, which torch calls deprecated
        return import_module(module)


def pytorchcv(module: str, network: str, **options: Any) -> torch.nn.Module:
    return getattr(other(f"pytorchcv.models.{module}"), network)(**options)


def with_classifier(trunk: Trunk) -> Graph:
    """A trunk and a fully connected layer on the mean of its last map."""
    graph = GraphBuilder(trunk.input_shape, trunk.placements)
    _, taps = trunk.truncated(0)
    return graph.build(
        trunk.name, [("logits", graph.add("classifier", classifier_block(taps[32].shape, 1000), taps[32]))]
    )


def check(graph: Graph, theirs: torch.nn.Module, missing: tuple[str, ...] = (), **options: float) -> None:
    """Same output, and every number found its place."""
    settled(theirs, graph.input_shape[1])
    loaded = compare(graph, theirs, in_order(graph, theirs.state_dict()), **options)
    assert (loaded.missing, loaded.unused) == (missing, ())


RESNETS = {
    "18": ("resnet18", "3x3"),
    "34": ("resnet34", "3x3"),
    "50": ("resnet50b", "3x3"),
    "101": ("resnet101b", "3x3"),
    "50 with the stride in the 1x1 convolution": ("resnet50", "1x1"),
}


@pytest.mark.parametrize("name", RESNETS)
def test_resnet(name: str):
    network, stride_in = RESNETS[name]
    check(with_classifier(resnet.trunk(name.partition(" ")[0], 224, stride_in)), pytorchcv("resnet", network))


@pytest.mark.parametrize(("depth", "normalised"), [("11", False), ("16", True)])
def test_vgg(depth: str, normalised: bool):
    network = f"bn_vgg{depth}b" if normalised else f"vgg{depth}"
    check(vgg.classifier(depth, normalised=normalised), pytorchcv("vgg", network))


@pytest.mark.parametrize(("variant", "module"), [("darknet-19", "darknet"), ("darknet-53", "darknet53")])
def test_darknet(variant: str, module: str):
    check(darknet.classifier(variant), pytorchcv(module, variant.replace("-", "")))


@pytest.mark.parametrize(("variant", "network"), [("27-slim", "vovnet27s"), ("39", "vovnet39"), ("57", "vovnet57")])
def test_vovnet(variant: str, network: str):
    """pytorchcv adds the input in repeated modules, which the first paper does not: switched off here."""
    theirs = pytorchcv("vovnet", network)
    for part in theirs.modules():
        if hasattr(part, "use_residual"):
            part.use_residual = False
    check(vovnet.classifier(f"vovnet-{variant}", 224), theirs)


@pytest.mark.parametrize("width", [1.0, 1.4])
def test_mobilenetv2_padded_symmetrically(width: float):
    theirs = getattr(other("geffnet"), f"mobilenetv2_{width * 100:.0f}")()
    check(with_classifier(mobilenetv2.trunk(width, 224, "symmetric")), theirs, epsilon=1e-5)


def test_mobilenetv2_by_a_second_hand():
    """Its classifier is a convolution without bias."""
    graph = with_classifier(mobilenetv2.trunk(1.0, 224, "symmetric"))
    check(graph, pytorchcv("mobilenetv2", "mobilenetv2b_w1"), ("classifier.linear.bias",), epsilon=1e-5)


def test_mobilenetv2_padded_as_tensorflow_does():
    """geffnet has no such variant by name, but its parts can do it."""
    theirs = other("geffnet").mobilenetv2_100(pad_type="same", bn_eps=1e-3)
    check(with_classifier(mobilenetv2.trunk(1.0, 224)), theirs)


@pytest.mark.parametrize("variant", mobilenetv3.VARIANTS)
def test_mobilenetv3(variant: str):
    check(mobilenetv3.classifier(variant), getattr(other("geffnet"), f"mobilenetv3_{variant}_100")(), epsilon=1e-5)


def test_mnasnet():
    check(mnasnet.classifier(), other("geffnet").mnasnet_100())


@pytest.mark.parametrize("version", squeezenet.VARIANTS)
def test_squeezenet(version: str):
    check(squeezenet.classifier(version), pytorchcv("squeezenet", f"squeezenet_v{version.replace('.', '_')}"))


def test_alexnet():
    check(squeezenet.alexnet(), pytorchcv("alexnet", "alexnetb"))


EFFICIENTNETS = {"b0": 224, "b1": 240, "b2": 260, "b3": 300}
"""Variant and its own resolution; the odd maps among them tell the paddings apart."""


@pytest.mark.parametrize("variant", EFFICIENTNETS)
class TestEfficientNet:
    def test_padded_as_tensorflow_does(self, variant: str):
        graph = with_classifier(efficientnet.trunk(variant, EFFICIENTNETS[variant]))
        check(graph, getattr(other("geffnet"), f"tf_efficientnet_{variant}")())

    def test_padded_symmetrically(self, variant: str):
        graph = with_classifier(efficientnet.trunk(variant, EFFICIENTNETS[variant], "symmetric"))
        check(graph, getattr(other("geffnet"), f"efficientnet_{variant}")(), epsilon=1e-5)

    def test_by_a_second_hand_padded_as_tensorflow_does(self, variant: str):
        graph = with_classifier(efficientnet.trunk(variant, EFFICIENTNETS[variant]))
        check(graph, pytorchcv("efficientnet", f"efficientnet_{variant}b"))

    def test_by_a_second_hand_padded_symmetrically(self, variant: str):
        graph = with_classifier(efficientnet.trunk(variant, EFFICIENTNETS[variant], "symmetric"))
        check(graph, pytorchcv("efficientnet", f"efficientnet_{variant}"), epsilon=1e-5)

    def test_the_naming_agrees_with_the_order(self, variant: str):
        graph = efficientnet.classifier(variant)
        ordered = in_order(graph, getattr(other("geffnet"), f"efficientnet_{variant}")().state_dict())
        assert ordered.items() == {layer: timm_efficientnet(graph)[layer] for layer in ordered}.items()


def test_the_wrong_convention_of_padding_is_seen():
    theirs = settled(other("geffnet").efficientnet_b0(), 224)
    graph = with_classifier(efficientnet.trunk("b0", 224))
    with pytest.raises(AssertionError):
        compare(graph, theirs, in_order(graph, theirs.state_dict()), epsilon=1e-5)
