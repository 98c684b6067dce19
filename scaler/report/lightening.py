"""Prints the heaviest block of a network and what would make it lighter, for `scaler show --lighten`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaler.report.tables import plain_table
from scaler.search.lighten import Lightening, Rewrite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

SHOWN_BLOCKS = 10
SHOWN_REWRITES = 10


def print_lightening(lightening: Lightening, metric: str, console: Console) -> None:
    """Print the blocks by time, the ceilings of attacking the heaviest, its lighter versions, and a smaller input."""
    console.print(_blocks(lightening))
    target = lightening.target
    for block in lightening.passed_over:
        console.print(f"{block.name} has nothing lighter one step away in this space.", style="dim")
    if target is None:
        return
    console.print(
        f"[bold]attack {target.name}[/bold]: {100 * target.share:.0f} % of the frame, so no rewrite of it alone gets "
        f"beyond {target.ceiling:.2f}x; {100 * target.engine_share:.0f} % of the engine, {target.engine_ceiling:.2f}x"
        + _division(target.parts)
    )
    alone = [step for step in lightening.rewrites if step.changes == (target.name,)]
    for title, steps in (
        (f"{target.name} alone", alone),
        (f"{target.name} and others", lightening.rewrites[len(alone) :]),
    ):
        if steps:
            console.print(_rewrites(title, steps, metric))
    for remark in (_smaller_input(lightening), _published(lightening)):
        if remark:
            console.print(remark, style="yellow")
    console.print(
        "ceiling: if the blocks that a change touches took no time at all. Intervals: as of two independent training "
        "runs. smaller input: the same network with the input that takes as long.",
        style="dim",
    )


def _blocks(lightening: Lightening) -> Table:
    table = plain_table(
        "\nheaviest blocks",
        "block",
        "ms",
        "of frame",
        "of engine",
        "of MACs",
        "from table",
        "ceiling",
        "engine's",
        "best step here",
    )
    for block in lightening.blocks[:SHOWN_BLOCKS]:
        table.add_row(
            block.name,
            f"{block.ms:.2f}",
            f"{100 * block.share:.0f} %",
            f"{100 * block.engine_share:.0f} %",
            f"{100 * block.macs_share:.0f} %",
            f"{100 * block.from_table:.0f} %",
            f"{block.ceiling:.2f}x",
            f"{block.engine_ceiling:.2f}x",
            f"{best[0].change}: {best[0].speedup:.2f}x" if (best := lightening.rewrites_of(block.name)) else "–",
        )
    rest = lightening.blocks[SHOWN_BLOCKS:]
    if rest:
        ms = sum(block.ms for block in rest)
        shares = (sum(getattr(block, name) for block in rest) for name in ("share", "engine_share", "macs_share"))
        table.add_row(f"{len(rest)} more", f"{ms:.2f}", *(f"{100 * share:.0f} %" for share in shares))
    overhead = lightening.overhead_ms
    table.add_row("before and after", f"{overhead:.2f}", f"{100 * overhead / lightening.frame_ms:.0f} %")
    return table


def _division(parts: dict[str, float]) -> str:
    whole = sum(parts.values())
    shares = (f"{stage.rpartition('.')[2]} {100 * ms / whole:.0f} %" for stage, ms in parts.items())
    return f" ({', '.join(shares)})" if parts else ""


def _smaller_input(lightening: Lightening) -> str:
    """Where a smaller input does better at the same frame time, in a line; empty where it does not."""
    beaten = lightening.better_by_input_size
    if not beaten:
        return ""
    worst = min(beaten, key=lambda step: step.better_than_input_size or 0.0)
    by_input = worst.ap_change_by_input_size or 0.0
    where = "inside" if by_input <= worst.ap_change.high else "above"
    return (
        f"a smaller input in the same time is predicted to do better than {len(beaten)} of these "
        f"{len(lightening.rewrites)} steps, most against {worst.change}: {by_input:+.1f} for "
        f"{worst.ap_change.mean:+.1f} AP, {where} its interval"
    )


def _published(lightening: Lightening) -> str:
    gains = " and ".join(f"+{gain.gain_ap:g} AP at {gain.flops_reduction:g}x" for gain in lightening.published)
    claim = "Light-Weight RetinaNet's abstract claims, as we read it,"
    return f"{claim} {gains} fewer FLOPs, over a smaller input of as many FLOPs" if gains else ""


def _rewrites(title: str, steps: Sequence[Rewrite], metric: str) -> Table:
    table = plain_table(
        title, "change", "saves ms", "speedup", "ceiling", f"{metric} change", "by smaller input", "heaviest then"
    )
    for rewrite in steps[:SHOWN_REWRITES]:
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
