"""Options that several commands share, each defined once."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Precision = Annotated[
    str | None,
    typer.Option("--precision", help="fp32, fp16 or int8; otherwise fp16 on GPUs and fp32 on CPUs."),
]
PowerMode = Annotated[
    str | None, typer.Option("--power-mode", help="Power mode, or threads of a CPU; the profile's default otherwise.")
]
OverheadMs = Annotated[
    float | None,
    typer.Option("--overhead-ms", help="Pre- and post-processing per frame; replaces that of the publication."),
]
Dataset = Annotated[
    str | None,
    typer.Option("--dataset", help="Data set of the accuracy, voc or coco; that of the publication otherwise."),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", help="ap50, or ap (IoU 0.50 to 0.95); what the family's publication gives otherwise."),
]
Accuracy = Annotated[
    Path | None,
    typer.Option("--accuracy", help="Accuracy corrected by your own runs: the file of `scaler accuracy fit`."),
]
SpaceName = Annotated[str, typer.Option("--space", help="Search space: a name or the path of a TOML file.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of tables.")]


PIPED_WIDTH = 140
"""Columns of tables that go to a file or another program."""


def print_json(data: Any) -> None:
    """Print data as JSON on standard output."""
    json.dump(data, sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def console(*, stderr: bool = False) -> Console:
    """A rich console on standard output or standard error."""
    from rich.console import Console  # noqa: PLC0415

    file = sys.stderr if stderr else sys.stdout
    return Console(file=file, highlight=False, width=None if file.isatty() else PIPED_WIDTH)


@contextmanager
def measuring(what: str) -> Iterator[Callable[[int, int, str], None] | None]:
    """A progress bar with time left for measurements; a line each where standard error is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total, word: say(f"{what} {done}/{total}: {word}")
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)

        def update(done: int, total: int, word: str) -> None:
            if "failed" in word:
                bar.console.print(word, markup=False)
            bar.update(task, completed=done, total=total)

        yield update


def say(message: str) -> None:
    """Talk to the user on standard error."""
    print(message, file=sys.stderr)
