"""The law behind `int8_loss`: what a network is like, and a linear regression of the published losses on it.

Losses scatter by three orders of magnitude and may be negative, so what is regressed is asinh(loss / 0.3 AP): the loss
itself below the noise of a published figure, its logarithm above. A figure differs from the law by what its laboratory,
its network and its run have in common with others, and by itself; these four scatters maximise the marginal likelihood
on a grid of round values. The network to be predicted is of no laboratory and no network seen, and bears all four.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from scaler.accuracy.prediction import NOISE_AP, Z_90, FloatArray
from scaler.graph.ops import ActivationKind
from scaler.published.int8 import Int8Row, int8_rows

__all__ = [
    "EFFECTS",
    "SCATTERS",
    "SHAPES",
    "Architecture",
    "Int8Fit",
    "Traits",
    "fit_int8",
    "row_traits",
    "shipped_fit",
    "used_rows",
]

Shape = Literal["relu", "relu6", "leaky", "smooth"]
"""Kinds of activations; `smooth` is swish, hard swish and mish."""
SHAPES: dict[ActivationKind, Shape] = {
    "relu": "relu", "relu6": "relu6", "leaky": "leaky", "swish": "smooth", "hard_swish": "smooth", "mish": "smooth",
}  # fmt: skip

Architecture: TypeAlias = tuple[Shape, bool, bool, bool]
"""Most frequent activation; whether made of depthwise convolutions; with squeeze-and-excitation; reparameterised."""


class Traits(NamedTuple):
    """What the law knows of a network and of how it becomes INT8: shares and flags, 0 to 1.

    All 0 is a dense network with ReLU, quantised as a whole with a calibration that is not stated, judged by AP.
    """

    relu6: float = 0.0
    """Share of its activations."""
    leaky: float = 0.0
    smooth: float = 0.0
    depthwise: float = 0.0
    """1 where depthwise convolutions are as frequent as in networks that are made of them."""
    squeeze_excite: float = 0.0
    """The same of gates."""
    reparameterised: float = 0.0
    max: float = 0.0
    """Ranges by the largest values."""
    entropy: float = 0.0
    clipped: float = 0.0
    """Ranges by percentile or least squares."""
    tuned: float = 0.0
    partly_float: float = 0.0
    ap50: float = 0.0
    top1: float = 0.0

    @property
    def architecture(self) -> Architecture:
        """What of it is the network's own, in round figures."""
        relu = 1.0 - self.relu6 - self.leaky - self.smooth
        shares: dict[Shape, float] = {
            "relu": relu, "relu6": self.relu6, "leaky": self.leaky, "smooth": self.smooth,
        }  # fmt: skip
        most = max(shares, key=lambda name: shares[name])
        return most, self.depthwise >= 0.5, self.squeeze_excite >= 0.5, self.reparameterised >= 0.5


EFFECTS = ("level", *Traits._fields)
_PRIOR_SD = np.array([2.0] + [1.0] * len(Traits._fields))
SCATTERS = ("laboratory", "network", "run", "figure")
_GRID = (0.1, 0.15, 0.2, 0.3, 0.4, 0.55, 0.75, 1.0, 1.4)
_START = (0.4, 0.4, 0.3, 0.3)
_UNKNOWN_SD = 0.5
"""Doubt about a kind of network of which no detector was published; a judgement: some factor of 1.6."""


@dataclass(frozen=True, slots=True, eq=False)
class Int8Fit:
    """The posterior of the effects on asinh(loss / 0.3), in the order of `EFFECTS`, and the scatters."""

    effects: FloatArray
    covariance: FloatArray
    scatters: tuple[float, float, float, float]
    """Standard deviations in the order of `SCATTERS`."""
    known: frozenset[Architecture]
    """Of the detectors behind the fit; any other widens the interval."""

    @property
    def deviations(self) -> FloatArray:
        """Standard deviations of the effects."""
        return np.sqrt(np.diag(self.covariance))

    def predict(self, traits: Sequence[Traits]) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Expected loss in points, and the ends of the 90 % interval of a published figure, arrays of shape [n]."""
        x = _design(traits)
        centre = x @ self.effects
        variance = np.einsum("ij,jk,ik->i", x, self.covariance, x) + sum(sd**2 for sd in self.scatters)
        variance += [0.0 if one.architecture in self.known else _UNKNOWN_SD**2 for one in traits]
        half = Z_90 * np.sqrt(variance)
        expected = np.sinh(centre) * np.exp(variance / 2.0)
        low, high = np.sinh(centre - half), np.sinh(centre + half)
        return NOISE_AP * expected, NOISE_AP * low, NOISE_AP * high


def used_rows() -> tuple[Int8Row, ...]:
    """The rows that a fit uses."""
    return tuple(row for row in int8_rows() if not row.unused)


def row_traits(row: Int8Row) -> Traits:
    """What the law knows of a published network."""
    calibration = "clipped" if row.calibration in ("percentile", "mse") else row.calibration
    flags = {SHAPES[row.activation], calibration, row.metric}
    named = {name: 1.0 for name in Traits._fields if name in flags}
    return Traits(
        **named,
        depthwise=float(row.depthwise),
        squeeze_excite=float(row.squeeze_excite),
        reparameterised=float(row.reparameterised),
        partly_float=float(row.partly_float),
    )


def _design(traits: Iterable[Traits]) -> FloatArray:
    """What the effects are multiplied by, shape [n, effects]."""
    return np.array([(1.0, *one) for one in traits], dtype=np.float64).reshape(-1, len(EFFECTS))


class _Data(NamedTuple):
    x: FloatArray
    y: FloatArray
    same: tuple[FloatArray, ...]
    """Ones where two rows share laboratory, network, run, or are the same."""


def _data(rows: Sequence[Int8Row]) -> _Data:
    keys = (
        [row.laboratory for row in rows],
        [row.model for row in rows],
        [(row.laboratory, row.network, row.runtime, row.calibration, row.int8_score is None) for row in rows],
        list(range(len(rows))),
    )
    codes = [np.array([{key: i for i, key in enumerate(dict.fromkeys(column))}[k] for k in column]) for column in keys]
    same = tuple((code[:, None] == code[None, :]).astype(np.float64) for code in codes)
    return _Data(_design(map(row_traits, rows)), np.arcsinh([row.loss_points / NOISE_AP for row in rows]), same)


def _posterior(data: _Data, scatters: Sequence[float]) -> tuple[float, FloatArray, FloatArray]:
    """Logarithm of the marginal likelihood but for a constant, effects, and their covariance."""
    noise = sum((sd**2 * same for sd, same in zip(scatters, data.same, strict=True)), np.zeros_like(data.same[0]))
    root = np.linalg.cholesky(noise)
    white = np.linalg.solve(root, np.column_stack([data.x, data.y]))
    x, y = white[:, :-1], white[:, -1]
    precision = x.T @ x + np.diag(_PRIOR_SD**-2.0)
    covariance = np.linalg.inv(precision)
    effects = covariance @ (x.T @ y)
    misfit = y @ y - effects @ precision @ effects
    log_determinant = 2.0 * np.sum(np.log(np.diag(root))) + np.linalg.slogdet(precision)[1]
    return -0.5 * float(misfit + log_determinant), effects, covariance


def fit_int8(rows: Sequence[Int8Row], start: Sequence[float] = _START) -> Int8Fit:
    """Fit the law to published rows.

    Args:
        rows: At least one.
        start: Scatters to begin with, of `SCATTERS`; the search goes uphill from there, one step on the grid at a time.
    """
    data = _data(rows)
    scatters = tuple(start)
    best = _posterior(data, scatters)
    improved = True
    while improved:
        improved = False
        for place, step in product(range(len(SCATTERS)), (-1, 1)):
            at = _GRID.index(scatters[place]) + step
            if not 0 <= at < len(_GRID):
                continue
            tried = (*scatters[:place], _GRID[at], *scatters[place + 1 :])
            if (found := _posterior(data, tried))[0] > best[0] + 1e-9:
                best, scatters, improved = found, tried, True
    laboratory, network, run, figure = scatters
    known = frozenset(row_traits(row).architecture for row in rows if row.task == "detection")
    return Int8Fit(best[1], best[2], (laboratory, network, run, figure), known)


@cache
def shipped_fit() -> Int8Fit:
    """The law of all published rows; some hundredths of a second, once.

    Raises:
        FileError: The shipped table was damaged.
    """
    return fit_int8(used_rows())
