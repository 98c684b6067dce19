"""Raw feature collection and redistribution (RFCR), the core of YOLO-ReT.

Source: Ganesh et al., "YOLO-ReT" (WACV 2022), section 3.1 and Figure 1; the released code fixes what the
paper leaves open: bare 1x1 convolutions to 48 channels *before* the resize, free scalars initialised to 1,
a depthwise-separable block to 96 channels, redistribution by concatenation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from scaler.graph.graph import Block, BlockBuilder, GraphBuilder, Tensor
from scaler.graph.ops import BatchNorm, Concat, Conv, MaxPool, Shape, WeightedSum
from scaler.models.blocks import conv_bn, depthwise_bn, resize

COLLECTED_CHANNELS = 48
REDISTRIBUTED_CHANNELS = 96
MEETING_STRIDE = 16
NORM = BatchNorm(epsilon=1e-3, momentum=0.99)


@cache
def collect_block(shapes: tuple[Shape, ...], size: int, kernel: int) -> Block:
    """Bring all maps to side `size`, add them up and mix them with a separable convolution.

    Args:
        shapes: Tapped maps, coarsest first; a map of stride 4 is pooled before its convolution, as in the code.
        size: Side of the map at stride 16.
        kernel: Of the depthwise convolution; 5 in the paper.
    """
    block = BlockBuilder("RFCR", *shapes)
    collected = []
    for index, shape in enumerate(shapes):
        value, name = index, f"in{index}"
        shortcut = shape[1] == 4 * size
        if shortcut:
            value = block.add(f"{name}.pool", MaxPool(4, 4), value)
        value = block.add(f"{name}.conv", Conv(COLLECTED_CHANNELS), value)
        collected.append(resize(block, name, value, size))
    value = block.add("sum", WeightedSum(), *collected)
    value = depthwise_bn(block, "mix", value, kernel=kernel, activation="relu6", norm=NORM)
    conv_bn(block, "point", value, REDISTRIBUTED_CHANNELS, activation="relu6", norm=NORM)
    return block.build()


@cache
def redistribute_block(feature: Shape, mixed: Shape) -> Block:
    """Concatenate the mixed map, resized, behind a raw feature map."""
    block = BlockBuilder("RFCR", feature, mixed)
    moved = resize(block, "resize", 1, feature[1])
    block.add("concat", Concat(), 0, moved)
    return block.build()


def add_rfcr(
    graph: GraphBuilder,
    taps: Mapping[int, Tensor],
    strides: tuple[int, ...],
    *,
    kernel: int,
    shortcut: bool,
    targets: tuple[int, ...] = (),
) -> dict[int, Tensor]:
    """Collect the maps of `strides` (and of stride 4 with `shortcut`) and redistribute to `targets`, else `strides`."""
    sources = [taps[stride] for stride in sorted(strides, reverse=True)]
    if shortcut:
        sources.append(taps[4])
    size = taps[MEETING_STRIDE].shape[1]
    collect = collect_block(tuple(tap.shape for tap in sources), size, kernel)
    mixed = graph.add("rfcr.collect", collect, *sources)
    return {
        stride: graph.add(
            f"rfcr.stride{stride}", redistribute_block(taps[stride].shape, mixed.shape), taps[stride], mixed
        )
        for stride in targets or strides
    }
