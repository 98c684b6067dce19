"""The detector families by name, for whoever reads a family's name from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Protocol

from scaler.graph.graph import Graph
from scaler.models.detectors import retinanet, scaled_yolov4, yolo_ret

__all__ = ["FAMILIES", "Config", "Family", "build", "family_of", "parameters_of"]


class Config(Protocol):
    """What every family's configuration is: a frozen dataclass that checks itself, and has at least these."""

    @property
    def name(self) -> str:
        """Short readable name."""

    @property
    def resolution(self) -> int:
        """Side of the square input in pixels."""

    @property
    def classes(self) -> int:
        """Number of classes."""


@dataclass(frozen=True, slots=True)
class Family:
    """How to get from parameters to a network."""

    name: str
    configure: Callable[..., Config]
    """The configuration's class: makes and checks one from the parameters of a search space and `classes`."""
    build: Callable[[Any], Graph]
    """Lowers a configuration."""
    dataset: str
    """The data set of its published results: `voc` or `coco`."""


FAMILIES = {
    family.name: family
    for family in (
        Family("yolo-ret", yolo_ret.YoloRetConfig, yolo_ret.build, "voc"),
        Family("scaled-yolov4", scaled_yolov4.ScaledYoloV4Config, scaled_yolov4.build, "coco"),
        Family("retinanet", retinanet.RetinaNetConfig, retinanet.build, "coco"),
    )
}

_BY_TYPE = {family.configure: family for family in FAMILIES.values()}


def family_of(config: Config) -> Family:
    """The family of a configuration."""
    return _BY_TYPE[type(config)]


def build(config: Config) -> Graph:
    """Lower a configuration of any family into its graph."""
    return _BY_TYPE[type(config)].build(config)


def parameters_of(config: Config) -> dict[str, Any]:
    """The parameters of a configuration, the number of classes apart."""
    return {field.name: getattr(config, field.name) for field in fields(config) if field.name != "classes"}  # type: ignore[arg-type]
