"""Fit of the accuracy law to published results: maximum a posteriori, with the posterior's covariance.

Only this module needs scipy, inside its functions: predicting needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaler.accuracy.curve import COUNT, PRIORS, ap50, base_levels, expected_levels, gradient
from scaler.accuracy.features import KNOTS, features
from scaler.accuracy.posterior import BACKBONE_SD_AP, Fit, Link, scatter_ap
from scaler.accuracy.prediction import Z_90, FloatArray
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.published import yolo_ret_rows

__all__ = ["Observation", "fit", "fit_ap", "fit_coco", "observations"]

_FIRST_STEP = (20.0, 90.0)  # AP50 of the smallest knot of a family
_NEXT_STEP = (0.0, 20.0)  # gain to the next larger one: never negative
_START = {_FIRST_STEP: 50.0, _NEXT_STEP: 1.0}
_STEPS = tuple(
    _FIRST_STEP if i == 0 or knot.efficient != KNOTS[i - 1].efficient else _NEXT_STEP for i, knot in enumerate(KNOTS)
)
_BOUNDS = np.array([*((prior.low, prior.high) for prior in PRIORS), *_STEPS]).T
_BELIEF = np.array([(prior.mean, prior.sd) for prior in PRIORS]).T


@dataclass(frozen=True, slots=True)
class Observation:
    """One published detector; the tables in which it stands again say the same VOC AP50."""

    config: YoloRetConfig
    voc_ap50: float
    coco_ap50: float | None
    coco_ap: float | None


def observations() -> tuple[Observation, ...]:
    """The distinct detectors of Tables 2 to 5; Table 6 repeats three of them, rounded, and adds their COCO AP."""
    voc: dict[YoloRetConfig, float] = {}
    coco: dict[YoloRetConfig, float] = {}
    ap = {row.detector(): row.ap_coco for row in yolo_ret_rows() if row.ap_coco is not None}
    for row in yolo_ret_rows():
        config = row.detector()
        if config is None or row.ap50_voc is None:
            continue
        if voc.setdefault(config, row.ap50_voc) != row.ap50_voc:
            raise AssertionError(f"table {row.table} contradicts another one: {config.name}")
        if row.ap50_coco is not None:
            coco[config] = row.ap50_coco
    return tuple(Observation(config, ap50, coco.get(config), ap.get(config)) for config, ap50 in voc.items())


def fit(data: Sequence[Observation]) -> Fit:
    """The most probable parameters given these results and `PRIORS`, and the curvature there."""
    from scipy.optimize import least_squares  # noqa: PLC0415  # 0.4 s, and only fits need it

    x = features(row.config for row in data)
    published, scatter = np.array([row.voc_ap50 for row in data]), scatter_ap(x)
    (belief_mean, belief_sd), (low, high) = _BELIEF, _BOUNDS

    def residuals(theta: FloatArray) -> FloatArray:
        misfit = (ap50(theta, x) - published) / scatter
        belief = (theta[: len(PRIORS)] - belief_mean) / belief_sd
        return np.concatenate([misfit, belief, _size_residuals(theta)])

    def jacobian(theta: FloatArray) -> FloatArray:
        by_belief = np.eye(COUNT)[: len(PRIORS)] / belief_sd[:, None]
        return np.concatenate([gradient(theta, x)[1] / scatter[:, None], by_belief, _size_jacobian(theta)])

    solution = least_squares(
        residuals,
        x0=np.concatenate([belief_mean, [_START[step] for step in _STEPS]]),
        jac=jacobian,
        bounds=(low, high),
        x_scale=np.concatenate([belief_sd, np.ones(len(KNOTS))]),
        xtol=1e-12,
        ftol=1e-12,
    )
    curvature = jacobian(solution.x)
    return Fit(solution.x, np.asarray(np.linalg.inv(curvature.T @ curvature), dtype=np.float64))


def fit_coco(data: Sequence[Observation], law: Fit) -> Link:
    """From predicted VOC AP50 to published COCO AP50, over the detectors that have both."""
    both = [row for row in data if row.coco_ap50 is not None]
    voc = ap50(law.theta, features(row.config for row in both))
    return _link(voc, np.array([row.coco_ap50 for row in both], dtype=np.float64))


def fit_ap(data: Sequence[Observation]) -> Link:
    """From published COCO AP50 to published COCO AP, over the detectors that have both."""
    both = [(row.coco_ap50, row.coco_ap) for row in data if row.coco_ap50 is not None and row.coco_ap is not None]
    figures = np.array(both, dtype=np.float64)
    return _link(figures[:, 0], figures[:, 1])


def _link(first: FloatArray, second: FloatArray) -> Link:
    """The ratio by least squares.

    The scatter carries Student's factor, since a few residuals hardly show how large it is.
    """
    from scipy.special import stdtrit  # noqa: PLC0415

    ratio, freedom = float(first @ second / (first @ first)), len(first) - 1
    student = float(stdtrit(freedom, 0.95)) / Z_90
    scatter = student * float(np.sqrt(np.sum((second - ratio * first) ** 2) / freedom))
    return Link(ratio, scatter / float(np.sqrt(first @ first)), scatter)


def _size_residuals(theta: FloatArray) -> FloatArray:
    """How far the knots lie from the law of their size, in standard deviations."""
    return (base_levels(theta) - expected_levels(theta)) / BACKBONE_SD_AP


def _size_jacobian(theta: FloatArray) -> FloatArray:
    step = 1e-6
    stacked = _size_residuals(theta + step * np.vstack([np.zeros(COUNT), np.eye(COUNT)]))
    return np.asarray((stacked[1:] - stacked[0]).T / step, dtype=np.float64)
