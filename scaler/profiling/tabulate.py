"""From measurements to a latency table: harvest, regression, end-to-end correction, cross-validated error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scaler.errors import UserError
from scaler.graph.graph import Graph
from scaler.latency.fusion import RULES, FusionRules, graph_kernels
from scaler.latency.kernel_fit import fit_hypers
from scaler.latency.kernel_regression import FloatArray, Hyper, Sample, group_of
from scaler.latency.kernels import Kernel
from scaler.latency.measured import KernelTimes
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.prediction import Z_90
from scaler.latency.table import Entry, LatencyTable, TableInfo
from scaler.profiling.harvest import Harvest, harvest
from scaler.profiling.measurement import Measurement, quiet_reference_ms
from scaler.profiling.networks import reference_of, space_of
from scaler.profiling.plan_file import Plan
from scaler.profiling.tabulate_laws import laws_of
from scaler.runtimes.protocol import LayerTime

LEAST_NETWORKS = 4
"""Measured networks below which no table is made."""
FOLDS = 5
LEAST_US = 1e-3
"""The smallest time of a row, in microseconds."""
EXPONENT_SD = 0.03
"""How far the exponent of the sum may be from 1."""
TYPICAL_ERROR = 0.03
"""Of a network, for weighing the exponent's prior."""
_SHARES = np.linspace(0.0, 1.0, 11)
METHOD = (
    "networks timed end to end beside a reference network and layer by layer; layer times mapped to kernels by name "
    "and scaled to the end-to-end time (scaler/profiling/tabulate.py)"
)


class Measured(NamedTuple):
    """A measured network, harvested."""

    graph: Graph
    harvest: Harvest
    ms: float
    """End to end, as the machine is when quiet."""


class Tabulated(NamedTuple):
    """A table and what it was made of."""

    table: LatencyTable
    unknown: tuple[LayerTime, ...]
    """Layers of the runtime that belong to no kernel of ours, of all networks."""
    unknown_share: float
    """Their share of the time."""
    failed: tuple[Measurement, ...]
    """Networks that could not be measured."""
    doubtful: tuple[Measurement, ...]
    """Networks whose measurement carries warnings."""


def tabulate(plan: Plan, measurements: Sequence[Measurement], graphs: Sequence[Graph]) -> Tabulated:
    """Make the table of a plan's measurements.

    Args:
        plan: What was measured.
        measurements: Of some or all of the plan's networks.
        graphs: The network of each.

    Raises:
        UserError: Too few networks were measured.
    """
    rules = RULES[plan.runtime]
    harvests = [harvest(g, m.layers, rules) for m, g in zip(measurements, graphs, strict=True)]
    found = [(m, g, h) for m, g, h in zip(measurements, graphs, harvests, strict=True) if m.rounds and any(h.ms)]
    usable = [(m, g) for m, g, _ in found]
    failed = tuple(m for m in measurements if m.error)
    if len(usable) < LEAST_NETWORKS:
        reason = f"; the first failed with: {failed[0].error}" if failed else ""
        raise UserError(f"{len(usable)} networks were measured layer by layer, a table needs {LEAST_NETWORKS}{reason}")
    quiet_ms = quiet_reference_ms(m for m, _ in usable)
    networks = [Measured(g, h, m.ratio(quiet_ms) * quiet_ms) for m, g, h in found]
    fitted = fit_model(networks, rules, quiet_ms)
    model, figures = replace(fitted.model, reference=reference_of(plan, space_of(plan))), fitted.figures
    figures["noise"] = 100 * float(np.mean([m.spread(quiet_ms) for m, _ in usable]))
    doubtful = tuple(m for m in measurements if m.warnings and not m.error)
    timed, graphs_timed = [m for m, _ in usable], [g for _, g in usable]
    laws = laws_of(plan, timed, graphs_timed, fitted.held_out_ms, fitted.held_out_log_sd)
    info = table_info(
        plan,
        timed,
        provenance="measured",
        method=METHOD,
        sources=(f"measured by scaler profile, {len(networks)} networks of the space {plan.space}",),
        model=model,
        validation=figures,
        conditions=(*_conditions(timed, quiet_ms), *laws.notes),
        energy=laws.energy,
        memory=laws.memory,
    )
    unknown = [layer for network in networks for layer in network.harvest.unknown]
    share = sum(layer.ms for layer in unknown) / sum(network.harvest.total_ms for network in networks)
    table = LatencyTable(info=info, entries=entries(networks))
    return Tabulated(table, tuple(unknown), share, failed, doubtful)


def table_info(plan: Plan, timed: Sequence[Measurement], **of_table: Any) -> TableInfo:
    """What a table made of a plan's measurements is of; `of_table` are the fields that these do not tell."""
    conditions = timed[-1].conditions
    return TableInfo(
        device=plan.device,
        power_mode=plan.power_mode,
        runtime=plan.runtime,
        runtime_version=conditions.runtime_version,
        precision=plan.precision,
        batch=plan.batch,
        created=datetime.now(UTC).date().isoformat(),
        networks=len(timed),
        processor=conditions.processor,
        seconds=sum(m.seconds for m in timed),
        **of_table,
    )


def entries(networks: Sequence[Measured]) -> dict[Kernel, Entry]:
    """The rows of a table: each kernel's median over the networks that launch it.

    A kernel for which the runtime has no layer has no row, unless that holds for its whole group: then the runtime does
    without such kernels (concatenations that are written in place), and their rows say so with next to no time.
    """
    overhead = layer_overhead_ms(networks)
    observed: dict[Kernel, list[list[float]]] = {}
    elided = Counter[Kernel]()
    for network in networks:
        own: dict[Kernel, list[float]] = {}
        for kernel, ms in zip(network.harvest.kernels, network.harvest.scaled_to(network.ms, overhead), strict=True):
            if ms > 0:
                own.setdefault(kernel, []).append(ms)
            else:
                elided[kernel] += 1
        for kernel, times in own.items():
            observed.setdefault(kernel, []).append(times)
    rows: dict[Kernel, Entry] = {}
    for kernel in sorted(observed):
        means = [float(np.exp(np.mean(np.log(times)))) for times in observed[kernel]]
        middle = float(np.exp(np.median(np.log(means))))
        spread = Z_90 * float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
        rows[kernel] = Entry(max(middle * 1e3, LEAST_US), spread * 1e3, len(means), "measured")
    groups = {group_of(kernel) for kernel in observed}
    for kernel in sorted(elided):
        if group_of(kernel) not in groups:
            rows[kernel] = Entry(LEAST_US, 0.0, elided[kernel], "measured")
    return rows


def layer_overhead_ms(networks: Sequence[Measured]) -> float:
    """What the profiler adds to each layer: the slope of profiled over true time against layers per time."""
    profiled = np.array([network.harvest.total_ms / network.ms for network in networks])
    density = np.array([sum(network.harvest.layers) / network.ms for network in networks])
    if len(networks) < LEAST_NETWORKS or float(np.ptp(density)) == 0:
        return 0.0
    return max(float(np.polyfit(density, profiled, 1)[0]), 0.0)


class Fitted(NamedTuple):
    """What stands beside the rows of a table, and what it says of networks left out."""

    model: MeasuredModel
    figures: dict[str, float]
    """Errors in percent."""
    held_out_ms: FloatArray
    """Time of each network by a fit that has not seen it."""
    held_out_log_sd: FloatArray
    """Standard deviation of its logarithm."""


def fit_model(networks: Sequence[Measured], rules: FusionRules, reference_ms: float) -> Fitted:
    """Fit what stands beside the rows, and find its error on networks left out.

    Without the networks of a fold everything is fitted again; only the search for hyperparameters begins at those of
    all networks, since from the defaults it takes several times as long.
    """
    measured = np.array([network.ms for network in networks])
    hypers = fit_hypers(samples(entries(networks)))
    sums, doubts = _held_out(networks, rules, hypers)
    factor, exponent = correction(sums, measured)
    corrected, half_widths = np.empty_like(measured), np.empty_like(measured)
    folds = _folds(len(networks))
    for fold in range(FOLDS):
        out = folds == fold
        if out.any():
            f, power = correction(sums[~out], measured[~out])
            corrected[out] = f * sums[out] ** power
            share, residual = _scatter(np.log(f * sums[~out] ** power / measured[~out]), doubts[~out])
            half_widths[out] = Z_90 * np.sqrt(residual**2 + (share * doubts[out]) ** 2)
    errors = np.log(corrected / measured)
    share, residual = _scatter(errors, doubts)
    figures = {
        "error": 100 * float(np.mean(np.abs(corrected / measured - 1))),
        "within_10": 100 * float(np.mean(np.abs(corrected / measured - 1) <= 0.10)),
        "coverage": 100 * float(np.mean(np.abs(errors) <= half_widths)),
    }
    model = MeasuredModel(
        hypers=hypers,
        factor=factor,
        exponent=exponent,
        constant_ms=0.0,
        residual_log_sd=residual,
        kernel_share=share,
        reference_ms=reference_ms,
    )
    return Fitted(model, figures, corrected, half_widths / Z_90)


def samples(rows: dict[Kernel, Entry]) -> list[Sample]:
    """The rows of a table as the regression takes them."""
    return [Sample(kernel, row.latency_us * 1e-3, row.networks) for kernel, row in rows.items()]


def correction(sums: FloatArray, measured: FloatArray) -> tuple[float, float]:
    """Factor and exponent that bring sums to measured times, both in ms: least squares of logarithms.

    The exponent has a prior of 1 with standard deviation `EXPONENT_SD`, so that a few networks do not bend it.
    """
    x, y = np.log(sums), np.log(measured / sums)
    center = float(x.mean())
    away = x - center
    slope = float(away @ y) / (float(away @ away) + (TYPICAL_ERROR / EXPONENT_SD) ** 2)
    return float(np.exp(y.mean() - slope * center)), 1 + slope


def predicted_sums(
    rows: dict[Kernel, Entry], hypers: dict[str, Hyper], graphs: Sequence[Graph], rules: FusionRules
) -> tuple[FloatArray, FloatArray]:
    """Sum of the kernel times of networks, and the share of it that the kernels' own uncertainty amounts to."""
    times = KernelTimes(rows, hypers)
    sums, doubts = [], []
    for graph in graphs:
        ms, spread, _ = times.ms(graph_kernels(graph, rules))
        sums.append(float(ms.sum()))
        doubts.append(float((ms * spread).sum() / ms.sum()))
    return np.array(sums), np.array(doubts)


def _folds(count: int) -> npt.NDArray[np.intp]:
    return np.asarray(np.arange(count) % FOLDS, dtype=np.intp)


def _held_out(
    networks: Sequence[Measured], rules: FusionRules, start: dict[str, Hyper]
) -> tuple[FloatArray, FloatArray]:
    """`predicted_sums` of every network by fits that have not seen it; `start` is where their optimisation begins."""
    sums, doubts = np.empty(len(networks)), np.empty(len(networks))
    folds = _folds(len(networks))
    for fold in range(FOLDS):
        out = np.flatnonzero(folds == fold).tolist()
        if out:
            rows = entries([networks[place] for place in np.flatnonzero(folds != fold).tolist()])
            hypers = fit_hypers(samples(rows), start)
            sums[out], doubts[out] = predicted_sums(rows, hypers, [networks[place].graph for place in out], rules)
    return sums, doubts


def _scatter(errors: FloatArray, doubts: FloatArray) -> tuple[float, float]:
    """Share of the kernels' uncertainty and residual scatter under which the errors are likeliest.

    The scatter is widened for the number of networks: a normal 90 % interval then covers like Student's.
    """
    best = (np.inf, 0.0, 0.0)
    for share in _SHARES.tolist():
        for residual in np.geomspace(0.003, 0.5, 60).tolist():
            variance = residual**2 + (share * doubts) ** 2
            value = float(np.sum(np.log(variance) + errors**2 / variance))
            best = min(best, (value, share, residual))
    return best[1], best[2] * (1 + 1.5 / len(errors))


def _conditions(measurements: Sequence[Measurement], quiet_ms: float) -> tuple[str, ...]:
    """Under what was measured, in words."""
    last = measurements[-1].conditions
    busy = np.mean([not r.is_quiet(quiet_ms) for m in measurements for r in m.rounds])
    found = [f"reference network {quiet_ms:.3g} ms", f"rounds with a busy neighbour: {100 * busy:.0f} %"]
    found += [f"{name} clock {mhz:.0f} MHz" for name, mhz in last.clocks_mhz.items()]
    if last.clocks_pinned is not None:
        found.append("clocks pinned" if last.clocks_pinned else "clocks not pinned")
    if last.temperature_c is not None:
        found.append(f"hottest sensor {last.temperature_c:.0f} °C at the end")
    doubtful = sum(bool(m.warnings) for m in measurements)
    if doubtful:
        found.append(f"{doubtful} of {len(measurements)} networks with warnings")
    return (*found, *last.notes)
