"""A scaling plan on the terminal: the table, in one piece or two, and why the factors moved in this order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaler.report import glyphs
from scaler.report.console import Screen
from scaler.report.wording import ABSENT, half_width, number
from scaler.scaling.judge import Scaled
from scaler.scaling.ladder import stages_of
from scaler.scaling.order import TITLES
from scaler.scaling.plan import Plan
from scaler.search.cards import latency_card
from scaler.search.result import Interval

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Column:
    """One column: header and the text of a network."""

    header: str
    text: Callable[[Scaled], str]
    right: bool = True


def one_digit(value: float) -> str:
    """`45.5`."""
    return f"{value:.1f}"


NETWORK = (
    Column("network", lambda s: TITLES[s.config.variant].removeprefix("YOLOv4-"), right=False),
    Column("size", lambda s: str(s.config.resolution)),
    Column("stages", lambda s: str(stages_of(s.config))),
    Column("depth", lambda s: f"{s.config.depth:.2f}"),
    Column("width", lambda s: f"{s.config.width:.2f}"),
)
COST = (
    Column("MACs", lambda s: f"×{s.factor:.2f}"),
    Column("GFLOPs", lambda s: number(s.cost.flops / 1e9)),
    Column("params M", lambda s: number(s.cost.params / 1e6)),
    Column("access M", lambda s: f"{s.cost.memory_access / 1e6:.0f}"),
    Column("CIO M", lambda s: f"{s.cost.conv_io / 1e6:.0f}"),
)
EXACT = (
    Column("frame ms", lambda s: _range(s.frame_ms, number)),
    Column("FPS", lambda s: number(s.fps.mean)),
    Column("AP", lambda s: _dagger(s) + _range(s.ap, one_digit)),
)
BRIEF = (
    Column("frame ms", lambda s: _plus_minus(s.frame_ms)),
    Column("FPS", lambda s: number(s.fps.mean)),
    Column("AP", lambda s: _dagger(s) + _plus_minus(s.ap)),
)


def print_plan(plan: Plan, console: Console) -> None:
    """Print a plan; the width of the console chooses the layout."""
    screen = Screen(console)
    for line, style in zip(_title(plan), ("bold", ""), strict=True):
        screen.line(line, style)
    for table in _fitting(plan, screen):
        console.print(table)
    for row in plan.alone:
        if row.remark:
            screen.line(f"{row.how} alone: {row.remark}", "yellow")
    for remark in plan.remarks:
        screen.line(remark, "yellow")
    _print_order(plan, screen)
    screen.line()
    screen.line("Next", "bold")
    screen.line("  # every combination of the factors, not only this order")
    console.print(screen.text(f"  {_search(plan)}"), soft_wrap=True)
    _print_origin(plan, screen)


def _title(plan: Plan) -> tuple[str, str]:
    question, estimator = plan.question, plan.judge.estimator
    where = f"{estimator.device.name} ({estimator.mode.name}, {estimator.precision})"
    wish = f"×{question.factor:g} of its MACs" if question.fps is None else f"{question.fps:g} FPS"
    base, chosen = plan.base.config, plan.chosen
    verb = "stays" if base == chosen.config else "becomes"
    return (
        f"{TITLES[base.variant]} at {base.resolution} px to {wish} on {where} · latency {estimator.provenance}",
        f"{base.name} {verb} {chosen.config.name}: ×{chosen.factor:.2f} of the MACs, {number(chosen.fps.mean)} FPS, "
        f"{_metric(plan)} {chosen.ap.mean:.1f}",
    )


def _metric(plan: Plan) -> str:
    accuracy = plan.judge.accuracy
    return f"{accuracy.dataset.upper()} {accuracy.metric}"


def _fitting(plan: Plan, screen: Screen) -> list[Table]:
    """One table with whole intervals, one with half widths, or two: the first that the console holds."""
    for columns, gap in (((*NETWORK, *COST, *EXACT), 2), ((*NETWORK, *COST, *BRIEF), 1)):
        table = _table(plan, screen, columns, gap)
        console = screen.console
        if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
            return [table]
    return [_table(plan, screen, (*NETWORK, *COST[:1], *BRIEF), 1), _table(plan, screen, COST[1:], 2)]


def _table(plan: Plan, screen: Screen, columns: tuple[Column, ...], gap: int) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, gap - 1), pad_edge=False, header_style="bold")
    table.add_column(screen.text("moved"), no_wrap=True)
    for column in columns:
        table.add_column(screen.text(column.header), justify="right" if column.right else "left", no_wrap=True)
    named: list[tuple[str, Scaled | None, str]] = [("base", plan.base, "dim")]
    named.append((f"in order {glyphs.PICK}", plan.chosen, "bold green"))
    named += [(f"{row.how} alone", row.scaled, "") for row in plan.alone]
    for name, scaled, style in named:
        cells = [ABSENT if scaled is None else column.text(scaled) for column in columns]
        table.add_row(screen.text(name), *map(screen.text, cells), style=style)
    return table


def _print_order(plan: Plan, screen: Screen) -> None:
    steps = plan.moves()
    if not steps:
        return
    screen.line()
    screen.line("Order of the factors (Scaled-YOLOv4, sections 3.2, 3.3 and 4)", "bold")
    for place, move in enumerate(steps, start=1):
        screen.line(f"{place}. {move.phase}: {move.change}")
        screen.line(f"   {move.reason}", "dim")


def _search(plan: Plan) -> str:
    """The search that answers the same question."""
    question, chosen = plan.question, plan.chosen
    budget = f"--max-macs {math.ceil(chosen.cost.macs / 1e8) / 10:g}e9"
    limit = budget if question.fps is None else f"--fps {question.fps:g}"
    return f"scaler search --space scaled-yolov4 --device {plan.judge.estimator.device.id} {limit}"


def _print_origin(plan: Plan, screen: Screen) -> None:
    card, facts = latency_card(plan.judge.estimator), plan.judge.accuracy.facts
    screen.line()
    for subject, one in (("latency", card), ("accuracy", facts)):
        errors = ", ".join(f"{name} {figure}" for name, figure in one.errors.items())
        screen.line(f"{subject}: {one.provenance}, {one.name}, from {one.fitted_on}; {errors}", "dim")
    shown = [plan.base, plan.chosen, *(row.scaled for row in plan.alone if row.scaled is not None)]
    if any(scaled.ap_outside for scaled in shown):
        screen.line(f"{glyphs.EXTRAPOLATED} {glyphs.LEGEND[glyphs.EXTRAPOLATED]}: no such network was published", "dim")
    for scaled in shown:
        if scaled.latency_doubt:
            screen.line(f"{scaled.config.name}: its time is an estimate: {scaled.latency_doubt}", "dim")
    accuracy = plan.judge.accuracy
    screen.line(
        f"AP: {_metric(plan)} by the training recipe {accuracy.recipe!r}, pictures {accuracy.evaluation}. Frame: "
        "engine and overhead, square pictures. MACs: times the base's. Access: memory access cost in elements, "
        "weights included; CIO: without them. Intervals are of 90 %.",
        "dim",
    )


def _dagger(scaled: Scaled) -> str:
    return glyphs.EXTRAPOLATED if scaled.ap_outside else ""


def _range(interval: Interval, digits: Callable[[float], str]) -> str:
    return f"{digits(interval.mean)} ({digits(interval.low)}–{digits(interval.high)})"


def _plus_minus(interval: Interval) -> str:
    half = half_width(interval)
    return f"{number(interval.mean)} ±{half:.0f}" if half >= 9.95 else f"{number(interval.mean)} ±{half:.1f}"
