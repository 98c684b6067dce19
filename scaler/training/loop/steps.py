"""One step of the optimiser: forward, loss, backward, part by part of the batch; then clip and move the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from scaler.data.preprocessing import Preprocessing
from scaler.training.loop.adversarial import adversarial
from scaler.training.loop.multi_scale import resize_batch
from scaler.training.loop.optimiser import set_rates
from scaler.training.loop.plan import Precision
from scaler.training.loop.precision import autocast
from scaler.training.loop.schedule import Rates
from scaler.training.losses.targets import LossParts, Targets
from scaler.training.network.input import ToInput

LOSSES = ("box", "objectness", "classes", "adversarial")
"""Parts of what is optimised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSettings:
    """What stays the same from step to step."""

    device: str
    precision: Precision = "fp32"
    preprocessing: Preprocessing
    channels_last: bool = False
    clip: float = 0.0
    """Largest norm of the gradient; 0 is none."""
    adversarial: float = 0.0
    """Weight of the loss on attacked pictures; 0 is off."""
    adversarial_step: float = 0.0


class Stepper:
    """A network with its loss and optimiser."""

    def __init__(
        self, network: nn.Module, loss: nn.Module, optimiser: Optimizer, scaler: GradScaler, settings: StepSettings
    ) -> None:
        """Take the parts.

        Args:
            network: Of raw maps by label; with a method `no_sync` where processes average their gradients.
            loss: Of the maps and `Targets`, as `DetectionLoss`; the losses of parts average.
            optimiser: Of the network's weights that learn.
            scaler: Of the gradients.
            settings: The rest.
        """
        self.network, self.loss, self.optimiser, self.scaler, self.settings = network, loss, optimiser, scaler, settings
        self._learning = [weight for group in optimiser.param_groups for weight in group["params"]]
        self._to_input = ToInput(settings.preprocessing, settings.device)

    def gradients(self, images: Tensor, targets: Targets, micro_batch: int, size: int) -> Tensor:
        """Leave the gradients of the mean loss of a batch in the weights, `micro_batch` pictures at a time.

        Weighed by their pictures, the parts add up to the gradients of the batch in one piece for the loss of YOLOv3.
        Scaled-YOLOv4's and RetinaNet's divide by the assigned anchors of the part, so that an object of a part with
        few of them weighs more than in one piece; so does the released code. And batch normalisation, where it learns,
        sees each part alone.

        Args:
            images: `[batch, 3, size, size]`, uint8.
            targets: Their objects.
            micro_batch: Most pictures at a time.
            size: Side of the square that the network gets, in pixels: the pictures' own without multi-scale.

        Returns:
            The losses `[4]`, float32, on the device: means over the pictures, in the order of `LOSSES`.
        """
        self.optimiser.zero_grad(set_to_none=True)
        losses = torch.zeros(len(LOSSES), device=self.settings.device)
        for part, wanted, last in parts(images, targets, micro_batch):
            resized = resize_batch(self._to_input.unit(part), wanted.to(self.settings.device), size)
            share = len(part) / len(images)
            losses += share * self._backward(*resized, share, last)
        return losses

    def update(self, rates: Rates) -> Tensor:
        """Move the weights along their gradients; returns the gradients' norm before clipping, on the device.

        Gradients that are not finite move nothing on a CPU. On a GPU, which must not be waited for, they all count as
        0: the momentum goes on, and no weight is lost.
        """
        set_rates(self.optimiser, rates)
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self._learning, self.settings.clip or math.inf)
        if self.scaler.is_enabled() or self._usable(norm):  # the scaler looks for itself, and lowers its scale
            self.scaler.step(self.optimiser)
            self.scaler.update()
        return norm.detach()

    def _usable(self, norm: Tensor) -> bool:
        """Whether the gradients may move the weights; on a GPU they may after this."""
        if norm.device.type == "cpu":
            return math.isfinite(norm)
        drop_unless_finite(self._learning, norm)
        return True

    def _backward(self, pictures: Tensor, targets: Targets, share: float, last: bool) -> Tensor:
        """Add the gradients of one part, pictures from 0 to 1; returns its losses."""
        attacks = self.settings.adversarial > 0
        pictures.requires_grad_(attacks)
        found = self._one_pass(pictures, targets, share, sync=last and not attacks)
        extra = torch.zeros_like(found.box)
        if attacks and pictures.grad is not None:
            attacked = adversarial(pictures.detach(), pictures.grad, self.settings.adversarial_step)
            weight = self.settings.adversarial
            extra = weight * self._one_pass(attacked, targets, share * weight, sync=last).total
        return torch.stack([found.box, found.objectness, found.classes, extra]).float()

    def _one_pass(self, pictures: Tensor, targets: Targets, weight: float, *, sync: bool) -> LossParts:
        """Forward and backward of pictures from 0 to 1; returns the losses, unweighted and apart from their graph."""
        inputs = self._to_input.normalised(pictures)
        if self.settings.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self._averaging(sync):
            with autocast(self.settings.device, self.settings.precision):
                maps = self.network(inputs)
            found: LossParts = self.loss({label: value.float() for label, value in maps.items()}, targets)
            torch.autograd.backward(self.scaler.scale(found.total * weight))
        return LossParts(*(part.detach() for part in found))

    def _averaging(self, sync: bool) -> AbstractContextManager[object]:
        """Whether the processes average their gradients after this backward pass: only after the last of a step."""
        no_sync = getattr(self.network, "no_sync", None)
        return nullcontext() if sync or no_sync is None else no_sync()


def drop_unless_finite(weights: Iterable[nn.Parameter], norm: Tensor) -> None:
    """Set all gradients to 0 if their norm is not finite, without waiting for it."""
    broken = ~norm.isfinite()
    for weight in weights:
        if weight.grad is not None:
            weight.grad.masked_fill_(broken, 0.0)


def parts(images: Tensor, targets: Targets, most: int) -> Iterator[tuple[Tensor, Targets, bool]]:
    """A batch in as few pieces of at most so many pictures as it takes, alike to one picture; the last is told."""
    count = math.ceil(len(images) / most)
    edges = [len(images) * index // count for index in range(count + 1)]
    for first, end in pairwise(edges):
        inside = (targets.pictures >= first) & (targets.pictures < end)
        pictures = targets.pictures[inside] - first
        wanted = Targets(targets.boxes[inside], targets.labels[inside], pictures) if count > 1 else targets
        yield images[first:end], wanted, end == len(images)
