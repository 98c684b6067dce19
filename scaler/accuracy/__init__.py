"""Accuracy of YOLO-ReT detectors predicted from the published results: VOC and COCO AP50, the paper's recipe.

`load` gives the shipped model and needs numpy only; `scaler.accuracy.validation.validate` recomputes its
errors and needs scipy.
"""

from scaler.accuracy.model import NOISE_AP, AccuracyModel, AccuracyPrediction, Predictions, Score, load

__all__ = ["NOISE_AP", "AccuracyModel", "AccuracyPrediction", "Predictions", "Score", "load"]
