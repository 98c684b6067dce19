"""The laws of energy and of memory that a table gets from its measurements, where they have either."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

from scaler.cost import MIB, graph_cost, peak_activation_elements
from scaler.devices import element_bytes
from scaler.graph.graph import Graph
from scaler.latency.energy import NO_POWER, EnergyLaw, EnergyRow, fit_energy
from scaler.latency.fusion import RULES, graph_kernels
from scaler.latency.prediction import FloatArray
from scaler.latency.running_memory import MemoryLaw, MemoryRow, fit_memory
from scaler.profiling.measurement import FrameEnergy, Measurement
from scaler.profiling.plan_file import Plan

__all__ = ["Laws", "laws_of"]


class Laws(NamedTuple):
    """What a table says beside times."""

    energy: EnergyLaw | None
    memory: MemoryLaw | None
    notes: tuple[str, ...]
    """What is to be known of them, and why there is no energy where nothing else says it."""


def laws_of(
    plan: Plan,
    measurements: Sequence[Measurement],
    graphs: Sequence[Graph],
    held_out_ms: FloatArray,
    held_out_log_sd: FloatArray,
) -> Laws:
    """Fit the laws.

    Energies of one meter and scope count, those that most networks have: others do not mix with them.

    Args:
        plan: What was measured.
        measurements: That went well.
        graphs: The network of each.
        held_out_ms: Engine time of each by a model of the latency that has not seen it.
        held_out_log_sd: Standard deviation of its logarithm.
    """
    memory = fit_memory([row for m, graph in zip(measurements, graphs, strict=True) for row in _memory(m, graph, plan)])
    known = [m.energy for m in measurements if m.energy is not None and _tells(m.energy)]
    if not known:
        return Laws(None, memory, ())
    (source, scope), count = Counter((energy.source, energy.scope) for energy in known).most_common(1)[0]
    rules, rows, idle = RULES[plan.runtime], [], []
    for m, graph, ms, log_sd in zip(measurements, graphs, held_out_ms.tolist(), held_out_log_sd.tolist(), strict=True):
        energy = m.energy
        if energy is None or not _tells(energy) or (energy.source, energy.scope) != (source, scope):
            continue
        kernels = graph_kernels(graph, rules)
        macs, moved = sum(kernel.macs for kernel in kernels), sum(kernel.moved for kernel in kernels)
        rows.append(EnergyRow(energy.frame_ms, macs, moved, energy.mj or 0.0, ms, log_sd))
        idle += [] if energy.idle_w is None else [energy.idle_w]
    law = fit_energy(rows, source=source, scope=scope, idle_w=median(idle) if idle else None)
    return Laws(law, memory, tuple(_notes(law, known, count)))


def _tells(energy: FrameEnergy) -> bool:
    return energy.mj is not None and energy.mj > 0


def _notes(law: EnergyLaw | None, known: Sequence[FrameEnergy], count: int) -> Iterable[str]:
    if law is None:
        yield f"{NO_POWER} of enough networks: {count} have their energy, too few for a law"
    if count < len(known):
        yield f"{len(known) - count} networks whose energy another meter took do not count for it"
    if doubtful := sum(any("energy block" in note for note in energy.notes) for energy in known):
        yield f"{doubtful} of {len(known)} networks ran at another speed while their energy was measured"


def _memory(measurement: Measurement, graph: Graph, plan: Plan) -> Iterable[MemoryRow]:
    """The row of a network; none where its memory is not known."""
    if measurement.memory_mib is not None and measurement.memory_mib.running is not None:
        width = element_bytes(plan.precision) / MIB
        weights, activations = graph_cost(graph).folded_params, peak_activation_elements(graph)
        yield MemoryRow(width * weights, width * activations, measurement.memory_mib.running)
