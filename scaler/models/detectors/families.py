"""The detector families by name, for whoever reads a family's name from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scaler.graph.graph import Graph
from scaler.models.detectors import yolo_ret


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How to get from parameters to a network."""

    name: str
    configure: Callable[..., yolo_ret.YoloRetConfig]
    """Makes and checks a configuration from the parameters of a search space and `classes`."""
    build: Callable[[yolo_ret.YoloRetConfig], Graph]


FAMILIES = {
    family.name: family for family in (Family(name="yolo-ret", configure=yolo_ret.YoloRetConfig, build=yolo_ret.build),)
}
