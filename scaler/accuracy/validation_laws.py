"""Cross-validation of the families that a small law describes, and the files that ship their fits.

One training run is left out at once, whatever the number of its printed figures; leave-one-network-out leaves out
every run of a network at any size (of a backbone, for RetinaNet), by whatever recipe.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from scaler.accuracy.fitting_laws import fit_law
from scaler.accuracy.law import LawFit, Observation, mean_and_variance, parameter_names
from scaler.accuracy.law_data import OBSERVATIONS
from scaler.accuracy.law_model import LAWS, SCHEMA_VERSION, SCHEMES, shipped_file
from scaler.accuracy.prediction import METRIC_NAMES, Z_90, Metric
from scaler.accuracy.scores import CrossValidation, HeldOut, score
from scaler.files import write_atomic

__all__ = ["validate", "write_shipped"]


def validate(family: str, metric: Metric) -> tuple[CrossValidation, CrossValidation]:
    """Leave-one-run-out and leave-one-network-out of a family; about 3 s for Scaled-YOLOv4.

    Args:
        family: `scaled-yolov4` or `retinanet`.
        metric: `ap` or `ap50`.
    """
    data = OBSERVATIONS[family](metric)
    start = fit_law(LAWS[family], metric, data)
    run = _cross_validated(family, metric, SCHEMES[0], data, [str(i) for i in range(len(data))], start)
    return run, _cross_validated(family, metric, SCHEMES[1], data, [row.group for row in data], start)


def write_shipped(family: str, path: Path | None = None) -> None:
    """Fit all published runs of a family, cross-validate, and write the file that `scaler.accuracy.load` reads."""
    content: dict[str, object] = {"schema_version": SCHEMA_VERSION, "family": family}
    for metric in METRIC_NAMES:
        data = OBSERVATIONS[family](metric)
        names, fit = parameter_names(LAWS[family], metric), fit_law(LAWS[family], metric, data)
        parts = validate(family, metric)
        content[metric] = {
            "parameters": dict(zip(names, _rounded(fit.theta), strict=True)),
            "covariance": {name: _rounded(fit.covariance[i, : i + 1]) for i, name in enumerate(names)},
            "runs": dict(Counter(row.recipe for row in data)),
            "scores": {part.scheme: asdict(part.score) for part in parts},
            "networks": {
                name: {"n": n, "mean_absolute_error_ap": error} for name, (n, error) in parts[1].errors("group").items()
            },
        }
    write_atomic(shipped_file(family) if path is None else path, json.dumps(content, indent=1) + "\n")


def _cross_validated(
    family: str, metric: Metric, scheme: str, data: Sequence[Observation], folds: Sequence[str], start: LawFit
) -> CrossValidation:
    """Every fold predicted by a fit of the others; `start` only shortens the way to each fit."""
    held: list[HeldOut] = []
    for fold in dict.fromkeys(folds):
        kept = [row for row, name in zip(data, folds, strict=True) if name != fold]
        left_out = [row for row, name in zip(data, folds, strict=True) if name == fold]
        fit = fit_law(LAWS[family], metric, kept, start.theta)
        mean, variance = mean_and_variance(
            LAWS[family], metric, fit, [row.network for row in left_out], [row.recipe for row in left_out]
        )
        half = Z_90 * np.sqrt(variance)
        for row, middle, reach in zip(left_out, mean.tolist(), half.tolist(), strict=True):
            interval = (middle, middle - reach, middle + reach)
            held.append(HeldOut(row.network, row.published, *interval, row.name, row.group, row.recipe))
    return CrossValidation(family, f"COCO {METRIC_NAMES[metric]}", scheme, tuple(held), score(held))


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.7g}") for value in values]
