"""Builds what a search has picked, measures it on this machine, and puts predicted and measured side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from scaler.errors import UsageError, nearest_name
from scaler.latency.estimator import Estimator
from scaler.latency.fusion import RULES
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.prediction import Z_90
from scaler.profiling.machine import Machine
from scaler.profiling.measure import Reference, measure
from scaler.profiling.measurement import quiet_reference_ms
from scaler.profiling.networks import graph_of, reference_graph, write_network
from scaler.profiling.plan import reference_network
from scaler.profiling.plan_file import Plan, Planned
from scaler.profiling.run import SETTLE_SECONDS, Progress
from scaler.search.result import Candidate, DeviceResult, SearchResult
from scaler.space import Space
from scaler.space_file import read_space

OPSET = 13
PICKS = ("best", "knee", "front")


class Verified(NamedTuple):
    """One candidate, predicted and measured."""

    candidate: Candidate
    predicted_ms: float
    low_ms: float
    high_ms: float
    """Ends of the 90 % interval of the engine time."""
    measured_ms: float
    """Median of the raw samples, as they came; NaN where it failed."""
    p99_ms: float
    level_ms: float
    """Measured, at the speed that the machine had when the table was made; equal to `measured_ms` without a table."""
    warnings: tuple[str, ...]
    failure: str

    @property
    def error(self) -> float:
        """How much too slow the prediction is, as a share; drift of the machine apart."""
        return self.predicted_ms / self.level_ms - 1

    @property
    def inside(self) -> bool:
        """Whether the measurement lies in the 90 % interval."""
        return self.low_ms <= self.level_ms <= self.high_ms


class Verification(NamedTuple):
    """All candidates, and the state of the machine."""

    rows: tuple[Verified, ...]
    drift: float | None
    """How much slower the reference network is than when the table was made, as a share; None without a table."""


def chosen(result: SearchResult, device: str | None, pick: str) -> tuple[DeviceResult, tuple[Candidate, ...]]:
    """The candidates of a result that the user means.

    Args:
        result: Of a search.
        device: Whose front; the first where None.
        pick: `best`, `knee`, `front` for all, or an id.

    Raises:
        UsageError: No such device or candidate.
    """
    by_name = {found.device: found for found in result.devices}
    name = result.devices[0].device if device is None else device
    if name not in by_name:
        raise UsageError(f"the result has no device {name!r}; it has {', '.join(by_name)}")
    found = by_name[name]
    front = {candidate.id: candidate for candidate in found.front}
    if found.nearest is not None:
        front.setdefault(found.nearest.id, found.nearest)
    if not front:
        raise UsageError(f"the search has found no candidate for {name}: there is nothing to choose from")
    if pick == "front":
        return found, tuple(front.values())
    usual = found.pick or (found.front[-1].id if found.front else next(iter(front)))
    wanted = {"best": usual, "knee": found.knee}.get(pick, pick)
    if wanted is None or wanted not in front:
        hint = nearest_name(pick, front)
        raise UsageError(
            f"no candidate {pick!r} on the front of {name}; give {', '.join(PICKS)} or an id"
            + (f" such as {hint}" if hint else "")
        )
    return found, (front[wanted],)


def verify(
    result: SearchResult,
    found: DeviceResult,
    candidates: Sequence[Candidate],
    estimator: Estimator,
    machine: Machine,
    *,
    progress: Progress | None = None,
) -> Verification:
    """Build and measure candidates.

    Args:
        result: The search's.
        found: The device's part of it.
        candidates: What to verify.
        estimator: Predicts for the device.
        machine: What measures.
        progress: Told of every candidate.

    Raises:
        UserError: The reference network cannot be measured.
    """
    space = read_space(result.space)
    plan = _plan(result, found, candidates, space)
    model = estimator.info.model if estimator.info is not None else None
    known = model if isinstance(model, MeasuredModel) and model.reference else None
    measured = []
    with TemporaryDirectory(prefix="scaler-") as scratch:
        path = Path(scratch) / "reference.onnx"
        standard = graph_of(space, plan.reference, plan.dataset) if known is None else reference_graph(known.reference)
        write_network(standard, plan, path)
        with machine.runtime.prepare(path) as session:
            reference = Reference(session, machine.effort, machine.cores)
            reference.settle(SETTLE_SECONDS)
            for number, candidate in enumerate(candidates, start=1):
                params = space.canonical(candidate.params)
                network = Path(scratch) / "network.onnx"
                write_network(graph_of(space, params, plan.dataset), plan, network)
                measured.append(
                    measure(
                        machine.runtime,
                        network,
                        reference,
                        network=candidate.id,
                        params=params,
                        effort=machine.effort,
                        profile=False,
                    )
                )
                if progress is not None:
                    progress(number, len(candidates), candidate.id)
    level = None if known is None else known.reference_ms
    quiet = quiet_reference_ms([m for m in measured if m.rounds]) if any(m.rounds for m in measured) else float("nan")
    rows = []
    for candidate, m in zip(candidates, measured, strict=True):
        graph = graph_of(space, m.params, plan.dataset)
        prediction = estimator.estimate(graph)
        engine, spread = float(prediction.engine[0]), float(np.exp(Z_90 * prediction.engine_log_sd[0]))
        now = float(np.median(m.samples_ms)) if m.rounds else float("nan")
        at_level = m.ratio(quiet) * level if m.rounds and level is not None else now
        p99 = m.p99_ms if m.rounds else float("nan")
        rows.append(
            Verified(candidate, engine, engine / spread, engine * spread, now, p99, at_level, m.warnings, m.error)
        )
    timed = any(m.rounds for m in measured)
    return Verification(tuple(rows), quiet / level - 1 if timed and level is not None else None)


def _plan(result: SearchResult, found: DeviceResult, candidates: Sequence[Candidate], space: Space) -> Plan:
    """What the networks are written and timed as."""
    params = [space.canonical(candidate.params) for candidate in candidates]
    dataset = str(result.classes) if result.accuracy_file else result.dataset
    return Plan(
        device=found.device,
        power_mode=found.power_mode,
        runtime=found.runtime,
        precision=found.precision,  # type: ignore[arg-type]  # checked when the estimator was loaded
        batch=1,
        opset=OPSET,
        space=result.space,
        digest=space.digest,
        dataset=dataset,
        networks=tuple(Planned(network=c.id, params=p) for c, p in zip(candidates, params, strict=True)),
        reference=reference_network(space, dataset, RULES[found.runtime], params),
    )
