"""A table from another device's: the factors are found, one factor is beaten, intervals hold, nothing is 'measured'."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from scaler.errors import UsageError, UserError
from scaler.graph.graph import Graph
from scaler.latency.estimator import load_estimator
from scaler.latency.fusion import ONNX_RUNTIME, RULES, TENSORRT, FusionRules, graph_kernels
from scaler.latency.kernels import Kernel
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.table import CROSS_VALIDATION, Entry, LatencyTable, TableInfo, read_table, write_table
from scaler.profiling.measurement import Measurement, Round
from scaler.profiling.networks import graph_of
from scaler.profiling.plan import draw
from scaler.profiling.plan_file import Plan, Planned
from scaler.profiling.proof import score
from scaler.profiling.tabulate import Tabulated, predicted_sums
from scaler.profiling.transfer import (
    adapt,
    choose_for_transfer,
    differences,
    find_source,
    kernel_times,
    terms_of,
)
from scaler.profiling.transfer_fit import KINDS, basis, fit, kind_of, left_out
from scaler.runtimes.protocol import Conditions, FloatArray
from scaler.space import Params
from scaler.space_file import read_space

SPACE = read_space("yolo-ret")
FACTORS = {"dense": 0.5, "1x1": 0.8, "depthwise": 1.7, "element-wise": 1.2, "rest": 1.0}
CONSTANT_MS = 1.5
NOISE = 0.02
CONDITIONS = Conditions(
    runtime="onnxruntime",
    runtime_version="1.0",
    precision="fp32",
    batch=1,
    processor="another processor",
    power_mode="1-thread",
    notes=("a note",),
)


@pytest.fixture(autouse=True, scope="module")
def no_user_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALER_DATA_DIR", str(tmp_path_factory.mktemp("no user data")))
        yield


def source_ms(kernel: Kernel) -> float:
    """What a kernel takes on a made-up device: launch, arithmetic and memory one after the other."""
    return 0.004 + kernel.macs / 3e7 + kernel.moved / 2e6


def target_ms(graph: Graph, rules: FusionRules = ONNX_RUNTIME) -> float:
    return CONSTANT_MS + sum(FACTORS[kind_of(k)] * source_ms(k) for k in graph_kernels(graph, rules))


def drawn(count: int, seed: int) -> list[Params]:
    return draw(SPACE, count, np.random.default_rng(seed))


def graphs_of(params: Sequence[Params]) -> list[Graph]:
    return [graph_of(SPACE, own, "voc") for own in params]


def plan_of(params: Sequence[Params], runtime: str = "onnxruntime") -> Plan:
    return Plan(
        device="new-board",
        power_mode="1-thread",
        runtime=runtime,
        precision="fp32",
        batch=1,
        opset=17,
        space="yolo-ret",
        digest=SPACE.digest,
        dataset="voc",
        networks=tuple(Planned(network=SPACE.candidate_id(own), params=own) for own in params),
        reference=params[0],
    )


def timings(params: Sequence[Params], ms: Sequence[float], seed: int = 0) -> list[Measurement]:
    """Measurements with noise, without layer times, beside a reference of 10 ms."""
    shaken = np.array(ms) * np.exp(NOISE * np.random.default_rng(seed).standard_normal(len(params)))
    rounds = [(Round((10.0, 10.0), (time,)),) * 3 for time in shaken.tolist()]
    return [
        Measurement(network=SPACE.candidate_id(own), params=own, conditions=CONDITIONS, rounds=own_rounds, seconds=2.0)
        for own, own_rounds in zip(params, rounds, strict=True)
    ]


def predicted(table: LatencyTable, graphs: Sequence[Graph]) -> FloatArray:
    model = table.info.model
    assert isinstance(model, MeasuredModel)
    sums, _ = predicted_sums(table.entries, model.hypers, graphs, RULES[table.info.runtime])
    return model.constant_ms + model.factor * sums**model.exponent


@pytest.fixture(scope="module")
def source() -> LatencyTable:
    kernels = sorted({k for graph in graphs_of(drawn(12, 1)) for k in graph_kernels(graph, ONNX_RUNTIME)})
    info = TableInfo(
        device="old-board",
        power_mode="1-thread",
        runtime="onnxruntime",
        runtime_version="1.0",
        precision="fp32",
        batch=1,
        provenance="measured",
        created="2026-01-01",
        method="made up",
        networks=12,
        sources=("made up",),
        model=MeasuredModel(
            hypers={}, factor=1.0, constant_ms=0.5, residual_log_sd=0.02, kernel_share=0.3, reference_ms=10.0
        ),
        validation=dict.fromkeys(CROSS_VALIDATION, 1.0),
        processor="a processor",
    )
    rows = {k: Entry(1e3 * source_ms(k), 20 * source_ms(k), 5, "measured") for k in kernels}
    return LatencyTable(info=info, entries=rows)


@pytest.fixture(scope="module")
def chosen(source: LatencyTable) -> list[Params]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scaler.profiling.transfer.POOL", 250)
        return choose_for_transfer(SPACE, "voc", source, ONNX_RUNTIME, 10, seed=3)


@pytest.fixture(scope="module")
def adapted(source: LatencyTable, chosen: list[Params]) -> Tabulated:
    graphs = graphs_of(chosen)
    return adapt(source, plan_of(chosen), timings(chosen, [target_ms(g) for g in graphs]), graphs)


@pytest.fixture(scope="module")
def others() -> list[Graph]:
    return graphs_of(drawn(40, 99))


class TestFactors:
    def test_ten_timings_tell_the_factor_of_each_kind_that_matters(self, source, chosen):
        graphs = graphs_of(chosen)
        ms = np.array([target_ms(g) for g in graphs])
        found = fit(terms_of(source, graphs, ONNX_RUNTIME, kernel_times(source)), ms, np.zeros(len(ms)))
        kernels = sorted({k for g in graphs for k in graph_kernels(g, ONNX_RUNTIME)})
        factors, doubts = found.factors(kernels)
        for kind in ("1x1", "depthwise", "element-wise"):  # the space has little else
            own = np.array([kind_of(k) == kind for k in kernels])
            weights = own * np.array([source_ms(k) for k in kernels])
            mean = float(weights @ factors / weights.sum())
            assert mean == pytest.approx(FACTORS[kind], rel=0.2)
        assert (doubts > 0).all()

    def test_devices_that_differ_by_one_factor_keep_the_order_of_all_kernels(self, source, chosen):
        graphs = graphs_of(chosen)
        rows = adapt(
            source,
            plan_of(chosen),
            timings(chosen, [3 * (0.5 + sum(map(source_ms, graph_kernels(g, ONNX_RUNTIME)))) for g in graphs]),
            graphs,
        ).table.entries
        ratios = [rows[k].latency_us / row.latency_us for k, row in source.entries.items()]
        assert np.median(ratios) == pytest.approx(3, rel=0.05)
        assert np.ptp(np.log(ratios)) < 0.35

    def test_networks_left_out_are_predicted_with_honest_deviations(self, source, chosen):
        graphs = graphs_of(chosen)
        ms = np.array([target_ms(g) for g in graphs])
        errors, deviations = left_out(
            terms_of(source, graphs, ONNX_RUNTIME, kernel_times(source)), ms, np.zeros(len(ms))
        )
        assert np.abs(errors).mean() < 0.1
        assert (np.abs(errors) < 3 * deviations).all()

    def test_every_kernel_has_one_kind_and_its_factor_belongs_to_it_alone(self, source):
        kernels = list(source.entries)
        assert {kind_of(k) for k in kernels} == set(KINDS)
        phi = basis(kernels)
        assert phi.shape == (len(kernels), 2 + 3 * len(KINDS))
        own = phi[:, 2::3]
        assert (own.sum(axis=1) == 1).all()
        assert [KINDS[place] for place in own.argmax(axis=1)] == [kind_of(k) for k in kernels]


class TestPrediction:
    def test_other_networks_are_predicted_better_than_with_one_factor(self, source, adapted, chosen, others):
        truth = np.array([target_ms(g) for g in others])
        timed = graphs_of(chosen)
        factor = np.exp(np.median(np.log([target_ms(g) for g in timed] / predicted(source, timed))))
        one_factor = score(factor * predicted(source, others), truth)
        found = score(predicted(adapted.table, others), truth)
        assert found.error < 4
        assert found.error < one_factor.error / 2
        assert found.spearman is not None
        assert one_factor.spearman is not None
        assert found.spearman > max(one_factor.spearman, 0.99)

    def test_the_sources_exponent_is_kept(self, source, chosen, others):
        bent = replace(source.info.model, exponent=1.05, constant_ms=0.0)
        old = LatencyTable(info=replace(source.info, model=bent), entries=source.entries)
        graphs = graphs_of(chosen)
        table = adapt(old, plan_of(chosen), timings(chosen, (2 * predicted(old, graphs)).tolist()), graphs).table
        assert table.info.model.exponent == 1.05
        assert score(predicted(table, others), 2 * predicted(old, others)).error < 4

    @pytest.mark.slow
    def test_the_intervals_hold_most_of_other_networks(self, source, others):
        truth = np.array([target_ms(g) for g in others])
        held = []
        for seed in range(4):
            params = drawn(10, seed + 10)
            graphs = graphs_of(params)
            table = adapt(source, plan_of(params), timings(params, [target_ms(g) for g in graphs], seed), graphs).table
            log_sd = table.info.model.residual_log_sd
            held += (np.abs(np.log(predicted(table, others) / truth)) <= 1.645 * log_sd).tolist()
        assert np.mean(held) > 0.8

    def test_the_estimator_reads_the_written_table_and_says_calibrated(self, adapted, others, tmp_path):
        info = replace(adapted.table.info, device="host", processor=load_host_processor())
        path = write_table(LatencyTable(info=info, entries=adapted.table.entries), tmp_path)
        estimator = load_estimator("host", precision="fp32", power_mode="1-thread", table=read_table(path))
        assert estimator.provenance == "calibrated"
        engine = estimator.predict([estimator.sums(g) for g in others]).engine
        np.testing.assert_allclose(engine, predicted(adapted.table, others), rtol=2e-3)


def load_host_processor() -> str:
    from scaler.devices import load_device

    processor = load_device("host").processor
    assert processor is not None
    return processor


class TestProvenance:
    def test_nothing_is_called_measured(self, adapted):
        table = adapted.table
        assert table.info.provenance == "calibrated"
        assert {row.provenance for row in table.entries.values()} == {"calibrated"}
        assert "no kernel was measured on this device" in table.info.method

    def test_the_table_says_from_which_table_and_how_many_timings(self, adapted):
        info = adapted.table.info
        assert (info.device, info.processor, info.networks) == ("new-board", "another processor", 10)
        first, second = info.sources
        assert first.startswith("the table old-board/onnxruntime-fp32-1-thread (measured")
        assert second.startswith("10 networks")
        assert info.seconds == 20.0
        assert set(info.validation) == set(CROSS_VALIDATION)
        assert "a note" in info.conditions

    def test_rows_are_no_more_certain_than_the_sources(self, source, adapted):
        for kernel, row in adapted.table.entries.items():
            own = source.entries[kernel]
            assert row.spread_us / row.latency_us >= own.spread_us / own.latency_us

    def test_what_differs_beside_the_device_is_said(self, source, chosen):
        plan = replace(plan_of(chosen, "tensorrt"), precision="fp16", batch=4)
        assert differences(source, plan) == (
            "precision fp32 in the source, fp16 here",
            "runtime onnxruntime in the source, tensorrt here",
            "batch 1 in the source, 4 here",
        )
        assert differences(source, plan_of(chosen)) == ()


class TestOtherRules:
    @pytest.fixture(autouse=True)
    def few_rows(self, monkeypatch):
        monkeypatch.setattr("scaler.profiling.transfer.ROW_NETWORKS", 10)

    def test_rows_are_of_the_new_runtimes_kernels(self, source, chosen, others):
        graphs = graphs_of(chosen)
        measurements = timings(chosen, [target_ms(g, TENSORRT) for g in graphs])
        table = adapt(source, plan_of(chosen, "tensorrt"), measurements, graphs).table
        kernels = {k for g in graphs for k in graph_kernels(g, TENSORRT)}
        assert kernels <= set(table.entries)
        assert "runtime onnxruntime in the source, tensorrt here" in table.info.conditions
        assert {row.provenance for row in table.entries.values()} == {"calibrated"}
        truth = np.array([target_ms(g, TENSORRT) for g in others])
        assert score(predicted(table, others), truth).error < 10

    def test_a_table_with_a_device_model_can_be_the_source(self, chosen, others):
        nano, nx = find_source("nano", "tensorrt", "fp16"), load_estimator("nx")
        graphs = graphs_of(chosen)
        truth = [float(e) for e in nx.predict([nx.sums(g) for g in graphs]).engine]
        plan = replace(plan_of(chosen, "tensorrt"), precision="fp16")
        table = adapt(nano, plan, timings(chosen, truth), graphs).table
        assert table.info.provenance == "calibrated"
        assert "nano/tensorrt-fp16 (calibrated" in table.info.sources[0]
        theirs = nx.predict([nx.sums(g) for g in others]).engine
        found = score(predicted(table, others), theirs)
        assert found.spearman is not None
        assert found.spearman > 0.97
        assert found.error < 12


class TestChoice:
    def test_the_choice_is_reproducible_and_of_different_networks(self, source, chosen, monkeypatch):
        monkeypatch.setattr("scaler.profiling.transfer.POOL", 250)
        assert choose_for_transfer(SPACE, "voc", source, ONNX_RUNTIME, 10, seed=3) == chosen
        assert len({SPACE.candidate_id(own) for own in chosen}) == 10

    def test_fewer_networks_are_the_first_of_more(self, source, chosen, monkeypatch):
        monkeypatch.setattr("scaler.profiling.transfer.POOL", 250)
        assert choose_for_transfer(SPACE, "voc", source, ONNX_RUNTIME, 5, seed=3) == chosen[:5]

    def test_chosen_networks_leave_less_doubt_of_the_space_than_random_ones(self, source, chosen, others):
        def doubt(params: Sequence[Params]) -> float:
            both = [*graphs_of(params), *others]
            terms = terms_of(source, both, ONNX_RUNTIME, kernel_times(source))
            ms = np.array([target_ms(g) for g in both])
            seen = slice(len(params))
            found = fit(terms._replace(counts=terms.counts[seen]), ms[seen], np.zeros(len(params)))
            slopes = terms.predict(found.theta)[1][len(params) :]
            return float(np.einsum("ij,jk,ik->", slopes, found.covariance, slopes))

        assert doubt(chosen) < np.mean([doubt(drawn(10, seed)) for seed in range(20, 24)])

    @pytest.mark.parametrize("count", [0, 2])
    def test_too_few_networks_to_choose(self, source, count):
        with pytest.raises(UsageError, match="ask for 3 to"):
            choose_for_transfer(SPACE, "voc", source, ONNX_RUNTIME, count)


class TestRefusals:
    def test_fewer_than_three_timed_networks(self, source, chosen):
        graphs = graphs_of(chosen[:3])
        measurements = timings(chosen[:3], [1.0, 2.0, 3.0])
        measurements[1] = replace(measurements[1], rounds=(), error="out of memory")
        with pytest.raises(UserError, match="2 networks were timed, a transfer needs 3; the first failed with: out of"):
            adapt(source, plan_of(chosen[:3]), measurements, graphs)

    def test_a_failed_network_is_told_and_left_out(self, source, chosen):
        graphs = graphs_of(chosen[:5])
        measurements = timings(chosen[:5], [target_ms(g) for g in graphs])
        measurements[0] = replace(measurements[0], rounds=(), error="out of memory")
        found = adapt(source, plan_of(chosen[:5]), measurements, graphs)
        assert found.failed == (measurements[0],)
        assert found.table.info.networks == 4

    def test_an_unknown_device(self):
        with pytest.raises(UsageError, match="'nanno'"):
            find_source("nanno", "tensorrt", "fp16")

    def test_a_device_without_a_table(self, tmp_path, monkeypatch):
        monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path))
        with pytest.raises(
            UsageError, match="no latency table of host to start from; there are tables of agx, agx-orin, nano, nx"
        ):
            find_source("host", "tensorrt", "fp16")

    def test_a_table_by_its_own_name(self):
        assert find_source("nx/tensorrt-fp16", "onnxruntime", "fp32").info.device == "nx"
