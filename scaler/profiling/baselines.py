"""What a latency table must beat: predictors that know the same networks' times, but nothing of kernels.

Each baseline is fitted to networks and their milliseconds and returns a function that predicts others. Errors are
reported in percent, so the regressions may minimise either absolute or relative error, whichever predicts the networks
better that are left out in turn. FLOPs are 2 x MACs; memory access is the elements that convolutions move, the MAC of
ShuffleNetV2 and VoVNet (`scaler.cost`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from scaler.errors import UserError
from scaler.models.detectors.families import parameters_of
from scaler.runtimes.protocol import FloatArray
from scaler.search.evaluation import Network

__all__ = [
    "BASELINES",
    "LEAST_NETWORKS",
    "Baseline",
    "Predictor",
    "configuration_gp",
    "flops_regression",
    "mac_regression",
]

Predictor: TypeAlias = Callable[[Sequence[Network]], FloatArray]
"""Milliseconds of networks."""
Baseline: TypeAlias = Callable[[Sequence[Network], FloatArray], Predictor]
"""Fits networks and their milliseconds."""

LEAST_NETWORKS = 3
"""Fewer networks cannot be fitted and left out in turn."""

_STARTS = 3
_SEED = 0
_LOG_PRIORS = {"scale": (1.0, 1.0), "signal": (-1.0, 1.5), "trend": (-1.5, 1.0), "noise": (-3.5, 1.0)}
"""Mean and standard deviation of the logarithms of the process's parameters, wide: with a dozen networks the marginal
likelihood alone may run away."""
_BOUNDS = {"scale": (-3.0, 6.0), "signal": (-6.0, 3.0), "trend": (-6.0, 3.0), "noise": (-7.0, 0.0)}


def flops_regression(networks: Sequence[Network], ms: FloatArray) -> Predictor:
    """Fit time = a + b x FLOPs.

    Raises:
        UserError: Fewer than `LEAST_NETWORKS` networks.
    """
    return _regression(_gflops, networks, ms)


def mac_regression(networks: Sequence[Network], ms: FloatArray) -> Predictor:
    """Fit time = a + b x memory access cost.

    Raises:
        UserError: Fewer than `LEAST_NETWORKS` networks.
    """
    return _regression(_memory_access, networks, ms)


def configuration_gp(networks: Sequence[Network], ms: FloatArray) -> Predictor:
    """Fit a Gaussian process on the candidates' parameters to the logarithm of the time.

    The covariance is a linear trend plus a Matern-5/2 with a length scale for every parameter. Names count as equal
    or different, numbers enter through asinh (a logarithm that is defined at 0) with unit standard deviation; what does
    not apply to a candidate has the family's default. The process's parameters maximise the marginal likelihood under
    wide log-normal priors (Rasmussen, Williams 2006, sections 4.2 and 5.4), from several starts.

    Raises:
        UserError: Fewer than `LEAST_NETWORKS` networks.
    """
    _check(networks, ms)
    coding = _Coding.of(networks)
    target = np.log(ms)
    mean = float(target.mean())
    process = _Process(coding.encode(networks), target - mean, coding.parameter)
    theta = process.fitted()
    weights = process.solve(theta)

    def predict(others: Sequence[Network]) -> FloatArray:
        log_ms = mean + process.covariance(theta, coding.encode(others)) @ weights
        return np.asarray(np.exp(log_ms), dtype=np.float64)

    return predict


BASELINES: dict[str, Baseline] = {
    "FLOPs regression": flops_regression,
    "memory access regression": mac_regression,
    "configuration GP": configuration_gp,
}


def _check(networks: Sequence[Network], ms: FloatArray) -> None:
    assert len(networks) == len(ms)
    if len(networks) < LEAST_NETWORKS:
        raise UserError(
            f"{len(networks)} measured networks are too few for the baselines; measure {LEAST_NETWORKS} or more"
        )


def _gflops(networks: Sequence[Network]) -> FloatArray:
    return np.array([network.cost.flops * 1e-9 for network in networks])


def _memory_access(networks: Sequence[Network]) -> FloatArray:
    return np.array([network.cost.memory_access * 1e-6 for network in networks])


def _regression(
    feature: Callable[[Sequence[Network]], FloatArray], networks: Sequence[Network], ms: FloatArray
) -> Predictor:
    _check(networks, ms)
    x = feature(networks)
    fits = (partial(_line, power=0), partial(_line, power=1))
    best = min(fits, key=lambda fit: _left_out_error(fit, x, ms))
    intercept, slope = best(x, ms)
    return lambda others: intercept + slope * feature(others)


def _line(x: FloatArray, ms: FloatArray, *, power: int) -> FloatArray:
    """Intercept and slope by least squares; errors are divided by ms to this power, so 1 minimises relative ones."""
    weight = ms**-power
    return np.asarray(np.linalg.lstsq(np.stack([weight, weight * x], axis=1), weight * ms)[0], dtype=np.float64)


def _left_out_error(fit: Callable[[FloatArray, FloatArray], FloatArray], x: FloatArray, ms: FloatArray) -> float:
    """Mean absolute relative error of networks that are left out in turn."""
    errors = []
    for index in range(len(ms)):
        rest = np.arange(len(ms)) != index
        intercept, slope = fit(x[rest], ms[rest])
        errors.append(abs(intercept + slope * x[index] - ms[index]) / ms[index])
    return float(np.mean(errors))


@dataclass(frozen=True, slots=True)
class _Column:
    """One coordinate of a candidate: a number, or whether a parameter has a certain name."""

    name: str
    value: str | None = None
    """For a name: the one that gives 1."""
    shift: float = 0.0
    scale: float = 1.0

    def encode(self, network: Network) -> float:
        found = getattr(network.config, self.name)
        if self.value is not None:
            return math.sqrt(0.5) if found == self.value else 0.0  # two different names lie 1 apart
        return (math.asinh(found) - self.shift) / self.scale


@dataclass(frozen=True, slots=True)
class _Coding:
    """Candidates as vectors, as the networks to be learnt from suggest: what never varies among them is left out."""

    columns: tuple[_Column, ...]

    @classmethod
    def of(cls, networks: Sequence[Network]) -> _Coding:
        columns: list[_Column] = []
        common = [parameters_of(network.config) for network in networks]
        for name in [name for name in common[0] if all(name in parameters for parameters in common)]:
            values = [getattr(network.config, name) for network in networks]
            if len(set(values)) == 1:
                continue
            if isinstance(values[0], str):
                columns += [_Column(name, value) for value in sorted(set(values))]
            else:
                numbers = np.arcsinh(np.array(values, dtype=np.float64))
                columns.append(_Column(name, None, float(numbers.mean()), float(numbers.std())))
        return cls(tuple(columns))

    @property
    def parameter(self) -> tuple[int, ...]:
        """Of each column, the number of the parameter that it belongs to; they share a length scale."""
        names = list(dict.fromkeys(column.name for column in self.columns))
        return tuple(names.index(column.name) for column in self.columns)

    def encode(self, networks: Sequence[Network]) -> FloatArray:
        """(networks, columns)."""
        rows = [[column.encode(network) for column in self.columns] for network in networks]
        return np.array(rows, dtype=np.float64).reshape(len(networks), len(self.columns))


class _Process:
    """A Gaussian process with mean 0; `theta`: logarithms of length scales, signal, trend and noise deviations."""

    def __init__(self, x: FloatArray, y: FloatArray, parameter: Sequence[int]) -> None:
        self._x, self._y = x, y
        self._group = np.eye(max(parameter, default=-1) + 1)[np.array(parameter, dtype=np.intp)]
        self._own = self._squares(x)
        names = ["scale"] * self._group.shape[1] + ["signal", "trend", "noise"]
        self._prior = np.array([_LOG_PRIORS[name] for name in names]).T
        self._bounds = [_BOUNDS[name] for name in names]

    def _squares(self, other: FloatArray) -> FloatArray:
        """(other, own, parameters): squared distances, parameter by parameter."""
        difference = other[:, None, :] - self._x[None, :, :]
        return np.asarray(difference**2 @ self._group, dtype=np.float64)

    def covariance(self, theta: FloatArray, other: FloatArray) -> FloatArray:
        """(other, own): between the values at other points and those at the own ones, without noise."""
        matern, _ = self._parts(theta, self._squares(other))
        return matern + self._trend(theta, other)

    def _trend(self, theta: FloatArray, other: FloatArray) -> FloatArray:
        return np.asarray(np.exp(2 * theta[-2]) * other @ self._x.T, dtype=np.float64)

    def _parts(self, theta: FloatArray, squares: FloatArray) -> tuple[FloatArray, FloatArray]:
        """The Matern part, and what its derivative by log scale is per squared distance of one parameter."""
        *scales, signal, _, _ = theta
        root = np.sqrt(5 * (squares @ np.exp(-2 * np.array(scales))))
        decay = np.exp(2 * signal - root)
        return (1 + root + root**2 / 3) * decay, 5 / 3 * (1 + root) * decay

    def solve(self, theta: FloatArray) -> FloatArray:
        """Weights of the own points in a prediction."""
        noisy = self.covariance(theta, self._x) + self._noise(theta)
        return np.asarray(np.linalg.solve(noisy, self._y), dtype=np.float64)

    def _noise(self, theta: FloatArray) -> FloatArray:
        return np.asarray(np.exp(2 * theta[-1]) * np.eye(len(self._y)), dtype=np.float64)

    def loss(self, theta: FloatArray) -> tuple[float, FloatArray]:
        """Negative logarithm of marginal likelihood times prior, up to a constant, and its gradient."""
        matern, slope = self._parts(theta, self._own)
        trend, noise = self._trend(theta, self._x), self._noise(theta)
        lower = np.linalg.cholesky(matern + trend + noise)
        inverse = np.linalg.inv(lower)
        inverse = inverse.T @ inverse
        weights = inverse @ self._y
        centred = (theta - self._prior[0]) / self._prior[1]
        value = 0.5 * self._y @ weights + np.log(np.diag(lower)).sum() + 0.5 * centred @ centred
        pull = inverse - np.outer(weights, weights)
        scales = 0.5 * np.einsum("ij,ijp->p", pull * slope, self._own) * np.exp(-2 * theta[:-3])
        others = [float(np.sum(pull * part)) for part in (matern, trend, noise)]
        return float(value), np.concatenate([scales, others]) + centred / self._prior[1]

    def fitted(self) -> FloatArray:
        """The best `theta` from several starts, the prior's mean first."""
        from scipy.optimize import minimize  # noqa: PLC0415  # only fits need it

        rng = np.random.default_rng(_SEED)
        (mean, deviation), low, high = self._prior, *np.array(self._bounds).T
        starts = [mean, *(mean + deviation * rng.standard_normal(len(mean)) for _ in range(_STARTS - 1))]
        found = [
            minimize(self.loss, np.clip(start, low, high), jac=True, method="L-BFGS-B", bounds=self._bounds)
            for start in starts
        ]
        return np.asarray(min(found, key=lambda result: float(result.fun)).x, dtype=np.float64)
