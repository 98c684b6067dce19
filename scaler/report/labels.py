"""Labels of points that do not run into each other: each tries places around its point, or stays away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backend_bases import RendererBase
    from matplotlib.figure import Figure
    from matplotlib.text import Annotation

Box = tuple[float, float, float, float]
"""Left, bottom, right and top in pixels."""
Horizontal = Literal["left", "center", "right"]
Vertical = Literal["top", "center", "bottom"]

_LEADER_FROM = 15.0
"""Labels farther from their point than this, in points, get a line to it."""


@dataclass(frozen=True, slots=True)
class Label:
    """A text that belongs to a point of the plot."""

    text: str
    point: tuple[float, float]
    colour: str
    size: float
    bold: bool = False
    must: bool = False
    """Whether to write it even where there is no free place."""
    leader: bool = True
    """Whether it may stand away from its point, with a line to it."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a label stands: its offset from the point, in points, and which of its corners stands there."""

    x: float
    y: float
    horizontal: Horizontal
    vertical: Vertical

    @property
    def distance(self) -> float:
        """How far the label stands from its point, roughly."""
        return abs(self.x) + abs(self.y)


def place_labels(figure: Figure, axes: Axes, labels: Sequence[Label]) -> None:
    """Write the labels, those that must be written first; a label without a free place is left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    renderer: RendererBase = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    taken = [*_texts(axes, renderer), *_marks(axes, figure.dpi / 72)]
    for label in sorted(labels, key=lambda item: not item.must):
        box = _write(axes, renderer, label, taken)
        if box is not None:
            taken.append(box)


def _write(axes: Axes, renderer: RendererBase, label: Label, taken: list[Box]) -> Box | None:
    import numpy as np  # noqa: PLC0415

    text = _annotate(axes, label)
    size = text.get_window_extent(renderer).size
    text.remove()
    x0, y0, x1, y1 = axes.get_window_extent(renderer).extents
    point = axes.transData.transform(label.point)
    pixels = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    others = np.asarray(taken, dtype=float).reshape(-1, 4)
    best: tuple[float, _Place, Box] | None = None
    for place in _places():
        if place.distance > _LEADER_FROM and not label.leader:
            break
        box = _box(point, place, size, pixels)
        outside = not (x0 < box[0] and box[2] < x1 and y0 < box[1] and box[3] < y1)
        overlap = _shared(box, others) + (1e9 if outside else 0.0)
        if best is None or overlap < best[0]:
            best = (overlap, place, box)
        if not overlap:
            break
    if best is None or (best[0] > 0.0 and not label.must):
        return None
    _annotate(axes, label, best[1])
    return best[2]


def _places() -> Iterator[_Place]:
    """Places around a point, nearest first; below and right comes first, as fronts rise to the right."""
    for distance in (8.0, 14.0, 22.0, 32.0, 44.0, 58.0):
        slant = distance * 0.7
        yield _Place(slant, -slant, "left", "top")
        yield _Place(-slant, slant, "right", "bottom")
        yield _Place(distance, 0, "left", "center")
        yield _Place(-distance, 0, "right", "center")
        yield _Place(0, distance, "center", "bottom")
        yield _Place(0, -distance, "center", "top")
        yield _Place(slant, slant, "left", "bottom")
        yield _Place(-slant, -slant, "right", "top")


def _annotate(axes: Axes, label: Label, place: _Place | None = None) -> Annotation:
    far = place is not None and place.distance > _LEADER_FROM
    arrow = {
        "arrowstyle": "-",
        "color": label.colour,
        "linewidth": 0.7,
        "alpha": 0.7,
        "shrinkA": 0,
        "shrinkB": 4,
    }
    return axes.annotate(
        label.text, label.point, textcoords="offset points",
        xytext=(place.x, place.y) if place else (0, 0),
        horizontalalignment=place.horizontal if place else "left",
        verticalalignment=place.vertical if place else "bottom",
        multialignment=place.horizontal if place else "left",
        fontsize=label.size, fontweight="bold" if label.bold else "normal",
        color=label.colour, zorder=8, linespacing=1.25,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.55, "pad": 0.6},
        arrowprops=arrow if far else None,
    )  # fmt: skip


def _box(point: Any, place: _Place, size: Any, pixels: float) -> Box:
    share = {"left": 0.0, "bottom": 0.0, "center": 0.5, "right": 1.0, "top": 1.0}
    width, height = size
    left = point[0] + place.x * pixels - share[place.horizontal] * width
    bottom = point[1] + place.y * pixels - share[place.vertical] * height
    return left - 1, bottom - 1, left + width + 1, bottom + height + 1


def _shared(box: Box, others: Any) -> float:
    """The area that a box has in common with all others, which are the rows of an array."""
    import numpy as np  # noqa: PLC0415

    width = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    height = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    return float((width.clip(0) * height.clip(0)).sum())


def _texts(axes: Axes, renderer: RendererBase) -> Iterator[Box]:
    legend = axes.get_legend()
    boxes = [] if legend is None else [legend.get_window_extent(renderer)]
    boxes += [line.get_window_extent(renderer).padded(1.5) for line in axes.lines if line.get_linestyle() == "--"]
    boxes += [text.get_window_extent(renderer) for text in axes.texts]
    for box in boxes:
        yield box.x0, box.y0, box.x1, box.y1


def _marks(axes: Axes, pixels: float) -> Iterator[Box]:
    """Boxes around every marker, and around every piece of the stepped fronts."""
    for line in axes.lines:
        path = axes.transData.transform(line.get_xydata())
        if line.get_marker() not in ("None", "", None):
            half = line.get_markersize() * pixels / 2
            for x, y in path:
                yield x - half, y - half, x + half, y + half
        elif line.get_drawstyle() == "steps-post":
            for (x0, y0), (x1, y1) in pairwise(path):
                yield x0, y0 - 1, x1, y0 + 1
                yield x1 - 1, min(y0, y1), x1 + 1, max(y0, y1)
