"""ResNet v1 50 to 152 as TensorFlow-Slim builds them, as image classifiers: they calibrate the device models.

Source: He et al., "Deep Residual Learning" (CVPR 2016), Table 1, and the networks released with TensorFlow-Slim, which
were measured on Jetson TX2. The parameters are those of `scaler.models.backbones.resnet`; the work is 15 % less,
since the *last* bottleneck of a stage has the stride, and with it a 1x1 max-pool that skips pixels beside it.
"""

from __future__ import annotations

from functools import cache

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import Activation, Add, MaxPool, Shape
from scaler.models.backbones.resnet import DEPTHS, NORM, add_path, stem_block
from scaler.models.blocks import classifier_block, conv_bn

BOTTLENECK_DEPTHS = tuple(depth for depth, (bottleneck, _) in DEPTHS.items() if bottleneck)


@cache
def bottleneck_block(shape: Shape, width: int, stride: int) -> Block:
    """Bottleneck 1x1, 3x3, 1x1; its shortcut is projected where the channels differ, else every `stride`th pixel."""
    block = BlockBuilder("bottleneck", shape)
    value = add_path(block, ((1, width, 1), (3, width, stride), (1, 4 * width, 1)))
    shortcut = 0
    if shape[0] != 4 * width:
        shortcut = conv_bn(block, "shortcut", 0, 4 * width, stride=stride, norm=NORM)
    elif stride > 1:
        shortcut = block.add("shortcut", MaxPool(1, stride), 0)
    value = block.add("residual", Add(), value, shortcut)
    block.add("relu", Activation("relu"), value)
    return block.build()


def classifier(depth: str, resolution: int = 224, classes: int = 1000) -> Graph:
    """The image classifier.

    Args:
        depth: `50`, `101` or `152`.
        resolution: Side of the square input in pixels.
        classes: Number of outputs.

    Raises:
        UsageError: An unknown depth.
    """
    if depth not in BOTTLENECK_DEPTHS:
        raise UsageError(unknown_name("ResNet depth", depth, BOTTLENECK_DEPTHS))
    _, repeats = DEPTHS[depth]
    graph = GraphBuilder((3, resolution, resolution))
    x = graph.add("backbone.stem", stem_block(graph.input.shape), graph.input)
    for stage, count in enumerate(repeats):
        for index in range(count):
            stride = 2 if index == count - 1 and stage < len(repeats) - 1 else 1
            block = bottleneck_block(x.shape, 64 * 2**stage, stride)
            x = graph.add(f"backbone.stage{stage + 1}.block{index}", block, x)
    logits = graph.add("classifier", classifier_block(x.shape, classes), x)
    return graph.build(f"resnet-{depth}-slim-{resolution}", [("logits", logits)])
