"""The loss of the released YOLO-ReT code (`preprocess_true_boxes`, `YoloLoss`), which is YOLOv3's with GIoU.

An object belongs to one box: that of the anchor, of all scales', which overlaps it best when both are centred, in the
cell where its centre lies. Sums over a batch are divided by its pictures; the three parts weigh the same.

Where it differs from the code on purpose: a prediction is spared for overlapping an object of its own picture, of any
scale, not of the whole batch and of its own scale; centres are not rounded down to pixels; where two objects want one
box the later gets it whole, while the code keeps both classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as entropy
from torch.nn.functional import pad

from scaler.training.losses.base import Mean, Objects, Said, Task, largest
from scaler.training.losses.boxes import giou, iou, pairwise_iou
from scaler.training.losses.targets import LossParts
from scaler.training.network.codings import boxes_from, joined


def yolov3(task: Task, said: Said, objects: Objects, mean: Mean) -> LossParts:
    """See above."""
    rows, priors, loss = said.joined(0), joined(said.priors), task.loss
    count = rows.shape[1]
    slots = best_slots(task, said, objects)
    places = objects.pictures * count + slots
    wins = (objects.alive & last(places, objects.alive, said.batch * count)).float()
    own = rows.flatten(0, 1)[places].float()

    box = 1 - giou(boxes_from(task.coding.kind, own[:, :4], priors.at(slots)), objects.boxes)
    classes = entropy(own[:, 5:], objects.one_hot(task.classes), reduction="none").sum(1)
    taken = largest(wins, places, said.batch * count).view(said.batch, count)
    with torch.no_grad():
        spared = overlapping(boxes_from(task.coding.kind, rows[..., :4], priors), objects, loss.ignore_iou)
    teaches = taken.maximum((~spared).float())
    objectness = entropy(rows[..., 4].float(), taken, reduction="none") * teaches

    share = 1 / mean(torch.full((), said.batch, dtype=box.dtype, device=box.device))
    return LossParts(
        loss.box * share * (box * wins).sum(),
        loss.objectness * share * objectness.sum(),
        loss.classes * share * (classes * wins).sum(),
    )


def best_slots(task: Task, said: Said, objects: Objects) -> Tensor:
    """Index of each object's box among all of its picture's, `[objects]`."""
    at_origin = (pad(sides, (2, 0)) for sides in (objects.sides, torch.cat(list(said.anchors))))
    best = pairwise_iou(*at_origin).argmax(1)
    slots = torch.zeros_like(best)
    box, anchor = 0, 0
    for scale, (height, width) in zip(task.coding.scales, said.sizes, strict=True):
        column, row = (objects.centres / scale.stride).long().unbind(1)
        cell = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
        here = box + cell * len(scale.anchors) + best - anchor
        slots = torch.where(best >= anchor, here, slots)
        box, anchor = box + height * width * len(scale.anchors), anchor + len(scale.anchors)
    return slots


def last(places: Tensor, alive: Tensor, size: int) -> Tensor:
    """Whether no later living object has the same place."""
    order = torch.arange(1, len(places) + 1, device=places.device)
    return largest(order * alive, places, size)[places] == order


def overlapping(boxes: Tensor, objects: Objects, least: float) -> Tensor:
    """Whether a predicted box overlaps any object of its picture by `least` or more, `[batch, boxes]`."""
    hits = iou(objects.boxes[:, None], boxes[objects.pictures]) >= least
    return boxes.new_zeros(boxes.shape[:2]).index_add(0, objects.pictures, (hits & objects.alive[:, None]).float()) > 0
