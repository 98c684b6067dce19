"""The process behind corrected predictions: exact where measured, honest away from it, against a direct computation."""

import numpy as np
import pytest

from scaler.latency.correction import Correction, Networks, numbered
from scaler.latency.prediction import Z_90

DIMENSIONS = 3


def networks(features: np.ndarray, *, log_sd: float = 0.05, first: int | None = None) -> Networks:
    """Networks at these places, all different; unknown ones where `first` is None."""
    count = len(features)
    identity = np.full(count, -1) if first is None else np.arange(first, first + count)
    return Networks(features, identity.astype(np.intp), np.full(count, log_sd))


def places(count: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    return spread * np.random.default_rng(seed).standard_normal((count, DIMENSIONS))


def condition(features: np.ndarray, missed: np.ndarray, noise: float = 0.01, log_sd: float = 0.05) -> Correction:
    return Correction(networks(features, log_sd=log_sd, first=0), missed, np.full(len(missed), noise))


def test_a_measured_network_gets_its_own_time_within_the_noise():
    features = places(6)
    missed = np.array([0.03, -0.05, 0.06, 0.0, -0.04, 0.05])
    found = condition(features, missed, noise=0.002)
    mean, log_sd = found.predict(networks(features, first=0))
    assert mean == pytest.approx(missed, abs=0.002)
    assert np.all(log_sd < 0.004)


def test_far_away_the_prediction_and_its_interval_stay_what_they_were():
    found = condition(places(8), np.full(8, 0.05))
    mean, log_sd = found.predict(networks(places(5) + 60))
    assert mean == pytest.approx(np.zeros(5), abs=1e-6)
    assert log_sd == pytest.approx(np.full(5, 0.05), rel=0.1)


def test_what_all_networks_miss_alike_is_corrected_in_others_too():
    found = condition(places(12), np.full(12, 0.08))
    mean, log_sd = found.predict(networks(places(20, seed=1)))
    assert np.all(np.abs(mean - 0.08) < 0.02)
    assert np.all(log_sd < 0.05)


def test_a_predictor_that_is_too_sure_gets_wider_intervals_far_away():
    missed = 0.2 * np.random.default_rng(3).standard_normal(12)
    _, log_sd = condition(places(12), missed, log_sd=0.02).predict(networks(places(3) + 60, log_sd=0.02))
    assert np.all(log_sd > 0.08)


def test_an_equal_network_is_known_and_another_at_the_same_place_is_only_alike():
    features = places(1)
    found = Correction(networks(features, first=0), np.array([0.05]), np.array([0.005]))
    itself, twin = (found.predict(networks(features, first=first)) for first in (0, None))
    assert itself[0][0] > twin[0][0] > 0
    assert itself[1][0] < twin[1][0] < 0.05


def test_identities_follow_the_keys():
    assert numbered([b"b", b"x", b"a"], {b"a": 0, b"b": 1}).tolist() == [1, -1, 0]


def truth(features: np.ndarray, seed: int) -> np.ndarray:
    """A trend, something smooth, and each network's own."""
    own = 0.01 * np.random.default_rng(seed).standard_normal(len(features))
    return 0.04 + 0.03 * np.sin(2 * features[:, 0]) + own


def test_intervals_hold_on_networks_that_were_not_measured():
    inside, errors = [], []
    for seed in range(12):
        known, others = places(15, seed), places(40, seed + 100)
        noise = 0.01 * np.random.default_rng(seed + 200).standard_normal(55)
        found = condition(known, truth(known, seed) + noise[:15])
        mean, log_sd = found.predict(networks(others))
        away = truth(others, seed + 300) + noise[15:] - mean
        inside.append(np.mean(np.abs(away) <= Z_90 * log_sd))
        errors.append(np.mean(np.abs(away)) / np.mean(np.abs(away + mean)))
    assert 0.85 <= np.mean(inside) <= 0.99
    assert np.mean(errors) < 0.6


def test_each_left_out_is_what_conditioning_on_the_others_gives():
    features, count = places(14), 14
    missed = truth(features, 1)
    found = condition(features, missed).left_out()
    away = []
    for out in range(count):
        others = np.arange(count) != out
        mean, _ = condition(features[others], missed[others]).predict(networks(features[[out]]))
        away.append(missed[out] - mean[0])
    assert found is not None
    assert found.networks == count
    assert found.error == pytest.approx(np.mean(np.abs(np.expm1(-np.array(away)))), rel=0.15)
    assert found.error_before == pytest.approx(np.mean(np.abs(np.expm1(-missed))))
    assert found.error < 0.7 * found.error_before
    assert 0.7 <= found.coverage <= 1


def test_two_networks_have_no_error_of_their_own():
    assert condition(places(2), np.zeros(2)).left_out() is None


def test_equal_measurements_of_one_network_do_not_break_it():
    features = np.zeros((4, DIMENSIONS))
    known = Networks(features, np.zeros(4, dtype=np.intp), np.full(4, 0.05))
    mean, _ = Correction(known, np.full(4, 0.05), np.zeros(4)).predict(networks(features[:1], first=0))
    assert mean[0] == pytest.approx(0.05, abs=0.002)
