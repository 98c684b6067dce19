"""Which candidates of a front to measure next, and whether the front still moves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from scaler.search.result import Candidate
from scaler.search.run import Search

__all__ = ["SURE", "hold", "informative", "movement"]

SURE = 0.99
"""Probability of reaching the target from which a candidate need not be measured."""
LIKELY = 0.5
"""The same from which a candidate that is more accurate than the pick is worth measuring."""
SPREAD = 0.15
"""Distance in time, as a logarithm, from which a candidate is measured only because no measured one is near."""


def informative(found: Search, known: set[str], most: int) -> tuple[list[Candidate], int]:
    """What to measure next: the pick, what may break its promise, the knee, what may yet hold, a spread over the rest.

    Args:
        found: A search whose promises are sure ones.
        known: Ids of the candidates that were measured or cannot be.
        most: Candidates, at most.

    Returns:
        The candidates, and how many that are unknown are the pick or may break what the front promises.
    """
    device = found.result.devices[0]
    by_id = {one.id: one for one in (*found.contenders, *device.front)}
    best = by_id[device.pick].ap.mean + found.result.noise_ap if device.pick in by_id else -math.inf
    first = [by_id[device.pick]] if device.pick in by_id else []
    first += [] if by_id or device.nearest is None else [device.nearest]
    unsure = [one for one in device.front if hold(one) < SURE]
    knee = [by_id[device.knee]] if device.knee in by_id else []
    hopeful = [one for one in found.contenders if hold(one) >= LIKELY and one.ap.mean > best]
    needed = _new((*first, *sorted(unsure, key=hold)), known)
    chosen = _new((*needed, *knee, *sorted(hopeful, key=hold)), known)[:most]
    there = [one for one in by_id.values() if one.id in known] + chosen
    rest = _new(by_id.values(), known | {one.id for one in chosen})
    while rest and len(chosen) < most:
        gaps = [_gap(one, there) for one in rest]
        if max(gaps) < SPREAD:
            break
        chosen.append(rest.pop(gaps.index(max(gaps))))
        there.append(chosen[-1])
    return chosen, len(needed)


def movement(before: Sequence[Candidate], after: Sequence[Candidate]) -> float:
    """How much a front has moved: mean change of the time of the candidates that are on both, as a share.

    What a search finds or misses by chance is no movement. Infinite where no candidate is on both.
    """
    old = {one.id: _frame_ms(one) for one in before}
    changes = [abs(math.log(_frame_ms(one) / old[one.id])) for one in after if one.id in old]
    return float(np.mean(changes)) if changes else math.inf


def _new(candidates: Iterable[Candidate], known: set[str]) -> list[Candidate]:
    """Those that are not known, each once."""
    return list({one.id: one for one in candidates if one.id not in known}.values())


def _gap(candidate: Candidate, others: Sequence[Candidate]) -> float:
    """Distance of a candidate's time from that of the nearest other one, as a logarithm."""
    return min((abs(math.log(_frame_ms(candidate) / _frame_ms(other))) for other in others), default=math.inf)


def hold(candidate: Candidate) -> float:
    """Probability that a candidate reaches the target; 1 without one."""
    return 1.0 if candidate.reach_probability is None else candidate.reach_probability


def _frame_ms(candidate: Candidate) -> float:
    return 1000 / candidate.fps.mean
