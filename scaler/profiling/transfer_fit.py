"""By what factors the kernels of two devices differ, from the times of a few networks.

The time of a kernel on the new device is that on the source times `exp(basis . theta)`: a factor common to all, one of
its kind, and for each kind a slope against map size and one against channels; beside the kernels stands a constant.
The parameters have normal priors around "all alike", whose widths, with the noise, are averaged over a grid by their
marginal likelihood (Laplace's approximation, MacKay 1992).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from scaler.latency.kernel_regression import FloatArray
from scaler.latency.kernels import Kernel

KINDS = ("dense", "1x1", "depthwise", "element-wise", "rest")
"""Kinds of kernels that one device may do better than another: convolutions with a window and without, depthwise,
what only moves data, and what is small everywhere (pooling, fully connected)."""
_KIND_OF = {"depthwise": "depthwise", "pointwise": "element-wise", "copy": "element-wise", "resize": "element-wise"}
_OWN = 3
"""Parameters of a kind: factor, slope against the logarithm of map size, slope against that of channels."""
_SHARED = 2
"""Parameters before them: the common factor, the constant's own."""
_PARAMETERS = _SHARED + _OWN * len(KINDS)
_TYPICAL = (6.5, 4.5)
"""Logarithms of map size (26 x 26) and channels (90) at which the slopes are zero."""
COMMON_SD, CONSTANT_SD = 3.0, 1.5
"""Prior deviations of the logarithms of the common factor and the constant's own."""
NOISES = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
KIND_SDS = (0.1, 0.2, 0.4, 0.8)
SLOPE_SDS = (0.01, 0.03, 0.1)
"""The grid: deviations of the logarithm of a timing, of a kind's factor and of a slope."""
_STEPS = 12
_LONGEST_STEP = 1.0
OF_CONSTANT = np.eye(_PARAMETERS)[:_SHARED].sum(axis=0)
"""The constant's row of the basis: the common factor and its own."""


class Posterior(NamedTuple):
    """What timings say of the factors; deviations of logarithms."""

    theta: FloatArray
    """Mean of the parameters."""
    covariance: FloatArray
    noise: float

    def factors(self, kernels: Sequence[Kernel]) -> tuple[FloatArray, FloatArray]:
        """Time of each kernel over its time on the source, and the standard deviation of the logarithm."""
        phi = basis(kernels)
        return np.exp(phi @ self.theta), np.sqrt(np.einsum("ij,jk,ik->i", phi, self.covariance, phi))


class Terms(NamedTuple):
    """Networks as sums of terms: their kernels, and last the constant."""

    ms: FloatArray
    """(terms,) On the source."""
    phi: FloatArray
    """(terms, parameters)"""
    counts: FloatArray
    """(networks, terms)"""

    def predict(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Milliseconds of the networks, and the derivatives of their logarithms, (networks, parameters)."""
        parts = self.counts * (self.ms * np.exp(self.phi @ theta))
        total = parts.sum(axis=1)
        return total, parts @ self.phi / total[:, None]


def basis(kernels: Sequence[Kernel]) -> FloatArray:
    """What the logarithms of the factors are linear in, (kernels, parameters)."""
    phi = np.zeros((len(kernels), _PARAMETERS))
    phi[:, 0] = 1.0
    for row, kernel in zip(phi, kernels, strict=True):
        start = _SHARED + _OWN * KINDS.index(kind_of(kernel))
        size = np.log([kernel.h_out * kernel.w_out, (kernel.c_in * kernel.c_out) ** 0.5]) - _TYPICAL
        row[start : start + _OWN] = (1.0, *size)
    return phi


def kind_of(kernel: Kernel) -> str:
    """One of `KINDS`."""
    if kernel.op == "conv":
        return "1x1" if kernel.kernel == 1 else "dense"
    return _KIND_OF.get(kernel.op, "rest")


def prior_sd(kind_sd: float, slope_sd: float) -> FloatArray:
    """Prior standard deviation of every parameter; all means are 0."""
    return np.array([COMMON_SD, CONSTANT_SD, *(kind_sd, slope_sd, slope_sd) * len(KINDS)])


def fit(terms: Terms, ms: FloatArray, doubts: FloatArray) -> Posterior:
    """What timings say of the factors: the average over the grid of prior widths and noises.

    Args:
        terms: The timed networks.
        ms: (networks,) Their times.
        doubts: (networks,) Standard error of the logarithm of each, beside the noise common to all.
    """
    logs = np.log(ms)
    start = np.zeros(_PARAMETERS)
    start[0] = float(np.median(logs - np.log(terms.predict(start)[0])))
    weights, thetas, covariances, noises = [], [], [], []
    for noise, kind_sd, slope_sd in product(NOISES, KIND_SDS, SLOPE_SDS):
        evidence, theta, covariance = _laplace(terms, logs, noise**2 + doubts**2, prior_sd(kind_sd, slope_sd), start)
        weights.append(evidence)
        thetas.append(theta)
        covariances.append(covariance)
        noises.append(noise)
    weight = np.exp(np.array(weights) - max(weights))
    weight /= weight.sum()
    theta = weight @ np.array(thetas)
    apart = np.array(thetas) - theta
    covariance = np.einsum("i,ijk->jk", weight, np.array(covariances)) + (apart.T * weight) @ apart
    return Posterior(theta, np.asarray(covariance), float(np.sqrt(weight @ np.square(noises))))


def _laplace(
    terms: Terms, logs: FloatArray, variance: FloatArray, sd: FloatArray, start: FloatArray
) -> tuple[float, FloatArray, FloatArray]:
    """Logarithm of the marginal likelihood up to a constant, mode, and covariance there; by Gauss and Newton."""
    theta, step = start, np.zeros_like(start)
    for turn in range(_STEPS + 1):
        total, slopes = terms.predict(theta)
        residuals = logs - np.log(total)
        weighted = slopes.T / variance
        precision = weighted @ slopes + np.diag(sd**-2.0)
        if turn == _STEPS or (turn and np.abs(step).max() < 1e-4):
            break
        step = np.asarray(np.linalg.solve(precision, weighted @ residuals - theta / sd**2), dtype=np.float64)
        step *= min(1.0, _LONGEST_STEP / float(np.abs(step).max() or 1.0))
        theta = theta + step
    misfit = float(np.sum(residuals**2 / variance)) + float(np.sum((theta / sd) ** 2))
    volume = (
        float(np.log(sd).sum()) + 0.5 * float(np.log(variance).sum()) + 0.5 * float(np.linalg.slogdet(precision)[1])
    )
    return -0.5 * misfit - volume, theta, np.asarray(np.linalg.inv(precision), dtype=np.float64)


def left_out(terms: Terms, ms: FloatArray, doubts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Logarithms of predicted over measured of every network by the fit without it, and the deviations expected."""
    errors, deviations = np.empty(len(ms)), np.empty(len(ms))
    for out in range(len(ms)):
        rest = np.arange(len(ms)) != out
        found = fit(terms._replace(counts=terms.counts[rest]), ms[rest], doubts[rest])
        total, slopes = terms._replace(counts=terms.counts[[out]]).predict(found.theta)
        errors[out] = np.log(total[0] / ms[out])
        deviations[out] = np.sqrt(found.noise**2 + doubts[out] ** 2 + slopes[0] @ found.covariance @ slopes[0])
    return errors, deviations
