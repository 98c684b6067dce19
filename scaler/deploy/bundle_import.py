"""What a bundle for deployment brought back, beside what the search predicted; recorded for both to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scaler.deploy.bundle_accuracy import Judged, accuracy_here, accuracy_of
from scaler.deploy.bundle_results import Deployed, deployed
from scaler.deploy.verify_files import check_network, configurations
from scaler.devices import load_device
from scaler.errors import UsageError, UserError, nearest_name
from scaler.evaluation.metrics import Metrics
from scaler.latency.estimator import load_uncorrected
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.observed import Observed, observed_path, record_observed
from scaler.profiling.measurement import LARGEST_SPREAD, Measurement, quiet_reference_ms
from scaler.profiling.refine import repeat_log_sd
from scaler.report.recording import record_verified
from scaler.runtimes.engine_facts import EngineFacts
from scaler.search.candidates import candidates_of
from scaler.search.precision import network_params
from scaler.search.result import Candidate, DeviceResult, SearchResult, Verified
from scaler.search.result_file import read_result
from scaler.search.verified import promise_of
from scaler.space import MEMBER
from scaler.space_file import read_space

__all__ = ["ImportOrder", "Imported", "import_results"]

UNKNOWN = "unknown"
"""A power mode that the device does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOrder:
    """What is to be read, and what it belongs to."""

    results: Path
    """`results.tar.gz`, or the device's folder of results."""
    result: Path | None = None
    """The `pareto.json` of the search; None: measured figures alone."""
    device: str | None = None
    """Which device of the result; by default the one that measured."""
    candidate: str | None = None
    """Id of the candidate; by default what the bundle says."""
    data: Path | None = None
    """The `data.toml` of the bundle; None: no accuracy."""
    model: Path | None = None
    """The ONNX file that was deployed, to be judged by ONNX Runtime too."""
    record: bool = True
    """Whether to write into `pareto.json` and the observed networks of the latency table."""


class Place(NamedTuple):
    """What the results belong to."""

    result: SearchResult
    device: DeviceResult
    candidate: Candidate


class Imported(NamedTuple):
    """What came of it."""

    measured: Verified
    facts: EngineFacts
    measurement: Measurement
    pictures: int
    """Of the bundle."""
    judged: Judged | None
    """None without data."""
    here: Metrics | None
    """The same file on the same pictures by ONNX Runtime."""
    place: Place | None
    """None without a search."""
    observed: Observed | None
    """What the latency table learns; None where it is of another kind than the table's networks."""
    recorded: tuple[Path, ...]
    """Files that were changed."""
    problems: tuple[str, ...]
    """Outputs that are left out, and why."""


def import_results(order: ImportOrder) -> Imported:
    """Read the results of a bundle, judge them, and record them beside the predictions.

    Raises:
        FileError: A file that is missing, damaged, or of something else.
        UsageError: The results are of another device, power mode or network than what they are to be recorded for.
        UserError: The pictures cannot be judged, or a file cannot be written.
    """
    with deployed(order.results) as found:
        place = _place(order, found)
        judged = None if order.data is None else accuracy_of(found, order.data)
        here = None
        if order.model is not None:
            if judged is None or order.data is None:
                raise UsageError(f"--model {order.model} is judged by the same pictures: give --data too")
            here = accuracy_here(found, judged, order.model, order.data)
        problems = tuple(found.problems)
    level, reference_ms = _level(found, place)
    measured = _verified(found, place, judged, level)
    observed = None if place is None else _observed(found, place, level, reference_ms)
    recorded = _record(order, place, measured, observed) if order.record else ()
    return Imported(
        measured,
        found.facts,
        found.measurement,
        len(found.pictures),
        judged,
        here,
        place,
        observed,
        recorded,
        problems,
    )


# --- what it belongs to ---


def _place(order: ImportOrder, found: Deployed) -> Place | None:
    """The candidate of the search that the results are of; None without a search."""
    if order.result is None:
        return None
    result = read_result(order.result)
    device = _device(result, order, found)
    wanted = order.candidate or found.candidate
    known = {one.id: one for one in candidates_of(device)}
    if not wanted:
        raise UsageError(f"{order.results} does not say of which candidate it is: name it with --candidate")
    if wanted not in known:
        hint = nearest_name(wanted, known)
        raise UsageError(
            f"{order.result}: no candidate {wanted!r} for {device.device}"
            + (f"; did you mean {hint}?" if hint else "; name the pareto.json that it was picked from")
        )
    candidate = known[wanted]
    config = configurations(result, [candidate])[wanted]
    check_network(Path(found.facts.model), found.metadata, candidate, config)
    _check_mode(order, device, found)
    return Place(result, device, candidate)


def _device(result: SearchResult, order: ImportOrder, found: Deployed) -> DeviceResult:
    """The device's part of a search; refuses results of another device."""
    known = {one.device: one for one in result.devices}
    asked = order.device or found.device or found.wanted_device
    name = load_device(asked).id if asked else next(iter(known))
    if found.device and found.device != name:
        raise UsageError(f"{order.results}: measured on {found.device}, asked for {name}; leave --device out")
    gpu = load_device(name).gpu
    if gpu is not None and found.capability not in ("", gpu.compute_capability):
        here = f"a GPU of compute capability {found.capability}"
        raise UsageError(f"{order.results}: measured on {here}; that of {name} has {gpu.compute_capability}")
    if name not in known:
        raise UsageError(f"{order.result}: no device {name}, on which this was measured; it has {', '.join(known)}")
    return known[name]


def _check_mode(order: ImportOrder, device: DeviceResult, found: Deployed) -> None:
    mode = found.conditions.power_mode
    if mode not in (UNKNOWN, device.power_mode):
        raise UsageError(
            f"{order.results}: measured in power mode {mode}, {order.result} is for {device.power_mode}; search for "
            f"{mode} with --power-mode, or measure again"
        )


# --- what was measured ---


def _level(found: Deployed, place: Place | None) -> tuple[float, float | None]:
    """Milliseconds of the engine at the speed of the device's table, and what the reference took there.

    As it was timed, and None, where there is no measured table with the bundle's reference network.
    """
    measurement = found.measurement
    quiet = quiet_reference_ms([measurement])
    own = float(np.median(np.concatenate([round_.network_ms for round_ in measurement.quiet_rounds(quiet)])))
    if place is None:
        return own, None
    try:
        estimator = load_uncorrected(
            place.device.device, precision=found.facts.precision, power_mode=place.device.power_mode
        )
    except UserError:  # no table of this precision
        return own, None
    model = estimator.info.model if estimator.info is not None else None
    if not isinstance(model, MeasuredModel) or not model.reference or dict(model.reference) != dict(found.reference):
        return own, None
    return measurement.ratio(quiet) * model.reference_ms, model.reference_ms


def _verified(found: Deployed, place: Place | None, judged: Judged | None, level: float) -> Verified:
    """The measurement as a result keeps it."""
    measurement, conditions = found.measurement, found.conditions
    energy, memory = measurement.energy, measurement.memory_mib
    mode = conditions.power_mode
    if mode == UNKNOWN and place is not None:
        mode = place.device.power_mode
    ap, ap50 = (None, None) if judged is None else judged.metrics.points(place.result.metric if place else "")
    return Verified(
        model=found.model,
        runtime=conditions.runtime,
        runtime_version=conditions.runtime_version,
        precision=found.facts.precision,
        power_mode=mode,
        engine_ms=float(np.median(measurement.samples_ms)),
        engine_p99_ms=measurement.p99_ms,
        level_ms=level,
        dataset="" if judged is None else judged.metrics.dataset,
        ap=ap,
        ap50=ap50,
        energy_mj=None if energy is None else energy.mj,
        memory_mib=None if memory is None else memory.running,
        promise=None if place is None else promise_of(place.device),
        warnings=tuple(_doubts(found, place, judged)),
        created=_now(),
    )


def _doubts(found: Deployed, place: Place | None, judged: Judged | None) -> Sequence[str]:
    """What is to be known about a measurement."""
    measurement, facts = found.measurement, found.facts
    doubts = ["the engine alone, by trtexec: no whole frame", *measurement.warnings]
    spread = measurement.spread(quiet_reference_ms([measurement]))
    if spread > LARGEST_SPREAD:
        doubts.append(f"the rounds spread over {100 * spread:.0f} % after {measurement.tries} tries")
    if measurement.energy is not None:
        doubts += measurement.energy.notes
    if facts.dla is not None:
        doubts.append(f"on DLA core {facts.dla}")
    if place is not None:
        searched, classes = place.candidate.precision or place.device.precision, place.result.classes
        if classes not in (0, len(found.metadata.classes)):
            doubts.append(f"trained for {len(found.metadata.classes)} classes, predicted for {classes}")
        if searched != facts.precision:
            doubts.append(f"the engine is {facts.precision}, the prediction is of {searched}")
        if found.conditions.power_mode == UNKNOWN:
            doubts.append(f"the device did not tell its power mode, {place.device.power_mode} is assumed")
    if judged is not None and judged.metrics.pictures < judged.total:
        pictures = f"{judged.metrics.pictures} of {judged.total} pictures of {judged.metrics.split}"
        doubts.append(f"accuracy on {pictures}")
    nms = found.metadata.nms
    if judged is not None and nms is not None:
        doubts.append(f"accuracy behind the NMS inside the engine, of scores from {nms.confidence:g} on")
    return [*doubts, *found.problems]


# --- what is learned ---


def _observed(found: Deployed, place: Place, level: float, reference_ms: float | None) -> Observed | None:
    """The measurement as the corrections of the latency table take it; None where it is of another kind."""
    facts = found.facts
    searched = place.candidate.precision or place.device.precision
    if facts.dla is not None or found.metadata.nms is not None or facts.precision != searched:
        return None
    space = read_space(place.result.space)
    params = space.canonical(network_params(place.candidate.params))
    return Observed(
        network=place.candidate.network,
        family=space.family_of(params),
        params={name: value for name, value in params.items() if name != MEMBER},
        classes=len(found.metadata.classes),
        engine_ms=level,
        log_sd=repeat_log_sd(found.measurement, quiet_reference_ms([found.measurement])),
        how="import",
        created=_now(),
        reference_ms=reference_ms,
    )


def _record(order: ImportOrder, place: Place | None, measured: Verified, observed: Observed | None) -> tuple[Path, ...]:
    """Write into the search and the observed networks; the files that were changed."""
    if place is None or order.result is None:
        return ()
    device = place.device
    record_verified(order.result, device.device, {place.candidate.id: measured})
    if observed is None:
        return (order.result,)
    path = observed_path(device.device, "tensorrt", measured.precision, device.power_mode)
    record_observed(path, [observed])
    return order.result, path


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
