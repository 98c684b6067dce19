"""Going on from `last.pt`: only with the same network, recipe and data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scaler.errors import FileError
from scaler.training.checkpoint import Checkpoint, read_checkpoint
from scaler.training.distributed import World
from scaler.training.plan import TrainingPlan
from scaler.training.session import Session, run_data
from scaler.training.spec_data import spec_data


def resume(session: Session, plan: TrainingPlan, world: World) -> None:
    """Bring a session to where `last.pt` was written.

    Raises:
        FileError: The file is missing or damaged, or of another network, recipe, data set or seed.
    """
    checkpoint = read_checkpoint(plan.last)
    progress = checkpoint.progress
    if progress is None:
        raise FileError(plan.last, "progress", "missing: these are weights alone", todo="resume from a last.pt")
    if different := next(_differences(checkpoint, progress, plan), None):
        todo = "resume with what the run was started with, or start another run in another folder"
        raise FileError(plan.last, different[0], f"was {different[1]!r}, is {different[2]!r} now", todo=todo)
    try:
        session.restore(progress, world)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise FileError(
            plan.last, "progress", f"damaged ({type(error).__name__}: {reason})", todo="train anew"
        ) from None


def _differences(
    checkpoint: Checkpoint, progress: Mapping[str, Any], plan: TrainingPlan
) -> Iterator[tuple[str, object, object]]:
    """Dotted name, value then and value now, of all that must be the same and is not."""
    yield from _unequal("spec", spec_data(checkpoint.spec), spec_data(plan.spec))
    for key, now in run_data(plan).items():
        yield from _unequal(key, progress.get(key), now)


def _unequal(name: str, then: object, now: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in then | now:
            yield from _unequal(f"{name}.{key}", then.get(key), now.get(key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (old, new) in enumerate(zip(then, now, strict=True)):
            yield from _unequal(f"{name}[{index}]", old, new)
    elif then != now:
        yield name, then, now
