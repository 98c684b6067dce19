"""The tables of the terminal, each in several layouts from rich to narrow; the first that fits is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaler.report import glyphs
from scaler.report.verification import comparison, kind
from scaler.report.wording import (
    ABSENT,
    Column,
    columns,
    comparable,
    count,
    frame_ms,
    half_width,
    label_parts,
    latest,
    number,
    parameters,
    percent,
    reaches,
)
from scaler.search.result import Candidate, DeviceResult, Interval, SearchResult

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

Texts = Callable[[str], "RenderableType"]
Figure = Callable[[Interval, Callable[[float], str]], str]
"""How an interval is written in a layout."""


@dataclass(frozen=True, slots=True)
class FrontRow:
    """A candidate and its place on the front (1 = fastest); no place for the nearest one beside the front."""

    rank: int | None
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a table: header and the text of a row."""

    header: str
    text: Callable[[FrontRow], str]
    right: bool = True
    fold: bool = False


def fitting_table(
    text: Texts, console: Console, result: SearchResult, device: DeviceResult, rows: tuple[FrontRow, ...]
) -> Table:
    """The front of a device in the richest layout that the width of the console allows."""
    layouts = (_wide(result, device, rows), _medium(result, device, rows), _narrow(result, device, rows))
    for fields, gap in zip(layouts[:-1], (2, 1), strict=True):
        table = _table(text, device, rows, fields, gap)
        if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
            return table
    return _table(text, device, rows, layouts[-1], gap=1)


def reference_table(text: Texts, console: Console, device: DeviceResult) -> Table:
    """Published models beside what is predicted for them."""
    table = _frame(2 if console.width >= 100 else 1)
    spaced = "" if console.width < 100 else "published "
    table.add_column(text("published model"), overflow="fold")
    for header in (f"{spaced}AP", "predicted", "Δ AP", f"{spaced}FPS", "predicted", "Δ FPS"):
        table.add_column(text(header), justify="right", no_wrap=True)
    for reference in device.references:
        ap, fps, published = reference.predicted_ap, reference.predicted_fps, reference.published_fps
        deviation = ABSENT if published is None else f"{100 * (fps.mean / published - 1):+.1f} %"
        table.add_row(
            text(reference.name),
            text(f"{reference.published_ap:.2f}"),
            text(_plus_minus(ap, "{:.1f}".format)),
            text(f"{ap.mean - reference.published_ap:+.2f}"),
            text(ABSENT if published is None else f"{published:.2f}"),
            text(_plus_minus(fps, number)),
            text(deviation),
        )
    sources = "; ".join(dict.fromkeys(reference.source for reference in device.references))
    table.caption = text(f"Published: {sources}.")  # type: ignore[assignment]
    return table


def _wide(result: SearchResult, device: DeviceResult, rows: tuple[FrontRow, ...]) -> tuple[Field, ...]:
    return (
        *_places(device),
        *_parameters(rows),
        Field(_ap_title(result), lambda row: _extrapolated(row, _range(row.candidate.ap, "{:.1f}".format))),
        *_loss(rows, _range),
        *_measured(result, rows),
        Field("frame ms", lambda row: number(frame_ms(row.candidate).mean)),
        Field("engine ms", lambda row: number(row.candidate.engine_ms.mean)),
        Field("FPS", lambda row: _range(row.candidate.fps, number)),
        *_verified(result, device, rows),
        *_energy(rows, _range),
        *_closing(device),
    )


def _medium(result: SearchResult, device: DeviceResult, rows: tuple[FrontRow, ...]) -> tuple[Field, ...]:
    return (
        *_places(device),
        *_parameters(rows, short=True),
        Field(_ap_title(result), lambda row: _extrapolated(row, _plus_minus(row.candidate.ap, "{:.1f}".format))),
        *_loss(rows, _plus_minus),
        *_measured(result, rows),
        Field("frame", lambda row: number(frame_ms(row.candidate).mean)),
        Field("engine", lambda row: number(row.candidate.engine_ms.mean)),
        Field("FPS", lambda row: _plus_minus(row.candidate.fps, number)),
        *_verified(result, device, rows),
        *_energy(rows, _plus_minus),
        *_closing(device),
    )


def _narrow(result: SearchResult, device: DeviceResult, rows: tuple[FrontRow, ...]) -> tuple[Field, ...]:
    """Two lines a row: the figure above, its interval or its part below."""
    return (
        *_places(device),
        Field("network", lambda row: _two_lines(row.candidate), right=False, fold=True),
        Field(_ap_title(result), lambda row: _extrapolated(row, _stacked(row.candidate.ap, "{:.1f}".format))),
        *_loss(rows, _stacked),
        *_measured(result, rows),
        Field("frame\nengine", _frame_over_engine),
        Field("FPS", lambda row: _stacked(row.candidate.fps, number)),
        *_verified(result, device, rows),
        *_energy(rows, _stacked),
        *_closing(device),
    )


def _measured(result: SearchResult, rows: tuple[FrontRow, ...]) -> tuple[Field, ...]:
    """What training brought, where a row was trained; named where it is another figure than the predicted one."""

    def text(row: FrontRow) -> str:
        run = latest(row.candidate, result.metric)
        if run is None:
            return ""
        if not run.of(result.metric):
            return f"{run.value:.1f}\n({run.dataset})"
        return f"{run.value:.1f}" if comparable(run, row.candidate, result.metric) else f"{run.value:.1f}\n(float)"

    return (Field("trained", text),) if any(row.candidate.trained for row in rows) else ()


def _loss(rows: tuple[FrontRow, ...], figure: Figure) -> tuple[Field, ...]:
    """What 8-bit integers are predicted to cost, where a row has them."""

    def text(row: FrontRow) -> str:
        return "" if row.candidate.ap_loss is None else figure(row.candidate.ap_loss, "{:.1f}".format)

    return (Field("INT8 loss", text),) if any(row.candidate.ap_loss for row in rows) else ()


def _energy(rows: tuple[FrontRow, ...], figure: Figure) -> tuple[Field, ...]:
    """The energy of a frame, where the device's table tells it."""

    def text(row: FrontRow) -> str:
        return ABSENT if row.candidate.energy_mj is None else figure(row.candidate.energy_mj, number)

    return (Field("mJ", text),) if any(row.candidate.energy_mj for row in rows) else ()


def _verified(result: SearchResult, device: DeviceResult, rows: tuple[FrontRow, ...]) -> tuple[Field, ...]:
    """The frame rate on the device, where a row was measured there; marked where the target was missed."""

    def text(row: FrontRow) -> str:
        seen = comparison(row.candidate, device, result)
        if seen is None:
            return ""
        of = f"\n({kind(seen)})" if len(kinds) > 1 else ""
        return f"{glyphs.BROKEN if seen.broken else ''}{number(seen.measured_fps)}{of}"

    found = (comparison(row.candidate, device, result) for row in rows)
    kinds = {kind(seen) for seen in found if seen is not None}
    return (Field("verified", text),) if kinds else ()


def _places(device: DeviceResult) -> tuple[Field, ...]:
    return (
        Field("", lambda row: _mark(device, row.candidate), right=False),
        Field("#", lambda row: ABSENT if row.rank is None else str(row.rank)),
        Field("id", lambda row: row.candidate.id, right=False),
    )


def _parameters(rows: tuple[FrontRow, ...], *, short: bool = False) -> tuple[Field, ...]:
    def field(column: Column) -> Field:
        numeric = all(isinstance(column.order(parameters(row.candidate)), float | None) for row in rows)
        title = column.short if short else column.title
        return Field(title, lambda row: column.text(parameters(row.candidate)), right=numeric)

    return tuple(field(column) for column in columns(parameters(row.candidate) for row in rows))


def _closing(device: DeviceResult) -> tuple[Field, ...]:
    params = Field("params", lambda row: count(row.candidate.parameters))
    if device.target_fps is None:
        return (params,)
    return (Field(f"P(≥{device.target_fps:g})", lambda row: percent(row.candidate.reach_probability)), params)


def _mark(device: DeviceResult, candidate: Candidate) -> str:
    if candidate.id == device.pick:
        return glyphs.PICK
    if device.nearest is not None and candidate.id == device.nearest.id:
        return glyphs.NEAREST
    return glyphs.KNEE if candidate.id == device.knee else ""


def _ap_title(result: SearchResult) -> str:
    return result.metric.rpartition(" ")[2]


def _extrapolated(row: FrontRow, figure: str) -> str:
    if row.candidate.ap_inside_support:
        return figure
    return glyphs.EXTRAPOLATED + figure


def _two_lines(candidate: Candidate) -> str:
    head, tail = label_parts(parameters(candidate))
    return "\n".join(" ".join(words) for words in (head, tail) if words)


def _range(interval: Interval, digits: Callable[[float], str]) -> str:
    return f"{digits(interval.mean)} ({digits(interval.low)}–{digits(interval.high)})"


def _plus_minus(interval: Interval, digits: Callable[[float], str]) -> str:
    return f"{digits(interval.mean)} ±{_short(half_width(interval))}"


def _stacked(interval: Interval, digits: Callable[[float], str]) -> str:
    return f"{digits(interval.mean)}\n±{_short(half_width(interval))}"


def _short(half: float) -> str:
    return f"{half:.0f}" if half >= 9.95 else f"{half:.1f}"


def _frame_over_engine(row: FrontRow) -> str:
    return f"{number(frame_ms(row.candidate).mean)}\n{number(row.candidate.engine_ms.mean)}"


def _table(text: Texts, device: DeviceResult, rows: tuple[FrontRow, ...], fields: tuple[Field, ...], gap: int) -> Table:
    table = _frame(gap)
    for field in fields:
        table.add_column(
            text(field.header),
            justify="right" if field.right else "left",
            no_wrap=not field.fold,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(text(field.text(row)) for field in fields), style=_style(device, row.candidate))
    return table


def _style(device: DeviceResult, candidate: Candidate) -> str:
    if candidate.id == device.pick:
        return "bold green"
    if device.nearest is not None and candidate.id == device.nearest.id:
        return "bold yellow"
    return "dim" if device.pick is not None and not reaches(candidate, device) else ""


def _frame(gap: int) -> Table:
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    return Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, gap - 1),
        pad_edge=False,
        caption_justify="left",
        header_style="bold",
    )
