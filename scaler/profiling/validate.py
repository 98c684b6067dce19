"""Proves a measured table on networks that it never saw, each measured twice, beside what needs no table.

Predictions and measurements are compared at the speed that the machine had when the table was made: both stand beside
the same reference network. How much the machine has drifted since is reported apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scaler.errors import UserError
from scaler.latency.measured import MeasuredEstimator
from scaler.latency.prediction import Z_90, FloatArray
from scaler.models.detectors.families import build
from scaler.profiling.baselines import BASELINES
from scaler.profiling.machine import Machine
from scaler.profiling.measurement import Measurement, quiet_reference_ms
from scaler.profiling.networks import fitting, graph_of, reference_of, space_of
from scaler.profiling.plan import held_out
from scaler.profiling.plan_file import Plan, Planned
from scaler.profiling.proof import Proof, prove
from scaler.profiling.run import Progress, run
from scaler.search.evaluation import Network
from scaler.search.predictors import classes_of
from scaler.space import Params, Space

PASSES = 2
"""How often each held-out network is measured, at different times and in another order."""


class Validation(NamedTuple):
    """A proof and the state of the machine."""

    proof: Proof
    drift: float
    """How much slower the reference network is than when the table was made, as a share."""
    failed: tuple[Measurement, ...]


def validate(
    plan: Plan,
    trained_on: Sequence[Measurement],
    estimator: MeasuredEstimator,
    machine: Machine,
    folder: Path,
    *,
    networks: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Validation:
    """Measure random networks of the plan's space that are not in the plan, and compare.

    Args:
        plan: Of the table.
        trained_on: The measurements behind the table, for the baselines.
        estimator: Predicts from the table.
        machine: What measures.
        folder: Where the measurements are kept; the same arguments go on from it.
        networks: How many.
        seed: Of the draw.
        progress: Told of every measurement.

    Raises:
        UserError: Too few networks could be measured.
    """
    space = space_of(plan)
    if reference_of(plan, space) != estimator.model.reference:
        raise UserError("the measurements on file are not those of the table: another reference network")
    fits = fitting(space, plan.dataset, estimator.device, estimator.precision)
    drawn = held_out(space, plan, networks, seed, fits)
    passes = [_measure(plan, space, drawn, number, machine, folder, progress) for number in range(PASSES)]
    both = [
        (params, tuple(one[space.candidate_id(params)] for one in passes))
        for params in drawn
        if not any(one[space.candidate_id(params)].error for one in passes)
    ]
    failed = tuple(m for one in passes for m in one.values() if m.error)
    if len(both) < 2:
        raise UserError(f"{len(both)} of {networks} networks could be measured; the first failure: {failed[0].error}")
    quiet = [quiet_reference_ms(one.values()) for one in passes]
    times = np.array([[m.ratio(q) for m, q in zip(pair, quiet, strict=True)] for _, pair in both])
    times *= estimator.model.reference_ms
    graphs = [graph_of(space, params, plan.dataset) for params, _ in both]
    predicted = estimator.predict([estimator.sums(graph) for graph in graphs])
    unseen = [_network(space, params, plan) for params, _ in both]
    proof = prove(
        [space.candidate_id(params) for params, _ in both],
        predicted.engine,
        predicted.engine * np.exp(-Z_90 * predicted.engine_log_sd),
        predicted.engine * np.exp(Z_90 * predicted.engine_log_sd),
        times.mean(axis=1),
        baselines=_baselines(plan, space, trained_on, unseen),
        repeats_ms=(times[:, 0], times[:, 1]),
    )
    return Validation(proof, float(np.mean(quiet)) / estimator.model.reference_ms - 1, failed)


def _measure(
    plan: Plan,
    space: Space,
    drawn: Sequence[Params],
    number: int,
    machine: Machine,
    folder: Path,
    progress: Progress | None,
) -> dict[str, Measurement]:
    """One pass over the drawn networks; every other pass goes backwards, so that drift does not favour any."""
    order = drawn if number % 2 == 0 else tuple(reversed(drawn))
    listed = tuple(Planned(network=space.candidate_id(params), params=params) for params in order)
    measured = run(
        replace(plan, networks=listed),
        machine.runtime,
        folder / f"pass{number + 1}",
        effort=machine.effort,
        profile=False,
        cores=machine.cores,
        progress=progress,
    )
    return {m.network: m for m in measured}


def _network(space: Space, params: Params, plan: Plan) -> Network:
    config = space.configure(params, classes_of(plan.dataset))
    return Network(params, config, build(config))


def _baselines(
    plan: Plan, space: Space, trained_on: Sequence[Measurement], unseen: Sequence[Network]
) -> dict[str, FloatArray]:
    """What predicts without a table, given the end-to-end times of the same plan."""
    usable = [m for m in trained_on if m.rounds]
    quiet = quiet_reference_ms(usable)
    ms = np.array([m.ratio(quiet) * quiet for m in usable])
    known = [_network(space, m.params, plan) for m in usable]
    return {name: fit(known, ms)(unseen) for name, fit in BASELINES.items()}
