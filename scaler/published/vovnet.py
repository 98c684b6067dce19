"""Published COCO accuracy of other detectors with VoVNet, ResNet and MobileNetV2 backbones, side by side.

Nobody published a YOLO-ReT or RetinaNet on VoVNet; these rows say what the backbones gain over each other in the same
detector. Sources: Lee et al., "VoVNet" (arXiv:1904.09730), Lee and Park, "CenterMask" (arXiv:1911.06667), and the
READMEs of the authors' repositories; each row names its own. Box AP, in points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scaler.files import choice_cell, number_cell, read_csv
from scaler.published.cells import figure

__all__ = ["VOVNET_FILE", "BackboneRow", "backbone_rows"]

VOVNET_FILE = Path(__file__).with_name("vovnet.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneRow:
    """One detector on one backbone."""

    detector: str
    """With its schedule: rows of the same detector differ in the backbone only."""
    backbone: str
    """`resnet-50`, `resnet-101`, `mobilenetv2-1.0`, or a VoVNet's name."""
    ap: float
    """Mean over IoU 0.50 to 0.95."""
    ap50: float | None
    split: str
    unused: str
    """Why no fit uses the row; empty where one does."""
    source: str
    note: str


@cache
def backbone_rows() -> tuple[BackboneRow, ...]:
    """All published figures, used or not.

    Raises:
        FileError: The shipped file was damaged; the message has line and column.
    """
    columns: dict[str, Callable[[str], Any]] = {
        "detector": str,
        "backbone": str,
        "ap": number_cell(minimum=0.0),
        "ap50": figure,
        "split": choice_cell(("val2017", "test-dev")),
        "unused": str,
        "source": str,
        "note": str,
    }
    rows = read_csv(VOVNET_FILE, columns)
    return tuple(BackboneRow(**dict(zip(columns, row, strict=True))) for row in rows)
