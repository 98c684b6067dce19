"""Scores of a cross-validation: made of held-out figures, and read back from a shipped file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from scaler.accuracy.prediction import Score
from scaler.files import Reader

__all__ = ["By", "CrossValidation", "HeldOut", "kendall_tau", "read_score", "score"]


By = Literal["group", "recipe"]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A published figure beside its prediction by a fit that has not seen it."""

    config: Any
    """Configuration of the detector."""
    published: float
    predicted: float
    low: float
    high: float
    label: str
    """What it is, in a few words."""
    group: str
    """The backbone or network that it belongs to."""
    recipe: str
    """How it was trained."""

    @property
    def error_ap(self) -> float:
        """Predicted less published."""
        return self.predicted - self.published

    @property
    def covered(self) -> bool:
        """Whether the 90 % interval holds the published figure."""
        return self.low <= self.published <= self.high


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """One scheme of leaving out, on one figure of one family."""

    family: str
    figure: str
    """`VOC AP50`, `COCO AP50` or `COCO AP`."""
    scheme: str
    """What is left out: `leave-one-...-out`."""
    rows: tuple[HeldOut, ...]
    score: Score

    def worst(self, count: int = 5) -> tuple[HeldOut, ...]:
        """The rows with the largest errors, largest first."""
        return tuple(sorted(self.rows, key=lambda row: -abs(row.error_ap))[:count])

    def errors(self, by: By) -> dict[str, tuple[int, float]]:
        """Number of rows and mean absolute error in points of every group or recipe."""
        errors: dict[str, list[float]] = {}
        for row in self.rows:
            errors.setdefault(row.group if by == "group" else row.recipe, []).append(abs(row.error_ap))
        return {name: (len(values), float(np.mean(values))) for name, values in errors.items()}


def score(rows: Sequence[HeldOut]) -> Score:
    """Errors, order and intervals of held-out figures together."""
    return Score(
        n=len(rows),
        mean_absolute_error_ap=float(np.mean([abs(row.error_ap) for row in rows])),
        kendall_tau=kendall_tau([row.published for row in rows], [row.predicted for row in rows]),
        coverage=float(np.mean([row.covered for row in rows])),
        mean_half_width_ap=float(np.mean([row.high - row.low for row in rows])) / 2.0,
    )


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b: agreement of two orders, ties allowed for."""
    above = np.triu_indices(len(first), 1)
    signs = [np.sign(np.subtract.outer(values, values))[above] for values in (first, second)]
    return float(np.sum(signs[0] * signs[1]) / np.sqrt(np.prod([np.count_nonzero(sign) for sign in signs])))


def read_score(reader: Reader) -> Score:
    """Read a score back.

    Raises:
        FileError: A number is missing or outside its range.
    """
    return Score(
        reader.integer("n", minimum=1),
        reader.number("mean_absolute_error_ap", minimum=0.0),
        reader.number("kendall_tau", minimum=-1.0, maximum=1.0),
        reader.number("coverage", minimum=0.0, maximum=1.0),
        reader.number("mean_half_width_ap", minimum=0.0),
    )
