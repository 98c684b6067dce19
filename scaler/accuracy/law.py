"""Small laws of accuracy with named parameters, and what a fit leaves of them; numpy only.

A law says what a family's detectors reach by its default recipe, from a few features. Every other recipe that was
published adds an offset of its own and, weakly, a slope: recipes favour large or small networks differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from scaler.accuracy.curve import Prior
from scaler.accuracy.prediction import FloatArray, Metric
from scaler.files import Reader

__all__ = [
    "Law",
    "LawFit",
    "Observation",
    "beyond",
    "columns",
    "gradient",
    "mean_and_variance",
    "parameter_names",
    "priors",
    "read_posterior",
]

X = TypeVar("X")
_STEP = 1e-6


class Observation(NamedTuple):
    """One published training run."""

    network: Any
    """A configuration, or a row with the same fields."""
    recipe: str
    published: float
    name: str
    """Network and size, for tables."""
    group: str
    """The network without its size: what leave-one-network-out leaves out."""


class LawFit(NamedTuple):
    """The most probable parameters, the law's own and then the recipes', with their posterior covariance."""

    theta: FloatArray
    covariance: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Law(Generic[X]):
    """What is known of a family before its figures are looked at."""

    family: str
    title: str
    fitted_on: str
    """Whose training runs."""
    priors: Callable[[Metric], Mapping[str, Prior]]
    """Beliefs about the parameters, in the order of `value`."""
    features: Callable[[Iterable[Any]], X]
    value: Callable[[FloatArray, X], FloatArray]
    """Accuracy in points by the default recipe: parameters of shape ``[..., count]``, result ``[..., n]``."""
    size: Callable[[X], FloatArray]
    """What a recipe's slope multiplies; 0 for the network that its offset is quoted for."""
    doubt_ap: Callable[[X], FloatArray]
    """Standard deviation in points of what has no data behind it."""
    outside: Callable[[Any], tuple[str, ...]]
    """Why a configuration lies outside the published data; empty inside."""
    judged: Callable[[Any], bool]
    """Whether nobody published a network of this kind, so that even its level is an estimate."""
    evaluation: str
    """How the published pictures were brought to size, in a sentence."""
    notes: tuple[str, ...]
    """What a reader of the predictions must know."""
    scatter_ap: float
    """Standard deviation of one training run around the law."""
    recipes: Mapping[str, str]
    """Descriptions by name, the default first."""
    recipe_sd_ap: float
    slope_sd_ap: float


def parameter_names(law: Law[X], metric: Metric) -> tuple[str, ...]:
    """Of all parameters, in the order of `LawFit.theta`."""
    others = list(law.recipes)[1:]
    return (*law.priors(metric), *(f"recipe {name}" for name in others), *(f"slope {name}" for name in others))


def priors(law: Law[X], metric: Metric) -> tuple[Prior, ...]:
    """Beliefs about all parameters, in the same order."""
    count = len(law.recipes) - 1
    offset, slope = Prior(0.0, law.recipe_sd_ap, -8.0, 8.0), Prior(0.0, law.slope_sd_ap, -4.0, 4.0)
    return (*law.priors(metric).values(), *[offset] * count, *[slope] * count)


def columns(rows: Iterable[Sequence[float]], count: int) -> list[FloatArray]:
    """Rows of `count` numbers, one a network, as one array a feature."""
    table = np.array(list(rows), dtype=np.float64)
    return list(np.ascontiguousarray(table.reshape(-1, count).T))


def beyond(number: float, known: tuple[float, float]) -> float:
    """How far outside a published range, as a logarithm of the ratio; 0 inside."""
    return max(math.log(known[0] / number), math.log(number / known[1]), 0.0)


def read_posterior(reader: Reader, names: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """Parameters and covariance of a shipped fit, which has the lower triangle, a row a parameter.

    Raises:
        FileError: A number is missing, or a row is of another length.
    """
    means, triangle = reader.table("parameters"), reader.table("covariance")
    theta = np.array([means.number(name) for name in names])
    lower = np.zeros((len(names), len(names)))
    for i, name in enumerate(names):
        row = triangle.numbers(name)
        if len(row) != i + 1:
            raise triangle.error(name, f"{len(row)} numbers", f"expected {i + 1}", "write the fit again")
        lower[i, : i + 1] = row
    return theta, lower + np.tril(lower, -1).T


def gradient(
    law: Law[X], metric: Metric, theta: FloatArray, x: X, recipes: Sequence[str]
) -> tuple[FloatArray, FloatArray]:
    """Accuracy, shape ``[n]``, and its derivatives by all parameters, shape ``[n, count]``.

    Those by the law's parameters are forward differences, those by the recipes' exact.
    """
    own = len(law.priors(metric))
    stacked = law.value(theta[:own] + _STEP * np.vstack([np.zeros(own), np.eye(own)]), x)
    places = {name: i for i, name in enumerate(law.recipes)}
    by_offset = np.eye(len(places))[[places[name] for name in recipes], 1:]
    by_recipe = np.concatenate([by_offset, by_offset * law.size(x)[:, None]], axis=1)
    mean: FloatArray = stacked[0] + by_recipe @ theta[own:]
    return mean, np.concatenate([((stacked[1:] - stacked[0]) / _STEP).T, by_recipe], axis=1)


def mean_and_variance(
    law: Law[X], metric: Metric, fit: LawFit, networks: Sequence[Any], recipes: Sequence[str]
) -> tuple[FloatArray, FloatArray]:
    """Accuracy and the variance of a published figure around it: parameters, run, and what has no data."""
    x = law.features(networks)
    mean, by_theta = gradient(law, metric, fit.theta, x, recipes)
    variance = np.einsum("ij,ij->i", by_theta @ fit.covariance, by_theta)
    return mean, variance + law.scatter_ap**2 + law.doubt_ap(x) ** 2
