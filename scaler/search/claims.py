"""Jobs that several workers share through a study's storage, each done once. Imports Optuna: import it late.

A job is a trial: waiting, running (claimed), complete (settled with a result) or pruned (given up, with the reason). A
worker that holds a claim beats: it counts up a number in the storage. A worker that sees somebody's number stand still
for the length of a lease, by its own clock, marks that attempt failed and the job is free again; clocks of machines
are never compared. Optuna's storages change a state from waiting to running, and from running to failed, for one
worker only, and that is what makes a claim exclusive.
"""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from scaler.errors import UserError
from scaler.search.storage import Storage, storage_errors, with_storage

__all__ = ["LEASE_S", "Claim", "Jobs", "Settled", "open_jobs"]

LEASE_S = 120.0
"""A worker whose number stands still for so many seconds is taken for dead."""
_BEATS = 6
"""In a lease."""
_SCHEMA = "scaler-jobs-1"
_ABOUT, _JOB, _WORKER, _BEAT, _RESULT, _REASON = "scaler", "job", "worker", "beat", "result", "reason"
_OPEN = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker holds."""

    job: str
    trial: int
    """Optuna's id of the trial."""
    taken_from: str
    """The worker that died while it held the job; blank where none did."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A job that nobody needs to do any more."""

    job: str
    worker: str
    result: Any
    """What the worker gave to `complete`; None where it gave up."""
    reason: str
    """Why it gave up; blank where it did not."""


@contextlib.contextmanager
def open_jobs(where: str | Path | None, name: str, worker: str, lease_s: float = LEASE_S) -> Iterator[Jobs]:
    """Open the jobs of a study for a while; the arguments are those of `with_storage` and `Jobs`.

    Raises:
        UserError: The storage cannot be used.
    """
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with contextlib.ExitStack() as stack:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
                opened = stack.enter_context(with_storage(where))
                jobs = Jobs(opened, name, worker, lease_s)
            yield jobs
    finally:
        optuna.logging.set_verbosity(level)


class Jobs:
    """The jobs of one study.

    Args:
        storage: Where the study lives or shall live.
        name: Of the study.
        worker: How this worker is called; two workers need two names.
        lease_s: Seconds of silence after which a worker is taken for dead; alike for all workers.

    Raises:
        UserError: The storage fails, or a study of this name is about something else.
    """

    def __init__(self, storage: Storage, name: str, worker: str, lease_s: float = LEASE_S) -> None:
        self._backend, self._where, self._worker, self._lease_s = storage.backend, storage.name, worker, lease_s
        self._seen: dict[int, tuple[int, float]] = {}  # trial: its beat, and when we first saw that
        with storage_errors(storage.name, opening=True):
            study = optuna.create_study(
                storage=storage.backend,
                study_name=name,
                direction=StudyDirection.MAXIMIZE,
                sampler=optuna.samplers.RandomSampler(),
                load_if_exists=True,
            )
            self._study = storage.backend.get_study_id_from_name(name)
            if _ABOUT not in study.user_attrs and not study.get_trials(deepcopy=False):
                study.set_user_attr(_ABOUT, _SCHEMA)
            if study.user_attrs.get(_ABOUT) != _SCHEMA:
                raise UserError(
                    f"{storage.name}: study {name!r} holds no jobs of scaler; name another study or storage"
                )

    def add(self, jobs: Sequence[str], *, again: Sequence[str] = ()) -> None:
        """Have jobs done, unless they wait, run or are settled already.

        Args:
            jobs: Their names.
            again: Those of them to be tried again where a worker gave up.
        """
        with storage_errors(self._where):
            current = self._current()
            for job in jobs:
                trial = current.get(job)
                if trial is None or (trial.state is TrialState.PRUNED and job in again):
                    attempt = create_trial(state=TrialState.WAITING, user_attrs={_JOB: job})
                    self._backend.create_new_trial(self._study, attempt)

    def claim(self, jobs: Sequence[str]) -> Claim | None:
        """Take one of the jobs, the first in order that can be had; None where none can be had now."""
        with storage_errors(self._where):
            dead = self._bury(jobs)
            self.add([job for job in jobs if job in dead])
            current = self._current()
            for job in jobs:
                trial = current.get(job)
                if trial is None or trial.state is not TrialState.WAITING:
                    continue
                with contextlib.suppress(UpdateFinishedTrialError):
                    if self._backend.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                        self._backend.set_trial_user_attr(trial._trial_id, _WORKER, self._worker)
                        return Claim(job, trial._trial_id, self._former(job))
        return None

    @contextlib.contextmanager
    def beating(self, claim: Claim) -> Iterator[None]:
        """Tell the others that this worker lives, as long as the context does."""
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(claim.trial, stop), daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def complete(self, claim: Claim, result: Any) -> bool:
        """Settle a job with its result (plain data); False where others took the job for lost meanwhile."""
        return self._settle(claim, TrialState.COMPLETE, {_RESULT: result}, [0.0])

    def give_up(self, claim: Claim, reason: str) -> bool:
        """Settle a job that cannot be done, with the reason; False where others took it for lost meanwhile."""
        return self._settle(claim, TrialState.PRUNED, {_REASON: reason}, None)

    def release(self, claim: Claim) -> None:
        """Let others have a job that was not done, at once and as far as the storage lets us."""
        with contextlib.suppress(UserError):
            self._settle(claim, TrialState.FAIL, {}, None)
            self.add([claim.job])

    def settled(self, jobs: Sequence[str]) -> dict[str, Settled]:
        """Those of the jobs that are settled, by name."""
        with storage_errors(self._where):
            current = self._current()
        found = {}
        for job in jobs:
            trial = current.get(job)
            if trial is not None and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
                of = trial.user_attrs
                found[job] = Settled(job, of.get(_WORKER, ""), of.get(_RESULT), of.get(_REASON, ""))
        return found

    def holders(self, jobs: Sequence[str]) -> dict[str, str]:
        """Who holds which of the jobs now."""
        with storage_errors(self._where):
            current = self._current()
        running = {job: trial for job, trial in current.items() if trial.state is TrialState.RUNNING}
        return {job: running[job].user_attrs.get(_WORKER, "?") for job in jobs if job in running}

    def _trials(self) -> list[FrozenTrial]:
        return self._backend.get_all_trials(self._study, deepcopy=False)

    def _current(self) -> dict[str, FrozenTrial]:
        """The trial that stands for each job.

        Of several that are not failed (two workers may add a job at the same moment) it is the first, unless that one
        was given up and a later one tries again: all workers see the same order.
        """
        found: dict[str, FrozenTrial] = {}
        for trial in sorted(self._trials(), key=lambda trial: trial.number):
            job = trial.user_attrs.get(_JOB)
            if job is None or trial.state not in _OPEN:
                continue
            if job not in found or found[job].state is TrialState.PRUNED:
                found[job] = trial
        return found

    def _bury(self, jobs: Sequence[str]) -> set[str]:
        """Fail the attempts whose workers have been silent for a lease; names of jobs that have no attempt left."""
        now = time.monotonic()
        for job, trial in self._current().items():
            if job not in jobs or trial.state is not TrialState.RUNNING:
                continue
            beat = int(trial.user_attrs.get(_BEAT, 0))
            known = self._seen.get(trial._trial_id)
            if known is None or known[0] != beat:
                self._seen[trial._trial_id] = (beat, now)
            elif now - known[1] > self._lease_s:
                with contextlib.suppress(UpdateFinishedTrialError):  # it, or another worker, was faster
                    self._backend.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        current = self._current()
        return {job for job in jobs if job not in current}

    def _former(self, job: str) -> str:
        """The worker whose attempt at a job failed last; blank where none did."""
        failed = [t for t in self._trials() if t.state is TrialState.FAIL and t.user_attrs.get(_JOB) == job]
        return str(max(failed, key=lambda trial: trial.number).user_attrs.get(_WORKER, "")) if failed else ""

    def _beat(self, trial: int, stop: threading.Event) -> None:
        count = 0
        while not stop.wait(self._lease_s / _BEATS):
            count += 1
            with contextlib.suppress(Exception):  # the storage may be back at the next beat
                self._backend.set_trial_user_attr(trial, _BEAT, count)
        with contextlib.suppress(Exception):
            self._backend.remove_session()  # this thread's

    def _settle(
        self, claim: Claim, state: TrialState, attributes: Mapping[str, Any], values: Sequence[float] | None
    ) -> bool:
        with storage_errors(self._where):
            try:
                for name, value in attributes.items():
                    self._backend.set_trial_user_attr(claim.trial, name, value)
                self._backend.set_trial_state_values(claim.trial, state, values)
            except UpdateFinishedTrialError:
                return False
        return True
