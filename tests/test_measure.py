"""Timing a network beside the reference: drift and neighbours cancel, failures are recorded, doubts are told."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_device import TINY_EFFORT

from scaler.profiling import measure as measuring
from scaler.profiling.measure import COLD_RUNS, Reference, measure
from scaler.profiling.measurement import LARGEST_SPREAD, LEAST_QUIET, Measurement
from scaler.runtimes.fake import FakeRuntime, FakeSession
from scaler.runtimes.protocol import LayerTime

LAYERS = {
    "reference.onnx": (LayerTime("r", 2.0, ("r",)),),
    "network.onnx": (LayerTime("a", 3.0, ("a",)), LayerTime("b", 1.5, ("b",))),
    "slow.onnx": (LayerTime("a", 80.0, ("a",)),),
}
TRUE_RATIO = 4.5 / 2.0
EFFORT = replace(TINY_EFFORT, rounds=6, block_seconds=0.009, reference_seconds=0.006)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in LAYERS:
        (tmp_path / name).touch()
    return tmp_path


def fake(**options: Any) -> FakeRuntime:
    return FakeRuntime(lambda model: LAYERS[model.name], **options)


def measured(
    runtime: FakeRuntime, folder: Path, effort: measuring.Effort = EFFORT, *, name: str = "network", **options: Any
) -> tuple[Measurement, Reference]:
    with runtime.prepare(folder / "reference.onnx") as session:
        reference = Reference(session, effort)
        reference.settle(0.0)
        for _ in range(30):
            reference.block()  # so that it knows the quiet machine
        found = measure(
            runtime, folder / f"{name}.onnx", reference, network="n", params={"p": 1}, effort=effort, **options
        )
    return found, reference


def ratio(found: tuple[Measurement, Reference]) -> float:
    measurement, reference = found
    return measurement.ratio(reference.quiet_ms)


def neighbour(slowed: Mapping[str, float], busy: Callable[[float], bool], **options: Any) -> FakeRuntime:
    """A device with a neighbour that slows each model by a factor of its own."""

    def slowdown(seconds: float) -> float:
        return slowed[runtime.calls[-1][1]] if busy(seconds) else 1.0

    runtime = fake(slowdown=slowdown, **options)
    return runtime


def test_without_noise_the_ratio_is_exact(folder):
    measurement, reference = measured(fake(), folder)
    assert measurement.ratio(reference.quiet_ms) == pytest.approx(TRUE_RATIO)
    assert (measurement.network, measurement.params, measurement.error) == ("n", {"p": 1}, "")
    assert len(measurement.rounds) == EFFORT.rounds
    assert measurement.tries == 1
    assert measurement.warnings == ()
    assert measurement.seconds > 0


def test_noise_averages_out(folder):
    errors = [ratio(measured(fake(noise=0.03, seed=seed), folder)) / TRUE_RATIO - 1 for seed in range(12)]
    assert np.abs(errors).max() < 0.03
    assert abs(np.mean(errors)) < 0.008


@pytest.mark.parametrize(
    "slowdown",
    [lambda s: 1 + 0.5 * s, lambda s: 2 - 0.5 * s, lambda s: 1 + 0.15 * np.sin(3 * s)],
    ids=["slower and slower", "faster and faster", "to and fro"],
)
def test_drift_cancels(folder, slowdown):
    found = measured(fake(noise=0.01, slowdown=slowdown), folder, replace(EFFORT, rounds=8))
    assert ratio(found) == pytest.approx(TRUE_RATIO, rel=0.02)


@pytest.mark.parametrize("period", [0.2, 0.6])
def test_a_busy_neighbour_that_slows_the_two_differently_is_left_out(folder, period):
    """It slows the reference by half and the network threefold, for a third of each period."""
    slowed = {"reference.onnx": 1.5, "network.onnx": 3.0}
    runtime = neighbour(slowed, lambda seconds: seconds % period < period / 3, noise=0.01)
    measurement, reference = measured(runtime, folder, replace(EFFORT, rounds=9, patience=0.5))
    quiet = measurement.quiet_rounds(reference.quiet_ms)
    assert len(quiet) >= LEAST_QUIET
    assert len(measurement.rounds) > len(quiet), "some rounds were busy"
    assert measurement.ratio(reference.quiet_ms) == pytest.approx(TRUE_RATIO, rel=0.03)
    everything = np.median([r.ratio for r in measurement.rounds])
    assert abs(everything / TRUE_RATIO - 1) >= abs(measurement.ratio(reference.quiet_ms) / TRUE_RATIO - 1)


def test_a_neighbour_that_never_rests_is_not_waited_for_without_end(folder):
    slowed = {"reference.onnx": 1.5, "network.onnx": 3.0}
    runtime = neighbour(slowed, lambda _: len(runtime.calls) > 60)
    measurement, reference = measured(runtime, folder)
    assert len(measurement.rounds) >= EFFORT.rounds
    assert measurement.quiet_rounds(reference.quiet_ms) == measurement.rounds, "there are no others"


def test_a_neighbour_that_rests_only_while_one_looks_comes_to_an_end(folder):
    """Quiet whenever the measurement waits, busy as soon as a round begins."""

    def busy(_: float) -> bool:
        timed = [name for what, name, _ in runtime.calls if what == "time"]
        return timed.count("network.onnx") > 0 and "network.onnx" in timed[-3:]

    runtime = neighbour({"reference.onnx": 1.5, "network.onnx": 3.0}, busy)
    measurement, _ = measured(runtime, folder)
    assert len(measurement.rounds) >= EFFORT.rounds


def test_a_spread_that_stays_is_retried_and_flagged(folder):
    measurement, reference = measured(fake(noise=0.5), folder)
    assert measurement.spread(reference.quiet_ms) > LARGEST_SPREAD
    assert measurement.tries == EFFORT.tries
    assert len(measurement.warnings) == 1
    assert "the rounds spread over" in measurement.warnings[0]
    assert f"after {EFFORT.tries} tries" in measurement.warnings[0]


def test_a_spread_that_goes_is_neither_kept_nor_flagged(folder):
    runtime = fake(slowdown=lambda _: float(rng.uniform(1, 3)) if busy() else 1.0)
    rng = np.random.default_rng(0)

    def busy() -> bool:
        """During the first six rounds the network alone is shaken."""
        calls = [name for what, name, _ in runtime.calls if what == "time"]
        return calls[-1] == "network.onnx" and calls.count("network.onnx") <= 1 + EFFORT.rounds

    measurement, reference = measured(runtime, folder, replace(EFFORT, block_seconds=0.0001))
    assert measurement.tries == 2
    assert measurement.warnings == ()
    assert measurement.ratio(reference.quiet_ms) == pytest.approx(TRUE_RATIO)


@pytest.mark.parametrize("failure", ["rejected", "out of memory", "crash"])
def test_a_network_that_fails_becomes_an_error_in_one_line(folder, failure):
    measurement, _ = measured(fake(failures={"network.onnx": failure}), folder)
    assert "network.onnx" in measurement.error
    assert "\n" not in measurement.error
    assert (measurement.rounds, measurement.layers) == ((), ())
    assert measurement.seconds >= 0


def test_a_missing_file_becomes_an_error(folder):
    measurement, _ = measured(fake(), folder, name="absent")
    assert "absent.onnx" in measurement.error


def test_a_bug_is_no_measurement(folder):
    runtime = fake()
    with runtime.prepare(folder / "reference.onnx") as session:
        reference = Reference(session, EFFORT)
        runtime.layers = lambda _: 1 / 0
        with pytest.raises(ZeroDivisionError):
            measure(runtime, folder / "network.onnx", reference, network="n", params={}, effort=EFFORT)


def test_reference_and_network_take_turns_and_the_profile_comes_last(folder):
    runtime = fake()
    measured(runtime, folder)
    calls = runtime.calls[[call[0] for call in runtime.calls].index("prepare", 1) :]
    names = [(what, name.removesuffix(".onnx")) for what, name, _ in calls]
    turns = [("time", "reference"), *[("time", "network"), ("time", "reference")] * EFFORT.rounds]
    assert names == [
        ("prepare", "network"),
        ("time", "network"),
        *turns,
        ("time", "reference"),
        ("profile", "network"),
        ("time", "reference"),
    ]


def test_the_first_inferences_of_a_block_are_not_counted(folder):
    runtime = fake()
    measurement, reference = measured(runtime, folder)
    counts = {(what, name): count for what, name, count in runtime.calls[-8:]}
    assert counts["time", "network.onnx"] == COLD_RUNS + len(measurement.rounds[-1].network_ms)
    assert counts["time", "reference.onnx"] == COLD_RUNS + reference.runs
    assert len(measurement.rounds[-1].reference_ms) == 2 * reference.runs
    assert len(measurement.rounds[-1].network_ms) == 2, "two of 4.5 ms fill a block of 9 ms"


def test_a_long_inference_is_timed_once_a_block_and_always_counts(folder):
    measurement, _ = measured(fake(), folder, name="slow")
    assert {len(r.network_ms) for r in measurement.rounds} == {1}


def test_rounds_go_on_until_the_network_has_had_its_time(folder):
    measurement, _ = measured(fake(), folder, replace(EFFORT, quiet_seconds=0.2))
    assert measurement.samples_ms.sum() >= 200
    assert len(measurement.rounds) > EFFORT.rounds


def test_layers_are_those_of_the_profile_and_only_where_wanted(folder):
    with_layers, _ = measured(fake(), folder)
    without, _ = measured(fake(), folder, profile=False)
    assert [(layer.name, layer.ms) for layer in with_layers.layers] == [("a", 3.0), ("b", 1.5)]
    assert without.layers == ()
    assert without.rounds


def test_a_profile_beside_a_busy_neighbour_is_repeated_and_the_quieter_one_kept(folder):
    runtime = neighbour(
        {"reference.onnx": 1.5, "network.onnx": 3.0},
        lambda _: any(call[0] == "profile" for call in runtime.calls[-2:]) and count() == 1,
    )

    def count() -> int:
        return [what for what, _, _ in runtime.calls].count("profile")

    measurement, _ = measured(runtime, folder)
    assert count() == 2
    assert [layer.ms for layer in measurement.layers] == [3.0, 1.5]


def test_a_profile_that_fails_becomes_an_error(folder, monkeypatch):
    def crash(self: FakeSession, runs: int) -> None:
        self._runtime.failures[self._model] = "crash"
        self.time(runs)

    monkeypatch.setattr(FakeSession, "profile", crash)
    measurement, _ = measured(fake(), folder)
    assert "crashed" in measurement.error
    assert measurement.rounds == ()


def test_throttling_is_told(folder):
    measurement, _ = measured(fake(throttle_after=0.0), folder)
    assert measurement.conditions.throttled
    assert measurement.warnings == ("the device reports that it was throttled",)


def test_the_core_on_which_the_reference_is_fastest_is_chosen(folder, monkeypatch):
    speed = {2: 1.3, 5: 1.0, 7: 1.8}
    pinned: list[set[int]] = [{2}]
    monkeypatch.setattr(measuring.os, "sched_setaffinity", lambda _, cores: pinned.append(set(cores)), raising=False)
    runtime = fake(slowdown=lambda _: speed[min(pinned[-1])])
    with runtime.prepare(folder / "reference.onnx") as session:
        reference = Reference(session, EFFORT, cores=(2, 5, 7))
        reference.move_to_quiet_core()
    assert pinned[1:] == [{2}, {5}, {7}, {5}]
    assert reference.is_quiet
