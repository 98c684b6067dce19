"""What a published time holds beside the engine: the protocol of whoever measured it.

`frame = toolchain x engine + overhead`, where every protocol has an overhead of its own. Frame rates of the YOLO-ReT
paper include post-processing (decoding and non-maximum suppression), whose cost grows with the candidate boxes; they
are of 20 classes, and whether more classes cost more is not published, so nothing is added for them. The paper's
classifiers (Table 1) have the fixed part only. Other laboratories time the engine: by its own events (no overhead), by
the host's clock (launch and synchronisation), or with copies.

The toolchain is a software stack relative to that of clean engine times with TensorRT 8: careful labs agree within
2 to 5 %, stacks differ by 10 to 20 %. That of the paper is also a mild function of the network's weights, and runs
kernels that only move data (depthwise, element-wise) at a speed of its own.
"""

from __future__ import annotations

import math
from typing import NamedTuple

OVERHEAD_PARAMETERS = (
    "fixed_ms",
    "ms_per_thousand_boxes",
    "trtutils_ms",
    "nms_ms",
    "nms_ms_per_thousand_boxes",
    "tf_to_trt_ms",
    "scaled_yolov4_ms",
)
"""All positive; `..._boxes` count per thousand candidate boxes."""
TOOLCHAIN_PARAMETERS = ("toolchain", "toolchain_weights", "torch2trt", "tf_to_trt", "toolchain_memory")
"""Logarithms of factors on the engine, the last on the kernels that only move data."""
SLOPES = len(TOOLCHAIN_PARAMETERS) - 1
"""Of these, how many act on the whole engine."""

REFERENCE_WEIGHTS = 3e6
REFERENCE_MACS = 9e8
"""Where the toolchain's slope acts as 0: in the middle of the published detectors."""


class Protocol(NamedTuple):
    """Which parts of a frame a measurement contains."""

    name: str
    overhead: tuple[str, ...] = ()
    toolchain: tuple[str, ...] = ()


YOLO_RET = Protocol(
    "yolo-ret",
    ("fixed_ms", "ms_per_thousand_boxes"),
    ("toolchain", "toolchain_weights", "toolchain_memory"),
)
"""Tables 2 to 5: detectors, batch 1, box post-processing included."""
YOLO_RET_BASELINE = Protocol("yolo-ret baseline", ("fixed_ms", "ms_per_thousand_boxes"))
"""Tables 5 and 7: other authors' detectors, timed by those of the paper."""
YOLO_RET_CLASSIFIER = Protocol("yolo-ret classifier", ("fixed_ms",), ("toolchain_memory",))
"""Table 1."""

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        YOLO_RET,
        YOLO_RET_BASELINE,
        YOLO_RET_CLASSIFIER,
        Protocol("netspresso"),  # computation only, as trtexec times it
        Protocol("torch2trt", (), ("torch2trt",)),  # throughput of an asynchronous queue; TensorRT not stated
        Protocol("trtutils", ("trtutils_ms",)),  # host clock around execution and synchronisation
        Protocol(
            "trtutils-nms", ("trtutils_ms", "nms_ms", "nms_ms_per_thousand_boxes")
        ),  # decoding and NMS in the engine
        Protocol("tf-to-trt", ("tf_to_trt_ms",), ("tf_to_trt",)),  # copies included; TensorRT of 2018
        Protocol("scaled-yolov4", ("scaled_yolov4_ms",)),  # frame rate; the paper says no more
        Protocol("ultralytics"),  # inference only; of networks that we cannot build
        Protocol("tensorrt-demos"),  # frames of a Python demo, which adds its camera and drawing: never fitted
    )
}
"""By the name that the data use."""

NEVER_FITTED = ("tensorrt-demos",)
"""Protocols whose overhead nobody knows; their rows check families that were not timed otherwise."""


MOST_BOXES = 10_647
"""Candidate boxes of the largest picture that the paper timed, 416 px. Nothing is published beyond; post-processing
looks closely only at boxes above a confidence (RetinaNet keeps 1000 a level), so predictions let it grow no further."""


class NetworkSize(NamedTuple):
    """What overhead and toolchain depend on."""

    weights: float
    macs: float
    boxes: float


def overhead_units(protocol: Protocol, size: NetworkSize) -> list[float]:
    """How often each overhead parameter is paid."""
    return [
        (size.boxes / 1e3 if name.endswith("boxes") else 1.0) if name in protocol.overhead else 0.0
        for name in OVERHEAD_PARAMETERS
    ]


def toolchain_slopes(protocol: Protocol, size: NetworkSize) -> list[float]:
    """Multipliers of the toolchain parameters: in the logarithm of the engine, the last in that of memory kernels."""
    by_weights = math.log(size.weights / REFERENCE_WEIGHTS) - math.log(size.macs / REFERENCE_MACS) / 2
    return [
        (by_weights if name == "toolchain_weights" else 1.0) if name in protocol.toolchain else 0.0
        for name in TOOLCHAIN_PARAMETERS
    ]
