"""`scaler search`: the main job."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaler.cli.options import (
    Accuracy,
    Dataset,
    Json,
    Metric,
    OverheadMs,
    PowerMode,
    SpaceName,
    console,
    measuring,
    say,
)

if TYPE_CHECKING:
    from scaler.search.run import Search, SearchOptions


Trials = Annotated[
    int | None, typer.Option("--trials", min=1, help="Candidates to evaluate; the sampler's default otherwise.")
]
MaxMemoryMib = Annotated[
    float | None,
    typer.Option(
        "--max-memory-mib",
        help="Limit on the running network: measured where the table knows it, else weights and peak activations.",
    ),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option(
        "--precision",
        help="fp32, fp16 or int8; several, with commas or repeated, are searched together; all for what the device "
        "has. fp16 on GPUs otherwise.",
    ),
]
Minimize = Annotated[
    str,
    typer.Option(
        "--minimize", help="latency, or energy where the device's table has it: the objective beside the accuracy."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder for reports and study; named after the question otherwise."),
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", help="Journal file or Optuna storage URL; in the output folder otherwise."),
]
Study = Annotated[str | None, typer.Option("--study", help="Name of the study, for workers that share a storage.")]
Refine = Annotated[
    int | None,
    typer.Option(
        "--refine",
        min=1,
        help="On the device itself: measure so many candidates, correct the latency by them, search again, until the "
        "front stands still.",
    ),
]
RefineRounds = Annotated[
    int | None, typer.Option("--refine-rounds", min=1, help="Rounds of --refine, at most; 6 otherwise.")
]


def command(
    device: Annotated[list[str], typer.Option("--device", "-d", help="Device to search for; may be repeated.")],
    fps: Annotated[float | None, typer.Option("--fps", help="Frame rate to reach.")] = None,
    space: SpaceName = "yolo-ret",
    dataset: Dataset = None,
    metric: Metric = None,
    accuracy: Accuracy = None,
    precision: Precisions = None,
    power_mode: PowerMode = None,
    overhead_ms: OverheadMs = None,
    trials: Trials = None,
    minimize: Minimize = "latency",
    sampler: Annotated[
        str, typer.Option("--sampler", help="auto, nsga2, nsga3, tpe, gp, random or exhaustive.")
    ] = "auto",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same front.")] = 0,
    max_params: Annotated[float | None, typer.Option("--max-params", help="Limit on the parameters.")] = None,
    max_macs: Annotated[float | None, typer.Option("--max-macs", help="Limit on the multiply-accumulates.")] = None,
    max_memory_mib: MaxMemoryMib = None,
    out: Out = None,
    storage: Storage = None,
    study: Study = None,
    refine: Refine = None,
    refine_rounds: RefineRounds = None,
    json_output: Json = False,
) -> None:
    """Find the Pareto-optimal detectors for a device and the best that reaches a frame rate.

    Example: scaler search --device nano --fps 30
    """
    from scaler.search.evaluation import Limits  # noqa: PLC0415  (the help needs no numpy)
    from scaler.search.run import SearchOptions, default_folder  # noqa: PLC0415

    question = SearchOptions(
        devices=tuple(device),
        target_fps=fps,
        space=space,
        dataset=dataset,
        metric=metric,
        accuracy=accuracy,
        precision=",".join(precision) if precision else None,
        power_mode=power_mode,
        overhead_ms=overhead_ms,
        trials=trials,
        sampler=sampler,
        seed=seed,
        minimize=minimize.strip().casefold(),
        limits=Limits(max_params, max_macs, max_memory_mib),
        study=study,
        command=shlex.join(["scaler", *sys.argv[1:]]),
    )
    folder = out or default_folder(question)
    question = replace(question, folder=folder, storage=storage or folder / "study.journal")
    _search_and_report(question, folder, refine, refine_rounds, json_output=json_output)


def _search_and_report(
    question: SearchOptions, folder: Path, refine: int | None, rounds: int | None, *, json_output: bool
) -> None:
    """Search, keep what was measured of the same candidates before, write the reports and print."""
    from scaler.locks import locked  # noqa: PLC0415
    from scaler.report.recording import keep_measured  # noqa: PLC0415
    from scaler.report.writing import REPORTS, report_writer  # noqa: PLC0415

    with report_writer() as reports:
        found = _searched(question, refine, rounds)
        with locked(folder / "pareto.json"):  # workers may be recording what they trained
            found = replace(found, result=keep_measured(found.result, folder / "pareto.json"))
            with reports.writing(found.result, folder):
                _print(found, folder, json_output)
    say(f"reports: {folder}/ ({', '.join(REPORTS)})")
    if found.interrupted:
        say("scaler: interrupted; the same command goes on where it stopped")
        raise typer.Exit(1)


def _searched(question: SearchOptions, refine: int | None, rounds: int | None) -> Search:
    """The search, refined by measurements where that is asked for."""
    if refine is None:
        from scaler.errors import UsageError  # noqa: PLC0415
        from scaler.search.run import search  # noqa: PLC0415

        if rounds is not None:
            raise UsageError("--refine-rounds limits --refine: say how many candidates a round measures, --refine 8")
        with _progress() as progress:
            return search(question, progress)
    from scaler.profiling import refine as refining  # noqa: PLC0415

    watch = refining.Watch(_progress, measuring, say)
    refined = refining.refine(question, refine, rounds=rounds or refining.ROUNDS, watch=watch)
    say(refining.summary(refined))
    return refined.found


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar with time left on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        tasks: dict[str, int] = {}

        def update(device: str, done: int, wanted: int) -> None:
            if device not in tasks:
                tasks[device] = bar.add_task(f"searching for {device}", total=wanted)
            bar.update(tasks[device], completed=done, total=wanted)  # type: ignore[arg-type]

        yield update


def _print(found: Search, folder: Path, json_output: bool) -> None:
    if json_output:
        from scaler.report.files import json_text  # noqa: PLC0415

        sys.stdout.write(json_text(found.result))
        return
    from scaler.report.console import print_result  # noqa: PLC0415

    print_result(found.result, console(), folder=folder)
