"""The backbone of YOLOv4-tiny: three CSPOSANet blocks with partial computation, a max-pool behind each.

Source: Wang et al., "Scaled-YOLOv4" (CVPR 2021), section 4.2 and Figure 3; `yolov4-tiny.cfg` of the authors.
"""

from __future__ import annotations

from functools import cache

from scaler.graph.graph import GraphBuilder
from scaler.models.backbones.trunk import Trunk
from scaler.models.blocks_csp import Style, partial_osa, pooled_paths, unit_block


@cache
def trunk(stem: int, growths: tuple[int, ...], last: int, resolution: int, style: Style) -> Trunk:
    """Two convolutions of stride 2, the blocks, and a 3x3 convolution at stride 32.

    A block is its entry of twice the growth and the transition that it computes from half of the entry; the next stage
    reads both, pooled. The last block of a stride is the transition, which is what the necks read.

    Args:
        stem: Channels of the first convolution.
        growths: Growth of each block.
        last: Channels of the last convolution.
        resolution: Side of the square input in pixels.
        style: Activation and normalisation.
    """
    graph = GraphBuilder((3, resolution, resolution))
    x = graph.add("backbone.stem", unit_block(graph.input.shape, stem, style, kernel=3, stride=2), graph.input)
    x = graph.add("backbone.stage1.down", unit_block(x.shape, 2 * growths[0], style, kernel=3, stride=2), x)
    for number, growth in enumerate(growths, start=1):
        entry = graph.add(f"backbone.stage{number}.entry", unit_block(x.shape, 2 * growth, style, kernel=3), x)
        grown = graph.add(f"backbone.stage{number}.block", partial_osa(entry.shape, style), entry)
        x = graph.add(f"backbone.stage{number + 1}.pool", pooled_paths(entry.shape, grown.shape), entry, grown)
    x = graph.add(f"backbone.stage{len(growths) + 1}.conv", unit_block(x.shape, last, style, kernel=3), x)
    built = graph.build("", [("features", x)])
    return Trunk("CSPDarknet53-tiny", built.input_shape, built.placements)
