"""How much boxes overlap. Boxes are corners `x1, y1, x2, y2`.

Areas and gradients stay finite for boxes without area: an overlap with nothing is 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_EPSILON = 1e-9
"""Least area and squared length that is divided by."""
_LEAST_SIDE = 1e-6
"""Least height that a width is divided by."""


def area(boxes: Tensor) -> Tensor:
    """Of boxes `[..., 4]`; 0 where they are inverted."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of each of `[..., n, 4]` with each of `[..., m, 4]`: `[..., n, m]`."""
    return iou(first[..., :, None, :], second[..., None, :, :])


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes `[..., 4]`, pair by pair; 0 to 1."""
    return _iou_and_union(first, second)[0]


def giou(first: Tensor, second: Tensor) -> Tensor:
    """Rezatofighi et al., "Generalized IoU" (CVPR 2019): IoU less the share of the hull in neither; -1 to 1."""
    overlap, union = _iou_and_union(first, second)
    width, height = _hull(first, second)
    hull = (width * height).clamp(min=_EPSILON)
    return overlap - (hull - union) / hull


def ciou(first: Tensor, second: Tensor) -> Tensor:
    """Zheng et al., "Distance-IoU Loss" (AAAI 2020), complete IoU.

    IoU less the squared distance of the centres in hull diagonals, less a term for unlike aspect ratios, whose weight
    has no gradient.
    """
    overlap = iou(first, second)
    unlike = (4 / math.pi**2) * (_angle(first) - _angle(second)).square()
    with torch.no_grad():
        weight = unlike / (1 - overlap + unlike).clamp(min=_EPSILON)
    return overlap - _distance(first, second) - weight * unlike


def _iou_and_union(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    width = (torch.minimum(first[..., 2], second[..., 2]) - torch.maximum(first[..., 0], second[..., 0])).clamp(min=0)
    height = (torch.minimum(first[..., 3], second[..., 3]) - torch.maximum(first[..., 1], second[..., 1])).clamp(min=0)
    shared = width * height
    union = (area(first) + area(second) - shared).clamp(min=_EPSILON)
    return shared / union, union


def _hull(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of the smallest box around both."""
    width = torch.maximum(first[..., 2], second[..., 2]) - torch.minimum(first[..., 0], second[..., 0])
    height = torch.maximum(first[..., 3], second[..., 3]) - torch.minimum(first[..., 1], second[..., 1])
    return width, height


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Squared distance of the centres over the squared diagonal of the hull."""
    width, height = _hull(first, second)
    apart = (first[..., :2] + first[..., 2:] - second[..., :2] - second[..., 2:]) / 2
    return apart.square().sum(-1) / (width.square() + height.square()).clamp(min=_EPSILON)


def _angle(boxes: Tensor) -> Tensor:
    sides = boxes[..., 2:] - boxes[..., :2]
    return torch.atan(sides[..., 0] / sides[..., 1].clamp(min=_LEAST_SIDE))
