"""What a study knows: every candidate that was evaluated, once, in the order of the evaluations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaler.search.evaluation import Evaluated
from scaler.space import Key, Params, Space, key

__all__ = ["History"]

FloatArray = NDArray[np.float64]

_DRAWS = 20  # before a search for a new candidate goes through the space one by one


class History:
    """The evaluated candidates of a space.

    Attributes:
        space: The search space.
        evaluated: Candidates and what they scored, in order.
        keys: The candidates as keys, in the same order.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.evaluated: list[tuple[Params, Evaluated]] = []
        self.keys: list[Key] = []
        self._places: dict[Key, int] = {}
        self._figures = np.empty((3, 64))

    def __len__(self) -> int:
        """How many different candidates were evaluated."""
        return len(self.evaluated)

    @property
    def exhausted(self) -> bool:
        """Whether no candidate of the space is left."""
        return len(self.evaluated) >= self.space.size

    def add(self, params: Params, scored: Evaluated) -> None:
        """Remember a candidate in its canonical form; one that is known already stays as it was."""
        place, name = len(self.evaluated), key(params)
        if self._places.setdefault(name, place) != place:
            return
        self.keys.append(name)
        self.evaluated.append((params, scored))
        if place == self._figures.shape[1]:
            self._figures = np.hstack((self._figures, np.empty_like(self._figures)))
        self._figures[:, place] = scored.ap, scored.minimized, max(scored.violations.values(), default=0.0)

    def find(self, params: Params) -> Evaluated | None:
        """What this candidate scored, or None."""
        place = self._places.get(key(params))
        return None if place is None else self.evaluated[place][1]

    def knows(self, params: Params) -> bool:
        """Whether this candidate was evaluated."""
        return key(params) in self._places

    def figures(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Accuracy, what is minimised, and largest violation (feasible where not above 0) of all, in order."""
        ap, minimized, violation = self._figures[:, : len(self.evaluated)]
        return ap, minimized, violation

    def new_near(self, params: Params, rng: np.random.Generator) -> Params | None:
        """This candidate if it is new, else a new neighbour, else any new one; None where none is left."""
        if not self.knows(params):
            return params
        fresh = [other for other in self.space.neighbours(params) if not self.knows(other)]
        return fresh[int(rng.integers(len(fresh)))] if fresh else self.new_anywhere(rng)

    def new_anywhere(self, rng: np.random.Generator) -> Params | None:
        """Draw a new candidate; None where none is left."""
        if self.exhausted:
            return None
        for _ in range(_DRAWS):
            params = self.space.sample(rng)
            if not self.knows(params):
                return params
        return next((params for params in self.space.candidates() if not self.knows(params)), None)
