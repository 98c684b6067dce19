"""The published training runs behind the laws: one observation a run, whatever the number of its printed figures."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from scaler.accuracy.law import Observation
from scaler.accuracy.prediction import Metric
from scaler.published.retinanet import retinanet_rows
from scaler.published.scaled_yolov4 import ScaledYoloV4Row, scaled_yolov4_rows

__all__ = ["OBSERVATIONS", "retinanet_observations", "scaled_observations", "test_dev_gain"]


def scaled_observations(metric: Metric) -> tuple[Observation, ...]:
    """Runs of Scaled-YOLOv4 with their figure on val2017.

    Where only test-dev was published, `test_dev_gain` is taken off; a figure without a split counts as val2017.
    """
    gain = test_dev_gain(metric)
    found = []
    for rows in _scaled_runs(metric).values():
        by_split = {row.split: getattr(row, metric) for row in rows}
        figure = by_split.get("val2017", by_split.get("not stated"))
        row = rows[0]
        scale = "" if (row.width, row.depth) == (1.0, 1.0) else f" w{row.width:g} d{row.depth:g}"
        group = f"{row.variant}{scale}"
        rfcr = f" RFCR {row.rfcr}" if row.rfcr else ""
        name = f"{group} {row.activation}{rfcr} {row.resolution}"
        found.append(
            Observation(row, row.recipe, by_split["test-dev"] - gain if figure is None else figure, name, group)
        )
    return tuple(found)


def test_dev_gain(metric: Metric) -> float:
    """What test-dev gives over val2017 on average, in points, over the runs that have both."""
    gains = []
    for rows in _scaled_runs(metric).values():
        by_split = {row.split: getattr(row, metric) for row in rows}
        if len(by_split) > 1:
            gains.append(by_split.pop("test-dev") - next(iter(by_split.values())))
    return fmean(gains)


def _scaled_runs(metric: Metric) -> dict[tuple[object, ...], list[ScaledYoloV4Row]]:
    runs: dict[tuple[object, ...], list[ScaledYoloV4Row]] = {}
    for row in scaled_yolov4_rows():
        if not row.unused and getattr(row, metric) is not None:
            key = (row.variant, row.width, row.depth, row.activation, row.rfcr, row.resolution, row.recipe)
            runs.setdefault(key, []).append(row)
    return runs


def retinanet_observations(metric: Metric) -> tuple[Observation, ...]:
    """Runs of RetinaNet."""
    return tuple(
        Observation(row, row.recipe, figure, f"{row.backbone} {row.resolution}", row.backbone)
        for row in retinanet_rows()
        if not row.unused and (figure := getattr(row, metric)) is not None
    )


OBSERVATIONS: dict[str, Callable[[Metric], tuple[Observation, ...]]] = {
    "scaled-yolov4": scaled_observations,
    "retinanet": retinanet_observations,
}
"""By family."""
