"""Whether a network fits into a device's memory, where its engine must be built too: engines do not travel.

A rule of thumb, not a measurement. While TensorRT builds, the file's FP32 weights are in memory twice (the parser's and
the builder's), beside the engine's own and its activations, for which the builder tries kernels in buffers as large
again; system, CUDA context and libraries hold what `RESERVED_GIB` says. A CPU runtime builds no engine, but holds
the weights twice as well.

What a network takes while it runs is measured where the device's table knows it, else a rule of thumb too.
"""

from __future__ import annotations

import math

from scaler.cost import MIB, block_cost, graph_cost, peak_activation_elements
from scaler.devices import Device, Gpu, Precision, element_bytes
from scaler.graph.graph import Graph
from scaler.latency.estimator import Estimator
from scaler.latency.running_memory import MemoryLaw

__all__ = ["RESERVED_GIB", "build_gib", "engine_mib", "excess", "law_of", "running_mib", "surely_fits"]

GIB = 2**30
RESERVED_GIB = 1.5
"""Of a Jetson's memory, which CPU and GPU share: 0.5 to 1 GiB for a system without desktop, the rest CUDA's."""
_RESERVED_CPU_GIB = 0.5
_FP32_COPIES, _FP32_BYTES = 2, 4
_SURE = 0.25


def engine_mib(weights: int, activations: int, precision: Precision) -> float:
    """MiB of folded weights and peak activations, both in elements, at batch 1: the least that an engine takes."""
    return (weights + activations) * element_bytes(precision) / MIB


def law_of(estimator: Estimator) -> MemoryLaw | None:
    """What measurements on the device say of running networks; None where its table has none at this precision."""
    info = estimator.info
    return info.memory if info is not None and info.precision == estimator.precision else None


def running_mib(weights: int, activations: int, estimator: Estimator) -> float:
    """MiB of a running network from its folded weights and peak activations in elements: what a limit bounds.

    By the table's measurements where it has them, else `engine_mib`.
    """
    law = law_of(estimator)
    if law is None:
        return engine_mib(weights, activations, estimator.precision)
    unit = element_bytes(estimator.precision) / MIB
    return law.predict(weights * unit, activations * unit).mean


def build_gib(graph: Graph, device: Device, precision: Precision) -> float:
    """GiB that building and running a network takes at its worst moment, the system included."""
    width = element_bytes(precision)
    weights = graph_cost(graph).folded_params * (_FP32_COPIES * _FP32_BYTES + width)
    activations = 2 * peak_activation_elements(graph) * width
    return _reserved(device) + (weights + activations) / GIB


def excess(graph: Graph, device: Device, precision: Precision) -> float:
    """How much more than the device's memory that is, relative to it; 0 or less where it fits, or nobody knows."""
    if device.memory_gib is None:
        return 0.0
    return build_gib(graph, device, precision) / device.memory_gib - 1


def surely_fits(graph: Graph, device: Device) -> bool:
    """Whether a network is so small that nobody needs to count: cheap, for every candidate of a search.

    The largest maps of a detector are of 64 channels at half the side of the picture, or thereabouts.
    """
    if device.memory_gib is None:
        return True
    weights = sum(block_cost(placement.block).folded_params for placement in graph.placements)
    free = (device.memory_gib - _reserved(device)) * GIB
    return _FP32_BYTES * ((_FP32_COPIES + 1) * weights + 64 * math.prod(graph.input_shape[1:])) < _SURE * free


def _reserved(device: Device) -> float:
    return RESERVED_GIB if isinstance(device.chip, Gpu) else _RESERVED_CPU_GIB
