"""The predictors that a latency table must beat: each is as good as it can be at what it is."""

import itertools

import numpy as np
import pytest

from scaler.errors import UserError
from scaler.models.detectors.families import build
from scaler.profiling import baselines
from scaler.profiling.baselines import BASELINES, configuration_gp, flops_regression, mac_regression
from scaler.profiling.plan import draw
from scaler.search.evaluation import Network
from scaler.space import Params
from scaler.space_file import read_space

SPACE = read_space("yolo-ret")


def network(params: Params) -> Network:
    config = SPACE.configure(params, 20)
    return Network(params, config, build(config))


def drawn(count: int, seed: int) -> list[Network]:
    return [network(params) for params in draw(SPACE, count, np.random.default_rng(seed))]


@pytest.fixture(scope="module")
def known() -> list[Network]:
    return drawn(40, 1)


@pytest.fixture(scope="module")
def others() -> list[Network]:
    return drawn(100, 2)


def flops(networks: list[Network]) -> np.ndarray:
    return np.array([n.cost.flops for n in networks], dtype=np.float64)


def memory_access(networks: list[Network]) -> np.ndarray:
    return np.array([n.cost.memory_access for n in networks], dtype=np.float64)


def device_ms(networks: list[Network]) -> np.ndarray:
    """Times of a made-up device: what is computed, what is moved, and a start for every block."""
    blocks = np.array([len(n.graph.placements) for n in networks])
    return 0.02 * blocks + 2e-9 * flops(networks) + 3e-7 * memory_access(networks)


def error(predict: baselines.Predictor, networks: list[Network], ms: np.ndarray) -> float:
    return float(np.mean(np.abs(predict(networks) / ms - 1)))


@pytest.mark.parametrize(("fit", "figure"), [(flops_regression, flops), (mac_regression, memory_access)])
def test_a_regression_finds_a_line_exactly(known, others, fit, figure):
    def truth(networks: list[Network]) -> np.ndarray:
        return 0.7 + 3e-9 * figure(networks)

    assert fit(known, truth(known))(others) == pytest.approx(truth(others), rel=1e-9)


def test_flops_are_not_memory_access(known, others):
    ms = 0.7 + 3e-9 * flops(known)
    assert error(mac_regression(known, ms), others, 0.7 + 3e-9 * flops(others)) > 0.05


@pytest.mark.parametrize(("noise", "power"), [("relative", 1), ("constant", 0)])
def test_the_fit_that_suits_the_noise_is_found_by_leaving_out_in_turn(known, noise, power):
    x, scatter = flops(known) * 1e-9, np.random.default_rng(0).standard_normal(len(known))
    truth = 0.3 + 2 * x
    ms = truth * np.exp(0.2 * scatter) if noise == "relative" else truth + 0.5 * truth.min() * scatter
    errors = [baselines._left_out_error(lambda a, b, p=p: baselines._line(a, b, power=p), x, ms) for p in (0, 1)]
    assert errors[power] < errors[1 - power]
    intercept, slope = baselines._line(x, ms, power=power)
    assert flops_regression(known, ms)(known) == pytest.approx(intercept + slope * x)


def test_the_error_left_out_is_that_of_fits_that_never_saw_the_network():
    x, ms = np.array([1.0, 2, 3]), np.array([1.0, 2, 6])
    through_the_others = np.array([-2, 3.5, 3])
    expected = np.mean(np.abs(through_the_others - ms) / ms)
    found = baselines._left_out_error(lambda a, b: baselines._line(a, b, power=0), x, ms)
    assert found == pytest.approx(expected)


def test_least_squares_of_relative_errors_is_at_its_minimum(known):
    x, ms = flops(known) * 1e-9, device_ms(known)

    def loss(line: np.ndarray) -> float:
        return float(np.sum(((line[0] + line[1] * x) / ms - 1) ** 2))

    best = baselines._line(x, ms, power=1)
    for step in itertools.product((-1e-3, 0, 1e-3), repeat=2):
        assert loss(best) <= loss(best * (1 + np.array(step)))


def test_plain_least_squares_agrees_with_numpy(known):
    x, ms = flops(known) * 1e-9, device_ms(known)
    assert baselines._line(x, ms, power=0) == pytest.approx(np.polyfit(x, ms, 1)[::-1])


def test_the_process_reaches_ten_percent_with_forty_networks(known, others):
    predict = configuration_gp(known, device_ms(known))
    assert error(predict, others, device_ms(others)) < 0.10


def test_the_process_learns_more_from_more_networks(known, others):
    truth = device_ms(others)
    few, many = (error(configuration_gp(n, device_ms(n)), others, truth) for n in (known[:10], known))
    assert many < 0.7 * few


def test_the_process_smooths_noise_that_it_cannot_predict(known):
    noisy = device_ms(known) * np.exp(0.1 * np.random.default_rng(3).standard_normal(len(known)))
    predict = configuration_gp(known, noisy)
    assert error(predict, known, device_ms(known)) < 0.1
    assert np.max(np.abs(np.log(predict(known) / noisy))) > 0.02


def test_the_process_predicts_the_mean_where_no_parameter_varies(known):
    same = [known[0]] * 4
    assert configuration_gp(same, np.array([2.0, 2, 8, 8]))(known[:3]) == pytest.approx([4, 4, 4])


def test_a_name_that_was_never_measured_is_predicted_still(known):
    without = [n for n in known if n.config.neck != "bifpn"]
    unseen = [n for n in known if n.config.neck == "bifpn"]
    found = configuration_gp(without, device_ms(without))(unseen)
    assert np.all(np.isfinite(found) & (found > 0))


def test_a_drop_of_none_can_be_predicted_though_all_measured_drop_some(known):
    dropping = [n for n in known if n.config.drop > 0]
    whole = [n for n in known if n.config.drop == 0]
    found = configuration_gp(dropping, device_ms(dropping))(whole)
    assert np.all(np.isfinite(found) & (found > 0))


def test_the_gradient_of_the_likelihood_agrees_with_differences(known):
    coding = baselines._Coding.of(known)
    target = np.log(device_ms(known))
    process = baselines._Process(coding.encode(known), target - target.mean(), coding.parameter)
    count = max(coding.parameter) + 4
    theta = np.random.default_rng(5).normal(-0.5, 0.5, count)
    step = 1e-5 * np.eye(count)
    expected = [(process.loss(theta + h)[0] - process.loss(theta - h)[0]) / 2e-5 for h in step]
    assert process.loss(theta)[1] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_names_of_a_parameter_share_one_length_scale_and_lie_one_apart(known):
    coding = baselines._Coding.of(known)
    names = [column.name for column in coding.columns]
    assert len(set(coding.parameter)) == len(set(names)) == 8  # all but the number of classes
    rows = coding.encode(known)
    necks = [place for place, name in enumerate(names) if name == "neck"]
    distances = {
        (a.config.neck == b.config.neck, round(float(np.sum((x[necks] - y[necks]) ** 2)), 9))
        for (a, x), (b, y) in itertools.combinations(zip(known, rows, strict=True), 2)
    }
    assert distances == {(True, 0.0), (False, 1.0)}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_is_the_same_every_time(name, known, others):
    ms = device_ms(known)
    assert BASELINES[name](known, ms)(others).tolist() == BASELINES[name](known, ms)(others).tolist()


@pytest.mark.parametrize("name", BASELINES)
def test_three_networks_are_enough_and_two_are_refused_in_one_line(name, known, others):
    ms = device_ms(known)
    assert np.all(np.isfinite(BASELINES[name](known[:3], ms[:3])(others)))
    with pytest.raises(UserError, match=r"^2 measured networks are too few for the baselines; measure 3 or more$"):
        BASELINES[name](known[:2], ms[:2])
