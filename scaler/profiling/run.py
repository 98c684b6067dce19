"""Measures the networks of a plan, one after the other, each saved at once.

Killed at any point, a run goes on where it was: a network whose file is whole is not measured again. A network during
whose measurement the process died twice is recorded as failed and skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from scaler.errors import FileError, UserError
from scaler.files import make_folder, write_atomic
from scaler.profiling.energy import metered
from scaler.profiling.measure import Effort, Reference, measure
from scaler.profiling.measurement import LEAST_QUIET, Measurement, read_measurement, write_measurement
from scaler.profiling.networks import graph_of, space_of, write_network
from scaler.profiling.plan_file import PLAN, Plan, Planned, read_plan, write_plan
from scaler.runtimes.power_find import FoundPower
from scaler.runtimes.protocol import Conditions, Runtime

Progress: TypeAlias = Callable[[int, int, str], None]
"""Called with the number of networks done, their total, and a word on the latest."""

SETTLE_SECONDS = 3.0
DEATHS = 2
"""Deaths of the process during one network after which it is skipped."""
COMPARED = ("runtime", "runtime_version", "precision", "batch", "power_mode", "processor")
"""Conditions under which times mix; TensorRT tells the GPU's name only once it has loaded an engine."""
_FILE = "{}.json"
_MARK = "{}.started"


def run(
    plan: Plan,
    runtime: Runtime,
    folder: Path,
    *,
    effort: Effort = Effort(),
    profile: bool = True,
    cores: tuple[int, ...] = (),
    settle_seconds: float = SETTLE_SECONDS,
    retry_failed: bool = False,
    power: FoundPower | None = None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Measure what of a plan is not measured yet; returns all measurements in the plan's order.

    Args:
        plan: What to measure.
        runtime: On what.
        folder: Where the measurements are kept; one folder a plan.
        effort: How much each network gets.
        profile: Whether to time layers too.
        cores: Processor cores among which to look for a quiet one.
        settle_seconds: Time for finding out how fast the machine is.
        retry_failed: Whether to measure again what has failed before.
        power: What measures energy beside the times, or why nothing does; closed at the end. None asks for none.
        progress: Told of every network.

    Raises:
        UserError: The folder holds measurements of another plan or of other conditions.
    """
    space = space_of(plan)
    make_folder(folder)
    _claim(plan, folder)
    now = runtime.conditions()
    on_file = {planned.network: _kept(folder, planned, now) for planned in plan.networks}
    done = {name: kept for name, kept in on_file.items() if kept is not None and not (retry_failed and kept.error)}
    missing = [planned for planned in plan.networks if planned.network not in done]
    if missing:
        with (
            TemporaryDirectory(prefix="scaler-") as scratch,
            metered(power, folder, effort.idle_seconds) as meter,
            cores_given_back(cores),
        ):
            model = Path(scratch) / "reference.onnx"
            write_network(graph_of(space, plan.reference, plan.dataset), plan, model)
            with runtime.prepare(model) as session:
                reference = Reference(session, effort, cores)
                reference.settle(settle_seconds)
                for planned in _with_second_look(missing, done, reference):
                    network = Path(scratch) / "network.onnx"
                    write_network(graph_of(space, planned.params, plan.dataset), plan, network)
                    with _marked(folder, planned):
                        result = measure(
                            runtime,
                            network,
                            reference,
                            network=planned.network,
                            params=planned.params,
                            effort=effort,
                            profile=profile,
                            meter=meter,
                        )
                        kept = _better(done.get(planned.network), result, reference.quiet_ms)
                        write_measurement(kept, folder / _FILE.format(planned.network))
                    done[planned.network] = kept
                    if progress is not None:
                        progress(len(done), len(plan.networks), _word(kept))
    elif power is not None:
        power.close()
    return [done[planned.network] for planned in plan.networks]


def _with_second_look(
    missing: Sequence[Planned], done: dict[str, Measurement], reference: Reference
) -> Iterator[Planned]:
    """The missing networks, then those once more that were measured beside a busy neighbour or spread too much."""
    yield from missing
    quiet = reference.quiet_ms
    for planned in missing:
        result = done[planned.network]
        if not result.error and (result.warnings or not _is_quiet(result, quiet)):
            yield planned


def _is_quiet(result: Measurement, quiet_ms: float) -> bool:
    return sum(r.is_quiet(quiet_ms) for r in result.rounds) >= LEAST_QUIET


def _better(first: Measurement | None, second: Measurement, quiet_ms: float) -> Measurement:
    """Of two measurements of a network the one to keep."""
    if first is None or first.error:
        return second
    if second.error:
        return first
    rank = [(not _is_quiet(m, quiet_ms), len(m.warnings), m.spread(quiet_ms)) for m in (first, second)]
    best, seconds = (second if rank[1] < rank[0] else first), first.seconds + second.seconds
    return replace(best, seconds=seconds, tries=first.tries + second.tries)


def _claim(plan: Plan, folder: Path) -> None:
    """Make a folder this plan's, or see that it is."""
    path = folder / _FILE.format(PLAN)
    if not path.exists():
        write_plan(plan, path)
    elif read_plan(path) != plan:
        raise UserError(f"{folder} holds the measurements of another plan; start anew with --restart, or choose --work")


def _kept(folder: Path, planned: Planned, now: Conditions) -> Measurement | None:
    """What is on file of a network; None where it must be measured (again)."""
    path = folder / _FILE.format(planned.network)
    if not path.exists():
        return _died(folder, planned, now)
    try:
        measurement = read_measurement(path)
    except FileError:
        return None  # damaged: measured again, and only then replaced
    was = measurement.conditions
    for what in COMPARED if now.runtime == "onnxruntime" else COMPARED[:-1]:
        if getattr(was, what) != getattr(now, what):
            raise UserError(
                f"{path}: measured with {what.replace('_', ' ')} {getattr(was, what)}, now it is {getattr(now, what)}; "
                "times of the two do not mix: start anew with --restart"
            )
    return measurement


@contextmanager
def _marked(folder: Path, planned: Planned) -> Iterator[None]:
    """Leave a mark if the process dies during the measurement of a network; an exception, Ctrl-C too, is no death."""
    mark = folder / _MARK.format(planned.network)
    write_atomic(mark, f"{_starts(mark) + 1}\n")
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


@contextmanager
def cores_given_back(cores: tuple[int, ...]) -> Iterator[None]:
    """Let the process run afterwards where it could before: the search for a quiet core pins it."""
    before = os.sched_getaffinity(0) if cores else None
    try:
        yield
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def _starts(mark: Path) -> int:
    try:
        return int(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0


def _died(folder: Path, planned: Planned, now: Conditions) -> Measurement | None:
    """A failure, where the process has died too often during this network."""
    starts = _starts(folder / _MARK.format(planned.network))
    if starts < DEATHS:
        return None
    return Measurement(
        network=planned.network,
        params=planned.params,
        conditions=now,
        error=f"the process died {starts} times while it was measured",
    )


def _word(measurement: Measurement) -> str:
    if measurement.error:
        return f"{measurement.network} failed: {measurement.error}"
    return f"{measurement.network} {sorted(measurement.samples_ms)[len(measurement.samples_ms) // 2]:.1f} ms"
