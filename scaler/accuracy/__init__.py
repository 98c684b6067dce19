"""Accuracy of detectors predicted from published results, family by family, for the recipes that were published.

`load(family, dataset, metric, recipe)` gives a shipped model and needs numpy only; the modules `validation` (YOLO-ReT)
and `validation_laws` (the other families) recompute the errors and need scipy.
"""

from scaler.accuracy.prediction import (
    NOISE_AP,
    AccuracyModel,
    AccuracyPrediction,
    Facts,
    Predictions,
    Recipe,
    Score,
)
from scaler.accuracy.shipped import load, metrics

__all__ = [
    "NOISE_AP",
    "AccuracyModel",
    "AccuracyPrediction",
    "Facts",
    "Predictions",
    "Recipe",
    "Score",
    "load",
    "metrics",
]
