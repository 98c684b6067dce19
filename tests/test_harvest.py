"""From layer times to kernel times: every layer finds its kernel, sums stay, what leads nowhere is listed."""

from pathlib import Path

import pytest
from synthetic_device import kernel_ms, layer_times, make_plan

from scaler.export.onnx_model import to_onnx, write_onnx
from scaler.graph.graph import Graph
from scaler.latency.fusion import RULES, graph_kernels
from scaler.models.detectors.yolo_ret import BACKBONES, YoloRetConfig, build
from scaler.profiling.harvest import LARGEST_OVERHEAD, Harvest, harvest, kernel_places
from scaler.profiling.networks import write_network
from scaler.runtimes.onnxruntime_cpu import OnnxRuntimeCpu
from scaler.runtimes.protocol import LayerTime
from scaler.runtimes.tensorrt_names import layer_nodes

ONNX_RUNTIME, TENSORRT = RULES["onnxruntime"], RULES["tensorrt"]
NECKS = ("none", "fpn", "panet", "bifpn")
rules = pytest.mark.parametrize("rules", RULES.values(), ids=RULES)


def detector(backbone: str = "mobilenetv2", neck: str = "panet", rfcr: int = 5) -> Graph:
    width = 0.35 if backbone == "mobilenetv2" else 1.0
    return build(YoloRetConfig(backbone=backbone, width=width, drop=1, rfcr=rfcr, neck=neck, resolution=160))


GRAPH = detector()


def named(name: str, ms: float = 1.0) -> LayerTime:
    """A layer as TensorRT names it."""
    return LayerTime(name, ms, layer_nodes(name))


def place(found: Harvest, name: str, graph: Graph = GRAPH) -> list[int]:
    return kernel_places(graph, TENSORRT)[1][name]


def conv_names(graph: Graph, count: int) -> list[str]:
    """Names of convolutions that are kernels of their own, one each."""
    kernels, places = kernel_places(graph, TENSORRT)
    found = {own[0]: name for name, own in reversed(places.items()) if kernels[own[0]].op == "conv"}
    return [found[key] for key in sorted(found)][:count]


@rules
@pytest.mark.parametrize("neck", NECKS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_perfect_profile_gives_every_kernel_its_own_time(backbone, neck, rules):
    graph = detector(backbone, neck)
    found = harvest(graph, layer_times(graph, rules), rules)
    kernels = graph_kernels(graph, rules)
    assert list(found.kernels) == kernels
    assert found.unknown == tuple(layer for layer in layer_times(graph, rules) if not layer.nodes)
    alone = [place for place, ms in enumerate(found.ms) if ms == pytest.approx(kernel_ms(kernels[place]))]
    copies = [place for place, kernel in enumerate(kernels) if kernel.op == "copy"]
    assert set(range(len(kernels))) - set(alone) <= set(copies)
    assert all(ms > 0 for ms in found.ms)


@pytest.mark.parametrize(
    ("backbone", "neck", "rfcr", "blocked"),
    [
        *(("mobilenetv2", neck, rfcr, rfcr == 5) for neck in NECKS for rfcr in (0, 5)),
        *((name, neck, 5, True) for name, neck in zip(BACKBONES[1:], NECKS, strict=True)),
        ("efficientnet-b0", "bifpn", 5, False),
    ],
)
def test_every_layer_of_onnx_runtimes_profile_finds_its_kernel(tmp_path: Path, backbone, neck, rfcr, blocked):
    graph = detector(backbone, neck, rfcr)
    write_onnx(to_onnx(graph, opset=13), tmp_path / "network.onnx")
    with OnnxRuntimeCpu(blocked_layout=blocked).prepare(tmp_path / "network.onnx") as session:
        layers = session.profile(1)
    found = harvest(graph, layers, ONNX_RUNTIME)
    assert found.unknown == ()
    assert sum(found.ms) == pytest.approx(sum(layer.ms for layer in layers))
    assert sum(found.layers) == pytest.approx(len(layers))
    lost = [kernel for kernel, count in zip(found.kernels, found.layers, strict=True) if not count]
    assert lost == []


@pytest.mark.parametrize(
    ("backbone", "neck", "blocked"),
    [
        ("mobilenetv2", "fpn", True),
        pytest.param("mobilenetv2", "panet", False, marks=pytest.mark.slow),
        pytest.param("efficientnet-b0", "bifpn", True, marks=pytest.mark.slow),
    ],
)
def test_every_layer_in_8_bit_integers_finds_its_kernel(tmp_path: Path, backbone, neck, blocked):
    graph = detector(backbone, neck)
    write_network(graph, make_plan(tmp_path, 1, precision="int8"), tmp_path / "network.onnx")
    with OnnxRuntimeCpu(precision="int8", blocked_layout=blocked).prepare(tmp_path / "network.onnx") as session:
        layers = session.profile(1)
    kinds = {layer.kind for layer in layers}
    assert "QLinearConv" in kinds
    assert kinds.isdisjoint({"Conv", "FusedConv"})
    found = harvest(graph, layers, ONNX_RUNTIME)
    assert found.unknown == ()
    assert sum(found.layers) == pytest.approx(len(layers))
    assert all(count > 0 for count in found.layers)


def test_a_layer_of_several_nodes_of_one_kernel_counts_once():
    conv = next(layer for layer in layer_times(GRAPH, TENSORRT) if len(layer.nodes) > 1)
    found = harvest(GRAPH, (named(conv.name, 2.0),), TENSORRT)
    (own,) = place(found, conv.nodes[0])
    assert (found.ms[own], found.layers[own]) == (2.0, 1.0)
    assert sum(found.ms) == 2.0


def test_a_layer_that_spans_two_kernels_is_split_by_what_they_move():
    first, second = conv_names(GRAPH, 2)
    found = harvest(GRAPH, (named(f"{first} + {second}", 3.0),), TENSORRT)
    (one,), (other,) = place(found, first), place(found, second)
    assert found.ms[one] + found.ms[other] == pytest.approx(3.0)
    assert found.ms[one] / found.ms[other] == pytest.approx(found.kernels[one].moved / found.kernels[other].moved)
    assert found.layers[one] + found.layers[other] == pytest.approx(1.0)
    assert found.unknown == ()


def test_several_layers_of_one_kernel_add_up():
    (name,) = conv_names(GRAPH, 1)
    found = harvest(GRAPH, (named(name, 1.0), named(name, 0.5)), TENSORRT)
    (own,) = place(found, name)
    assert (found.ms[own], found.layers[own]) == (1.5, 2.0)


def test_a_part_of_a_layer_belongs_to_the_layer():
    name = next(n for n in kernel_places(GRAPH, TENSORRT)[1] if "." in n)
    found = harvest(GRAPH, (LayerTime("x", 1.0, (f"{name}/sigmoid",)),), TENSORRT)
    assert found.ms[place(found, name)[0]] == 1.0


def test_a_name_that_stands_twice_in_a_layer_counts_once():
    first, second = conv_names(GRAPH, 2)
    found = harvest(GRAPH, (LayerTime("x", 3.0, (first, second, first)),), TENSORRT)
    assert found == harvest(GRAPH, (LayerTime("x", 3.0, (second, first)),), TENSORRT)


def test_layers_that_lead_nowhere_are_listed_and_stay_in_the_total():
    (name,) = conv_names(GRAPH, 1)
    reformat, foreign = LayerTime("Reformatting CopyNode for Input Tensor 0", 0.25, ()), named("nobody.conv", 0.5)
    found = harvest(GRAPH, (named(name, 1.0), reformat, foreign), TENSORRT)
    assert found.unknown == (reformat, foreign)
    assert (found.unknown_ms, found.total_ms) == (0.75, 1.75)


def test_a_layer_of_a_known_and_an_unknown_name_belongs_to_the_known():
    (name,) = conv_names(GRAPH, 1)
    found = harvest(GRAPH, (named(f"{name} + nobody.act", 1.0),), TENSORRT)
    assert found.unknown == ()
    assert found.ms[place(found, name)[0]] == 1.0


@rules
def test_an_output_is_that_of_its_last_layer(rules):
    kernels, places = kernel_places(GRAPH, rules)
    assert GRAPH.outputs
    for label, producer in GRAPH.outputs:
        last = GRAPH.placements[producer]
        assert places[label] == places[f"{last.name}.{last.block.nodes[-1].name}"]
        assert len(places[label]) == 1
        assert kernels[places[label][0]].op == "conv"


def test_a_concatenation_that_is_several_copies_is_split_among_them():
    kernels, places = kernel_places(GRAPH, TENSORRT)
    name, own = next((name, own) for name, own in places.items() if len(own) > 1)
    assert {kernels[one].op for one in own} == {"copy"}
    found = harvest(GRAPH, (named(name, 2.0),), TENSORRT)
    shares = [kernels[one].moved / sum(kernels[other].moved for other in own) for one in own]
    assert [found.ms[one] for one in own] == pytest.approx([2.0 * share for share in shares])


@rules
def test_every_node_but_concatenations_in_place_has_a_kernel(rules):
    _, places = kernel_places(GRAPH, rules)
    missing = {layer.op.__class__.__name__ for layer in GRAPH.layers() if layer.name not in places}
    assert missing <= ({"Concat"} if rules is TENSORRT else set())


class TestScaling:
    HARVEST = harvest(GRAPH, layer_times(GRAPH, ONNX_RUNTIME, overhead_ms=0.01), ONNX_RUNTIME)

    def test_kernel_times_sum_to_the_time_end_to_end(self):
        assert sum(self.HARVEST.scaled_to(7.5, 0.01)) == pytest.approx(7.5)
        assert sum(self.HARVEST.scaled_to(7.5, 0.0)) == pytest.approx(7.5)

    def test_without_the_profilers_share_the_times_are_true(self):
        truth = [kernel_ms(kernel) for kernel in self.HARVEST.kernels]
        found = self.HARVEST.scaled_to(sum(truth), 0.01)
        large = [(f, t) for f, t in zip(found, truth, strict=True) if t > 0.01]
        assert len(large) > 20
        assert all(f == pytest.approx(t, rel=0.05) for f, t in large)

    def test_no_kernel_is_scaled_to_nothing(self):
        found = self.HARVEST.scaled_to(1.0, 1e3)
        plain = self.HARVEST.scaled_to(1.0, 0.0)
        assert found == pytest.approx(plain), "all keep the same share"
        assert 0 < LARGEST_OVERHEAD < 1

    def test_a_kernel_that_no_layer_computes_has_no_time(self):
        (name,) = conv_names(GRAPH, 1)
        found = harvest(GRAPH, (named(name),), TENSORRT).scaled_to(2.0, 0.0)
        assert sorted(found)[-2:] == [0.0, 2.0]
