"""What `scaler verify` and `scaler import` print: predicted beside measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from scaler.cli.options import console
from scaler.report.console import Screen
from scaler.report.verification import deviation, kind, parts, points, promise, state, summary
from scaler.report.wording import ABSENT, number
from scaler.search.result import Candidate, DeviceResult, SearchResult, Verified
from scaler.search.verified import Comparison, compared

if TYPE_CHECKING:
    from rich.table import Table

    from scaler.deploy.verify import Row

HEADINGS = (
    "candidate", "precision", "engine ms", "measured", "Δ", "FPS", "measured", "Δ", "AP", "measured", "Δ", "promise",
)  # fmt: skip
_WORDS = (0, 1, 11)
"""Columns of words; the others hold figures."""


class Pair(NamedTuple):
    """A candidate that was measured."""

    candidate: Candidate
    comparison: Comparison


def as_data(rows: Sequence[Row], result: SearchResult, device: DeviceResult) -> dict[str, Any]:
    """Everything, for `--json`."""
    return {
        "device": device.device,
        "metric": result.metric,
        "target_fps": device.target_fps,
        "candidates": [_plain(row, result) for row in rows],
    }


def _plain(row: Row, result: SearchResult) -> dict[str, Any]:
    candidate = row.candidate
    predicted = {
        "engine_ms": asdict(candidate.engine_ms),
        "fps": asdict(candidate.fps),
        "ap": asdict(candidate.ap),
        "energy_mj": None if candidate.energy_mj is None else asdict(candidate.energy_mj),
    }
    found = {"id": candidate.id, "params": candidate.params, "predicted": predicted}
    if row.measured is None:
        return {**found, "failure": row.failure}
    seen = compared(candidate, row.measured, result.metric)
    return {
        **found,
        "measured": {**asdict(row.measured), "fps": seen.measured_fps},
        "deviation": {"engine_ms": seen.engine, "fps": seen.fps, "ap": seen.accuracy, "energy_mj": seen.energy},
        "engine_inside": seen.engine_inside,
        "judged_on": "frame" if seen.whole else "engine",
        "promised": seen.promised,
        "holds": seen.holds,
        "broken": seen.broken,
        "engine_holds": seen.engine_holds,
    }


def print_rows(rows: Sequence[Row], result: SearchResult, device: DeviceResult) -> None:
    """The table, what the frames consist of, what broke, and what is doubtful."""
    measured = [(row.candidate, row.measured) for row in rows if row.measured is not None]
    print_measured(measured, result, device)
    screen = Screen(console())
    for row in rows:
        if row.failure:
            screen.line(f"{row.candidate.id}: failed: {row.failure}", "bold red")


def print_measured(measured: Sequence[tuple[Candidate, Verified]], result: SearchResult, device: DeviceResult) -> None:
    """The same of measurements alone."""
    pairs = [Pair(candidate, compared(candidate, one, result.metric)) for candidate, one in measured]
    if not pairs:
        return
    screen = Screen(console())
    screen.console.print(_table(screen, pairs))
    _closing(screen, pairs, device)
    doubts: dict[str, list[str]] = {}
    for candidate, seen in pairs:
        if told := parts(seen):
            screen.line(f"{candidate.id}: whole frame {number(seen.measured.whole_ms)} ms: {told}")
        for doubt in seen.measured.warnings:
            doubts.setdefault(doubt, []).append(candidate.id)
    for doubt, ids in doubts.items():
        screen.line(f"{'all' if len(ids) == len(pairs) > 1 else ', '.join(ids)}: {doubt}", "dim")


def _table(screen: Screen, pairs: Sequence[Pair]) -> Table:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, heading in enumerate(HEADINGS):
        table.add_column(screen.text(heading), justify="left" if place in _WORDS else "right")
    for pair in pairs:
        style = "bold red" if pair.comparison.broken else ""
        table.add_row(*map(screen.text, _cells(pair)), style=style)
    return table


def _cells(pair: Pair) -> tuple[str, ...]:
    candidate, seen = pair
    engine, ap = candidate.engine_ms, candidate.ap
    return (
        candidate.id,
        seen.measured.precision,
        f"{engine.mean:.2f} ({engine.low:.2f}–{engine.high:.2f})",
        f"{seen.measured.level_ms:.2f}",
        deviation(seen.engine),
        number(candidate.fps.mean),
        f"{number(seen.measured_fps)} ({kind(seen)})",
        deviation(seen.fps),
        f"{ap.mean:.1f} ({ap.low:.1f}–{ap.high:.1f})",
        ABSENT if seen.value is None else f"{seen.value:.1f}",
        points(seen.accuracy),
        state(seen),
    )


def _closing(screen: Screen, pairs: Sequence[Pair], device: DeviceResult) -> None:
    """How good the predictions were, which promises broke and of what, and what helps."""
    seen = [pair.comparison for pair in pairs]
    screen.line(summary(seen, device.target_fps))
    for candidate, one in pairs:
        if one.broken:
            screen.line(f"{candidate.id}: {promise(one, device.target_fps)}", "bold red")
    late = [one.measured for one in seen if one.broken and one.engine_holds and one.whole]
    if late:
        beside = max(one.whole_ms - one.parts_ms.get("network", one.engine_ms) for one in late)
        screen.line(f"search again with --overhead-ms {beside:.1f}, to leave room for the work beside the network")
