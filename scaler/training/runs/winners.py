"""Trains several winners of a search: which of the front, one after the other or shared with other workers.

Needs no torch: what trains one network is given by the caller.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import Literal, NamedTuple

from scaler.accuracy.runs import RESULT, Run, read_run, run_from
from scaler.errors import UsageError, UserError
from scaler.reader import Reader
from scaler.report.recording import record
from scaler.search.claims import LEASE_S, Claim, Jobs, open_jobs
from scaler.search.precision import as_network
from scaler.search.result import Candidate, DeviceResult

__all__ = ["FrontOutcome", "FrontRow", "TrainOne", "spread", "train_front", "winners"]

TrainOne = Callable[[Candidate, Path], Run]
"""Trains a candidate in a folder, going on where that folder's last checkpoint stopped."""
CheckSame = Callable[[Candidate, Path], None]
"""Refuses a folder whose run is of another configuration than this candidate's would be (`UserError`)."""
Report = Callable[[str], None]
State = Literal["trained", "there", "elsewhere", "failed", "interrupted", "open"]
_POLLS = 30
"""In a lease: how often to look whether a job of another worker has ended."""


class FrontRow(NamedTuple):
    """What became of one candidate."""

    candidate: Candidate
    state: State
    """`trained` here and now, `there` from before, `elsewhere` by another worker, `failed`, `interrupted`, or `open`:
    not begun when this worker was interrupted."""
    run: Run | None
    reason: str
    """Why it failed; blank otherwise."""


@dataclass(frozen=True, slots=True)
class FrontOutcome:
    """What became of the candidates, in the order in which they were given."""

    rows: tuple[FrontRow, ...]
    interrupted: bool
    """Whether Ctrl-C ended it early; the same call goes on."""


def winners(found: DeviceResult, count: int | None = None) -> tuple[Candidate, ...]:
    """Networks of a device's front to train, fastest first: the best, the knee, and others spread between.

    A network that is on the front at several precisions is there once, under its own id.

    Args:
        found: The device of a search's result.
        count: How many; None takes all.

    Raises:
        UsageError: The front is empty, or the count is not positive.
    """
    if not found.front:
        raise UsageError(f"the front of {found.device} is empty: there is nothing to train")
    networks = {candidate.id: candidate.network for candidate in found.front}
    best = found.pick or found.front[-1].id
    marks = tuple(networks[mark] for mark in (best, found.knee) if mark is not None)
    front = {candidate.network: as_network(candidate) for candidate in found.front}
    return spread(tuple(front.values()), count, marks)


def spread(front: Sequence[Candidate], count: int | None = None, marks: Sequence[str] = ()) -> tuple[Candidate, ...]:
    """Candidates spread evenly over a front, in its order; the same front gives the same ones.

    Distance is along the front: the logarithm of the frame time and the AP, each relative to what the front spans.
    After the marked ones come the ends, then always the one that is farthest from all that were chosen.

    Args:
        front: Fastest first.
        count: How many; None, or more than there are, takes all.
        marks: Ids that come first, in this order.

    Raises:
        UsageError: The count is not positive.
    """
    if count is not None and count < 1:
        raise UsageError(f"--count must be 1 or more, not {count}")
    if count is None or count >= len(front):
        return tuple(front)
    places = _places(front)
    by_id = {candidate.id: number for number, candidate in enumerate(front)}
    chosen = list(dict.fromkeys(by_id[mark] for mark in marks if mark in by_id))[:count] or [len(front) - 1]
    while len(chosen) < count:
        rest = [number for number in range(len(front)) if number not in chosen]
        chosen.append(max(rest, key=lambda number: (min(abs(places[number] - places[one]) for one in chosen), -number)))
    return tuple(front[number] for number in sorted(chosen))


def _places(front: Sequence[Candidate]) -> list[float]:
    """How far along the front each candidate lies."""
    times = [-log(candidate.fps.mean) for candidate in front]
    accuracies = [candidate.ap.mean for candidate in front]
    spans = [max(values) - min(values) or 1.0 for values in (times, accuracies)]
    return [time / spans[0] + ap / spans[1] for time, ap in zip(times, accuracies, strict=True)]


def train_front(
    result_path: Path,
    picks: Sequence[Candidate],
    train_one: TrainOne,
    folder: Path,
    *,
    check_same: CheckSame = lambda *_: None,
    storage: str | Path | None = None,
    study: str = "training",
    worker: str = "",
    report: Report = lambda _: None,
    retry: bool = False,
    lease_s: float = LEASE_S,
) -> FrontOutcome:
    """Train candidates, each in a folder named by its id, and record what they reach beside its prediction.

    A finished run of the same configuration is not trained again. One that fails (`UserError`, out of memory) is
    reported, and the others go on.
    With a storage, several processes on one or several machines that are given the same storage, study and candidates
    share them: each is trained once, and the job of a worker that dies is taken over when its lease has ended. Every
    worker returns when all candidates are settled, and records the results of the others too.

    Args:
        result_path: The `pareto.json` to record in.
        picks: What to train.
        train_one: Trains one; gives a run that is not `finished` where Ctrl-C stopped it.
        folder: Of the runs; where workers share it, a run that was taken over goes on from its last checkpoint.
        check_same: Asked before a finished run of the folder is taken for the candidate's.
        storage: Journal file or database that workers share; None trains alone.
        study: Name of the jobs there: names what must be alike for all workers, such as data set and recipe.
        worker: Of this process; host and process number where blank.
        report: Told a line about everything that happens.
        retry: Whether to try again what failed before.
        lease_s: Seconds after which a silent worker is taken for dead.

    Raises:
        UserError: The storage cannot be used.
    """
    by_id = {candidate.id: candidate for candidate in picks}
    names = tuple(by_id)
    with open_jobs(storage, study, worker or f"{socket.gethostname()}-{os.getpid()}", lease_s) as jobs:
        session = _Session(jobs, by_id, train_one, check_same, folder, result_path, report)
        jobs.add(names, again=names if retry else ())
        try:
            while session.catch_up():
                claim = jobs.claim(session.open)
                if claim is not None:
                    session.work(claim)
                else:
                    session.wait(lease_s / _POLLS)
        except KeyboardInterrupt:
            session.interrupted = True
    rows = tuple(session.rows.get(name, FrontRow(by_id[name], "open", None, "")) for name in names)
    return FrontOutcome(rows, session.interrupted)


class _Session:
    """One worker's way through the jobs."""

    def __init__(
        self,
        jobs: Jobs,
        picks: dict[str, Candidate],
        train_one: TrainOne,
        check_same: CheckSame,
        folder: Path,
        result: Path,
        report: Report,
    ) -> None:
        self.rows: dict[str, FrontRow] = {}
        self.interrupted = False
        self._jobs, self._picks, self._train_one, self._check_same = jobs, picks, train_one, check_same
        self._folder, self._result, self._report = folder, result, report
        self._waiting_for: dict[str, str] = {}

    @property
    def open(self) -> tuple[str, ...]:
        """The candidates of which nothing is known yet."""
        return tuple(name for name in self._picks if name not in self.rows)

    def catch_up(self) -> bool:
        """Take in what other workers have settled; whether anything is left to do."""
        for name, settled in self._jobs.settled(self.open).items():
            if settled.reason:
                self._fail(name, f"{settled.reason} (worker {settled.worker})")
                continue
            run = run_from(Reader(settled.result, f"job {name}"))
            self._keep(name, run, "elsewhere", f"trained by {settled.worker}")
        return bool(self.open) and not self.interrupted

    def work(self, claim: Claim) -> None:
        """Do a job; whatever ends it, the job is settled or free again."""
        name, candidate = claim.job, self._picks[claim.job]
        folder = self._folder / name
        if claim.taken_from:
            self._report(f"{name}: {claim.taken_from} has not finished it; going on in {folder}")
        try:
            with self._jobs.beating(claim):
                there = self._finished(folder, candidate)
                run = there or replace(self._train_one(candidate, folder), candidate=name)
        except KeyboardInterrupt:
            self._jobs.release(claim)
            self._stop(name, None)
            return
        except Exception as error:
            reason = _reason(error)
            if reason is None:
                self._jobs.release(claim)
                raise
            self._jobs.give_up(claim, reason)
            self._fail(name, reason)
            return
        if not run.finished:
            self._jobs.release(claim)
            self._stop(name, run)
            return
        if not self._jobs.complete(claim, run.as_data()):
            self._report(f"{name}: another worker took this job over; the run here is kept all the same")
        self._keep(name, run, "there" if there else "trained", "was trained before" if there else "trained")

    def wait(self, seconds: float) -> None:
        """Let time pass, since other workers hold all that is left."""
        holders = self._jobs.holders(self.open)
        for name, worker in holders.items():
            if self._waiting_for.get(name) != worker:
                self._report(f"waiting for {worker}, which trains {name}")
        self._waiting_for = holders
        time.sleep(seconds)

    def _finished(self, folder: Path, candidate: Candidate) -> Run | None:
        """The finished run of a folder, if it holds one."""
        if not (folder / RESULT).is_file():
            return None
        run = read_run(folder)
        if run.candidate not in ("", candidate.id):
            raise UserError(f"{folder} holds a run of the candidate {run.candidate!r}; name another folder with --out")
        if not run.finished:
            return None
        self._check_same(candidate, folder)
        return replace(run, candidate=candidate.id)

    def _keep(self, name: str, run: Run, state: State, how: str) -> None:
        assert run.metrics is not None
        self.rows[name] = FrontRow(self._picks[name], state, run, "")
        self._report(f"{name}: {how}, AP {run.metrics.ap:.1f}, AP50 {run.metrics.ap50:.1f} on {run.dataset}")
        try:
            record(self._result, run, self._folder / name)
        except UserError as error:  # the run itself is safe
            self._report(f"{name}: not recorded: {error}")

    def _fail(self, name: str, reason: str) -> None:
        self.rows[name] = FrontRow(self._picks[name], "failed", None, reason)
        self._report(f"{name}: failed: {reason}")

    def _stop(self, name: str, run: Run | None) -> None:
        self.rows[name] = FrontRow(self._picks[name], "interrupted", run, "")
        self.interrupted = True
        self._report(f"{name}: interrupted; the same command goes on where it stopped")


def _reason(error: Exception) -> str | None:
    """Why a run cannot be done, in one line; None for what is a bug of ours."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without torch
        lines = str(error).splitlines()
        return f"out of memory{f': {lines[0]}' if lines else ''}; give a smaller --batch"
    return None
