"""MobileNet (v1) at any width as an image classifier, which calibrates the device models.

Source: Howard et al., "MobileNets" (arXiv 1704.04861), Table 1; widths are cut to whole channels, and strided
convolutions are padded, as in the released TensorFlow networks, which were measured.
"""

from __future__ import annotations

from functools import cache

from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import BatchNorm, Shape
from scaler.models.blocks import classifier_block, conv_block, conv_bn, depthwise_bn

STAGES = (
    (1, (64,)),
    (2, (128, 128)),
    (2, (256, 256)),
    (2, (512, 512, 512, 512, 512, 512)),
    (2, (1024, 1024)),
)
"""Stride of the first block and channels of every block."""

NORM = BatchNorm(epsilon=1e-3, momentum=0.9997)


def scaled(channels: int, width: float) -> int:
    """Channels at a width, at least 8."""
    return max(int(channels * width), 8)


@cache
def separable_block(shape: Shape, channels: int, stride: int) -> Block:
    """3x3 depthwise and 1x1 convolution, each with batch normalisation and ReLU6."""
    block = BlockBuilder("separable convolution", shape)
    value = depthwise_bn(block, "depthwise", 0, stride=stride, activation="relu6", norm=NORM)
    conv_bn(block, "pointwise", value, channels, activation="relu6", norm=NORM)
    return block.build()


def classifier(width: float = 1.0, resolution: int = 224, classes: int = 1000) -> Graph:
    """The image classifier.

    Args:
        width: Multiplier of all channel counts; trained weights exist for 0.25, 0.5, 0.75 and 1.0.
        resolution: Side of the square input in pixels.
        classes: Number of outputs; the released networks have 1001, with one for the background.
    """
    graph = GraphBuilder((3, resolution, resolution))
    stem = conv_block(graph.input.shape, scaled(32, width), kernel=3, stride=2, activation="relu6", norm=NORM)
    x = graph.add("backbone.stem", stem, graph.input)
    for stage, (stride, widths) in enumerate(STAGES, start=1):
        for index, channels in enumerate(widths):
            block = separable_block(x.shape, scaled(channels, width), 1 if index else stride)
            x = graph.add(f"backbone.stage{stage}.block{index}", block, x)
    logits = graph.add("classifier", classifier_block(x.shape, classes), x)
    return graph.build(f"mobilenetv1-{width:g}-{resolution}", [("logits", logits)])
