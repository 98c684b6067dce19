"""VGG 11 to 19 as image classifiers, with or without batch normalisation: they calibrate the device models.

Source: Simonyan and Zisserman, "Very Deep Convolutional Networks" (ICLR 2015), Table 1, columns A, B, D and E. The
convolutions keep their biases beside batch normalisation, as in torchvision, which added it and has the published
measurements.
"""

from __future__ import annotations

from functools import cache

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import Activation, BatchNorm, Conv, Flatten, Linear, MaxPool, Padding, Shape
from scaler.models.detectors.checks import require

CONVOLUTIONS = {
    "11": (1, 1, 2, 2, 2),
    "13": (2, 2, 2, 2, 2),
    "16": (2, 2, 3, 3, 3),
    "19": (2, 2, 4, 4, 4),
}
"""Per stage."""

WIDTHS = (64, 128, 256, 512, 512)
FEATURES = 4096
"""Outputs of the two hidden fully connected layers."""

NORM = BatchNorm(epsilon=1e-5, momentum=0.9)


@cache
def stage_block(shape: Shape, width: int, convolutions: int, normalised: bool) -> Block:
    """3x3 convolutions with ReLU, and the 2x2 max-pool that ends the stage."""
    block, value = BlockBuilder("VGG stage", shape), 0
    for index in range(convolutions):
        value = block.add(f"conv{index}.conv", Conv(width, 3, padding=Padding(1, 1, 1, 1), bias=True), value)
        value = block.add(f"conv{index}.bn", NORM, value) if normalised else value
        value = block.add(f"conv{index}.relu", Activation("relu"), value)
    block.add("pool", MaxPool(2, 2), value)
    return block.build()


@cache
def dense_classifier(shape: Shape, features: int, classes: int) -> Block:
    """Three fully connected layers on the whole map, the first two with `features` outputs and ReLU."""
    block = BlockBuilder("dense classifier", shape)
    value = block.add("flatten", Flatten(), 0)
    for index in range(2):
        value = block.add(f"hidden{index}.linear", Linear(features), value)
        value = block.add(f"hidden{index}.relu", Activation("relu"), value)
    block.add("linear", Linear(classes), value)
    return block.build()


def classifier(depth: str, resolution: int = 224, classes: int = 1000, *, normalised: bool = False) -> Graph:
    """The image classifier.

    Args:
        depth: `11`, `13`, `16` or `19`.
        resolution: Side of the square input in pixels, a multiple of 32. The first fully connected layer reads the
            whole map of stride 32, so its parameters are the published ones at 224.
        classes: Number of outputs.
        normalised: Whether batch normalisation follows every convolution.

    Raises:
        UsageError: An unknown depth, or a resolution that is no multiple of 32.
    """
    if depth not in CONVOLUTIONS:
        raise UsageError(unknown_name("VGG depth", depth, CONVOLUTIONS))
    require("resolution", resolution, resolution >= 32 and resolution % 32 == 0, "a multiple of 32, from 32 on")
    graph = GraphBuilder((3, resolution, resolution))
    x = graph.input
    for stage, (count, width) in enumerate(zip(CONVOLUTIONS[depth], WIDTHS, strict=True), start=1):
        x = graph.add(f"backbone.stage{stage}", stage_block(x.shape, width, count, normalised), x)
    logits = graph.add("classifier", dense_classifier(x.shape, FEATURES, classes), x)
    return graph.build(f"vgg-{depth}{'-bn' if normalised else ''}-{resolution}", [("logits", logits)])
