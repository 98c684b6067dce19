"""The torch module of a graph: its numbers, names and start, and that torch's own tools take it."""

import copy
import pickle
import sys
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from onnx_sessions import picture
from onnx_sessions import run as run_onnx
from unit_graphs import chained, gated, joined, unit_graph

from scaler.cost import graph_cost
from scaler.errors import MissingExtraError
from scaler.export.onnx_model import to_onnx
from scaler.export.weights import random_weights
from scaler.graph.graph import BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Flatten,
    GlobalAveragePool,
    Linear,
    MaxPool,
    Padding,
    Slice,
    SpaceToDepth,
    Upsample,
    WeightedSum,
)
from scaler.models import zoo
from scaler.models.blocks import conv_block
from scaler.models.detectors.families import FAMILIES

torch = pytest.importorskip("torch", reason="torch is not installed")

import torch_reference  # noqa: E402
from torch import Tensor, fx, nn  # noqa: E402

from scaler.training import require_torch  # noqa: E402
from scaler.training.network.module import initialise, load_weights, state_names, to_torch, weights_of  # noqa: E402

WEIGHTS = random_weights(3)


def numbers(outputs: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {label: value.detach().numpy() for label, value in outputs.items()}


def near(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float = 1e-4) -> None:
    """Every output agrees within a share of its largest number, and says something at all."""
    assert list(found) == list(expected)
    for label, value in expected.items():
        assert np.abs(value).max() > 1e-3
        np.testing.assert_allclose(found[label], value, rtol=0, atol=tolerance * np.abs(value).max(), err_msg=label)


def loaded(graph: Graph) -> fx.GraphModule:
    """The module of a graph with numbers that no layer ignores, ready to be used."""
    module = to_torch(graph).eval()
    load_weights(module, graph, WEIGHTS)
    return module


ACTIVATIONS = ("relu", "relu6", "leaky", "swish", "sigmoid", "hard_sigmoid", "hard_swish", "mish")
OPERATORS: dict[str, Callable[[BlockBuilder], object]] = {
    "convolution": chained(Conv(4, 3, bias=True)),
    "convolution padded all around": chained(Conv(4, 3, 2, padding=Padding(1, 1, 1, 1))),
    "convolution padded below and right": chained(Conv(4, 3, 2, padding=Padding(0, 0, 1, 1))),
    "convolution padded above and left": chained(Conv(4, 3, 2, padding=Padding(1, 2, 0, 0))),
    "convolution padded along one side of the map": chained(Conv(4, 3, padding=Padding(1, 0, 1, 0))),
    "grouped convolution": chained(Conv(4, 3, groups=2)),
    "depthwise convolution": chained(Conv(6, 5, 2, 6, Padding(1, 1, 2, 2))),
    "normalisation": chained(BatchNorm(1e-2)),
    "convolution and normalisation": chained(Conv(8, 3), BatchNorm(1e-2)),
    **{kind: chained(Activation(kind)) for kind in ACTIVATIONS},
    "sum of 2": joined(Add(), 2),
    "sum of 3": joined(Add(), 3),
    "weighted sum of 3": joined(WeightedSum(), 3),
    "gate": gated,
    "concatenation of 3": joined(Concat(), 3),
    "pooling": chained(MaxPool(2, 2)),
    "pooling with padding": chained(MaxPool(3, 2, Padding(1, 1, 1, 1))),
    "pooling of negative numbers, padded below and right": chained(Conv(6), MaxPool(3, 2, Padding(0, 0, 1, 1))),
    "pooling of stride 1": chained(MaxPool(5, 1, Padding(2, 2, 2, 2))),
    "enlargement by 4": chained(Upsample(4)),
    "slice": chained(Slice(2, 3)),
    "pixels as channels": chained(SpaceToDepth(2)),
    "flattened": chained(Flatten(), Linear(5)),
    "fully connected": chained(GlobalAveragePool(), Linear(5), Activation("relu"), Linear(3, bias=False)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_computes_what_the_reference_computes(name: str):
    graph, source = unit_graph(OPERATORS[name]), 4 * picture(2, 6, 8, 8)
    with torch.no_grad():
        found = numbers(loaded(graph)(torch.from_numpy(source)))
    near(found, torch_reference.run(graph, WEIGHTS, source), 1e-5)


def detector(family: str, **parameters: object) -> Callable[[], Graph]:
    chosen = FAMILIES[family]
    return lambda: chosen.build(chosen.configure(**parameters, classes=3))


SMALL_RET = {"family": "yolo-ret", "resolution": 160}
NETWORKS: dict[str, Callable[[], Graph]] = {
    "yolo-ret mobilenetv2": detector(**SMALL_RET, backbone="mobilenetv2", width=0.35, drop=2, rfcr=5, shortcut=True),
    "yolo-ret efficientnet bifpn": detector(**SMALL_RET, backbone="efficientnet-b0", drop=2, rfcr=5, neck="bifpn"),
    "yolo-ret vovnet": detector(**SMALL_RET, backbone="vovnet2-19-slim-dw", drop=0),
    "tiny": detector("scaled-yolov4", variant="tiny", rfcr=5, resolution=160),
    "tiny-3l": detector("scaled-yolov4", variant="tiny-3l", resolution=160),
    "csp": detector("scaled-yolov4", variant="csp", width=0.25, depth=0.33, resolution=160),
    "csp yaml": detector("scaled-yolov4", variant="csp", width=0.25, depth=0.33, concat_norm="yaml", resolution=160),
    "p6": detector("scaled-yolov4", variant="p6", width=0.25, depth=0.2, resolution=192),
    "retinanet": detector("retinanet", backbone="resnet-18", width=32, resolution=160),
    "light retinanet": detector("retinanet", backbone="vovnet-27-slim", width=32, lighten="released", resolution=160),
    **{
        name: lambda name=name: zoo.network(name, 64)
        for name in ("mobilenetv2-0.35", "efficientnet-b0", "resnet-18", "yolox-nano")
    },
}  # fmt: skip


def check_against_onnx(graph: Graph) -> None:
    """The module and the file that is written with its numbers compute the same."""
    module, source = loaded(graph), picture(1, *graph.input_shape)
    with torch.no_grad():
        expected = numbers(module(torch.from_numpy(source)))
    near(run_onnx(to_onnx(graph, weights=weights_of(module)), source), expected)
    assert sum(parameter.numel() for parameter in module.parameters()) == graph_cost(graph).trainable_params


@pytest.mark.parametrize("name", NETWORKS)
def test_module_and_onnx_file_of_every_family_agree(name: str):
    check_against_onnx(NETWORKS[name]())


LONGER = ("resnet-101", "resnet-152", "vgg-13", "vgg-16", "vgg-19", "vovnet-57", "vovnet-75", "vovnet-9", "vovnet2-57",
          "vovnet2-9", "yolov8-m", "yolov8-l", "yolov8-x", "yolox-m", "yolox-l", "yolox-x", "retinanet-resnet-34",
          "retinanet-resnet-101", "retinanet-resnet-152", "retinanet-vovnet")  # fmt: skip
"""Names, and beginnings of them, whose blocks another network has too, only not as often."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in zoo.NETWORKS if not name.startswith(LONGER)])
def test_module_and_onnx_file_of_every_published_network_agree(name: str):
    check_against_onnx(zoo.network(name, 256 if name == "yolov4-p7" else 192))


def shared_head() -> Graph:
    """Two scales of one picture, read by one convolution and its batch normalisation."""
    graph = GraphBuilder((3, 16, 16))
    fine = graph.add("fine", conv_block((3, 16, 16), 6, kernel=3, stride=2, activation="relu"), graph.input)
    coarse = graph.add("coarse", conv_block(fine.shape, 6, kernel=3, stride=2, activation="relu"), fine)
    first = graph.add("head.fine", conv_block(fine.shape, 5, kernel=3, activation="relu"), fine)
    second = graph.add(
        "head.coarse", conv_block(coarse.shape, 5, kernel=3, activation="relu"), coarse, weights="head.fine"
    )
    return graph.build("shared", [("fine_out", first), ("coarse_out", second)])


class TestNames:
    def test_the_state_is_named_after_the_layers_in_their_order(self):
        graph = unit_graph(chained(Conv(4, 3, bias=True), BatchNorm(), GlobalAveragePool(), Linear(5)))
        assert [key for key in to_torch(graph).state_dict() if not key.endswith("num_batches_tracked")] == [
            "net.op0.weight",
            "net.op0.bias",
            "net.op1.weight",
            "net.op1.bias",
            "net.op1.running_mean",
            "net.op1.running_var",
            "net.op3.weight",
            "net.op3.bias",
        ]

    def test_every_array_of_every_layer_has_its_key(self):
        graph = NETWORKS["yolo-ret mobilenetv2"]()
        keys = {key for layer in graph.layers() for key in state_names(layer).values()}
        state = {key for key in to_torch(graph).state_dict() if not key.endswith("num_batches_tracked")}
        assert keys == state
        assert {"rfcr.collect.sum.scale", "backbone.stem.unit.bn.running_var"} < keys

    def test_a_word_of_python_gets_a_line_behind_it(self):
        module = loaded(unit_graph(lambda block: block.add("class.conv", Conv(3), 0)))
        assert list(module.state_dict()) == ["net.class_.conv.weight"]
        assert module(torch.ones(1, 6, 8, 8))["out"].any()

    def test_shared_parameters_exist_once_and_learn_from_every_use(self):
        graph = shared_head()
        module = loaded(graph)
        assert not [key for key in module.state_dict() if key.startswith("head.coarse")]
        weight = module.get_parameter("head.fine.unit.conv.weight")
        source, gradients = torch.from_numpy(picture(2, 3, 16, 16)), []
        for labels in (["fine_out"], ["coarse_out"], ["fine_out", "coarse_out"]):
            outputs = module(source)
            module.zero_grad()
            sum(outputs[label].sum() for label in labels).backward()
            gradients.append(weight.grad.clone())
        assert gradients[0].abs().max() > 1e-3
        torch.testing.assert_close(gradients[0] + gradients[1], gradients[2])

    def test_shared_numbers_are_written_once(self):
        graph = shared_head()
        names = [constant.name for constant in to_onnx(graph, weights=weights_of(loaded(graph))).graph.initializer]
        assert len(names) == len(set(names))
        assert not [name for name in names if name.startswith("head.coarse")]


class TestNormalisation:
    def test_a_step_keeps_the_share_of_the_statistics_that_the_operator_says(self):
        module = to_torch(unit_graph(chained(BatchNorm(epsilon=1e-2, momentum=0.97))))
        source = torch.from_numpy(picture(8, 6, 8, 8)) + 2
        module(source)
        norm = module.get_submodule("net.op0")
        assert norm.eps == 1e-2
        torch.testing.assert_close(norm.running_mean, 0.03 * source.mean((0, 2, 3)))

    def test_frozen_statistics_stay(self):
        module = loaded(unit_graph(chained(BatchNorm())))
        before = copy.deepcopy(module.state_dict())
        module(torch.from_numpy(picture(2, 6, 8, 8)))
        assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


class TestStart:
    def test_equal_seeds_start_alike_and_others_do_not(self):
        graph = shared_head()
        first, second, third = (to_torch(graph, seed=seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(value, second[key]) for key, value in first.items())
        assert not torch.equal(first["fine.unit.conv.weight"], third["fine.unit.conv.weight"])

    def test_convolutions_start_after_he_and_the_rest_neutral(self):
        graph = unit_graph(
            chained(Conv(512, 3), Conv(512, 3, groups=512), BatchNorm(), GlobalAveragePool(), Linear(999))
        )
        state = to_torch(graph).state_dict()
        assert state["net.op0.weight"].std() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.05)
        assert state["net.op1.weight"].std() == pytest.approx((2 / 9) ** 0.5, rel=0.05)
        assert state["net.op4.weight"].std() == pytest.approx(0.01, rel=0.05)
        assert (state["net.op2.weight"] == 1).all()
        assert (state["net.op2.running_var"] == 1).all()
        for key in ("net.op2.bias", "net.op2.running_mean", "net.op4.bias"):
            assert (state[key] == 0).all()
        assert (to_torch(unit_graph(joined(WeightedSum(), 3))).state_dict()["net.op.scale"] == 1).all()

    def test_a_used_module_starts_anew(self):
        graph = shared_head()
        module = loaded(graph)
        initialise(module, seed=4)
        fresh = to_torch(graph, seed=4).state_dict()
        assert all(torch.equal(value, fresh[key]) for key, value in module.state_dict().items())

    def test_every_parameter_learns(self):
        graph = NETWORKS["yolo-ret mobilenetv2"]()
        module = to_torch(graph)
        sum(
            value.square().mean() for value in module(torch.from_numpy(picture(2, *graph.input_shape))).values()
        ).backward()
        assert not [name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()]


class TestTools:
    graph = shared_head()
    source = torch.from_numpy(picture(2, 3, 16, 16))

    def expect_the_same(self, run: Callable[[Tensor], Mapping[str, Tensor]]) -> None:
        with torch.no_grad():
            near(numbers(run(self.source)), numbers(loaded(self.graph)(self.source)), 1e-6)

    def test_copies_and_pickles_compute_the_same_and_share_nothing(self):
        module = loaded(self.graph)
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            self.expect_the_same(twin)
            twin.get_parameter("fine.unit.conv.weight").data.zero_()
        self.expect_the_same(module)

    def test_traces(self):
        self.expect_the_same(fx.symbolic_trace(loaded(self.graph)))

    def test_channels_last_computes_the_same_and_stays_so(self):
        module = loaded(self.graph).to(memory_format=torch.channels_last)
        outputs = module(self.source.to(memory_format=torch.channels_last))
        assert all(value.is_contiguous(memory_format=torch.channels_last) for value in outputs.values())
        self.expect_the_same(module)

    def test_numbers_of_a_half_precision_module_are_written_as_single(self):
        module = loaded(self.graph).half().to(memory_format=torch.channels_last)
        layer = next(self.graph.layers())
        (array,) = weights_of(module)(layer).values()
        assert array.dtype == np.float32
        np.testing.assert_allclose(array, WEIGHTS(layer)["weight"], atol=1e-3)

    def test_a_module_takes_pictures_of_other_sizes(self):
        outputs = loaded(self.graph)(torch.zeros(1, 3, 32, 48))
        assert {label: tuple(value.shape) for label, value in outputs.items()} == {
            "fine_out": (1, 5, 16, 24),
            "coarse_out": (1, 5, 8, 12),
        }

    def test_no_map_outlives_its_last_reader(self):
        alive: list[int] = []

        class Watching(fx.Interpreter):
            def run_node(self, node: fx.Node) -> object:
                alive.append(sum(isinstance(value, Tensor) for value in self.env.values()))
                return super().run_node(node)

        graph = zoo.network("resnet-18", 64)
        Watching(loaded(graph)).run(torch.zeros(1, 3, 64, 64))
        assert max(alive) <= 3

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["yolo-ret mobilenetv2", "tiny", "csp", "retinanet", "yolox-nano"])
    def test_compiles_without_a_break_and_exports(self, name: str):
        graph = NETWORKS[name]()
        module, source = loaded(graph), torch.from_numpy(picture(1, *graph.input_shape))
        with torch.no_grad():
            expected = numbers(module(source))
            near(numbers(torch.compile(module, backend="eager", fullgraph=True)(source)), expected, 1e-6)
            near(numbers(torch.export.export(module, (source,)).module()(source)), expected, 1e-6)

    def test_a_name_of_torchs_own_is_refused_at_once(self):
        with pytest.raises(KeyError, match="forward"):
            to_torch(unit_graph(lambda block: block.add("forward.conv", Conv(3), 0)))


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"training needs torch.*scaler-nas\[train\]"):
        require_torch()


def test_layers_without_parameters_are_no_modules():
    module = loaded(zoo.network("yolox-nano", 64))
    leaves = {type(part) for part in module.modules() if not list(part.children())}
    assert leaves == {nn.Conv2d, nn.BatchNorm2d}
