"""`scaler accuracy`: the accuracy predictors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaler.cli.options import Json, console, print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scaler.accuracy.int8_loss_validation import Int8Validation
    from scaler.accuracy.prediction import Score
    from scaler.accuracy.runs_fit import RunsFit
    from scaler.accuracy.scores import By, CrossValidation

app = typer.Typer(
    help="Validate the accuracy predictors, correct them by your own runs, and draw what was published.",
    no_args_is_help=True,
)

FAMILIES = ("yolo-ret", "scaled-yolov4", "retinanet", "vovnet")
"""Of which errors are told; `vovnet` is what a backbone's gain in one detector says of another detector."""

DRAWN = ("retinanet",)
"""Families with a published trade-off to draw, for which no device is needed."""


@app.command("validate")
def validate_command(
    family: Annotated[
        str | None, typer.Option("--family", help=f"One of {', '.join(FAMILIES)}; otherwise all of them.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="What is predicted of the accuracy that INT8 costs, instead.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Recompute the cross-validation of the accuracy predictors from the published results.

    Example: scaler accuracy validate --family scaled-yolov4
    """
    from scaler.accuracy.validation import NOISE_STATEMENT  # noqa: PLC0415
    from scaler.errors import UsageError, unknown_name  # noqa: PLC0415

    if int8:
        if family is not None:
            raise UsageError("--int8 is of all families together: leave --family out")
        _validate_int8(json_output)
        return
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


def _validate_int8(json_output: bool) -> None:
    from scaler.accuracy.int8_loss_fit import EFFECTS, SCATTERS, shipped_fit, used_rows  # noqa: PLC0415
    from scaler.accuracy.int8_loss_validation import validate_int8  # noqa: PLC0415

    results, fit, rows = validate_int8(), shipped_fit(), used_rows()
    effects = dict(zip(EFFECTS, zip(fit.effects.tolist(), fit.deviations.tolist(), strict=True), strict=True))
    if json_output:
        print_json(
            {
                "figures": len(rows),
                "detectors": sum(row.task == "detection" for row in rows),
                "laboratories": len({row.laboratory for row in rows}),
                "effects": {name: {"mean": mean, "sd": sd} for name, (mean, sd) in effects.items()},
                "scatters": dict(zip(SCATTERS, fit.scatters, strict=True)),
                "validation": [_int8_data(one) for one in results],
            }
        )
        return
    screen = console()
    screen.print(_int8_table(results))
    screen.print(
        "\npoints of AP or AP50 of published detectors, each figure predicted by a fit that has not seen its fold"
    )
    screen.print(
        f"fitted on {len(rows)} figures ({sum(row.task == 'detection' for row in rows)} of detectors) "
        f"of {len({row.laboratory for row in rows})} laboratories; effects on asinh(loss / 0.3 AP):"
    )
    screen.print("  " + ", ".join(f"{name} {mean:+.2f} ± {sd:.2f}" for name, (mean, sd) in effects.items()))
    worst = [
        f"{row.label}: {row.published:.1f} published, {row.predicted:.1f} predicted" for row in results[0].part.worst(5)
    ]
    screen.print(f"worst, laboratory left out: {'; '.join(worst)}", markup=False)


def _int8_table(results: Sequence[Int8Validation]) -> Any:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = (
        "figures",
        "mean error",
        "Kendall tau",
        "90 % interval covers",
        "half width",
        "bias",
        "error of a constant",
    )
    table.add_column("left out")
    for heading in headings:
        table.add_column(heading, justify="right")
    for one in results:
        name = one.part.scheme.removeprefix("leave-one-").removesuffix("-out")
        ends = (f"{one.bias_ap:+.2f} AP", f"{one.constant_error_ap:.2f} AP")
        table.add_row(name, *_score_cells(one.part.score), *ends)
    return table


def _int8_data(one: Int8Validation) -> dict[str, Any]:
    ours = {"bias_ap": one.bias_ap, "constant_mean_absolute_error_ap": one.constant_error_ap}
    return _as_data(one.part) | ours


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


@app.command("fit")
def fit_command(
    runs: Annotated[Path, typer.Option("--runs", help="Folder of training runs: every result.json below it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the fit goes.")] = Path("accuracy.json"),
    metric: Annotated[
        str, typer.Option("--metric", help="ap50, or ap (IoU 0.50 to 0.95), both as COCO counts them.")
    ] = "ap50",
    dataset: Annotated[
        str | None, typer.Option("--dataset", help="Name of the data set, where the runs are of several.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Recipe to predict for; the one with most runs otherwise.")
    ] = None,
    json_output: Json = False,
) -> None:
    """Correct the published accuracy laws by your own training runs, for `scaler search --accuracy`.

    A data set gets an offset, a slope and effects of backbone and resolution; recipes and numbers of epochs are never
    mixed: each has its own level. Prints the errors on runs left out beside those of the published law alone.

    Example: scaler accuracy fit --runs runs/ --out accuracy.json
    """
    from scaler.accuracy.prediction import METRIC_NAMES  # noqa: PLC0415
    from scaler.accuracy.runs import read_runs  # noqa: PLC0415
    from scaler.accuracy.runs_fit import fit_runs, write_fit  # noqa: PLC0415
    from scaler.errors import UsageError, unknown_name  # noqa: PLC0415

    found = read_runs(runs)
    name = next((known for known in METRIC_NAMES if known == metric.lower()), None)
    if name is None:
        raise UsageError(unknown_name("metric", metric, METRIC_NAMES))
    named = {folder.relative_to(runs).as_posix(): run for folder, run in found.items()}
    fit = fit_runs(named, name, dataset, recipe)
    write_fit(fit, out)
    unfinished = sum(not run.finished for run in found.values())
    if json_output:
        print_json(_fit_data(fit, unfinished))
    else:
        _print_fit(fit, unfinished)
    say(f"wrote {out}; search with scaler search … --accuracy {out}")


def _fit_data(fit: RunsFit, unfinished: int) -> dict[str, Any]:
    law, here, half = fit.shift_ap
    return {
        "dataset": fit.dataset,
        "metric": fit.metric,
        "recipe": fit.recipe._asdict(),
        "runs": len(fit.runs),
        "runs_by_recipe": {str(recipe): count for recipe, count in fit.recipes.items()},
        "unfinished": unfinished,
        "lacking": fit.lacking,
        "typical_network": {"law_ap": law, "ap": here, "half_width_ap": half},
        "slope": fit.regression.slope._asdict(),
        "noise_ap": fit.regression.noise_ap,
        "corrected": None if fit.corrected is None else asdict(fit.corrected),
        "law": None if fit.law is None else asdict(fit.law),
    }


def _print_fit(fit: RunsFit, unfinished: int) -> None:
    from rich.table import Table  # noqa: PLC0415

    screen = console()
    counted = "; ".join(f"{recipe}: {count}" for recipe, count in fit.recipes.most_common())
    left_out = f"; {unfinished} unfinished left out" if unfinished else ""
    screen.print(f"{fit.title}, {len(fit.runs)} finished runs ({counted}){left_out}", style="bold", markup=False)
    screen.print(f"predicts the recipe {fit.recipe}; recipes are not mixed: each has its own level", markup=False)
    law, here, half = fit.shift_ap
    slope = fit.regression.slope
    screen.print(
        f"a network that the law puts at {law:.1f} (COCO) reaches {here:.1f} ± {half:.1f} here; differences are "
        f"{slope.mean:.2f} ± {1.645 * slope.sd:.2f} times the law's, in logits; scatter of a run "
        f"{fit.regression.noise_ap:.1f} AP"
    )
    if fit.lacking:
        screen.print(fit.lacking, style="yellow", markup=False)
    if fit.corrected is None or fit.law is None:
        screen.print("one run cannot be left out: the error is unknown")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("each run left out", "runs", "mean error", "Kendall tau", "90 % interval covers", "half width"):
        table.add_column(heading, justify="left" if "left out" in heading else "right")
    for name, score in (("law and runs", fit.corrected), ("published law alone", fit.law)):
        table.add_row(name, *_score_cells(score))
    screen.print(table)


def _score_cells(score: Score) -> tuple[str, ...]:
    return (
        str(score.n),
        f"{score.mean_absolute_error_ap:.2f} AP",
        f"{score.kendall_tau:.3f}",
        f"{100 * score.coverage:.0f} %",
        f"{score.mean_half_width_ap:.2f} AP",
    )


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
            *_score_cells(score),
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
