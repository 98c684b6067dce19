"""Explains one candidate on one device: what it costs, where, and which single step down saves most."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scaler.accuracy import NOISE_AP
from scaler.cost import Cost, layer_costs, stage_costs
from scaler.devices import load_device
from scaler.errors import UsageError, nearest_name
from scaler.graph.graph import Layer
from scaler.latency.estimator import Estimator, load_estimator
from scaler.models.detectors.families import family_of
from scaler.search import memory
from scaler.search.candidates import named_candidates
from scaler.search.cards import latency_card
from scaler.search.describe import describe, kind_name, timed_kernels
from scaler.search.evaluation import Evaluator, Network
from scaler.search.lighten import Lightening, change, lighten
from scaler.search.predictors import Predictor, load_predictor
from scaler.search.published_models import published_models
from scaler.search.result import Candidate, DeviceResult, ModelCard, SearchResult
from scaler.search.result_file import read_result
from scaler.space import Params, Space, Value, defaults
from scaler.space_file import read_space


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which candidate, and where it is to run."""

    candidate: str
    """Path of a pareto.json, name of a published model, or `key=value` pairs."""
    device: str | None = None
    pick: str = "best"
    space: str | None = None
    """None takes the space of the published model, or `yolo-ret`."""
    dataset: str | None = None
    """None takes the one that the family was published on."""
    metric: str | None = None
    """`ap50` or `ap`; None takes that of the publication."""
    accuracy: Path | None = None
    """A fit to the user's own runs; None takes that of the search, or the published laws."""
    precision: str | None = None
    """None takes that of the search's candidate, or the device's default."""
    power_mode: str | None = None
    overhead_ms: float | None = None
    lighten: bool = False
    """Whether to look for lighter heaviest blocks."""


SPACES = {"yolo-ret": "yolo-ret", "scaled-yolov4": "scaled-yolov4", "retinanet": "lw-retinanet"}
"""The shipped space of each family, where its published models are."""
FAMILY_OF_SPACE = {**{space: family for family, space in SPACES.items()}, "vovnet-ret": "yolo-ret"}
"""The simple shipped spaces, in the order in which a candidate is looked for."""

_METRICS = {"AP50": "ap50", "AP": "ap"}


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
    metric: str
    """Of the accuracy: `VOC AP50`, `COCO AP`."""
    warnings: tuple[str, ...] = ()
    """Why the network cannot run there, or its time is a guess."""
    lightening: Lightening | None = None
    """The heaviest block and what would make it lighter, where asked for."""

    def layers(self) -> list[tuple[Layer, Cost]]:
        """Cost of every layer."""
        return layer_costs(self.network.graph)


def explain(question: Question) -> Explanation:
    """Build, count and time the candidate.

    Raises:
        UserError: The candidate, device or file is unknown or malformed.
    """
    picked = None
    if question.candidate.endswith(".json"):
        result = read_result(Path(question.candidate))
        chosen = _device_of(result, question.device)
        picked = _picked(chosen, question.pick)
        params: Params = dict(picked.params)
        space, device = read_space(result.space), chosen.device
        accuracy = _predictor_of(result, space, question.accuracy)
        precision = question.precision or picked.precision or chosen.precision
        mode = question.power_mode or chosen.power_mode
    else:
        if question.device is None:
            raise UsageError("which device? give for instance --device nano")
        space, device = read_space(question.space or space_of(question.candidate)), question.device
        accuracy = load_predictor(space, question.dataset, question.metric, question.accuracy)
        params = named(question.candidate, space)
        profile = load_device(device)
        precision, mode = profile.require_precision(question.precision), question.power_mode or profile.default_mode
    evaluator = Evaluator(space, accuracy)
    estimator = load_estimator(device, precision=precision, power_mode=mode, overhead_ms=question.overhead_ms)
    explanation = _explanation(evaluator, estimator, space.canonical(params), lighten_too=question.lighten)
    if picked is None or picked.precision != estimator.precision:
        return explanation
    return replace(explanation, candidate=replace(explanation.candidate, id=picked.id, precision=picked.precision))


def _predictor_of(result: SearchResult, space: Space, accuracy: Path | None) -> Predictor:
    """The predictor that a search used."""
    if accuracy is None and not result.accuracy_file:
        return load_predictor(space, result.dataset, _METRICS[result.metric.rpartition(" ")[2]])
    file = accuracy or Path(result.accuracy_file)
    if not file.is_file():
        raise UsageError(f"the search was made with --accuracy {file}, which is not there: say where with --accuracy")
    return load_predictor(space, accuracy=file)


def _explanation(evaluator: Evaluator, estimator: Estimator, params: Params, *, lighten_too: bool) -> Explanation:
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
        metric=evaluator.accuracy.metric,
        warnings=_warnings(network, estimator),
        lightening=lighten(evaluator, estimator, params) if lighten_too else None,
    )


def _warnings(network: Network, estimator: Estimator) -> tuple[str, ...]:
    found = []
    device = estimator.device
    if memory.excess(network.graph, device, estimator.precision) > 0:
        needed = memory.build_gib(network.graph, device, estimator.precision)
        found.append(
            f"does not fit: building its engine takes about {needed:.1f} GiB, {device.name} has {device.memory_gib:g}"
        )
    if doubt := estimator.doubt(network.graph):
        found.append(f"the time is an estimate: {doubt}")
    return tuple(found)


def space_of(candidate: str) -> str:
    """The shipped space that has a candidate; where none has, the first that knows its parameters."""
    published = published_models().get(candidate)
    if published is not None:
        return SPACES[family_of(published.config).name]
    if "=" not in candidate:
        return "yolo-ret"
    wanted = set(_pairs(candidate))
    known = [name for name, family in FAMILY_OF_SPACE.items() if wanted <= set(defaults(family))]
    for name in known:
        with suppress(UsageError):
            named(candidate, read_space(name))
            return name
    return known[0] if known else "yolo-ret"


def _device_of(result: SearchResult, name: str | None) -> DeviceResult:
    if name is None:
        return result.devices[0]
    for device in result.devices:
        if device.device == name:
            return device
    known = ", ".join(device.device for device in result.devices)
    raise UsageError(f"the result has no device {name!r}; it has {known}")


def _picked(device: DeviceResult, pick: str) -> Candidate:
    known = named_candidates(device)
    wanted = {"best": device.pick or (device.front[-1].id if device.front else None), "knee": device.knee}.get(
        pick, pick
    )
    if wanted is None and device.nearest is not None:
        wanted = device.nearest.id
    if wanted not in known:
        hint = nearest_name(pick, known)
        raise UsageError(
            f"no candidate {pick!r} on the front of {device.device}; give best, knee or an id"
            + (f" such as {hint}" if hint else "")
        )
    return known[wanted]


def named(text: str, space: Space) -> Params:
    """A published model by name, or parameters written as `key=value,...`."""
    published = published_models()
    if text in published:
        found = space.find(published[text].config)
        if found is None:
            raise UsageError(f"{text} is not in the space {space.name!r}; give the space that has it with --space")
        return found
    if "=" not in text:
        hint = nearest_name(text, published)
        raise UsageError(
            f"unknown candidate {text!r}: give a pareto.json, key=value pairs, or a published model "
            f"({', '.join(published)}){f'; did you mean {hint}?' if hint else ''}"
        )
    written = _pairs(text)
    order = {parameter.name: place for place, parameter in enumerate(space.parameters)}
    pairs: dict[str, Value] = {}
    for name in sorted(written, key=lambda name: order.get(name, len(order))):
        pairs[name] = _value(name, written[name], pairs, space)
    found = space.canonical(pairs)
    if idle := [name for name in pairs if name not in found and name in order]:
        raise UsageError(f"{idle[0]} = {written[idle[0]]}: does not apply to {_said(found)}; leave it out")
    return found


def _pairs(text: str) -> dict[str, str]:
    """`key=value` pairs, each key once."""
    written: dict[str, str] = {}
    for part in text.split(","):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or not name or not value:
            raise UsageError(f"{part!r} is not of the form key=value")
        if name in written:
            raise UsageError(f"{name} is given twice, as {written[name]} and {value}; give it once")
        written[name] = value
    return written


def _said(params: Params) -> str:
    return ", ".join(f"{name} = {value}" for name, value in list(params.items())[:3])


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
    engine = float(estimator.estimate(network.graph).engine[0])
    placed, ms, found = timed_kernels(network.graph, estimator, engine)
    times = [
        KernelTime(
            placement.name,
            kind_name(kernel),
            f"{kernel.c_in}x{kernel.h_in}x{kernel.w_in} -> {kernel.c_out}x{kernel.h_out}x{kernel.w_out}",
            float(time),
            bool(in_table),
        )
        for (placement, kernel), time, in_table in zip(placed, ms, found, strict=True)
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
            steps.append(Step(change(params, other), here.frame_ms - there.frame_ms, here.ap - there.ap))
    return tuple(sorted(steps, key=lambda step: -step.rate))


def as_plain(explanation: Explanation) -> dict[str, Any]:
    """The explanation as plain data for JSON."""
    return {
        "device": explanation.device,
        "metric": explanation.metric,
        "warnings": list(explanation.warnings),
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
        **({"lightening": explanation.lightening.as_plain()} if explanation.lightening else {}),
    }
