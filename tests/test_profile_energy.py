"""Energy and memory beside times: measured in blocks of their own, kept, read back, and made into a table's laws."""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_device import (
    ONNX_RUNTIME,
    TINY_EFFORT,
    TINY_SPACE,
    graphs_of,
    make_plan,
    measured,
    network_ms,
)

from scaler.cli.profile_parts import meter, summary
from scaler.errors import FileError
from scaler.graph.graph import Graph
from scaler.latency.energy import why_no_energy
from scaler.latency.fusion import graph_kernels
from scaler.latency.table import read_table, write_table
from scaler.profiling import energy as energies
from scaler.profiling.energy import IDLE_FILE, Meter, measure_energy_of, memory_of, prepared
from scaler.profiling.machine import GPU_EFFORT
from scaler.profiling.measurement import FrameEnergy, Measurement, MemoryMib, read_measurement, write_measurement
from scaler.profiling.networks import write_network
from scaler.profiling.plan_file import Plan
from scaler.profiling.run import run
from scaler.profiling.tabulate import tabulate
from scaler.profiling.tabulate_laws import Laws, laws_of
from scaler.runtimes.fake import FakeRuntime, FakeSession
from scaler.runtimes.onnxruntime_cpu import OnnxRuntimeCpu
from scaler.runtimes.power import PowerLog
from scaler.runtimes.power_fake import FakePower
from scaler.runtimes.power_find import FoundPower
from scaler.runtimes.power_memory import EngineMemory
from scaler.runtimes.protocol import LayerTime, Session

COUNT = 3
EFFORT = replace(TINY_EFFORT, energy_seconds=2.0, idle_seconds=0.01)
NO_SENSORS = FoundPower(None, "no power is measured: there is none here")
TRUTH = (5.0, 4.0, 60.0)
"""Watts, picojoules a MAC, picojoules an element."""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return make_plan(tmp_path, COUNT, space=TINY_SPACE)


def start(plan: Plan, work: Path, power: FoundPower | None, runtime: FakeRuntime | None = None) -> list[Measurement]:
    return run(plan, runtime or FakeRuntime(), work, effort=EFFORT, settle_seconds=0.0, power=power)


# --- a run ---


def test_a_run_with_a_meter_measures_the_energy_of_every_network(plan, tmp_path):
    power, runtime = FakePower({"IN": 5.0, "GPU": 2.0}), FakeRuntime()
    found = start(plan, tmp_path / "work", FoundPower(power, ""), runtime)
    for measurement in found:
        energy = measurement.energy
        assert energy is not None
        assert (energy.source, energy.scope, energy.idle_w) == ("fake", "fake board", 5.0)
        assert energy.frame_ms == pytest.approx(float(np.median(measurement.samples_ms)), rel=0.05)
        assert energy.mj == pytest.approx(5.0 * energy.frame_ms)
        assert energy.rails_mj == pytest.approx({"IN": 5.0 * energy.frame_ms, "GPU": 2.0 * energy.frame_ms})
        assert measurement.memory_mib is None, "the fake tells no memory"
        longest = max(runs for what, model, runs in runtime.calls if (what, model) == ("time", "network.onnx"))
        assert longest * energy.frame_ms >= 2000, "the block is as long as asked for"
    assert power.closed
    assert [read_measurement(tmp_path / "work" / f"{m.network}.json") for m in found] == found


def test_the_energy_block_lies_between_the_times_and_the_layers(plan, tmp_path):
    runtime = FakeRuntime()
    start(plan, tmp_path / "work", FoundPower(FakePower({"IN": 5.0}), ""), runtime)
    calls = [(what, runs) for what, model, runs in runtime.calls if model == "network.onnx"]
    longest = max(runs for what, runs in calls if what == "time")
    place = calls.index(("time", longest))
    assert calls[place + 1][0] == "profile"
    assert calls[place - 1][0] == "time"


def test_idle_power_is_measured_once_a_run_and_kept(plan, tmp_path):
    work = tmp_path / "work"
    start(plan, work, FoundPower(FakePower({"IN": 2.5}), ""))
    kept = json.loads((work / IDLE_FILE).read_text())
    assert (kept["watts"], kept["source"], kept["scope"]) == (2.5, "fake", "fake board")
    (work / f"{plan.networks[0].network}.json").unlink()
    again = start(plan, work, FoundPower(FakePower({"IN": 7.0}), ""))
    assert again[0].energy is not None
    assert again[0].energy.idle_w == 2.5, "the board was idle when the run began, not now"


@pytest.mark.parametrize("damage", ["{", '{"schema_version": 1, "kind": "scaler-idle", "source": "rapl"}'])
def test_an_idle_power_that_is_damaged_or_another_meters_is_measured_again(plan, tmp_path, damage):
    work = tmp_path / "work"
    work.mkdir()
    (work / IDLE_FILE).write_text(damage)
    found = start(plan, work, FoundPower(FakePower({"IN": 3.0}), ""))
    assert found[0].energy is not None
    assert found[0].energy.idle_w == 3.0
    assert json.loads((work / IDLE_FILE).read_text())["watts"] == 3.0


def test_without_a_meter_there_is_a_note_and_nothing_else_changes(plan, tmp_path):
    with_note = start(plan, tmp_path / "note", NO_SENSORS)
    plain = start(plan, tmp_path / "plain", None)
    for noted, bare in zip(with_note, plain, strict=True):
        assert noted.conditions.notes == (*bare.conditions.notes, NO_SENSORS.note)
        assert (noted.energy, noted.error, noted.rounds, noted.layers) == (None, "", bare.rounds, bare.layers)
    assert not (tmp_path / "note" / IDLE_FILE).exists()


def test_a_finished_run_closes_the_meter_too(plan, tmp_path):
    start(plan, tmp_path / "work", None)
    power = FakePower({"IN": 5.0})
    start(plan, tmp_path / "work", FoundPower(power, ""))
    assert power.closed
    assert power.questions == 0


def test_a_board_whose_whole_is_unknown_keeps_its_rails_and_says_so(plan, tmp_path):
    power = FakePower({"A": 1.0, "B": 2.0}, whole=())
    (first, *_) = start(plan, tmp_path / "work", FoundPower(power, "which rail is the whole is not known"))
    assert first.energy is not None
    assert first.energy.mj is None
    assert set(first.energy.rails_mj) == {"A", "B"}
    assert "none of the rails A, B is known to be the whole" in first.energy.notes
    assert "which rail is the whole is not known" in first.conditions.notes


# --- a block ---


class Slow(FakeSession):
    """Says that an inference took so long, and takes no time itself."""

    def __init__(self, ms: float) -> None:
        super().__init__(FakeRuntime(), "slow.onnx", (LayerTime("all", ms, ()),))


class OfAProcess(FakeSession):
    """Takes longer than its inferences: they run in a process that starts, loads and ends."""

    def time(self, runs: int) -> np.ndarray:
        time.sleep(0.002)
        return np.full(runs, 1e-4)


def test_a_block_at_another_speed_says_so():
    energy = measure_energy_of(Slow(12.0), np.array([10.0]), Meter(FakePower({"IN": 5.0})), 0.1)
    assert energy is not None
    assert energy.mj == pytest.approx(60.0, rel=0.05)
    assert any("slower than the timed ones" in note for note in energy.notes)
    energy = measure_energy_of(Slow(10.0), np.array([10.0]), Meter(FakePower({"IN": 5.0})), 0.1)
    assert energy is not None
    assert not any("than the timed ones" in note for note in energy.notes)


def test_without_a_meter_nothing_is_run():
    session = Slow(10.0)
    assert measure_energy_of(session, np.array([10.0]), Meter(None), 1.0) is None
    assert session._runtime.calls == []


def test_a_load_too_short_beside_its_process_gives_no_energy_and_the_reason():
    session: Session = OfAProcess(FakeRuntime(), "net.onnx", ())
    energy = measure_energy_of(session, np.array([1e-4]), Meter(FakePower({"IN": 5.0})), 1e-4)
    assert energy is not None
    assert energy.mj is None
    assert any("let it run longer" in note for note in energy.notes)


def test_of_a_load_with_a_process_of_its_own_only_what_lies_within_it_counts():
    class Clock:
        now = 0.0

    clock = Clock()
    watts = [1.0] * 30 + [9.0] * 60 + [2.0] * 11  # loading, 6 s of load, ending: 0.1 s each
    log = PowerLog(FakePower(lambda question: {"IN": watts[max(0, question - 1)]}), clock=lambda: clock.now)
    log.begin()
    for place in range(1, 101):
        clock.now = 0.1 * place
        log.take()
    log.end()
    assert log.reading().total_w == pytest.approx((25 * 1 + 60 * 9 + 10 * 2) / 95)
    reading = log.reading(last=5.5, tail=1.0)
    assert reading.total_w == pytest.approx(9.0)
    assert reading.samples == 45
    assert reading.error_w == pytest.approx(0.0)
    assert reading.notes == ()


def test_a_session_that_knows_its_memory_is_believed_before_the_process():
    class Engine(FakeSession):
        memory = EngineMemory(running=266.0, building=1225.0)

    engine = Engine(FakeRuntime(), "net.onnx", ())
    assert memory_of(engine, 3.0) == MemoryMib(266.0, 1225.0)
    assert memory_of(Slow(1.0), 41.5) == MemoryMib(41.5)
    assert memory_of(Slow(1.0), None) is None
    Engine.memory = EngineMemory()
    assert memory_of(engine, None) is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux with clear_refs alone")
def test_networks_that_follow_each_other_in_one_process_each_show_their_own_memory(tmp_path):
    """The allocator would give the second one what the first one freed, and it would seem to take nothing."""
    plan, runtime = make_plan(tmp_path, 2), OnnxRuntimeCpu()
    path, grown = tmp_path / "network.onnx", []
    for _ in range(3):
        write_network(graphs_of(plan)[0], plan, path)
        with prepared(runtime, path) as (session, mib):
            memory = memory_of(session, mib)
            assert memory is not None
            assert memory.running is not None
            grown.append(memory.running)
    assert min(grown[1:]) > 0.5 * grown[0] > path.stat().st_size / 2**21


# --- the command ---


def test_the_command_says_why_it_has_no_meter_unless_none_is_wanted(monkeypatch, capsys):
    monkeypatch.setattr("scaler.runtimes.power_find.find_power", lambda: NO_SENSORS)
    assert meter(True) == NO_SENSORS
    assert NO_SENSORS.note in capsys.readouterr().err
    assert meter(False) is None
    assert capsys.readouterr().err == ""


# --- files ---


def test_files_without_energy_are_as_those_of_earlier_versions(plan, tmp_path):
    (first, *_) = measured(plan, graphs_of(plan))
    write_measurement(first, tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    assert {"energy", "memory_mib"}.isdisjoint(content)
    assert read_measurement(tmp_path / "m.json") == first


def test_energy_and_memory_survive_their_file_and_damage_has_its_place(plan, tmp_path):
    (first, *_) = measured(plan, graphs_of(plan))
    energy = FrameEnergy(source="rapl", scope="processor", frame_ms=12.5, mj=None, rails_mj={"package-0": 3.5}, lost=2)
    for known in (energy, replace(energy, mj=300.0, error_mj=2.5, idle_w=8.0, samples=40, notes=("warm",))):
        full = replace(first, energy=known, memory_mib=MemoryMib(running=80.5))
        write_measurement(full, tmp_path / "m.json")
        assert read_measurement(tmp_path / "m.json") == full
    (tmp_path / "m.json").write_text((tmp_path / "m.json").read_text().replace('"frame_ms": 12.5', '"frame_ms": 0'))
    with pytest.raises(FileError) as refused:
        read_measurement(tmp_path / "m.json")
    assert refused.value.where == "energy.frame_ms"


# --- tables ---


def with_energy(measurement: Measurement, graph: Graph, source: str = "ina3221", **changes: object) -> Measurement:
    """What the truth says of a network."""
    kernels = graph_kernels(graph, ONNX_RUNTIME)
    macs, moved = sum(kernel.macs for kernel in kernels), sum(kernel.moved for kernel in kernels)
    ms = network_ms(graph)
    mj = TRUTH[0] * ms + 1e-9 * (TRUTH[1] * macs + TRUTH[2] * moved)
    energy = FrameEnergy(source=source, scope="module", frame_ms=ms, mj=mj, idle_w=1.5, samples=50)
    return replace(measurement, energy=replace(energy, **changes), memory_mib=MemoryMib(20.0 + 1e-6 * moved))


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Plan, list[Graph], list[Measurement]]:
    plan = make_plan(tmp_path_factory.mktemp("many"), 10)
    graphs = graphs_of(plan)
    return plan, graphs, measured(plan, graphs)


def laws(plan: Plan, found: list[Measurement], graphs: list[Graph], error: float = 0.0) -> Laws:
    """Of networks whose time is predicted with an error."""
    ms = np.array([network_ms(graph) for graph in graphs])
    return laws_of(plan, found, graphs, (1 + error) * ms, np.full(len(ms), 0.05))


def test_measurements_with_energy_and_memory_give_both_laws(many):
    plan, graphs, plain = many
    found = laws(plan, [with_energy(m, g) for m, g in zip(plain, graphs, strict=True)], graphs, error=0.04)
    assert found.energy is not None
    law = found.energy
    assert (law.source, law.scope, law.idle_w, law.networks) == ("ina3221", "module", 1.5, 10)
    assert (law.static_w, law.mac_pj, law.element_pj) == pytest.approx(TRUTH, rel=1e-3)
    assert 0.1 < law.error < 4, "the error holds that of the predicted time, in the share that follows the time"
    assert found.memory is not None
    assert found.memory.networks == 10
    assert found.notes == ()


def test_energies_of_another_meter_do_not_mix(many):
    plan, graphs, plain = many
    mixed = [
        with_energy(m, g) if place > 2 else with_energy(m, g, "tegrastats", mj=1e6)
        for place, (m, g) in enumerate(zip(plain, graphs, strict=True))
    ]
    found = laws(plan, mixed, graphs)
    assert found.energy is not None
    assert (found.energy.source, found.energy.networks) == ("ina3221", 7)
    assert found.energy.static_w == pytest.approx(TRUTH[0], rel=1e-3)
    assert found.notes == ("3 networks whose energy another meter took do not count for it",)


def test_too_few_energies_give_no_law_and_the_reason(many):
    plan, graphs, plain = many
    few = [with_energy(m, g) if place < 4 else m for place, (m, g) in enumerate(zip(plain, graphs, strict=True))]
    found = laws(plan, few, graphs)
    assert found.energy is None
    assert why_no_energy("host", found.notes).endswith("4 have their energy, too few for a law")


def test_blocks_at_another_speed_are_counted(many):
    plan, graphs, plain = many
    note = "the energy block ran 9 % slower than the timed ones"
    noted = [with_energy(m, g, notes=(note,)) for m, g in zip(plain, graphs, strict=True)]
    assert laws(plan, noted, graphs).notes == (
        "10 of 10 networks ran at another speed while their energy was measured",
    )


def test_rails_without_a_whole_give_no_law(many):
    plan, graphs, plain = many
    rails = [with_energy(m, g, mj=None) for m, g in zip(plain, graphs, strict=True)]
    assert laws(plan, rails, graphs).energy is None
    assert laws(plan, plain, graphs) == Laws(None, None, ())


def test_a_table_is_written_with_its_laws_and_its_summary_tells_them(tmp_path, monkeypatch):
    monkeypatch.setattr("scaler.profiling.tabulate.fit_hypers", lambda *_: {})  # which takes seconds
    plan = make_plan(tmp_path, 6)
    graphs = graphs_of(plan)
    found = [with_energy(m, g) for m, g in zip(measured(plan, graphs, noise=0.01), graphs, strict=True)]
    table = tabulate(plan, found, graphs).table
    assert read_table(write_table(table, tmp_path)).info.energy is not None
    assert table.info.memory is not None
    lines = summary(table, tmp_path / "t.toml").splitlines()
    assert lines[-2].startswith("energy (ina3221, module, idle 1.5 W) of 6 networks: left out, their mean error is")
    assert lines[-1].startswith("memory while running of 6 networks")


def test_the_block_on_a_device_is_as_long_as_sensors_and_a_process_need():
    assert GPU_EFFORT.energy_seconds - energies.SETTLE_SECONDS - energies.TAIL_SECONDS >= 4
