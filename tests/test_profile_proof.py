"""The figures of a comparison of predictions with measurements: against scipy and against cases done by hand."""

import io
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from scaler.profiling.proof import as_dict, kendall, noise_floor, prove, render, score, spearman


def array(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


few_values = st.lists(st.integers(0, 4), min_size=2, max_size=30)
"""Rich in ties."""


@given(few_values, st.integers(0, 2**32 - 1))
@settings(derandomize=True, max_examples=100, deadline=None)
def test_rank_correlations_agree_with_scipy_where_values_are_tied(values, seed):
    first = array(*values)
    second = np.random.default_rng(seed).integers(0, 5, size=len(values)).astype(np.float64)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert spearman(first, second) is None
        assert kendall(first, second) is None
        return
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 10, 200])
def test_rank_correlations_agree_with_scipy_without_ties(count):
    first, second = np.random.default_rng(count).standard_normal((2, count))
    second += first
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert kendall(first, second) == pytest.approx(stats.kendalltau(first, second).statistic, abs=1e-12)


def test_the_rank_correlation_does_not_see_a_monotone_change():
    values = np.random.default_rng(0).uniform(1, 9, 20)
    assert spearman(values, np.exp(values)) == pytest.approx(1)
    assert kendall(values, -(values**3)) == pytest.approx(-1)


def test_errors_by_hand():
    found = score(array(10.9, 18.2, 40, 100), array(10, 20, 40, 80))
    assert found.networks == 4
    assert found.error == pytest.approx((9 + 9 + 0 + 25) / 4)
    assert found.bias == pytest.approx((9 - 9 + 0 + 25) / 4)
    assert found.rms_error == pytest.approx(math.sqrt((81 + 81 + 0 + 625) / 4))
    assert found.within == (25, 75, 75)
    assert found.coverage is None
    assert found.half_width is None


def test_errors_are_relative_to_the_measurement_not_to_the_prediction():
    assert score(array(50.0), array(100.0)).error == pytest.approx(50)
    assert score(array(100.0), array(50.0)).error == pytest.approx(100)


def test_the_interval_covers_its_ends():
    measured = array(9, 11, 11.1, 8.9)
    found = score(array(10, 10, 10, 10), measured, array(9, 9, 9, 9), array(11, 11, 11, 11))
    assert found.coverage == 50
    assert found.half_width == pytest.approx(10)


def test_a_perfect_prediction():
    measured = array(3, 1, 2)
    found = score(measured, measured, measured, measured)
    assert (found.error, found.rms_error, found.bias) == (0, 0, 0)
    assert found.error_interval == (0, 0)
    assert found.within == (100, 100, 100)
    assert found.spearman == pytest.approx(1)
    assert found.kendall == pytest.approx(1)
    assert (found.coverage, found.half_width) == (100, 0)


def test_one_network_has_an_error_but_no_interval_and_no_rank():
    found = score(array(12.0), array(10.0), array(9.0), array(15.0))
    assert found.error == pytest.approx(20)
    assert found.error_interval is None
    assert found.spearman is None
    assert found.kendall is None
    assert found.coverage == 100


def test_a_constant_prediction_has_no_rank():
    assert score(array(5, 5, 5), array(4, 5, 6)).spearman is None


def test_the_interval_of_the_mean_error_agrees_with_that_of_student():
    """The resampled one is a little narrower: by Student's factor and the root of n / (n - 1)."""
    errors = np.random.default_rng(4).normal(0, 0.08, 60)
    low, high = score(100 * (1 + errors), np.full(60, 100.0)).error_interval
    absolute = 100 * np.abs(errors)
    student = stats.t.interval(0.95, 59, absolute.mean(), stats.sem(absolute))
    assert low < absolute.mean() < high
    assert (low, high) == pytest.approx(student, rel=0.05)


def test_the_interval_is_the_same_every_time():
    predicted = np.random.default_rng(1).uniform(9, 11, 12)
    assert score(predicted, np.full(12, 10.0)) == score(predicted, np.full(12, 10.0))


def test_the_noise_floor_by_hand():
    found = noise_floor(array(99, 202), array(101, 198))
    assert found.networks == 2
    assert found.difference == pytest.approx(2)
    assert found.error == pytest.approx(math.sqrt(2))
    assert found.rms_error == pytest.approx(math.sqrt(2))
    assert found.drift == pytest.approx(0, abs=1e-12)
    assert found.largest == pytest.approx(2)


def test_the_noise_floor_is_what_a_predictor_of_the_true_times_would_show():
    rng = np.random.default_rng(7)
    truth = rng.uniform(5, 50, 3000)
    first, second = (truth * (1 + 0.02 * rng.standard_normal(len(truth))) for _ in range(2))
    floor, oracle = noise_floor(first, second), score(truth, second)
    assert floor.error == pytest.approx(oracle.error, rel=0.05)
    assert floor.rms_error == pytest.approx(oracle.rms_error, rel=0.05)
    assert floor.drift == pytest.approx(0, abs=0.1)


def proof(**options):
    measured = array(10, 20, 30)
    predicted = array(10.5, 19, 36)
    return prove(["aa", "bb", "cc"], predicted, 0.9 * predicted, 1.1 * predicted, measured, **options)


def test_a_proof_holds_the_networks_and_knows_the_worst():
    found = proof()
    assert [row.network for row in found.networks] == ["aa", "bb", "cc"]
    assert [row.network for row in found.worst] == ["cc", "aa", "bb"]
    assert found.worst[0].error == pytest.approx(20)
    assert found.table.coverage == pytest.approx(200 / 3)


def test_every_baseline_gets_the_same_figures():
    found = proof(baselines={"perfect": array(10, 20, 30), "double": array(20, 40, 60)})
    assert list(found.baselines) == ["perfect", "double"]
    assert found.baselines["perfect"].error == 0
    assert found.baselines["double"].error == pytest.approx(100)


def test_a_proof_needs_as_many_names_as_times():
    with pytest.raises(ValueError, match="zip"):
        prove(["aa"], array(1, 2), array(1, 2), array(1, 2), array(1, 2))


def test_no_repeats_is_no_noise_floor():
    assert proof().noise is None
    assert proof(repeats_ms=(array(), array())).noise is None


def test_the_dictionary_is_json_and_says_the_units():
    found = proof(baselines={"double": array(20, 40, 60)}, repeats_ms=(array(10, 20), array(10.2, 20)))
    data = json.loads(json.dumps(as_dict(found), allow_nan=False))
    assert data["networks"][2] == {
        "network": "cc",
        "predicted_ms": 36,
        "low_ms": pytest.approx(32.4),
        "high_ms": pytest.approx(39.6),
        "measured_ms": 30,
        "error_percent": pytest.approx(20),
    }
    assert data["table"]["error_percent"] == pytest.approx(10)
    assert data["table"]["within_10_percent"] == pytest.approx(200 / 3)
    assert data["baselines"]["double"]["interval_90_coverage_percent"] is None
    assert data["noise_floor"]["networks"] == 2


def test_the_dictionary_of_a_single_network_is_json_too():
    one = prove(["aa"], array(1.0), array(0.9), array(1.1), array(1.0))
    data = json.loads(json.dumps(as_dict(one), allow_nan=False))
    assert data["table"]["spearman"] is None
    assert data["noise_floor"] is None


def text_of(found, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(render(found))
    return stream.getvalue()


def test_the_table_shows_every_predictor_and_the_worst_network():
    found = proof(baselines={"[double]": array(20, 40, 60)}, repeats_ms=(array(10, 20), array(10.2, 20)))
    text = text_of(found, 80)
    rows = {line[:22].strip(): line[22:].split() for line in text.splitlines()}
    assert "[double]" in text
    assert rows["mean error"] == ["10.0", "%", "100.0", "%"]
    assert rows["90 % interval covers"] == ["67", "%", "-"]
    assert "noise floor: 0.7 % mean error" in text
    assert "cc: 36.00 ms predicted (32.40 to 39.60), 30.00 measured (+20.0 %)" in text


def test_four_predictors_fit_eighty_columns():
    names = ("FLOPs regression", "memory access regression", "configuration GP")
    text = text_of(proof(baselines={name: array(20, 40, 60) for name in names}), 100)
    assert all(name in text for name in names)
    assert "noise floor: unknown" in text
