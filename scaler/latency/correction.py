"""What a few measured networks say of the predictions of all others: a Gaussian process on what predictions miss.

The logarithm of measured over predicted time of a network is a trend that fades over very different networks only, plus
a part that like networks share, plus its own part. The three together scatter as the predictor's interval says, or
more where the measured networks show it to be too sure; never less. What is shared is no larger than is usual among the
measured networks: where the predictor doubts itself more, that doubt is the network's own. How much each part has is
averaged over a grid, weighted by the marginal likelihood: with few networks that is what keeps the intervals wide
enough. Numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scaler.latency.prediction import Z_90, FloatArray

IntArray = npt.NDArray[np.intp]

TREND_LENGTH = 5.0
"""Distance over which the trend fades; see `scaler.latency.corrected` for the features."""
LENGTHS = (0.4, 0.8, 1.6)
"""Distances over which like networks share what is missed."""
SHARES = tuple(
    (trend, like) for trend, like in product((0.1, 0.3, 0.5, 0.7, 0.85), (0.1, 0.3, 0.5)) if trend + like <= 0.96
)
"""Of the variance: the trend's, that of like networks; a network's own part is the rest."""
SCALES = (1.0, 1.5, 2.2, 3.3, 5.0, 8.0, 12.0)
"""How much wider the predictor misses than it says."""
SCALE_LOG_SD = 0.7
"""Of the prior on the logarithm of these: a predictor is taken at its word until networks say otherwise."""
LEAST_SHARE = 0.25
"""Of the predictor's variance that is its own doubt at least; the rest may be the noise of measuring."""
LEAST_NOISE = 0.002
MOST_KEPT = 24
"""Points of the grid that predictions average over; the likeliest ones."""


class Setting(NamedTuple):
    """A point of the grid."""

    trend: float
    like: float
    length: float
    scale: float


GRID = tuple(Setting(*shares, length, scale) for shares in SHARES for length in LENGTHS for scale in SCALES)


class Networks(NamedTuple):
    """Networks as the process sees them, an entry each."""

    features: FloatArray
    """`[networks, features]`, scaled so that 1 is a clear difference."""
    identity: IntArray
    """Equal for equal networks; negative for one that is equal to no other."""
    log_sd: FloatArray
    """What the predictor says of the standard deviation of its logarithm, the noise of measuring included."""


class Fit(NamedTuple):
    """The process at one point of the grid."""

    setting: Setting
    weight: float
    solved: FloatArray
    """Inverse of the covariance times what was missed."""
    inverse: FloatArray


class LeftOut(NamedTuple):
    """Each network predicted by the others, beside the predictor alone; shares of the measured time."""

    networks: int
    error: float
    """Mean error of the corrected predictions."""
    error_before: float
    coverage: float
    """Share of networks inside the corrected 90 % interval."""


class Correction:
    """Conditions predictions on measured networks.

    Args:
        known: The measured networks.
        missed: Logarithm of measured over predicted time of each.
        noise: Standard deviation of the logarithm of each measurement.
    """

    def __init__(self, known: Networks, missed: FloatArray, noise: FloatArray) -> None:
        self._known = known
        self._missed = missed
        self._noise = np.maximum(noise, LEAST_NOISE)
        self.once_more = float(np.median(self._noise))
        """What measuring a network once more scatters by."""
        self._doubt = self._doubts(known.log_sd)
        self._usual = float(np.median(self._doubt))
        self._fits = self._fitted()

    def predict(self, networks: Networks) -> tuple[FloatArray, FloatArray]:
        """What the predictor will be found to miss, as a logarithm: mean, and standard deviation of a measurement."""
        distance, same = _between(networks, self._known)
        doubt = self._doubts(networks.log_sd)
        mean, second = np.zeros(len(doubt)), np.zeros(len(doubt))
        for fit in self._fits:
            shared = self._covariance(fit.setting, distance, same, doubt)
            found = shared @ fit.solved
            variance = (fit.setting.scale * doubt) ** 2 - np.einsum("ij,jk,ik->i", shared, fit.inverse, shared)
            mean += fit.weight * found
            second += fit.weight * (np.maximum(variance, 0.0) + found**2)
        return mean, np.sqrt(np.maximum(second - mean**2, 0.0) + self.once_more**2)

    def left_out(self) -> LeftOut | None:
        """Errors of each measured network when only the others are known; None where there are fewer than three."""
        count = len(self._missed)
        if count < 3:
            return None
        means, variances, logs = [], [], []
        for fit in self._fits:
            precision = np.diag(fit.inverse)
            means.append(self._missed - fit.solved / precision)
            variances.append(1 / precision)
            density = -0.5 * (np.log(variances[-1]) + (self._missed - means[-1]) ** 2 / variances[-1])
            logs.append(np.log(fit.weight) - density)  # the weight that the setting has without this network
        weights = np.exp(np.array(logs) - np.max(logs, axis=0))
        weights /= weights.sum(axis=0)
        mean = np.sum(weights * means, axis=0)
        variance = np.sum(weights * (np.array(variances) + np.square(means)), axis=0) - mean**2
        away = self._missed - mean
        return LeftOut(
            count,
            float(np.mean(np.abs(np.expm1(-away)))),
            float(np.mean(np.abs(np.expm1(-self._missed)))),
            float(np.mean(np.abs(away) <= Z_90 * np.sqrt(variance))),
        )

    def _doubts(self, log_sd: FloatArray) -> FloatArray:
        """What the predictor's doubt is beside the noise of measuring."""
        return np.asarray(np.sqrt(np.maximum(log_sd**2 - self.once_more**2, LEAST_SHARE * log_sd**2)))

    def _fitted(self) -> tuple[Fit, ...]:
        """The likeliest points of the grid with their weights."""
        distance, same = _between(self._known, self._known)
        np.fill_diagonal(same, val=True)
        logs = np.array([self._log_weight(setting, distance, same) for setting in GRID])
        best = np.argsort(-logs, kind="stable")[:MOST_KEPT]
        weights = np.exp(logs[best] - logs[best[0]])
        fits = []
        for place, weight in zip(best.tolist(), (weights / weights.sum()).tolist(), strict=True):
            inverse = np.asarray(np.linalg.inv(self._total(GRID[place], distance, same)), dtype=np.float64)
            fits.append(Fit(GRID[place], weight, inverse @ self._missed, inverse))
        return tuple(fits)

    def _log_weight(self, setting: Setting, distance: FloatArray, same: npt.NDArray[np.bool_]) -> float:
        """Logarithm of the marginal likelihood times the prior, a constant apart."""
        root = np.linalg.cholesky(self._total(setting, distance, same))
        whitened = np.linalg.solve(root, self._missed)
        prior = -0.5 * (np.log(setting.scale) / SCALE_LOG_SD) ** 2
        return float(prior - 0.5 * whitened @ whitened - np.sum(np.log(np.diag(root))))

    def _total(self, setting: Setting, distance: FloatArray, same: npt.NDArray[np.bool_]) -> FloatArray:
        return np.asarray(self._covariance(setting, distance, same, self._doubt) + np.diag(self._noise**2))

    def _covariance(
        self, setting: Setting, distance: FloatArray, same: npt.NDArray[np.bool_], doubt: FloatArray
    ) -> FloatArray:
        """Of what the predictor misses of networks with what it misses of the known ones."""
        trend, like, length, scale = setting
        first, second = np.minimum(doubt, self._usual), np.minimum(self._doubt, self._usual)
        shared = trend * np.exp(-0.5 * distance / TREND_LENGTH**2) + like * np.exp(-0.5 * distance / length**2)
        own, known = (np.sqrt(d**2 - (trend + like) * s**2) for d, s in ((doubt, first), (self._doubt, second)))
        return np.asarray(scale**2 * (np.outer(first, second) * shared + np.outer(own, known) * same))


def _between(first: Networks, second: Networks) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Squared distances, and which are the same network."""
    away = first.features[:, None, :] - second.features[None, :, :]
    same = (first.identity[:, None] == second.identity[None, :]) & (first.identity[:, None] >= 0)
    return np.asarray((away**2).sum(axis=2)), same


def numbered(keys: Sequence[bytes], numbers: dict[bytes, int]) -> IntArray:
    """Identities of networks: the number of a known key, -1 of others."""
    return np.array([numbers.get(key, -1) for key in keys], dtype=np.intp)
