"""Numbers of other implementations in our modules: what is taken, what is said, what is refused."""

import pytest

from scaler.errors import UserError
from scaler.graph.graph import Graph, GraphBuilder
from scaler.models.backbones import efficientnet, mobilenetv2, resnet, vgg
from scaler.models.blocks import conv_block
from scaler.models.detectors.yolo_ret import YoloRetConfig, build

torch = pytest.importorskip("torch", reason="torch is not installed")

from torch import Tensor, nn  # noqa: E402

from scaler.training.network.mapping import (  # noqa: E402
    Loaded,
    in_order,
    load_state,
    timm_efficientnet,
    torchvision_mobilenetv2,
    torchvision_resnet,
    torchvision_vgg,
)
from scaler.training.network.module import to_torch  # noqa: E402

NAMING = {"first.unit.conv": "a.0", "first.unit.bn": "a.1", "second.unit.conv": "b.0", "second.unit.bn": "b.1"}


def two_layers() -> Graph:
    graph = GraphBuilder((3, 8, 8))
    first = graph.add("first", conv_block((3, 8, 8), 4, kernel=3, activation="relu"), graph.input)
    second = graph.add("second", conv_block((4, 8, 8), 5, activation=None), first)
    return graph.build("two layers", [("out", second)])


def their_module() -> nn.Module:
    """The same network by other hands, with another epsilon and statistics that matter."""
    torch.manual_seed(0)
    parts = nn.ModuleDict(
        {
            "a": nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4, eps=0.3), nn.ReLU()),
            "b": nn.Sequential(nn.Conv2d(4, 5, 1, bias=False), nn.BatchNorm2d(5, eps=0.3)),
        }
    )
    for part in parts.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.weight.data, part.bias.data, part.running_mean, part.running_var):
                nn.init.uniform_(values, 0.2, 1)
    return parts.eval()


def both(graph: Graph, state: dict[str, Tensor], naming: dict[str, str], **options: float) -> tuple[Loaded, nn.Module]:
    module = to_torch(graph).eval()
    return load_state(module, graph, state, naming, **options), module


def test_numbers_are_taken_by_name_and_everything_is_accounted_for():
    theirs = their_module()
    state = theirs.state_dict() | {"head.weight": torch.zeros(3)}
    del state["b.1.bias"]
    loaded, module = both(two_layers(), state, NAMING)
    assert loaded.missing == ("second.unit.bn.bias",)
    assert loaded.unused == ("head.weight",)
    assert len(loaded.loaded) == 9
    for ours, other in (("first.unit.conv.weight", "a.0.weight"), ("second.unit.bn.running_var", "b.1.running_var")):
        assert ours in loaded.loaded
        assert torch.equal(module.state_dict()[ours], state[other])


def test_another_epsilon_changes_the_scales_and_not_the_result():
    theirs, source = their_module(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    loaded, module = both(two_layers(), theirs.state_dict(), NAMING, epsilon=0.3)
    assert not loaded.missing + loaded.unused
    with torch.no_grad():
        expected = theirs["b"](theirs["a"](source))
        torch.testing.assert_close(module(source)["out"], expected)
        _, naive = both(two_layers(), theirs.state_dict(), NAMING)
        assert (naive(source)["out"] - expected).abs().max() > 0.01


def test_the_order_gives_the_same_naming():
    assert in_order(two_layers(), their_module().state_dict()) == NAMING


def test_a_convolution_on_one_pixel_is_taken_for_a_fully_connected_layer():
    graph = mobilenetv2.classifier(0.35, 32, classes=7)
    state = {"top.weight": torch.ones(7, 1280, 1, 1)}
    loaded, module = both(graph, state, {"classifier.linear": "top"})
    assert loaded.loaded == ("classifier.linear.weight",)
    assert (module.get_parameter("classifier.linear.weight") == 1).all()


def refusal(graph: Graph, state: dict[str, Tensor], naming: dict[str, str]) -> str:
    """The one line, after which the module is as before."""
    module, before = to_torch(graph), to_torch(graph).state_dict()
    with pytest.raises(UserError) as error:
        load_state(module, graph, state, naming)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_shape_that_differs_is_one_line_and_nothing_is_loaded():
    state = their_module().state_dict() | {"b.0.weight": torch.zeros(5, 9, 1, 1)}
    message = refusal(two_layers(), state, NAMING)
    for part in ("two layers", "second.unit.conv.weight", "[5, 4, 1, 1]", "'b.0.weight'", "[5, 9, 1, 1]"):
        assert part in message


@pytest.mark.parametrize("state", [{}, {"conv_stem.weight": torch.zeros(1)}])
def test_numbers_of_which_none_fits_are_one_line(state: dict[str, Tensor]):
    message = refusal(two_layers(), state, NAMING)
    assert f"none of the {len(state)} arrays" in message
    assert next(iter(state), "nothing") in message


def test_an_order_of_other_length_is_one_line():
    with pytest.raises(UserError, match=r"two layers has 4 layers .* are of 3"):
        in_order(two_layers(), {f"{name}.weight": torch.zeros(1) for name in "abc"})


@pytest.mark.parametrize(
    ("graph", "naming", "some"),
    [
        (
            mobilenetv2.classifier(1.0, 64),
            torchvision_mobilenetv2,
            {
                "backbone.stage1.block0.project.conv": "features.1.conv.1",
                "backbone.stage7.block0.project.bn": "features.17.conv.3",
                "backbone.head.unit.bn": "features.18.1",
            },
        ),
        (
            resnet.classifier("50", 64),
            torchvision_resnet,
            {
                "backbone.stage4.block2.conv2.bn": "layer4.2.bn3",
                "backbone.stage1.block0.shortcut.bn": "layer1.0.downsample.1",
            },
        ),
        (vgg.classifier("16", 32), torchvision_vgg, {"backbone.stage5.conv2.conv": "features.28"}),
        (vgg.classifier("11", 32, normalised=True), torchvision_vgg, {"backbone.stage5.conv1.bn": "features.26"}),
        (
            efficientnet.classifier("b3", 64),
            timm_efficientnet,
            {
                "backbone.stage1.block0.project.bn": "blocks.0.0.bn2",
                "backbone.stage7.block1.se.reduce": "blocks.6.1.se.conv_reduce",
            },
        ),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_naming_names_every_layer_with_numbers_and_no_module_twice(graph, naming, some):
    names = naming(graph)
    layers = {key.rpartition(".")[0] for key in to_torch(graph).state_dict()}
    assert layers <= names.keys()
    assert len({names[layer] for layer in layers}) == len(layers)
    assert some.items() <= names.items()


def test_the_backbone_of_a_detector_takes_a_classifiers_numbers():
    classifier = mobilenetv2.classifier(0.35, 64)
    naming = torchvision_mobilenetv2(classifier)
    state = {
        naming[module] + key[len(module) :]: value
        for key, value in to_torch(classifier, seed=9).state_dict().items()
        for module in [key.rpartition(".")[0]]
    }
    detector = build(YoloRetConfig(backbone="mobilenetv2", width=0.35, drop=2, resolution=160, classes=3))
    loaded, module = both(detector, state, torchvision_mobilenetv2(detector))
    assert {key.partition(".")[0] for key in loaded.loaded} == {"backbone"}
    assert not [key for key in loaded.missing if key.startswith("backbone.")]
    assert {key.split(".")[1] for key in loaded.unused} == {"17", "18", "1"}  # two blocks dropped, and the classifier
    assert torch.equal(module.get_parameter("backbone.stem.unit.conv.weight"), state["features.0.0.weight"])
