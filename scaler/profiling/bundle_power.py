"""Energy of a frame from what tegrastats said on a device while its engine ran in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaler.latency.energy import NO_POWER
from scaler.profiling.energy import TAIL_SECONDS, energy_of_reading
from scaler.profiling.measurement import FrameEnergy
from scaler.runtimes.power import SETTLE_SECONDS, PowerLog, PowerReading, Watts
from scaler.runtimes.power_rails import parse_rails, whole_module

__all__ = ["LINE_SECONDS", "NO_RAILS", "NO_TEGRASTATS", "RecordedPower", "energy_of"]

LINE_SECONDS = 0.1
"""From one line to the next, as the programs of a bundle ask tegrastats for it."""
NO_TEGRASTATS = f"{NO_POWER}: the device has no tegrastats, its run failed, or the bundle is of an earlier version"
NO_RAILS = f"{NO_POWER}: tegrastats tells no power rails there (the Nano with 2 GB has no sensors)"


class RecordedPower:
    """Lines of tegrastats as a meter; an implementation of `scaler.runtimes.power.Power`.

    Args:
        text: What it said; the last line may be cut off.
    """

    source = "tegrastats"
    scope = "module"

    def __init__(self, text: str) -> None:
        lines = text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
        self.values: Sequence[Watts] = [watts for line in lines if (watts := parse_rails(line))]
        self.rails = tuple(self.values[0]) if self.values else ()
        self.whole = whole_module(self.rails)
        self.place = 0
        """How many lines have come."""

    def sample(self) -> Watts:
        """Watts of the line that came last."""
        return self.values[max(self.place - 1, 0)]

    def clock(self) -> float:
        """Seconds since the first line was asked for."""
        return LINE_SECONDS * self.place

    def close(self) -> None:
        """Nothing is open."""


def energy_of(text: str, idle: str, times_ms: Sequence[float], usual_ms: float) -> FrameEnergy | None:
    """Energy of a frame; None where no line tells power.

    Args:
        text: What tegrastats said while the load ran; it was stopped when the process with the load ended.
        idle: What it said with nothing running; may be empty.
        times_ms: Raw times of the load, which ends the block: before it the engine is loaded and warms up.
        usual_ms: Median time of the timed runs.
    """
    power, quiet = RecordedPower(text), RecordedPower(idle)
    if not power.values:
        return None
    reading = _reading(power, last=sum(times_ms) * 1e-3 - SETTLE_SECONDS)
    idle_w = _reading(quiet, last=None).total_w if quiet.rails == power.rails else None
    return energy_of_reading(reading, float(np.mean(times_ms)), usual_ms, idle_w)


def _reading(power: RecordedPower, *, last: float | None) -> PowerReading:
    """Mean power of the lines, as if they came now."""
    log = PowerLog(power, settle=0.0, clock=power.clock)
    log.begin()
    for place in range(1, len(power.values) + 1):
        power.place = place
        log.take()
    log.end()
    return log.reading(last=last, tail=0.0 if last is None else TAIL_SECONDS)
