"""`scaler show`: where the time, the MACs and the memory of a candidate go."""

from __future__ import annotations

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
    Precision,
    console,
    print_json,
    say,
)

if TYPE_CHECKING:
    from scaler.search.explain import Explanation


def command(
    candidate: Annotated[
        str,
        typer.Argument(
            help="A pareto.json (with --pick), a published model (YOLO-ReT-M0.75@320, yolov4-csp@640, "
            "retinanet-resnet-50@800) or parameters "
            "(backbone=mobilenetv2,width=0.75,drop=published,rfcr=5,neck=fpn,resolution=320)."
        ),
    ],
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Device; that of the pareto.json otherwise.")
    ] = None,
    pick: Annotated[str, typer.Option("--pick", help="best, knee or an id of the pareto.json.")] = "best",
    space: Annotated[
        str | None,
        typer.Option("--space", help="Search space, a name or path; the shipped one that has the candidate otherwise."),
    ] = None,
    dataset: Dataset = None,
    metric: Metric = None,
    accuracy: Accuracy = None,
    precision: Precision = None,
    power_mode: PowerMode = None,
    overhead_ms: OverheadMs = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also list every layer's cost.")] = False,
    lighten: Annotated[
        bool, typer.Option("--lighten", help="Also rank the blocks by time and find lighter versions of the heaviest.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", help="With --lighten: draw lighter blocks against a smaller input; .png, .svg or .pdf."),
    ] = None,
    json_output: Json = False,
) -> None:
    """Explain a candidate: time, MACs and memory by stage and kernel, and what to shrink first.

    Example: scaler show YOLO-ReT-M0.75@320 --device nano --lighten
    """
    from scaler.search.explain import Question, as_plain, explain  # noqa: PLC0415

    question = Question(
        candidate=candidate,
        device=device,
        pick=pick,
        space=space,
        dataset=dataset,
        metric=metric,
        accuracy=accuracy,
        precision=precision,
        power_mode=power_mode,
        overhead_ms=overhead_ms,
        lighten=lighten or plot is not None,
    )
    if plot is not None:
        _check(plot)
    explanation = explain(question)
    if plot is not None:
        _draw(explanation, plot)
    if json_output:
        print_json(as_plain(explanation))
        return
    _print(explanation)
    if layers:
        _print_layers(explanation)


def _check(plot: Path) -> None:
    from scaler.report.picture import check_suffix  # noqa: PLC0415

    check_suffix(plot)


def _print(explanation: Explanation) -> None:
    from scaler.report.explanation import print_explanation  # noqa: PLC0415

    print_explanation(explanation, console())


def _print_layers(explanation: Explanation) -> None:
    from scaler.report.explanation import print_layers  # noqa: PLC0415

    print_layers(explanation, console())


def _draw(explanation: Explanation, path: Path) -> None:
    from scaler.report.tradeoff import draw_explanation  # noqa: PLC0415

    draw_explanation(explanation, path)
    say(f"wrote {path}")
