"""A backbone as data: its blocks in order and the places where feature maps are tapped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType

from scaler.errors import UnsupportedError
from scaler.graph.graph import Placement, Tensor
from scaler.graph.ops import Shape

FINEST_STRIDE = 4
COARSEST_STRIDE = 32


@dataclass(frozen=True, eq=False)
class Trunk:
    """A complete backbone: blocks one after the other, each feeding the next.

    The tap of a stride is the last block of that stride; for stride 32 it is the last block that
    truncation leaves. Taps are block outputs (after the residual addition), as in the released YOLO-ReT code.
    """

    name: str
    input_shape: Shape
    placements: tuple[Placement, ...]

    def stride(self, place: int) -> int:
        """Total stride of a block's output, a power of two also where the size of the picture is none's multiple."""
        return int(2 ** round(math.log2(self.input_shape[1] / self.placements[place].block.shape[1])))

    @cached_property
    def max_drop(self) -> int:
        """How many trailing blocks can be dropped while a block of stride 32 remains."""
        coarse = sum(self.stride(place) == COARSEST_STRIDE for place in range(len(self.placements)))
        return coarse - 1

    def truncated(self, drop: int) -> tuple[tuple[Placement, ...], Mapping[int, Tensor]]:
        """The blocks that stay, and the tapped tensor of each stride from 4 to 32; computed once per cut.

        Raises:
            UnsupportedError: No feature map of stride 32 would be left.
        """
        if not 0 <= drop <= self.max_drop:
            raise UnsupportedError(
                f"{self.name}: cannot drop {drop} trailing blocks; allowed are 0 to {self.max_drop}, "
                f"since a block of stride {COARSEST_STRIDE} must remain for the detector's coarsest scale"
            )
        return _cut(self, drop)


@cache
def _cut(trunk: Trunk, drop: int) -> tuple[tuple[Placement, ...], Mapping[int, Tensor]]:
    kept = trunk.placements[: len(trunk.placements) - drop]
    taps = {trunk.stride(place): Tensor(place, placement.block.shape) for place, placement in enumerate(kept)}
    return kept, MappingProxyType({stride: tap for stride, tap in taps.items() if stride >= FINEST_STRIDE})
