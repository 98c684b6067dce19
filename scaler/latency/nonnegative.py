"""Small laws of sums: factors that are not negative, by relative error, and how far to trust them."""

from __future__ import annotations

import numpy as np

from scaler.latency.prediction import FloatArray

__all__ = ["factors_of", "left_out", "scatter_of"]

_SMALLEST_LOG_SD = 0.005


def factors_of(terms: FloatArray, values: FloatArray) -> FloatArray:
    """Factors of terms, none below 0, of least squared relative error: the best of all subsets of the terms.

    Args:
        terms: `[samples, terms]`, a handful of terms.
        values: `[samples]`, positive.
    """
    scaled = terms / values[:, None]
    best, factors = np.inf, np.zeros(terms.shape[1])
    for subset in range(1, 2 ** terms.shape[1]):
        columns = [column for column in range(terms.shape[1]) if subset >> column & 1]
        units = np.linalg.norm(scaled[:, columns], axis=0)
        if not units.all():
            continue
        found = np.linalg.lstsq(scaled[:, columns] / units, np.ones(len(values)), rcond=None)[0] / units
        error = float(np.sum((scaled[:, columns] @ found - 1) ** 2))
        if found.min() >= 0 and error < best:
            best, factors = error, np.zeros(terms.shape[1])
            factors[columns] = found
    return factors


def left_out(terms: FloatArray, values: FloatArray) -> FloatArray:
    """`[samples, terms]`: for every sample the factors that are fitted without it."""
    places = np.arange(len(values))
    return np.stack([factors_of(terms[places != out], values[places != out]) for out in places])


def scatter_of(errors: FloatArray) -> float:
    """Root mean square of errors, widened for their number: a normal interval then covers like Student's."""
    return max(float(np.sqrt(np.mean(errors**2))) * (1 + 1.5 / len(errors)), _SMALLEST_LOG_SD)
