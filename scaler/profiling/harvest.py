"""From the layer times of a measured network to the times of its kernels.

A runtime names its layers after the nodes that they compute; those lead to the graph's layers and so to our kernels.
A layer that computes several kernels is split by what they move; a layer that leads nowhere is listed, never dropped
in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from scaler.export.onnx_nodes import SEPARATOR
from scaler.graph.graph import Graph
from scaler.latency.fusion import FusionRules, kernel_groups
from scaler.latency.kernels import Kernel
from scaler.runtimes.protocol import LayerTime

LARGEST_OVERHEAD = 0.7
"""Share of a layer's time that may be the profiler's."""


class Harvest(NamedTuple):
    """Kernel times of one network."""

    kernels: tuple[Kernel, ...]
    """In execution order."""
    ms: tuple[float, ...]
    """Of each; 0 where no layer of the runtime computes it."""
    layers: tuple[float, ...]
    """How many layers of the runtime compute each; a layer of several kernels counts in parts."""
    unknown: tuple[LayerTime, ...]
    """Layers that belong to no kernel."""

    @property
    def total_ms(self) -> float:
        """Time of all layers, the unknown included."""
        return sum(self.ms) + self.unknown_ms

    @property
    def unknown_ms(self) -> float:
        """Time of the layers that belong to no kernel."""
        return sum(layer.ms for layer in self.unknown)

    def scaled_to(self, total_ms: float, layer_overhead_ms: float) -> list[float]:
        """Kernel times that sum to a time measured end to end; 0 where no layer computes a kernel.

        Args:
            total_ms: Of the network, without a profiler.
            layer_overhead_ms: What profiling adds to each layer; at most `LARGEST_OVERHEAD` of its time is taken off.
        """
        net = [
            max(ms - layer_overhead_ms * n, (1 - LARGEST_OVERHEAD) * ms)
            for ms, n in zip(self.ms, self.layers, strict=True)
        ]
        return [ms * total_ms / sum(net) for ms in net]


def harvest(graph: Graph, layers: tuple[LayerTime, ...], rules: FusionRules) -> Harvest:
    """Attribute layer times to kernels.

    Args:
        graph: The measured network.
        layers: What the runtime reports.
        rules: The runtime's.
    """
    kernels, places = kernel_places(graph, rules)
    ms, counts = [0.0] * len(kernels), [0.0] * len(kernels)
    unknown: list[LayerTime] = []
    for layer in layers:
        found = sorted({place for name in layer.nodes for place in _found(name, places)})
        if not found:
            unknown.append(layer)
            continue
        moved = [kernels[place].moved for place in found]
        for place, share in zip(found, moved, strict=True):
            ms[place] += layer.ms * share / sum(moved)
            counts[place] += share / sum(moved)
    return Harvest(tuple(kernels), tuple(ms), tuple(counts), tuple(unknown))


def kernel_places(graph: Graph, rules: FusionRules) -> tuple[list[Kernel], dict[str, list[int]]]:
    """All kernels in execution order, and which of them compute a layer, by the layer's name.

    They are several where a concatenation copies several inputs, a kernel each.
    """
    kernels: list[Kernel] = []
    places: dict[str, list[int]] = {}
    for placement in graph.placements:
        own: list[int] = []
        for kernel, nodes in kernel_groups(placement.block, rules):
            if nodes:
                own = []
                places |= {f"{placement.name}.{placement.block.nodes[node].name}": own for node in nodes}
            own.append(len(kernels))
            kernels.append(kernel)
    for label, place in graph.outputs:
        last = graph.placements[place]
        places.setdefault(label, places.get(f"{last.name}.{last.block.nodes[-1].name}", []))
    return kernels, places


def _found(name: str, places: Mapping[str, list[int]]) -> list[int]:
    """The kernels of an ONNX node or tensor: those of its layer, of which it may be a part."""
    return places.get(name) or places.get(name.partition(SEPARATOR)[0], [])
