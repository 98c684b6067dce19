"""What an evaluation says: one object that prints, plots and files read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from scaler.data.dataset import Boxes
from scaler.evaluation.coco_ap import RECALLS, CocoAp, coco_ap
from scaler.evaluation.detections import Detections, Selection
from scaler.evaluation.voc_ap import voc_ap

SCHEMA_VERSION = 1


class Seconds(NamedTuple):
    """Where the time of an evaluation went."""

    loading: float
    """Waiting for pictures to be read and fitted."""
    network: float
    """From fitted pictures to boxes and scores."""
    postprocessing: float
    """NMS and back to the picture."""

    @property
    def total(self) -> float:
        """All of it."""
        return sum(self)


NO_TIME = Seconds(0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMetrics:
    """Of one class; fractions, None where it has no object."""

    name: str
    objects: int
    """To be found: without ignored ones."""
    ap: float | None
    ap50: float | None
    voc_ap50_area: float | None
    voc_ap50_11: float | None
    precision: tuple[float, ...]
    """At IoU 0.5 and the recalls `RECALLS`, as COCO interpolates; empty where there is no object."""


class Skipped(NamedTuple):
    """A picture that was not evaluated."""

    picture: str
    reason: str
    """One line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """How well a detector finds the objects of a data set.

    Fractions from 0 to 1; None where there is no object to find.
    """

    dataset: str
    split: str
    selection: Selection
    coco: CocoAp
    voc_ap50_area: float | None
    """Mean over the classes that have objects."""
    voc_ap50_11: float | None
    by_class: tuple[ClassMetrics, ...]
    pictures: int
    """Evaluated."""
    skipped: tuple[Skipped, ...]
    detections: int
    seconds: Seconds

    @property
    def ap(self) -> float | None:
        """COCO's: mean of IoU 0.50, 0.55, … 0.95."""
        return self.coco.ap

    @property
    def ap50(self) -> float | None:
        """COCO's at IoU 0.5."""
        return self.coco.ap50

    @property
    def ap75(self) -> float | None:
        """COCO's at IoU 0.75."""
        return self.coco.ap75

    @property
    def objects(self) -> int:
        """To be found, of all classes."""
        return sum(row.objects for row in self.by_class)

    @property
    def pictures_per_second(self) -> float:
        """Loading and post-processing included; 0 for results that came from elsewhere."""
        return self.pictures / self.seconds.total if self.seconds.total else 0.0

    def points(self, metric: str) -> tuple[float | None, float | None]:
        """AP and AP50 in points, 0 to 100; AP50 by VOC's convention where that is the metric asked for, `VOC AP50`."""
        is_voc = metric.casefold() == "voc ap50" == f"{self.dataset} ap50".casefold()
        ap, ap50 = self.ap, self.voc_ap50_area if is_voc else self.ap50
        return None if ap is None else 100 * ap, None if ap50 is None else 100 * ap50

    def as_data(self) -> dict[str, Any]:
        """Plain data for a JSON file; fractions, null where there is no object to find."""
        return {
            "schema_version": SCHEMA_VERSION,
            "dataset": self.dataset,
            "split": self.split,
            "confidence": self.selection.confidence,
            "iou": self.selection.iou,
            "max_detections": self.selection.most,
            "pictures": self.pictures,
            "objects": self.objects,
            "detections": self.detections,
            **self.coco._asdict(),
            "voc_ap50_area": self.voc_ap50_area,
            "voc_ap50_11": self.voc_ap50_11,
            "classes": [_class_data(row) for row in self.by_class],
            "recalls": list(RECALLS),
            "skipped": [row._asdict() for row in self.skipped],
            "seconds": self.seconds._asdict(),
            "pictures_per_second": self.pictures_per_second,
        }


def _class_data(row: ClassMetrics) -> Mapping[str, Any]:
    return {
        "name": row.name,
        "objects": row.objects,
        "ap": row.ap,
        "ap50": row.ap50,
        "voc_ap50_area": row.voc_ap50_area,
        "voc_ap50_11": row.voc_ap50_11,
        "precision": list(row.precision),
    }


def score(
    truth: Sequence[Boxes],
    found: Sequence[Detections],
    classes: Sequence[str],
    *,
    dataset: str = "",
    split: str = "",
    selection: Selection | None = None,
    skipped: Sequence[Skipped] = (),
    seconds: Seconds = NO_TIME,
) -> Metrics:
    """Judge detections by COCO's rule and by both of VOC's.

    Args:
        truth: Objects, picture by picture.
        found: Detections of the same pictures, corners in the same pixels.
        classes: Names.
        dataset: Name, to be told.
        split: Name, to be told.
        selection: How the detections were selected, to be told.
        skipped: Pictures left out, to be told.
        seconds: Time that it took, to be told.

    Raises:
        MissingExtraError: The package `faster-coco-eval` is not installed.
    """
    coco, coco_by_class = coco_ap(truth, found, len(classes))
    voc_by_class = voc_ap(truth, found, len(classes))
    objects = [0] * len(classes)
    for boxes in truth:
        for label in boxes.labels[~boxes.ignored]:
            objects[label] += 1
    rows = tuple(
        ClassMetrics(
            name=name,
            objects=count,
            ap=one.ap,
            ap50=one.ap50,
            voc_ap50_area=voc.area,
            voc_ap50_11=voc.eleven_points,
            precision=one.precision,
        )
        for name, count, one, voc in zip(classes, objects, coco_by_class, voc_by_class, strict=True)
    )
    return Metrics(
        dataset=dataset,
        split=split,
        selection=selection or Selection(),
        coco=coco,
        voc_ap50_area=_mean(row.area for row in voc_by_class),
        voc_ap50_11=_mean(row.eleven_points for row in voc_by_class),
        by_class=rows,
        pictures=len(truth),
        skipped=tuple(skipped),
        detections=sum(map(len, found)),
        seconds=seconds,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
