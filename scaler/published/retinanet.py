"""Published COCO accuracy of RetinaNet by backbone, size and recipe, and what is published of Light-Weight RetinaNet.

Sources: Lin et al., "Focal Loss for Dense Object Detection" (arXiv:1708.02002), Table 1e, the input-scaling curve;
the model zoos of Detectron, maskrcnn-benchmark, detectron2 and mmdetection; Li and Ren, "Light-Weight RetinaNet"
(arXiv:1905.10011), of which only the abstract's two gains are known. Each row names its source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from scaler.files import choice_cell, integer_cell, read_csv
from scaler.models.detectors.retinanet import BACKBONES, RetinaNetConfig
from scaler.published.cells import figure

__all__ = ["LIGHTER_GAINS", "RETINANET_FILE", "LighterGain", "RetinaNetRow", "retinanet_rows"]

RETINANET_FILE = Path(__file__).with_name("retinanet.csv")

SPLITS = ("test-dev", "minival", "val2017")
_STRIDE = 32
SHORT_SIDE = 0.75
"""Of a 4:3 picture in a square, relative to the side of the square; most pictures of COCO are 4:3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetinaNetRow:
    """One published figure; None where nothing is printed, AP in points.

    All are of rectangular pictures: the short side is scaled to `resolution`, the long one to at most 1333 px.
    """

    backbone: str
    """As in `RetinaNetConfig`, or another family's (`resnext-101-64x4d`)."""
    resolution: int
    """Short side in pixels."""
    recipe: str
    """Who trained it and for how long."""
    ap: float | None
    """Mean over IoU 0.50 to 0.95."""
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    time_ms: float | None
    """A picture on an NVIDIA M40, as printed."""
    split: str
    unused: str
    """Why no fit uses the row; empty where one does."""
    source: str
    note: str

    def detector(self, classes: int = 80) -> RetinaNetConfig | None:
        """The square detector that shows a 4:3 picture as large, within 16 px; None without such a backbone."""
        if self.backbone not in BACKBONES:
            return None
        side = round(self.resolution / SHORT_SIDE / _STRIDE) * _STRIDE
        return RetinaNetConfig(backbone=self.backbone, resolution=side, classes=classes)


class LighterGain(NamedTuple):
    """A gain of Light-Weight RetinaNet-ResNet50 as its abstract prints it."""

    flops_reduction: float
    """FLOPs of RetinaNet over those of the lighter network."""
    gain_ap: float
    """Over input scaling at the same FLOPs: our reading, see docs/adr/010-accuracy-of-all-families.md."""


LIGHTER_GAINS = (LighterGain(1.15, 0.1), LighterGain(1.8, 0.3))


@cache
def retinanet_rows() -> tuple[RetinaNetRow, ...]:
    """All published figures, used or not; those of recipe `focal-loss` are the input-scaling curve.

    Raises:
        FileError: The shipped file was damaged; the message has line and column.
    """
    text = ("backbone", "recipe", "unused", "source", "note")
    columns: dict[str, Callable[[str], Any]] = {
        name: str if name in text else figure for name in RetinaNetRow.__dataclass_fields__
    }
    columns |= {"resolution": integer_cell(minimum=1), "split": choice_cell(SPLITS)}
    rows = read_csv(RETINANET_FILE, columns)
    return tuple(RetinaNetRow(**dict(zip(columns, row, strict=True))) for row in rows)
