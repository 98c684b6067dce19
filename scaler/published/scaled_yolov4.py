"""Published COCO accuracy of Scaled-YOLOv4 networks, one row a figure, with the recipe that it was trained by.

Sources: Wang, Bochkovskiy, Liao, "Scaled-YOLOv4" (arXiv:2011.08036v2), the READMEs of its authors' repositories, and
a few papers and READMEs of others that evaluate the same networks; each row names its own. The same network at the
same size is published with 47.5 to 50.8 AP, so that no figure says anything without its recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args

from scaler.files import choice_cell, integer_cell, read_csv
from scaler.models.detectors.scaled_yolov4 import ActivationName, ScaledYoloV4Config, Variant, native_activation
from scaler.published.cells import figure

__all__ = ["SCALED_YOLOV4_FILE", "ScaledYoloV4Row", "scaled_yolov4_rows"]

T = TypeVar("T")
SCALED_YOLOV4_FILE = Path(__file__).with_name("scaled_yolov4.csv")

SPLITS = ("val2017", "test-dev", "not stated")
EVALUATIONS = ("rectangular", "square", "not stated")
_VARIANTS: tuple[Variant, ...] = get_args(Variant)
_ACTIVATIONS: tuple[ActivationName, ...] = get_args(ActivationName)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledYoloV4Row:
    """One published figure; None where nothing is printed, AP in points."""

    network: str
    """As the source writes it."""
    variant: str
    """As in `ScaledYoloV4Config`; empty for a network that is none of the family's."""
    width: float | None
    """Multiplier of the channels."""
    depth: float | None
    activation: str
    """`leaky`, `mish` or `swish`; empty where not stated and of no use."""
    rfcr: int
    """Kernel of RFCR, 0 without."""
    resolution: int
    """Nominal side in pixels: of the square, or of the long side before padding to whole strides."""
    ap: float | None
    """Mean over IoU 0.50 to 0.95."""
    ap50: float | None
    split: str
    evaluation: str
    """`rectangular`: the picture keeps its shape, and the long side is padded to the next strides (928 px for 896);
    `square`: letterboxed or stretched to the square."""
    recipe: str
    """Training run's recipe and weights date, see `scaler.accuracy.scaled_recipes`."""
    unused: str
    """Why no fit uses the row; empty where one does."""
    source: str
    note: str

    def detector(self, classes: int = 80) -> ScaledYoloV4Config | None:
        """The detector of a row, or None where the network is none of the family's."""
        if not self.variant or self.width is None or self.depth is None:
            return None
        own = not self.activation or self.activation == native_activation(self.variant)
        return ScaledYoloV4Config(
            variant=_named(self.variant, _VARIANTS),
            width=self.width,
            depth=self.depth,
            activation="native" if own else _named(self.activation, _ACTIVATIONS),
            rfcr=self.rfcr,
            resolution=self.resolution,
            classes=classes,
        )


def _named(name: str, known: tuple[T, ...]) -> T:
    """The same name as one of a literal type's."""
    return next(literal for literal in known if literal == name)


_CELLS: dict[str, Callable[[str], Any]] = {
    "network": str,
    "variant": choice_cell(("", *_VARIANTS)),
    "width": figure,
    "depth": figure,
    "activation": choice_cell(("", *_ACTIVATIONS)),
    "rfcr": integer_cell(minimum=0),
    "resolution": integer_cell(minimum=1),
    "ap": figure,
    "ap50": figure,
    "split": choice_cell(SPLITS),
    "evaluation": choice_cell(EVALUATIONS),
    "recipe": str,
    "unused": str,
    "source": str,
    "note": str,
}


@cache
def scaled_yolov4_rows() -> tuple[ScaledYoloV4Row, ...]:
    """All published figures, used or not.

    Raises:
        FileError: The shipped file was damaged; the message has line and column.
    """
    rows = read_csv(SCALED_YOLOV4_FILE, _CELLS)
    return tuple(ScaledYoloV4Row(**dict(zip(_CELLS, row, strict=True))) for row in rows)
