"""A run as the user sees it: a bar on a terminal, elsewhere a line an epoch."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from scaler.report.glyphs import for_encoding
from scaler.training.loop.events import Epoch, Outcome, Report, Silent, Start, Step

if TYPE_CHECKING:
    from rich.console import Console

_PARTS = ("box", "objectness", "classes", "adversarial")
_SHORT = {"box": "box", "objectness": "obj", "classes": "cls", "adversarial": "adv"}


class Several:
    """Tells several listeners in turn."""

    def __init__(self, *listeners: Report) -> None:
        self._listeners = listeners

    def on_start(self, event: Start) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_start(event)

    def on_step(self, event: Step) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_step(event)

    def on_epoch(self, event: Epoch) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_epoch(event)

    def on_message(self, text: str) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_message(text)

    def on_end(self, event: Outcome) -> None:
        """Pass it on."""
        for listener in self._listeners:
            listener.on_end(event)


class Lines(Silent):
    """A line an epoch, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def on_start(self, event: Start) -> None:
        """What is trained."""
        self._say(opening(event))

    def on_epoch(self, event: Epoch) -> None:
        """Losses, AP, time left."""
        self._say(closing(event))

    def on_message(self, text: str) -> None:
        """As it is."""
        self._say(text)

    def _say(self, text: str) -> None:
        stream = self._stream or sys.stderr
        print(for_encoding(text, stream.encoding or "utf-8"), file=stream, flush=True)


class Bar(Silent):
    """A bar for the run with the numbers of the moment; a line above it for each evaluated epoch."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415

        columns = (
            TextColumn("{task.fields[place]}", style="bold"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[numbers]}", style="dim"),
        )
        self._bar = Progress(*columns, console=console, expand=True, transient=True, redirect_stdout=False)
        self._task = self._bar.add_task("training", total=1.0, place="preparing", numbers="", start=False)
        self._epochs, self._best = 0, ""

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_start(self, event: Start) -> None:
        """What is trained."""
        self._epochs = event.plan.recipe.epochs
        self._print(opening(event))

    def on_step(self, event: Step) -> None:
        """Where the run is."""
        done = (event.epoch + event.step / event.of) / max(1, self._epochs)
        losses = " ".join(f"{_SHORT[name]} {event.losses[name]:.3g}" for name in _PARTS if event.losses.get(name))
        pieces = (losses, f"lr {event.lr:.2g}", f"{event.pictures_per_s:.0f} pictures/s", self._best,
                  f"{duration(event.eta_s)} left")  # fmt: skip
        place = f"epoch {event.epoch + 1}/{self._epochs} step {event.step}/{event.of}"
        numbers = "  ".join(filter(None, pieces))
        self._bar.update(self._task, completed=done, place=place, numbers=numbers)

    def on_epoch(self, event: Epoch) -> None:
        """AP, where it was computed."""
        if event.metrics is not None:
            if event.best and event.metrics.ap50 is not None:
                self._best = f"best AP50 {100 * event.metrics.ap50:.1f}"
            self._print(closing(event))

    def on_message(self, text: str) -> None:
        """Above the bar."""
        self._print(text)

    def _print(self, text: str) -> None:
        self._bar.console.print(for_encoding(text, self._bar.console.encoding), markup=False, highlight=False)


def opening(event: Start) -> str:
    """One line on what is trained."""
    plan = event.plan
    where = plan.device if event.world == 1 else f"{event.world} x {plan.device}"
    done = [counted(number, word) for number, word in ((event.epoch, "epoch"), (event.step, "step")) if number]
    begun = f", going on after {' and '.join(done)}" if done else ""
    return (
        f"{event.parameters / 1e6:.2f} M parameters, {len(plan.train.pictures)} pictures at "
        f"{plan.spec.preprocessing.size} px, {counted(plan.recipe.epochs, 'epoch')} of "
        f"{counted(event.steps_per_epoch, 'step')} of {counted(plan.recipe.batch, 'picture')}, "
        f"recipe {plan.recipe.name}, {plan.precision} on {where}{begun}"
    )


def closing(event: Epoch) -> str:
    """One line on an epoch."""
    pieces = [
        f"epoch {event.epoch + 1}/{event.of} (stage {event.stage + 1}): loss {_losses(event.losses)}",
        f"lr {event.lr:.2g}",
        f"{event.pictures_per_s:.0f} pictures/s",
    ]
    if event.metrics is not None:
        pieces += [f"AP {points(event.metrics.ap)}", f"AP50 {points(event.metrics.ap50)}"]
        pieces += ["best so far"] if event.best else []
    if event.epoch + 1 < event.of:
        pieces.append(f"{duration(event.eta_s)} left")
    return ", ".join(pieces)


def _losses(losses: Mapping[str, float]) -> str:
    parts = " + ".join(f"{name} {losses[name]:.3g}" for name in _PARTS[:3] if losses.get(name))
    return f"{losses['total']:.3g} = {parts}" if parts else f"{losses['total']:.3g}"


def counted(number: int, word: str) -> str:
    """`1 epoch`, `2 epochs`."""
    return f"{number} {word}{'s' * (number != 1)}"


def points(share: float | None) -> str:
    """AP in points."""
    return "none (no objects)" if share is None else f"{100 * share:.1f}"


def duration(seconds: float) -> str:
    """`41 s`, `12:05`, `3:07:12`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
