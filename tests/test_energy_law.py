"""The laws of energy and memory: fits, intervals, what a table keeps of them, and what an estimator says."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_device import ONNX_RUNTIME, graphs_of, host_table, make_plan

from scaler.errors import FileError
from scaler.latency.energy import EnergyLaw, EnergyRow, fit_energy, why_no_energy
from scaler.latency.estimator import load_estimator
from scaler.latency.fusion import graph_kernels
from scaler.latency.measured import MeasuredEstimator
from scaler.latency.prediction import Z_90, Prediction
from scaler.latency.running_memory import MemoryLaw, MemoryRow, fit_memory
from scaler.latency.table import LatencyTable, read_table, write_table

TRUTH = (4.5, 6.0, 90.0)
"""Watts, picojoules a MAC, picojoules an element: about a Nano."""
LAW = EnergyLaw(source="ina3221", scope="module", idle_w=1.25, static_w=4.5, mac_pj=6.0, element_pj=90.0, log_sd=0.04,
                networks=40, error=3.2, coverage=90.0)  # fmt: skip
MEMORY = MemoryLaw(constant_mib=30.0, weights=2.0, activations=1.5, log_sd=0.1, networks=12, error=8.0, coverage=91.0)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> LatencyTable:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scaler.profiling.tabulate.fit_hypers", lambda *_: {})  # which takes seconds
        return host_table(tmp_path_factory.mktemp("energy"), 6, energy=LAW, memory=MEMORY)


def estimator_of(table: LatencyTable, overhead_ms: float | None = None) -> MeasuredEstimator:
    found = load_estimator("host", table=table, overhead_ms=overhead_ms)
    assert isinstance(found, MeasuredEstimator)
    return found


def rows(count: int, noise: float = 0.0, time_noise: float = 0.0, seed: int = 0) -> list[EnergyRow]:
    """Networks whose energy follows the truth, and predictions of their times that are off by `time_noise`."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        macs, moved = 10 ** rng.uniform(8, 10), 10 ** rng.uniform(6.5, 8)
        ms = float(1 + 4e-9 * macs + 1e-7 * moved * rng.uniform(0.5, 2))
        mj = (TRUTH[0] * ms + 1e-9 * (TRUTH[1] * macs + TRUTH[2] * moved)) * np.exp(noise * rng.standard_normal())
        predicted = ms * np.exp(time_noise * rng.standard_normal())
        found.append(EnergyRow(ms, float(macs), float(moved), float(mj), float(predicted), time_noise))
    return found


def fitted(found: list[EnergyRow]) -> EnergyLaw:
    law = fit_energy(found, source="fake", scope="fake board", idle_w=1.0)
    assert law is not None
    return law


# --- the law ---


def test_the_law_of_exact_measurements_is_found():
    law = fitted(rows(12))
    assert (law.static_w, law.mac_pj, law.element_pj) == pytest.approx(TRUTH, rel=1e-6)
    assert (law.networks, law.source, law.scope, law.idle_w) == (12, "fake", "fake board", 1.0)
    assert law.error < 1e-6
    assert law.coverage == 100


def test_no_coefficient_is_negative_whatever_the_noise():
    laws = [fitted(rows(8, noise=0.3, seed=seed)) for seed in range(20)]
    assert all(min(law.static_w, law.mac_pj, law.element_pj) >= 0 for law in laws)
    assert any(min(law.static_w, law.mac_pj, law.element_pj) == 0 for law in laws), "the bound was never needed"


def test_networks_that_all_take_the_same_time_and_work_still_give_a_law():
    same = [EnergyRow(10.0, 1e9, 1e7, mj, 10.0, 0.02) for mj in (98, 99, 100, 101, 102, 100)]
    law = fitted(same)
    assert law.mj(np.array([10.0]), np.array([1e9]), np.array([1e7])) == pytest.approx([100], rel=0.01)


def test_too_few_networks_give_no_law():
    assert fit_energy(rows(5), source="fake", scope="fake board", idle_w=None) is None


def test_the_intervals_hold_the_energy_of_networks_that_nobody_saw():
    inside, coverages = [], []
    for seed in range(30):
        everything = rows(60, noise=0.05, time_noise=0.06, seed=seed)
        law, new = fitted(everything[:30]), everything[30:]
        coverages.append(law.coverage)
        ms, macs, moved = (np.array([getattr(row, key) for row in new]) for key in ("predicted_ms", "macs", "moved"))
        doubts, nothing = np.full(len(new), 0.06), np.zeros(len(new))
        frames = Prediction(ms, nothing, ms, doubts, doubts, nothing)
        _, low, high = law.predict(frames, macs, moved)
        inside.append(np.mean([a <= row.mj <= b for a, row, b in zip(low, new, high, strict=True)]))
    assert 0.86 < np.mean(inside) < 0.97
    assert 86 < np.mean(coverages) < 97


def test_the_hosts_work_beside_the_engine_counts_with_idle_power():
    ones = np.ones(1)
    frames = Prediction(10 * ones, 20 * ones, 30 * ones, 0.1 * ones, 0.1 * ones, ones)
    engine = frames._replace(overhead=0 * ones, frame=10 * ones)
    macs, moved = 1e9 * ones, 1e7 * ones
    added = LAW.predict(frames, macs, moved).mean - LAW.predict(engine, macs, moved).mean
    assert added == pytest.approx(20 * 1.25)
    unknown = replace(LAW, idle_w=None)
    added = unknown.predict(frames, macs, moved).mean - unknown.predict(engine, macs, moved).mean
    assert added == pytest.approx(20 * 4.5), "without an idle power that of the running board stands in"


def test_an_uncertain_time_counts_as_far_as_the_energy_follows_it():
    ones = np.ones(1)
    frames = {sd: Prediction(10 * ones, 0 * ones, 10 * ones, sd * ones, sd * ones, ones) for sd in (0.0, 0.3)}
    of = {sd: LAW.predict(frame, 1e9 * ones, 1e7 * ones) for sd, frame in frames.items()}
    static = 4.5 * 10 / of[0.0].mean[0]
    assert np.log(of[0.0].high / of[0.0].mean) == pytest.approx(Z_90 * 0.04)
    assert np.log(of[0.3].high / of[0.3].mean) == pytest.approx(Z_90 * np.hypot(0.04, 0.3 * static))
    assert of[0.0].mean == of[0.3].mean


def test_the_memory_of_networks_is_found_with_its_error():
    rng = np.random.default_rng(3)
    pairs = [(rng.uniform(1, 60), rng.uniform(2, 40)) for _ in range(12)]
    exact = fit_memory([MemoryRow(w, a, 30 + 2 * w + 1.5 * a) for w, a in pairs])
    assert exact is not None
    assert (exact.constant_mib, exact.weights, exact.activations) == pytest.approx((30, 2, 1.5), rel=1e-6)
    shaken = fit_memory([MemoryRow(w, a, (30 + 2 * w + 1.5 * a) * rng.uniform(0.85, 1.15)) for w, a in pairs])
    assert shaken is not None
    assert 3 < shaken.error < 15
    mean, low, high = shaken.predict(10.0, 10.0)
    assert low < 65 < high
    assert low < mean < high
    assert fit_memory([MemoryRow(1.0, 1.0, 40.0)] * 5) is None
    assert fit_memory([MemoryRow(1.0, 1.0, 0.0)] * 12) is None, "a runtime that tells 0 tells nothing"


# --- the table and its estimator ---


def test_a_table_keeps_its_laws(table, tmp_path: Path):
    known = read_table(write_table(table, tmp_path))
    assert known.info.energy == LAW
    assert known.info.memory == MEMORY
    bare = replace(table, info=replace(table.info, energy=None, memory=None))
    known = read_table(write_table(bare, tmp_path / "bare"))
    assert (known.info.energy, known.info.memory) == (None, None)


@pytest.mark.parametrize(
    ("line", "replaced", "place"),
    [
        ("static_w = 4.5", "static_w = -1", "energy.static_w"),
        ('source = "ina3221"', "", "energy.source"),
        ("log_sd = 0.04", "log_sd = 0", "energy.log_sd"),
        ("idle_w = 1.25", "idle_v = 1.25", "energy.idle_v"),
        ("constant_mib = 30", 'constant_mib = "30"', "memory.constant_mib"),
    ],
)
def test_a_damaged_law_is_refused_with_its_place(table, tmp_path: Path, line, replaced, place):
    path = write_table(table, tmp_path)
    path.write_text(path.read_text().replace(line, replaced, 1))
    with pytest.raises(FileError) as refused:
        read_table(path)
    assert refused.value.where == place


def test_a_law_without_any_cost_is_refused(table, tmp_path: Path):
    info = replace(table.info, energy=replace(LAW, static_w=0.0, mac_pj=0.0, element_pj=0.0))
    with pytest.raises(FileError, match="all factors are 0"):
        read_table(write_table(replace(table, info=info), tmp_path))


def test_the_estimator_predicts_energy_from_time_arithmetic_and_memory(table, tmp_path: Path):
    estimator, graph = estimator_of(table), graphs_of(make_plan(tmp_path, 1))[0]
    kernels = graph_kernels(graph, ONNX_RUNTIME)
    macs, moved = sum(kernel.macs for kernel in kernels), sum(kernel.moved for kernel in kernels)
    sums = estimator.sums(graph)
    (ms,) = estimator.predict([sums]).engine
    energy = estimator.energy_mj([sums, sums])
    assert energy is not None
    assert energy.mean == pytest.approx([4.5 * ms + 1e-9 * (6 * macs + 90 * moved)] * 2)
    assert (energy.low < energy.mean).all()
    assert (energy.mean < energy.high).all()


def test_times_that_somebody_knows_better_replace_the_predicted_ones(table, tmp_path: Path):
    estimator, graph = estimator_of(table), graphs_of(make_plan(tmp_path, 1))[0]
    sums = [estimator.sums(graph)]
    usual = estimator.predict(sums)
    slower = usual._replace(engine=2 * usual.engine, frame=2 * usual.frame)
    energy, more = estimator.energy_mj(sums), estimator.energy_mj(sums, slower)
    assert energy is not None
    assert more is not None
    assert more.mean - energy.mean == pytest.approx(4.5 * usual.engine)


def test_a_table_without_energy_predicts_none_and_published_times_neither(table, tmp_path: Path):
    graph = graphs_of(make_plan(tmp_path, 1))[0]
    for estimator in (
        estimator_of(replace(table, info=replace(table.info, energy=None))),
        load_estimator("nano"),
    ):
        assert estimator.energy_mj([estimator.sums(graph)]) is None


def test_the_fingerprint_follows_the_laws_and_stays_without_them(table):
    bare = replace(table.info, energy=None, memory=None)
    infos = (bare, table.info, replace(table.info, memory=None), replace(table.info, energy=replace(LAW, static_w=5.0)))
    prints = [estimator_of(replace(table, info=info)).fingerprint for info in infos]
    assert len(set(prints)) == len(prints)
    assert estimator_of(replace(table, info=replace(bare, conditions=("warm",)))).fingerprint == prints[0]


def test_the_reason_for_no_energy_is_one_line_with_what_to_do():
    notes = ("reference network 5 ms", "no power is measured: RAPL may be read by root alone")
    line = why_no_energy("host", notes)
    assert line.startswith("the table of host has no energy: profile on the device with its power sensors readable")
    assert line.endswith("when it was made, no power is measured: RAPL may be read by root alone")
    assert "when it was made" not in why_no_energy("nano", ())
