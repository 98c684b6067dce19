"""Prints the heaviest block of a network and what would make it lighter, for `scaler show --lighten`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaler.report.tables import plain_table
from scaler.search.lighten import Lightening

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN_BLOCKS = 10
SHOWN_REWRITES = 10


def print_lightening(lightening: Lightening, metric: str, console: Console) -> None:
    """Print the blocks by time, the ceiling of attacking the heaviest, and its lighter versions."""
    console.print(_blocks(lightening))
    target = lightening.target
    for block in lightening.passed_over:
        console.print(f"{block.name} has nothing lighter one step away in this space.", style="dim")
    if target is None:
        return
    console.print(
        f"[bold]attack {target.name}[/bold]: {100 * target.share:.0f} % of the frame, so no rewrite of it alone gets "
        f"beyond {target.ceiling:.2f}x" + _division(target.parts)
    )
    console.print(_rewrites(lightening, metric))
    console.print(
        "ceiling: if the blocks that a change touches took no time at all. Intervals: as of two independent training "
        "runs. smaller input: the same network with the input that takes as long.",
        style="dim",
    )


def _blocks(lightening: Lightening) -> Table:
    table = plain_table(
        "\nheaviest blocks", "block", "ms", "of frame", "of MACs", "from table", "ceiling", "best step here"
    )
    for block in lightening.blocks[:SHOWN_BLOCKS]:
        table.add_row(
            block.name,
            f"{block.ms:.2f}",
            f"{100 * block.share:.0f} %",
            f"{100 * block.macs_share:.0f} %",
            f"{100 * block.from_table:.0f} %",
            f"{block.ceiling:.2f}x",
            f"{best[0].change}: {best[0].speedup:.2f}x" if (best := lightening.rewrites_of(block.name)) else "–",
        )
    rest = lightening.blocks[SHOWN_BLOCKS:]
    if rest:
        share, macs = sum(block.share for block in rest), sum(block.macs_share for block in rest)
        ms = sum(block.ms for block in rest)
        table.add_row(f"{len(rest)} more", f"{ms:.2f}", f"{100 * share:.0f} %", f"{100 * macs:.0f} %", "", "", "")
    overhead = lightening.overhead_ms
    table.add_row(
        "before and after", f"{overhead:.2f}", f"{100 * overhead / lightening.frame_ms:.0f} %", "", "", "", ""
    )
    return table


def _division(parts: dict[str, float]) -> str:
    whole = sum(parts.values())
    shares = (f"{stage.rpartition('.')[2]} {100 * ms / whole:.0f} %" for stage, ms in parts.items())
    return f" ({', '.join(shares)})" if parts else ""


def _rewrites(lightening: Lightening, metric: str) -> Table:
    table = plain_table(
        "", "change", "saves ms", "speedup", "ceiling", f"{metric} change", "by smaller input", "heaviest then"
    )
    for rewrite in lightening.rewrites[:SHOWN_REWRITES]:
        ap, other = rewrite.ap_change, rewrite.ap_change_by_input_size
        table.add_row(
            rewrite.change,
            f"{rewrite.saved_ms:.2f}",
            f"{rewrite.speedup:.2f}x",
            "–" if rewrite.ceiling is None else f"{rewrite.ceiling:.2f}x",
            f"{ap.mean:+.1f} ({ap.low:+.1f} to {ap.high:+.1f})",
            "beyond the space" if other is None else f"{other:+.1f}",
            rewrite.heaviest_after,
        )
    return table
