"""What the last layers of a detector start from."""

import math

import pytest

from scaler.graph.graph import Graph
from scaler.models.detectors.families import FAMILIES

torch = pytest.importorskip("torch", reason="torch is not installed")

from loss_cases import LOSSES, targets  # noqa: E402

from scaler.training.losses import detection_loss  # noqa: E402
from scaler.training.network.heads import initialise_heads  # noqa: E402
from scaler.training.network.module import to_torch  # noqa: E402

CLASSES = 3


def build(family: str, **parameters: object) -> Graph:
    return FAMILIES[family].build(FAMILIES[family].configure(**parameters, classes=CLASSES))


def test_yolo_biases_start_where_the_released_code_has_them():
    graph = build("scaled-yolov4", variant="tiny", width=0.25, resolution=160)
    module = to_torch(graph)
    initialise_heads(module, graph, CLASSES)
    assert graph.coding is not None
    for scale in graph.coding.scales:
        bias = module.get_parameter(f"head.{scale.outputs[0]}.conv.bias").view(3, -1)
        assert torch.all(bias[:, :4] == 0)
        torch.testing.assert_close(bias[:, 4], torch.full((3,), math.log(8 / (640 / scale.stride) ** 2)))
        torch.testing.assert_close(bias[:, 5:], torch.full((3, CLASSES), math.log(0.6 / 2.01)))


def test_yolo_outputs_start_near_zero_and_nothing_else_moves():
    graph = build("yolo-ret", backbone="mobilenetv2", width=0.5, resolution=160)
    module, untouched = to_torch(graph), to_torch(graph).state_dict()
    initialise_heads(module, graph, CLASSES)
    for key, value in module.state_dict().items():
        if key.startswith("head."):
            assert value.std().item() == pytest.approx(0.01, rel=0.1), key
        else:
            assert torch.equal(value, untouched[key])
    with torch.no_grad():
        maps = module(torch.rand(2, 3, 160, 160))
    assert all(value.std() < 0.5 for value in maps.values())


def test_retinanet_starts_by_seeing_nothing():
    graph = build("retinanet", backbone="resnet-18", resolution=128, lighten="p3-one-1x1")
    module = to_torch(graph)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    initialise_heads(module, graph, CLASSES, seed=3)
    again = to_torch(graph)
    initialise_heads(again, graph, CLASSES, seed=3)
    for key, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        if not key.startswith("head."):
            assert torch.equal(value, before[key])
        elif key.endswith("weight"):
            assert value.std().item() == pytest.approx(0.01, rel=0.1), key
        elif "class_.predictor" in key:
            torch.testing.assert_close(value, torch.full_like(value, -math.log(99)))
        else:
            assert torch.all(value == 0), key
    with torch.no_grad():
        outputs = module.eval()(torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    chances = torch.cat([outputs[scale.outputs[0]].sigmoid().flatten() for scale in graph.coding.scales])
    assert 0.008 < chances.mean() < 0.012
    loss = detection_loss(graph.coding, CLASSES, LOSSES["retinanet"], batch=2)
    assert loss(outputs, targets((0, 0, 10, 10, 60, 80), (1, 2, 40, 40, 110, 100))).classes < 3


def test_a_network_that_is_no_detector_is_left_alone():
    graph = build("yolo-ret", backbone="mobilenetv2", width=0.5, resolution=160)
    plain = Graph(graph.name, graph.input_shape, graph.placements, graph.outputs)
    module = to_torch(plain)
    initialise_heads(module, plain, CLASSES)
