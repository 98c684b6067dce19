"""Published measurements, row by row as printed, with our notes where a row is inferred or inconsistent.

Accuracy: `yolo_ret`, `scaled_yolov4`, `retinanet`, and `vovnet` for backbones in other detectors; each module names its
sources. A row that no fit uses says why.

Source of `engine.csv`: clean FP16 engine times, batch 1, of the NetsPresso trainer's device matrix
(github.com/Nota-NetsPresso/netspresso-trainer at cdefe12, docs/benchmarks/device_matrix/tensorrt.md) and of torch2trt
(github.com/NVIDIA-AI-IOT/torch2trt at 4e820ae, docs/benchmarks).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scaler.files import integer_cell, number_cell, read_csv
from scaler.published.retinanet import LIGHTER_GAINS, LighterGain, RetinaNetRow, retinanet_rows
from scaler.published.scaled_yolov4 import ScaledYoloV4Row, scaled_yolov4_rows
from scaler.published.vovnet import BackboneRow, backbone_rows
from scaler.published.yolo_ret import YoloRetRow, yolo_ret_rows

__all__ = [
    "ENGINE_FILE",
    "LIGHTER_GAINS",
    "BackboneRow",
    "EngineRow",
    "LighterGain",
    "RetinaNetRow",
    "ScaledYoloV4Row",
    "YoloRetRow",
    "backbone_rows",
    "engine_rows",
    "retinanet_rows",
    "scaled_yolov4_rows",
    "yolo_ret_rows",
]

ENGINE_FILE = Path(__file__).with_name("engine.csv")


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
