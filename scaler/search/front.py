"""The exact Pareto front of two objectives, accuracy up and frame time down, and figures about it."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["hypervolume", "knee", "pareto_front", "reference_point"]

_MARGIN = 0.1  # of the front's extent, beyond its worst values


def pareto_front(ap: ArrayLike, frame_ms: ArrayLike) -> NDArray[np.intp]:
    """Find the points that no other point beats: none is at least as accurate and as fast, and better in one.

    Of equal points the first stands for all of them.

    Args:
        ap: Accuracy of every point, higher is better, shape `[n]`.
        frame_ms: Time of every point, lower is better, shape `[n]`.

    Returns:
        The places of the front's points, fastest first; accuracy rises strictly along them.

    Raises:
        ValueError: The shapes differ, or a value is no number.
    """
    gain, cost = _checked(ap, frame_ms)
    order = np.lexsort((np.arange(gain.size), -gain, cost))  # fastest first, of equally fast ones the best
    best_before = np.maximum.accumulate(np.concatenate(([-np.inf], gain[order])))[:-1]
    return order[gain[order] > best_before]


def hypervolume(ap: ArrayLike, frame_ms: ArrayLike, reference: tuple[float, float]) -> float:
    """Measure the area that the points dominate, up to a reference point: exact, in AP x ms.

    Args:
        ap: Accuracy of every point, shape `[n]`; the points need not be a front.
        frame_ms: Time of every point, shape `[n]`.
        reference: The accuracy and the time of the corner; a point that is not better in both adds nothing.
    """
    gain, cost = _checked(ap, frame_ms)
    inside = (gain > reference[0]) & (cost < reference[1])
    gain, cost = gain[inside], cost[inside]
    front = pareto_front(gain, cost)
    widths = np.diff(np.append(cost[front], reference[1]))
    return float(widths @ (gain[front] - reference[0]))


def reference_point(ap: ArrayLike, frame_ms: ArrayLike) -> tuple[float, float]:
    """The reference point of our comparisons: the worst accuracy and the worst time on the exact front of these points.

    Both lie a tenth of the front's extent beyond, so that the ends of the front count too.
    """
    gain, cost = _checked(ap, frame_ms)
    front = pareto_front(gain, cost)
    if not front.size:
        raise ValueError("no points, no reference point")
    gain, cost = gain[front], cost[front]
    return float(gain[0] - _MARGIN * np.ptp(gain)), float(cost[-1] + _MARGIN * np.ptp(cost))


def knee(ap: ArrayLike, frame_ms: ArrayLike) -> int | None:
    """Find the front's best trade-off: the point farthest above the line between the front's two ends.

    Both axes are scaled to the front's extent first. Of equally far points the fastest is taken; where no point
    lies above the line, that is the fastest end.

    Returns:
        Its place among the points; None where there are none.
    """
    gain, cost = _checked(ap, frame_ms)
    front = pareto_front(gain, cost)
    if front.size < 3:
        return int(front[0]) if front.size else None
    up = (gain[front] - gain[front[0]]) / np.ptp(gain[front])
    right = (cost[front] - cost[front[0]]) / np.ptp(cost[front])
    return int(front[np.argmax(np.round(up - right, 12))])


def _checked(ap: ArrayLike, frame_ms: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    gain, cost = np.asarray(ap, dtype=np.float64), np.asarray(frame_ms, dtype=np.float64)
    if gain.ndim != 1 or gain.shape != cost.shape:
        raise ValueError(f"two lists of one length are needed, not {gain.shape} and {cost.shape}")
    if not (np.isfinite(gain).all() and np.isfinite(cost).all()):
        raise ValueError("accuracy and time must be finite")
    return gain, cost
