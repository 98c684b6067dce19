"""What a training run tells while it goes on: to the console, the log, the plots, or a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scaler.evaluation.metrics import Metrics
from scaler.training.loop.plan import TrainingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The run is set up; nothing has been computed yet."""

    plan: TrainingPlan
    parameters: int
    steps_per_epoch: int
    epoch: int
    """Counted from 0; more than 0, or a `step` more than 0, where an interrupted run goes on."""
    step: int
    """Steps of this epoch that are done already."""
    world: int
    """Processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the optimiser is done."""

    epoch: int
    """Counted from 0 over all stages."""
    step: int
    """Counted from 1 within the epoch."""
    of: int
    """Steps of this epoch."""
    stage: int
    """Counted from 0."""
    lr: float
    losses: Mapping[str, float]
    """`box`, `objectness`, `classes` and their sum `total`; with adversarial training also `adversarial`, within it."""
    gradient: float
    """Norm before clipping."""
    size: int
    """Side of the input in pixels."""
    pictures_per_s: float
    """Over the last steps, all processes together."""
    memory_mib: float
    """Peak of the GPU's memory, or the process' own on a CPU."""
    eta_s: float
    """Until the end of the run at the pace so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """One epoch is done, evaluated where the recipe says so, and saved."""

    epoch: int
    """Counted from 0 over all stages."""
    of: int
    stage: int
    lr: float
    """Of its last step."""
    losses: Mapping[str, float]
    """Means over the epoch's steps, as in `Step`."""
    metrics: Metrics | None
    """None where this epoch was not evaluated."""
    best: bool
    """Whether these are the best weights so far."""
    seconds: float
    """Of training, the evaluation apart."""
    evaluation_s: float
    pictures_per_s: float
    """While training, all processes together."""
    eta_s: float
    """Until the end of the run at the pace so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    finished: bool
    """Otherwise it was interrupted and can be resumed from `last`."""
    reason: str
    """Why it was interrupted: `Ctrl-C`, `SIGTERM`, `time limit`; empty where it finished."""
    epochs: int
    """Done, all stages together."""
    steps: int
    """Of the optimiser, done."""
    seconds: float
    """Training and evaluation, those before a resumption too."""
    last: Path | None
    """What to resume from; None where the run was stopped before anything was saved."""
    best: Path | None
    """None where no epoch was finished."""
    metrics: Metrics | None
    """Of the best weights, as far as this process has evaluated them."""
    best_epoch: int | None
    """Counted from 0."""
    best_ap: float | None
    """What the best weights were chosen by."""


class Report(Protocol):
    """Who is told. Only the leading process tells."""

    def on_start(self, event: Start) -> None:
        """The run is set up."""

    def on_step(self, event: Step) -> None:
        """A step is done; on a GPU not every one is told, because telling means waiting for it."""

    def on_epoch(self, event: Epoch) -> None:
        """An epoch is done and saved."""

    def on_message(self, text: str) -> None:
        """Something that the user should know, one line."""

    def on_end(self, event: Outcome) -> None:
        """The run is over, finished or interrupted; not told where it failed."""


class Silent:
    """Tells nobody."""

    def on_start(self, event: Start) -> None:
        """Say nothing."""

    def on_step(self, event: Step) -> None:
        """Say nothing."""

    def on_epoch(self, event: Epoch) -> None:
        """Say nothing."""

    def on_message(self, text: str) -> None:
        """Say nothing."""

    def on_end(self, event: Outcome) -> None:
        """Say nothing."""
