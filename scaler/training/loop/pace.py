"""How fast a run is and how long it will take."""

from __future__ import annotations

import time


class Pace:
    """Counts pictures and seconds while the network learns; evaluations are counted apart."""

    def __init__(self) -> None:
        self._begun = self._mark = time.perf_counter()
        self._pictures = self._steps = 0
        self._evaluating, self._evaluations = 0.0, 0

    def step(self, pictures: int) -> None:
        """A step is done."""
        self._pictures += pictures
        self._steps += 1

    def recent(self) -> float:
        """Pictures/s since the last call."""
        now = time.perf_counter()
        speed = self._pictures / max(now - self._mark, 1e-9)
        self._mark, self._pictures = now, 0
        return speed

    def evaluated(self, seconds: float) -> None:
        """An evaluation is done."""
        self._evaluating += seconds
        self._evaluations += 1
        self._mark = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the beginning, evaluations too."""
        return time.perf_counter() - self._begun

    def left(self, steps: int, evaluations: int) -> float:
        """Seconds for what is left, at the mean pace so far."""
        if not self._steps:
            return 0.0
        each = (self.seconds - self._evaluating) / self._steps
        every = self._evaluating / self._evaluations if self._evaluations else 0.0
        return each * steps + every * evaluations
