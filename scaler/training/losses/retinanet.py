"""RetinaNet's loss: Lin et al., "Focal Loss" (ICCV 2017), section 4, as Detectron computes it.

An anchor belongs to the object of its picture that it overlaps best, by an IoU of 0.5 or more; below 0.4 it is
background, between it teaches nothing. The anchor that overlaps an object best belongs to an object too, whatever the
overlap, as in detectron2; Detectron's own code takes those below 0.4 back, and objects smaller than every anchor would
not be learned. Focal loss of all anchors and classes, smooth L1 of the deltas; both sums are divided by the number of
anchors with an object and, as in Detectron, one more a picture.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from scaler.training.losses.base import Mean, Objects, Said, Task, one_hot
from scaler.training.losses.boxes import pairwise_iou
from scaler.training.losses.focal import focal
from scaler.training.losses.targets import LossParts
from scaler.training.network.codings import deltas_to, joined

POSITIVE, NEGATIVE = 0.5, 0.4


class Matches(NamedTuple):
    """What every anchor of every picture stands for, `[batch, anchors]` each."""

    owner: Tensor
    """Index of an object; 0 where there is none."""
    positive: Tensor
    """Whether it belongs to that object."""
    background: Tensor


def retinanet(task: Task, said: Said, objects: Objects, mean: Mean) -> LossParts:
    """See above."""
    loss, priors = task.loss, joined(said.priors)
    logits, deltas = said.joined(0).float(), said.joined(1).float()
    owner, positive, background = matches(priors.boxes, objects, said.batch)
    truth = one_hot(objects.labels[owner], task.classes) * positive[..., None]
    classes = focal(logits, truth, gamma=loss.gamma, alpha=loss.alpha).sum(-1) * (positive | background)
    wanted = deltas_to(objects.boxes[owner], priors)
    box = functional.smooth_l1_loss(deltas, wanted, beta=loss.beta, reduction="none").sum(-1) * positive
    share = 1 / mean(positive.sum().float() + said.batch)
    return LossParts(loss.box * share * box.sum(), torch.zeros_like(share), loss.classes * share * classes.sum())


def matches(anchors: Tensor, objects: Objects, batch: int) -> Matches:
    """Give the anchors `[anchors, 4]` of every picture to its objects."""
    overlap = pairwise_iou(objects.boxes, anchors) * objects.alive[:, None]
    index = objects.pictures[:, None].expand_as(overlap)
    best = _by_picture(overlap, index, batch)
    touches = overlap > 0
    order = torch.arange(len(overlap), device=overlap.device)[:, None]
    owner = _by_picture(order * (touches & (overlap == best[objects.pictures])), index, batch)
    nearest = touches & (overlap == overlap.amax(1, keepdim=True))
    positive = (best >= POSITIVE) | (_by_picture(nearest.float(), index, batch) > 0)
    return Matches(owner, positive, (best < NEGATIVE) & ~positive)


def _by_picture(values: Tensor, index: Tensor, batch: int) -> Tensor:
    """The largest of the objects' values `[objects, anchors]`, at least 0, in every picture: `[batch, anchors]`."""
    return values.new_zeros(batch, values.shape[1]).scatter_reduce(0, index, values, "amax")
