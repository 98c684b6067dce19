"""Which models ship, and `load`: by family, data set, metric and recipe."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from scaler.accuracy import law_model
from scaler.accuracy import model as yolo_ret
from scaler.accuracy.prediction import AccuracyModel, Dataset, Metric
from scaler.errors import UsageError, listed, unknown_name

__all__ = ["load", "metrics"]


class _Shipped(NamedTuple):
    """The models of a family."""

    metrics: dict[Dataset, tuple[Metric, ...]]
    """By data set; the first is the default."""
    read: Callable[[Dataset, Metric, str | None], AccuracyModel]
    """Reads the model of a recipe; None is the family's default recipe."""


def _of_law(family: str) -> Callable[[Dataset, Metric, str | None], AccuracyModel]:
    return lambda _, metric, recipe: law_model.read_shipped(family, metric, recipe)


_FAMILIES = {
    "yolo-ret": _Shipped({"voc": ("ap50",), "coco": ("ap50", "ap")}, yolo_ret.read_shipped),
    "scaled-yolov4": _Shipped({"coco": ("ap", "ap50")}, _of_law("scaled-yolov4")),
    "retinanet": _Shipped({"coco": ("ap", "ap50")}, _of_law("retinanet")),
}


@cache
def load(family: str, dataset: str, metric: str | None = None, recipe: str | None = None) -> AccuracyModel:
    """The shipped model of a family.

    Args:
        family: `yolo-ret`, `scaled-yolov4` or `retinanet`.
        dataset: `voc` or `coco`.
        metric: `ap50` or `ap` (the mean over IoU 0.50 to 0.95), in capitals too; None is `ap50` for yolo-ret, `ap` for
            the others.
        recipe: One of the model's `recipes`; None is the paper's.

    Raises:
        UsageError: There is no such model; the message says which exist.
        FileError: The shipped fit was damaged.
    """
    known = metrics(family, dataset)
    wanted = known[0] if metric is None else metric.lower()
    if wanted not in known:
        raise UsageError(unknown_name(f"metric of {family} on {dataset}", wanted, known))
    chosen = next(name for name in known if name == wanted)
    name: Dataset = "voc" if dataset == "voc" else "coco"
    return _FAMILIES[family].read(name, chosen, recipe)


def metrics(family: str, dataset: str) -> tuple[Metric, ...]:
    """The metrics that a family's accuracy can be predicted in on a data set, the default first.

    Raises:
        UsageError: There is no model of that family, or not for that data set; the message says which exist.
    """
    if family not in _FAMILIES:
        raise UsageError(unknown_name("family with an accuracy model", family, _FAMILIES))
    by_dataset = _FAMILIES[family].metrics
    for name, known in by_dataset.items():
        if name == dataset:
            return known
    if dataset in ("voc", "coco"):
        others = [f"{other} on {dataset}" for other, shipped in _FAMILIES.items() if dataset in shipped.metrics]
        raise UsageError(
            f"nobody published {family} on {dataset}: there is an accuracy model of {family} on {listed(by_dataset)}"
            f", and of {listed(others)}"
        )
    raise UsageError(unknown_name("dataset", dataset, by_dataset))
