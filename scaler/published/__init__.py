"""Published measurements, row by row as printed, with our notes where a row is inferred or inconsistent.

Accuracy: `yolo_ret`, `scaled_yolov4`, `retinanet`, and `vovnet` for backbones in other detectors; each module names its
sources. A row that no fit uses says why. `int8`: what 8-bit integers cost, of any detector.

Times: `yolo_ret`, and `engine` for other laboratories.
"""

from __future__ import annotations

from scaler.published.engine import ENGINE_FILE, EngineRow, engine_rows
from scaler.published.int8 import Int8Row, int8_rows
from scaler.published.retinanet import LIGHTER_GAINS, LighterGain, RetinaNetRow, retinanet_rows
from scaler.published.scaled_yolov4 import ScaledYoloV4Row, scaled_yolov4_rows
from scaler.published.vovnet import BackboneRow, backbone_rows
from scaler.published.yolo_ret import YoloRetRow, yolo_ret_rows

__all__ = [
    "ENGINE_FILE",
    "LIGHTER_GAINS",
    "BackboneRow",
    "EngineRow",
    "Int8Row",
    "LighterGain",
    "RetinaNetRow",
    "ScaledYoloV4Row",
    "YoloRetRow",
    "backbone_rows",
    "engine_rows",
    "int8_rows",
    "retinanet_rows",
    "scaled_yolov4_rows",
    "yolo_ret_rows",
]
