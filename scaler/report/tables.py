"""The plain tables of `scaler show`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def plain_table(title: str, *headings: str) -> Table:
    """A table without lines; the first column holds words, the others figures."""
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place == 0 else "right", overflow="fold")
    return table
