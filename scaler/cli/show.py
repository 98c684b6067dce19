"""`scaler show`: where the time, the MACs and the memory of a candidate go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scaler.cli.options import Dataset, Json, OverheadMs, PowerMode, Precision, SpaceName, console, print_json

if TYPE_CHECKING:
    from scaler.search.explain import Explanation


def command(
    candidate: Annotated[
        str,
        typer.Argument(
            help="A pareto.json (with --pick), a published model (YOLO-ReT-M0.75@320) or parameters "
            "(backbone=mobilenetv2,width=0.75,drop=published,rfcr=5,neck=fpn,resolution=320)."
        ),
    ],
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Device; that of the pareto.json otherwise.")
    ] = None,
    pick: Annotated[str, typer.Option("--pick", help="best, knee or an id of the pareto.json.")] = "best",
    space: SpaceName = "yolo-ret",
    dataset: Dataset = "voc",
    precision: Precision = None,
    power_mode: PowerMode = None,
    overhead_ms: OverheadMs = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also list every layer's cost.")] = False,
    json_output: Json = False,
) -> None:
    """Explain a candidate: time, MACs and memory by stage and kernel, and what to shrink first.

    Example: scaler show YOLO-ReT-M0.75@320 --device nano
    """
    from scaler.search.explain import Question, as_plain, explain  # noqa: PLC0415

    question = Question(
        candidate=candidate,
        device=device,
        pick=pick,
        space=space,
        dataset=dataset,
        precision=precision,
        power_mode=power_mode,
        overhead_ms=overhead_ms,
    )
    explanation = explain(question)
    if json_output:
        print_json(as_plain(explanation))
        return
    _print(explanation)
    if layers:
        _print_layers(explanation)


def _print(explanation: Explanation) -> None:
    from scaler.report.explanation import print_explanation  # noqa: PLC0415

    print_explanation(explanation, console())


def _print_layers(explanation: Explanation) -> None:
    from scaler.report.explanation import print_layers  # noqa: PLC0415

    print_layers(explanation, console())
