"""What every estimator gives: frame times of networks with intervals, from sums over their blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.graph.graph import Block, Graph
from scaler.latency.fusion import FusionRules, block_kernels
from scaler.latency.kernels import Kernel

FloatArray: TypeAlias = npt.NDArray[np.float64]
KernelSource = Literal["table", "model", "roofline"]
Z_90 = 1.6448536269514722
"""Half width of a central 90 % interval in standard deviations."""


class Prediction(NamedTuple):
    """Frame times of networks in ms, an array each; the low and high ends are those of the 90 % interval."""

    engine: FloatArray
    overhead: FloatArray
    frame: FloatArray
    log_sd: FloatArray
    """Standard deviation of the logarithm of the frame time."""
    engine_log_sd: FloatArray
    """The same of the engine time alone, of which less is known: only frames were published."""
    table_share: FloatArray
    """Share of the engine time found in the table."""

    @property
    def low(self) -> FloatArray:
        """Fast end of the frame time."""
        return np.asarray(self.frame * np.exp(-Z_90 * self.log_sd))

    @property
    def high(self) -> FloatArray:
        """Slow end of the frame time."""
        return np.asarray(self.frame * np.exp(Z_90 * self.log_sd))


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What the prediction of one network needs, summed over its blocks."""

    blocks: FloatArray
    pixels: float
    boxes: float


class BlockSums:
    """Sums of the columns of kernels by block; a block seen before costs one look-up.

    Args:
        rules: Fusion rules of the runtime.
        columns: `[kernels, width]` of what is to be added up.
        width: Number of columns.
    """

    def __init__(self, rules: FusionRules, columns: Callable[[Sequence[Kernel]], FloatArray], width: int) -> None:
        self._rules = rules
        self._columns = columns
        self._index: dict[Block, int] = {}
        self._sums = np.zeros((1024, width))

    def of(self, graph: Graph) -> Sums:
        """Add up a network's blocks."""
        index = self._index
        self._learn(dict.fromkeys([p.block for p in graph.placements if p.block not in index]))
        rows = [index[placement.block] for placement in graph.placements]
        _, height, width = graph.input_shape
        return Sums(self._sums[rows].sum(axis=0), height * width, graph.boxes)

    def _learn(self, blocks: Iterable[Block]) -> None:
        """Sum up the kernels of new blocks, all at once."""
        kernels: list[Kernel] = []
        rows: list[int] = []
        offsets: list[int] = []
        for block in blocks:
            row = self._index[block] = len(self._index)
            if row == len(self._sums):
                self._sums = np.vstack([self._sums, np.zeros_like(self._sums)])
            if found := block_kernels(block, self._rules):  # a block without kernels keeps its row of zeros
                rows.append(row)
                offsets.append(len(kernels))
                kernels += found
        if kernels:
            places: dict[Kernel, int] = {}  # the same kernel stands in many blocks
            found_at = [places.setdefault(kernel, len(places)) for kernel in kernels]
            self._sums[rows] = np.add.reduceat(self._columns(list(places))[found_at], offsets, axis=0)
