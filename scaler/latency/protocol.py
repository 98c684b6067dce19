"""What a published frame time holds beside the engine: the protocol of whoever measured it.

`frame = toolchain x engine + fixed + per_box x boxes`. Frame rates of the YOLO-ReT paper include post-processing
(decoding and non-maximum suppression), whose cost grows with the candidate boxes; they are of 20 classes, and
whether more classes cost more is not published, so nothing is added for them. The paper's classifiers (Table 1)
have the fixed part only; clean engine timings have neither. `toolchain` is the authors' unknown software stack
relative to clean engine timings, a mild function of the network's weights and resolution: careful labs agree
within 2 to 5 %, stacks differ by 10 to 20 %.
"""

from __future__ import annotations

import math
from typing import NamedTuple

OVERHEAD_PARAMETERS = ("fixed_ms", "ms_per_thousand_boxes")
TOOLCHAIN_PARAMETERS = ("toolchain", "toolchain_weights", "toolchain_pixels")

REFERENCE_WEIGHTS = 3e6
REFERENCE_MACS = 9e8
REFERENCE_PIXELS = 320**2
"""Where the toolchain's slopes act as 1: in the middle of the published detectors."""


class Protocol(NamedTuple):
    """Which parts of a frame a measurement contains."""

    name: str
    fixed: bool
    boxes: bool
    toolchain: bool


YOLO_RET = Protocol("yolo-ret", fixed=True, boxes=True, toolchain=True)
"""Tables 2 to 5: detectors, batch 1, box post-processing included."""
YOLO_RET_CLASSIFIER = Protocol("yolo-ret classifier", fixed=True, boxes=False, toolchain=False)
"""Table 1."""
ENGINE = Protocol("engine", fixed=False, boxes=False, toolchain=False)
"""The network on the accelerator only, as `trtexec` times it."""


class NetworkSize(NamedTuple):
    """What overhead and toolchain depend on."""

    weights: float
    macs: float
    pixels: float
    boxes: float


def toolchain_slopes(size: NetworkSize) -> tuple[float, float, float]:
    """Multipliers of the toolchain parameters in `log(toolchain)`."""
    weights = math.log(size.weights / REFERENCE_WEIGHTS)
    macs = math.log(size.macs / REFERENCE_MACS)
    return 1.0, weights - macs / 2, math.log(size.pixels / REFERENCE_PIXELS)
