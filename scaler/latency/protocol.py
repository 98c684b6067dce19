"""What a published frame time holds beside the engine: the protocol of whoever measured it.

`frame = toolchain x engine + fixed + per_output x outputs`. Frame rates of the YOLO-ReT paper include post-processing
(decoding, non-maximum suppression on the host), whose cost grows with the numbers that the network puts
out; its classifiers (Table 1) have the fixed part only; clean engine timings have neither. `toolchain` is the
authors' unknown software stack relative to clean engine timings, a mild function of the network's weights and
resolution: careful labs agree within 2 to 5 %, stacks differ by 10 to 20 %.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scaler.graph.graph import Graph
from scaler.graph.ops import elements

OVERHEAD_PARAMETERS = ("fixed_ms", "ms_per_million_outputs")
TOOLCHAIN_PARAMETERS = ("toolchain", "toolchain_weights", "toolchain_pixels")

REFERENCE_WEIGHTS = 3e6
REFERENCE_MACS = 9e8
REFERENCE_PIXELS = 320**2
"""Where the toolchain's slopes act as 1: in the middle of the published detectors."""


class Protocol(NamedTuple):
    """Which parts of a frame a measurement contains."""

    name: str
    fixed: bool
    outputs: bool
    toolchain: bool


YOLO_RET = Protocol("yolo-ret", fixed=True, outputs=True, toolchain=True)
"""Tables 2 to 5: detectors, batch 1, box post-processing included."""
YOLO_RET_CLASSIFIER = Protocol("yolo-ret classifier", fixed=True, outputs=False, toolchain=False)
"""Table 1."""
ENGINE = Protocol("engine", fixed=False, outputs=False, toolchain=False)
"""The network on the accelerator only, as `trtexec` times it."""


class NetworkSize(NamedTuple):
    """What overhead and toolchain depend on."""

    weights: float
    macs: float
    pixels: float
    outputs: float
    """Numbers that the network puts out."""


def output_elements(graph: Graph) -> int:
    """Numbers that a network puts out, which the host decodes."""
    return sum(elements(graph.placements[place].block.shape) for _, place in graph.outputs)


def toolchain_slopes(size: NetworkSize) -> tuple[float, float, float]:
    """Multipliers of the toolchain parameters in `log(toolchain)`."""
    weights = math.log(size.weights / REFERENCE_WEIGHTS)
    macs = math.log(size.macs / REFERENCE_MACS)
    return 1.0, weights - macs / 2, math.log(size.pixels / REFERENCE_PIXELS)
