"""Published detectors by name: reference points of the reports, starts of a search, examples for `scaler show`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from scaler.models.detectors.families import Config
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.published import retinanet_rows, scaled_yolov4_rows, yolo_ret_rows

__all__ = ["PublishedModel", "published_models", "starting_points"]


TINY_FPS = {"nano": 39.0, "tx2": 100.0, "nx": 118.0, "agx": 290.0}
"""YOLOv4-tiny with TensorRT, batch 1: "Scaled-YOLOv4", Table 14, engine only; 416 px and FP16 are inferred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedModel:
    """A detector that its authors named, with what they say of it."""

    name: str
    """With the resolution: `YOLO-ReT-M0.75@320`."""
    config: Config
    source: str
    ap: Mapping[str, float]
    """By metric: `VOC AP50`, `COCO AP50`, `COCO AP`."""
    fps: Mapping[str, float]
    """By device."""


@cache
def published_models() -> Mapping[str, PublishedModel]:
    """All of them by name."""
    return {model.name: model for model in (*_yolo_ret(), *_scaled_yolov4(), *_retinanet())}


@cache
def starting_points() -> tuple[Config, ...]:
    """Every published configuration once, named or not: where a search starts."""
    found: list[Config | None] = [row.detector() for row in yolo_ret_rows()]
    found += [row.detector() for row in scaled_yolov4_rows()]
    found += [row.detector() for row in retinanet_rows()]
    return tuple(dict.fromkeys(config for config in found if config is not None))


def _yolo_ret() -> list[PublishedModel]:
    """The nine models of Table 5; COCO AP stands in Table 6, of those at 320 px."""
    found = []
    coco_ap = {row.detector(): row.ap_coco for row in yolo_ret_rows() if row.table == "6"}
    for row in yolo_ret_rows():
        config = row.detector() if row.table == "5" else None
        if config is not None:
            ap = {"VOC AP50": row.ap50_voc, "COCO AP50": row.ap50_coco, "COCO AP": coco_ap.get(config)}
            fps = {"nano": row.fps_nano, "nx": row.fps_nx, "agx": row.fps_agx}
            found.append(
                PublishedModel(
                    name=f"YOLO-ReT-{_short_name(config)}@{config.resolution}",
                    config=config,
                    source="YOLO-ReT (WACV 2022), Tables 5 and 6",
                    ap=_printed(ap),
                    fps=_printed(fps),
                )
            )
    return found


def _scaled_yolov4() -> list[PublishedModel]:
    """What the paper gives on test-dev (Tables 11 and 13), with the frame rates of Table 14."""
    found = []
    for row in scaled_yolov4_rows():
        config = row.detector()
        if config is None or row.recipe != "paper" or row.split != "test-dev" or row.unused:
            continue
        found.append(
            PublishedModel(
                name=f"yolov4-{row.variant}@{row.resolution}",
                config=config,
                source=row.source,
                ap=_printed({"COCO AP": row.ap, "COCO AP50": row.ap50}),
                fps=TINY_FPS if (row.variant, row.resolution) == ("tiny", 416) else {},
            )
        )
    return found


def _retinanet() -> list[PublishedModel]:
    """The input-scaling curve of the Focal Loss paper, as square engines that show the pictures as large."""
    found = []
    for row in retinanet_rows():
        config = row.detector()
        if config is not None and row.recipe == "focal-loss" and not row.unused:
            name = f"retinanet-{row.backbone}@{config.resolution}"
            ap = _printed({"COCO AP": row.ap, "COCO AP50": row.ap50})
            source = f"{row.source}, short side {row.resolution}"
            found.append(PublishedModel(name=name, config=config, source=source, ap=ap, fps={}))
    return found


def _printed(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if value is not None}


def _short_name(config: YoloRetConfig) -> str:
    """The paper's short name of a backbone: `M0.75`, `EB3`."""
    family, _, variant = config.backbone.partition("-")
    return f"M{config.width:g}" if family == "mobilenetv2" else f"EB{variant.removeprefix('b')}"
