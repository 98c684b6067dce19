"""From measurements to a table, on a made-up computer whose truth is known."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_device import (
    NETWORK_MS,
    ONNX_RUNTIME,
    REFERENCE_MS,
    graphs_of,
    kernel_ms,
    layer_times,
    make_plan,
    measured,
    network_ms,
    tabulated,
)

from scaler.devices import load_host
from scaler.errors import UserError
from scaler.graph.graph import Graph
from scaler.latency.estimator import load_estimator
from scaler.latency.kernels import Kernel
from scaler.latency.measured import KernelTimes
from scaler.profiling.harvest import Harvest, harvest
from scaler.profiling.measurement import Measurement, Round
from scaler.profiling.plan_file import Plan
from scaler.profiling.tabulate import (
    LEAST_NETWORKS,
    LEAST_US,
    Measured,
    Tabulated,
    correction,
    entries,
    layer_overhead_ms,
    tabulate,
)
from scaler.runtimes.protocol import LayerTime

COUNT = 16
NOISE = 0.02


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("tabulated")


@pytest.fixture(scope="module")
def result(folder) -> Tabulated:
    return tabulated(folder, COUNT, noise=NOISE, overhead_ms=0.005)


@pytest.fixture(scope="module")
def few(folder) -> tuple[Plan, list[Graph], list[Measurement]]:
    """Few networks, quick to tabulate."""
    plan = make_plan(folder, 6, seed=1)
    graphs = graphs_of(plan)
    return plan, graphs, measured(plan, graphs, noise=NOISE)


def networks_of(graphs: Sequence[Graph], overhead_ms: float, beside_ms: float = 0.0) -> list[Measured]:
    return [
        Measured(
            graph,
            harvest(graph, layer_times(graph, overhead_ms=overhead_ms), ONNX_RUNTIME),
            network_ms(graph) - NETWORK_MS + beside_ms,
        )
        for graph in graphs
    ]


def test_networks_that_nobody_measured_are_predicted_within_a_few_percent(result, tmp_path):
    others = graphs_of(make_plan(tmp_path, 40, seed=99))
    estimator = load_estimator("host", table=result.table)
    found = estimator.predict([estimator.sums(graph) for graph in others])
    truth = np.array([network_ms(graph) for graph in others])
    error = np.abs(found.engine / truth - 1)
    assert error.mean() < 0.03
    assert error.max() < 0.12
    assert ((found.low <= truth) & (truth <= found.high)).mean() >= 0.8


def test_the_stated_error_is_that_of_networks_left_out(result):
    figures = result.table.info.validation
    assert figures["error"] < 4.0
    assert 60 <= figures["coverage"] <= 100  # of 16 networks, each by the scatter of the others
    assert figures["within_10"] >= 90
    assert 0.5 * 100 * NOISE < figures["noise"] < 2 * 100 * NOISE


def test_the_table_says_what_it_is_of(result, folder):
    info = result.table.info
    assert (info.device, info.power_mode, info.runtime, info.precision) == ("host", "1-thread", "onnxruntime", "fp32")
    assert (info.provenance, info.networks, info.batch) == ("measured", COUNT, 1)
    assert info.processor == load_host().processor
    assert info.runtime_version == "1.2"
    assert info.seconds == COUNT * 1.5
    assert info.name == "host/onnxruntime-fp32-1-thread"
    assert any("reference network 5" in text or "reference network 4.9" in text for text in info.conditions)
    assert {entry.provenance for entry in result.table.entries.values()} == {"measured"}
    assert (result.failed, result.doubtful, result.unknown, result.unknown_share) == ((), (), (), 0.0)


def test_rows_are_the_truth_where_nothing_disturbs(few):
    _, graphs, _ = few
    rows = entries(networks_of(graphs, 0.002))
    found = {kernel: row.latency_us * 1e-3 for kernel, row in rows.items()}
    assert found == pytest.approx({kernel: kernel_ms(kernel) for kernel in found}, rel=0.02)


def test_rows_share_what_a_network_takes_beside_its_kernels(few):
    _, graphs, _ = few
    (network,) = networks_of(graphs[:1], 0.0, beside_ms=0.4)
    rows = entries([network])
    assert sum(rows[kernel].latency_us for kernel in network.harvest.kernels) * 1e-3 == pytest.approx(network.ms)


def test_rows_come_sorted_and_each_kernel_once(result):
    assert list(result.table.entries) == sorted(result.table.entries)


def test_the_median_over_networks_is_taken_and_the_networks_are_counted(few):
    _, graphs, _ = few
    networks = [Measured(n.graph, n.harvest, n.ms * factor) for factor in (1, 2, 9) for n in networks_of(graphs[:1], 0)]
    rows, single = entries(networks), entries(networks[:1])
    for kernel, row in rows.items():
        assert row.networks == 3
        assert row.latency_us == pytest.approx(2 * single[kernel].latency_us)
        assert single[kernel].spread_us == 0.0


@pytest.mark.parametrize("overhead_ms", [0.0, 0.004, 0.02])
def test_what_the_profiler_adds_to_each_layer_is_found(few, overhead_ms):
    _, graphs, _ = few
    assert layer_overhead_ms(networks_of(graphs, overhead_ms)) == pytest.approx(overhead_ms, rel=0.02, abs=1e-5)


def test_the_overhead_of_too_few_networks_is_none(few):
    _, graphs, _ = few
    assert layer_overhead_ms(networks_of(graphs[: LEAST_NETWORKS - 1], 0.02)) == 0.0
    assert layer_overhead_ms(networks_of(graphs[:1] * 6, 0.02)) == 0.0, "all alike: no slope"


def test_a_profiler_that_is_faster_than_the_network_has_no_negative_overhead(few):
    _, graphs, _ = few
    assert layer_overhead_ms(networks_of(graphs, 0.0, beside_ms=0.8)) == 0.0


@pytest.mark.parametrize(("factor", "exponent"), [(1.0, 1.0), (1.2, 1.05), (0.8, 0.93)])
def test_factor_and_exponent_are_found_where_there_are_enough_networks(factor, exponent):
    sums = np.geomspace(0.5, 200.0, 300)
    assert correction(sums, factor * sums**exponent) == pytest.approx((factor, exponent), rel=0.01)


def test_a_few_networks_do_not_bend_the_exponent():
    sums = np.array([5.0, 5.5, 6.0])
    factor, exponent = correction(sums, sums**2)
    assert exponent == pytest.approx(1.0, abs=0.1)
    assert factor * 5.5**exponent == pytest.approx(5.5**2, rel=0.05)


def test_a_factor_is_positive_even_where_larger_networks_are_faster():
    factor, exponent = correction(np.array([2.0, 5.0, 9.0, 30.0]), np.array([9.0, 5.0, 3.0, 1.0]))
    assert factor > 0
    assert np.isfinite(exponent)


@pytest.mark.parametrize("count", [0, 1, LEAST_NETWORKS - 1])
def test_too_few_networks_are_one_clear_line(few, count):
    plan, graphs, measurements = few
    with pytest.raises(UserError) as refused:
        tabulate(plan, measurements[:count], graphs[:count])
    assert f"{count} networks were measured" in str(refused.value)
    assert f"a table needs {LEAST_NETWORKS}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_why_networks_failed_is_told_where_too_few_are_left(few):
    plan, graphs, measurements = few
    failed = [replace(m, rounds=(), layers=(), error="no such operator") for m in measurements]
    with pytest.raises(UserError, match="the first failed with: no such operator"):
        tabulate(plan, failed, graphs)


@pytest.mark.parametrize("layers", [(), (LayerTime("x", 1.0, ("nobody",)),)], ids=["none", "foreign"])
def test_networks_whose_layers_say_nothing_are_not_enough(few, layers):
    plan, graphs, measurements = few
    with pytest.raises(UserError, match="0 networks were measured layer by layer"):
        tabulate(plan, [replace(m, layers=layers) for m in measurements], graphs)


def test_failed_and_doubtful_networks_and_unknown_layers_are_listed(few):
    plan, graphs, measurements = few
    failed = replace(measurements[0], rounds=(), layers=(), error="no such operator")
    reformat = LayerTime("reformat", 1.0, ())
    doubtful = replace(measurements[1], warnings=("spreads",), layers=(*measurements[1].layers, reformat))
    found = tabulate(plan, [failed, doubtful, *measurements[2:]], graphs)
    assert found.failed == (failed,)
    assert found.doubtful == (doubtful,)
    assert found.unknown == (reformat,)
    total = sum(layer.ms for m in (doubtful, *measurements[2:]) for layer in m.layers)
    assert found.unknown_share == pytest.approx(1.0 / total)
    assert found.table.info.networks == len(measurements) - 1
    assert "1 of 5 networks with warnings" in found.table.info.conditions


def test_a_slow_machine_in_between_does_not_change_the_times(few):
    """Times are those of the machine while it is quiet, whatever it was while a network was measured."""
    plan, graphs, measurements = few

    def slowed(m: Measurement, by: float) -> Measurement:
        rounds = tuple(
            Round(tuple(by * x for x in r.reference_ms), tuple(by * x for x in r.network_ms)) for r in m.rounds
        )
        return replace(m, rounds=rounds)

    measurements, graphs = measurements[:4], graphs[:4]
    drifted = [slowed(m, by) for m, by in zip(measurements, (1, 1.1, 1, 1.15), strict=True)]
    plain, other = (tabulate(plan, ms, graphs).table for ms in (measurements, drifted))
    for kernel, row in plain.entries.items():
        assert other.entries[kernel].latency_us == pytest.approx(row.latency_us, rel=0.02)


def test_the_same_measurements_give_the_same_table(few):
    plan, graphs, measurements = few
    one, other = (tabulate(plan, measurements[:4], graphs[:4]).table for _ in range(2))
    assert one.entries == other.entries
    assert one.info.model == other.info.model
    assert one.info.validation == other.info.validation


def test_the_truth_of_this_file_is_about_a_real_size():
    assert REFERENCE_MS > NETWORK_MS


def silenced(found: Harvest, kernels: set[Kernel]) -> Harvest:
    """A harvest in which no layer computes some kernels."""
    pairs = zip(found.kernels, found.ms, strict=True)
    return found._replace(ms=tuple(0.0 if kernel in kernels else ms for kernel, ms in pairs))


def test_a_group_that_the_runtime_does_without_costs_next_to_nothing_anywhere(few):
    _, graphs, _ = few
    networks = networks_of(graphs, 0.0)
    without = [
        n._replace(harvest=silenced(n.harvest, {k for k in n.harvest.kernels if k.op == "copy"})) for n in networks
    ]
    copies = [kernel for n in networks for kernel in n.harvest.kernels if kernel.op == "copy"]
    assert copies
    rows = entries(without)
    fresh = [kernel._replace(h_in=2 * kernel.h_in, h_out=2 * kernel.h_out) for kernel in copies]

    assert all(rows[kernel].latency_us == LEAST_US for kernel in copies)
    assert KernelTimes(rows, {}).ms([*copies, *fresh])[0].max() < 0.002


def test_a_kernel_that_only_some_networks_have_no_layer_for_keeps_the_time_of_the_others(few):
    _, graphs, _ = few
    first, *rest = networks_of(graphs, 0.0)
    kernel = next(k for k in first.harvest.kernels if any(k in n.harvest.kernels for n in rest))
    silent = first._replace(harvest=silenced(first.harvest, {kernel}))

    assert entries([silent, *rest])[kernel].latency_us > 10 * LEAST_US
