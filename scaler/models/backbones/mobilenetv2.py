"""MobileNetV2 at any width, as `tf.keras.applications` builds it.

Source: Sandler et al., "MobileNetV2" (CVPR 2018), Table 2; Keras' `mobilenet_v2.py` for the rounding of widths,
TensorFlow padding and the head convolution that never gets narrower than 1280 channels. The names of the
last blocks follow the paper's bottlenecks: `head` is Keras' `Conv_1`, `stage7.block0` is `block_16`.
"""

from __future__ import annotations

from functools import cache

from scaler.graph.graph import Graph, GraphBuilder
from scaler.graph.ops import BatchNorm, PaddingStyle
from scaler.models.backbones.trunk import Trunk
from scaler.models.blocks import classifier_block, conv_block, inverted_residual, round_channels

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Per stage: expansion, channels at width 1, repeats, stride of the first block."""

HEAD_CHANNELS = 1280
PUBLISHED_DROP = 2
"""YOLO-ReT drops `block_16` and `Conv_1` (released code: the tap `block_15_add`)."""


@cache
def trunk(width: float, resolution: int, padding: PaddingStyle = "same") -> Trunk:
    """The convolutional part of MobileNetV2: stem, 17 inverted residuals, 1x1 head convolution.

    Args:
        width: Multiplier of all channel counts; trained weights exist for 0.35, 0.5, 0.75, 1.0, 1.3 and 1.4.
        resolution: Side of the square input in pixels.
        padding: Convention of the strided convolutions.
    """
    norm = BatchNorm(epsilon=1e-3, momentum=0.9)
    graph = GraphBuilder((3, resolution, resolution))
    stem = conv_block(
        graph.input.shape,
        round_channels(32 * width),
        kernel=3,
        stride=2,
        activation="relu6",
        norm=norm,
        padding=padding,
    )
    x = graph.add("backbone.stem", stem, graph.input)
    for number, (expansion, channels, repeats, stride) in enumerate(STAGES, start=1):
        for index in range(repeats):
            block = inverted_residual(
                x.shape,
                round_channels(channels * width),
                expansion=expansion,
                stride=stride if index == 0 else 1,
                norm=norm,
                padding=padding,
            )
            x = graph.add(f"backbone.stage{number}.block{index}", block, x)
    head = round_channels(HEAD_CHANNELS * width) if width > 1 else HEAD_CHANNELS
    x = graph.add("backbone.head", conv_block(x.shape, head, activation="relu6", norm=norm), x)
    built = graph.build("", [("features", x)])
    return Trunk(f"MobileNetV2 x{width:g}", built.input_shape, built.placements)


def classifier(width: float = 1.0, resolution: int = 224, classes: int = 1000) -> Graph:
    """The image classifier, for comparison with published counts and latencies."""
    body = trunk(width, resolution)
    graph = GraphBuilder(body.input_shape, body.placements)
    _, taps = body.truncated(0)
    logits = graph.add("classifier", classifier_block(taps[32].shape, classes), taps[32])
    return graph.build(f"mobilenetv2-{width:g}-{resolution}", [("logits", logits)])
