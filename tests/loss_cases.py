"""Codings, maps and objects that the tests of the losses share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from scaler.graph.boxes import BoxCoding, Scale
from scaler.training.losses.targets import Targets
from scaler.training.recipe import Loss, LossKind

CLASSES = 3
SIZE = 96
ANCHORS = {8: ((10, 13), (16, 30), (33, 23)), 16: ((30, 61), (62, 45)), 32: ((80, 70), (90, 95), (50, 90))}
YOLO_SCALES = tuple(Scale((f"stride{stride}",), stride, ANCHORS[stride]) for stride in (32, 16, 8))
CODINGS = {
    "yolov3": BoxCoding("yolov3", YOLO_SCALES),
    "tiny": BoxCoding("yolov3", YOLO_SCALES, 1.05),
    "yolov4": BoxCoding("yolov4", YOLO_SCALES, 2.0),
    "retinanet": BoxCoding(
        "retinanet",
        tuple(
            Scale((f"class{stride}", f"box{stride}"), stride, tuple((side * a, side / a) for a in (0.7, 1.0, 1.4)))
            for stride, side in ((8, 20.0), (16, 40.0), (32, 80.0))
        ),
    ),
}
TRAINED_BY: Sequence[tuple[str, LossKind]] = (
    ("yolov3", "yolov3"),
    ("tiny", "yolov3"),
    ("yolov4", "yolov3"),
    ("yolov3", "scaled-yolov4"),
    ("tiny", "scaled-yolov4"),
    ("yolov4", "scaled-yolov4"),
    ("retinanet", "retinanet"),
)
"""Coding and loss."""
LOSSES = {
    "yolov3": Loss(kind="yolov3"),
    "scaled-yolov4": Loss(kind="scaled-yolov4", box=0.05, objectness=1.0, classes=0.5),
    "retinanet": Loss(kind="retinanet"),
}


def maps(
    coding: BoxCoding, *, batch: int = 2, height: int = SIZE, width: int = SIZE, classes: int = CLASSES, seed: int = 0
) -> dict[str, Tensor]:
    """Normal numbers as raw maps that want a gradient."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for scale in coding.scales:
        fields = (classes, 4) if coding.kind == "retinanet" else (classes + 5,)
        for label, count in zip(scale.outputs, fields, strict=True):
            shape = (batch, len(scale.anchors) * count, height // scale.stride, width // scale.stride)
            found[label] = torch.randn(shape, generator=generator).requires_grad_()
    return found


def targets(*rows: tuple[int, int, float, float, float, float]) -> Targets:
    """Objects as picture, class and corners."""
    boxes = torch.tensor([row[2:] for row in rows], dtype=torch.float32).reshape(-1, 4)
    picture, label = (torch.tensor([row[index] for row in rows], dtype=torch.int64) for index in (0, 1))
    return Targets(boxes, label, picture)
