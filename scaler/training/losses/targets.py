"""What a batch of pictures should be answered with, and what the losses say of the answer."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Targets(NamedTuple):
    """The objects of a batch, a row each."""

    boxes: Tensor
    """`[objects, 4]`, float32: x1, y1, x2, y2 in input pixels."""
    labels: Tensor
    """`[objects]`, int64."""
    pictures: Tensor
    """`[objects]`, int64: index of the picture in the batch."""

    def to(self, device: str) -> Targets:
        """Copy to a device."""
        return Targets(*(part.to(device, non_blocking=True) for part in self))


class LossParts(NamedTuple):
    """The parts of a loss with their weights applied, scalars; what is optimised is their sum."""

    box: Tensor
    objectness: Tensor
    """Zero for RetinaNet, which has none."""
    classes: Tensor

    @property
    def total(self) -> Tensor:
        """What is optimised."""
        return self.box + self.objectness + self.classes
