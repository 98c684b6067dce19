"""The loss of the released Scaled-YOLOv4 code (`compute_loss`, `build_targets` of its branches csp and large).

An object belongs to every anchor whose sides are within a factor of its own, in the cell of its centre and in the
nearest neighbours beside and above or below it, as far as the coding lets a box's centre go. Of every scale: the mean
of 1 - CIoU over its boxes, the mean cross entropy of the classes, and that of the objectness over all boxes, whose
truth is the CIoU that the box has; weighted by scale, added, and multiplied by the pictures of the optimiser's step.

Boxes are decoded by the graph's own coding, so networks with YOLOv3's can be trained so too; since their centres stay
in their cells, an object there belongs to its own cell only.

Where it differs from the code on purpose: where objects want one box its objectness is the best CIoU, not that of
whoever was written last; the classes are trained also where there is only one, since not every head has a bias to
start from.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as entropy

from scaler.training.losses.base import Mean, Objects, Said, Task, largest
from scaler.training.losses.boxes import ciou
from scaler.training.losses.targets import LossParts
from scaler.training.network.codings import boxes_from

_COCO_CLASSES = 80
"""The gain of the classes is given for these."""


class Candidates(NamedTuple):
    """The boxes of one scale that objects may belong to, `[cells, objects, anchors]` each."""

    slots: Tensor
    """Index among the boxes of the scale."""
    chosen: Tensor
    """Whether the object belongs to it."""


def scaled_yolov4(task: Task, said: Said, objects: Objects, mean: Mean) -> LossParts:
    """See above."""
    coding, loss, levels = task.coding, task.loss, len(task.coding.scales)
    weights = dict(zip(sorted(scale.stride for scale in coding.scales), balance(levels), strict=True))
    objectness = torch.zeros((), device=objects.boxes.device)
    sums, counts = [], []
    for index, scale in enumerate(coding.scales):
        level = _level(task, said, index, objects)
        objectness = objectness + weights[scale.stride] * level[0]
        sums.append(level[1])
        counts.append(level[2])
    boxes, classes = (torch.stack(sums, 1) / mean(torch.stack(counts)).clamp(min=1e-6)).sum(1)
    gain = task.batch * 3 / levels
    return LossParts(
        loss.box * gain * boxes,
        loss.objectness * gain * (1.4 if levels >= 4 else 1) * objectness,
        loss.classes * gain / _COCO_CLASSES * classes,
    )


def balance(levels: int) -> tuple[float, ...]:
    """Weights of the objectness, finest scale first; the code's, two levels being the first two of its four."""
    return (4.0, 1.0, 0.5, 0.4, 0.1) if levels == 5 else (4.0, 1.0, 0.4, 0.1)[:levels]


def _level(task: Task, said: Said, index: int, objects: Objects) -> tuple[Tensor, Tensor, Tensor]:
    """Of one scale: mean of the objectness, sums of boxes and classes `[2]`, and how many boxes were summed."""
    (rows,), priors = said.rows[index], said.priors[index]
    batch, count, _ = rows.shape
    found = candidates(task, said, index, objects)
    shape = found.slots.shape
    slots, chosen = found.slots.flatten(), found.chosen.flatten().float()
    places = (objects.pictures[:, None] * count + found.slots).flatten()
    own = rows.flatten(0, 1)[places].float()

    truth = objects.boxes[:, None].expand(*shape, 4).reshape(-1, 4)
    overlap = ciou(boxes_from(task.coding.kind, own[:, :4], priors.at(slots)), truth)
    labels = objects.one_hot(task.classes)[:, None].expand(*shape, task.classes).reshape(-1, task.classes)
    classes = entropy(own[:, 5:], labels, reduction="none").sum(1)
    wanted = largest(overlap.detach().clamp(min=0) * chosen, places, batch * count).view(batch, count)
    sums = torch.stack([((1 - overlap) * chosen).sum(), (classes * chosen).sum()])
    return entropy(rows[..., 4].float(), wanted), sums, chosen.sum()


def candidates(task: Task, said: Said, index: int, objects: Objects) -> Candidates:
    """Where the objects may belong on one scale; of a fixed size, so that a GPU need not wait for what was chosen."""
    scale, anchors, (height, width) = task.coding.scales[index], said.anchors[index], said.sizes[index]
    centres = objects.centres / scale.stride
    growth = objects.sides[:, None] / anchors
    fits = (torch.maximum(growth, 1 / growth).amax(-1) < task.loss.anchor_ratio) & objects.alive[:, None]
    column, row = centres.long().unbind(1)
    column, row = column.clamp(0, width - 1), row.clamp(0, height - 1)
    columns, rows, reached = [column], [row], [objects.alive]
    if (task.coding.xy_scale - 1) / 2 >= 0.5:
        aside, above = (torch.where(within < 0.5, -1, 1) for within in (centres % 1).unbind(1))
        uneven_x, uneven_y = (centres % 1 != 0.5).unbind(1)
        columns += [(column + aside).clamp(0, width - 1), column]
        rows += [row, (row + above).clamp(0, height - 1)]
        reached += [uneven_x & (columns[1] != column), uneven_y & (rows[2] != row)]
    cells = torch.stack(rows) * width + torch.stack(columns)
    slots = cells[..., None] * len(anchors) + torch.arange(len(anchors), device=cells.device)
    return Candidates(slots, fits & torch.stack(reached)[..., None])
