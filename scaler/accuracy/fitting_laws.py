"""Fit of a small law to published training runs: maximum a posteriori, with the posterior's covariance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaler.accuracy.law import Law, LawFit, Observation, X, gradient, priors
from scaler.accuracy.prediction import FloatArray, Metric

__all__ = ["fit_law"]


def fit_law(law: Law[X], metric: Metric, data: Sequence[Observation], start: FloatArray | None = None) -> LawFit:
    """The most probable parameters given these runs and the law's priors, and the curvature there.

    Args:
        law: Of the family.
        metric: Of the published figures.
        data: Training runs.
        start: Parameters to start from; None starts at the priors.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415  # 0.4 s, and only fits need it

    x, recipes = law.features([row.network for row in data]), [row.recipe for row in data]
    published = np.array([row.published for row in data])
    scatter = np.hypot(law.scatter_ap, law.doubt_ap(x))
    mean, sd, low, high = np.array(priors(law, metric)).T

    def residuals(theta: FloatArray) -> FloatArray:
        misfit = (gradient(law, metric, theta, x, recipes)[0] - published) / scatter
        return np.concatenate([misfit, (theta - mean) / sd])

    def jacobian(theta: FloatArray) -> FloatArray:
        by_theta = gradient(law, metric, theta, x, recipes)[1]
        return np.concatenate([by_theta / scatter[:, None], np.diag(1.0 / sd)])

    solution = least_squares(
        residuals,
        x0=np.clip(mean if start is None else start, low + 1e-9, high - 1e-9),
        jac=jacobian,
        bounds=(low, high),
        x_scale=sd,
        xtol=1e-10,
        ftol=1e-10,
    )
    curvature = jacobian(solution.x)
    return LawFit(solution.x, np.asarray(np.linalg.inv(curvature.T @ curvature), dtype=np.float64))
