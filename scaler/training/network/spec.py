"""What a checkpoint says of its network beside the numbers: enough to build it again anywhere. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from scaler.data.preprocessing import Preprocessing
from scaler.graph.graph import Graph
from scaler.graph.padding import symmetric
from scaler.models.detectors.families import FAMILIES, Config

Value = str | int | float | bool
Anchors = tuple[tuple[tuple[float, float], ...], ...]
"""Width and height in input pixels, scale by scale in the order of the graph's `coding.scales`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """A detector for certain classes."""

    family: str
    """Key of `scaler.models.detectors.families.FAMILIES`."""
    parameters: Mapping[str, Value]
    """Of the family's configuration, the number of classes apart."""
    classes: tuple[str, ...]
    """Names, in the order of the outputs."""
    preprocessing: Preprocessing
    anchors: Anchors | None = None
    """In place of the published ones, as many of each scale."""
    symmetric_padding: bool = False
    """Whether the convolutions pad both sides alike, as torchvision's weights want, not as TensorFlow does."""

    @property
    def config(self) -> Config:
        """The family's configuration.

        Raises:
            UserError: A parameter is unknown or outside its range.
        """
        return FAMILIES[self.family].configure(**self.parameters, classes=len(self.classes))

    def graph(self) -> Graph:
        """The network."""
        graph = FAMILIES[self.family].build(self.config)
        if self.symmetric_padding:
            graph = symmetric(graph)
        if self.anchors is None or graph.coding is None:
            return graph
        scales = tuple(
            scale._replace(anchors=anchors) for scale, anchors in zip(graph.coding.scales, self.anchors, strict=True)
        )
        return replace(graph, coding=replace(graph.coding, scales=scales))
