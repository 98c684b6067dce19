"""Cross-validation of the law of INT8 losses: whole laboratories, networks and kinds of networks are left out.

Every fold finds its own scatters. A held-out network is predicted as a stranger, also where the fit has seen it at
another laboratory: that is how the search uses the law.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

from scaler.accuracy.int8_loss_fit import fit_int8, row_traits, shipped_fit, used_rows
from scaler.accuracy.scores import CrossValidation, HeldOut, score
from scaler.published.int8 import Int8Row

__all__ = ["SCHEMES", "Int8Validation", "validate_int8"]

SCHEMES: dict[str, Callable[[Int8Row], object]] = {
    "leave-one-laboratory-out": lambda row: row.laboratory,
    "leave-one-network-out": lambda row: row.model,
    "leave-one-architecture-out": lambda row: row_traits(row).architecture,
}
"""What the rows of a fold have in common."""


class Int8Validation(NamedTuple):
    """One scheme, judged on the published figures of detectors."""

    part: CrossValidation
    """`published` and `predicted` are losses in points."""
    constant_error_ap: float
    """Mean absolute error in points of the median of all other rows, for comparison."""
    bias_ap: float
    """Mean of predicted less published, in points."""


@cache
def validate_int8() -> tuple[Int8Validation, ...]:
    """Leave out each laboratory, network and architecture in turn; some two seconds.

    Classifiers support every fit, and are left out with their laboratory or network, but are not judged.
    """
    return tuple(_cross_validated(scheme) for scheme in SCHEMES)


def _cross_validated(scheme: str) -> Int8Validation:
    rows, fold_of = used_rows(), SCHEMES[scheme]
    held: list[HeldOut] = []
    constant: list[float] = []
    for fold in dict.fromkeys(map(fold_of, rows)):
        kept = [row for row in rows if fold_of(row) != fold]
        left_out = [row for row in rows if fold_of(row) == fold and row.task == "detection"]
        if not left_out:
            continue
        fit = fit_int8(kept, shipped_fit().scatters)  # only the start of its search
        median = float(np.median([row.loss_points for row in kept if row.task == "detection"]))
        ends = (array.tolist() for array in fit.predict([row_traits(row) for row in left_out]))
        for row, mean, low, high in zip(left_out, *ends, strict=True):
            label = f"{row.network} {'AP50' if row.metric == 'ap50' else 'AP'}, {row.laboratory}"
            held.append(HeldOut(row, row.loss_points, mean, low, high, label, row.laboratory, row.calibration))
            constant.append(abs(median - row.loss_points))
    part = CrossValidation("INT8", "loss", scheme, tuple(held), score(held))
    return Int8Validation(part, float(np.mean(constant)), float(np.mean([row.error_ap for row in held])))
