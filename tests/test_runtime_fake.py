"""The fake runtime: conformance, and that it pretends what it is told to."""

from pathlib import Path

import numpy as np
import pytest
from runtime_conformance import RuntimeConformance, names_of, small_model

from scaler.runtimes.fake import THROTTLED_FACTOR, FakeNode, FakeRuntime, onnx_layers
from scaler.runtimes.protocol import LayerTime, ModelRejectedError, Runtime, RuntimeFailedError


class TestFakeRuntime(RuntimeConformance):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return FakeRuntime()


class TestNoisyFakeRuntime(RuntimeConformance):
    @pytest.fixture
    def runtime(self) -> Runtime:
        return FakeRuntime(noise=0.1, seed=1, slowdown=lambda seconds: 1 + seconds, throttle_after=1.5)


def two_layers(model: Path) -> tuple[LayerTime, ...]:
    return LayerTime("a", 1.0, ("a",)), LayerTime("b", 0.5, ("b",))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "small.onnx")


def test_layers_are_fused_and_named_in_the_manner_of_tensorrt(model: Path):
    assert [(layer.name, layer.nodes) for layer in onnx_layers(model)] == [
        ("stem.conv + stem.act", ("stem.conv", "stem.act")),
        ("body.conv + body.add", ("body.conv", "body.add")),
        ("PWN(PWN(body.swish/sigmoid), body.swish)", ("body.swish/sigmoid", "body.swish")),
        ("body.pool", ("body.pool",)),
        ("head.conv", ("head.conv",)),
    ]


def test_every_node_is_in_exactly_one_layer(model: Path):
    assert [name for layer in onnx_layers(model) for name in layer.nodes] == names_of(model)


def test_the_cost_of_a_node_sees_its_work(model: Path):
    seen: dict[str, FakeNode] = {}

    def cost(node: FakeNode) -> float:
        seen[node.name] = node
        return 1.0

    layers = onnx_layers(model, cost)
    assert seen["stem.conv"].macs == 32 * 32 * 8 * 27
    assert seen["stem.conv"].moved == 3 * 32 * 32 + 8 * 27 + 8 + 8 * 32 * 32
    assert seen["body.add"].macs == 0
    assert layers[0].ms - layers[3].ms == pytest.approx(1.0), "two nodes against one"


def test_a_model_that_does_more_takes_longer(tmp_path: Path):
    runtime = FakeRuntime()
    medians = [
        np.median(runtime.prepare(small_model(tmp_path / f"{width}.onnx", channels=width)).time(3)) for width in (4, 32)
    ]
    assert medians[0] < medians[1]


def test_without_noise_every_sample_is_the_sum_of_the_layers(model: Path):
    session = FakeRuntime(two_layers).prepare(model)
    assert session.time(4).tolist() == [1.5] * 4
    assert [layer.ms for layer in session.profile(3)] == [1.0, 0.5]


def test_the_same_seed_gives_the_same_noise(model: Path):
    samples = [FakeRuntime(two_layers, noise=0.05, seed=seed).prepare(model).time(400) for seed in (3, 3, 4)]
    assert np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])
    assert np.std(np.log(samples[0])) == pytest.approx(0.05, rel=0.15)


def test_drift_follows_the_clock_of_the_fake(model: Path):
    runtime = FakeRuntime(two_layers, slowdown=lambda seconds: 2.0 if seconds >= 10 else 1.0)
    session = runtime.prepare(model)
    assert session.time(1).tolist() == [1.5]
    runtime.seconds = 10.0
    assert session.time(1).tolist() == [3.0]


def test_the_clock_advances_by_what_is_pretended(model: Path):
    runtime = FakeRuntime(two_layers)
    session = runtime.prepare(model)
    before = runtime.seconds
    session.time(1000)
    assert runtime.seconds - before == pytest.approx(1.5)


def test_throttling_slows_down_and_is_reported(model: Path):
    runtime = FakeRuntime(two_layers, throttle_after=5.0)
    session = runtime.prepare(model)
    assert runtime.conditions().throttled is False
    runtime.seconds = 6.0
    hot = runtime.conditions()
    assert session.time(1).tolist() == [1.5 * THROTTLED_FACTOR]
    assert hot.throttled is True
    assert hot.temperature_c is not None
    assert hot.temperature_c > 90


@pytest.mark.parametrize(
    ("failure", "error"), [("rejected", ModelRejectedError), ("out of memory", RuntimeFailedError)]
)
def test_a_model_fails_while_it_is_prepared_as_told(model: Path, failure, error):
    with pytest.raises(error, match=r"small\.onnx"):
        FakeRuntime(two_layers, failures={"small.onnx": failure}).prepare(model)


def test_a_crash_comes_while_timing(model: Path):
    session = FakeRuntime(two_layers, failures={"small.onnx": "crash"}).prepare(model)
    with pytest.raises(RuntimeFailedError, match="crashed"):
        session.time(1)
    with pytest.raises(RuntimeFailedError, match="crashed"):
        session.profile(1)


def test_only_the_named_model_fails(model: Path):
    runtime = FakeRuntime(two_layers, failures={"other.onnx": "rejected"})
    assert len(runtime.prepare(model).time(2)) == 2


def test_the_calls_are_remembered(model: Path):
    runtime = FakeRuntime(two_layers)
    with runtime.prepare(model) as session:
        session.time(5)
        session.profile(2)
    assert runtime.calls == [("prepare", "small.onnx", 0), ("time", "small.onnx", 5), ("profile", "small.onnx", 2)]
