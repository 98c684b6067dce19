"""`scaler plot`: Pareto fronts as a picture or a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaler.cli.options import say


def command(
    pareto: Annotated[list[Path], typer.Argument(help="One or more pareto.json files.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture or page: .png, .svg, .pdf or .html.")] = Path(
        "pareto.png"
    ),
) -> None:
    """Draw the Pareto fronts of one or more searches.

    Example: scaler plot results/pareto.json --out front.svg
    """
    from scaler.errors import UsageError  # noqa: PLC0415
    from scaler.search.result_file import read_result  # noqa: PLC0415

    results = [read_result(path) for path in pareto]
    if out.suffix.lower() == ".html":
        if len(results) > 1:
            raise UsageError("an .html page shows one search; give one pareto.json, or a .png or .svg for several")
        from scaler.report.html import write_html  # noqa: PLC0415

        write_html(results[0], out)
    else:
        from scaler.report.plot import write_plot  # noqa: PLC0415

        write_plot(results, out)
    say(f"wrote {out}")
