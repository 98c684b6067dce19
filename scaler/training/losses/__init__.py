"""What detectors are taught with: `detection_loss` gives the loss of a recipe for a graph's coding of boxes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor, distributed, nn

from scaler.errors import UnsupportedError
from scaler.graph.boxes import BoxCoding
from scaler.training.losses.base import LossFunction, Said, Task, counted
from scaler.training.losses.retinanet import retinanet
from scaler.training.losses.targets import LossParts, Targets
from scaler.training.losses.yolov3 import yolov3
from scaler.training.losses.yolov4 import scaled_yolov4
from scaler.training.network.codings import Outputs, anchors_of, by_scale, map_sizes, priors_of
from scaler.training.recipe import Loss, LossKind

LOSSES: Mapping[LossKind, LossFunction] = MappingProxyType(
    {"yolov3": yolov3, "scaled-yolov4": scaled_yolov4, "retinanet": retinanet}
)


class DetectionLoss(nn.Module):
    """A loss with its constants; move it to the device of the maps.

    With several processes it divides, in training mode, by what all of them have, so that the mean of their gradients
    is the gradient of one process with all pictures.
    """

    def __init__(self, coding: BoxCoding, classes: int, loss: Loss, batch: int) -> None:
        super().__init__()
        self.task = Task(coding, classes, loss, batch)
        for index, anchors in enumerate(anchors_of(coding)):
            self.register_buffer(f"anchors{index}", anchors, persistent=False)

    def forward(self, outputs: Outputs, targets: Targets) -> LossParts:
        """The loss of a batch, or of a part of one; those of the parts average, weighed by their pictures.

        Args:
            outputs: Raw maps `[batch, channels, height, width]` of any float type, for an input of any size.
            targets: The objects, on the same device.

        Raises:
            UnsupportedError: The maps are not of this coding and number of classes.
        """
        said = self._said(outputs)
        height, width = (  # of the input; RetinaNet's coarsest maps round up
            min(scale.stride * size[axis] for scale, size in zip(self.task.coding.scales, said.sizes, strict=True))
            for axis in (0, 1)
        )
        return LOSSES[self.task.loss.kind](self.task, said, counted(targets, width, height), self._mean)

    def _said(self, outputs: Outputs) -> Said:
        coding = self.task.coding
        rows, sizes = by_scale(outputs, coding), map_sizes(outputs, coding)
        fields = tuple(part.shape[2] for part in rows[0])
        expected = (self.task.classes, 4) if coding.kind == "retinanet" else (self.task.classes + 5,)
        if fields != expected:
            raise UnsupportedError(
                f"the network says {fields} numbers of a box, the loss of {self.task.classes} classes wants {expected}"
            )
        anchors = [self.get_buffer(f"anchors{index}") for index in range(len(coding.scales))]
        return Said(rows, anchors, priors_of(coding, sizes, anchors), sizes)

    def _mean(self, counts: Tensor) -> Tensor:
        if not (self.training and distributed.is_available() and distributed.is_initialized()):
            return counts
        total = counts.detach().clone()
        distributed.all_reduce(total)
        return total / distributed.get_world_size()


def detection_loss(coding: BoxCoding, classes: int, loss: Loss, *, batch: int) -> DetectionLoss:
    """The loss of a recipe for a network.

    Args:
        coding: The graph's.
        classes: Number of classes.
        loss: The recipe's.
        batch: Pictures of the optimiser's whole step, over all parts and processes; Scaled-YOLOv4's loss is multiplied
            by it, as its code does.

    Raises:
        UnsupportedError: The loss needs boxes of another kind.
    """
    if (loss.kind == "retinanet") != (coding.kind == "retinanet"):
        fitting = [kind for kind in LOSSES if (kind == "retinanet") == (coding.kind == "retinanet")]
        raise UnsupportedError(
            f"the loss {loss.kind!r} cannot train a network whose boxes are coded as {coding.kind!r}; "
            f"take a recipe with the loss {' or '.join(map(repr, fitting))}"
        )
    return DetectionLoss(coding, classes, loss, batch)
