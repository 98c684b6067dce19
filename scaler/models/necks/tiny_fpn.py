"""The feature pyramid of YOLOv4-tiny and tiny-3l: a 1x1 root and, a level, enlargement, concatenation and one 3x3.

Source: `yolov4-tiny.cfg` and `yolov4-tiny-3l.cfg` of the authors. The lateral map is the transition of a backbone
block, not its whole output.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from scaler.graph.graph import Block, BlockBuilder, GraphBuilder, Tensor
from scaler.graph.ops import Concat, Shape, Upsample
from scaler.models.blocks_csp import Style, unit, unit_block


@cache
def path_block(coarse: Shape, lateral: Shape, link: int, channels: int, style: Style) -> Block:
    """1x1 to `link` and enlargement of the coarse map, concatenated before the lateral one; 3x3 over both."""
    block = BlockBuilder("path", coarse, lateral)
    value = unit(block, "link", 0, link, style)
    value = block.add("up", Upsample(lateral[1] // coarse[1]), value)
    value = block.add("concat", Concat(), value, 1)
    unit(block, "out", value, channels, style, kernel=3)
    return block.build()


def add_tiny_fpn(
    graph: GraphBuilder,
    levels: Mapping[int, Tensor],
    *,
    widths: Mapping[int, int],
    links: Mapping[int, int],
    style: Style,
) -> dict[int, Tensor]:
    """Place the neck; returns one map a stride, coarsest first.

    Args:
        graph: Where to place it.
        levels: The backbone's maps by stride.
        widths: Channels of the neck's maps by stride.
        links: Channels that come down to a stride.
        style: Activation and normalisation.
    """
    coarsest, *finer = sorted(widths, reverse=True)
    x = levels[coarsest]
    x = graph.add(f"neck.stride{coarsest}", unit_block(x.shape, widths[coarsest], style), x)
    maps = {coarsest: x}
    for stride in finer:
        side = levels[stride]
        path = path_block(x.shape, side.shape, links[stride], widths[stride], style)
        maps[stride] = x = graph.add(f"neck.stride{stride}", path, x, side)
    return maps
