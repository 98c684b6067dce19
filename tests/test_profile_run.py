"""A run of a plan: resumed after any death, never twice, never mixed, and nothing lost."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_device import TINY_EFFORT, TINY_SPACE, make_plan

from scaler.errors import FileError, UserError
from scaler.profiling import run as running
from scaler.profiling.measurement import Measurement, read_measurement
from scaler.profiling.plan_file import Plan, write_plan
from scaler.profiling.run import DEATHS, run
from scaler.runtimes.fake import FakeRuntime
from scaler.runtimes.protocol import Runtime

COUNT = 4


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(tmp_path, COUNT, space=TINY_SPACE)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"


def start(plan: Plan, work: Path, runtime: Runtime | None = None, **options: Any) -> list[Measurement]:
    return run(plan, runtime or FakeRuntime(), work, effort=TINY_EFFORT, settle_seconds=0.0, **options)


def names(plan: Plan) -> list[str]:
    return [planned.network for planned in plan.networks]


def prepared(runtime: FakeRuntime) -> int:
    """How many networks were prepared, the reference left out."""
    return sum(call[:2] == ("prepare", "network.onnx") for call in runtime.calls)


class Interrupts(FakeRuntime):
    """Raises an exception while the n-th network is timed."""

    def __init__(self, number: int, error: BaseException) -> None:
        super().__init__()
        self.number, self.error = number, error

    def samples(self, ms: float, runs: int) -> np.ndarray:
        if prepared(self) == self.number:
            raise self.error
        return super().samples(ms, runs)


def test_all_networks_are_measured_in_the_plans_order_and_kept(plan, work):
    told: list[tuple[int, int, str]] = []
    found = start(plan, work, progress=lambda *done: told.append(done))
    assert [m.network for m in found] == names(plan)
    assert [m.params for m in found] == [planned.params for planned in plan.networks]
    assert all(m.rounds and m.layers and not m.error for m in found)
    assert [read_measurement(work / f"{m.network}.json") for m in found] == found
    assert [done[:2] for done in told] == [(place, COUNT) for place in range(1, COUNT + 1)]
    assert {path.name for path in work.iterdir()} == {"plan.json", *(f"{name}.json" for name in names(plan))}


def test_a_finished_run_measures_nothing_again(plan, work):
    first = start(plan, work)
    runtime = FakeRuntime()
    assert start(plan, work, runtime) == first
    assert runtime.calls == []


def test_a_longer_ratio_belongs_to_the_larger_picture(plan, work):
    found = {m.params["resolution"]: m.ratio(1.0) for m in start(plan, work) if m.params["rfcr"] == 0}
    assert len(found) > 1
    assert sorted(found, key=found.__getitem__) == sorted(found)


def test_a_run_can_do_without_layers(plan, work):
    assert all(m.rounds and m.layers == () for m in start(plan, work, profile=False))


@pytest.mark.parametrize("number", [1, 3])
def test_an_interrupt_keeps_what_is_done_and_the_rest_follows(plan, work, number):
    for _ in range(DEATHS + 1):  # however often: an interrupt is no death
        with pytest.raises(KeyboardInterrupt):
            start(
                plan, work, Interrupts(1 if (work / f"{names(plan)[0]}.json").exists() else number, KeyboardInterrupt())
            )
        done = [name for name in names(plan) if (work / f"{name}.json").exists()]
        assert done == names(plan)[: number - 1]
    runtime = FakeRuntime()
    found = start(plan, work, runtime)
    assert prepared(runtime) == COUNT - len(done)
    assert all(m.rounds for m in found)


def test_an_unexpected_error_is_not_swallowed(plan, work):
    with pytest.raises(ZeroDivisionError):
        start(plan, work, Interrupts(2, ZeroDivisionError()))


def test_a_network_that_fails_is_recorded_and_the_others_are_measured(plan, work):
    class Picky(FakeRuntime):
        def prepare(self, model: Path) -> Any:
            self.failures = {"network.onnx": "rejected"} if prepared(self) == 1 else {}
            return super().prepare(model)

    told: list[str] = []
    found = start(plan, work, Picky(), progress=lambda _, __, word: told.append(word))
    assert [bool(m.error) for m in found] == [False, True, False, False]
    assert read_measurement(work / f"{names(plan)[1]}.json").error == found[1].error
    assert "failed: network.onnx" in told[1]


def test_every_network_may_fail(plan, work):
    found = start(plan, work, FakeRuntime(failures={"network.onnx": "rejected"}))
    assert all(m.error for m in found)


def test_a_reference_that_cannot_run_is_one_clear_line(plan, work):
    with pytest.raises(UserError, match=r"reference\.onnx") as refused:
        start(plan, work, FakeRuntime(failures={"reference.onnx": "rejected"}))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [{"batch": 2}, {"opset": 12}, {"networks": ()}], ids=str)
def test_a_folder_of_another_plan_is_refused(plan, work, change):
    start(plan, work)
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    with pytest.raises(UserError, match="holds the measurements of another plan; start anew with --restart"):
        start(replace(plan, **change), work)
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"power_mode": "MAXN"}, "measured with power mode fake, now it is MAXN"),
        ({"precision": "fp16"}, "measured with precision fp32, now it is fp16"),
        ({"batch": 2}, "measured with batch 1, now it is 2"),
    ],
)
def test_measurements_under_other_conditions_are_not_mixed(plan, work, options, said):
    start(plan, work)
    with pytest.raises(UserError, match=said) as refused:
        start(plan, work, FakeRuntime(**options))
    assert "\n" not in str(refused.value)


def test_a_damaged_plan_in_the_folder_is_refused_by_name(plan, work):
    start(plan, work)
    (work / "plan.json").write_text('{"schema_version": 1, "ki')
    with pytest.raises(FileError, match=r"plan\.json"):
        start(plan, work)


def test_a_space_that_has_changed_is_refused(plan, work):
    Path(plan.space).write_text(TINY_SPACE.replace("256]", "288]"))
    with pytest.raises(UserError, match="has changed since the plan was made"):
        start(plan, work)


def test_an_unknown_data_set_is_refused(plan, work):
    with pytest.raises(UserError, match="unknown data set 'vox'"):
        start(replace(plan, dataset="vox"), work)


@pytest.mark.parametrize("damage", ["cut off", "empty", "not a number"])
def test_a_damaged_file_is_measured_again_and_the_others_stay(plan, work, damage):
    first = start(plan, work)
    path = work / f"{names(plan)[2]}.json"
    text = path.read_text()
    path.write_text({"cut off": text[:500], "empty": "", "not a number": text.replace("[", "[NaN, ", 1)}[damage])
    runtime = FakeRuntime()
    again = start(plan, work, runtime)
    assert prepared(runtime) == 1
    assert read_measurement(path) == again[2]
    assert again[2].rounds
    assert [m for place, m in enumerate(again) if place != 2] == [m for place, m in enumerate(first) if place != 2]


def test_a_doubtful_network_gets_a_second_look_and_the_better_is_kept(plan, work):
    class Shaky(FakeRuntime):
        """Shakes the second network the first time."""

        def samples(self, ms: float, runs: int) -> np.ndarray:
            times = super().samples(ms, runs)
            shaken = prepared(self) == 2 and self.calls[-1][:2] == ("time", "network.onnx")
            return times * np.random.default_rng(len(self.calls)).uniform(1, 4) if shaken else times

    runtime = Shaky()
    found = start(plan, work, runtime)
    assert prepared(runtime) == COUNT + 1
    assert found[1].warnings == ()
    assert found[1].tries == TINY_EFFORT.tries + 1, "both looks are counted"
    assert read_measurement(work / f"{found[1].network}.json") == found[1]


def test_a_second_look_that_is_no_better_changes_nothing(plan, work):
    class Worse(FakeRuntime):
        """Shakes the second network, the second time it fails."""

        def samples(self, ms: float, runs: int) -> np.ndarray:
            times = super().samples(ms, runs)
            shaken = prepared(self) == 2 and self.calls[-1][:2] == ("time", "network.onnx")
            return times * np.random.default_rng(len(self.calls)).uniform(1, 4) if shaken else times

        def prepare(self, model: Path) -> Any:
            self.failures = {"network.onnx": "crash"} if prepared(self) == COUNT else {}
            return super().prepare(model)

    found = start(plan, work, Worse())
    assert found[1].rounds
    assert found[1].warnings
    assert not found[1].error


def test_the_search_for_a_quiet_core_leaves_the_process_where_it_was(plan, work, monkeypatch):
    pinned: list[set[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda _, cores: pinned.append(set(cores)), raising=False)
    start(plan, work, cores=(0, 1))
    assert len(pinned) > 2
    assert pinned[-1] == {0, 1}


KILLED = """
import os, signal, sys
from pathlib import Path

from synthetic_device import TINY_EFFORT

from scaler.profiling import run as running
from scaler.profiling.plan_file import read_plan
from scaler.runtimes.fake import FakeRuntime

plan, work, death, where = read_plan(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


class Dies(FakeRuntime):
    def samples(self, ms, runs):
        timed = sum(call[:2] == ("prepare", "network.onnx") for call in self.calls)
        if where == "timing" and timed == death:
            die()
        return super().samples(ms, runs)


count = 0
write = running.write_measurement


def write_measurement(measurement, path):
    global count
    count += 1
    if count == death and where == "writing":
        path.with_name(".scaler-half.tmp").write_text("{")
        die()
    write(measurement, path)
    if count == death and where == "written":
        die()


running.write_measurement = write_measurement
running.run(plan, Dies(), work, effort=TINY_EFFORT, settle_seconds=0.0)
"""


def killed(plan: Plan, work: Path, death: int, where: str) -> None:
    """Let a real process die by SIGKILL during its n-th network."""
    path = work.parent / "the plan.json"
    write_plan(plan, path)
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(work), str(death), where],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("death", "where", "kept"), [(1, "timing", 0), (3, "timing", 2), (2, "writing", 1), (2, "written", 2)]
)
def test_a_killed_process_loses_at_most_the_network_at_hand(plan, work, death, where, kept):
    killed(plan, work, death, where)
    done = [name for name in names(plan) if (work / f"{name}.json").exists()]
    assert done == names(plan)[:kept]
    before = [read_measurement(work / f"{name}.json") for name in done]
    runtime = FakeRuntime()
    found = start(plan, work, runtime)
    assert prepared(runtime) == COUNT - kept
    assert found[:kept] == before
    assert [m.network for m in found if m.rounds] == names(plan)


def test_a_network_that_kills_the_process_twice_is_recorded_as_failed_and_skipped(plan, work):
    for _ in range(DEATHS):
        killed(plan, work, 1, "timing")
    runtime = FakeRuntime()
    found = start(plan, work, runtime)
    assert found[0].error == f"the process died {DEATHS} times while it was measured"
    assert found[0].params == plan.networks[0].params
    assert prepared(runtime) == COUNT - 1
    assert all(m.rounds for m in found[1:])


def test_what_has_failed_is_measured_again_when_asked_for(plan, work):
    for _ in range(DEATHS):
        killed(plan, work, 1, "timing")
    assert start(plan, work)[0].error
    assert start(plan, work)[0].error

    runtime = FakeRuntime()
    found = start(plan, work, runtime, retry_failed=True)
    assert prepared(runtime) == 1
    assert all(m.rounds for m in found)
    assert not start(plan, work)[0].error


def test_a_damaged_mark_counts_as_none(plan, work):
    work.mkdir()
    (work / f"{names(plan)[0]}.started").write_text("what?")
    assert all(m.rounds for m in start(plan, work))
    assert not list(work.glob("*.started"))


def test_the_work_folder_is_made_with_its_parents(plan, tmp_path):
    assert len(start(plan, tmp_path / "a" / "b")) == COUNT
    assert running.SETTLE_SECONDS > 0
