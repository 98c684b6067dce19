"""Lighter blocks against a smaller input as a picture: `scaler show --lighten --plot`, `scaler accuracy plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaler.models.detectors.retinanet import RetinaNetConfig
from scaler.report.labels import Label, place_labels
from scaler.report.picture import COLOURS, FAINT, INK, MUTED, write_pictures
from scaler.search.explain import Explanation
from scaler.search.lighten import Lightening, Rewrite
from scaler.search.tradeoff import FULL_SIZE, PublishedTradeoff, published_tradeoff

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INPUT, LIGHTER, OTHER = COLOURS[0], COLOURS[1], COLOURS[2]
LABELLED = 10
"""Rewrites that are named in the picture."""

_NAMES = {"resnet-50": "ResNet50", "resnet-101": "ResNet101"}
_PUBLISHED_TITLE = "RetinaNet: a smaller input against lighter heads, as published"
_PUBLISHED_NOTE = (
    "COCO test-dev at shorter sides of 400 to 800 pixels (Focal Loss, Table 1e). Diamonds: Light-Weight RetinaNet's\n"
    "gains as we read its abstract, over a smaller input at equal FLOPs. No AP of the released head is published."
)
_PREDICTED_NOTE = (
    "Predicted. Line: the same network with a smaller input. Bars: 90 % intervals of the change, as of two\n"
    "independent training runs. Dashed: the frame time if the heaviest block took none."
)


def draw_explanation(explanation: Explanation, *paths: Path) -> None:
    """Draw what lighter blocks and a smaller input cost a candidate in accuracy; the suffix is the format.

    A RetinaNet has Light-Weight RetinaNet's published trade-off beside it.

    Raises:
        UsageError: The suffix is none that can be drawn.
        ValueError: The explanation is without lighter blocks: it was not asked for them.
    """
    lightening = explanation.lightening
    if lightening is None:
        raise ValueError("nothing was lightened")
    title = f"{explanation.network.config.name} on {explanation.device}"
    draw = _both if isinstance(explanation.network.config, RetinaNetConfig) else _one
    write_pictures(lambda: draw(lightening, title, explanation.metric), *paths)


def write_published(*paths: Path) -> None:
    """Draw Light-Weight RetinaNet's published trade-off alone."""
    write_pictures(_published_alone, *paths)


def _published_alone() -> Figure:
    figure = _figure(8.4)
    axes = _panel(figure, 0.0, 1.0, _PUBLISHED_TITLE, _PUBLISHED_NOTE)
    place_labels(figure, axes, _draw_published(axes, published_tradeoff()))
    return figure


def _one(lightening: Lightening, title: str, metric: str) -> Figure:
    figure = _figure(8.4)
    axes = _panel(figure, 0.0, 1.0, title, _PREDICTED_NOTE)
    place_labels(figure, axes, _draw_predicted(axes, lightening, metric))
    return figure


def _both(lightening: Lightening, title: str, metric: str) -> Figure:
    figure = _figure(15.6)
    left = _panel(figure, 0.0, 0.5, title, _PREDICTED_NOTE)
    right = _panel(figure, 0.5, 0.5, _PUBLISHED_TITLE, _PUBLISHED_NOTE)
    place_labels(figure, left, _draw_predicted(left, lightening, metric))
    place_labels(figure, right, _draw_published(right, published_tradeoff()))
    return figure


def _figure(width: float) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415

    return Figure(figsize=(width, 6.0), dpi=150)


def _panel(figure: Figure, left: float, share: float, title: str, note: str) -> Axes:
    """Axes under their title and a note, in a share of the figure's width."""
    at = left + 0.016 * share
    figure.text(at, 0.955, title, fontsize=12.5, fontweight="bold", va="center")
    figure.text(at, 0.928, note, fontsize=8.5, color=MUTED, va="top", linespacing=1.35)
    return figure.add_axes((left + 0.085 * share, 0.105, 0.885 * share, 0.745))


def _style(axes: Axes, horizontal: str, vertical: str) -> None:
    axes.set_xlabel(horizontal, labelpad=6)
    axes.set_ylabel(vertical, labelpad=6)
    axes.grid(visible=True, color=FAINT, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["right", "top"]].set_visible(False)
    axes.tick_params(length=3, color=FAINT)


def _draw_published(axes: Axes, tradeoff: PublishedTradeoff) -> list[Label]:
    _style(axes, f"FLOPs, relative to RetinaNet-ResNet50 at {FULL_SIZE} pixels", "COCO AP, test-dev")
    labels = []
    for curve, colour in zip(tradeoff.curves, (INPUT, OTHER), strict=True):
        x = np.linspace(curve.points[0].flops, curve.points[-1].flops, 200)
        fit = curve.fit
        formula = f"{fit.top:.1f} - {fit.drop:.1f} exp(-{fit.rate:.2f} f), off by {fit.rms:.2f} AP"
        axes.plot(x, curve.ap(x), color=colour, linewidth=1.5, alpha=0.8, zorder=2, marker="o", markersize=6,
                  markeredgecolor="white", markevery=[], label=f"{_NAMES[curve.backbone]}: {formula}")  # fmt: skip
        axes.plot([p.flops for p in curve.points], [p.ap for p in curve.points], marker="o", markersize=6,
                  color=colour, markeredgecolor="white", linestyle="none", zorder=4)  # fmt: skip
        labels += [Label(f"{p.size}", (p.flops, p.ap), colour, size=8.5) for p in curve.points]
    for statement in tradeoff.statements:
        point = (statement.flops, statement.ap)
        axes.plot(*point, marker="D", markersize=7.5, color="white", markeredgecolor=LIGHTER, markeredgewidth=1.6,
                  linestyle="none", zorder=5)  # fmt: skip
        text = f"+{statement.gain:g} at {statement.reduction:g}x fewer"
        labels.append(Label(text, point, LIGHTER, size=9.0, bold=True, must=True))
    _mark(axes, tradeoff.released, f"released head, {1 / tradeoff.released:.2f}x fewer")
    axes.set_xlim(left=0)
    axes.margins(y=0.1)
    axes.legend(loc="lower right", fontsize=8.5, frameon=True, framealpha=0.94, edgecolor="#d9dee4", labelcolor=INK,
                title="f: FLOPs, relative to the network's own at 800 pixels", title_fontsize=8.0)  # fmt: skip
    return labels


def _mark(axes: Axes, x: float, text: str) -> None:
    """A dashed line with its meaning along it."""
    axes.axvline(x, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    axes.annotate(text, (x, 0.02), xycoords=("data", "axes fraction"), xytext=(-3, 0), textcoords="offset points",
                  rotation=90, ha="right", va="bottom", fontsize=7.5, color=MUTED)  # fmt: skip


def _draw_predicted(axes: Axes, lightening: Lightening, metric: str) -> list[Label]:
    _style(axes, "frame time in ms", metric)
    here, target = lightening.here, lightening.target
    edge = here.frame_ms / (target.ceiling if target else 1.0)
    left = 0.94 * min(edge, *(here.frame_ms - step.saved_ms for step in lightening.rewrites), here.frame_ms)
    beyond = sum(point.frame_ms < left for point in lightening.input_sizes)
    sizes = lightening.input_sizes[max(beyond - 1, 0) :]
    axes.plot([p.frame_ms for p in sizes], [p.ap for p in sizes], color=INPUT, linewidth=1.4, marker="o",
              markersize=4.5, markeredgecolor="white", zorder=3)  # fmt: skip
    labels = [Label(p.label, (p.frame_ms, p.ap), INPUT, size=8.0, leader=False)
              for p in sizes[:-1] if p.frame_ms >= left]  # fmt: skip
    for place, rewrite in enumerate(lightening.rewrites):
        x, y = here.frame_ms - rewrite.saved_ms, rewrite.ap.mean
        axes.vlines(x, *_ends(rewrite), color=LIGHTER, linewidth=1.0, alpha=0.35, zorder=2)
        axes.plot(x, y, marker="D", markersize=5.5, color=LIGHTER, markeredgecolor="white", zorder=4)
        if place < LABELLED:
            labels.append(Label(_short(rewrite.change), (x, y), LIGHTER, size=8.0))
    axes.plot(here.frame_ms, here.ap, marker="*", markersize=16, color=INK, markeredgecolor="white", zorder=6)
    labels.append(Label("this candidate", (here.frame_ms, here.ap), INK, size=9.0, bold=True, must=True))
    if target is not None:
        _mark(axes, edge, f"without {target.name}")
    axes.set_xlim(left, here.frame_ms + 0.12 * (here.frame_ms - left))
    shown = [p.ap for p in sizes if p.frame_ms >= left]
    shown += [end for step in lightening.rewrites for end in _ends(step)]
    air = 0.1 * max(max(shown) - min(shown), 1.0)
    axes.set_ylim(min(shown) - air, max(shown) + air)
    return labels


def _ends(rewrite: Rewrite) -> tuple[float, float]:
    """AP at the ends of the interval of its change."""
    half = (rewrite.ap_change.high - rewrite.ap_change.low) / 2
    return rewrite.ap.mean - half, rewrite.ap.mean + half


def _short(change: str) -> str:
    """The new values of a change: `width 0.5` of `width 0.75 -> 0.5`."""
    return ", ".join(f"{part.split(' ')[0]} {part.rpartition(' -> ')[2]}" for part in change.split(", "))
