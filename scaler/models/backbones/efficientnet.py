"""EfficientNet B0 to B3.

Source: Tan and Le, "EfficientNet" (ICML 2019), Table 1 and the compound coefficients of the reference
implementation. Squeeze-and-excitation is reduced to a quarter of the block's *input* channels.
"""

from __future__ import annotations

import math
from functools import cache

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Graph, GraphBuilder
from scaler.graph.ops import BatchNorm, PaddingStyle
from scaler.models.backbones.trunk import Trunk
from scaler.models.blocks import classifier_block, conv_block, inverted_residual, round_channels

STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
"""Per stage of B0: kernel, stride of the first block, expansion, channels, repeats."""

SCALING = {"b0": (1.0, 1.0), "b1": (1.0, 1.1), "b2": (1.1, 1.2), "b3": (1.2, 1.4)}
"""Width and depth multiplier of each variant."""

PUBLISHED_DROP = {"b0": 2, "b1": 3, "b2": 3, "b3": 3}
"""YOLO-ReT drops the head convolution and stage 7. B3: the released code's tap `add_17`; `add_16` is 4."""


@cache
def trunk(variant: str, resolution: int, padding: PaddingStyle = "same") -> Trunk:
    """The convolutional part: stem, MBConv stages 1 to 7, 1x1 head convolution.

    Args:
        variant: `b0` to `b3`.
        resolution: Side of the square input in pixels.
        padding: Convention of the strided convolutions.
    """
    if variant not in SCALING:
        raise UsageError(unknown_name("EfficientNet variant", variant, SCALING))
    width, depth = SCALING[variant]
    norm = BatchNorm(epsilon=1e-3, momentum=0.99)
    graph = GraphBuilder((3, resolution, resolution))
    stem = conv_block(
        graph.input.shape,
        round_channels(32 * width),
        kernel=3,
        stride=2,
        activation="swish",
        norm=norm,
        padding=padding,
    )
    x = graph.add("backbone.stem", stem, graph.input)
    for number, (kernel, stride, expansion, channels, repeats) in enumerate(STAGES, start=1):
        for index in range(math.ceil(repeats * depth)):
            block = inverted_residual(
                x.shape,
                round_channels(channels * width),
                expansion=expansion,
                kernel=kernel,
                stride=stride if index == 0 else 1,
                activation="swish",
                se_channels=max(1, x.channels // 4),
                norm=norm,
                padding=padding,
            )
            x = graph.add(f"backbone.stage{number}.block{index}", block, x)
    head = conv_block(x.shape, round_channels(1280 * width), activation="swish", norm=norm)
    x = graph.add("backbone.head", head, x)
    built = graph.build("", [("features", x)])
    return Trunk(f"EfficientNet-{variant.upper()}", built.input_shape, built.placements)


def classifier(variant: str, resolution: int = 224, classes: int = 1000) -> Graph:
    """The image classifier, for comparison with published counts and latencies."""
    body = trunk(variant, resolution)
    graph = GraphBuilder(body.input_shape, body.placements)
    _, taps = body.truncated(0)
    logits = graph.add("classifier", classifier_block(taps[32].shape, classes), taps[32])
    return graph.build(f"efficientnet-{variant}-{resolution}", [("logits", logits)])
