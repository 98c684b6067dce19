"""The axes of the Pareto picture: what part of the plane to show, and at which ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scaler.report.verification import device_points
from scaler.report.wording import comparable, minimized
from scaler.search.result import DeviceResult, Reference, SearchResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOGARITHMIC_FROM = 4.0
"""Frame times that differ by more than this factor are drawn on a logarithmic axis."""

SHOWN_AP = 40.0
"""How far below the best AP the picture reaches: nobody trains what lies below, and it would flatten the rest."""


@dataclass(frozen=True, slots=True)
class Extent:
    """The shown part of the plane: frame time in ms, or energy of a frame in mJ, and AP."""

    left: float
    right: float
    bottom: float
    top: float
    logarithmic: bool

    def holds(self, x: float, y: float) -> bool:
        """Whether the point is shown."""
        return self.left <= x <= self.right and self.bottom <= y <= self.top


def extent(fronts: Sequence[tuple[SearchResult, DeviceResult]]) -> Extent:
    """What holds every front, measured or published model, mark and target, with air around, explored points apart."""
    times: list[float] = []
    values: list[float] = []
    for result, device in fronts:
        shown = [*device.front, *([device.nearest] if device.nearest else [])]
        for candidate in shown:
            times += [minimized(result, candidate).low, minimized(result, candidate).high]
            values += [candidate.ap.low, candidate.ap.high]
            values += [run.value for run in candidate.trained if comparable(run, candidate, result.metric)]
        times += [point.x for point in device_points(result, device)]
        for reference in published_points(result, device):
            times.append(1000 / (reference.published_fps or 1))
            values.append(reference.published_ap)
        times += [1000 / device.target_fps] if device.target_fps is not None and result.minimize == "latency" else []
    low, high = max(min(times), 1e-3), max(times)
    least = max(min(values), max(values) - SHOWN_AP)
    air = max((max(values) - least) * 0.06, 1.0)
    bottom, top = least - air, max(values) + air * 1.6
    if high / low > LOGARITHMIC_FROM:
        factor = (high / low) ** 0.05
        return Extent(low / factor, high * factor, bottom, top, logarithmic=True)
    air = max((high - low) * 0.06, 0.05 * high)
    return Extent(max(low - air, low * 0.5), high + air, bottom, top, logarithmic=False)


def published_points(result: SearchResult, device: DeviceResult) -> list[Reference]:
    """The published models that have a place in the picture; nobody published their energy."""
    return [one for one in device.references if one.published_fps is not None and result.minimize == "latency"]


def nice_ticks(low: float, high: float, *, at_most: int = 9) -> list[float]:
    """Round numbers between two positive ends, evenly spread on a logarithmic scale."""
    for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= at_most:
            return ticks
    return ticks


def style_axes(axes: Axes, area: Extent, metric: str, rule: str, *, energy: bool = False) -> None:
    """Scales, limits, round ticks in ms below and in frames per second above (mJ, frames per joule), a quiet grid."""
    axes.set_ylim(area.bottom, area.top)
    axes.set_ylabel(metric, labelpad=7)
    axes.grid(visible=True, color=rule, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["right", "top"]].set_visible(False)
    axes.tick_params(length=3, color=rule)
    _scale(axes, area, nice_ticks(area.left, area.right) if area.logarithmic else None)
    axes.set_xlabel("energy of a frame in mJ" if energy else "frame time in ms (engine and overhead)", labelpad=7)
    above = axes.twiny()
    above.set_zorder(axes.get_zorder() - 1)
    above.spines[["right", "left", "bottom"]].set_visible(False)
    above.tick_params(length=3, color=rule)
    rates = nice_ticks(1000 / area.right, 1000 / area.left)
    _scale(above, area, [1000 / rate for rate in rates])
    above.set_xlabel("frames per joule" if energy else "frames per second", labelpad=6)
    above.set_xticklabels([f"{rate:g}" for rate in rates])
    axes.patch.set_visible(False)


def _scale(axes: Axes, area: Extent, ticks: list[float] | None) -> None:
    from matplotlib.ticker import NullFormatter, NullLocator  # noqa: PLC0415

    if area.logarithmic:
        axes.set_xscale("log")
    axes.set_xlim(area.left, area.right)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    if ticks is not None:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
