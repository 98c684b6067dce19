"""The Pareto front as a picture: PNG, SVG or PDF, drawn with matplotlib and without pyplot (0.2 s less)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scaler.errors import UserError
from scaler.report.axes import Extent, extent, published_points, style_axes
from scaler.report.labels import Label, place_labels
from scaler.report.picture import COLOURS, FAINT, INK, MUTED, check_suffix, write_pictures
from scaler.report.thinning import thinned
from scaler.report.verification import DevicePoint, device_points
from scaler.report.wording import comparable, find, label_parts, latest, minimized, number, parameters, trained_on
from scaler.search.result import Candidate, DeviceResult, SearchResult, Trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BROKEN_COLOUR = "#B3261E"


def write_plot(results: Sequence[SearchResult], *paths: Path) -> None:
    """Draw the fronts of all devices of all results in one picture; the suffix of each path is the format.

    Raises:
        UsageError: The suffix is none of `SUFFIXES`.
        UserError: No device has a candidate, or the file cannot be written.
    """
    check_suffix(*paths)
    if len({result.minimize for result in results}) > 1:
        raise UserError("one picture shows one question: these results minimise latency and energy; plot each alone")
    if not any(device.front or device.nearest for result in results for device in result.devices):
        raise UserError("nothing to draw: no device has a candidate")
    write_pictures(lambda: _figure(results), *paths)


class Measured(NamedTuple):
    """A trained candidate whose measured accuracy is of the predicted data set and metric."""

    x: float
    """Frame time in ms, or energy in mJ where the search minimised that."""
    predicted: float
    run: Trained


def measured(result: SearchResult, device: DeviceResult) -> tuple[Measured, ...]:
    """The candidates of a device to draw a second marker for."""
    shown = [*device.front, *([device.nearest] if device.nearest else [])]
    return tuple(
        Measured(minimized(result, candidate).mean, candidate.ap.mean, run)
        for candidate in shown
        if (run := latest(candidate, result.metric)) is not None and comparable(run, candidate, result.metric)
    )


def _figure(results: Sequence[SearchResult]) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415

    fronts = [(result, device) for result in results for device in result.devices]
    area = extent(fronts)
    figure = Figure(figsize=(9.6, 6.2), dpi=150)
    figure.subplots_adjust(left=0.068, right=0.978, bottom=0.092, top=0.80)
    axes = figure.add_subplot()
    energy = any(result.minimize == "energy" for result in results)
    style_axes(axes, area, _metric(results), FAINT, energy=energy)
    labels: list[Label] = []
    many = len(fronts) > 1
    for index, (result, device) in enumerate(fronts):
        labels += _draw_device(axes, result, device, COLOURS[index % len(COLOURS)], area, many=many)
        _draw_trained(axes, measured(result, device), COLOURS[index % len(COLOURS)])
        _draw_verified(axes, device_points(result, device))
    if not energy:
        _draw_targets(axes, [device for _, device in fronts], area)
    _explain(axes, fronts)
    title = _title(fronts)
    figure.text(0.018, 0.955, title, fontsize=min(13.5, 1050 / len(title)), fontweight="bold", va="center")
    figure.text(0.018, 0.915, _subtitle(results), fontsize=9.5, color=MUTED, va="center")
    place_labels(figure, axes, labels)
    return figure


def _draw_device(
    axes: Axes, result: SearchResult, device: DeviceResult, colour: str, area: Extent, *, many: bool
) -> list[Label]:
    explored = [point for point in thinned(device.explored) if area.holds(*point)]
    x, y = [point[0] for point in explored], [point[1] for point in explored]
    axes.scatter(x, y, s=5 if len(explored) < 2000 else 3, color=colour, alpha=0.16, linewidths=0, rasterized=True)
    _draw_front(axes, result, device.front, colour)
    labels = _draw_marks(axes, result, device, colour)
    published = published_points(result, device)
    for reference in published:
        point = (1000 / (reference.published_fps or 1), reference.published_ap)
        axes.plot(
            *point, marker="^", markersize=6.5, color="white", markeredgecolor=colour if many else INK,
            markeredgewidth=1.3, linestyle="none", zorder=4,
        )  # fmt: skip
        labels.append(Label(reference.name, point, MUTED, size=8.0, leader=not many))
    return labels


def _draw_front(axes: Axes, result: SearchResult, front: tuple[Candidate, ...], colour: str) -> None:
    if not front:
        return
    frames = [minimized(result, candidate) for candidate in front]
    x = [frame.mean for frame in frames]
    y = [candidate.ap.mean for candidate in front]
    axes.errorbar(
        x, y,
        xerr=[[f.mean - f.low for f in frames], [f.high - f.mean for f in frames]],
        yerr=[[c.ap.mean - c.ap.low for c in front], [c.ap.high - c.ap.mean for c in front]],
        fmt="none", ecolor=colour, elinewidth=3.0, alpha=0.25, zorder=2,
    )  # fmt: skip
    axes.step(x, y, where="post", color=colour, linewidth=1.4, alpha=0.75, zorder=3)
    axes.plot(x, y, marker="o", markersize=5, color=colour, markeredgecolor="white", markeredgewidth=0.8,
              linestyle="none", zorder=5)  # fmt: skip


def _draw_marks(axes: Axes, result: SearchResult, device: DeviceResult, colour: str) -> list[Label]:
    labels = []
    marked = find(device, device.pick) or device.nearest
    if marked is not None:
        point = (minimized(result, marked).mean, marked.ap.mean)
        picked = device.pick is not None
        axes.plot(
            *point, marker="*" if picked else ">", markersize=17 if picked else 11, color=colour,
            markeredgecolor="white", markeredgewidth=1.1, linestyle="none", zorder=7,
        )  # fmt: skip
        labels.append(Label(_caption(result, device, marked), point, colour, size=9.0, bold=True, must=True))
    knee = find(device, device.knee)
    if knee is not None and knee is not marked:
        axes.plot(minimized(result, knee).mean, knee.ap.mean, marker="D", markersize=7.5, color=colour,
                  markeredgecolor="white", markeredgewidth=0.9, linestyle="none", zorder=6)  # fmt: skip
    return labels


def _draw_trained(axes: Axes, points: Sequence[Measured], colour: str) -> None:
    """Measured accuracy as a square, tied to its prediction by a thin line."""
    for x, predicted, run in points:
        axes.plot([x, x], [predicted, run.value], color=INK, linewidth=1.0, linestyle=(0, (1, 1)), zorder=7.5)
        axes.plot(x, run.value, marker="s", markersize=6.5, color="white", markeredgecolor=colour,
                  markeredgewidth=1.9, linestyle="none", zorder=8)  # fmt: skip


def _caption(result: SearchResult, device: DeviceResult, candidate: Candidate) -> str:
    head, tail = label_parts(parameters(candidate))
    role = "" if device.pick is not None else "nearest: "
    figures = f"{role}{candidate.ap.mean:.1f} AP · {number(candidate.fps.mean)} FPS"
    if result.minimize == "energy":
        figures += f" · {number(minimized(result, candidate).mean)} mJ"
    return "\n".join(line for line in (" ".join(head), " · ".join(tail), figures) if line)


def _draw_verified(axes: Axes, points: Sequence[DevicePoint]) -> None:
    """The device's own time as a ring, as a cross where a promise broke, tied to the prediction by a thin line."""
    for point in points:
        ends = [point.predicted, point.x]
        axes.plot(ends, [point.ap] * 2, color=INK, linewidth=1.0, linestyle=(0, (1, 1)), zorder=7.5)
        marker, size, face, edge = ("X", 8.0, BROKEN_COLOUR, "white") if point.broken else ("o", 5.5, "white", INK)
        axes.plot(point.x, point.ap, marker=marker, markersize=size, color=face, markeredgecolor=edge,
                  markeredgewidth=1.2, linestyle="none", zorder=8 + point.broken)  # fmt: skip


def _draw_targets(axes: Axes, devices: Sequence[DeviceResult], area: Extent) -> None:
    for target in sorted({device.target_fps for device in devices if device.target_fps is not None}):
        frame = 1000 / target
        axes.axvspan(area.left, frame, color="#009E73", alpha=0.05, linewidth=0, zorder=0)
        axes.axvline(frame, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1)
        axes.annotate(
            f"{target:g} FPS or more", (frame, 0.985), xycoords=("data", "axes fraction"), xytext=(-6, 0),
            textcoords="offset points", va="top", ha="right", fontsize=8.5, color=INK,
        )  # fmt: skip


def _explain(axes: Axes, fronts: Sequence[tuple[SearchResult, DeviceResult]]) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415

    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], marker="o", markersize=5, markeredgecolor="white",
               label=f"{device.title}, {device.latency_model.provenance}")
        for i, (_, device) in enumerate(fronts)
    ]  # fmt: skip

    def sign(marker: str, text: str, size: float, face: str = MUTED) -> Line2D:
        return Line2D([], [], marker=marker, markersize=size, color=face, markeredgecolor=MUTED,
                      markeredgewidth=1.2, linestyle="none", label=text)  # fmt: skip

    devices = [device for _, device in fronts]
    if any(device.pick is not None for device in devices):
        handles.append(sign("*", "pick: most accurate at the target", 11))
    if any(device.pick is None and device.nearest is not None for device in devices):
        handles.append(sign(">", "nearest to the target", 7))
    if any(device.knee is not None for device in devices):
        handles.append(sign("D", "knee: best trade-off", 6))
    if any(published_points(result, device) for result, device in fronts):
        handles.append(sign("^", "published measurement", 6, "white"))
    runs = [point.run for result, device in fronts for point in measured(result, device)]
    if runs:
        handles.append(sign("s", f"measured, {trained_on(runs)}", 6, "white"))
    on_device = [point for result, device in fronts for point in device_points(result, device)]
    if any(not point.broken for point in on_device):
        handles.append(sign("o", "measured on the device", 5, "white"))
    if any(point.broken for point in on_device):
        handles.append(sign("X", "promise broken on the device", 7, BROKEN_COLOUR))
    if any(device.explored for device in devices):
        handles.append(sign(".", "explored", 5))
    axes.legend(
        handles=handles, loc="lower right", fontsize=8.5, frameon=True, framealpha=0.94, edgecolor="#d9dee4",
        labelcolor=INK, borderpad=0.8, handletextpad=0.7, labelspacing=0.45,
    )  # fmt: skip


def _metric(results: Sequence[SearchResult]) -> str:
    return " / ".join(dict.fromkeys(result.metric for result in results))


_SPACES = {"all": "all families"}


def _title(fronts: Sequence[tuple[SearchResult, DeviceResult]]) -> str:
    titles = list(dict.fromkeys(device.title for _, device in fronts))
    spaces = " and ".join(dict.fromkeys(_SPACES.get(result.space, result.space) for result, _ in fronts))
    where = titles[0] if len(titles) == 1 else f"{len(fronts)} devices"
    return f"Pareto-optimal detectors of {spaces} on {where}"


def _subtitle(results: Sequence[SearchResult]) -> str:
    noise = max(result.noise_ap for result in results)
    return f"Predicted, 90 % intervals as bars. AP differences under {noise:g} are noise in the source data."
