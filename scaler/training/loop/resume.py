"""Going on from `last.pt`: only with the same network, recipe and data."""

from __future__ import annotations

from scaler.errors import FileError
from scaler.training.loop.differences import differences
from scaler.training.loop.distributed import World
from scaler.training.loop.plan import TrainingPlan
from scaler.training.loop.session import Session, run_data
from scaler.training.network.checkpoint import read_checkpoint
from scaler.training.network.spec_data import spec_data


def resume(session: Session, plan: TrainingPlan, world: World) -> None:
    """Bring a session to where `last.pt` was written.

    Raises:
        FileError: The file is missing or damaged, or of another network, recipe, data set or seed.
    """
    checkpoint = read_checkpoint(plan.last)
    progress = checkpoint.progress
    if progress is None:
        raise FileError(plan.last, "progress", "missing: these are weights alone", todo="resume from a last.pt")
    then = {"spec": spec_data(checkpoint.spec)} | {key: progress.get(key) for key in run_data(plan)}
    now = {"spec": spec_data(plan.spec)} | run_data(plan)
    if different := next(differences(then, now), None):
        todo = "resume with what the run was started with, or start another run in another folder"
        raise FileError(plan.last, different.where, f"was {different.then!r}, is {different.now!r} now", todo=todo)
    try:
        session.restore(progress, world)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise FileError(
            plan.last, "progress", f"damaged ({type(error).__name__}: {reason})", todo="train anew"
        ) from None
