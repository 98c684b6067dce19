"""The trade-off of each factor as a picture: AP against frame time, a line for each factor and one for all in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scaler.report.axes import LOGARITHMIC_FROM, Extent, style_axes
from scaler.report.labels import Label, place_labels
from scaler.report.picture import COLOURS, FAINT, INK, MUTED, write_pictures
from scaler.report.wording import number
from scaler.scaling.judge import Scaled
from scaler.scaling.ladder import stages_of
from scaler.scaling.order import TITLES
from scaler.scaling.plan import How, Plan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS: dict[How, tuple[str, str]] = {
    "compound": (COLOURS[0], "o"),
    "size": (COLOURS[1], "s"),
    "depth": (COLOURS[2], "^"),
    "width": (COLOURS[3], "D"),
    "stages": (COLOURS[5], "v"),
}
"""Colour and marker of each way of scaling."""


def write_plot(plan: Plan, path: Path) -> None:
    """Draw the plan; the suffix of the path is the format.

    Raises:
        UsageError: The suffix is none of `scaler.report.picture.SUFFIXES`.
        UserError: The file cannot be written.
    """
    write_pictures(lambda: _figure(plan), path)


def _figure(plan: Plan) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415

    curves = plan.curves()
    area = _extent(plan, curves)
    figure = Figure(figsize=(9.6, 6.2), dpi=150)
    figure.subplots_adjust(left=0.075, right=0.978, bottom=0.092, top=0.80)
    axes = figure.add_subplot()
    accuracy, estimator = plan.judge.accuracy, plan.judge.estimator
    style_axes(axes, area, f"{accuracy.dataset.upper()} {accuracy.metric}", FAINT)
    labels: list[Label] = []
    for how, line in curves.items():
        labels += _draw_line(axes, how, line, plan.base)
    labels += _draw_marks(axes, plan)
    if plan.question.fps is not None:
        _draw_target(axes, plan.question.fps, area)
    axes.legend(loc="lower right", fontsize=8.5, frameon=True, framealpha=0.94, edgecolor="#d9dee4", labelcolor=INK,
                borderpad=0.8, handletextpad=0.7, labelspacing=0.45)  # fmt: skip
    base = plan.base.config
    where = f"{estimator.device.name} ({estimator.mode.name}, {estimator.precision})"
    figure.text(0.018, 0.955, f"Scaling {TITLES[base.variant]}@{base.resolution} on {where}", fontsize=13.5,
                fontweight="bold", va="center")  # fmt: skip
    figure.text(
        0.018, 0.915, f"Predicted, latency {estimator.provenance}, accuracy {accuracy.facts.provenance}; shaded: 90 % "
        "interval of the AP of all factors in order.", fontsize=9.5, color=MUTED, va="center",
    )  # fmt: skip
    place_labels(figure, axes, labels)
    return figure


def _extent(plan: Plan, curves: Mapping[How, Sequence[Scaled]]) -> Extent:
    points = [scaled for line in curves.values() for scaled in line]
    times = [scaled.frame_ms.mean for scaled in points]
    if plan.question.fps is not None:
        times.append(1000 / plan.question.fps)
    values = [scaled.ap.mean for scaled in points]
    low, high = min(times), max(times)
    air = max(0.06 * (max(values) - min(values)), 1.0)
    factor = (high / low) ** 0.05
    return Extent(
        low / factor,
        high * factor,
        min(values) - air,
        max(values) + 1.6 * air,
        logarithmic=high / low > LOGARITHMIC_FROM,
    )


def _draw_line(axes: Axes, how: How, line: Sequence[Scaled], base: Scaled) -> list[Label]:
    colour, marker = LOOKS[how]
    compound = how == "compound"
    x, y = [scaled.frame_ms.mean for scaled in line], [scaled.ap.mean for scaled in line]
    if compound:
        axes.fill_between(x, [s.ap.low for s in line], [s.ap.high for s in line], color=colour, alpha=0.10, linewidth=0)
    axes.plot(
        x, y, color=colour, linewidth=2.2 if compound else 1.3, alpha=0.95 if compound else 0.8, marker=marker,
        markersize=4.5 if compound else 3.2, markeredgewidth=0, zorder=4 if compound else 3,
        label="all factors, in the published order" if compound else f"{how} alone",
    )  # fmt: skip
    return [
        Label(_place(how, scaled), (scaled.frame_ms.mean, scaled.ap.mean), colour, size=8.0)
        for scaled in (line[0], line[-1])
        if scaled.config != base.config
    ]


def _place(how: How, scaled: Scaled) -> str:
    """What a line has reached, in short."""
    config = scaled.config
    match how:
        case "size":
            return f"{config.resolution} px"
        case "depth":
            return f"×{config.depth:g} deep"
        case "width":
            return f"×{config.width:g} wide"
        case "stages":
            return f"{stages_of(scaled.config)} stages"
        case _:
            return caption(scaled)


def caption(scaled: Scaled) -> str:
    """A network in short: `CSP@640 ×0.67 deep ×0.75 wide`."""
    config = scaled.config
    parts = [f"{TITLES[config.variant].removeprefix('YOLOv4-')}@{config.resolution}"]
    parts += [f"×{config.depth:g} deep"] if config.depth != 1 else []
    parts += [f"×{config.width:g} wide"] if config.width != 1 else []
    return " ".join(parts)


def _draw_marks(axes: Axes, plan: Plan) -> list[Label]:
    base, chosen = plan.base, plan.chosen
    for row in plan.alone:
        if row.scaled is not None:
            axes.plot(row.scaled.frame_ms.mean, row.scaled.ap.mean, marker=LOOKS[row.how][1], markersize=8.5,
                      color=LOOKS[row.how][0], markeredgecolor="white", markeredgewidth=1.0, linestyle="none",
                      zorder=6)  # fmt: skip
    axes.plot(base.frame_ms.mean, base.ap.mean, marker="o", markersize=8, color="white", markeredgecolor=INK,
              markeredgewidth=1.6, linestyle="none", zorder=7, label="base")  # fmt: skip
    axes.plot(chosen.frame_ms.mean, chosen.ap.mean, marker="*", markersize=17, color=LOOKS["compound"][0],
              markeredgecolor="white", markeredgewidth=1.1, linestyle="none", zorder=8, label="chosen")  # fmt: skip
    text = f"{caption(chosen)}\n{chosen.ap.mean:.1f} AP · {number(chosen.fps.mean)} FPS"
    return [
        Label(text, (chosen.frame_ms.mean, chosen.ap.mean), LOOKS["compound"][0], size=9.0, bold=True, must=True),
        Label(caption(base), (base.frame_ms.mean, base.ap.mean), INK, size=9.0, must=True),
    ]


def _draw_target(axes: Axes, fps: float, area: Extent) -> None:
    frame = 1000 / fps
    axes.axvspan(area.left, frame, color="#009E73", alpha=0.05, linewidth=0, zorder=0)
    axes.axvline(frame, color=INK, linewidth=1.1, linestyle=(0, (5, 3)), zorder=1)
    axes.annotate(
        f"{fps:g} FPS or more", (frame, 0.985), xycoords=("data", "axes fraction"), xytext=(-6, 0),
        textcoords="offset points", va="top", ha="right", fontsize=8.5, color=INK,
    )  # fmt: skip
