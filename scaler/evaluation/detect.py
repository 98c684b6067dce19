"""From pictures of any size to detections in their own pixels, whatever runs the network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scaler.data.dataset import FloatArray, Image
from scaler.data.preprocessing import Fit, letterbox
from scaler.evaluation.detections import Detections, Detector, Selection
from scaler.evaluation.nms import nms


def detect(detector: Detector, images: Sequence[Image], selection: Selection) -> list[Detections]:
    """Objects of pictures of any size, which go through the network as one batch: `Detector.detect` for all."""
    if not images:
        return []
    fitted = [letterbox(image, detector.preprocessing) for image in images]
    boxes, scores = detector.raw(np.stack([image for image, _ in fitted]))
    return [
        selected(own_boxes, own_scores, fit, selection)
        for own_boxes, own_scores, (_, fit) in zip(boxes, scores, fitted, strict=True)
    ]


def selected(boxes: FloatArray, scores: FloatArray, fit: Fit, selection: Selection) -> Detections:
    """The best boxes of one fitted picture, in the picture's own pixels and cut at its edges.

    Args:
        boxes: `[boxes, 4]`, corners in input pixels.
        scores: `[boxes, classes]`.
        fit: How the picture lies in the input.
        selection: Which boxes are kept.
    """
    found = nms(boxes, scores, selection)
    return Detections(fit.back(found.corners), found.scores, found.labels)
