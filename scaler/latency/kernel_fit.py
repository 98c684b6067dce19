"""Hyperparameters of the kernel regression: where the marginal likelihood of a group's samples is highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize

from scaler.latency.kernel_regression import (
    DEFAULT_HYPER,
    FEATURES,
    FloatArray,
    Hyper,
    Sample,
    covariance,
    features,
    group_of,
    observation_variance,
    squared_distance,
)

LEAST_SAMPLES = 8
"""Samples below which a group keeps the default hyperparameters."""
MOST_SAMPLES = 220
"""Samples that the fit looks at; more make it slower and hardly better."""
STEPS, REFIT_STEPS = 30, 6
"""Steps of the search from the defaults, and from a neighbouring fit."""
_BOUNDS = ((-4.0, 1.0), (-5.0, -1.0), *((-1.5, 3.5),) * len(FEATURES))
"""Of the logarithms of amplitude, noise and lengths."""


def fit_hypers(samples: Sequence[Sample], start: Mapping[str, Hyper] | None = None) -> dict[str, Hyper]:
    """Hyperparameters by group; the same samples give the same ones.

    Args:
        samples: The measured kernels.
        start: Where the search for each group begins; the defaults where None. Near the end it takes few steps.
    """
    by_group: dict[str, list[Sample]] = {}
    for sample in samples:
        by_group.setdefault(group_of(sample.kernel), []).append(sample)
    begin = start or {}
    return {
        name: _fit(rows, begin.get(name, DEFAULT_HYPER))
        for name, rows in by_group.items()
        if len(rows) >= LEAST_SAMPLES
    }


def _fit(samples: Sequence[Sample], begin: Hyper) -> Hyper:
    if len(samples) > MOST_SAMPLES:
        chosen = np.sort(np.random.default_rng(0).permutation(len(samples))[:MOST_SAMPLES])
        samples = [samples[place] for place in chosen]
    x = features([sample.kernel for sample in samples])
    y = np.log([sample.ms for sample in samples]) - x[:, 0]
    start = np.log([begin.amplitude, begin.noise, *begin.lengths])
    shares = observation_variance(samples, 1.0)
    found = minimize(
        _negative_log_likelihood,
        start,
        args=(x - x.mean(axis=0), y - y.mean(), shares),
        jac=True,
        method="L-BFGS-B",
        bounds=_BOUNDS,
        options={"maxiter": STEPS if begin is DEFAULT_HYPER else REFIT_STEPS},
    )
    values = np.exp(found.x).tolist()
    return Hyper(values[0], values[1], tuple(values[2:]))


def _negative_log_likelihood(
    theta: FloatArray, x: FloatArray, y: FloatArray, shares: FloatArray
) -> tuple[float, FloatArray]:
    """Value and gradient; a weak prior (standard deviation 1.5) holds lengths that the data do not tell."""
    values = np.exp(theta)
    hyper = Hyper(float(values[0]), float(values[1]), tuple(values[2:].tolist()))
    prior = covariance(x, x, hyper)
    factor = cho_factor(prior + np.diag(hyper.noise**2 * shares), lower=True)
    weights = cho_solve(factor, y)
    pull = theta[2:] - np.log(DEFAULT_HYPER.lengths)
    value = 0.5 * float(y @ weights) + float(np.log(np.diag(factor[0])).sum()) + float(pull @ pull) / (2 * 1.5**2)
    inner = np.outer(weights, weights) - cho_solve(factor, np.eye(len(y)))
    distance = np.sqrt(5 * squared_distance(x, x, values[2:]) + 1e-12)
    decay = hyper.amplitude**2 * np.exp(-distance)
    gradient = np.empty_like(theta)
    gradient[0] = -(inner * decay * (1 + distance + distance**2 / 3)).sum()
    gradient[1] = -(np.diag(inner) * hyper.noise**2 * shares).sum()
    slope = inner * decay * (5 / 3) * (1 + distance)
    for place, length in enumerate(values[2:]):
        column = x[:, place] / length
        gradient[2 + place] = -0.5 * (slope * (column[:, None] - column) ** 2).sum()
    gradient[2:] += pull / 1.5**2
    return value, gradient
