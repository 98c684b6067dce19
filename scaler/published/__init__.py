"""Published measurements, row by row as printed, with our notes where a row is inferred or inconsistent.

Source of `yoloret.csv`: Ganesh et al., "YOLO-ReT: Towards High Accuracy Real-time Object Detection on Edge
GPUs" (WACV 2022), Tables 1 to 7, and Figure 2 read from its vector graphics (within 0.02 AP). Frame rates are
those of TensorRT in FP16 with batch 1.

Source of `engine.csv`: clean FP16 engine times, batch 1, of the NetsPresso trainer's device matrix
(github.com/Nota-NetsPresso/netspresso-trainer at cdefe12, docs/benchmarks/device_matrix/tensorrt.md) and of torch2trt
(github.com/NVIDIA-AI-IOT/torch2trt at 4e820ae, docs/benchmarks).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

from scaler.files import choice_cell, integer_cell, number_cell, read_csv
from scaler.models.detectors.yolo_ret import YoloRetConfig, published_drop
from scaler.models.necks.light import NeckKind

__all__ = ["ENGINE_FILE", "YOLO_RET_FILE", "EngineRow", "YoloRetRow", "engine_rows", "yolo_ret_rows"]

YOLO_RET_FILE = Path(__file__).with_name("yoloret.csv")
ENGINE_FILE = Path(__file__).with_name("engine.csv")

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


def _optional(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: convert(text) if text else None


def _flag(text: str) -> bool:
    return choice_cell(("", "0", "1"))(text) == "1"


_FIGURE = _optional(number_cell(minimum=0.0))
_CELLS: dict[str, Callable[[str], Any]] = {
    "table": choice_cell(_TABLES),
    "backbone": str,
    "variant": str,
    "truncated": _optional(_flag),
    "neck": choice_cell(("", "native", *_NECKS)),
    "repeats": _optional(integer_cell(minimum=1)),
    "rfcr": _flag,
    "shortcut": _flag,
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
    columns = {field.name: _CELLS.get(field.name, _FIGURE) for field in fields(YoloRetRow)}
    rows = read_csv(YOLO_RET_FILE, columns)
    return tuple(YoloRetRow(**dict(zip(columns, row, strict=True))) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """The time of one network on the accelerator alone, without pre- and post-processing."""

    device: str
    network: str
    """`resnet-18` to `resnet-50` or `mobilenetv2-WIDTH`, as image classifiers."""
    resolution: int
    latency_ms: float
    source: str
    note: str


@cache
def engine_rows() -> tuple[EngineRow, ...]:
    """All engine-only times.

    Raises:
        FileError: The shipped file was damaged; the message has line and column.
    """
    cells: dict[str, Callable[[str], Any]] = {
        "device": str,
        "network": str,
        "resolution": integer_cell(minimum=1),
        "latency_ms": number_cell(minimum=1e-6),
        "source": str,
        "note": str,
    }
    rows = read_csv(ENGINE_FILE, cells)
    return tuple(EngineRow(**dict(zip(cells, row, strict=True))) for row in rows)
