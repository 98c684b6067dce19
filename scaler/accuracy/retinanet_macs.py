"""How many times fewer MACs a lighter RetinaNet head makes the whole network, counted on its graphs and cached."""

from __future__ import annotations

from functools import cache

from scaler.cost import placement_cost
from scaler.models.detectors.retinanet import RetinaNetConfig, build

__all__ = ["reduction"]

_RESOLUTION = 512  # all levels are whole there; the shares hardly depend on it
_PROBE = "resnet-18"  # the head does not depend on the backbone


@cache
def reduction(backbone: str, stride_in: str, width: int, towers: int, lighten: str) -> float:
    """MACs with full heads over those with the lighter ones, 1 or more, for 80 classes."""
    if lighten == "none":
        return 1.0
    body = _body_macs(backbone, stride_in, width)
    return (body + _head_macs(width, towers, "none")) / (body + _head_macs(width, towers, lighten))


@cache
def _body_macs(backbone: str, stride_in: str, width: int) -> int:
    """Backbone and pyramid."""
    config = RetinaNetConfig(
        backbone=backbone,
        stride_in="3x3" if stride_in == "3x3" else "1x1",
        width=width,
        towers=1,
        resolution=_RESOLUTION,
    )
    return _macs(config, head=False)


@cache
def _head_macs(width: int, towers: int, lighten: str) -> int:
    return _macs(
        RetinaNetConfig(backbone=_PROBE, width=width, towers=towers, lighten=lighten, resolution=_RESOLUTION), head=True
    )


def _macs(config: RetinaNetConfig, *, head: bool) -> int:
    placements = build(config).placements
    return sum(placement_cost(p).macs for p in placements if p.name.startswith("head") is head)
