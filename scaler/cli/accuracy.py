"""`scaler accuracy`: the accuracy predictors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaler.cli.options import Json, console, print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scaler.accuracy.scores import By, CrossValidation

app = typer.Typer(help="Validate the accuracy predictors and draw what was published.", no_args_is_help=True)

FAMILIES = ("yolo-ret", "scaled-yolov4", "retinanet", "vovnet")
"""Of which errors are told; `vovnet` is what a backbone's gain in one detector says of another detector."""

DRAWN = ("retinanet",)
"""Families with a published trade-off to draw, for which no device is needed."""


@app.command("validate")
def validate_command(
    family: Annotated[
        str | None, typer.Option("--family", help=f"One of {', '.join(FAMILIES)}; otherwise all of them.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Recompute the cross-validation of the accuracy predictors from the published results.

    Example: scaler accuracy validate --family scaled-yolov4
    """
    from scaler.accuracy.validation import NOISE_STATEMENT  # noqa: PLC0415
    from scaler.errors import UsageError, unknown_name  # noqa: PLC0415

    if family is not None and family not in FAMILIES:
        raise UsageError(unknown_name("family", family, FAMILIES))
    parts = [part for name in FAMILIES if family in (None, name) for part in _validated(name)]
    if json_output:
        print_json([_as_data(part) for part in parts])
        return
    screen = console()
    screen.print(_table(parts))
    for part in parts:
        if part.scheme != "leave-one-backbone-out" and "COCO AP50" not in part.figure:
            screen.print(f"\n{part.family}, {part.figure}, {part.scheme}", style="bold")
            screen.print(f"  worst: {'; '.join(_told(part))}")
            by: By = "group" if part.family == "yolo-ret" or "network" in part.scheme else "recipe"
            errors = [f"{name} {error:.2f} ({count})" for name, (count, error) in part.errors(by).items()]
            screen.print(f"  mean error in AP (results) by {by}: {', '.join(errors)}")
    screen.print(f"\n{NOISE_STATEMENT}")


@app.command("plot")
def plot_command(
    family: Annotated[str, typer.Argument(help="Family with a published trade-off: retinanet.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture: .png, .svg or .pdf.")] = Path("tradeoff.png"),
) -> None:
    """Draw a family's published trade-off between accuracy and FLOPs: Light-Weight RetinaNet's; no device is needed.

    Example: scaler accuracy plot retinanet --out tradeoff.png
    """
    from scaler.errors import UsageError, listed, unknown_name  # noqa: PLC0415

    if family not in FAMILIES:
        raise UsageError(unknown_name("family", family, FAMILIES))
    if family not in DRAWN:
        raise UsageError(f"{family} has no published trade-off to draw; {listed(DRAWN)} has one")
    from scaler.report.tradeoff import write_published  # noqa: PLC0415

    write_published(out)
    say(f"wrote {out}")


def _validated(family: str) -> Sequence[CrossValidation]:
    """Every figure and scheme of a family."""
    if family == "yolo-ret":
        from scaler.accuracy.validation import validate  # noqa: PLC0415

        report = validate()
        return (*report.voc, *report.coco, *report.coco_ap)
    if family == "vovnet":
        from scaler.accuracy.backbone_gains import leave_one_out  # noqa: PLC0415

        return (leave_one_out(),)
    from scaler.accuracy.validation_laws import validate as validate_law  # noqa: PLC0415

    return (*validate_law(family, "ap"), *validate_law(family, "ap50"))


def _table(parts: Sequence[CrossValidation]) -> Any:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    words = ("family", "figure", "left out")
    for heading in (*words, "results", "mean error", "Kendall tau", "90 % interval covers", "half width"):
        table.add_column(heading, justify="left" if heading in words else "right")
    for part in parts:
        score = part.score
        table.add_row(
            part.family,
            part.figure,
            part.scheme.removeprefix("leave-").removesuffix("-out").replace("-", " "),
            str(score.n),
            f"{score.mean_absolute_error_ap:.2f} AP",
            f"{score.kendall_tau:.3f}",
            f"{100 * score.coverage:.0f} %",
            f"{score.mean_half_width_ap:.2f} AP",
        )
    return table


def _told(part: CrossValidation) -> list[str]:
    """The worst rows in words."""
    return [
        f"{row.label}, {row.recipe}: {row.published:.1f} published, {row.predicted:.1f} predicted"
        for row in part.worst(3)
    ]


def _as_data(part: CrossValidation) -> dict[str, Any]:
    errors = {
        by: {name: {"n": count, "mean_absolute_error_ap": error} for name, (count, error) in part.errors(by).items()}
        for by in ("group", "recipe")
    }
    rows = [
        {"label": row.label, "recipe": row.recipe, "published": row.published, "predicted": row.predicted}
        for row in part.worst()
    ]
    return {
        "family": part.family,
        "figure": part.figure,
        "scheme": part.scheme,
        **asdict(part.score),
        "by_group": errors["group"],
        "by_recipe": errors["recipe"],
        "worst": rows,
    }
