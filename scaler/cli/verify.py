"""`scaler verify`: the picks of a search, measured on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaler.cli.options import Json, console, measuring, print_json, say

if TYPE_CHECKING:
    from scaler.profiling.verify import Verification, Verified


def command(
    result: Annotated[Path, typer.Argument(help="The pareto.json of a search.")],
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Device of the result; the first otherwise.")
    ] = None,
    pick: Annotated[str, typer.Option("--pick", help="best, knee, front (all of it) or a candidate's id.")] = "best",
    runtime: Annotated[
        str, typer.Option("--runtime", help="auto, onnxruntime, tensorrt (in process) or trtexec.")
    ] = "auto",
    json_output: Json = False,
) -> None:
    """Build the picks of a search, measure them here, and print predicted beside measured engine times.

    Run it on the device itself.

    Example: scaler verify results/host/pareto.json --pick front
    """
    from scaler.latency.estimator import load_estimator  # noqa: PLC0415
    from scaler.profiling.machine import machine_for, setting  # noqa: PLC0415
    from scaler.profiling.verify import chosen, verify  # noqa: PLC0415
    from scaler.search.result_file import read_result  # noqa: PLC0415

    search = read_result(result)
    found, candidates = chosen(search, device, pick)
    wanted = setting(found.device, found.precision, found.power_mode)
    estimator = load_estimator(found.device, precision=found.precision, power_mode=found.power_mode)
    machine = machine_for(wanted, runtime)
    with measuring("verifying") as progress:
        verified = verify(search, found, candidates, estimator, machine, progress=progress)
    if json_output:
        print_json(_plain(verified))
    else:
        _print(verified)
    if any(row.failure for row in verified.rows):
        say("scaler: some networks could not be measured")
        raise typer.Exit(1)


def _plain(verified: Verification) -> dict[str, Any]:
    return {"drift": verified.drift, "candidates": [_row(row) for row in verified.rows]}


def _row(row: Verified) -> dict[str, Any]:
    if row.failure:
        return {"id": row.candidate.id, "predicted_ms": row.predicted_ms, "failure": row.failure}
    return {
        "id": row.candidate.id,
        "params": row.candidate.params,
        "predicted_ms": row.predicted_ms,
        "low_ms": row.low_ms,
        "high_ms": row.high_ms,
        "measured_ms": row.measured_ms,
        "p99_ms": row.p99_ms,
        "measured_ms_at_the_tables_speed": row.level_ms,
        "error": row.error,
        "inside": row.inside,
        "warnings": list(row.warnings),
    }


HEADINGS = ("candidate", "predicted ms", "90 % interval", "measured ms", "error", "inside", "now ms", "p99 now")


def _cells(row: Verified) -> tuple[str, ...]:
    if row.failure:
        return (row.candidate.id, f"{row.predicted_ms:.2f}", "", "failed")
    return (
        row.candidate.id,
        f"{row.predicted_ms:.2f}",
        f"{row.low_ms:.2f} to {row.high_ms:.2f}",
        f"{row.level_ms:.2f}",
        f"{100 * row.error:+.1f} %",
        "yes" if row.inside else "no",
        f"{row.measured_ms:.2f}",
        f"{row.p99_ms:.2f}",
    )


def _print(verified: Verification) -> None:
    from rich.table import Table  # noqa: PLC0415

    screen = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == HEADINGS[0] else "right")
    for row in verified.rows:
        table.add_row(*_cells(row))
    screen.print(table)
    good = [row for row in verified.rows if not row.failure]
    if good:
        error = 100 * sum(abs(row.error) for row in good) / len(good)
        screen.print(f"mean error {error:.1f} % over {len(good)} networks, engine times, batch 1")
    if verified.drift is not None:
        screen.print(
            f"the reference network is {100 * verified.drift:+.1f} % slower than when the table was made: `measured` "
            "is at the table's speed, `now` as it was timed"
        )
    for row in verified.rows:
        for doubt in (*row.warnings, *filter(None, (row.failure,))):
            screen.print(f"{row.candidate.id}: {doubt}", markup=False)
