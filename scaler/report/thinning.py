"""Less ink for the same picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

Points = Sequence[tuple[float, float]]


def thinned(points: Points, columns: int = 120, rows: int = 80) -> list[tuple[float, float]]:
    """At most one point, the first, per cell of a fine grid over (time, AP), logarithmic in time."""
    positive = [(x, y) for x, y in points if x > 0]
    if not positive:
        return []
    logs = [math.log(x) for x, _ in positive]
    left, bottom = min(logs), min(y for _, y in positive)
    across = columns / max(max(logs) - left, 1e-9)
    along = rows / max(max(y for _, y in positive) - bottom, 1e-9)
    kept: dict[tuple[int, int], tuple[float, float]] = {}
    for point, log in zip(positive, logs, strict=True):
        kept.setdefault((int((log - left) * across), int((point[1] - bottom) * along)), point)
    return list(kept.values())
