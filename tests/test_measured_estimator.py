"""The estimator of a measured device: its sums, its intervals, and everything that is built on it."""

import csv
import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_device import ONNX_RUNTIME, graphs_of, host_table, kernel_ms, make_plan

from scaler.cli import run
from scaler.latency.calibrated import CalibratedEstimator
from scaler.latency.estimator import load_estimator
from scaler.latency.fusion import block_kernels, graph_kernels
from scaler.latency.kernels import Kernel
from scaler.latency.measured import WELL_MEASURED, KernelTimes, MeasuredEstimator
from scaler.latency.prediction import Prediction
from scaler.latency.table import Entry, LatencyTable, write_table
from scaler.models.detectors import families
from scaler.models.detectors.yolo_ret import YoloRetConfig, build
from scaler.search.describe import describe
from scaler.search.evaluation import UNMEASURED, Evaluator
from scaler.search.predictors import load_predictor
from scaler.space_file import read_space

SEARCH = ["search", "--device", "host", "--fps", "30", "--trials", "60"]
HEADLINE = build(YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True))
STRANGE = Kernel("linear", 1, 1, 1, 1280, 1000, 1, 1, 1, 1, "none", 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("measured")


@pytest.fixture(scope="module")
def table(folder) -> LatencyTable:
    return host_table(folder)


@pytest.fixture(scope="module")
def estimator(table) -> MeasuredEstimator:
    return with_model(table)


@pytest.fixture(scope="module")
def graphs(folder):
    return graphs_of(make_plan(folder, 12))


def with_model(table: LatencyTable, *, overhead_ms: float | None = None, **changes) -> MeasuredEstimator:
    info = replace(table.info, model=replace(table.info.model, **changes))
    found = load_estimator("host", table=replace(table, info=info), overhead_ms=overhead_ms)
    assert isinstance(found, MeasuredEstimator)
    return found


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def parameters(function: Callable[..., object]) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_it_offers_what_the_calibrated_estimator_offers(estimator):
    assert public(CalibratedEstimator) - public(MeasuredEstimator) <= {"calibration"}
    for name in ("kernel_times", "sums", "predict", "estimate"):
        assert parameters(getattr(MeasuredEstimator, name)) == parameters(getattr(CalibratedEstimator, name))
    for name in ("device", "mode", "precision", "provenance", "info", "rules", "fallback", "fingerprint"):
        assert getattr(estimator, name) is not None


def test_it_says_measured_and_of_what(estimator, table):
    assert (estimator.provenance, estimator.precision, estimator.mode.name) == ("measured", "fp32", "1-thread")
    assert (estimator.rules, estimator.fallback) == (ONNX_RUNTIME, "model")
    assert estimator.info is not None
    assert (estimator.info.name, estimator.info.processor) == (table.info.name, table.info.processor)


def test_the_sum_over_blocks_is_the_sum_over_kernels(estimator, graphs):
    for graph in (*graphs, HEADLINE):
        ms, found = estimator.kernel_times(graph_kernels(graph, ONNX_RUNTIME))
        sums = estimator.sums(graph).blocks
        assert sums[0] * estimator.model.factor == pytest.approx(ms.sum())
        assert sums[1] * estimator.model.factor == pytest.approx(ms[found].sum())


def test_the_engine_time_follows_from_the_kernel_times(estimator, graphs):
    for graph in graphs:
        total = float(estimator.kernel_times(graph_kernels(graph, ONNX_RUNTIME))[0].sum())
        model = estimator.model
        engine = model.constant_ms + model.factor * (total / model.factor) ** model.exponent
        assert estimator.estimate(graph).engine[0] == pytest.approx(engine)
        assert engine == pytest.approx(total, rel=0.25), "the exponent only bends it a little"


def test_constant_factor_and_exponent_are_applied(table):
    sum_ms = with_model(table, factor=1.0, constant_ms=0.0, exponent=1.0).estimate(HEADLINE).engine[0]
    bent = with_model(table, factor=2.0, constant_ms=3.0, exponent=1.1).estimate(HEADLINE).engine[0]
    assert bent == pytest.approx(3.0 + 2.0 * sum_ms**1.1)


def test_many_networks_are_predicted_like_each_alone(estimator, graphs):
    together = estimator.predict([estimator.sums(graph) for graph in graphs])
    for place, graph in enumerate(graphs):
        alone = estimator.estimate(graph)
        for field in Prediction._fields:
            assert getattr(alone, field)[0] == pytest.approx(getattr(together, field)[place])


def test_without_an_overhead_the_frame_is_the_engine(estimator):
    found = estimator.estimate(HEADLINE)
    assert found.overhead[0] == 0.0
    assert found.frame[0] == found.engine[0]
    assert found.log_sd[0] == found.engine_log_sd[0]


def test_the_users_overhead_comes_on_top_and_is_certain(estimator, table):
    plain, more = estimator.estimate(HEADLINE), with_model(table, overhead_ms=5.0).estimate(HEADLINE)
    assert more.engine[0] == pytest.approx(plain.engine[0])
    assert more.frame[0] == pytest.approx(plain.frame[0] + 5.0)
    assert more.log_sd[0] == pytest.approx(plain.log_sd[0] * plain.engine[0] / more.frame[0])
    assert more.engine_log_sd[0] == pytest.approx(plain.engine_log_sd[0])


def test_the_share_from_the_table_is_that_of_well_measured_rows(table, estimator, graphs):
    kernels = graph_kernels(graphs[0], ONNX_RUNTIME)
    ms, found = estimator.kernel_times(kernels)
    assert found.tolist() == [table.entries[kernel].networks >= WELL_MEASURED for kernel in kernels]
    assert estimator.estimate(graphs[0]).table_share[0] == pytest.approx(float(ms[found].sum() / ms.sum()))
    other = estimator.estimate(build(YoloRetConfig(backbone="mobilenetv2", width=0.5, drop=2, resolution=352)))
    assert 0.0 <= other.table_share[0] < 0.2


def test_intervals_are_wider_where_kernels_are_strange(table, graphs):
    estimator = with_model(table, kernel_share=1.0)
    strange = build(YoloRetConfig(backbone="efficientnet-b3", drop=0, rfcr=7, neck="bifpn", repeats=3, resolution=640))
    near, far = (float(estimator.estimate(graph).log_sd[0]) for graph in (graphs[0], strange))
    assert far > 1.3 * near
    certain = with_model(table, kernel_share=0.0)
    assert certain.estimate(strange).log_sd[0] == pytest.approx(certain.model.residual_log_sd)


def test_no_kernel_costs_nothing(estimator):
    unknown = [STRANGE, STRANGE._replace(op="reduce"), STRANGE._replace(op="pointwise", activation="never seen")]
    ms, found = estimator.kernel_times(unknown)
    assert not found.any()
    assert (ms > 0).all()
    assert np.isfinite(ms).all()


def test_every_block_of_a_foreign_network_costs_something(estimator):
    for placement in build(YoloRetConfig(backbone="efficientnet-b3", drop=0, neck="bifpn", resolution=640)).placements:
        if kernels := block_kernels(placement.block, ONNX_RUNTIME):
            assert estimator.kernel_times(kernels)[0].min() > 0


def test_a_well_measured_row_is_used_as_it_is_and_others_only_teach_the_regression(table):
    kernel = max(table.entries, key=kernel_ms)
    for networks in (1, WELL_MEASURED):
        rows = {**table.entries, kernel: Entry(3 * kernel_ms(kernel) * 1e3, 0.0, networks, "measured")}
        ms, _, found = KernelTimes(rows, table.info.model.hypers).ms([kernel])
        assert found[0] == (networks == WELL_MEASURED)
        exact = ms[0] == pytest.approx(3 * kernel_ms(kernel))
        assert exact if networks == WELL_MEASURED else not exact


def test_the_fingerprint_follows_the_rows_the_model_and_the_overhead(estimator, table):
    first, *rest = table.entries
    rows = {**table.entries, first: table.entries[first]._replace(latency_us=99.0)}
    others = [
        load_estimator("host", table=replace(table, entries=rows)),
        with_model(table, factor=1.5),
        with_model(table, overhead_ms=1.0),
    ]
    prints = {estimator.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == 4
    assert with_model(table).fingerprint == estimator.fingerprint
    assert rest


class TestCommands:
    """What a user sees once the computer at hand has been measured."""

    @pytest.fixture(autouse=True)
    def here(self, tmp_path, monkeypatch, table) -> Path:
        write_table(table, tmp_path / "data" / "latency_tables")
        monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path / "data"))
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def test_the_search_works_and_its_reports_say_measured(self, here, capsys, table):
        assert run([*SEARCH, "--out", "r"]) == 0
        shown = capsys.readouterr().out
        assert "latency measured" in shown
        (device,) = json.loads((here / "r" / "pareto.json").read_text())["devices"]
        assert (device["device"], device["power_mode"], device["precision"]) == ("host", "1-thread", "fp32")
        assert device["runtime"] == "onnxruntime"
        card = device["latency_model"]
        assert card["provenance"] == "measured"
        assert card["name"] == "latency table, onnxruntime 1.2 fp32, 1-thread"
        assert table.info.processor in card["fitted_on"]
        assert card["errors"]["leave-networks-out mean error"] == f"{table.info.validation['error']:.1f} %"
        assert device["front"]
        assert all(c["overhead_ms"] == 0.0 for c in device["front"])
        page = (here / "r" / "report.html").read_text()
        assert "measured" in page
        assert "ONNX Runtime" in page
        rows = list(csv.DictReader((here / "r" / "pareto.csv").read_text().splitlines()))
        assert {row["latency_provenance"] for row in rows} == {"measured"}
        assert {row["runtime"] for row in rows} == {"onnxruntime"}
        assert run(["show", "r/pareto.json"]) == 0
        assert "latency measured" in capsys.readouterr().out

    def test_show_explains_a_candidate_and_its_kernels_sum_to_the_engine(self, capsys):
        assert run(["show", "YOLO-ReT-M0.75@320", "--device", "host"]) == 0
        shown = capsys.readouterr().out
        assert "latency measured" in shown
        assert "from the measured table" in shown
        assert run(["show", "YOLO-ReT-M0.75@320", "--device", "host", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        total = sum(kernel["ms"] for kernel in found["kernels"])
        assert total == pytest.approx(found["candidate"]["engine_ms"]["mean"], rel=1e-6)
        assert all(kernel["ms"] > 0 for kernel in found["kernels"])
        assert found["latency_model"]["provenance"] == "measured"

    def test_the_overhead_of_the_user_is_on_top(self, capsys):
        assert run(["show", "YOLO-ReT-M0.75@320", "--device", "host", "--overhead-ms", "4", "--json"]) == 0
        candidate = json.loads(capsys.readouterr().out)["candidate"]
        assert candidate["overhead_ms"] == 4.0

    @pytest.mark.slow
    def test_measured_and_calibrated_devices_stand_side_by_side(self, capsys):
        assert run([*SEARCH, "-d", "nano", "-d", "orin-nx", "--json"]) == 0
        devices = json.loads(capsys.readouterr().out)["devices"]
        kinds = [device["latency_model"]["provenance"] for device in devices]
        assert kinds == ["measured", "calibrated", "calibrated"]

    def test_a_runtime_of_another_version_than_the_tables_is_said(self, here, capsys, table):
        other = replace(table, info=replace(table.info, runtime_version="1.0.0"))
        write_table(other, here / "data" / "latency_tables")
        assert run([*SEARCH, "--json"]) == 0
        notes = json.loads(capsys.readouterr().out)["devices"][0]["latency_model"]["notes"]
        assert any("measured with onnxruntime 1.0.0, installed is" in note for note in notes)

    def test_another_setting_of_a_device_says_for_which_there_is_a_table(self, capsys):
        assert run([*SEARCH[:1], "-d", "nano", "--precision", "fp32", *SEARCH[3:], "--json"]) == 0
        notes = json.loads(capsys.readouterr().out)["devices"][0]["latency_model"]["notes"]
        assert "this device has tables for fp16 in MAXN (calibrated)" in notes

    def test_a_table_of_another_processor_is_one_line(self, here, capsys, table):
        other = replace(table, info=replace(table.info, processor="Another CPU"))
        write_table(other, here / "data" / "latency_tables")
        assert run(SEARCH) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert "was measured on Another CPU" in line


@pytest.fixture(scope="module")
def shipped() -> MeasuredEstimator:
    found = load_estimator("xeon-vm")
    assert isinstance(found, MeasuredEstimator)
    return found


class TestStrangeNetworks:
    """A table says nothing of kernels that it has none like."""

    @pytest.mark.parametrize("classes", [20, 80])
    def test_every_network_of_its_own_space_is_known(self, shipped, classes):
        space, rng = read_space("yolo-ret"), np.random.default_rng(5)
        for _ in range(100):
            graph = families.build(space.configure(space.sample(rng), classes))
            assert shipped.strange_kernels(graph) == 0
            assert shipped.doubt(graph) == ""

    @pytest.mark.parametrize("name", ["scaled-yolov4", "vovnet-ret", "lw-retinanet"])
    def test_a_network_of_another_family_is_a_guess_and_no_candidate(self, shipped, name):
        space = read_space(name)
        evaluator, rng = Evaluator(space, load_predictor(space)), np.random.default_rng(5)
        for _ in range(10):
            params = space.sample(rng)
            assert evaluator.scorer(shipped)(params).violations[UNMEASURED] > 0
        described = describe(evaluator, shipped, params)
        assert described.provenance == "estimated"
        assert "knows nothing about" in shipped.doubt(evaluator.network(params).graph)
