"""What all pictures have in common: colours, fonts, and files that are the same for the same figure."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scaler.errors import UsageError, listed
from scaler.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FAINT", "INK", "MUTED", "SUFFIXES", "check_suffix", "write_pictures"]

SUFFIXES = (".png", ".svg", ".pdf")

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's palette, safe for colour-blind readers."""

INK, MUTED, FAINT = "#1f2933", "#52606d", "#9aa5b1"

_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10.0,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "svg.hashsalt": "scaler",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}
_STAMPS = {".png": "Software", ".svg": "Date", ".pdf": "CreationDate"}
"""Metadata that would differ from run to run."""


def check_suffix(*paths: Path) -> None:
    """Refuse a kind of picture that cannot be drawn.

    Raises:
        UsageError: The suffix is none of `SUFFIXES`.
    """
    for path in paths:
        if path.suffix.lower() not in SUFFIXES:
            raise UsageError(f"{path}: unknown kind of picture; the name ends in one of {listed(SUFFIXES)}")


def write_pictures(draw: Callable[[], Figure], *paths: Path) -> None:
    """Draw a figure once and write it to every path; the suffix is the format.

    Raises:
        UsageError: The suffix is none of `SUFFIXES`.
        UserError: A file cannot be written; what was there before is unchanged.
    """
    check_suffix(*paths)
    import matplotlib  # noqa: PLC0415 (0.2 s)

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type]  # it wants literal keys
        figure = draw()
        for path in paths:
            suffix, buffer = path.suffix.lower(), io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], metadata={_STAMPS[suffix]: None}, facecolor="white")
            write_atomic(path, buffer.getvalue())
