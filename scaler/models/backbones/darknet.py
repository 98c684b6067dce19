"""DarkNet-19, DarkNet-53 and CSPDarkNet-53 as image classifiers, which calibrate the device models.

Source: the configuration files that came with Redmon and Farhadi, "YOLO9000" (CVPR 2017) and "YOLOv3" (2018), and
`csdarknet53.cfg` of Wang et al., "CSPNet" (CVPR Workshops 2020).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder, Tensor
from scaler.graph.ops import Add, BatchNorm, Concat, Conv, GlobalAveragePool, MaxPool, Padding, Shape
from scaler.models.blocks import classifier_block
from scaler.models.blocks_csp import Style, residual_unit, unit, unit_block
from scaler.models.detectors.checks import require

STYLE = Style("leaky", BatchNorm(epsilon=1e-5, momentum=0.99))

DARKNET19_STAGES = (
    (32,),
    (64,),
    (128, 64, 128),
    (256, 128, 256),
    (512, 256, 512, 256, 512),
    (1024, 512, 1024, 512, 1024),
)
"""Channels of the convolutions, 3x3 and 1x1 in turn; a max-pool between stages."""

DARKNET53_REPEATS = (1, 2, 8, 8, 4)
"""Residual blocks a stage; each stage halves the map and doubles the channels."""

STEM_CHANNELS = 32


@cache
def pooled_unit_block(shape: Shape, channels: int, stride: int = 2) -> Block:
    """2x2 max-pool and 3x3 convolution; a pool of stride 1 pads bottom and right, so that the map keeps its size."""
    block = BlockBuilder("pooled convolution", shape)
    value = block.add("pool", MaxPool(2, stride, Padding() if stride == 2 else Padding(0, 0, 1, 1)), 0)
    unit(block, "unit", value, channels, STYLE, kernel=3)
    return block.build()


@cache
def csp_block(shape: Shape, width: int, reduced: int, repeats: int) -> Block:
    """Cross-stage partial stage: residuals on `width` channels, as many passed by, both joined and mixed."""
    block = BlockBuilder("CSP stage", shape)
    bypass = unit(block, "bypass", 0, width, STYLE)
    value = unit(block, "main", 0, width, STYLE)
    for index in range(repeats):
        inner = unit(block, f"block{index}.reduce", value, reduced, STYLE)
        inner = unit(block, f"block{index}.conv", inner, width, STYLE, kernel=3)
        value = block.add(f"block{index}.residual", Add(), value, inner)
    value = unit(block, "transition", value, width, STYLE)
    joined = block.add("concat", Concat(), value, bypass)
    unit(block, "mix", joined, shape[0], STYLE)
    return block.build()


@cache
def convolutional_classifier(shape: Shape, classes: int) -> Block:
    """1x1 convolution to the classes, and the mean over the map: the top of DarkNet-19."""
    block = BlockBuilder("convolutional classifier", shape)
    block.add("pool", GlobalAveragePool(), block.add("conv", Conv(classes, bias=True), 0))
    return block.build()


def _darknet19(graph: GraphBuilder) -> Tensor:
    x = graph.input
    for stage, widths in enumerate(DARKNET19_STAGES):
        for index, width in enumerate(widths):
            if stage and index == 0:
                block = pooled_unit_block(x.shape, width)
            else:
                block = unit_block(x.shape, width, STYLE, kernel=1 if index % 2 else 3)
            x = graph.add(f"backbone.stage{stage}.conv{index}", block, x)
    return x


def _darknet53(graph: GraphBuilder) -> Tensor:
    x = graph.add("backbone.stem", unit_block(graph.input.shape, STEM_CHANNELS, STYLE, kernel=3), graph.input)
    for stage, repeats in enumerate(DARKNET53_REPEATS, start=1):
        x = graph.add(f"backbone.stage{stage}.down", unit_block(x.shape, 2 * x.channels, STYLE, kernel=3, stride=2), x)
        for index in range(repeats):
            x = graph.add(f"backbone.stage{stage}.block{index}", residual_unit(x.shape, x.channels // 2, STYLE), x)
    return x


def _cspdarknet53(graph: GraphBuilder) -> Tensor:
    x = graph.add("backbone.stem", unit_block(graph.input.shape, STEM_CHANNELS, STYLE, kernel=3), graph.input)
    for stage, repeats in enumerate(DARKNET53_REPEATS, start=1):
        x = graph.add(f"backbone.stage{stage}.down", unit_block(x.shape, 2 * x.channels, STYLE, kernel=3, stride=2), x)
        half = x.channels // 2
        width = x.channels if stage == 1 else half  # the first stage is too narrow to be halved
        x = graph.add(f"backbone.stage{stage}.csp", csp_block(x.shape, width, half, repeats), x)
    return x


VARIANTS: Mapping[str, tuple[Callable[[GraphBuilder], Tensor], Callable[[Shape, int], Block]]] = MappingProxyType(
    {
        "darknet-19": (_darknet19, convolutional_classifier),
        "darknet-53": (_darknet53, classifier_block),
        "cspdarknet-53": (_cspdarknet53, classifier_block),
    }
)
"""What places the convolutional part, and what builds the top."""


def classifier(variant: str, resolution: int = 224, classes: int = 1000) -> Graph:
    """The image classifier.

    Args:
        variant: `darknet-19`, `darknet-53` or `cspdarknet-53`.
        resolution: Side of the square input in pixels, a multiple of 32.
        classes: Number of outputs.

    Raises:
        UsageError: An unknown variant, or a resolution that is no multiple of 32.
    """
    if variant not in VARIANTS:
        raise UsageError(unknown_name("DarkNet", variant, VARIANTS))
    require("resolution", resolution, resolution >= 32 and resolution % 32 == 0, "a multiple of 32, from 32 on")
    add_body, top = VARIANTS[variant]
    graph = GraphBuilder((3, resolution, resolution))
    x = add_body(graph)
    return graph.build(f"{variant}-{resolution}", [("logits", graph.add("classifier", top(x.shape, classes), x))])
