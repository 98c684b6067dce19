"""Raw maps to boxes and scores in torch, for losses and evaluation: the formulas of `scaler.export.decode`.

Boxes are corners `x1, y1, x2, y2` in input pixels, not clipped, in the order of the exported file: scale by scale, row
by row, cell by cell, anchor by anchor. Sizes come from the maps, so one coding serves every input size; whatever the
maps' type (autocast), boxes are computed at 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from scaler.graph.boxes import BoxCoding, BoxCodingKind

LARGEST_GROWTH = math.log(1000 / 16)
"""Of a box of RetinaNet over its anchor, as a logarithm: Detectron's clamp, as in `scaler.export.decode`."""
FINITE_GROWTH = 16.0
"""The same of a box of `yolov3`, which the formula leaves unbounded: nine million times the anchor, so no box that
could be meant is cut, and areas stay finite at 32 bits."""
SMALLEST_SIDE = 1e-4
"""Pixels; sides below count as this where their logarithm is taken."""

Outputs: TypeAlias = Mapping[str, Tensor]
"""Raw maps `[batch, anchors fields, height, width]` by the graph's labels."""


class Priors(NamedTuple):
    """Constants of boxes in input pixels, `[boxes, 2]` each: x, y or width, height."""

    origin: Tensor
    """Centre of the box where what the network says of it is 0."""
    reach: Tensor
    """How far the centre moves as that goes to 1."""
    anchor: Tensor
    """Sides of the anchor box."""

    def at(self, index: Tensor) -> Priors:
        """Those of certain boxes."""
        return Priors(*(part[index] for part in self))

    @property
    def boxes(self) -> Tensor:
        """Anchor boxes in the middle of their origin, `[boxes, 4]`."""
        return _corners(self.origin, self.anchor)


def decoded(outputs: Outputs, coding: BoxCoding) -> tuple[Tensor, Tensor]:
    """Boxes `[batch, boxes, 4]` and scores `[batch, boxes, classes]`, 0 to 1, both float32."""
    said = [torch.cat([part[place] for part in by_scale(outputs, coding)], 1).float() for place in range(_maps(coding))]
    device = said[0].device
    priors = joined(priors_of(coding, map_sizes(outputs, coding), anchors_of(coding, device)))
    numbers = said[-1]
    return boxes_from(coding.kind, numbers[..., :4], priors), _scores(coding.kind, said)


def by_scale(outputs: Outputs, coding: BoxCoding) -> list[tuple[Tensor, ...]]:
    """Of every scale its outputs as rows `[batch, boxes, fields]`; maps that are channels last are not copied."""
    return [tuple(_rows(outputs[label], len(scale.anchors)) for label in scale.outputs) for scale in coding.scales]


def map_sizes(outputs: Outputs, coding: BoxCoding) -> list[tuple[int, int]]:
    """Height and width of every scale's maps in cells."""
    return [(outputs[scale.outputs[0]].shape[2], outputs[scale.outputs[0]].shape[3]) for scale in coding.scales]


def anchors_of(coding: BoxCoding, device: torch.device | str = "cpu") -> list[Tensor]:
    """Of every scale its anchors `[anchors, 2]`."""
    return [torch.tensor(scale.anchors, dtype=torch.float32, device=device) for scale in coding.scales]


def priors_of(coding: BoxCoding, sizes: Sequence[tuple[int, int]], anchors: Sequence[Tensor]) -> list[Priors]:
    """Of every scale the constants of its boxes.

    Args:
        coding: The formula and the strides.
        sizes: Height and width of the maps.
        anchors: What `anchors_of` gives, on the device of the result.
    """
    found = []
    for scale, (height, width), sides in zip(coding.scales, sizes, anchors, strict=True):
        x, y = (scale.stride * torch.arange(cells, dtype=sides.dtype, device=sides.device) for cells in (width, height))
        corner = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 1, 2)
        corner = corner.expand(-1, len(sides), -1).reshape(-1, 2)
        anchor = sides.repeat(height * width, 1)
        if coding.kind == "retinanet":
            found.append(Priors(corner + scale.stride / 2, anchor, anchor))
        else:
            reach = torch.full_like(corner, coding.xy_scale * scale.stride)
            found.append(Priors(corner - (coding.xy_scale - 1) / 2 * scale.stride, reach, anchor))
    return found


def joined(parts: Sequence[Priors]) -> Priors:
    """The constants of all scales, one below the other."""
    return Priors(*(torch.cat(part) for part in zip(*parts, strict=True)))


Formula: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""From the network's `xy` and `wh` to the shift of the centre in reaches and the sides in anchors."""

_FORMULAS: Mapping[BoxCodingKind, Formula] = MappingProxyType(
    {
        "yolov3": lambda xy, wh: (xy.sigmoid(), wh.clamp(max=FINITE_GROWTH).exp()),
        "yolov4": lambda xy, wh: (xy.sigmoid(), (2 * wh.sigmoid()).square()),
        "retinanet": lambda xy, wh: (xy, wh.clamp(max=LARGEST_GROWTH).exp()),
    }
)


def boxes_from(kind: BoxCodingKind, numbers: Tensor, priors: Priors) -> Tensor:
    """Boxes from the four numbers `[..., boxes, 4]` that the network says of each."""
    shift, growth = _FORMULAS[kind](numbers[..., :2].float(), numbers[..., 2:].float())
    return _corners(priors.origin + shift * priors.reach, growth * priors.anchor)


def deltas_to(boxes: Tensor, priors: Priors) -> Tensor:
    """What RetinaNet should say so that its boxes are these, `[..., boxes, 4]`."""
    low, high = boxes[..., :2], boxes[..., 2:]
    growth = (high - low).clamp(min=SMALLEST_SIDE) / priors.anchor
    return torch.cat([((low + high) / 2 - priors.origin) / priors.reach, growth.log()], -1)


def _corners(centre: Tensor, sides: Tensor) -> Tensor:
    return torch.cat([centre - sides / 2, centre + sides / 2], -1)


def _rows(raw: Tensor, anchors: int) -> Tensor:
    batch, channels, height, width = raw.shape
    return raw.permute(0, 2, 3, 1).reshape(batch, height * width * anchors, channels // anchors)


def _maps(coding: BoxCoding) -> int:
    """Outputs of a scale: RetinaNet has classes and boxes apart."""
    return len(coding.scales[0].outputs)


def _scores(kind: BoxCodingKind, said: Sequence[Tensor]) -> Tensor:
    if kind == "retinanet":
        return said[0].sigmoid()
    chances = said[0][..., 4:].sigmoid()
    return chances[..., 1:] * chances[..., :1]
