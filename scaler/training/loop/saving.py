"""What a session leaves on the disk."""

from __future__ import annotations

from datetime import UTC, datetime

import scaler
from scaler.evaluation.metrics import Metrics
from scaler.training.loop.health import diverged
from scaler.training.loop.plan import TrainingPlan
from scaler.training.loop.session import Session
from scaler.training.network.checkpoint import Checkpoint, Facts, write_checkpoint


def save_last(session: Session, plan: TrainingPlan) -> None:
    """Write `last.pt`, from which the run can go on.

    Raises:
        UserError: The folder is read-only or the disk full.
        DivergedError: The weights are no numbers any more; the file stays as it was.
    """
    write_checkpoint(plan.last, _checkpoint(session, plan, None, resumable=True))


def save_best(session: Session, plan: TrainingPlan, metrics: Metrics | None) -> None:
    """Write `best.pt`, the weights alone.

    Raises:
        UserError: The folder is read-only or the disk full.
        DivergedError: The weights are no numbers any more; the file stays as it was.
    """
    write_checkpoint(plan.best, _checkpoint(session, plan, metrics, resumable=False))


def _checkpoint(session: Session, plan: TrainingPlan, metrics: Metrics | None, *, resumable: bool) -> Checkpoint:
    if not session.finite():
        raise diverged("weights are not finite", f"after {session.counts.steps} steps", plan)
    facts = Facts(
        epoch=session.counts.epoch,
        step=session.counts.steps,
        ap=metrics.ap if metrics else None,
        ap50=metrics.ap50 if metrics else None,
        recipe=plan.recipe.name,
        dataset=plan.train.name,
        seed=plan.seed,
        scaler_version=scaler.__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    progress = session.progress() if resumable else None
    return Checkpoint(spec=plan.spec, state=session.state(), facts=facts, selection=plan.selection, progress=progress)
