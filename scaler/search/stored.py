"""A study in a storage: its trials as candidates and scores, and back. Imports Optuna: import it late."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from scaler.errors import UsageError, UserError
from scaler.search.evaluation import Evaluated
from scaler.search.history import History
from scaler.search.samplers import FlatSpace, Steered
from scaler.search.storage import Storage, storage_errors
from scaler.space import Params, Space

__all__ = ["STALE_S", "STUDY_SCHEMA_VERSION", "StoredStudy"]

STUDY_SCHEMA_VERSION = 1
STALE_S = 300.0
"""A running trial that is older belongs to a worker that died."""

_DIRECTIONS = [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
_ATTRIBUTE = "scaler"  # of the study: what its trials are about


class StoredStudy:
    """An open study, and what it knows.

    Args:
        storage: Where it lives or shall live.
        name: Of the study.
        space: The search space.
        metadata: What a study must have been made for, to be continued.
        minimized: Its second objective: `frame_ms` or `energy_mj`.

    Attributes:
        history: Every candidate that was evaluated, by whomever.
        completed: Number of completed trials at the last `catch_up`.
        fresh: Whether this call made the study.

    Raises:
        UserError: The storage fails, or the study is about something else.
    """

    def __init__(
        self, storage: Storage, name: str, space: Space, metadata: Mapping[str, str], minimized: str = "frame_ms"
    ) -> None:
        self._storage, self._name, self._flat, self._minimized = storage.name, name, FlatSpace(space), minimized
        self.history = History(space)
        self.completed = 0
        self._read: set[int] = set()
        with storage_errors(storage.name, opening=True):
            self._study = optuna.create_study(
                storage=storage.backend,
                study_name=name,
                directions=_DIRECTIONS,
                sampler=RandomSampler(),
                load_if_exists=True,
            )
            about = {"schema_version": STUDY_SCHEMA_VERSION, "space": space.name, "digest": space.digest, **metadata}
            self.fresh = self._identify(about)
            self.catch_up()

    def use(self, sampler: BaseSampler, seed: int) -> None:
        """Let one of Optuna's samplers propose, steered to what is new."""
        self._study.sampler = Steered(sampler, self._flat, self.history, seed)

    def catch_up(self) -> None:
        """Learn what was added since, by this worker or others."""
        with storage_errors(self._storage):
            trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        unread = len(trials) - len(self._read)
        new: list[FrozenTrial] = []
        for trial in reversed(trials):  # the new ones stand at the end, or nearly so
            if len(new) == unread:
                break
            if trial.number not in self._read:
                new.append(trial)
        for trial in reversed(new):
            self._read.add(trial.number)
            self._learn(trial)
        self.completed = len(trials)

    def add(self, params: Params, scored: Evaluated) -> None:
        """Write an evaluated candidate as a completed trial, in one go."""
        flat = self._flat.active(params)
        trial = create_trial(
            values=[scored.ap, scored.minimized],
            params=flat,
            distributions={name: self._flat.distributions[name] for name in flat},
            user_attrs=self._attributes(params, scored),
            constraints=scored.violations,
        )
        with storage_errors(self._storage):
            self._study.add_trial(trial)
        self.history.add(params, scored)

    def enqueue(self, params: Params) -> None:
        """Have a candidate evaluated before the sampler proposes any, unless it is known or waits already."""
        if not self.history.knows(params):
            with storage_errors(self._storage):
                self._study.enqueue_trial(self._flat.active(params), skip_if_exists=True)

    def ask(self) -> tuple[Trial, Params]:
        """Begin a trial that the sampler proposes or that waits."""
        with storage_errors(self._storage):
            trial = self._study.ask(self._flat.distributions)
        return trial, self._flat.read(trial.params)

    def tell(self, trial: Trial, params: Params, scored: Evaluated) -> None:
        """Complete a trial."""
        with storage_errors(self._storage):
            for name, value in self._attributes(params, scored).items():
                trial.set_user_attr(name, value)
            for name, violation in scored.violations.items():
                trial.set_constraint(name, violation)
            self._study.tell(trial, [scored.ap, scored.minimized])
        self.history.add(params, scored)

    def fail(self, trial: Trial) -> None:
        """Mark a trial failed that will not be completed, as far as the storage lets us."""
        with suppress(Exception):
            self._study.tell(trial, state=TrialState.FAIL)

    def fail_stale(self, older_than_s: float) -> int:
        """Mark the running trials failed that a worker left behind when it died.

        Returns:
            How many there were.
        """
        with storage_errors(self._storage):
            running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        stale = [trial for trial in running if _age_s(trial) > older_than_s]
        for trial in stale:
            with suppress(ValueError):  # its worker finished it a moment ago
                self._study.tell(trial.number, state=TrialState.FAIL)
        return len(stale)

    def _identify(self, about: dict[str, Any]) -> bool:
        """Check what the study is about, or write it into a new one; whether it is new."""
        where = f"{self._storage}: study {self._name!r}"
        if self._study.directions != _DIRECTIONS:
            raise UserError(f"{where} has other objectives than AP up and {self._minimized} down; name another study")
        stored = self._study.user_attrs.get(_ATTRIBUTE)
        if stored is None and not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr(_ATTRIBUTE, about)
            self._study.set_metric_names(["AP", self._minimized])
            return True
        if not isinstance(stored, dict):
            raise UserError(f"{where} was not made by scaler; name another study or storage")
        for name in sorted({**about, **stored}, key=("schema_version", "space", "digest").__contains__, reverse=True):
            had, need = stored.get(name, "none"), about.get(name, "none")
            if had != need:
                what = "another version of the search space" if name == "digest" else f"{name} {had!r}, not {need!r}"
                raise UserError(f"{where} was made for {what}; name another study or storage")
        return False

    def _learn(self, trial: FrozenTrial) -> None:
        params = trial.user_attrs.get("params")
        if not isinstance(params, dict) or trial.values is None or not all(map(math.isfinite, trial.values)):
            return  # somebody else's
        if self.history.knows(params):
            return
        try:
            candidate = self.history.space.canonical(params)
        except UsageError:
            return
        if (scored := self._scored(trial)) is not None:
            self.history.add(candidate, scored)

    def _scored(self, trial: FrozenTrial) -> Evaluated | None:
        """The scores of a trial; None where its frame time is missing beside the energy."""
        ap, minimized = trial.values
        if self._minimized == "frame_ms":
            return Evaluated(ap, minimized, dict(trial.constraints))
        frame_ms = trial.user_attrs.get("frame_ms")
        frame_ms = trial.user_attrs.get("frame_ms")
        if not isinstance(frame_ms, float) or not math.isfinite(frame_ms):
            return None
        return Evaluated(ap, frame_ms, dict(trial.constraints), minimized)

    def _attributes(self, params: Params, scored: Evaluated) -> dict[str, Any]:
        return {
            "id": self.history.space.candidate_id(params),
            "params": dict(params),
            "fps": round(1000 / scored.frame_ms, 2),
            **({} if scored.energy_mj is None else {"frame_ms": scored.frame_ms}),
        }


def _age_s(trial: FrozenTrial) -> float:
    start = trial.datetime_start
    return 0.0 if start is None else (datetime.now(start.tzinfo) - start).total_seconds()
