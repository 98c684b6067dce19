"""The path aggregation of YOLOv4-CSP and P5 to P7: SPP, then reversed CSP blocks down and up again (CSP-PAN).

Source: Wang et al., "Scaled-YOLOv4" (CVPR 2021), sections 4.1 and 4.3, and the released configurations.
"""

from __future__ import annotations

from collections.abc import Mapping

from scaler.graph.graph import GraphBuilder, Tensor
from scaler.models.blocks_csp import Style, bottom_up_block, reversed_csp, spp_csp, top_down_block


def add_csp_pan(
    graph: GraphBuilder,
    taps: Mapping[int, Tensor],
    widths: Mapping[int, int],
    *,
    units: int,
    style: Style,
    spp_pairs: tuple[int, int] = (1, 1),
) -> dict[int, Tensor]:
    """Place the neck; returns one map a stride, finest first.

    Args:
        graph: Where to place it.
        taps: The backbone's maps by stride.
        widths: Channels of the neck by stride, for the strides that it works on.
        units: Of every reversed CSP block.
        style: Activation and normalisation.
        spp_pairs: Convolution pairs before and after the pooling, see `spp_csp`.
    """
    *finer, coarsest = sorted(widths)
    tap = taps[coarsest]
    x = graph.add(f"neck.spp{coarsest}", spp_csp(tap.shape, widths[coarsest], style, *spp_pairs), tap)
    top_down = {coarsest: x}
    for stride in reversed(finer):
        tap, width = taps[stride], widths[stride]
        x = graph.add(f"neck.top_down.path{stride}", top_down_block(x.shape, tap.shape, width, style), x, tap)
        x = graph.add(f"neck.top_down.stride{stride}", reversed_csp(x.shape, width, units, style), x)
        top_down[stride] = x
    maps = {min(widths): x}
    for stride in [*finer, coarsest][1:]:
        lateral = top_down[stride]
        x = graph.add(f"neck.bottom_up.path{stride}", bottom_up_block(x.shape, lateral.shape, style), x, lateral)
        x = graph.add(f"neck.bottom_up.stride{stride}", reversed_csp(x.shape, widths[stride], units, style), x)
        maps[stride] = x
    return maps
