"""Energy of a frame on a measured device: one law a table, fitted to networks whose power was measured.

``mJ = static_w x ms + mac_pj x MACs + element_pj x elements moved``: the board's power while it runs anything, what
arithmetic takes and what memory takes. Rails tell nothing of layers, so that the law knows whole networks only. It
holds for one meter and what that meter sees (`source`, `scope`), in the table's power mode and precision. `fit_energy`
makes it; the ``[energy]`` section of a table keeps it (ADR 018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scaler.latency.nonnegative import factors_of, left_out, scatter_of
from scaler.latency.prediction import Z_90, FloatArray, Prediction
from scaler.reader import Reader

__all__ = [
    "NO_POWER",
    "EnergyLaw",
    "EnergyPrediction",
    "EnergyRow",
    "energy_lines",
    "fit_energy",
    "read_energy",
    "why_no_energy",
]

LEAST_NETWORKS = 6
"""Networks with a measured energy below which no law is fitted: it has three numbers."""
NO_POWER = "no power is measured"
"""How every note begins that says why there is no energy."""
_PICO = 1e-9
"""Picojoules in millijoules."""
_FACTORS = ("static_w", "mac_pj", "element_pj")


class EnergyPrediction(NamedTuple):
    """Energy of frames in mJ, an array each, idle power included; the ends are those of the 90 % interval."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray


class EnergyRow(NamedTuple):
    """A network whose energy was measured."""

    ms: float
    """From one frame to the next while the energy was measured."""
    macs: float
    moved: float
    """Elements read and written by its kernels, weights included."""
    mj: float
    """Energy of a frame."""
    predicted_ms: float
    """Engine time by a latency model that has not seen this network."""
    predicted_log_sd: float
    """Standard deviation of its logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyLaw:
    """What a frame costs, and how wrong that is."""

    source: str
    """The meter: `ina3221`, `tegrastats`, `rapl` or `fake`."""
    scope: str
    """What it sees: `module`, `processor and memory`."""
    idle_w: float | None
    """Watts with nothing running; None where that was not measured."""
    static_w: float
    mac_pj: float
    element_pj: float
    log_sd: float
    """Scatter of the logarithm of the energy around the law at the true frame time, each network left out in turn."""
    networks: int
    error: float
    """Mean error in percent of networks that neither the law nor the latency model had seen."""
    coverage: float
    """Share of them within the 90 % intervals, in percent."""

    def mj(self, ms: FloatArray, macs: FloatArray, moved: FloatArray) -> FloatArray:
        """Millijoules of frames that follow each other without a pause."""
        return np.asarray(self.static_w * ms + _PICO * (self.mac_pj * macs + self.element_pj * moved))

    def predict(self, frames: Prediction, macs: FloatArray, moved: FloatArray) -> EnergyPrediction:
        """Energy of frames whose time is predicted too; the host's work beside the engine counts with idle power."""
        engine = self.mj(frames.engine, macs, moved)
        waiting = (self.static_w if self.idle_w is None else self.idle_w) * frames.overhead
        log_sd = _total_sd(self.log_sd, self.static_w * frames.engine / engine, frames.engine_log_sd)
        spread = np.exp(Z_90 * log_sd)
        return EnergyPrediction(engine + waiting, engine / spread + waiting, engine * spread + waiting)


def fit_energy(rows: Sequence[EnergyRow], *, source: str, scope: str, idle_w: float | None) -> EnergyLaw | None:
    """Fit the law to measured networks; None for fewer than `LEAST_NETWORKS`.

    Relative errors are squared; no coefficient is negative. Every network is left out once, which gives the scatter,
    the error and the coverage.

    Args:
        rows: All of one meter and scope.
        source: The meter.
        scope: What it sees.
        idle_w: Watts with nothing running.
    """
    if len(rows) < LEAST_NETWORKS:
        return None
    ms, macs, moved, mj, predicted_ms, predicted_sd = np.array(rows, dtype=np.float64).T
    terms = np.column_stack([ms, _PICO * macs, _PICO * moved])
    unseen = np.column_stack([predicted_ms, terms[:, 1:]])
    factors = left_out(terms, mj)
    at_true, at_predicted = (np.einsum("st,st->s", these, factors) for these in (terms, unseen))
    log_sd = scatter_of(np.log(at_true / mj))
    half_widths = Z_90 * _total_sd(log_sd, factors[:, 0] * predicted_ms / at_predicted, predicted_sd)
    static_w, mac_pj, element_pj = factors_of(terms, mj).tolist()
    return EnergyLaw(
        source=source,
        scope=scope,
        idle_w=idle_w,
        static_w=static_w,
        mac_pj=mac_pj,
        element_pj=element_pj,
        log_sd=log_sd,
        networks=len(mj),
        error=100 * float(np.mean(np.abs(at_predicted / mj - 1))),
        coverage=100 * float(np.mean(np.abs(np.log(at_predicted / mj)) <= half_widths)),
    )


def read_energy(reader: Reader | None) -> EnergyLaw | None:
    """Read the ``[energy]`` section of a table; None where there is none."""
    if reader is None:
        return None
    static_w, mac_pj, element_pj = (reader.number(name, minimum=0) for name in _FACTORS)
    if not static_w + mac_pj + element_pj:
        raise reader.error("", "all factors are 0", f"expected one of {', '.join(_FACTORS)} above 0", "measure again")
    return EnergyLaw(
        source=reader.string("source"),
        scope=reader.string("scope"),
        idle_w=reader.number("idle_w", None, minimum=0),
        static_w=static_w,
        mac_pj=mac_pj,
        element_pj=element_pj,
        log_sd=reader.number("log_sd", minimum=1e-6),
        networks=reader.integer("networks", minimum=1),
        error=reader.number("error", minimum=0),
        coverage=reader.number("coverage", minimum=0, maximum=100),
    )


def energy_lines(law: EnergyLaw | None) -> list[str]:
    """The ``[energy]`` section of a table, as TOML; nothing where there is no law."""
    if law is None:
        return []
    idle = [] if law.idle_w is None else [f"idle_w = {law.idle_w:.4g}"]
    return [
        "",
        "[energy] # mJ = static_w x ms + mac_pj x MACs + element_pj x elements moved; see scaler/latency/energy.py",
        f'source = "{law.source}"',
        f'scope = "{law.scope}"',
        *idle,
        *(f"{name} = {getattr(law, name):.5g}" for name in (*_FACTORS, "log_sd")),
        f"networks = {law.networks}",
        f"error = {law.error:.3g} # percent, as the coverage, on networks left out",
        f"coverage = {law.coverage:.3g}",
    ]


def why_no_energy(device: str, notes: Sequence[str]) -> str:
    """One line for a user who asks for the energy on a device whose table has none.

    Args:
        device: Its id.
        notes: The conditions of its table; empty where there is none.
    """
    reason = next((note for note in notes if note.startswith(NO_POWER)), "")
    todo = "profile on the device with its power sensors readable (scaler profile run, or a bundle)"
    return f"the table of {device} has no energy: {todo}" + (f"; when it was made, {reason}" if reason else "")


def _total_sd(law: float, static: FloatArray, of_time: FloatArray) -> FloatArray:
    """Of the logarithm of an energy: the law's scatter, and that of the time in the share that follows the time."""
    return np.asarray(np.sqrt(law**2 + (static * of_time) ** 2))
