"""Our own sampler: Pareto local search.

It steps from members of the front to neighbours that nobody has evaluated, where the front has gaps and
little was tried so far; a share of the proposals crosses two members or starts anew. Cf. Paquete, Chiarandini,
Stützle, "Pareto Local Optimum Sets in the Biobjective Traveling Salesman Problem" (2004).

A proposal depends on the seed and on what is known, on nothing else: a study that was interrupted goes on as if
it had not been.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scaler.search.front import pareto_front
from scaler.search.history import FloatArray, History
from scaler.space import Key, Params, key

__all__ = ["LocalSearch"]

Places = NDArray[np.intp]

_DRAWN_FIRST = 40  # random candidates before the first step
_RESTARTS = 0.02  # share of random candidates afterwards
_CROSSINGS = 0.1  # share of crossings of two members
_NEAREST = 5  # parents where nothing is feasible
_TRIES = 10  # at a crossing that is new


class LocalSearch:
    """Proposes candidates for one study.

    Args:
        history: Everything known, kept up to date by the study.
        seed: Of the study.
    """

    def __init__(self, history: History, seed: int) -> None:
        self._history, self._seed = history, seed
        self._noticed = 0
        self._fresh: dict[Key, dict[Key, Params]] = {}  # the unknown neighbours of every former parent
        self._parents_of: dict[Key, list[Key]] = {}  # the other way round
        self._tried: dict[Key, int] = {}  # how many neighbours of a former parent are known

    def propose(self, lane: int = 0) -> Params | None:
        """Return a candidate that is not known; None where none is left.

        Args:
            lane: Tells workers apart that share a study, lest they all propose the same.
        """
        self._notice()
        history = self._history
        rng = np.random.default_rng((self._seed, len(history), lane))
        fate = rng.random()
        if len(history) < _DRAWN_FIRST or fate < _RESTARTS:
            return history.new_anywhere(rng)
        places, gaps = _parents(*history.figures())
        found = self._crossing(places, rng) if fate < _RESTARTS + _CROSSINGS else None
        found = self._step(places, gaps, rng) if found is None else found
        return history.new_anywhere(rng) if found is None else found

    def _notice(self) -> None:
        """Cross out what has become known since the last proposal."""
        for name in self._history.keys[self._noticed :]:
            for parent in self._parents_of.pop(name, ()):
                del self._fresh[parent][name]
                self._tried[parent] += 1
        self._noticed = len(self._history)

    def _crossing(self, places: Places, rng: np.random.Generator) -> Params | None:
        """A new candidate that has each value from one of two members."""
        for _ in range(_TRIES if places.size > 1 else 0):
            mother, father = (self._history.evaluated[place][0] for place in rng.choice(places, 2, replace=False))
            mixed = {
                name: (mother if name not in father or (name in mother and rng.random() < 0.5) else father)[name]
                for name in {**mother, **father}
            }
            child = self._history.space.repaired(mixed, rng)
            if not self._history.knows(child):
                return child
        return None

    def _step(self, places: Places, gaps: FloatArray, rng: np.random.Generator) -> Params | None:
        """A new neighbour of a member: one in a wide gap, of which few are known; None at a local optimum."""
        names = [self._explored(place) for place in places]
        tried = np.array([self._tried[name] for name in names])
        worth = gaps / (1 + tried) * rng.uniform(0.7, 1.3, gaps.size)
        for place in np.argsort(-worth):
            fresh = self._fresh[names[place]]
            if fresh:
                return list(fresh.values())[int(rng.integers(len(fresh)))]
        return None

    def _explored(self, place: int) -> Key:
        """Make sure that the neighbours of a member are listed."""
        parent = self._history.keys[place]
        if parent not in self._fresh:
            around = self._history.space.neighbours(self._history.evaluated[place][0])
            fresh = {key(other): other for other in around if not self._history.knows(other)}
            self._fresh[parent], self._tried[parent] = fresh, len(around) - len(fresh)
            for name in fresh:
                self._parents_of.setdefault(name, []).append(parent)
        return parent


def _parents(ap: FloatArray, minimized: FloatArray, violation: FloatArray) -> tuple[Places, FloatArray]:
    """The members of the feasible front and how wide the gaps around each are, in shares of the front."""
    feasible = np.flatnonzero(violation <= 0)
    if not feasible.size:
        nearest = np.argsort(violation, kind="stable")[:_NEAREST]
        return nearest, np.ones(nearest.size)
    members = feasible[pareto_front(ap[feasible], minimized[feasible])]
    if members.size < 3:
        return members, np.ones(members.size)
    gain, cost = ap[members], minimized[members]
    steps = np.hypot(np.diff(gain) / np.ptp(gain), np.diff(cost) / np.ptp(cost))
    gaps = np.append(steps, 0) + np.append(0, steps)
    gaps[[0, -1]] = gaps.max()  # what lies beyond an end, nobody knows
    return members, gaps + gaps.mean()
