"""`scaler spaces`: the search spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaler.cli.options import Json, console, print_json

if TYPE_CHECKING:
    from scaler.space import Space


def command(
    name: Annotated[
        str | None, typer.Argument(help="One space in full, by name or path; all in short otherwise.")
    ] = None,
    json_output: Json = False,
) -> None:
    """List the search spaces and their parameters; checks a file of your own.

    Example: scaler spaces yolo-ret
    """
    from scaler.space_file import list_spaces, read_space  # noqa: PLC0415

    spaces = list_spaces() if name is None else (read_space(name),)
    if json_output:
        print_json([_plain(space) for space in spaces])
        return
    screen = console()
    for space in spaces:
        screen.print(f"[bold]{space.name}[/bold]  {space.size:,} candidates  {space.description}")
        if name is not None:
            _print_parameters(space)


def _plain(space: Space) -> dict[str, Any]:
    return {
        "name": space.name,
        "families": list(space.families),
        "description": space.description,
        "candidates": space.size,
        "limits": dict(space.limits),
        "parameters": {
            parameter.name: [
                {"values": list(option.values), "when": {key: list(values) for key, values in option.when.items()}}
                for option in parameter.alternatives
            ]
            for parameter in space.parameters
        },
    }


def _print_parameters(space: Space) -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("parameter", "values", "when"):
        table.add_column(heading, overflow="fold")
    for parameter in space.parameters:
        for option in parameter.alternatives:
            when = ", ".join(f"{key} = {' or '.join(map(str, values))}" for key, values in option.when.items())
            table.add_row(parameter.name, ", ".join(map(str, option.values)), when)
    console().print(table)
    for limit, value in space.limits.items():
        console().print(f"limit on {limit}: {value:g}")
