"""Power while something runs: what a power meter offers, a sampler around a block, energy by frame.

A meter is anything with rails in watts (`Power`); `scaler.runtimes.power_find` finds the one of this computer,
`scaler.runtimes.power_fake` is the public fake. Every value counts for the time since the value before it, which is
right for counters of energy and for sensors that average alike. Idle power is measured apart and never subtracted
silently. A look at the three rails of a Jetson takes about 2 ms of a core: measure energy in a block of its own, not in
the one whose latency counts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias

import numpy as np

__all__ = ["Energy", "Power", "PowerLog", "PowerReading", "PowerSampler", "Watts", "measure_energy"]

Watts: TypeAlias = Mapping[str, float]
"""Watts by rail."""
Clock: TypeAlias = Callable[[], float]

INTERVAL_SECONDS = 0.05
"""From one look at the meter to the next; the sensors of a Jetson tell something new every few milliseconds."""
SETTLE_SECONDS = 0.5
"""Beginning of a block that does not count: clocks rise, and sensors still average over what was before."""
IDLE_SECONDS = 3.0
_PARTS = 8
_STUDENT_7 = 1.8946  # 95th percentile, 7 degrees of freedom


class Power(Protocol):
    """A power meter: sensors of a board, counters of a processor, a fake."""

    @property
    def source(self) -> str:
        """`ina3221`, `tegrastats`, `rapl` or `fake`: readings of one are not comparable with those of another."""
        ...

    @property
    def rails(self) -> tuple[str, ...]:
        """What is metered, by the names that the system gives."""
        ...

    @property
    def whole(self) -> tuple[str, ...]:
        """The rails whose sum is all of `scope`, none of them part of another; empty where this is not known."""
        ...

    @property
    def scope(self) -> str:
        """Of what the total is, in words: `module`, `processor and memory`."""
        ...

    def sample(self) -> Watts:
        """Watts by rail, now or since the last question; a rail that cannot be read is absent.

        Empty where there is nothing new, and at the first question to a counter. Never raises for a lost reading.
        """
        ...

    def close(self) -> None:
        """End what the meter started; closing twice does no harm."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerReading:
    """Power over a block of time."""

    source: str
    scope: str
    seconds: float
    """Of the whole block; the watts leave out its beginning."""
    samples: int
    """Values that count."""
    lost: int
    """Values that do not, because a rail of the whole could not be read."""
    watts: Watts
    """Mean by rail over the time that counts."""
    total_w: float | None
    """Mean of the whole; None where no value tells it."""
    error_w: float | None
    """Half width of the 90 % interval of `total_w`, from eight parts of the block; None with too few values.

    It holds what varies within the block, not what the sensor is wrong by.
    """
    peak_w: float | None
    """The highest value of the whole."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """Energy of frames that ran one after the other."""

    busy: PowerReading
    idle: PowerReading | None
    """Measured just before, with nothing running; None where this was not asked for."""
    frames: int

    @property
    def frame_ms(self) -> float:
        """Milliseconds from one frame to the next."""
        return self.busy.seconds / self.frames * 1e3

    @property
    def mj(self) -> float | None:
        """Millijoules a frame, idle power included: mean watts by frame time."""
        return None if self.busy.total_w is None else self.busy.total_w * self.frame_ms

    @property
    def error_mj(self) -> float | None:
        """Half width of the 90 % interval of `mj`."""
        return None if self.busy.error_w is None else self.busy.error_w * self.frame_ms

    @property
    def above_idle_mj(self) -> float | None:
        """Millijoules a frame that an idle board would not have taken."""
        if self.idle is None or self.idle.total_w is None or self.busy.total_w is None:
            return None
        return (self.busy.total_w - self.idle.total_w) * self.frame_ms

    @property
    def rails_mj(self) -> Mapping[str, float]:
        """Millijoules a frame by rail."""
        return {rail: watts * self.frame_ms for rail, watts in self.busy.watts.items()}

    def __str__(self) -> str:
        """One line: `9.12 W (module, ina3221), idle 4.65 W: 304 ± 6 mJ a frame of 33.3 ms, 149 mJ above idle`."""
        if self.busy.total_w is None or self.mj is None:
            return "; ".join(("energy unknown", *self.busy.notes))
        idle = f", idle {self.idle.total_w:.2f} W" if self.idle and self.idle.total_w is not None else ""
        spread = "" if self.error_mj is None else f" ± {self.error_mj:.2g}"
        above = "" if self.above_idle_mj is None else f", {self.above_idle_mj:.3g} mJ above idle"
        return (
            f"{self.busy.total_w:.2f} W ({self.busy.scope}, {self.busy.source}){idle}: "
            f"{self.mj:.3g}{spread} mJ a frame of {self.frame_ms:.3g} ms{above}"
        )


class _Sample(NamedTuple):
    """A value of the meter, the second at which it was taken and the seconds that it stands for."""

    end: float
    seconds: float
    watts: Watts


@dataclass(slots=True)
class PowerLog:
    """Values of a meter over a block; whoever holds it says when to take one.

    Args:
        power: The meter.
        settle: Seconds at the beginning that do not count, unless the block is over before.
        clock: Seconds.
    """

    power: Power
    settle: float = SETTLE_SECONDS
    clock: Clock = time.perf_counter
    _start: float = field(default=0.0, init=False)
    _end: float = field(default=0.0, init=False)
    _last: float = field(default=0.0, init=False)
    _samples: list[_Sample] = field(default_factory=list, init=False)

    def begin(self) -> None:
        """Forget everything; the block begins now, and so do the meter's counters."""
        self._samples.clear()
        self.power.sample()
        self._start = self._end = self._last = self.clock()

    def take(self) -> None:
        """Take a value, if there is a new one."""
        watts = self.power.sample()
        now = self.clock()
        if watts and now > self._last:
            self._samples.append(_Sample(now, now - self._last, dict(watts)))
            self._last = now

    def end(self) -> None:
        """The block is over."""
        self._end = self.clock()
        self.take()

    def reading(self, *, last: float | None = None, tail: float = 0.0) -> PowerReading:
        """Mean power between the beginning and the end.

        Args:
            last: Seconds before the end that alone count, where the load does not fill the block; None for all of it.
            tail: Seconds of these that do not count either.
        """
        notes: list[str] = []
        first = self._start + self.settle if last is None else self._end - last
        samples = [s for s in self._samples if s.end - s.seconds >= first and (not tail or s.end <= self._end - tail)]
        if not samples and self._samples:
            if last is None:
                samples = self._samples
                notes.append(f"the block was over before the {self.settle:g} s that the sensors need to settle")
            else:
                notes.append("the load was over before a value lay safely within it: let it run longer")
        whole = self.power.whole
        told = [s for s in samples if whole and all(rail in s.watts for rail in whole)]
        totals = [sum(s.watts[rail] for rail in whole) for s in told]
        weights = [s.seconds for s in told]
        if not whole:
            notes.append(f"none of the rails {', '.join(self.power.rails) or '(none)'} is known to be the whole")
        elif not told:
            notes.append(f"{self.power.source} told no power of the whole ({' + '.join(whole)}) during the block")
        error = _half_width(totals, weights)
        if told and error is None:
            notes.append(f"{len(told)} values are too few for an interval: let the block run longer")
        return PowerReading(
            source=self.power.source,
            scope=self.power.scope,
            seconds=self._end - self._start,
            samples=len(told) if whole else len(samples),
            lost=len(samples) - len(told) if whole else 0,
            watts=_by_rail(self.power.rails, samples),
            total_w=_mean(totals, weights) if told else None,
            error_w=error,
            peak_w=max(totals, default=None),
            notes=tuple(notes),
        )


class PowerSampler:
    """Samples a meter in a thread of its own while a block runs.

    ::

        with PowerSampler(power) as sampler:
            session.time(500)
        print(sampler.reading().total_w)

    Args:
        power: The meter; it stays open.
        interval: Seconds from one value to the next.
        settle: See `PowerLog`.
        clock: See `PowerLog`.
    """

    def __init__(
        self,
        power: Power,
        *,
        interval: float = INTERVAL_SECONDS,
        settle: float = SETTLE_SECONDS,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._log = PowerLog(power, settle, clock)
        self._interval = interval
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        """The block begins."""
        self._stop.clear()
        self._failure = None
        self._log.begin()
        self._thread = threading.Thread(target=self._run, name="power", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The block is over; a meter that broke says so here, unless the block broke itself."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if error is None:
            if self._failure is not None:
                raise self._failure
            self._log.end()

    def reading(self, *, last: float | None = None, tail: float = 0.0) -> PowerReading:
        """Mean power of the block, asked after it; see `PowerLog.reading`."""
        return self._log.reading(last=last, tail=tail)

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._interval):
                self._log.take()
        except Exception as error:  # told to whoever waits for the block, not to the thread's own hook
            self._failure = error


def measure_energy(
    power: Power,
    run: Callable[[], int],
    *,
    idle_seconds: float = IDLE_SECONDS,
    interval: float = INTERVAL_SECONDS,
    settle: float = SETTLE_SECONDS,
) -> Energy:
    """Idle power first, then the energy of frames.

    Args:
        power: The meter.
        run: Runs frames one after the other without a pause, and returns how many; a few seconds of them.
        idle_seconds: How long to look at the idle board before; 0 leaves it out.
        interval: See `PowerSampler`.
        settle: See `PowerLog`.

    Raises:
        ValueError: `run` ran no frame.
    """
    idle = None
    if idle_seconds > 0:
        with PowerSampler(power, interval=interval, settle=min(settle, idle_seconds / 2)) as sampler:
            time.sleep(idle_seconds)
        idle = sampler.reading()
    with PowerSampler(power, interval=interval, settle=settle) as sampler:
        frames = run()
    if frames < 1:
        raise ValueError("no frame was run, so that there is no energy of one")
    return Energy(busy=sampler.reading(), idle=idle, frames=frames)


def _by_rail(rails: Sequence[str], samples: Sequence[_Sample]) -> dict[str, float]:
    """Mean of every rail over the values that tell it."""
    found: dict[str, float] = {}
    for rail in rails:
        told = [s for s in samples if rail in s.watts]
        if told:
            found[rail] = _mean([s.watts[rail] for s in told], [s.seconds for s in told])
    return found


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return float(np.average(values, weights=weights))


def _half_width(values: Sequence[float], weights: Sequence[float]) -> float | None:
    """Of the 90 % interval of the mean, from the means of eight parts: values next to each other are alike."""
    if len(values) < 2 * _PARTS:
        return None
    parts = zip(np.array_split(values, _PARTS), np.array_split(weights, _PARTS), strict=True)
    means = [float(np.average(part, weights=weight)) for part, weight in parts]
    return float(_STUDENT_7 * np.std(means, ddof=1) / np.sqrt(_PARTS))
