"""Pictures with boxes: an augmented training batch, and what the network finds beside what was drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaler.data.dataset import FloatArray, Image, IntArray
from scaler.report.picture import COLOURS, INK, MUTED, write_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TILE_INCHES = 2.3
_GAP_INCHES = 0.07
_TOP_INCHES = 0.95
_COLUMNS = 4
_LONGEST = 480  # pixels that a tile shows
_NAMED = 8  # classes that the legend names
_CROWD = 25  # boxes of a tile above which they are drawn thin and without names


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One picture and the boxes on it."""

    image: Image
    corners: FloatArray
    """`[boxes, 4]` in pixels of the picture."""
    labels: IntArray
    scores: FloatArray | None = None
    """None for labels."""
    note: str = ""
    """Written above."""


def write_batch(tiles: Sequence[Tile], classes: Sequence[str], title: str, path: Path) -> None:
    """Draw training pictures as the network sees them: the first thing to look at where it does not learn.

    Raises:
        UserError: The file cannot be written.
    """
    objects = sum(len(tile.labels) for tile in tiles)
    subtitle = f"{len(tiles)} pictures of a training batch after augmentation, with their {objects} boxes"
    write_pictures(lambda: _figure(tiles, classes, title, subtitle, _COLUMNS), path)


def write_predictions(pairs: Sequence[tuple[Tile, Tile]], classes: Sequence[str], title: str, path: Path) -> None:
    """Draw pictures twice: with the labels, and with what the network finds.

    Raises:
        UserError: The file cannot be written.
    """
    tiles = [tile for pair in pairs for tile in pair]
    subtitle = "labels on the left, what the network finds on the right, with its confidence in per cent"
    write_pictures(lambda: _figure(tiles, classes, title, subtitle, 2 if len(pairs) == 1 else 4, pairwise=True), path)


def _figure(
    tiles: Sequence[Tile], classes: Sequence[str], title: str, subtitle: str, columns: int, *, pairwise: bool = False
) -> Figure:
    from matplotlib.figure import Figure  # noqa: PLC0415

    rows = max(1, math.ceil(len(tiles) / columns))
    width = columns * _TILE_INCHES + 2 * _GAP_INCHES
    height = rows * (_TILE_INCHES + 0.12) + _TOP_INCHES
    figure = Figure(figsize=(width, height), dpi=150)
    figure.text(0.016, 1 - 0.25 / height, title, fontsize=13.5, fontweight="bold", va="center")
    figure.text(0.016, 1 - 0.51 / height, subtitle, fontsize=9.5, color=MUTED, va="center")
    _name_classes(figure, classes, tiles, 1 - 0.77 / height)
    side_x, side_y = (_TILE_INCHES - _GAP_INCHES) / width, (_TILE_INCHES - _GAP_INCHES) / height
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        shift = (_GAP_INCHES if pairwise and column % 2 == 0 else 0.0) - (_GAP_INCHES / 2 if pairwise else 0.0)
        left = (_GAP_INCHES * 1.5 + column * _TILE_INCHES + shift * 0.8) / width
        bottom = 1 - (_TOP_INCHES + (row + 1) * (_TILE_INCHES + 0.12) - 0.12) / height
        _draw(figure.add_axes((left, bottom, side_x, side_y)), tile)
    return figure


def _name_classes(figure: Figure, classes: Sequence[str], tiles: Sequence[Tile], y: float) -> None:
    """The classes that occur, each in its colour."""
    from matplotlib.lines import Line2D  # noqa: PLC0415

    seen = np.unique(np.concatenate([np.zeros(0, np.int64), *(tile.labels for tile in tiles)])).tolist()
    named = [(classes[label], _colour(label)) for label in seen[:_NAMED]]
    if len(seen) > _NAMED:
        named.append((f"and {len(seen) - _NAMED} more", "none"))
    handles = [Line2D([], [], color=colour, marker="s", linestyle="none", label=name) for name, colour in named]
    figure.legend(handles=handles, loc="center left", bbox_to_anchor=(0.008, y), ncols=max(1, len(handles)),
                  frameon=False, fontsize=9.0, handletextpad=0.1, columnspacing=1.2, borderpad=0)  # fmt: skip


def _draw(axes: Axes, tile: Tile) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415

    height, width = tile.image.shape[:2]
    step = max(1, math.ceil(max(height, width) / _LONGEST))
    axes.imshow(tile.image[::step, ::step], extent=(0, width, height, 0), interpolation="antialiased")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    crowd = len(tile.labels) > _CROWD
    scores = [None] * len(tile.labels) if tile.scores is None else tile.scores.tolist()
    for (x1, y1, x2, y2), label, score in zip(tile.corners.tolist(), tile.labels.tolist(), scores, strict=True):
        place, size = (x1, y1), (x2 - x1, y2 - y1)
        axes.add_patch(Rectangle(place, *size, fill=False, edgecolor="white", linewidth=1.2 if crowd else 2.4))
        axes.add_patch(Rectangle(place, *size, fill=False, edgecolor=_colour(label), linewidth=0.8 if crowd else 1.4))
        if score is not None and not crowd:
            side = "bottom" if y1 > 0.08 * height else "top"  # above the box, or inside where it begins at the edge
            axes.text(max(x1, 0), max(y1, 0), f"{100 * score:.0f}", fontsize=6.5, color="white", va=side, clip_on=True,
                      bbox={"facecolor": _colour(label), "edgecolor": "none", "pad": 0.8})  # fmt: skip
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    if tile.note:
        axes.text(0.02, 0.02, tile.note, transform=axes.transAxes, fontsize=6.5, color=INK,
                  bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.2})  # fmt: skip


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]
