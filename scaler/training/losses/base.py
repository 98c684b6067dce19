"""What the losses share: what the network said, the objects that count, means over processes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from scaler.graph.boxes import BoxCoding
from scaler.training.losses.targets import LossParts, Targets
from scaler.training.network.codings import Priors
from scaler.training.recipe import Loss


@dataclass(frozen=True, slots=True)
class Task:
    """What a loss is of."""

    coding: BoxCoding
    classes: int
    loss: Loss
    batch: int
    """Pictures of the optimiser's whole step."""


class Said(NamedTuple):
    """What the network said of a batch, scale by scale in the coding's order."""

    rows: Sequence[tuple[Tensor, ...]]
    """Of every scale its outputs, `[batch, boxes, fields]` each."""
    anchors: Sequence[Tensor]
    """Of every scale, `[anchors, 2]`."""
    priors: Sequence[Priors]
    sizes: Sequence[tuple[int, int]]
    """Height and width of the maps in cells."""

    @property
    def batch(self) -> int:
        """Pictures."""
        return self.rows[0][0].shape[0]

    def joined(self, place: int) -> Tensor:
        """One output of all scales, `[batch, boxes, fields]`."""
        return torch.cat([part[place] for part in self.rows], 1)


class Objects(NamedTuple):
    """The objects of a batch, at least one row."""

    boxes: Tensor
    """`[objects, 4]`, clipped to the input."""
    labels: Tensor
    pictures: Tensor
    alive: Tensor
    """`[objects]`, bool: whether anything of it lies in the input."""

    @property
    def centres(self) -> Tensor:
        """`[objects, 2]`."""
        return (self.boxes[:, :2] + self.boxes[:, 2:]) / 2

    @property
    def sides(self) -> Tensor:
        """Width and height, `[objects, 2]`."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    def one_hot(self, classes: int) -> Tensor:
        """Labels as `[objects, classes]`, float32."""
        return one_hot(self.labels, classes)


Mean: TypeAlias = Callable[[Tensor], Tensor]
"""Mean of counts over the processes that train together."""
LossFunction: TypeAlias = Callable[[Task, Said, Objects, Mean], LossParts]


def counted(targets: Targets, width: float, height: float) -> Objects:
    """The objects clipped to the input; those outside, and one row that is always added, are not alive.

    So no loss needs a case for a batch without objects, and none of the shapes depends on what lies where, which would
    make a GPU wait.
    """
    boxes = torch.cat([targets.boxes.float(), targets.boxes.new_zeros(1, 4, dtype=torch.float32)])
    boxes = torch.stack([boxes[:, 0::2].clamp(0, width), boxes[:, 1::2].clamp(0, height)], -1).flatten(1)
    none = targets.labels.new_zeros(1)
    alive = (boxes[:, 2:] > boxes[:, :2]).all(1)
    return Objects(boxes, torch.cat([targets.labels, none]), torch.cat([targets.pictures, none]), alive)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """`[..., classes]`, float32; torch's own checks the labels first, for which a GPU would wait."""
    return (labels[..., None] == torch.arange(classes, device=labels.device)).float()


def largest(values: Tensor, index: Tensor, size: int) -> Tensor:
    """The largest non-negative value at every index, `[size]`; 0 where there is none."""
    return values.new_zeros(size).scatter_reduce(0, index, values, "amax")
