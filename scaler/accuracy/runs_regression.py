"""The correction of a published law by measured runs: a Bayesian regression in the logit of AP; numpy only.

On a user's own data set a detector reaches ``logit(AP) = centre + offset + slope (logit(law) - centre)`` and some
effects: of its family, of its backbone, of the resolution, of the network itself, and noise of the run. All are
Gaussian with the scatters below, so one run already says much of the offset, three something of the order, and where
there is none the answer is the law with a wide interval. How large the effects and the noise are is not known
beforehand: a small grid is averaged, each point weighted by how well it explains the runs.

The scatters are judgements, in logits (0.1 is 2.5 points at an AP of 50): nobody has published many detectors trained
by one recipe on many small data sets (docs/adr/017-runs-correct-the-law.md).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scaler.accuracy.prediction import Z_90, FloatArray

__all__ = ["Coefficient", "Network", "Regression", "logit", "sigmoid"]

OFFSET_SD = 2.0
"""Of the data set: 50 points may become 12 or 88."""
RECIPE_SD = 0.7
"""Of a recipe with its epochs, around the data set's offset."""
SLOPE_SD = 0.4
FAMILY_SD = 0.4
_BACKBONE_SD, _RESOLUTION_SD, _NETWORK_SD = 0.12, 0.12, 0.06
_RESOLUTION_LENGTH = 0.35
"""E-folds of the input's side over which an effect of the resolution is alike."""
_EFFECTS = ((0.5, 0.25), (1.0, 0.4), (2.0, 0.25), (4.0, 0.1))
"""How many times larger the three effects above may be, each with its weight before any run is seen."""
_NOISE_AP = ((0.3, 0.25), (0.7, 0.35), (1.5, 0.3), (3.0, 0.1))
"""Scatter of one run in points, each with its weight before any run is seen."""
_EDGE = 0.01
"""AP is kept so far from 0 and 1, where its logit would be infinite."""


def logit(ap: FloatArray) -> FloatArray:
    """The logit of an AP in points; kept away from 0 and 100."""
    share = np.clip(np.asarray(ap, dtype=np.float64) / 100.0, _EDGE, 1.0 - _EDGE)
    return np.asarray(np.log(share / (1.0 - share)))


def sigmoid(value: FloatArray) -> FloatArray:
    """The AP in points of a logit."""
    return np.asarray(100.0 / (1.0 + np.exp(-np.asarray(value, dtype=np.float64))))


def _per_point(value: FloatArray) -> FloatArray:
    """Logits in a point of AP, at a logit."""
    share = np.clip(sigmoid(value) / 100.0, _EDGE, 1.0 - _EDGE)
    return np.asarray(0.01 / (share * (1.0 - share)))


class Network(NamedTuple):
    """What the regression knows of a network and how it was trained."""

    law_ap: float
    """The law's mean in points."""
    law_sd_ap: float
    """The law's own doubt about this network, in points."""
    resolution: int
    family: str
    backbone: Hashable
    network: Hashable
    """Equal for equal networks."""
    recipe: Hashable
    """Equal for runs trained alike."""


class Coefficient(NamedTuple):
    """A number of the correction with its standard deviation."""

    mean: float
    sd: float


class _Codes(NamedTuple):
    """Networks as arrays; equal codes are equal things, and -1 is what no run has."""

    eta: FloatArray
    law_variance: FloatArray
    ln_side: FloatArray
    family: npt.NDArray[np.intp]
    backbone: npt.NDArray[np.intp]
    network: npt.NDArray[np.intp]
    recipe: npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """The posterior given some runs; made by `Regression.of`."""

    runs: _Codes
    known: tuple[dict[Hashable, int], ...]
    centre: float
    """Logit of the law at which the offset is quoted."""
    scales: FloatArray
    noises_ap: FloatArray
    weights: FloatArray
    """Of the points of the grid, shape ``[grid]``."""
    inverse: FloatArray
    """Of the runs' covariance, shape ``[grid, runs, runs]``."""
    pull: FloatArray
    """The inverse times what the law misses, shape ``[grid, runs]``."""

    @staticmethod
    def of(networks: Sequence[Network], measured: Sequence[float]) -> Regression:
        """Condition on runs: their networks and the measured AP in points; without any it is the prior."""
        known: tuple[dict[Hashable, int], ...] = tuple(
            {key: code for code, key in enumerate(dict.fromkeys(keys))} for keys in _keys(networks)
        )
        runs, target = _coded(networks, known), logit(np.asarray(measured, dtype=np.float64))
        centre = float(np.mean(runs.eta)) if len(networks) else 0.0
        common, effects = _covariances(runs, runs, centre)
        grid = list(product(_EFFECTS, _NOISE_AP))
        scales = np.array([effect for (effect, _), _ in grid])
        noises = np.array([noise for _, (noise, _) in grid])
        weights = np.log([one * other for (_, one), (_, other) in grid])
        covariance = common + scales[:, None, None] ** 2 * effects
        noise = (noises[:, None] * _per_point(target)) ** 2
        covariance = covariance + noise[:, :, None] * np.eye(len(networks))
        inverse = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
        missed = target - runs.eta
        pull = np.einsum("gij,j->gi", inverse, missed)
        weights = weights - 0.5 * (pull @ missed + np.linalg.slogdet(covariance)[1])
        weights = np.exp(weights - weights.max())
        share = np.asarray(weights / weights.sum(), dtype=np.float64)
        return Regression(runs, known, centre, scales, noises, share, inverse, pull)

    def predict(self, networks: Sequence[Network]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Median and ends of the 90 % interval, in points, of one run of each network."""
        x = _coded(networks, self.known)
        common, effects = _covariances(x, self.runs, self.centre)
        shared = common + self.scales[:, None, None] ** 2 * effects  # [grid, networks, runs]
        mean = x.eta + np.einsum("gmi,gi->gm", shared, self.pull)
        own = _variance(x, self.centre) + self.scales[:, None] ** 2 * _effects_variance()
        explained = np.einsum("gmi,gij,gmj->gm", shared, self.inverse, shared)
        variance = np.maximum(own - explained, 0.0) + (self.noises_ap[:, None] * _per_point(mean)) ** 2
        middle = self.weights @ mean
        total = self.weights @ (variance + mean**2) - middle**2
        half = Z_90 * np.sqrt(np.maximum(total, 0.0))
        return sigmoid(middle), sigmoid(middle - half), sigmoid(middle + half)

    def offset(self, recipe: Hashable) -> Coefficient:
        """What data set and recipe bring over the law at the centre, in logits."""
        same = np.equal(self.runs.recipe, self.known[3].get(recipe, -1))
        return self._coefficient(OFFSET_SD**2 + RECIPE_SD**2 * same, OFFSET_SD**2 + RECIPE_SD**2)

    @property
    def slope(self) -> Coefficient:
        """How many times the law's differences, in logits, are those of the data set."""
        found = self._coefficient(SLOPE_SD**2 * (self.runs.eta - self.centre), SLOPE_SD**2)
        return Coefficient(1.0 + found.mean, found.sd)

    @property
    def noise_ap(self) -> float:
        """Scatter of one run in points, as far as the runs tell."""
        return float(self.weights @ self.noises_ap)

    def _coefficient(self, shared: FloatArray, variance: float) -> Coefficient:
        means = self.pull @ shared
        variances = variance - np.einsum("i,gij,j->g", shared, self.inverse, shared)
        mean = float(self.weights @ means)
        return Coefficient(mean, float(np.sqrt(max(self.weights @ (variances + means**2) - mean**2, 0.0))))


def _keys(networks: Sequence[Network]) -> tuple[list[Hashable], ...]:
    """Families, backbones, networks and recipes."""
    return (
        [one.family for one in networks],
        [(one.family, one.backbone) for one in networks],
        [one.network for one in networks],
        [one.recipe for one in networks],
    )


def _coded(networks: Sequence[Network], known: Sequence[dict[Hashable, int]]) -> _Codes:
    eta = logit(np.array([one.law_ap for one in networks], dtype=np.float64))
    doubt = np.array([one.law_sd_ap for one in networks], dtype=np.float64) * _per_point(eta)
    side = np.log(np.array([one.resolution for one in networks], dtype=np.float64))
    codes = [
        np.array([table.get(key, -1) for key in keys], dtype=np.intp)
        for table, keys in zip(known, _keys(networks), strict=True)
    ]
    return _Codes(eta, doubt**2, side, *codes)


def _covariances(x: _Codes, runs: _Codes, centre: float) -> tuple[FloatArray, FloatArray]:
    """Covariances of networks with runs, shape ``[networks, runs]``: what is fixed, and the effects at scale 1."""
    family, backbone, network, recipe = (
        np.equal.outer(mine, theirs).astype(np.float64) for mine, theirs in zip(x[3:], runs[3:], strict=True)
    )
    common = OFFSET_SD**2 + RECIPE_SD**2 * recipe + FAMILY_SD**2 * family
    common = common + SLOPE_SD**2 * np.multiply.outer(x.eta - centre, runs.eta - centre)
    common = common + network * np.sqrt(np.multiply.outer(x.law_variance, runs.law_variance))
    distance = np.subtract.outer(x.ln_side, runs.ln_side) / _RESOLUTION_LENGTH
    near = np.exp(-0.5 * distance**2) * family
    effects = _BACKBONE_SD**2 * backbone + _RESOLUTION_SD**2 * near + _NETWORK_SD**2 * network
    return common, effects


def _variance(x: _Codes, centre: float) -> FloatArray:
    """Variance of networks before any run is seen, the effects apart."""
    fixed = OFFSET_SD**2 + RECIPE_SD**2 + FAMILY_SD**2
    return np.asarray(fixed + SLOPE_SD**2 * (x.eta - centre) ** 2 + x.law_variance)


def _effects_variance() -> float:
    return _BACKBONE_SD**2 + _RESOLUTION_SD**2 + _NETWORK_SD**2
