"""Takes what a search has picked to its device: builds it, times engine and whole frame, takes its accuracy.

Times and accuracy come from one file on one runtime. A candidate that was not trained is timed with made-up weights.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeAlias

from scaler.data.dataset import Dataset
from scaler.deploy.verify_engine import Deployed, deployed
from scaler.deploy.verify_files import Subject, check_network, metadata_of
from scaler.deploy.verify_frame import GENERATED, Frames, generated_pictures
from scaler.errors import UserError
from scaler.evaluation.evaluate import evaluate
from scaler.latency.estimator import load_uncorrected
from scaler.latency.observed import Observed
from scaler.profiling.energy import Meter
from scaler.profiling.machine import Machine, Setting
from scaler.profiling.refine import repeat_log_sd
from scaler.profiling.run import cores_given_back
from scaler.profiling.verify import Bench, Timed, bench
from scaler.report.recording import run_name
from scaler.runtimes.power_find import FoundPower
from scaler.search.predictors import classes_of
from scaler.search.result import Candidate, DeviceResult, SearchResult, Verified
from scaler.search.verified import promise_of
from scaler.space import MEMBER

__all__ = ["Question", "Row", "verify"]

FRAME_SECONDS = 1.0
"""Time of whole frames on a quiet machine, at least."""
FRAME_PICTURES = 64
"""Pictures that are used in turn for whole frames."""
CLEAR_DRIFT = 0.05
"""Difference of the machine's speed from that of its table from which a row tells it."""
MADE_UP = "made-up weights, so neither whole frame nor accuracy"

Progress: TypeAlias = Callable[[int, int, str], None]
Done: TypeAlias = Callable[["Row"], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be verified, on what."""

    result: SearchResult
    home: Path
    """The `pareto.json`."""
    found: DeviceResult
    """The device's part of the result."""
    data: Dataset | None = None
    """The pictures on which accuracy and frames are measured; None: no accuracy, and generated frames."""
    pictures: int | None = None
    """Use so many of them; all where None."""
    power: FoundPower | None = None
    """What measures energy; closed at the end."""


class Row(NamedTuple):
    """One candidate: its measurement, or why there is none."""

    candidate: Candidate
    measured: Verified | None
    observed: Observed | None
    """What the latency table learns from it; None where it is of another kind than the table's networks."""
    failure: str = ""
    """Why it could not be measured."""


def verify(
    question: Question,
    subjects: Sequence[Subject],
    wanted: Setting,
    machine: Machine,
    *,
    done: Done | None = None,
    progress: Progress | None = None,
) -> tuple[Row, ...]:
    """Measure candidates of one precision, one after the other.

    Args:
        question: What and how.
        subjects: The candidates with their files.
        wanted: The device, its power mode and the precision of the candidates.
        machine: What measures it.
        done: Told of every row at once, so that nothing is lost by an interruption.
        progress: Told of every candidate.

    Raises:
        UserError: The reference network cannot be measured; what befalls a candidate stands in its row.
    """
    estimator = load_uncorrected(wanted.device.id, precision=wanted.precision, power_mode=wanted.mode.name)
    candidates = [subject.candidate for subject in subjects]
    rows: list[Row] = []
    with bench(question.result, question.found, candidates, estimator, machine, power=question.power) as ready:
        stage = _Stage(question, wanted, ready)
        for number, subject in enumerate(subjects, start=1):
            row = stage.row(subject)
            rows.append(row)
            if done is not None:
                done(row)
            if progress is not None:
                failed = f" failed: {row.failure}" if row.failure else ""
                progress(number, len(subjects), f"{subject.candidate.id}{failed}")
    return tuple(rows)


@dataclass(frozen=True, slots=True)
class _Stage:
    """Where one candidate after the other is measured."""

    question: Question
    wanted: Setting
    bench: Bench

    def row(self, subject: Subject) -> Row:
        """Measure a candidate; whatever befalls it stands in its row."""
        candidate, model, _ = subject
        try:
            return self._made_up(subject) if model is None else self._trained(candidate, model)
        except UserError as error:
            return Row(candidate, None, None, str(error))

    def _made_up(self, subject: Subject) -> Row:
        """Of a candidate without a file: the time of its engine."""
        candidate, _, missing = subject
        timed = self.bench.candidate(candidate)
        if timed.failure:
            return Row(candidate, None, None, timed.failure)
        why = "not trained" if missing is None else f"no {run_name(self.question.home, missing)}, see scaler export"
        measured = self._timed(timed, self.wanted.precision, (f"{why}: {MADE_UP}",))
        return Row(candidate, measured, self._observed(candidate, timed, classes_of(self.bench.plan.dataset)))

    def _trained(self, candidate: Candidate, model: Path) -> Row:
        """Of a trained file: engine, whole frame and accuracy."""
        metadata = metadata_of(model)
        classes = len(metadata.classes)
        params = self.bench.params(candidate)
        check_network(model, metadata, candidate, self.bench.space.configure(params, classes))
        ran = deployed(model, metadata, self.wanted, self.bench.machine.runtime.conditions())
        timed = self.bench.file(ran.file, candidate.id, params)
        if timed.failure:
            return Row(candidate, None, None, timed.failure)
        predicted = self.question.result.classes
        other = predicted not in (0, classes)
        notes = (f"trained for {classes} classes, predicted for {predicted}",) if other else ()
        measured = replace(self._timed(timed, ran.precision, notes), model=run_name(self.question.home, ran.file))
        for more in (self._with_frame, self._with_accuracy):
            try:
                measured = more(measured, ran)
            except UserError as error:
                measured = _noted(measured, str(error))
        as_in_table = ran.precision == self.wanted.precision and metadata.nms is None
        return Row(candidate, measured, self._observed(candidate, timed, classes) if as_in_table else None)

    def _timed(self, timed: Timed, precision: str, notes: Sequence[str]) -> Verified:
        """What is known once the engine was timed."""
        conditions, energy, memory = (
            timed.measurement.conditions,
            timed.measurement.energy,
            timed.measurement.memory_mib,
        )
        measured = Verified(
            model="",
            runtime=conditions.runtime,
            runtime_version=conditions.runtime_version,
            precision=precision,
            power_mode=self.question.found.power_mode,
            engine_ms=timed.median_ms,
            engine_p99_ms=timed.p99_ms,
            level_ms=timed.level_ms,
            energy_mj=None if energy is None else energy.mj,
            memory_mib=None if memory is None else memory.running,
            promise=promise_of(self.question.found),
            created=_now(),
        )
        measured = _noted(measured, *timed.measurement.warnings, *(() if energy is None else energy.notes))
        drift = self.bench.drift
        if drift is not None and abs(drift) > CLEAR_DRIFT:
            word = "slower" if drift > 0 else "faster"
            about = 5 * round(20 * abs(drift))
            measured = _noted(measured, f"the machine is about {about} % {word} than when its table was made")
        return _noted(measured, *notes)

    def _with_frame(self, measured: Verified, ran: Deployed) -> Verified:
        """The measurement with the whole frame."""
        data = self.question.data
        if data is None:
            files = generated_pictures(self.bench.scratch)
            size = f"{GENERATED[0]} x {GENERATED[1]}"
            measured = _noted(measured, f"whole frame: generated pictures of {size}; yours with --data data.toml")
        else:
            files = tuple(picture.path for picture in data.pictures[:FRAME_PICTURES])
        frames = Frames(ran.detector, files, self.bench.machine.runtime.conditions())
        timed = self.bench.file(
            ran.file, "frame", {}, runtime=frames, quiet_seconds=FRAME_SECONDS, meter=Meter(power=None)
        )
        if timed.failure:
            return _noted(measured, f"whole frame not measured: {timed.failure}")
        parts = frames.parts_ms(timed.measurement, self.bench.reference.quiet_ms)
        to_level = timed.level_ms / timed.quiet_ms
        return replace(measured, frame_ms=timed.level_ms, parts_ms={name: ms * to_level for name, ms in parts.items()})

    def _with_accuracy(self, measured: Verified, ran: Deployed) -> Verified:
        """The measurement with the accuracy on the data of the question."""
        data, most = self.question.data, self.question.pictures
        if data is None:
            return measured
        every = len(data.pictures)
        if most is not None and most < every:
            data = replace(data, pictures=data.pictures[:most])
            measured = _noted(measured, f"accuracy of the first {most} of {every} pictures of {data.split}")
        with _on_all(self.bench.machine.cores):
            metrics = evaluate(ran.detector, data)
        if metrics.skipped:
            measured = _noted(measured, f"{len(metrics.skipped)} pictures of {data.split} cannot be read")
        ap, ap50 = metrics.points(self.question.result.metric)
        return replace(measured, dataset=data.name, ap=ap, ap50=ap50)

    def _observed(self, candidate: Candidate, timed: Timed, classes: int) -> Observed:
        """The measurement as the corrections of the latency table take it."""
        params = self.bench.params(candidate)
        return Observed(
            network=candidate.network,
            family=self.bench.space.family_of(params),
            params={name: value for name, value in params.items() if name != MEMBER},
            classes=classes,
            engine_ms=timed.level_ms,
            log_sd=repeat_log_sd(timed.measurement, self.bench.reference.quiet_ms),
            how="verify",
            created=_now(),
            reference_ms=self.bench.level_ms,
        )


@contextmanager
def _on_all(cores: tuple[int, ...]) -> Iterator[None]:
    """Let what times nothing run on every core among which the measurements move."""
    with cores_given_back(cores):
        if cores:
            os.sched_setaffinity(0, cores)
        yield


def _noted(measured: Verified, *notes: str) -> Verified:
    return replace(measured, warnings=tuple(dict.fromkeys((*measured.warnings, *notes))))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
