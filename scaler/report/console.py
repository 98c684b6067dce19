"""A search result on the terminal: a table per device, the published models beside it, what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scaler.report import glyphs
from scaler.report.layouts import FrontRow, fitting_table, reference_table
from scaler.report.steps import next_steps
from scaler.report.verification import comparison, summary
from scaler.report.wording import comparable, count, latest, number, trained_on
from scaler.search.result import DeviceResult, ModelCard, SearchResult
from scaler.search.verified import Comparison

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

DEFAULT_ROWS = 24


@dataclass(frozen=True, slots=True)
class Screen:
    """A console that prints plain strings: no markup, and signs that its encoding knows."""

    console: Console

    def text(self, value: str, style: str = "") -> RenderableType:
        """A string as it can be shown here."""
        from rich.text import Text  # noqa: PLC0415

        return Text(glyphs.for_encoding(value, self.console.encoding), style=style)

    def line(self, value: str = "", style: str = "") -> None:
        """Print one paragraph, wrapped at words."""
        self.console.print(self.text(value, style))


def print_result(
    result: SearchResult, console: Console, *, folder: Path | None = None, rows: int | None = DEFAULT_ROWS
) -> None:
    """Print what a search found.

    Args:
        result: What was found.
        console: Where to; its width chooses the layout of the tables.
        folder: Where the reports were written, for the closing hints.
        rows: At most so many candidates per device, chosen around the pick; None shows all.
    """
    screen = Screen(console)
    for device in result.devices:
        _print_device(screen, result, device, rows)
    _print_model(screen, "accuracy", result.accuracy_model)
    screen.line(
        f"AP differences under {result.noise_ap:g} are noise in the source data. ± is half of the 90 % interval.",
        "dim",
    )
    screen.line(_origin(result), "dim")
    _print_hints(screen, result, folder)


def chosen_rows(device: DeviceResult, limit: int | None) -> tuple[FrontRow, ...]:
    """The rows to show: ends, pick, knee, the neighbours of the pick, then evenly spread ones."""
    ranked = tuple(FrontRow(rank, candidate) for rank, candidate in enumerate(device.front, start=1))
    if limit is None or len(ranked) <= limit:
        return ranked
    identities = [row.candidate.id for row in ranked]
    last = len(ranked) - 1
    marks = [identities.index(mark) for mark in (device.pick, device.knee) if mark in identities]
    centre = marks[0] if marks else 0
    spread = [round(index * last / max(1, limit // 2)) for index in range(limit // 2 + 1)]
    by_distance = sorted(range(len(ranked)), key=lambda index: abs(index - centre))
    wanted = dict.fromkeys([*marks, 0, last, *by_distance[:5], *spread, *by_distance])
    keep = sorted(list(wanted)[: max(limit, len(marks))])
    return tuple(ranked[index] for index in keep)


def _print_device(screen: Screen, result: SearchResult, device: DeviceResult, limit: int | None) -> None:
    provenance = device.latency_model.provenance
    screen.line(f"{device.title} · {result.metric} · latency {provenance}", "bold")
    screen.line(device.message, "green" if device.pick is not None else "yellow")
    shown = chosen_rows(device, limit)
    nearest = device.nearest
    if nearest is not None and all(candidate.id != nearest.id for candidate in device.front):
        shown = (FrontRow(None, nearest), *shown)
    if shown:
        screen.console.print(fitting_table(screen.text, screen.console, result, device, shown))
        _print_legend(screen, result, device, shown)
        _print_trained(screen, result, shown)
        if told := summary(comparisons(result, device, shown), device.target_fps):
            screen.line(f"verified: {told}", "dim")
    hidden = len(device.front) - sum(row.rank is not None for row in shown)
    if hidden > 0:
        screen.line(f"… and {hidden} more on the front (all of them in pareto.csv)", "dim")
    if device.references:
        screen.console.print(reference_table(screen.text, screen.console, device))
    _print_model(screen, f"latency of {device.device}", device.latency_model)
    screen.line()


def _print_legend(screen: Screen, result: SearchResult, device: DeviceResult, shown: tuple[FrontRow, ...]) -> None:
    used = {glyphs.PICK: device.pick is not None, glyphs.NEAREST: device.nearest is not None}
    used[glyphs.KNEE] = device.knee not in (None, device.pick)
    used[glyphs.EXTRAPOLATED] = any(not row.candidate.ap_inside_support for row in shown)
    used[glyphs.BROKEN] = any(seen.broken for seen in comparisons(result, device, shown))
    parts = [f"{sign} {glyphs.LEGEND[sign]}" for sign, is_used in used.items() if is_used]
    overheads = sorted({number(row.candidate.overhead_ms) for row in shown}, key=float)
    span = overheads[0] if len(overheads) == 1 else f"{overheads[0]}–{overheads[-1]}"
    parts.append(f"times in ms: frame = engine + {span} overhead")
    lines = [""]
    for part in parts:
        joined = f"{lines[-1]}   {part}" if lines[-1] else part
        if len(joined) <= screen.console.width:
            lines[-1] = joined
        else:
            lines.append(part)
    for line in lines:
        screen.line(line, "dim")


def comparisons(result: SearchResult, device: DeviceResult, shown: Iterable[FrontRow]) -> list[Comparison]:
    """What was measured of the rows, beside what was predicted."""
    found = (comparison(row.candidate, device, result) for row in shown)
    return [one for one in found if one is not None]


def _print_trained(screen: Screen, result: SearchResult, shown: tuple[FrontRow, ...]) -> None:
    runs = [run for row in shown if (run := latest(row.candidate, result.metric)) is not None]
    if not runs:
        return
    same = [run for run in runs if run.of(result.metric)]
    errors = [
        abs(row.candidate.ap.mean - run.value)
        for row in shown
        if (run := latest(row.candidate, result.metric)) is not None and comparable(run, row.candidate, result.metric)
    ]
    beside = f"; the predictions miss by {sum(errors) / len(errors):.1f} AP on average" if errors else ""
    other = "" if same else f": another data set than the predicted {result.metric}"
    screen.line(f"trained: measured after being {trained_on(runs)}{beside}{other}", "dim")


def _print_model(screen: Screen, subject: str, card: ModelCard) -> None:
    errors = ", ".join(f"{name} {figure}" for name, figure in card.errors.items())
    screen.line(
        f"{subject}: {card.provenance}, {card.name}, from {card.fitted_on}; "
        f"{errors or 'error unknown: nothing to validate against'}",
        "dim",
    )


def _print_hints(screen: Screen, result: SearchResult, folder: Path | None) -> None:
    steps = next_steps(result, folder)
    if not steps:
        return
    screen.line()
    screen.line("Next", "bold")
    if folder is not None:
        screen.line(f"  open {(folder / 'report.html').as_posix()} in a browser: the interactive report")
    for step in steps:
        command, remark = f"  {step.command}", f"  # {step.purpose}"
        fits = len(command + remark) <= screen.console.width
        for line in (command + remark,) if fits else (remark, command):
            screen.console.print(screen.text(line), soft_wrap=True)


def _origin(result: SearchResult) -> str:
    limits = "".join(f", {name} ≤ {count(value)}" for name, value in result.limits.items())
    return (
        f"{result.trials:,} trials ({result.distinct:,} distinct) of {result.space_size:,} candidates in "
        f"{result.space}{limits}; sampler {result.sampler}, seed {result.seed}; study in {result.study}"
    )
