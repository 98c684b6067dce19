"""Explains one candidate on one device: what it costs, where, and which single step down saves most."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scaler.accuracy import NOISE_AP
from scaler.accuracy import load as load_accuracy
from scaler.cost import Cost, layer_costs, stage_costs
from scaler.devices import load_device
from scaler.errors import UsageError, nearest_name
from scaler.graph.graph import Layer
from scaler.latency.estimator import Estimator, load_estimator
from scaler.latency.fusion import block_kernels
from scaler.published import yolo_ret_rows
from scaler.search.cards import latency_card, params_of, short_name
from scaler.search.describe import describe, kind_name
from scaler.search.evaluation import Evaluator, Network
from scaler.search.result import Candidate, DeviceResult, ModelCard, SearchResult
from scaler.search.result_file import read_result
from scaler.space import Params, Space, Value
from scaler.space_file import read_space


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which candidate, and where it is to run."""

    candidate: str
    """Path of a pareto.json, name of a published model, or `key=value` pairs."""
    device: str | None = None
    pick: str = "best"
    space: str = "yolo-ret"
    dataset: str = "voc"
    precision: str | None = None
    """None takes the device's default."""
    power_mode: str | None = None
    overhead_ms: float | None = None


@dataclass(frozen=True, slots=True)
class KernelTime:
    """One kernel launch of the candidate."""

    block: str
    kind: str
    """For instance `1x1 convolution`."""
    shape: str
    """For instance `144x80x80 -> 24x80x80`."""
    ms: float
    in_table: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One parameter changed by one step: what it saves and what it costs."""

    change: str
    """For instance `resolution 320 -> 288`."""
    saved_ms: float
    lost_ap: float

    @property
    def rate(self) -> float:
        """Milliseconds saved per AP lost; losses below the noise count as the noise."""
        return self.saved_ms / max(self.lost_ap, NOISE_AP)


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Everything that `scaler show` prints."""

    candidate: Candidate
    network: Network
    device: str
    cost: Cost
    stages: dict[str, Cost]
    """Graph cost by stage: memory access against its lower bound, arithmetic intensity."""
    kernels: tuple[KernelTime, ...]
    """Dearest first."""
    steps: tuple[Step, ...]
    """What to shrink first: most time saved per AP lost first."""
    latency_model: ModelCard

    def layers(self) -> list[tuple[Layer, Cost]]:
        """Cost of every layer."""
        return layer_costs(self.network.graph)


def explain(question: Question) -> Explanation:
    """Build, count and time the candidate.

    Raises:
        UserError: The candidate, device or file is unknown or malformed.
    """
    if question.candidate.endswith(".json"):
        result = read_result(Path(question.candidate))
        chosen = _device_of(result, question.device)
        params: Params = dict(_picked(chosen, question.pick).params)
        space, dataset, device = read_space(result.space), result.dataset, chosen.device
        precision, mode = chosen.precision, question.power_mode or chosen.power_mode
    else:
        if question.device is None:
            raise UsageError("which device? give for instance --device nano")
        space, dataset, device = read_space(question.space), question.dataset, question.device
        params = _named(question.candidate, space)
        profile = load_device(device)
        precision, mode = profile.require_precision(question.precision), question.power_mode or profile.default_mode
    evaluator = Evaluator(space, dataset, load_accuracy(dataset))
    estimator = load_estimator(device, precision=precision, power_mode=mode, overhead_ms=question.overhead_ms)
    return _explanation(evaluator, estimator, space.canonical(params))


def _explanation(evaluator: Evaluator, estimator: Estimator, params: Params) -> Explanation:
    network = evaluator.network(params)
    return Explanation(
        candidate=describe(evaluator, estimator, params),
        network=network,
        device=f"{estimator.device.name} ({estimator.mode.name}, {estimator.precision})",
        cost=network.cost,
        stages=stage_costs(network.graph),
        kernels=_kernels(network, estimator),
        steps=_steps(evaluator, estimator, params),
        latency_model=latency_card(estimator),
    )


def _device_of(result: SearchResult, name: str | None) -> DeviceResult:
    if name is None:
        return result.devices[0]
    for device in result.devices:
        if device.device == name:
            return device
    known = ", ".join(device.device for device in result.devices)
    raise UsageError(f"the result has no device {name!r}; it has {known}")


def _picked(device: DeviceResult, pick: str) -> Candidate:
    by_id = {candidate.id: candidate for candidate in device.front}
    if device.nearest is not None:
        by_id.setdefault(device.nearest.id, device.nearest)
    wanted = {"best": device.pick or (device.front[-1].id if device.front else None), "knee": device.knee}.get(
        pick, pick
    )
    if wanted is None and device.nearest is not None:
        wanted = device.nearest.id
    if wanted not in by_id:
        hint = nearest_name(pick, by_id)
        raise UsageError(
            f"no candidate {pick!r} on the front of {device.device}; give best, knee or an id"
            + (f" such as {hint}" if hint else "")
        )
    return by_id[wanted]


def _named(text: str, space: Space) -> Params:
    """A published model by name, or parameters written as `key=value,...`."""
    published = {
        f"YOLO-ReT-{short_name(config)}@{config.resolution}": config
        for row in yolo_ret_rows()
        if row.table == "5" and (config := row.detector()) is not None
    }
    if text in published:
        return space.canonical(params_of(published[text]))
    if "=" not in text:
        hint = nearest_name(text, published)
        raise UsageError(
            f"unknown candidate {text!r}: give a pareto.json, key=value pairs, or a published model "
            f"({', '.join(published)}){f'; did you mean {hint}?' if hint else ''}"
        )
    pairs: dict[str, Value] = {}
    for part in text.split(","):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or not name or not value:
            raise UsageError(f"{part!r} is not of the form key=value")
        pairs[name] = _value(name, value, pairs, space)
    return space.canonical(pairs)


def _value(name: str, text: str, before: Params, space: Space) -> Value:
    """The space's value that the text writes: a named value, a truth value, a number or a text."""
    for parameter in space.parameters:
        if parameter.name == name:
            for option in parameter.alternatives:
                if text in option.named and option.holds(before):
                    return option.named[text]
                for known in option.values:
                    if str(known).lower() == text.lower():
                        return known
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def _kernels(network: Network, estimator: Estimator) -> tuple[KernelTime, ...]:
    placed = [(p.name, kernel) for p in network.graph.placements for kernel in block_kernels(p.block, estimator.rules)]
    ms, found = estimator.kernel_times([kernel for _, kernel in placed])
    ms *= float(estimator.estimate(network.graph).engine[0]) / ms.sum()
    times = [
        KernelTime(
            name,
            kind_name(kernel),
            f"{kernel.c_in}x{kernel.h_in}x{kernel.w_in} -> {kernel.c_out}x{kernel.h_out}x{kernel.w_out}",
            float(time),
            bool(in_table),
        )
        for (name, kernel), time, in_table in zip(placed, ms, found, strict=True)
    ]
    return tuple(sorted(times, key=lambda time: -time.ms))


def _steps(evaluator: Evaluator, estimator: Estimator, params: Params) -> tuple[Step, ...]:
    """Every neighbour in the space that is faster, best rate of exchange first."""
    score = evaluator.scorer(estimator)
    here = score(params)
    steps = []
    for other in evaluator.space.neighbours(params):
        there = score(other)
        if there.frame_ms < here.frame_ms:
            steps.append(Step(_change(params, other), here.frame_ms - there.frame_ms, here.ap - there.ap))
    return tuple(sorted(steps, key=lambda step: -step.rate))


def _change(before: Params, after: Params) -> str:
    changed = [
        f"{name} {before.get(name, '-')} -> {after.get(name, '-')}"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]
    return ", ".join(changed)


def as_plain(explanation: Explanation) -> dict[str, Any]:
    """The explanation as plain data for JSON."""
    return {
        "device": explanation.device,
        "candidate": asdict(explanation.candidate),
        "cost": {**explanation.cost._asdict(), "flops": explanation.cost.flops},
        "stages": {
            name: {
                **cost._asdict(),
                "memory_access_ratio": cost.memory_access_ratio,
                "arithmetic_intensity": cost.arithmetic_intensity,
            }
            for name, cost in explanation.stages.items()
        },
        "kernels": [asdict(kernel) for kernel in explanation.kernels],
        "steps": [{**asdict(step), "ms_per_ap": step.rate} for step in explanation.steps],
        "latency_model": asdict(explanation.latency_model),
    }
