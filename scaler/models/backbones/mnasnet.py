"""MNASNet-B1 at any width as an image classifier, which calibrates the device models.

Source: Tan et al., "MnasNet" (CVPR 2019), Figure 7a without squeeze-and-excitation; torchvision's for the rounding of
widths, which since its version 0.5 includes the stem.
"""

from __future__ import annotations

from functools import cache

from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import BatchNorm, Shape
from scaler.models.blocks import classifier_block, conv_block, conv_bn, depthwise_bn, inverted_residual, round_channels

STAGES = (
    (3, 2, 3, 24, 3),
    (5, 2, 3, 40, 3),
    (5, 2, 6, 80, 3),
    (3, 1, 6, 96, 2),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Kernel, stride of the first block, expansion, channels at width 1, repeats."""

HEAD_CHANNELS = 1280
NORM = BatchNorm(epsilon=1e-5, momentum=0.9997)


@cache
def separable_block(shape: Shape, channels: int) -> Block:
    """3x3 depthwise convolution with ReLU and linear 1x1 convolution, without residual."""
    block = BlockBuilder("separable convolution", shape)
    value = depthwise_bn(block, "depthwise", 0, activation="relu", norm=NORM, padding="symmetric")
    conv_bn(block, "project", value, channels, norm=NORM)
    return block.build()


def classifier(width: float = 1.0, resolution: int = 224, classes: int = 1000) -> Graph:
    """The image classifier.

    Args:
        width: Multiplier of the channel counts but the head's; trained weights exist for 0.5, 0.75, 1.0 and 1.3.
        resolution: Side of the square input in pixels.
        classes: Number of outputs.
    """
    graph = GraphBuilder((3, resolution, resolution))
    stem = conv_block(
        graph.input.shape, round_channels(32 * width), kernel=3, stride=2, activation="relu", norm=NORM,
        padding="symmetric",
    )  # fmt: skip
    x = graph.add("backbone.stem", stem, graph.input)
    x = graph.add("backbone.stage0", separable_block(x.shape, round_channels(16 * width)), x)
    for stage, (kernel, stride, expansion, channels, repeats) in enumerate(STAGES, start=1):
        for index in range(repeats):
            block = inverted_residual(
                x.shape,
                round_channels(channels * width),
                expansion=expansion,
                kernel=kernel,
                stride=1 if index else stride,
                activation="relu",
                norm=NORM,
                padding="symmetric",
            )
            x = graph.add(f"backbone.stage{stage}.block{index}", block, x)
    x = graph.add("backbone.head", conv_block(x.shape, HEAD_CHANNELS, activation="relu", norm=NORM), x)
    logits = graph.add("classifier", classifier_block(x.shape, classes), x)
    return graph.build(f"mnasnet-{width:g}-{resolution}", [("logits", logits)])
