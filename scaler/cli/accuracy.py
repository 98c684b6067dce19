"""`scaler accuracy`: the accuracy predictor."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from scaler.cli.options import Json, console, print_json

if TYPE_CHECKING:
    from scaler.accuracy.validation import CrossValidation

app = typer.Typer(help="Validate the accuracy predictor.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `validate` a command of its own."""


@app.command("validate")
def validate_command(json_output: Json = False) -> None:
    """Recompute the cross-validation of the accuracy predictor from the published results.

    Example: scaler accuracy validate
    """
    from scaler.accuracy.validation import validate  # noqa: PLC0415

    report = validate()
    named: dict[str, CrossValidation] = {
        "VOC AP50, each detector left out": report.voc[0],
        "VOC AP50, each backbone left out": report.voc[1],
        "COCO AP50, each detector left out": report.coco[0],
        "COCO AP50, each backbone left out": report.coco[1],
    }
    if json_output:
        print_json({name: asdict(part.score) for name, part in named.items()})
        return
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "results", "mean error", "Kendall tau", "90 % interval covers", "half width"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, part in named.items():
        score = part.score
        table.add_row(
            name,
            str(score.n),
            f"{score.mean_absolute_error_ap:.2f} AP",
            f"{score.kendall_tau:.3f}",
            f"{100 * score.coverage:.0f} %",
            f"{score.mean_half_width_ap:.2f} AP",
        )
    screen = console()
    screen.print(table)
    errors = report.voc[1].error_by_backbone()
    screen.print("VOC, by backbone left out: " + ", ".join(f"{name} {error:.2f}" for name, error in errors.items()))
    screen.print(report.noise)
