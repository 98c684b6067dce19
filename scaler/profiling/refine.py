"""Searches, measures what the search is least sure of, corrects the latency by it, and searches again.

A refined search promises a frame rate by the slow end of the corrected 90 % interval. It is settled when its picks were
measured, every candidate of the front that promises the target was measured or is sure to hold, and the front has
stopped moving. Every measurement is kept at once among the observed networks of the device
(`scaler.latency.observed`), so that an interrupted refinement goes on where it was, and every later search knows them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import fmean, geometric_mean
from typing import NamedTuple, cast

from scaler.devices import Precision
from scaler.errors import UnsupportedError, UsageError
from scaler.latency.corrected import CorrectedEstimator
from scaler.latency.estimator import Estimator, load_estimator
from scaler.latency.observed import Observed, observed_path, record_observed
from scaler.profiling.machine import Machine, OtherComputerError, machine_for, setting
from scaler.profiling.measurement import Measurement
from scaler.profiling.refine_choice import SURE, hold, informative, movement
from scaler.profiling.run import SETTLE_SECONDS
from scaler.profiling.run import Progress as Measuring
from scaler.profiling.verify import Bench, Timed, bench
from scaler.search.candidates import candidates_of
from scaler.search.precision import PRECISION
from scaler.search.predictors import classes_of
from scaler.search.result import Candidate, DeviceResult, SearchResult, Verified
from scaler.search.run import Progress as Searching
from scaler.search.run import Search, SearchOptions, search
from scaler.search.verified import with_verified
from scaler.space import MEMBER, Params
from scaler.space_file import read_space

__all__ = ["Refined", "Refinement", "Watch", "refine", "repeat_log_sd", "summary"]

ROUNDS = 6
STILL = 0.01
"""Movement of the front, as a share of its times, below which it stands still."""
REPEAT_LOG_SD = 0.025
"""What measuring a network at another time scatters by, beside its rounds: 60 networks in two passes, ADR 007."""
PASSES = 2
"""How often each candidate is measured in a round, the second time in reverse order."""
_NORMAL_IQR = 1.349
_OF_MEDIAN = 1.2533
"""Standard error of a median over that of a mean."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told what happens, and how."""

    searching: Callable[[], AbstractContextManager[Searching | None]] = nullcontext
    """Around every search."""
    measuring: Callable[[str], AbstractContextManager[Measuring | None]] = field(default=lambda _: nullcontext())
    """Around the measurements of a round, given what is done."""
    say: Callable[[str], None] = field(default=lambda _: None)
    """Told of every round in a sentence."""


class Refinement(NamedTuple):
    """One round."""

    measured: tuple[str, ...]
    """Ids of the candidates, in order."""
    error: float
    """Mean error of what was predicted of them, as a share; NaN where none could be measured."""
    moved: float
    """How much the front had moved since the round before, as a share of its times; infinite in the first."""


@dataclass(frozen=True, slots=True, eq=False)
class Refined:
    """The last search and how it came to be."""

    found: Search
    rounds: tuple[Refinement, ...]
    settled: bool
    """Whether there was nothing left to measure; else the rounds were used up, or Ctrl-C came."""
    unsure: int
    """Candidates on the front that were not measured, or cannot be, and are the pick or not sure to hold."""
    failures: tuple[str, ...]
    """Candidates that could not be measured, with the reason."""


def refine(
    options: SearchOptions,
    networks: int,
    *,
    rounds: int = ROUNDS,
    runtime: str = "auto",
    machine: Machine | None = None,
    watch: Watch = Watch(),
    settle_seconds: float = SETTLE_SECONDS,
) -> Refined:
    """Search a device with its own measurements, on the device itself.

    Args:
        options: The question, of one device.
        networks: Candidates to measure in a round, at most.
        rounds: Rounds of measuring, at most; a search comes before each and after the last.
        runtime: As for `machine_for`.
        machine: What measures; found by `machine_for` where None.
        watch: Who is told.
        settle_seconds: As for `bench`.

    Raises:
        UsageError: Several devices, or no networks or rounds.
        UnsupportedError: The device is another computer.
        UserError: Whatever search and bench raise.
    """
    if len(options.devices) != 1:
        raise UsageError(
            f"--refine measures on the device itself, which is one; given are {', '.join(options.devices)}"
        )
    if networks < 1 or rounds < 1:
        raise UsageError(f"refine {networks} networks in {rounds} rounds: allowed is 1 or more of each")
    bed = _Bed(options, runtime, machine, settle_seconds)
    bed.check()
    options = replace(options, sure=True)
    done: list[Refinement] = []
    before: tuple[Candidate, ...] = ()
    while True:
        with watch.searching() as progress:
            found = search(options, progress)
        front = found.result.devices[0].front
        moved = movement(before, front)
        todo, needed = informative(found, bed.known(found), networks)
        settled = bool(done) and not needed and moved < STILL
        if found.interrupted or settled or not todo or len(done) == rounds:
            break
        watch.say(_before_round(len(done) + 1, found, todo, needed, moved))
        with watch.measuring("refining") as measuring:
            errors, whole = bed.measure(found, todo, measuring)
        done.append(Refinement(tuple(errors), _mean(list(errors.values())), moved))
        if not whole:
            found = replace(found, interrupted=True)
            break
        before = front
        options = replace(options, starts=tuple(map(_start, (*front, *found.contenders))))
    pick = found.result.devices[0].pick
    needed += sum(one.id in bed.failures and (one.id == pick or hold(one) < SURE) for one in front)
    return Refined(
        bed.with_measurements(found),
        tuple(done),
        not found.interrupted and not needed and (settled or not todo),
        needed,
        tuple(f"{name}: {reason}" for name, reason in bed.failures.items()),
    )


def summary(refined: Refined) -> str:
    """How a refinement went, in a sentence or two, a line each for what could not be measured."""
    errors = [done.error for done in refined.rounds if math.isfinite(done.error)]
    count = sum(len(done.measured) for done in refined.rounds)
    text = f"refined in {len(refined.rounds)} rounds, {count} networks measured"
    if errors:
        text += (
            f", predicted within {100 * errors[0]:.1f} % in the first round and {100 * errors[-1]:.1f} % in the last"
        )
    if refined.settled:
        text += "; every promise of the front was measured or is sure"
    elif refined.unsure:
        text += f"; not settled: {refined.unsure} candidates are still to be measured, the same command goes on"
    else:
        text += "; the front still moves, the same command goes on"
    return "\n".join((text, *refined.failures))


class _Bed:
    """What a refinement measures with, and what it has measured.

    Args:
        options: The question.
        runtime: As for `machine_for`.
        machine: Measures every precision; found by `machine_for` where None.
        settle_seconds: As for `bench`.
    """

    def __init__(self, options: SearchOptions, runtime: str, machine: Machine | None, settle_seconds: float) -> None:
        self.options = options
        self.runtime = runtime
        self.machine = machine
        self.settle_seconds = settle_seconds
        self.failures: dict[str, str] = {}
        self.verified: dict[str, Verified] = {}

    def check(self) -> None:
        """Refuse a device that is not this computer, before anything is searched."""
        if self.machine is None:
            try:
                machine_for(setting(self.options.devices[0], power_mode=self.options.power_mode), self.runtime)
            except OtherComputerError as error:
                raise UnsupportedError(
                    f"--refine measures on the device itself: {error.reason}; search without it, take the picks there "
                    "with scaler export --bundle, bring them back with scaler import, and search again"
                ) from None

    def known(self, found: Search) -> set[str]:
        """Ids of the candidates that were measured, now or earlier, or that cannot be."""
        result, device = found.result, found.result.devices[0]
        space, classes = read_space(result.space), _classes(result)
        candidates = (*candidates_of(device), *found.contenders)
        measured = {}
        for precision in {_precision(device, one) for one in candidates}:
            estimator = self._estimator(device, precision)
            rows = estimator.observed if isinstance(estimator, CorrectedEstimator) else ()
            measured[precision] = {row.network for row in rows if row.classes == classes}
        return {
            one.id
            for one in candidates
            if one.id in self.failures
            or space.candidate_id(space.canonical(one.params)) in measured[_precision(device, one)]
        }

    def measure(
        self, found: Search, todo: Sequence[Candidate], progress: Measuring | None
    ) -> tuple[dict[str, float], bool]:
        """Measure candidates, keeping each at once.

        Returns:
            How much too slow each was predicted, as a share, NaN where it failed; and whether Ctrl-C let it finish.
        """
        errors: dict[str, float] = {}
        try:
            with closing(self._timed(found.result, found.result.devices[0], todo)) as measured:
                for number, (one, timed) in enumerate(measured, start=1):
                    errors[one.id] = one.engine_ms.mean / timed.level_ms - 1
                    if progress is not None:
                        progress(number, PASSES * len(todo), _word(one, timed))
        except KeyboardInterrupt:
            return errors, False
        return errors, True

    def _timed(
        self, result: SearchResult, device: DeviceResult, todo: Sequence[Candidate]
    ) -> Generator[tuple[Candidate, Timed]]:
        """The candidates and what they took, precision by precision, pass by pass."""
        for precision in dict.fromkeys(_precision(device, one) for one in todo):
            mine = [one for one in todo if _precision(device, one) == precision]
            own = replace(device, precision=precision)
            wanted = setting(self.options.devices[0], precision, device.power_mode)
            machine = self.machine or machine_for(wanted, self.runtime)
            estimator = self._estimator(device, precision)
            with bench(result, own, mine, estimator, machine, settle_seconds=self.settle_seconds) as stand:
                passes: dict[str, list[Timed]] = {}
                for number in range(PASSES):
                    for one in mine if number % 2 == 0 else mine[::-1]:
                        timed = stand.candidate(one)
                        passes.setdefault(one.id, []).append(timed)
                        self._keep(own, one, passes[one.id], stand)
                        yield one, timed

    def _keep(self, device: DeviceResult, candidate: Candidate, passes: Sequence[Timed], stand: Bench) -> None:
        """Record what was measured of a candidate so far, or remember that it fails."""
        timed = [one for one in passes if not one.failure]
        if not timed:
            self.failures[candidate.id] = passes[-1].failure
            return
        self.failures.pop(candidate.id, None)
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        path = observed_path(device.device, device.runtime, device.precision, device.power_mode)
        record_observed(path, [_observed(candidate, timed, stand, now)])
        self.verified[candidate.id] = _verified(device, timed[-1], now)

    def with_measurements(self, found: Search) -> Search:
        """The search with what was measured of its candidates."""
        result = found.result
        for device in result.devices:
            for one in candidates_of(device):
                if one.id in self.verified:
                    result = with_verified(result, device.device, one.id, self.verified[one.id])
        return replace(found, result=result)

    def _estimator(self, device: DeviceResult, precision: Precision) -> Estimator:
        name, mode = self.options.devices[0], device.power_mode
        return load_estimator(name, precision=precision, power_mode=mode, overhead_ms=self.options.overhead_ms)


def repeat_log_sd(measurement: Measurement, quiet_ms: float) -> float:
    """Standard deviation of the logarithm of a measured time: what another measurement would scatter by.

    Args:
        measurement: Of a network, with rounds.
        quiet_ms: What the reference takes on a quiet machine.
    """
    rounds = len(measurement.quiet_rounds(quiet_ms))
    return math.hypot(REPEAT_LOG_SD, _OF_MEDIAN * measurement.spread(quiet_ms) / _NORMAL_IQR / math.sqrt(rounds))


def _mean(values: Sequence[float]) -> float:
    """Mean absolute value of those that are numbers; NaN of none."""
    found = [abs(value) for value in values if not math.isnan(value)]
    return fmean(found) if found else math.nan


def _precision(device: DeviceResult, candidate: Candidate) -> Precision:
    return cast("Precision", candidate.precision or device.precision)


def _classes(result: SearchResult) -> int:
    return result.classes or classes_of(result.dataset)


def _start(candidate: Candidate) -> Params:
    """The candidate as its space has it."""
    return {**candidate.params, **({PRECISION: candidate.precision} if candidate.precision else {})}


def _observed(candidate: Candidate, passes: Sequence[Timed], stand: Bench, now: str) -> Observed:
    """A candidate by the mean of its passes, which scatters less than one."""
    space, params = stand.space, stand.space.canonical(candidate.params)
    noise = [repeat_log_sd(timed.measurement, stand.reference.quiet_ms) for timed in passes]
    return Observed(
        network=space.candidate_id(params),
        family=space.family_of(params),
        params={name: value for name, value in params.items() if name != MEMBER},
        classes=classes_of(stand.plan.dataset),
        engine_ms=geometric_mean(timed.level_ms for timed in passes),
        log_sd=math.hypot(*noise) / len(noise),
        how="refine",
        created=now,
        reference_ms=stand.level_ms,
    )


def _verified(device: DeviceResult, timed: Timed, now: str) -> Verified:
    """The measurement as the result shows it: of made-up weights, the engine alone."""
    return Verified(
        model="",
        runtime=device.runtime,
        runtime_version=timed.measurement.conditions.runtime_version,
        precision=device.precision,
        power_mode=device.power_mode,
        engine_ms=timed.median_ms,
        engine_p99_ms=timed.p99_ms,
        level_ms=timed.level_ms,
        warnings=timed.measurement.warnings,
        created=now,
    )


def _word(candidate: Candidate, timed: Timed) -> str:
    if timed.failure:
        return f"{candidate.id} failed: {timed.failure}"
    return f"{candidate.id} {timed.level_ms:.2f} ms, predicted {candidate.engine_ms.mean:.2f}"


def _before_round(number: int, found: Search, todo: Sequence[Candidate], needed: int, moved: float) -> str:
    """What a round is for, in a sentence."""
    device = found.result.devices[0]
    still = f", which moved by {100 * moved:.1f} %" if math.isfinite(moved) else ""
    return (
        f"round {number}: {needed} of {len(device.front)} on the front{still} are to be measured; measuring {len(todo)}"
    )
