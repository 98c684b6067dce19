"""The estimator that measured networks correct: exact on them, better on others, unchanged where it knows nothing."""

import inspect
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_device import ONNX_RUNTIME, graphs_of, host_table, make_plan, network_ms

from scaler.errors import FileError
from scaler.graph.graph import Graph
from scaler.latency.calibrated import CalibratedEstimator
from scaler.latency.corrected import CorrectedEstimator, network_of, why_not
from scaler.latency.estimator import load_estimator, load_uncorrected, strange_kernels
from scaler.latency.fusion import graph_kernels
from scaler.latency.measured import MeasuredEstimator
from scaler.latency.observed import Observed, observed_path, read_observed, record_observed
from scaler.latency.prediction import Z_90
from scaler.latency.table import write_table
from scaler.models.detectors import families
from scaler.models.detectors.families import build
from scaler.models.detectors.retinanet import RetinaNetConfig
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.search.cards import latency_card
from scaler.search.evaluation import UNMEASURED, Evaluator
from scaler.search.predictors import load_predictor
from scaler.space import MEMBER
from scaler.space_file import read_space

KNOWN, OTHERS = 12, 25
WHEN = "2026-11-22T19:00:00.000000+00:00"


def drifted(graph: Graph) -> float:
    """What the made-up computer takes now: depthwise kernels are 30 % slower than its table says."""
    kernels = graph_kernels(graph, ONNX_RUNTIME)
    slow = sum(1 for kernel in kernels if kernel.op == "depthwise") / len(kernels)
    return network_ms(graph) * (1 + 0.3 * slow)


def row_of(space, params, graph: Graph, reference_ms: float | None) -> Observed:
    return Observed(
        network=space.candidate_id(params),
        family=space.family_of(params),
        params={name: value for name, value in params.items() if name != MEMBER},
        classes=20,
        engine_ms=drifted(graph),
        log_sd=0.01,
        how="refine",
        created=WHEN,
        reference_ms=reference_ms,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("corrected")


@pytest.fixture(scope="module")
def table(folder):
    return host_table(folder, 12)


@pytest.fixture(scope="module")
def base(table) -> MeasuredEstimator:
    found = load_estimator("host", table=table)
    assert isinstance(found, MeasuredEstimator)
    return found


@pytest.fixture(scope="module")
def plan(folder):
    return make_plan(folder, KNOWN + OTHERS, seed=5)


@pytest.fixture(scope="module")
def graphs(plan) -> list[Graph]:
    return graphs_of(plan)


@pytest.fixture(scope="module")
def rows(plan, graphs, base) -> list[Observed]:
    space = read_space(plan.space)
    return [
        row_of(space, planned.params, graph, base.model.reference_ms)
        for planned, graph in zip(plan.networks, graphs, strict=True)
    ][:KNOWN]


@pytest.fixture(scope="module")
def corrected(base, rows) -> CorrectedEstimator:
    return CorrectedEstimator(base, rows)


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_it_offers_what_other_estimators_offer(corrected, base):
    wanted = public(CalibratedEstimator) & public(MeasuredEstimator)
    assert wanted <= public(CorrectedEstimator)
    for name in ("kernel_times", "sums", "predict", "estimate", "energy_mj", "doubt"):
        of_base, own = (inspect.signature(getattr(kind, name)) for kind in (MeasuredEstimator, CorrectedEstimator))
        assert list(of_base.parameters) == list(own.parameters)
    for name in ("device", "mode", "precision", "provenance", "info", "rules", "fallback"):
        assert getattr(corrected, name) == getattr(base, name)


def test_a_measured_network_has_its_own_time_within_its_noise(corrected, graphs, base):
    for graph in graphs[:KNOWN]:
        found = corrected.estimate(graph)
        assert found.engine[0] == pytest.approx(drifted(graph), rel=0.012)
        assert found.engine_log_sd[0] < base.estimate(graph).engine_log_sd[0]
        assert corrected.is_observed(graph)


def test_other_networks_come_nearer_and_their_intervals_hold(corrected, graphs, base):
    others = graphs[KNOWN:]
    truth = np.array([drifted(graph) for graph in others])
    found = corrected.predict([corrected.sums(graph) for graph in others])
    before = base.predict([base.sums(graph) for graph in others])
    error, was = (np.mean(np.abs(p.engine / truth - 1)) for p in (found, before))
    assert was > 0.04
    assert error < 0.4 * was
    inside = np.abs(np.log(truth / found.engine)) <= Z_90 * found.engine_log_sd
    assert np.mean(inside) >= 0.85
    assert not any(corrected.is_observed(graph) for graph in others)


def test_what_is_unlike_all_of_them_keeps_its_time_and_at_least_its_interval(base, rows):
    found = CorrectedEstimator(base, rows[:3])
    near, far = network_of(rows[4]), build(RetinaNetConfig(resolution=1024))
    moved = [abs(math.log(found.estimate(graph).engine[0] / base.estimate(graph).engine[0])) for graph in (far, near)]
    assert moved[0] < 0.9 * moved[1]
    assert found.estimate(far).engine_log_sd[0] >= 0.99 * base.estimate(far).engine_log_sd[0]


def test_the_frame_is_the_engine_and_the_host_around_it(table, rows, graphs):
    found = CorrectedEstimator(load_uncorrected("host", table=table, overhead_ms=5.0), rows).estimate(graphs[0])
    assert found.frame[0] == found.engine[0] + 5.0
    assert found.log_sd[0] == pytest.approx(found.engine_log_sd[0] * found.engine[0] / found.frame[0])


def test_the_fingerprint_changes_with_the_networks_and_with_the_table(corrected, base, rows):
    again, fewer = (CorrectedEstimator(base, rows[:count]).fingerprint for count in (KNOWN, KNOWN - 1))
    assert again == corrected.fingerprint
    assert len({corrected.fingerprint, fewer, base.fingerprint}) == 3


def test_an_observed_network_of_another_table_or_version_is_left_out_and_counted(base, rows):
    other = replace(rows[0], network="x", reference_ms=base.model.reference_ms * 1.01)
    unknown = replace(rows[1], network="y", family="yolo-9000")
    grown = replace(rows[1], network="z", params={**rows[1].params, "wings": 2})
    found = CorrectedEstimator(base, [*rows[2:], other, unknown, grown])
    assert len(found.observed) == KNOWN - 2
    assert found.left_out == ("measured beside another table", *["of a network that this version does not know"] * 2)
    assert why_not(base, replace(other, reference_ms=None)) == ""
    notes = latency_card(found).notes
    assert "1 measured networks are not used: measured beside another table" in notes


def test_the_card_tells_the_errors_of_networks_left_out(corrected, base):
    card, before = latency_card(corrected), latency_card(base)
    assert card.name == f"{before.name}, corrected by {KNOWN} measured networks"
    assert card.errors.items() > before.errors.items()
    found = corrected.cross_validation
    assert found is not None
    assert found.error < 0.5 * found.error_before
    text = card.errors["mean error on them, each left out"]
    assert text == f"{100 * found.error:.1f} % ({100 * found.error_before:.1f} % uncorrected)"


def test_a_published_device_is_corrected_too(monkeypatch, tmp_path):
    monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path))
    base = load_estimator("nano")
    assert isinstance(base, CalibratedEstimator)
    config = YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True)
    graph = build(config)
    before = base.estimate(graph)
    params = families.parameters_of(config)
    slower = 1.12 * float(before.engine[0])
    row = Observed(
        network="aa", family="yolo-ret", params=params, classes=config.classes, engine_ms=slower, log_sd=0.01,
        how="import", created=WHEN,
    )  # fmt: skip
    record_observed(observed_path("nano", "tensorrt", "fp16", "MAXN"), [row])
    found = load_estimator("nano")
    assert isinstance(found, CorrectedEstimator)
    assert found.provenance == "calibrated"
    after = found.estimate(graph)
    assert after.engine[0] == pytest.approx(slower, rel=0.015)
    assert after.overhead[0] == before.overhead[0]
    assert after.frame[0] == pytest.approx(after.engine[0] + before.overhead[0])
    assert after.log_sd[0] < before.log_sd[0]
    assert found.energy_mj([found.sums(graph)]) is None
    like = build(replace(config, resolution=config.resolution + 32))
    assert found.estimate(like).engine[0] > base.estimate(like).engine[0]
    far = build(RetinaNetConfig(resolution=800))
    was, now = base.estimate(far), found.estimate(far)
    assert now.log_sd[0] == pytest.approx(was.log_sd[0], rel=0.15)


@pytest.fixture
def home(table, tmp_path, monkeypatch) -> Path:
    write_table(table, tmp_path / "latency_tables")
    monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path))
    return observed_path("host", "onnxruntime", "fp32", "1-thread")


def test_it_is_loaded_by_itself_where_networks_were_observed(home, rows, table):
    assert isinstance(load_estimator("host"), MeasuredEstimator)
    record_observed(home, rows)
    found = load_estimator("host")
    assert isinstance(found, CorrectedEstimator)
    assert [row.network for row in found.observed] == [row.network for row in read_observed(home)]
    assert isinstance(load_estimator("host", corrected=False), MeasuredEstimator)
    assert isinstance(load_estimator("host", table=table), MeasuredEstimator)


def test_networks_of_another_table_alone_leave_the_estimator_as_it_was(home, rows):
    record_observed(home, [replace(row, reference_ms=99.0) for row in rows])
    assert isinstance(load_estimator("host"), MeasuredEstimator)


def test_a_damaged_file_is_told_and_not_passed_over(home):
    home.write_text("{")
    with pytest.raises(FileError, match=r"networks\.json"):
        load_estimator("host")


def test_a_network_with_strange_kernels_is_feasible_once_it_was_measured(base, rows):
    strange = RetinaNetConfig(resolution=800)
    graph = build(strange)
    assert strange_kernels(base, graph)
    params = families.parameters_of(strange)
    row = replace(rows[0], network="q", family="retinanet", params=params, classes=strange.classes, engine_ms=900.0)
    found = CorrectedEstimator(base, [*rows, row])
    assert strange_kernels(found, graph) == 0
    assert found.doubt(graph) == ""
    assert strange_kernels(found, build(replace(strange, resolution=832)))
    assert strange_kernels(load_uncorrected("nano"), graph) is None


def test_a_search_scores_one_by_one_as_it_scores_many(corrected, plan):
    space = read_space(plan.space)
    evaluator = Evaluator(space, load_predictor(space), target_fps=60, sure=True)
    params = [planned.params for planned in plan.networks[:6]]
    one = [evaluator.scorer(corrected)(candidate) for candidate in params]
    many = evaluator.score_many(params, corrected)
    for first, second, candidate in zip(one, many, params, strict=True):
        prediction = corrected.estimate(evaluator.network(candidate).graph)
        assert first.frame_ms == pytest.approx(second.frame_ms) == pytest.approx(float(prediction.frame[0]))
        assert first.violations == pytest.approx(second.violations)
        assert first.violations["fps"] == pytest.approx(float(prediction.high[0]) * 60 / 1000 - 1)
        assert UNMEASURED in first.violations
