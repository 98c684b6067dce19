"""Networks that others measured: parameters and operations as published, and numbers as torch computes them."""

import numpy as np
import onnx
import pytest
from onnx_sessions import picture, run

from scaler.cost import graph_cost
from scaler.errors import UsageError
from scaler.export.decode import Decode
from scaler.export.onnx_model import to_onnx
from scaler.export.weights import random_weights
from scaler.graph.graph import Graph, GraphBuilder
from scaler.graph.ops import BatchNorm, Concat, Conv, MaxPool, Padding, elements
from scaler.latency.fusion import block_kernels, graph_kernels
from scaler.models.backbones.squeezenet import pool_block
from scaler.models.backbones.vgg import dense_classifier, stage_block
from scaler.models.detectors import yolov8, yolox
from scaler.models.zoo import NETWORKS, network

TORCHVISION = {
    "resnet-18": 11_689_512,
    "resnet-34": 21_797_672,
    "resnet-50": 25_557_032,
    "resnet-101": 44_549_160,
    "resnet-152": 60_192_808,
    "vgg-11": 132_863_336,
    "vgg-13": 133_047_848,
    "vgg-16": 138_357_544,
    "vgg-19": 143_667_240,
    "vgg-11-bn": 132_868_840,
    "vgg-13-bn": 133_053_736,
    "vgg-16-bn": 138_365_992,
    "vgg-19-bn": 143_678_248,
    "alexnet": 61_100_840,
    "squeezenet-1.0": 1_248_424,
    "squeezenet-1.1": 1_235_496,
    "mobilenetv2-1": 3_504_872,
    "mobilenetv3-large": 5_483_032,
    "mobilenetv3-small": 2_542_856,
    "mnasnet-0.5": 2_218_512,
    "mnasnet-0.75": 3_170_208,
    "mnasnet-1": 4_383_312,
    "mnasnet-1.3": 6_282_256,
}
"""Parameters that torchvision's documentation states; running statistics are buffers there."""

SAME_PARAMETERS_ELSEWHERE = {
    "resnet-50-slim": 25_557_032,
    "resnet-101-slim": 44_549_160,
    "resnet-152-slim": 60_192_808,
    "mobilenetv1-1": 4_231_976,
    "mobilenetv1-0.75": 2_585_560,
    "mobilenetv1-0.5": 1_331_592,
    "mobilenetv1-0.25": 470_072,
    "darknet-19": 20_842_376,
    "darknet-53": 41_609_928,
    "cspdarknet-53": 27_642_184,
}
"""The model zoos imgclsmob (MobileNets, DarkNets) and KerasHub (both of 53 layers); a stride changes no parameter."""

MILLION_MACS = {
    "vgg-11": (224, 7609, 1),
    "vgg-16": (224, 15470, 1),
    "vgg-19": (224, 19632, 1),
    "alexnet": (224, 714, 1),
    "squeezenet-1.0": (224, 819, 1),
    "squeezenet-1.1": (224, 349, 1),
    "mobilenetv1-1": (224, 569, 1),
    "mobilenetv1-0.5": (160, 77, 1),
    "mobilenetv1-0.25": (128, 14, 1),
    "mobilenetv3-large": (224, 219, 3),
    "mobilenetv3-small": (224, 56, 1),
    "mnasnet-1": (224, 315, 1),
    "resnet-50-slim": (224, 3482, 1),
    "darknet-19": (256, 7290 / 2, 1),
    "darknet-53": (256, 18570 / 2, 1),
    "cspdarknet-53": (256, 13070 / 2, 2),
    "yolov3-tiny": (416, 5560 / 2, 4),
}
"""Resolution, published millions, and how exact they are.

torchvision; TensorFlow-Slim's table of MobileNets; MobileNetV3's and MnasNet's papers; the 6.97 GFLOPs of Slim's
ResNet-50; the DarkNet site's billions of operations (two a multiply-accumulate); CSPNet, Table 1.
"""

YOLOX = {
    "nano": (0.91, 1.08, 416),
    "tiny": (5.06, 6.45, 416),
    "s": (9.0, 26.8, 640),
    "m": (25.3, 73.8, 640),
    "l": (54.2, 155.6, 640),
    "x": (99.1, 281.9, 640),
}
"""Million parameters, GFLOPs and resolution in the table of the released code."""

YOLOX_EXACT = {"tiny": 5_055_855, "s": 8_968_255, "m": 25_326_495}
"""Counted by others on the released weights."""

YOLOV8 = {
    "n": (3_157_184, 8.7),
    "s": (11_166_544, 28.6),
    "m": (25_902_624, 78.9),
    "l": (43_691_504, 165.2),
    "x": (68_229_632, 257.8),
}
"""Gradients in the released configuration, and GFLOPs of the fused network at 640 in its documentation."""


@pytest.mark.parametrize(("name", "params"), [*TORCHVISION.items(), *SAME_PARAMETERS_ELSEWHERE.items()])
def test_a_classifier_has_its_published_parameters(name, params):
    assert graph_cost(network(name, 224)).trainable_params == params


@pytest.mark.parametrize("name", MILLION_MACS)
def test_multiply_accumulates_are_the_published_ones(name):
    resolution, millions, within = MILLION_MACS[name]
    assert graph_cost(network(name, resolution)).macs / 1e6 == pytest.approx(millions, abs=within)


@pytest.mark.parametrize(("name", "millions"), [("mobilenetv1-1", 4.24), ("mobilenetv1-0.5", 1.34)])
def test_a_class_for_the_background_makes_slims_parameters(name, millions):
    """Slim's table, rounded up there."""
    assert 0 < millions - graph_cost(network(name, 224, classes=1001)).trainable_params / 1e6 < 0.01


@pytest.mark.parametrize(
    ("name", "mebibytes"), [("darknet-19", 79.5), ("darknet-53", 158), ("resnet-50", 97.8), ("mobilenetv2-1.4", 23.5)]
)
def test_sizes_are_those_of_table_1_of_yolo_ret(name, mebibytes):
    assert graph_cost(network(name, 224)).params * 4 / 2**20 == pytest.approx(mebibytes, rel=0.006)


def test_tiny_yolov3_fills_the_released_file_of_weights():
    """`yolov3-tiny.weights` has 35 434 956 bytes: a header of 20, and four a number."""
    assert 20 + 4 * graph_cost(network("yolov3-tiny", 416)).params == 35_434_956


def test_tiny_yolov3_reads_two_scales_with_three_anchors():
    graph = network("yolov3-tiny", 416)
    shapes = {label: graph.placements[place].block.shape for label, place in graph.outputs}
    assert shapes == {"stride32": (255, 13, 13), "stride16": (255, 26, 26)}
    assert graph.boxes == 3 * (13**2 + 26**2)
    assert [scale.anchors[0] for scale in graph.coding.scales] == [(81, 82), (10, 14)]


def test_the_last_pool_of_tiny_yolov3_keeps_the_size():
    pools = [layer for layer in network("yolov3-tiny", 416).layers() if isinstance(layer.op, MaxPool)]
    assert [layer.shape[1] for layer in pools] == [208, 104, 52, 26, 13, 13]
    assert pools[-1].op == MaxPool(2, 1, Padding(0, 0, 1, 1))


def test_tiny_yolov3_can_be_decoded():
    boxes = run(to_onnx(network("yolov3-tiny", 96), decode=Decode()), picture(1, 3, 96, 96))
    assert boxes["boxes"].shape == (1, 3 * (9 + 36), 4)
    assert boxes["scores"].shape == (1, 3 * (9 + 36), 80)


def profiled_flops(graph: Graph) -> int:
    """As YOLOX' code counts, with the profiler thop: two a multiply-accumulate, four a normalised element."""
    layers = list(graph.layers())
    normalised = sum(elements(layer.shape) for layer in layers if isinstance(layer.op, BatchNorm))
    biases = sum(elements(layer.shape) for layer in layers if isinstance(layer.op, Conv) and layer.op.bias)
    return 2 * (graph_cost(graph).macs + biases + 2 * normalised)


def decimals(value: float) -> int:
    """How many the published number has."""
    return len(str(value).partition(".")[2])


@pytest.mark.parametrize(("variant", "published"), YOLOX.items())
def test_yolox_has_its_published_parameters_and_operations(variant, published):
    millions, giga, resolution = published
    graph = network(f"yolox-{variant}", resolution)
    assert round(graph_cost(graph).trainable_params / 1e6, decimals(millions)) == millions
    assert profiled_flops(graph) / 1e9 == pytest.approx(giga, abs=0.6 * 10 ** -decimals(giga))


@pytest.mark.parametrize(("variant", "params"), YOLOX_EXACT.items())
def test_yolox_has_the_parameters_that_others_counted(variant, params):
    assert graph_cost(network(f"yolox-{variant}", 640)).trainable_params == params


@pytest.mark.parametrize(("variant", "published"), YOLOV8.items())
def test_yolov8_has_its_published_parameters_and_operations(variant, published):
    params, giga = published
    cost = graph_cost(network(f"yolov8-{variant}", 640))
    assert cost.trainable_params == params
    assert cost.flops / 1e9 == pytest.approx(giga, abs=0.06)


@pytest.mark.parametrize(("name", "channels"), [("yolox-s", 85), ("yolov8-s", 144)])
def test_an_anchor_free_detector_has_a_box_a_cell(name, channels):
    graph = network(name, 640)
    assert [graph.placements[place].block.shape for _, place in graph.outputs] == [
        (channels, 80, 80), (channels, 40, 40), (channels, 20, 20),
    ]  # fmt: skip
    assert graph.boxes == 8400


def test_a_yolox_of_few_classes_is_narrower_at_its_end_alone():
    coco, four = (graph_cost(network("yolox-s", 320, classes)).trainable_params for classes in (80, 4))
    assert coco - four == 3 * 76 * (128 + 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_called_what_it_is_asked_for_and_can_be_timed(name):
    graph = network(name, 256)
    assert graph.name.startswith(name)
    assert graph.name.endswith("-256")
    assert graph.input_shape == (3, 256, 256)
    assert sum(kernel.macs for kernel in graph_kernels(graph)) == graph_cost(graph).macs
    assert network(name, 256) is graph


@pytest.mark.parametrize(
    "name",
    [name for name in NETWORKS if name.startswith(("vgg", "squeeze", "mobile", "mnas", "darknet", "csp", "yolox"))],
)
def test_concatenations_of_own_maps_copy_nothing(name):
    """Blocks are cut so that what a concatenation joins is written in place, but for lateral maps of a neck."""
    for placement in network(name, 256).placements:
        block = placement.block
        if len(block.input_shapes) == 1 and any(isinstance(node.op, Concat) for node in block.nodes):
            assert not [kernel for kernel in block_kernels(block) if kernel.op == "copy"]


def test_an_unknown_network_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"unknown network 'yolox-z'; did you mean 'yolox-\w+'\?"):
        network("yolox-z", 640)


@pytest.mark.parametrize(
    ("name", "resolution"),
    [("yolox-s", 600), ("yolov8-n", 90), ("vgg-16", 0), ("vgg-11", 225), ("darknet-53", 100), ("yolov3-tiny", 400)],
)
def test_a_resolution_that_leaves_a_rest_is_refused(name, resolution):
    with pytest.raises(UsageError, match=rf"resolution = {resolution}: allowed is a multiple of 32"):
        network(name, resolution)


@pytest.mark.parametrize("name", ["alexnet", "squeezenet-1.1"])
def test_a_picture_that_is_too_small_is_refused(name):
    with pytest.raises(UsageError, match="resolution = 32: allowed is 64 or more"):
        network(name, 32)


@pytest.mark.parametrize("build", [yolox.build, yolov8.build])
def test_an_unknown_variant_is_refused_by_name(build):
    with pytest.raises(UsageError, match=r"unknown YOLO.* variant 'y'; .*known: "):
        build("y")


def test_a_pool_hangs_over_the_edge_where_a_pixel_would_be_lost():
    assert pool_block((4, 109, 109)).shape == (4, 54, 54)
    assert pool_block((4, 54, 54)).shape == (4, 27, 27)


def small_vgg() -> Graph:
    """A stage with biases beside batch normalisation, and a dense classifier, narrow enough for a quick test."""
    graph = GraphBuilder((3, 12, 12))
    x = graph.add("backbone.stage1", stage_block(graph.input.shape, 8, 2, normalised=True), graph.input)
    logits = graph.add("classifier", dense_classifier(x.shape, 16, 5), x)
    return graph.build("vgg-small", [("logits", logits)])


@pytest.mark.parametrize(
    ("name", "resolution"),
    [
        ("squeezenet-1.0", 96),
        ("mobilenetv1-0.25", 64),
        ("mobilenetv3-small", 64),
        ("mnasnet-0.5", 64),
        ("darknet-19", 64),
        ("yolov3-tiny", 64),
        ("yolov8-n", 64),
        ("yolox-nano", 64),
        ("yolox-tiny", 96),
        *[
            pytest.param(name, resolution, marks=pytest.mark.slow)
            for name, resolution in (
                ("alexnet", 64), ("vgg-11-bn", 32), ("vgg-16", 32), ("mobilenetv3-large", 96), ("resnet-50-slim", 96),
                ("darknet-53", 64), ("cspdarknet-53", 64), ("yolov8-m", 96), ("yolox-m", 96), ("yolox-l", 64),
            )
        ],
    ],
)  # fmt: skip
@pytest.mark.slow
def test_the_onnx_file_is_valid_and_computes_what_torch_computes(name, resolution):
    check_numbers(network(name, resolution))


def test_a_small_vgg_computes_what_torch_computes():
    check_numbers(small_vgg())


def check_numbers(graph: Graph) -> None:
    """The file passes the strict checks, and gives torch's numbers within a share of the largest."""
    reference = pytest.importorskip("torch_reference", reason="torch is not installed", exc_type=ImportError)
    weights = random_weights(5)
    model = to_onnx(graph, weights=weights)
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True)
    pictures = picture(1, *graph.input_shape)
    expected = reference.run(graph, weights, pictures)
    found = run(model, pictures)
    assert found.keys() == expected.keys()
    for label, value in expected.items():
        assert np.abs(value).max() > 1e-3
        np.testing.assert_allclose(found[label], value, rtol=0, atol=1e-4 * np.abs(value).max())
