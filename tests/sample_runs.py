"""Training runs on invented data sets, for tests of what flows back from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaler.accuracy import load
from scaler.accuracy.runs import Metrics, Predicted, Run
from scaler.models.detectors.yolo_ret import YoloRetConfig

CLASSES = ("circle", "square", "triangle")


def sample_run(**changes: Any) -> Run:
    """A finished run with everything filled in."""
    given: dict[str, Any] = {
        "candidate": "ab12cd34",
        "family": "yolo-ret",
        "parameters": {"backbone": "mobilenetv2", "width": 0.75, "drop": 1, "neck": "panet", "resolution": 320},
        "classes": CLASSES,
        "dataset": "shapes",
        "split_sizes": {"train": 1000, "val": 200},
        "metrics": metrics(85.5),
        "class_ap50": {"circle": 91.25, "square": 83.0},
        "predicted": Predicted(mean=69.0, low=68.2, high=69.8, dataset="voc", metric="VOC AP50"),
        "recipe": "quick",
        "epochs": 60,
        "seed": 3,
        "pretrained": "torchvision-mobilenetv2",
        "seconds": 412.5,
        "created": "2026-11-22T10:00:00+00:00",
        "scaler_version": "0.1.0",
    }
    return Run(**{**given, **changes})


def metrics(ap50: float) -> Metrics:
    """Metrics of which the others follow from AP50."""
    return Metrics(ap=0.6 * ap50, ap50=ap50, ap75=0.65 * ap50, voc_ap50_area=ap50 + 0.1, voc_ap50_11=ap50 - 0.4)


def networks() -> list[Mapping[str, Any]]:
    """Parameters of YOLO-ReT detectors, spread over backbone, width, neck and resolution."""
    found: list[Mapping[str, Any]] = []
    for backbone, width in (
        ("mobilenetv2", 0.5),
        ("mobilenetv2", 0.75),
        ("mobilenetv2", 1.4),
        ("efficientnet-b3", None),
    ):
        for resolution in (224, 256, 288, 320, 384, 416):
            for neck in ("none", "fpn", "panet"):
                own = {} if width is None else {"width": width}
                found.append({"backbone": backbone, **own, "drop": 1, "neck": neck, "resolution": resolution})
    return found


def true_runs(
    seed: int,
    parameters: Sequence[Mapping[str, Any]],
    *,
    gain: float = 0.8,
    level: float = 46.0,
    effect: float = 0.8,
    noise: float = 0.5,
    **changes: Any,
) -> list[Run]:
    """Runs of a data set on which AP50 = gain * law + level + an effect of the backbone and the network + noise."""
    rng = np.random.default_rng(seed)
    law = load("yolo-ret", "coco", "ap50")
    of_backbone: dict[Any, float] = {}
    runs = []
    for number, own in enumerate(parameters):
        config = YoloRetConfig(**own, classes=len(CLASSES))
        body = of_backbone.setdefault((config.backbone, config.width), float(rng.normal(0, effect)))
        ap50 = (
            gain * law.predict(config).mean + level + body + float(rng.normal(0, 0.5 * effect) + rng.normal(0, noise))
        )
        stamp = f"2026-11-22T10:{number // 60:02d}:{number % 60:02d}+00:00"
        given = {
            "candidate": f"id{number:03d}",
            "parameters": own,
            "metrics": metrics(min(ap50, 99.5)),
            "created": stamp,
        }
        runs.append(sample_run(**{**given, **changes}))
    return runs
