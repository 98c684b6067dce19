"""The figures of the YOLO-ReT paper, row by row as printed, with our notes where a row is inferred or inconsistent.

Source: Ganesh et al., "YOLO-ReT: Towards High Accuracy Real-time Object Detection on Edge GPUs" (WACV 2022), Tables 1
to 7, and Figure 2 read from its vector graphics (within 0.02 AP). Frame rates are those of TensorRT in FP16 with
batch 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

from scaler.files import choice_cell, integer_cell, read_csv
from scaler.models.detectors.yolo_ret import YoloRetConfig, published_drop
from scaler.models.necks.light import NeckKind
from scaler.published.cells import figure, flag, optional

__all__ = ["YOLO_RET_FILE", "YoloRetRow", "yolo_ret_rows"]

YOLO_RET_FILE = Path(__file__).with_name("yoloret.csv")

_TABLES = ("1", "2", "3", "4", "5", "6", "7", "figure 2")
_DATASETS = ("imagenet", "voc", "coco", "voc+coco")
_NECKS: tuple[NeckKind, ...] = get_args(NeckKind)
_YOLO_RET_TABLES = ("2", "3", "4", "5", "6")
_RFCR_KERNEL = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloRetRow:
    """One row of the paper; None where it prints nothing. AP in points, FPS in frames per second."""

    table: str
    """Number of the table, or `figure 2`."""
    backbone: str
    """As the paper writes it: `MobileNetV2`, `EfficientNet`, or the name of a baseline."""
    variant: str
    """Width multiplier of MobileNetV2, `B0` to `B3`, or the variant of YOLOv4-tiny."""
    truncated: bool | None
    neck: str
    """`none`, `fpn`, `panet`, `bifpn`; `native` for other authors' detectors; empty for classifiers."""
    repeats: int | None
    rfcr: bool
    shortcut: bool
    resolution: int
    """Side of the square input in pixels."""
    dataset: str
    ap50_voc: float | None
    ap50_coco: float | None
    ap_coco: float | None
    ap75_coco: float | None
    ap_small_coco: float | None
    ap_medium_coco: float | None
    ap_large_coco: float | None
    fps_nano: float | None
    fps_nx: float | None
    fps_agx: float | None
    size_mb: float | None
    million_macs: float | None
    top1: float | None
    pretrained_percent: float | None
    """Figure 2 only: share of the backbone's trainable parameters that start from ImageNet."""
    note: str

    def detector(self, classes: int = 20) -> YoloRetConfig | None:
        """The detector of a row that is a YOLO-ReT detector trained by the normal recipe, else None.

        Classifiers (Table 1), baselines (Tables 5 to 7) and partly initialised backbones (Figure 2) are not.
        """
        if self.table not in _YOLO_RET_TABLES or self.neck not in _NECKS:
            return None
        mobile = self.backbone == "MobileNetV2"
        backbone = "mobilenetv2" if mobile else f"efficientnet-{self.variant.lower()}"
        return YoloRetConfig(
            backbone=backbone,
            width=float(self.variant) if mobile else 1.0,
            drop=published_drop(backbone) if self.truncated else 0,
            neck=_NECKS[_NECKS.index(self.neck)],
            repeats=self.repeats or 1,
            rfcr=_RFCR_KERNEL if self.rfcr else 0,
            shortcut=self.shortcut,
            resolution=self.resolution,
            classes=classes,
        )


_CELLS: dict[str, Callable[[str], Any]] = {
    "table": choice_cell(_TABLES),
    "backbone": str,
    "variant": str,
    "truncated": optional(flag),
    "neck": choice_cell(("", "native", *_NECKS)),
    "repeats": optional(integer_cell(minimum=1)),
    "rfcr": flag,
    "shortcut": flag,
    "resolution": integer_cell(minimum=1),
    "dataset": choice_cell(_DATASETS),
    "note": str,
}


@cache
def yolo_ret_rows() -> tuple[YoloRetRow, ...]:
    """All 160 published rows, in the order of the paper.

    Raises:
        FileError: The shipped file was damaged; the message has line and column.
    """
    columns = {field.name: _CELLS.get(field.name, figure) for field in fields(YoloRetRow)}
    rows = read_csv(YOLO_RET_FILE, columns)
    return tuple(YoloRetRow(**dict(zip(columns, row, strict=True))) for row in rows)
