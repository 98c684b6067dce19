"""Times one network beside the reference network.

The two alternate in short blocks, `R N R N R ... R`, so that whatever slows the machine slows both; a round is one
block of the network with the blocks of the reference on both sides of it. A round counts as quiet while the reference
is about as fast as it is at its best: a busy neighbour slows different networks by different factors, so it is waited
out, on another processor core where there is one, and its rounds are not used as long as there are enough others. The
first inferences of a block find the caches filled by the other network and are not counted, unless they are so long
that this does not matter.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from scaler.errors import UserError
from scaler.profiling.energy import NO_METER, Meter, measure_energy_of, memory_of, prepared
from scaler.profiling.measurement import BUSY, LARGEST_SPREAD, Measurement, Round
from scaler.runtimes.protocol import Conditions, FloatArray, Runtime, Session
from scaler.space import Params

COLD_RUNS = 2
"""Inferences at the start of a block that are not counted: 20 % and 9 % slower where this was tried."""
PROFILES = 2
"""Profiles of a network at most; the quietest is kept."""
COLD_START_MS = 50.0
"""Time of an inference above which a cold cache at its start does not matter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much measuring a network gets."""

    rounds: int = 6
    """Quiet rounds to collect, at least."""
    quiet_seconds: float = 0.35
    """Time of the network in quiet rounds, at least."""
    block_seconds: float = 0.02
    """Time of a block of the network, at least; a block is one inference or more."""
    reference_seconds: float = 0.012
    """The same for a block of the reference."""
    patience: float = 3.0
    """Seconds that a network may wait for a quiet machine, in all."""
    pause: float = 0.5
    """Seconds from one look at a busy machine to the next."""
    profile_seconds: float = 0.8
    """Time that the profiled inferences should take together, at least."""
    profile_runs: int = 10
    """Profiled inferences, at least."""
    tries: int = 3
    """How often a measurement that spreads too much is repeated."""
    energy_seconds: float = 3.0
    """Time of the network while its power is measured, where there is a meter."""
    idle_seconds: float = 3.0
    """Time for which the idle board is looked at, once a run."""


@dataclass(slots=True)
class Reference:
    """The reference network, ready on a runtime, and what it has taken so far.

    Args:
        session: Of the reference network.
        effort: How much each block gets.
        cores: Processor cores among which to look for a quiet one; empty leaves that to the system.
    """

    session: Session
    effort: Effort
    cores: tuple[int, ...] = ()
    runs: int = field(init=False)
    medians: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Choose how many inferences a block takes."""
        self.runs = _runs(self.session.time(3), self.effort.reference_seconds)

    def block(self) -> FloatArray:
        """Time one block."""
        samples = self.session.time(COLD_RUNS + self.runs)[COLD_RUNS:]
        self.medians.append(float(np.median(samples)))
        return samples

    @property
    def quiet_ms(self) -> float:
        """What a block takes while the machine is quiet: the 10th percentile of all."""
        return float(np.percentile(self.medians, 10))

    @property
    def is_quiet(self) -> bool:
        """Whether the latest block was about as fast as on a quiet machine."""
        return self.medians[-1] <= BUSY * self.quiet_ms

    def settle(self, seconds: float) -> None:
        """Find out how fast the machine is: nothing but the reference for a while, one block at least."""
        end = time.perf_counter() + seconds
        self.move_to_quiet_core()
        while time.perf_counter() < end:
            self.move_to_quiet_core()

    def move_to_quiet_core(self) -> None:
        """Go on, on the core where a block is fastest now."""
        found = []
        for core in self.cores:
            os.sched_setaffinity(0, {core})
            found.append((float(np.median(self.block())), core))
        if found:
            os.sched_setaffinity(0, {min(found)[1]})
        self.block()

    def wait_for_quiet(self, seconds: float) -> float:
        """Wait for a quiet machine, so long at most; returns the seconds waited."""
        start = time.perf_counter()
        while not self.is_quiet:
            self.move_to_quiet_core()
            waited = time.perf_counter() - start
            if waited > seconds:
                break
            if not self.is_quiet:
                time.sleep(min(self.effort.pause, seconds - waited))
        return time.perf_counter() - start


def measure(
    runtime: Runtime,
    model: Path,
    reference: Reference,
    *,
    network: str,
    params: Params,
    effort: Effort = Effort(),
    profile: bool = True,
    meter: Meter = NO_METER,
) -> Measurement:
    """Time a network end to end and, where `profile` says so, layer by layer.

    Where there is a meter, energy is measured in a block of its own, between the times and the layers.

    A model that the runtime refuses or that fails gives a measurement with `error` set, never an exception.
    """
    start = time.perf_counter()
    result = Measurement(network=network, params=params, conditions=runtime.conditions())
    try:
        with prepared(runtime, model) as (session, grown_mib):
            result = _timed(session, reference, effort, result)
            energy = measure_energy_of(session, result.samples_ms, meter, effort.energy_seconds)
            result = replace(result, energy=energy, memory_mib=memory_of(session, grown_mib))
            if profile:
                result = _profiled(session, reference, effort, result)
    except UserError as error:
        result = replace(result, error=str(error), rounds=(), layers=(), energy=None, memory_mib=None)
    conditions = runtime.conditions()
    conditions = replace(conditions, notes=(*conditions.notes, *filter(None, [meter.note])))
    return replace(
        result,
        conditions=conditions,
        warnings=(*result.warnings, *_doubts(conditions)),
        seconds=time.perf_counter() - start,
    )


def _timed(session: Session, reference: Reference, effort: Effort, result: Measurement) -> Measurement:
    warm = session.time(2)
    runs = _runs(warm, effort.block_seconds)
    skipped = COLD_RUNS if float(np.median(warm)) < COLD_START_MS else 0
    patience = effort.patience
    best: Measurement | None = None
    for attempt in range(1, effort.tries + 1):
        rounds, patience = _rounds(session, runs, skipped, reference, effort, patience)
        current, quiet = replace(result, rounds=rounds), reference.quiet_ms
        if best is None or current.spread(quiet) < best.spread(quiet):
            best = current
        best = replace(best, tries=attempt)
        if best.spread(quiet) <= LARGEST_SPREAD:
            return best
    assert best is not None
    spread = 100 * best.spread(reference.quiet_ms)
    return replace(best, warnings=(*best.warnings, f"the rounds spread over {spread:.0f} % after {best.tries} tries"))


def _rounds(
    session: Session, runs: int, skipped: int, reference: Reference, effort: Effort, patience: float
) -> tuple[tuple[Round, ...], float]:
    """Rounds until enough of them are quiet; without patience as many of any kind. Returns the patience left too."""
    rounds: list[Round] = []
    counted, seconds = 0, 0.0
    before = reference.block()
    while counted < effort.rounds or seconds < effort.quiet_seconds:
        if not reference.is_quiet and patience > 0:
            patience -= reference.wait_for_quiet(patience)
            before = reference.block()
        samples, after = session.time(skipped + runs)[skipped:], reference.block()
        latest = Round(tuple(np.concatenate([before, after]).tolist()), tuple(samples.tolist()))
        rounds.append(latest)
        before = after
        if patience <= 0 or latest.is_quiet(reference.quiet_ms):
            counted, seconds = counted + 1, seconds + float(samples.sum()) * 1e-3
        else:
            patience -= float(samples.sum()) * 1e-3  # a lost round is waiting too, so that the rounds come to an end
    return tuple(rounds), patience


def _profiled(session: Session, reference: Reference, effort: Effort, result: Measurement) -> Measurement:
    """Profile, twice if the machine was not quiet before and after; keep the quieter."""
    once = float(np.median(result.samples_ms)) * 1e-3
    runs = max(effort.profile_runs, math.ceil(effort.profile_seconds / once))
    best, best_ms = result.layers, math.inf
    for _ in range(PROFILES):
        reference.wait_for_quiet(effort.patience / PROFILES)
        before, layers, after = reference.block(), session.profile(runs), reference.block()
        around = max(float(np.median(before)), float(np.median(after)))
        if around < best_ms:
            best, best_ms = layers, around
        if best_ms <= BUSY * reference.quiet_ms:
            break
    return replace(result, layers=best)


def _runs(samples: FloatArray, seconds: float) -> int:
    return max(1, math.ceil(seconds * 1e3 / float(np.median(samples))))


def _doubts(conditions: Conditions) -> tuple[str, ...]:
    return ("the device reports that it was throttled",) if conditions.throttled else ()
