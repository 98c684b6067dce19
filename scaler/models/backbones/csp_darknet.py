"""CSP-Darknet at any depth and width: the backbone of YOLOv4, YOLOv4-CSP and YOLOv4-P5 to P7.

Source: Wang et al., "Scaled-YOLOv4" (CVPR 2021), sections 4.1 and 4.3, and the released configurations. A stage
halves the map with a 3x3 convolution and is then a CSP stage or, where that does not pay, plain Darknet residuals.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from scaler.graph.graph import GraphBuilder, Tensor
from scaler.models.backbones.trunk import Trunk
from scaler.models.blocks_csp import Style, csp_merge, residual_unit, unit_block


class Stage(NamedTuple):
    """One stage behind its down-sampling convolution."""

    channels: int
    units: int
    """Residual units."""
    path: int
    """Channels of each of the two CSP paths; 0 is a stage of plain residuals."""
    hidden: int
    """Channels inside a residual unit."""


def csp_stage(channels: int, units: int) -> Stage:
    """Two paths of half the channels; the units inside have no bottleneck."""
    return Stage(channels, units, channels // 2, channels // 2)


def dark_stage(channels: int, units: int) -> Stage:
    """Residuals of Darknet53, which halve the channels inside."""
    return Stage(channels, units, 0, channels // 2)


@cache
def trunk(name: str, stem: int, stages: tuple[Stage, ...], resolution: int, style: Style) -> Trunk:
    """Stem at full resolution and the stages, stride 2 first.

    Args:
        name: For messages.
        stem: Channels of the first convolution.
        stages: From stride 2 on.
        resolution: Side of the square input in pixels.
        style: Activation and normalisation.
    """
    graph = GraphBuilder((3, resolution, resolution))
    x = graph.add("backbone.stem", unit_block(graph.input.shape, stem, style, kernel=3), graph.input)
    for number, stage in enumerate(stages, start=1):
        x = _add_stage(graph, f"backbone.stage{number}", x, stage, style)
    built = graph.build("", [("features", x)])
    return Trunk(name, built.input_shape, built.placements)


def _add_stage(graph: GraphBuilder, name: str, x: Tensor, stage: Stage, style: Style) -> Tensor:
    x = source = graph.add(f"{name}.down", unit_block(x.shape, stage.channels, style, kernel=3, stride=2), x)
    if stage.path:
        x = graph.add(f"{name}.entry", unit_block(x.shape, stage.path, style), x)
    repeated = residual_unit(x.shape, stage.hidden, style)
    for index in range(stage.units):
        x = graph.add(f"{name}.unit{index}", repeated, x)
    if stage.path:
        x = graph.add(f"{name}.merge", csp_merge(x.shape, source.shape, stage.channels, style), x, source)
    return x
