"""Anchor boxes for the user's data: k-means with 1 - IoU as distance.

Source: Redmon and Farhadi, "YOLO9000" (CVPR 2017), section 2, dimension clusters; sizes in input pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scaler.data.dataset import Dataset, FloatArray
from scaler.data.preprocessing import fit
from scaler.errors import UserError
from scaler.graph.boxes import Scale

ROUNDS = 100
RESTARTS = 5
LEAST_SIDE = 2.0
"""Smaller objects are not counted, in input pixels."""


class Clustered(NamedTuple):
    """Anchors, and how well they fit."""

    anchors: tuple[tuple[tuple[float, float], ...], ...]
    """Width and height in input pixels, scale by scale, as many of each as before."""
    mean_iou: float
    """Of the objects with their best anchor, both centred at the same place."""
    mean_iou_before: float
    """Of the anchors that these replace."""


def object_sizes(dataset: Dataset, size: int) -> FloatArray:
    """Width and height `[objects, 2]` of all objects in pixels of an input of this side, the ignored ones apart."""
    found = []
    for picture in dataset.pictures:
        corners = picture.boxes.corners[~picture.boxes.ignored]
        if len(corners) and picture.width and picture.height:
            scale = fit(picture.width, picture.height, size).scale
            found.append((corners[:, 2:] - corners[:, :2]) * scale)
    sizes = np.concatenate(found) if found else np.zeros((0, 2), np.float32)
    kept: FloatArray = sizes[(sizes >= LEAST_SIDE).all(axis=1)].astype(np.float32)
    return kept


def cluster_anchors(dataset: Dataset, scales: Sequence[Scale], size: int, seed: int = 0) -> Clustered:
    """Anchors for a data set: the smallest clusters for the scale of the smallest stride, and so on.

    Args:
        dataset: What is trained on.
        scales: Of the network, with the anchors that are to be replaced.
        size: Side of the network's input in pixels.
        seed: Of the first guesses.

    Raises:
        UserError: Fewer objects than anchors.
    """
    sizes = object_sizes(dataset, size)
    count = sum(len(scale.anchors) for scale in scales)
    if len(sizes) < count:
        raise UserError(
            f"{dataset.name}: {len(sizes)} objects of {LEAST_SIDE:g} pixels or more at {size} px are too few for "
            f"{count} anchors; label more, or take --anchors published"
        )
    found = _sorted(k_means(sizes, count, np.random.default_rng(seed)))
    parts: dict[int, tuple[tuple[float, float], ...]] = {}
    start = 0
    for place in sorted(range(len(scales)), key=lambda index: scales[index].stride):
        end = start + len(scales[place].anchors)
        parts[place] = tuple((round(float(w), 1), round(float(h), 1)) for w, h in found[start:end])
        start = end
    before = np.array([anchor for scale in scales for anchor in scale.anchors], np.float32)
    anchors = tuple(parts[place] for place in range(len(scales)))
    return Clustered(anchors, mean_best_iou(sizes, found), mean_best_iou(sizes, before))


def k_means(sizes: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """The best of several runs from different first guesses: `[count, 2]`."""
    runs = [_one_run(sizes, count, rng) for _ in range(RESTARTS)]
    return max(runs, key=lambda anchors: mean_best_iou(sizes, anchors))


def _one_run(sizes: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    anchors = _first_guess(sizes, count, rng)
    members = np.full(len(sizes), -1)
    for _ in range(ROUNDS):
        nearest = iou(sizes, anchors).argmax(axis=1)
        if (nearest == members).all():
            break
        members = nearest
        for index in range(count):
            if (own := members == index).any():
                anchors[index] = np.median(sizes[own], axis=0)
    return anchors


def _first_guess(sizes: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """Far apart ones are likelier: k-means++ (Arthur and Vassilvitskii, 2007)."""
    chosen = [sizes[rng.integers(len(sizes))]]
    while len(chosen) < count:
        distance = 1 - iou(sizes, np.array(chosen, np.float32)).max(axis=1)
        weights = np.maximum(distance, 1e-9) ** 2
        chosen.append(sizes[rng.choice(len(sizes), p=weights / weights.sum())])
    return np.array(chosen, np.float32)


def iou(sizes: FloatArray, anchors: FloatArray) -> FloatArray:
    """Overlap `[objects, anchors]` of boxes with one centre."""
    common = np.minimum(sizes[:, None], anchors[None]).prod(axis=2)
    union = sizes.prod(axis=1)[:, None] + anchors.prod(axis=1)[None] - common
    return np.asarray(common / union, np.float32)


def mean_best_iou(sizes: FloatArray, anchors: FloatArray) -> float:
    """How well anchors fit, 0 to 1."""
    return float(iou(sizes, anchors).max(axis=1).mean())


def _sorted(anchors: FloatArray) -> FloatArray:
    return anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
