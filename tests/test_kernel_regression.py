"""The regression on a table's rows: right between them, honest away from them, the same every time."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_device import ONNX_RUNTIME, kernel_ms

from scaler.latency.fusion import graph_kernels
from scaler.latency.kernel_fit import LEAST_SAMPLES, _negative_log_likelihood, fit_hypers
from scaler.latency.kernel_regression import (
    DEFAULT_HYPER,
    FEATURES,
    UNSEEN_LOG_SD,
    Group,
    Hyper,
    KernelRegression,
    Sample,
    features,
    group_of,
    observation_variance,
    padded,
)
from scaler.latency.kernels import Kernel
from scaler.models.detectors.yolo_ret import YoloRetConfig, build

CONFIGS = [
    YoloRetConfig(backbone="mobilenetv2", width=width, drop=drop, rfcr=rfcr, neck=neck, resolution=side)
    for width, drop, rfcr, neck, side in (
        (0.35, 1, 3, "fpn", 192),
        (0.5, 2, 0, "none", 256),
        (0.75, 3, 5, "panet", 320),
        (1.0, 1, 3, "fpn", 384),
        (0.5, 4, 5, "bifpn", 352),
        (0.75, 2, 0, "panet", 224),
        (1.0, 2, 5, "none", 288),
    )
]


def kernels_of(configs: Sequence[YoloRetConfig]) -> list[Kernel]:
    return sorted({kernel for config in configs for kernel in graph_kernels(build(config), ONNX_RUNTIME)})


def samples_of(kernels: Sequence[Kernel], noise: float = 0.0, networks: int = 1, seed: int = 0) -> list[Sample]:
    shaken = np.exp(noise * np.random.default_rng(seed).standard_normal(len(kernels)))
    return [
        Sample(kernel, kernel_ms(kernel) * factor, networks) for kernel, factor in zip(kernels, shaken, strict=True)
    ]


KNOWN = kernels_of(CONFIGS)
SAMPLES = samples_of(KNOWN, noise=0.01)
NEW = sorted(set(kernels_of([replace(config, resolution=config.resolution + 32) for config in CONFIGS])) - set(KNOWN))
CONV = Kernel("conv", 1, 1, 1, 96, 160, 20, 20, 20, 20, "relu", 1)
DEPTHWISE = Kernel("depthwise", 3, 1, 96, 96, 96, 20, 20, 20, 20, "relu", 1)


@pytest.fixture(scope="module")
def hypers() -> dict[str, Hyper]:
    return fit_hypers(SAMPLES)


@pytest.fixture(scope="module")
def regression(hypers) -> KernelRegression:
    return KernelRegression(SAMPLES, hypers)


def errors(regression: KernelRegression, kernels: Sequence[Kernel]) -> np.ndarray:
    return regression.log_ms(kernels)[0] - np.log([kernel_ms(kernel) for kernel in kernels])


def test_kernels_at_map_sizes_between_the_rows_are_predicted_within_a_few_percent(regression):
    found = np.abs(errors(regression, NEW))
    assert len(NEW) > 150
    assert found.mean() < 0.03
    assert np.quantile(found, 0.95) < 0.12


def test_the_stated_uncertainty_covers_the_errors(regression):
    _, spread = regression.log_ms(NEW)
    found = np.abs(errors(regression, NEW)) / spread
    assert (found < 1.645).mean() > 0.8
    assert np.median(spread) < 0.15


def test_the_rows_themselves_are_reproduced(hypers):
    regression = KernelRegression(samples_of(KNOWN, networks=50), hypers)
    assert np.abs(errors(regression, KNOWN)).max() < 0.04
    assert np.abs(errors(regression, KNOWN)).mean() < 0.003


def test_a_row_of_many_networks_weighs_more_than_a_row_of_one():
    twice = [CONV, CONV._replace(activation="relu6")]  # alike in every feature

    def between(first: int, second: int) -> float:
        rows = [Sample(twice[0], 1.0, first), Sample(twice[1], 2.0, second)]
        return float(KernelRegression(rows, {}).log_ms([CONV])[0][0])

    assert between(1, 1) == pytest.approx(np.log(2) / 2, abs=0.01)
    assert between(50, 1) < 0.1
    assert between(1, 50) > np.log(2) - 0.1


def test_noise_is_found_where_there_is_noise():
    quiet, loud = (fit_hypers(samples_of(KNOWN, noise=noise, seed=1))["conv"].noise for noise in (0.0, 0.2))
    assert quiet < 0.05
    assert loud == pytest.approx(0.2, rel=0.3)


def test_far_from_every_row_times_grow_with_the_work_and_so_does_the_uncertainty(regression):
    larger = [
        CONV._replace(c_in=96 * 2**step, c_out=160 * 2**step, h_in=20 * 2**step, h_out=20 * 2**step)
        for step in range(7)
    ]
    log_ms, spread = regression.log_ms(larger)
    work = np.diff(features(larger)[:, 0])
    assert (np.diff(log_ms) > 0.4 * work).all()
    assert (np.diff(log_ms) < 1.6 * work).all()
    assert (np.diff(spread)[1:] > 0).all()
    assert spread[-1] > 5 * spread[0]


def test_a_group_without_rows_is_predicted_at_the_usual_throughput_and_says_how_unsure_that_is(regression):
    pool = Kernel("reduce", 20, 1, 1, 96, 96, 20, 20, 1, 1, "none", 1)
    only_convolutions = KernelRegression([s for s in SAMPLES if s.kernel.op == "conv"], {})
    log_ms, spread = only_convolutions.log_ms([pool, CONV])
    assert spread[0] == UNSEEN_LOG_SD > spread[1]
    usual = np.median([np.log(s.ms) - features([s.kernel])[0, 0] for s in SAMPLES if s.kernel.op == "conv"])
    assert log_ms[0] == pytest.approx(usual + features([pool])[0, 0])


def test_one_row_makes_a_group():
    regression = KernelRegression([Sample(CONV, 0.2, 9)], {})
    (same, double), spread = regression.log_ms([CONV, CONV._replace(c_out=320)])
    assert np.exp(same) == pytest.approx(0.2, rel=1e-3)
    assert 1.3 < np.exp(double - same) < 3
    assert spread[0] < 0.1 < spread[1]


def test_kernels_are_put_into_groups_that_are_alike():
    swish = CONV._replace(op="pointwise", activation="swish")
    named = {
        "conv": CONV,
        "conv odd": CONV._replace(c_in=75),
        "conv first": CONV._replace(c_in=3),
        "depthwise": DEPTHWISE,
        "pointwise swish": swish,
        "pointwise add": swish._replace(activation="add"),
    }
    assert {name: group_of(kernel) for name, kernel in named.items()} == {name: name for name in named}


def test_channels_are_rounded_up_to_whole_blocks():
    assert [padded(channels) for channels in (1, 3, 7, 8, 16, 17, 75, 96)] == [1, 3, 7, 16, 16, 32, 80, 96]


def test_groups_with_few_rows_keep_the_default_hyperparameters(hypers):
    counts: dict[str, int] = {}
    for kernel in KNOWN:
        counts[group_of(kernel)] = counts.get(group_of(kernel), 0) + 1
    assert set(hypers) == {name for name, count in counts.items() if count >= LEAST_SAMPLES}
    assert min(counts.values()) < LEAST_SAMPLES


def test_the_fit_is_better_than_the_defaults(hypers):
    def negative_log_likelihood(hyper: Hyper) -> float:
        rows = [sample for sample in SAMPLES if group_of(sample.kernel) == "conv"][:150]
        x = features([row.kernel for row in rows])
        y = np.log([row.ms for row in rows]) - x[:, 0]
        theta = np.log([hyper.amplitude, hyper.noise, *hyper.lengths])
        shares = observation_variance(rows, 1.0)
        return _negative_log_likelihood(theta, x - x.mean(axis=0), y - y.mean(), shares)[0]

    assert negative_log_likelihood(hypers["conv"]) < negative_log_likelihood(DEFAULT_HYPER) - 5


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_of_the_likelihood_is_that_of_finite_differences(seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((25, len(FEATURES)))
    x[3] = x[4]  # two kernels that are alike in every feature
    y = rng.standard_normal(25)
    shares = 1 / rng.integers(1, 9, 25)
    theta = np.log([0.4, 0.1, *rng.uniform(0.5, 5.0, len(FEATURES))])
    _, gradient = _negative_log_likelihood(theta, x, y, shares)
    for place in range(len(theta)):
        step = np.zeros_like(theta)
        step[place] = 1e-5
        high, low = (_negative_log_likelihood(theta + sign * step, x, y, shares)[0] for sign in (1, -1))
        assert gradient[place] == pytest.approx((high - low) / 2e-5, rel=1e-4, abs=1e-5)


def test_the_same_samples_give_the_same_hyperparameters_and_predictions(regression, hypers):
    assert fit_hypers(SAMPLES) == hypers
    again = KernelRegression(SAMPLES, hypers)
    for one, other in zip(again.log_ms(NEW), regression.log_ms(NEW), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_order_of_samples_and_kernels_does_not_matter(regression, hypers):
    order = np.random.default_rng(0).permutation(len(SAMPLES))
    shuffled = KernelRegression([SAMPLES[place] for place in order], hypers)
    places = np.random.default_rng(1).permutation(len(NEW))
    for one, other in zip(shuffled.log_ms([NEW[p] for p in places]), regression.log_ms(NEW), strict=True):
        np.testing.assert_allclose(one, other[places], atol=1e-6)


def test_a_kernel_is_predicted_alone_as_among_others(regression):
    alone = [regression.log_ms([kernel])[0][0] for kernel in NEW[:20]]
    np.testing.assert_allclose(alone, regression.log_ms(NEW[:20])[0], atol=1e-9)


def test_a_refit_from_neighbouring_hyperparameters_stays_near(hypers):
    refitted = fit_hypers(SAMPLES, hypers)
    assert set(refitted) == set(hypers)
    known, again = KernelRegression(SAMPLES, hypers), KernelRegression(SAMPLES, refitted)
    assert np.abs(known.log_ms(NEW)[0] - again.log_ms(NEW)[0]).mean() < 0.01


def test_the_group_gives_the_prior_back_where_no_row_is_near():
    group = Group([Sample(CONV, 0.2, 1)], DEFAULT_HYPER)
    _, (spread,) = group.log_ms([CONV._replace(kernel=7, stride=4, c_in=4096, c_out=16, h_in=2000, h_out=500)])
    assert spread > DEFAULT_HYPER.amplitude


sizes = st.integers(1, 2**16)
any_kernel = st.builds(
    Kernel,
    st.sampled_from(["conv", "depthwise", "linear", "pool", "reduce", "resize", "pointwise", "copy"]),
    st.integers(1, 64),
    st.integers(1, 8),
    *[sizes] * 7,
    st.sampled_from(["none", "relu", "relu6", "sigmoid", "swish", "sigmoid+mul", "what nobody knows", ""]),
    st.integers(1, 9),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(any_kernel, min_size=1, max_size=5))
def test_any_kernel_has_a_finite_time(regression, kernels):
    log_ms, spread = regression.log_ms(kernels)
    assert np.isfinite(log_ms).all()
    assert np.isfinite(spread).all()
    assert (spread > 0).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(any_kernel, min_size=1, max_size=12, unique=True), st.integers(1, 100))
def test_any_rows_make_a_regression(kernels, networks):
    rows = [Sample(kernel, 0.001 * (place + 1), networks) for place, kernel in enumerate(kernels)]
    regression = KernelRegression(rows, fit_hypers(rows))
    assert np.isfinite(regression.log_ms([*kernels, CONV, DEPTHWISE])[0]).all()
