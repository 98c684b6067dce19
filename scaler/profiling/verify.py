"""Networks of a search, timed on this machine beside the reference network of its latency table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from scaler.devices import Precision
from scaler.errors import UsageError, nearest_name
from scaler.latency.estimator import Estimator
from scaler.latency.fusion import RULES
from scaler.latency.measured_model import MeasuredModel
from scaler.profiling.energy import Meter, metered
from scaler.profiling.machine import Machine
from scaler.profiling.measure import Reference, measure
from scaler.profiling.measurement import Measurement
from scaler.profiling.networks import graph_of, reference_graph, write_network
from scaler.profiling.plan import reference_network
from scaler.profiling.plan_file import Plan, Planned
from scaler.profiling.run import SETTLE_SECONDS, cores_given_back
from scaler.runtimes.power_find import FoundPower
from scaler.runtimes.protocol import Runtime
from scaler.search.candidates import candidates_of, named_candidates
from scaler.search.precision import network_params
from scaler.search.result import Candidate, DeviceResult, SearchResult
from scaler.space import Params, Space
from scaler.space_file import read_space

OPSET = 13
PICKS = ("best", "knee", "front")


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
    if not by_name:
        raise UsageError("the search has no device: there is nothing to choose from")
    name = result.devices[0].device if device is None else device
    if name not in by_name:
        raise UsageError(f"the result has no device {name!r}; it has {', '.join(by_name)}")
    found = by_name[name]
    front = candidates_of(found)
    if not front:
        raise UsageError(f"the search has found no candidate for {name}: there is nothing to choose from")
    if pick == "front":
        return found, front
    usual = found.pick or front[-1].id
    wanted = {"best": usual, "knee": found.knee}.get(pick, pick)
    known = named_candidates(found)
    if wanted is None or wanted not in known:
        hint = nearest_name(pick, known)
        raise UsageError(
            f"no candidate {pick!r} on the front of {name}; give {', '.join(PICKS)} or an id"
            + (f" such as {hint}" if hint else "")
        )
    return found, (known[wanted],)


class Timed(NamedTuple):
    """How long a network took; times in ms, NaN where it failed."""

    measurement: Measurement
    median_ms: float
    """Of the raw samples, as they came."""
    quiet_ms: float
    """Of those that were taken while the machine was quiet."""
    p99_ms: float
    level_ms: float
    """At the speed that the machine had when the table was made; `quiet_ms` without a table."""

    @property
    def failure(self) -> str:
        """Why it could not be measured; blank where it could."""
        return self.measurement.error


@dataclass(frozen=True, slots=True)
class Bench:
    """A machine with the reference network ready beside which networks are timed; made by `bench`."""

    machine: Machine
    reference: Reference
    level_ms: float | None
    """What the reference network took when the table was made; None without a measured table."""
    space: Space
    plan: Plan
    meter: Meter
    scratch: Path
    """A folder for files that last as long as the bench."""

    @property
    def drift(self) -> float | None:
        """How much slower the reference is than when the table was made, as a share; None without a table."""
        return None if self.level_ms is None else self.reference.quiet_ms / self.level_ms - 1

    def params(self, candidate: Candidate) -> Params:
        """Parameters of a candidate's network in the search space."""
        return self.space.canonical(network_params(candidate.params))

    def candidate(self, candidate: Candidate) -> Timed:
        """Time a candidate with made-up weights, as the networks of the table were timed."""
        params = self.params(candidate)
        network = self.scratch / "network.onnx"
        write_network(graph_of(self.space, params, self.plan.dataset), self.plan, network)
        return self.file(network, candidate.id, params)

    def file(
        self,
        model: Path,
        network: str,
        params: Params,
        *,
        runtime: Runtime | None = None,
        quiet_seconds: float = 0.0,
        meter: Meter | None = None,
    ) -> Timed:
        """Time a network of a file; one that fails has its reason in `failure`.

        Args:
            model: The file.
            network: Name of the network.
            params: Of the network.
            runtime: What runs it; that of the machine where None.
            quiet_seconds: Time of it while the machine is quiet, at least; the machine's effort where that is more.
            meter: Measures its energy; that of the bench where None.
        """
        usual = self.machine.effort
        effort = replace(usual, quiet_seconds=max(usual.quiet_seconds, quiet_seconds))
        measured = measure(
            runtime or self.machine.runtime,
            model,
            self.reference,
            network=network,
            params=params,
            effort=effort,
            profile=False,
            meter=meter or self.meter,
        )
        if not measured.rounds:
            return Timed(measured, *[float("nan")] * 4)
        now = self.reference.quiet_ms
        quiet = float(np.median(np.concatenate([r.network_ms for r in measured.quiet_rounds(now)])))
        level = quiet if self.level_ms is None else measured.ratio(now) * self.level_ms
        return Timed(measured, float(np.median(measured.samples_ms)), quiet, measured.p99_ms, level)


@contextmanager
def bench(
    result: SearchResult,
    found: DeviceResult,
    candidates: Sequence[Candidate],
    estimator: Estimator,
    machine: Machine,
    *,
    power: FoundPower | None = None,
    settle_seconds: float = SETTLE_SECONDS,
) -> Iterator[Bench]:
    """Make the reference network ready on a machine, and find out how fast the machine is.

    Args:
        result: Of the search.
        found: The device's part of it.
        candidates: What is to be timed.
        estimator: Of the device, whose table says which network is the reference and what it took.
        machine: What measures.
        power: What measures energy beside the times, closed at the end; None asks for none.
        settle_seconds: How long to watch the reference first.

    Raises:
        UserError: The reference network cannot be measured.
    """
    space = read_space(result.space)
    plan = _plan(result, found, candidates, space, estimator.precision)
    model = estimator.info.model if estimator.info is not None else None
    known = model if isinstance(model, MeasuredModel) and model.reference else None
    with (
        TemporaryDirectory(prefix="scaler-") as folder,
        metered(power, None, machine.effort.idle_seconds) as meter,
        cores_given_back(machine.cores),
    ):
        path = Path(folder) / "reference.onnx"
        standard = graph_of(space, plan.reference, plan.dataset) if known is None else reference_graph(known.reference)
        write_network(standard, plan, path)
        with machine.runtime.prepare(path) as session:
            reference = Reference(session, machine.effort, machine.cores)
            reference.settle(settle_seconds)
            level = None if known is None else known.reference_ms
            yield Bench(machine, reference, level, space, plan, meter, Path(folder))


def _plan(
    result: SearchResult, found: DeviceResult, candidates: Sequence[Candidate], space: Space, precision: Precision
) -> Plan:
    """What the networks are written and timed as."""
    params = [space.canonical(network_params(candidate.params)) for candidate in candidates]
    dataset = str(result.classes) if result.accuracy_file else result.dataset
    return Plan(
        device=found.device,
        power_mode=found.power_mode,
        runtime=found.runtime,
        precision=precision,
        batch=1,
        opset=OPSET,
        space=result.space,
        digest=space.digest,
        dataset=dataset,
        networks=tuple(Planned(network=c.id, params=p) for c, p in zip(candidates, params, strict=True)),
        reference=reference_network(space, dataset, RULES[found.runtime], params),
    )
