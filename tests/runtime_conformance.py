"""What every runtime must do, whatever it runs on.

A test class inherits from `RuntimeConformance` and overrides the fixture `runtime`, and `model` where the small model
does not suit it::

    class TestMyRuntime(RuntimeConformance):
        @pytest.fixture
        def runtime(self) -> Runtime:
            return MyRuntime()
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scaler.devices import PRECISIONS
from scaler.profiling.measurement import Measurement, Round, read_measurement, write_measurement
from scaler.runtimes.protocol import LayerTime, ModelRejectedError, Runtime

INPUT_NAME = "image"


def small_model(
    path: Path, channels: int = 8, *, dtype: type = np.float32, kinds: dict[str, str] | None = None
) -> Path:
    """Write a chain of two convolutions with activations, a sum and a pooling, named like scaler names its layers.

    Args:
        path: Where to.
        channels: Width.
        dtype: Of the weights and activations.
        kinds: Operators to replace by others, by the node's name.
    """
    random = np.random.default_rng(0)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def weights(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape).astype(dtype), name)

    def node(kind: str, name: str, *inputs: str, **attributes: object) -> onnx.NodeProto:
        return helper.make_node((kinds or {}).get(name, kind), inputs, [name], name=name, **attributes)

    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", "stem.conv", INPUT_NAME, "stem.conv/weight", "stem.conv/bias", **same),
        node("Relu", "stem.act", "stem.conv"),
        node("Conv", "body.conv", "stem.act", "body.conv/weight", "body.conv/bias", **same),
        node("Add", "body.add", "body.conv", "stem.act"),
        node("Sigmoid", "body.swish/sigmoid", "body.add"),
        node("Mul", "body.swish", "body.add", "body.swish/sigmoid"),
        node("MaxPool", "body.pool", "body.swish", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "head.conv", "body.pool", "head.conv/weight", kernel_shape=[1, 1]),
    ]
    constants = [
        weights("stem.conv/weight", channels, 3, 3, 3),
        weights("stem.conv/bias", channels),
        weights("body.conv/weight", channels, channels, 3, 3),
        weights("body.conv/bias", channels),
        weights("head.conv/weight", 4, channels, 1, 1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(INPUT_NAME, element, (1, 3, 32, 32))],
        [helper.make_tensor_value_info("head.conv", element, (1, 4, 16, 16))],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    path.write_bytes(model.SerializeToString())
    return path


def names_of(model: Path) -> list[str]:
    """Names of the nodes in execution order."""
    return [node.name for node in onnx.load(str(model)).graph.node]


def known_places(model: Path) -> dict[str, int]:
    """Place of each node in execution order, by its name and by those of the tensors that it makes."""
    nodes = onnx.load(str(model)).graph.node
    return {name: place for place, node in enumerate(nodes) for name in (node.name, *node.output)}


def is_one_line(error: Exception) -> bool:
    text = str(error)
    return bool(text.strip()) and "\n" not in text


class RuntimeConformance:
    """Tests of an implementation of `Runtime`."""

    @pytest.fixture
    def runtime(self) -> Runtime:
        raise NotImplementedError("override the fixture `runtime`")

    @pytest.fixture
    def model(self, tmp_path: Path) -> Path:
        return small_model(tmp_path / "small.onnx")

    @pytest.fixture
    def wider_model(self, tmp_path: Path) -> Path:
        return small_model(tmp_path / "wider.onnx", channels=16)

    @pytest.mark.parametrize("runs", [1, 7])
    def test_samples_are_as_many_as_asked_for_positive_and_finite(self, runtime: Runtime, model: Path, runs: int):
        with runtime.prepare(model) as session:
            samples = session.time(runs)
        assert samples.shape == (runs,)
        assert samples.dtype == np.float64
        assert np.isfinite(samples).all()
        assert (samples > 0).all()

    def test_layer_times_are_finite_and_not_negative_and_not_all_zero(self, runtime: Runtime, model: Path):
        with runtime.prepare(model) as session:
            layers = session.profile(5)
        assert all(isinstance(layer, LayerTime) and layer.name for layer in layers)
        assert all(np.isfinite(layer.ms) and layer.ms >= 0 for layer in layers)
        assert sum(layer.ms for layer in layers) > 0

    def test_layers_name_nodes_that_the_model_has(self, runtime: Runtime, model: Path):
        with runtime.prepare(model) as session:
            named = [name for layer in session.profile(5) for name in layer.nodes]
        assert set(named) <= set(known_places(model))

    def test_no_convolution_is_lost(self, runtime: Runtime, model: Path):
        """A layer names it, or what is fused behind it: the nodes up to the next one."""
        places = known_places(model)
        convolutions = [places[n.name] for n in onnx.load(str(model)).graph.node if n.op_type == "Conv"]
        with runtime.prepare(model) as session:
            named = {places[name] for layer in session.profile(5) for name in layer.nodes}
        for start, end in pairwise([*convolutions, len(places)]):
            assert named.intersection(range(start, end))

    def test_layers_come_in_execution_order(self, runtime: Runtime, model: Path):
        places = known_places(model)
        with runtime.prepare(model) as session:
            layers = session.profile(5)
        last = [max(places[name] for name in layer.nodes) for layer in layers if layer.nodes]
        assert len(last) > 2
        assert last == sorted(last)

    def test_closing_twice_does_no_harm(self, runtime: Runtime, model: Path):
        session = runtime.prepare(model)
        session.time(1)
        session.close()
        session.close()

    def test_a_session_can_be_closed_inside_its_block(self, runtime: Runtime, model: Path):
        with runtime.prepare(model) as session:
            session.close()

    def test_an_error_in_the_block_goes_through(self, runtime: Runtime, model: Path):
        with pytest.raises(ZeroDivisionError), runtime.prepare(model):
            raise ZeroDivisionError

    def test_conditions_are_complete_and_can_be_stored(self, runtime: Runtime, model: Path, tmp_path: Path):
        runtime.prepare(model).close()
        conditions = runtime.conditions()
        assert conditions.runtime == runtime.name
        assert conditions.precision in PRECISIONS
        assert conditions.batch >= 1
        assert all(mhz > 0 for mhz in conditions.clocks_mhz.values())
        stored = Measurement(network="n", params={}, conditions=conditions, rounds=(Round((1.0,), (1.0,)),))
        write_measurement(stored, tmp_path / "measured.json")
        assert read_measurement(tmp_path / "measured.json").conditions == conditions

    def test_a_missing_file_is_refused_in_one_line(self, runtime: Runtime, tmp_path: Path):
        with pytest.raises(ModelRejectedError) as refused:
            runtime.prepare(tmp_path / "absent.onnx")
        assert is_one_line(refused.value)
        assert "absent.onnx" in str(refused.value)

    @pytest.mark.parametrize("damage", ["cut off", "text", "empty"])
    def test_a_damaged_model_is_refused_in_one_line(self, runtime: Runtime, model: Path, damage: str):
        content = model.read_bytes()
        model.write_bytes({"cut off": content[: len(content) // 2], "text": b"not a model\n", "empty": b""}[damage])
        with pytest.raises(ModelRejectedError) as refused:
            runtime.prepare(model)
        assert is_one_line(refused.value)
        assert model.name in str(refused.value)

    def test_a_refused_model_leaves_the_runtime_usable(self, runtime: Runtime, model: Path, tmp_path: Path):
        with pytest.raises(ModelRejectedError):
            runtime.prepare(tmp_path / "absent.onnx")
        with runtime.prepare(model) as session:
            assert len(session.time(2)) == 2

    def test_two_models_can_take_turns(self, runtime: Runtime, model: Path, wider_model: Path):
        with runtime.prepare(model) as one, runtime.prepare(wider_model) as other:
            for _ in range(2):
                assert (one.time(2) > 0).all()
                assert (other.time(3) > 0).all()

    def test_a_model_stays_usable_when_another_one_is_closed(self, runtime: Runtime, model: Path, wider_model: Path):
        with runtime.prepare(model) as one:
            with runtime.prepare(wider_model) as other:
                other.time(1)
            assert len(one.time(2)) == 2

    def test_timing_goes_on_after_a_profile(self, runtime: Runtime, model: Path):
        with runtime.prepare(model) as session:
            session.time(2)
            first = session.profile(3)
            assert session.time(4).shape == (4,)
            assert [layer.nodes for layer in session.profile(3)] == [layer.nodes for layer in first]
