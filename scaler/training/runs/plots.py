"""The curves of a run as pictures: losses and learning rate, AP, precision against recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from scaler.data.dataset import FloatArray
from scaler.report.picture import COLOURS, FAINT, INK, MUTED, write_pictures
from scaler.training.runs.logs import Row

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place: TypeAlias = Literal["best", "lower right", "lower left"]

PARTS = {"loss": INK, "box": COLOURS[0], "objectness": COLOURS[1], "classes": COLOURS[2], "adversarial": COLOURS[3]}
"""Lines of the picture of losses by colour."""

_SPREAD = 30.0  # a total that falls by more is drawn on a logarithmic axis
_FEW = 40  # up to so many epochs every one has a dot
_LISTED = 12  # classes that a legend names


def write_loss(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw the total, its parts, and the learning rate below, by epoch.

    Raises:
        UserError: The file cannot be written.
    """
    write_pictures(lambda: _loss(rows, title), path)


def write_ap(rows: Sequence[Row], title: str, path: Path) -> None:
    """Draw AP and AP50 of the validation pictures by epoch, the best of each marked.

    Raises:
        UserError: The file cannot be written.
    """
    write_pictures(lambda: _ap(rows, title), path)


def write_precision_recall(
    curves: Mapping[str, tuple[FloatArray, FloatArray]], ap50: Mapping[str, float], title: str, path: Path
) -> None:
    """Draw precision against recall at IoU 0.5, a line a class.

    Args:
        curves: Recall and precision, 0 to 1, by class.
        ap50: By class, 0 to 100.
        title: What was evaluated.
        path: The picture.

    Raises:
        UserError: The file cannot be written.
    """
    write_pictures(lambda: _precision_recall(curves, ap50, title), path)


def _loss(rows: Sequence[Row], title: str) -> Figure:
    figure = _figure(title, "training loss, its weighted parts and the learning rate, means by epoch")
    upper, lower = figure.subplots(
        2, 1, sharex=True, gridspec_kw={"height_ratios": [4, 1], "hspace": 0.09, **_EDGES}
    )  # fmt: skip
    epochs = [row.epoch for row in rows]
    shown = [name for name in PARTS if any(getattr(row, name) for row in rows)]  # what the recipe has
    for name in shown:
        values = [getattr(row, name) for row in rows]
        total = name == "loss"
        upper.plot(epochs, values, color=PARTS[name], linewidth=2.2 if total else 1.5, marker=_marker(rows),
                   markersize=3.5, label="total" if total else name, zorder=4 if total else 3)  # fmt: skip
    totals = [row.loss for row in rows if row.loss > 0]
    if totals and max(totals) / min(totals) > _SPREAD:
        upper.set_yscale("log")
    else:
        upper.set_ylim(bottom=0)
    lower.plot(epochs, [row.lr for row in rows], color=MUTED, linewidth=1.5, marker=_marker(rows), markersize=3)
    lower.set_ylim(bottom=0)
    highest = max((row.lr for row in rows), default=0.0)
    lower.set_yticks([0, highest], ["0", f"{highest:.1e}".replace("e-0", "e-")])
    for axes in (upper, lower):
        _style(axes)
    upper.tick_params(axis="x", length=0)
    upper.set_ylabel("loss")
    lower.set_ylabel("lr")
    for axes in (upper, lower):
        axes.yaxis.set_label_coords(-0.062, 0.5)
    _epochs(lower, rows)
    _stages(upper, rows)
    _stages(lower, rows, named=False)
    if shown:
        _legend(upper, "best")
    return figure


def _ap(rows: Sequence[Row], title: str) -> Figure:
    figure = _figure(title, "on the validation pictures")
    axes = figure.subplots(gridspec_kw=_EDGES)
    for name, label, colour in (("ap50", "AP50", COLOURS[0]), ("ap", "AP, IoU 0.50 to 0.95", COLOURS[1])):
        points = [(row.epoch, value) for row in rows if (value := getattr(row, name)) is not None]
        if not points:
            continue
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.8, marker=_marker(points), markersize=4,
                  label=label, zorder=3)  # fmt: skip
        epoch, best = max(points, key=lambda point: point[1])
        axes.plot(epoch, best, marker="*", markersize=15, color=colour, markeredgecolor="white", linestyle="none",
                  zorder=5)  # fmt: skip
        late = epoch > 0.9 * rows[-1].epoch
        axes.annotate(f"{best:.1f}", (epoch, best), xytext=(0, 9), textcoords="offset points", color=colour,
                      fontweight="bold", ha="right" if late else "center", zorder=6)  # fmt: skip
    axes.set_ylim(0, 104)
    axes.set_yticks(range(0, 101, 20))
    _style(axes)
    axes.set_ylabel("AP", labelpad=7)
    _epochs(axes, rows)
    _stages(axes, rows)
    if axes.lines:
        _legend(axes, "lower right")
    return figure


def _precision_recall(
    curves: Mapping[str, tuple[FloatArray, FloatArray]], ap50: Mapping[str, float], title: str
) -> Figure:
    figure = _figure(title, "precision against recall at IoU 0.5, by class", figsize=(7.2, 6.4))
    axes = figure.subplots(gridspec_kw={**_EDGES, "left": 0.1, "right": 0.965, "top": 0.86})
    order = sorted(curves, key=lambda name: -ap50.get(name, 0.0))
    many = len(order) > _LISTED
    for index, name in enumerate(order):
        recall, precision = curves[name]
        colour, dash = COLOURS[index % len(COLOURS)], _DASHES[index // len(COLOURS) % len(_DASHES)]
        axes.plot(recall, precision, color=FAINT if many else colour, linestyle="-" if many else dash,
                  alpha=0.6 if many else 1, linewidth=0.9 if many else 1.8, zorder=3,
                  label=f"{name}  {ap50.get(name, 0.0):.1f}")  # fmt: skip
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.02)
    _style(axes)
    axes.set_xlabel("recall: share of the objects that are found", labelpad=7)
    axes.set_ylabel("precision: share of the detections that are right", labelpad=7)
    if many:  # the best and the worst, which are what one looks for
        for rank, colour in ((0, COLOURS[2]), (len(order) - 1, COLOURS[1])):
            axes.lines[rank].set(color=colour, alpha=1, linewidth=2, zorder=4)
        _legend(axes, "lower left", "best and worst AP50", [axes.lines[0], axes.lines[-1]])
    elif order:
        _legend(axes, "lower left", "AP50")
    return figure


_EDGES = {"left": 0.085, "right": 0.975, "bottom": 0.1, "top": 0.84}
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))


def _figure(title: str, subtitle: str, figsize: tuple[float, float] = (9.6, 5.6)) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=figsize, dpi=150)
    height = figsize[1]
    figure.text(0.018, 1 - 0.27 / height, title, fontsize=13.5, fontweight="bold", va="center")
    figure.text(0.018, 1 - 0.53 / height, subtitle, fontsize=9.5, color=MUTED, va="center")
    return figure


def _style(axes: Axes) -> None:
    axes.grid(visible=True, color=FAINT, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["right", "top"]].set_visible(False)
    axes.tick_params(length=3, color=FAINT)


def _legend(axes: Axes, place: Place, title: str | None = None, handles: Sequence[Artist] | None = None) -> None:
    shown = axes.get_legend_handles_labels()[0] if handles is None else list(handles)
    legend = axes.legend(
        handles=shown, loc=place, fontsize=8.5, frameon=True, framealpha=0.94, edgecolor="#d9dee4",
        labelcolor=INK, borderpad=0.8, labelspacing=0.45, title=title, title_fontsize=8.5,
    )  # fmt: skip
    legend.set_zorder(8)


def _marker(points: Sequence[object]) -> str:
    return "o" if len(points) <= _FEW else ""


def _epochs(axes: Axes, rows: Sequence[Row]) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    last = rows[-1].epoch if rows else 1
    axes.set_xlim(0, max(last * 1.02, last + 0.1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    axes.set_xlabel("epoch", labelpad=7)


def _stages(axes: Axes, rows: Sequence[Row], *, named: bool = True) -> None:
    """A line between the stages, named above."""
    first = {row.stage: row.epoch for row in reversed(rows)}
    if len(first) < 2:
        return
    for stage, epoch in sorted(first.items()):
        if epoch > rows[0].epoch:
            axes.axvline(epoch - 0.5, color=INK, linewidth=1.0, linestyle=(0, (5, 3)), zorder=1)
        if named:
            axes.annotate(f"stage {stage}", (max(epoch - 0.5, 0), 1.0), xycoords=("data", "axes fraction"),
                          xytext=(4, 4), textcoords="offset points", fontsize=8.5, color=MUTED)  # fmt: skip
