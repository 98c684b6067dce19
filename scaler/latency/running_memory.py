"""Memory that a network takes while it runs on a measured device: one law a table, fitted to measured networks.

``MiB = constant_mib + weights x MiB of weights + activations x MiB of peak activations``. The measured memory is what
the runtime tells (TensorRT: engine and execution context; ONNX Runtime: the rise of the process), so that what every
network needs alike, CUDA's context for instance, may stand outside. The ``[memory]`` section of a table keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scaler.latency.nonnegative import factors_of, left_out, scatter_of
from scaler.latency.prediction import Z_90
from scaler.reader import Reader

__all__ = ["MemoryLaw", "MemoryPrediction", "MemoryRow", "fit_memory", "memory_lines", "read_memory"]

LEAST_NETWORKS = 6
"""Networks with a measured memory below which no law is fitted: it has three numbers."""


class MemoryPrediction(NamedTuple):
    """MiB that a network takes while it runs; the ends are those of the 90 % interval."""

    mean: float
    low: float
    high: float


class MemoryRow(NamedTuple):
    """A network whose memory was measured; all in MiB, at the precision of the table."""

    weights: float
    """Batch normalisation folded in."""
    activations: float
    """At their peak."""
    running: float
    """Measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryLaw:
    """What a network takes, and how wrong that is."""

    constant_mib: float
    weights: float
    activations: float
    log_sd: float
    """Scatter of the logarithm around the law, each network left out in turn."""
    networks: int
    error: float
    """Mean error in percent of networks left out."""
    coverage: float
    """Share of them within the 90 % intervals, in percent."""

    def predict(self, weights_mib: float, activations_mib: float) -> MemoryPrediction:
        """MiB of a network from those of its folded weights and of its peak activations."""
        mean = self.constant_mib + self.weights * weights_mib + self.activations * activations_mib
        spread = float(np.exp(Z_90 * self.log_sd))
        return MemoryPrediction(mean, mean / spread, mean * spread)


def fit_memory(rows: Sequence[MemoryRow]) -> MemoryLaw | None:
    """Fit the law to measured networks; None for fewer than `LEAST_NETWORKS`, or where they tell nothing."""
    told = [row for row in rows if row.running > 0]
    if len(told) < LEAST_NETWORKS:
        return None
    weights, activations, running = np.array(told, dtype=np.float64).T
    terms = np.column_stack([np.ones_like(running), weights, activations])
    unseen = np.einsum("st,st->s", terms, left_out(terms, running))
    errors = np.log(unseen / running)
    log_sd = scatter_of(errors)
    constant, by_weights, by_activations = factors_of(terms, running).tolist()
    return MemoryLaw(
        constant_mib=constant,
        weights=by_weights,
        activations=by_activations,
        log_sd=log_sd,
        networks=len(told),
        error=100 * float(np.mean(np.abs(np.expm1(errors)))),
        coverage=100 * float(np.mean(np.abs(errors) <= Z_90 * log_sd)),
    )


_NUMBERS = ("constant_mib", "weights", "activations")


def read_memory(reader: Reader | None) -> MemoryLaw | None:
    """Read the ``[memory]`` section of a table; None where there is none."""
    if reader is None:
        return None
    constant, weights, activations = (reader.number(name, minimum=0) for name in _NUMBERS)
    return MemoryLaw(
        constant_mib=constant,
        weights=weights,
        activations=activations,
        log_sd=reader.number("log_sd", minimum=1e-6),
        networks=reader.integer("networks", minimum=1),
        error=reader.number("error", minimum=0),
        coverage=reader.number("coverage", minimum=0, maximum=100),
    )


def memory_lines(law: MemoryLaw | None) -> list[str]:
    """The ``[memory]`` section of a table, as TOML; nothing where there is no law."""
    if law is None:
        return []
    return [
        "",
        "[memory] # MiB = constant_mib + weights x MiB of weights + activations x MiB of peak activations",
        *(f"{name} = {getattr(law, name):.5g}" for name in (*_NUMBERS, "log_sd")),
        f"networks = {law.networks}",
        f"error = {law.error:.3g} # percent, as the coverage, on networks left out",
        f"coverage = {law.coverage:.3g}",
    ]
