"""What a bundle brings back from a device, as measurements; `agent/measure.py` explains the layout of the results.

Nothing is trusted: archives may hold anything, files may be cut off or changed, and the results may be of another plan
or device. What concerns all of them is an error; what concerns one network leaves it out, with the reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scaler.devices import Device, Precision, load_device
from scaler.errors import FileError
from scaler.export.weights import Array, shapes
from scaler.files import Reader, read_json
from scaler.graph.graph import Layer
from scaler.profiling.bundle import network_model, plan_space
from scaler.profiling.bundle_archive import strict_text, unpacked, verified
from scaler.profiling.bundle_conditions import (
    ForeignError,
    check_place,
    conditions_of,
    doubts_of,
    loose_text,
    states_of,
)
from scaler.profiling.bundle_power import NO_RAILS, NO_TEGRASTATS, energy_of
from scaler.profiling.measurement import (
    BUSY,
    LARGEST_SPREAD,
    FrameEnergy,
    Measurement,
    MemoryMib,
    Round,
    quiet_reference_ms,
)
from scaler.profiling.plan_file import Plan, Planned, read_plan
from scaler.runtimes.power_memory import parse_engine_memory
from scaler.runtimes.protocol import Conditions, LayerTime, RuntimeFailedError
from scaler.runtimes.tensorrt_errors import failure
from scaler.runtimes.trtexec_files import LayerInfo, join, parse_layer_info, parse_profile, parse_times
from scaler.runtimes.trtexec_text import error_messages

__all__ = ["Imported", "Refused", "read_results"]

_STAGE = re.compile(r"(.+?): trtexec .+")


class Refused(NamedTuple):
    """A network that is left out, and why."""

    network: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came back from a device."""

    plan: Plan
    measurements: tuple[Measurement, ...]
    """In the plan's order; those of networks that failed on the device have an `error`."""
    refused: tuple[Refused, ...]
    """Networks of the plan that are missing or damaged, and others that do not belong to it."""


class _Run(NamedTuple):
    """What measured."""

    tensorrt: str
    rounds: int
    warm_up_ms: int


class _Context(NamedTuple):
    """What the results of every network are read with."""

    plan: Plan
    device: Device
    run: _Run
    system: str
    """Files of the system that do not change."""
    idle: str
    """What tegrastats said before anything ran."""
    names: Callable[[Planned], tuple[tuple[str, ...], dict[str, str]]]
    """Nodes of a network's model, and the node that makes a tensor."""


def read_results(
    path: Path | str,
    *,
    plan: Plan | None = None,
    device: str | None = None,
    precision: Precision | None = None,
    power_mode: str | None = None,
    tensorrt: str | None = None,
) -> Imported:
    """Read the results of a bundle.

    Args:
        path: `results.tar.gz`, or the folder that it unpacks to.
        plan: The plan that they must be of; None takes the one inside. So it is with all that follows:
        device: Id or alias of the device.
        precision: Of the engines.
        power_mode: Name or alias.
        tensorrt: Version or its beginning, `8.2`.

    Raises:
        FileError: It is no archive of results or a dangerous one, plan or header are damaged, or they are of something
            else than asked for.
        UserError: The plan's search space or device is not there, or not the one that it was made with.
    """
    path = Path(path)
    with unpacked(path) as folder:
        context = _context(path, folder)
        _check_wanted(path, context, plan, device, precision, power_mode, tensorrt)
        return _read_networks(path, folder / "networks", context)


def _context(path: Path, folder: Path) -> _Context:
    """Read plan and header."""
    try:
        files = verified(folder)
        missing = next((name for name in ("plan.json", "run.json") if name not in files), None)
        if missing:
            raise FileError(missing, "", "missing")
        plan, run = read_plan(folder / "plan.json"), _read_run(read_json(folder / "run.json", schema_version=1))
    except FileError as error:
        place = ": ".join(part for part in (Path(error.file).name, error.where) if part)
        raise FileError(path, place, error.what, error.allowed, "copy the results from the device again") from None
    space = plan_space(plan)

    def names(planned: Planned) -> tuple[tuple[str, ...], dict[str, str]]:
        nodes = network_model(plan, space, planned.params, _nothing).graph.node
        return tuple(node.name for node in nodes), {output: node.name for node in nodes for output in node.output}

    system, idle = loose_text(files, "system.txt"), loose_text(files, "idle-power.txt")
    return _Context(plan, load_device(plan.device), run, system, idle, names)


def _read_run(reader: Reader) -> _Run:
    reader.choice("kind", ("scaler-device-run",))
    for key in ("duration", "workspace"):
        reader.integer(key, minimum=1)
    reader.boolean("strongly_typed")
    reader.string("bundle_sha256")
    run = _Run(reader.string("tensorrt"), reader.integer("rounds", minimum=1), reader.integer("warm_up", minimum=1))
    reader.finish()
    return run


def _check_wanted(
    path: Path,
    context: _Context,
    plan: Plan | None,
    device: str | None,
    precision: Precision | None,
    power_mode: str | None,
    tensorrt: str | None,
) -> None:
    """Refuse results of something else than asked for."""
    found, known = context.plan, context.device
    version = context.run.tensorrt
    wanted = [
        ("device", found.device, load_device(device).id if device else found.device),
        ("precision", found.precision, precision or found.precision),
        ("power mode", found.power_mode, known.mode(power_mode).name if power_mode else found.power_mode),
    ]
    if plan:
        wanted += [
            (name.replace("_", " "), str(getattr(found, name)), str(getattr(plan, name)))
            for name in ("device", "runtime", "precision", "power_mode", "batch", "opset", "dataset", "digest")
        ]
    if tensorrt and f"{version}.".startswith(f"{tensorrt}."):
        tensorrt = version
    wanted.append(("TensorRT", version, tensorrt or version))
    for what, there, asked in wanted:
        if there != asked:
            raise FileError(path, "", f"results of another {what}: {there}", f"asked for {asked}", "name other results")
    if plan and (plan.networks, plan.reference) != (found.networks, found.reference):
        raise FileError(path, "", "results of another plan: its networks differ", todo="name other results")


def _read_networks(path: Path, folder: Path, context: _Context) -> Imported:
    measurements: list[Measurement] = []
    refused: list[Refused] = []
    foreign: Counter[str] = Counter()
    for planned in context.plan.networks:
        try:
            measurements.append(_read_network(folder / planned.network, planned, context))
        except FileError as error:
            reason = ": ".join(part for part in (Path(error.file).name, error.where, error.what) if part)
            refused.append(Refused(planned.network, reason))
        except ForeignError as error:
            foreign[str(error)] += 1
            refused.append(Refused(planned.network, str(error)))
    if foreign and not measurements:
        raise FileError(path, "", foreign.most_common(1)[0][0], todo="measure again, or name other results")
    known = {planned.network for planned in context.plan.networks}
    others = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    refused += [Refused(name, "not in the plan") for name in others if name not in known]
    return Imported(plan=context.plan, measurements=_with_spread(measurements), refused=tuple(refused))


def _read_network(folder: Path, planned: Planned, context: _Context) -> Measurement:
    if not folder.is_dir():
        raise FileError("", "", "not measured")
    files = verified(folder)
    if "result.json" not in files:
        raise FileError("result.json", "", "missing")
    reader = read_json(folder / "result.json", schema_version=1)
    reader.choice("kind", ("scaler-device-result",))
    reader.choice("network", (planned.network,))
    reader.string("model_sha256")
    seconds, tries = reader.number("seconds", minimum=0), reader.integer("tries", minimum=0)
    reason = reader.raw("error")
    reader.finish()
    error = _reason(str(reason), loose_text(files, "error.log")) if reason else ""
    states = states_of(files, context.system)
    check_place(states, files, context.plan, context.device)
    doubts = doubts_of(states)
    rounds: tuple[Round, ...] = ()
    layers: tuple[LayerTime, ...] = ()
    energy: FrameEnergy | None = None
    conditions = conditions_of(files, states[-1], context.plan, context.device, context.run.tensorrt)
    if not error:
        rounds = _rounds(files, context.run)
        layers = _layers(files, planned, context)
        doubts += _profile_doubts(files, rounds, context.run)
        energy, conditions = _energy(files, rounds, context, conditions)
    return Measurement(
        network=planned.network,
        params=planned.params,
        conditions=conditions,
        rounds=rounds,
        layers=layers,
        seconds=seconds,
        tries=tries,
        warnings=doubts,
        error=error,
        energy=energy,
        memory_mib=None if error else _memory(files),
    )


# --- times ---


def _rounds(files: Mapping[str, bytes], run: _Run) -> tuple[Round, ...]:
    """The rounds; neighbours share the times of the reference between them."""
    reference = [_times(files, f"times-reference-{number}.json", run) for number in range(run.rounds + 1)]
    network = [_times(files, f"times-network-{number}.json", run) for number in range(run.rounds)]
    return tuple(
        Round((*before, *after), times)
        for before, times, after in zip(reference[:-1], network, reference[1:], strict=True)
    )


def _times(files: Mapping[str, bytes], name: str, run: _Run) -> tuple[float, ...]:
    return tuple(parse_times(strict_text(files, name), name, warm_up_ms=run.warm_up_ms).tolist())


def _layers(files: Mapping[str, bytes], planned: Planned, context: _Context) -> tuple[LayerTime, ...]:
    """Layer times; none where the device could not profile, which its notes then say."""
    if "profile.json" not in files:
        return ()
    profile = parse_profile(strict_text(files, "profile.json"), "profile.json")
    infos: tuple[LayerInfo, ...] = ()
    if "layers.json" in files:
        with suppress(FileError):  # where TensorRT writes broken JSON, the names do without
            infos = parse_layer_info(strict_text(files, "layers.json"), "layers.json")
    nodes, makers = context.names(planned)
    return join(profile, infos, nodes=nodes, makers=makers)


def _profile_doubts(files: Mapping[str, bytes], rounds: Sequence[Round], run: _Run) -> tuple[str, ...]:
    """What the reference around the profile says about it."""
    if "profile.json" not in files:
        return ("there are no layer times",)
    usual = np.median([np.median(r.reference_ms) for r in rounds])
    after = np.median(_times(files, "times-reference-profile.json", run))
    return () if after <= BUSY * usual else (f"the device was {100 * (after / usual - 1):.0f} % slower at the profile",)


# --- energy and memory ---


def _energy(
    files: Mapping[str, bytes], rounds: Sequence[Round], context: _Context, conditions: Conditions
) -> tuple[FrameEnergy | None, Conditions]:
    """Energy of a frame, and the conditions, which say why there is none."""
    energy, note = None, NO_TEGRASTATS
    if "power.txt" in files and "times-power.json" in files:
        usual = float(np.median([ms for each in rounds for ms in each.network_ms]))
        times = _times(files, "times-power.json", context.run)
        energy, note = energy_of(loose_text(files, "power.txt"), context.idle, times, usual), NO_RAILS
    return energy, conditions if energy else replace(conditions, notes=(*conditions.notes, note))


def _memory(files: Mapping[str, bytes]) -> MemoryMib | None:
    """Memory of the engine; None where TensorRT did not tell it (before 8.2)."""
    told = parse_engine_memory(f"{loose_text(files, 'build.log')}\n{loose_text(files, 'run.log')}")
    return None if told.running is None and told.building is None else MemoryMib(told.running, told.building)


def _with_spread(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
    """Say where the rounds disagree."""
    timed = [measurement for measurement in measurements if measurement.rounds]
    quiet_ms = quiet_reference_ms(timed) if timed else 0.0

    def warned(measurement: Measurement) -> Measurement:
        spread = measurement.spread(quiet_ms) if measurement.rounds else 0.0
        if spread <= LARGEST_SPREAD:
            return measurement
        doubt = f"the rounds spread over {100 * spread:.0f} % after {measurement.tries} tries"
        return replace(measurement, warnings=(*measurement.warnings, doubt))

    return tuple(map(warned, measurements))


def _reason(error: str, log: str) -> str:
    """Why a network failed: what the device says, in the words of TensorRT where it left some."""
    stage, messages = _STAGE.fullmatch(error), error_messages(log)
    if not stage or not messages:
        return " ".join(error.split())[:300]
    return str(failure(messages, stage[1], RuntimeFailedError))


# --- texts ---


def _nothing(layer: Layer) -> dict[str, Array]:
    """Weights for a model of which only the names matter."""
    return {name: np.zeros(shape, np.float32) for name, shape in shapes(layer).items()}
