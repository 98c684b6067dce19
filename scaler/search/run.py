"""One search from start to end: devices, study, exact front of what was seen, the result for the reports."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np

from scaler import __version__
from scaler.accuracy import NOISE_AP
from scaler.devices import RUNTIME_TITLES
from scaler.errors import UsageError
from scaler.files import make_folder
from scaler.latency.estimator import Estimator, load_estimator
from scaler.search.cards import latency_card, references, warm_starts
from scaler.search.describe import describe
from scaler.search.evaluation import DEVICE_MEMORY, UNMEASURED, Evaluated, Evaluator, Limits
from scaler.search.front import knee, pareto_front
from scaler.search.predictors import default_dataset, load_predictor
from scaler.search.result import Candidate, DeviceResult, SearchResult
from scaler.search.study import StudyOutcome, StudyPlan, run_study
from scaler.space import Params
from scaler.space_file import read_space

Progress = Callable[[str, int, int], None]
"""Called with the device's name, the trials done and the trials wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What the user asks for."""

    devices: tuple[str, ...]
    target_fps: float | None = None
    space: str = "yolo-ret"
    dataset: str | None = None
    """None takes the one that the families of the space were published on."""
    metric: str | None = None
    """`ap50` or `ap`; None takes that of the publication."""
    accuracy: Path | None = None
    """A fit to the user's own runs; None predicts by the published laws."""
    precision: str | None = None
    """None takes each device's default."""
    power_mode: str | None = None
    overhead_ms: float | None = None
    trials: int | None = None
    """None takes the sampler's default."""
    sampler: str = "auto"
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    folder: Path | None = None
    """Where reports will go: made once the question is known to be a good one, before anything is paid for."""
    storage: str | Path | None = None
    """Journal file or Optuna storage URL; None keeps the study in memory."""
    study: str | None = None
    command: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """A result and whether it is of a search that was stopped early."""

    result: SearchResult
    interrupted: bool


def search(options: SearchOptions, progress: Progress | None = None) -> Search:
    """Find the Pareto fronts of a space, one for each device.

    Raises:
        UserError: What the user asks for is unknown or impossible; the message is one line.
    """
    _check(options)
    space = read_space(options.space)
    accuracy = load_predictor(space, options.dataset, options.metric, options.accuracy)
    limits = Limits(*(_tighter(a, b) for a, b in zip(options.limits, Limits(**space.limits), strict=True)))
    evaluator = Evaluator(space, accuracy, target_fps=options.target_fps, limits=limits)
    estimators: dict[str, Estimator] = {}
    for name in options.devices:
        estimator = load_estimator(
            name, precision=options.precision, power_mode=options.power_mode, overhead_ms=options.overhead_ms
        )
        estimators.setdefault(estimator.device.id, estimator)  # two names of one device are one device
    if options.folder is not None:
        make_folder(options.folder)
    results, outcomes = [], []
    for estimator in estimators.values():
        outcome = run_study(
            space,
            evaluator.scorer(estimator),
            plan=_plan(options, evaluator, estimator),
            storage=options.storage,
            progress=None if progress is None else _named(progress, estimator.device.id),
            evaluate_many=partial(evaluator.score_many, estimator=estimator),
        )
        outcomes.append(outcome)
        results.append(device_result(evaluator, estimator, outcome))
        if outcome.interrupted:
            break
    result = SearchResult(
        scaler_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        space=options.space,
        space_size=space.size,
        dataset=accuracy.dataset,
        metric=accuracy.metric,
        sampler=options.sampler,
        seed=options.seed,
        trials=sum(outcome.trials for outcome in outcomes),
        distinct=sum(outcome.distinct for outcome in outcomes),
        study="; ".join(outcome.storage for outcome in outcomes),
        limits={name: value for name, value in limits._asdict().items() if value is not None},
        noise_ap=NOISE_AP,
        accuracy_model=accuracy.card,
        devices=tuple(results),
        classes=accuracy.classes,
        accuracy_file=accuracy.file,
    )
    return Search(result, any(outcome.interrupted for outcome in outcomes))


def _check(options: SearchOptions) -> None:
    """Refuse numbers that make no question."""
    fps = options.target_fps
    if fps is not None and not 0 < fps < math.inf:
        raise UsageError(f"the frame rate must be above 0 and finite, not {fps:g}; give for instance --fps 30")
    for name, limit in options.limits._asdict().items():
        if limit is not None and not 0 < limit < math.inf:
            raise UsageError(f"the limit on {name} must be above 0 and finite, not {limit:g}")


def _tighter(first: float | None, second: float | None) -> float | None:
    given = [value for value in (first, second) if value is not None]
    return min(given) if given else None


def _named(progress: Progress, device: str) -> Callable[[int, int], None]:
    return lambda done, wanted: progress(device, done, wanted)


def _plan(options: SearchOptions, evaluator: Evaluator, estimator: Estimator) -> StudyPlan:
    """The study of one device; unless the user names it, its name holds the question, so that each has its own."""
    limits = {name: f"{value:g}" for name, value in evaluator.limits._asdict().items() if value is not None}
    target = "none" if options.target_fps is None else f"{options.target_fps:g}"
    metadata = {
        "device": estimator.device.id,
        "power_mode": estimator.mode.name,
        "precision": estimator.precision,
        "dataset": evaluator.dataset,
        "target_fps": target,
        "overhead_ms": "published" if options.overhead_ms is None else f"{options.overhead_ms:g}",
        "limits": ", ".join(f"{name} <= {value}" for name, value in limits.items()) or "none",
        "latency": estimator.fingerprint,
    }
    if not evaluator.accuracy.metric.endswith("AP50"):
        metadata["metric"] = evaluator.accuracy.metric
    if evaluator.accuracy.fit is not None:
        metadata["accuracy"] = evaluator.accuracy.fit.fingerprint
    if options.study is not None:
        name = f"{options.study}-{estimator.device.id}"
    else:
        asked = (evaluator.space.name, evaluator.dataset, estimator.device.id, f"{target}fps", options.sampler)
        digest = blake2b(repr((evaluator.space.digest, metadata)).encode(), digest_size=3).hexdigest()
        name = "-".join((*asked, f"seed{options.seed}", digest))
    return StudyPlan(
        sampler=options.sampler,
        trials=options.trials,
        seed=options.seed,
        name=name,
        warm_starts=warm_starts(evaluator),
        metadata=metadata,
    )


def default_folder(options: SearchOptions) -> Path:
    """Where reports and study go when the user names no folder: `results/` and the question."""
    target = "" if options.target_fps is None else f"-{options.target_fps:g}fps"
    devices = "-".join(Path(name).stem for name in options.devices)  # a device may be the path of a profile
    dataset = options.dataset or default_dataset(read_space(options.space))
    if options.accuracy is not None:
        dataset = options.accuracy.stem
    metric = "" if options.metric is None else f"-{options.metric.lower()}"
    return Path("results") / f"{Path(options.space).stem}-{dataset}{metric}-{devices}{target}"


def device_result(evaluator: Evaluator, estimator: Estimator, outcome: StudyOutcome) -> DeviceResult:
    """The exact front of everything that a study has evaluated on a device."""
    seen = [(params, scored) for params, scored in outcome.evaluated]
    feasible = [(p, s) for p, s in seen if all(v <= 0 for v in s.violations.values())]
    ap = np.array([scored.ap for _, scored in feasible])
    ms = np.array([scored.frame_ms for _, scored in feasible])
    places = pareto_front(ap, ms)
    front = tuple(describe(evaluator, estimator, feasible[place][0]) for place in places)
    best = knee(ap, ms)
    nearest = None if front else _nearest(evaluator, estimator, seen)
    runtime = estimator.device.runtimes[0]
    engine = f"{RUNTIME_TITLES[runtime]} {estimator.precision.upper()}"
    return DeviceResult(
        device=estimator.device.id,
        title=f"{estimator.device.name} ({estimator.mode.name}, {engine})",
        power_mode=estimator.mode.name,
        runtime=runtime,
        precision=estimator.precision,
        target_fps=evaluator.target_fps,
        front=front,
        pick=front[-1].id if front and evaluator.target_fps is not None else None,
        knee=None if best is None else evaluator.space.candidate_id(feasible[best][0]),
        message=_message(evaluator, estimator, front, nearest) + _left_out(estimator, seen) + _unsure(estimator, front),
        nearest=nearest,
        references=references(evaluator, estimator),
        explored=tuple((round(s.frame_ms, 3), round(s.ap, 3)) for _, s in seen),
        latency_model=latency_card(estimator),
    )


def _left_out(estimator: Estimator, seen: list[tuple[Params, Evaluated]]) -> str:
    """How many candidates the device's memory or the table's reach excluded, a sentence each; empty where none."""
    reasons = {
        DEVICE_MEMORY: "building their engines would take more than the "
        f"{estimator.device.memory_gib or 0:g} GiB of the device",
        UNMEASURED: "the table has no kernels like theirs; measure this space with scaler profile run "
        f"--device {estimator.device.id} --space SPACE",
    }
    counts = {name: sum(scored.violations.get(name, 0) > 0 for _, scored in seen) for name in reasons}
    return "".join(
        f" {count} of the {len(seen)} candidates evaluated were left out: {reasons[name]}."
        for name, count in counts.items()
        if count
    )


def _unsure(estimator: Estimator, front: tuple[Candidate, ...]) -> str:
    """How many times on the front are estimates though the device is calibrated, in a sentence."""
    count = sum(candidate.provenance != estimator.provenance for candidate in front)
    if not count:
        return ""
    return (
        f" {count} of the {len(front)} on the front are larger than any network with a published time on this device: "
        "their latency is estimated."
    )


def _nearest(evaluator: Evaluator, estimator: Estimator, seen: list[tuple[Params, Evaluated]]) -> Candidate | None:
    """The candidate that misses its constraints least, by the largest relative excess."""
    if not seen:
        return None
    params, _ = min(seen, key=lambda pair: (max(pair[1].violations.values()), -pair[1].ap))
    return describe(evaluator, estimator, params)


def _message(
    evaluator: Evaluator, estimator: Estimator, front: tuple[Candidate, ...], nearest: Candidate | None
) -> str:
    """The pick in one sentence, or what stands in the way."""
    device, target = estimator.device.name, evaluator.target_fps
    if front and target is None:
        ends = f"{front[0].fps.mean:.0f} to {front[-1].fps.mean:.1f} FPS"
        return f"{len(front)} Pareto-optimal detectors, {ends} on {device}."
    if front:
        return _picked(front, device)
    if nearest is None:
        return "No candidate was evaluated."
    return _unreachable(evaluator, estimator, nearest)


def _picked(front: tuple[Candidate, ...], device: str) -> str:
    pick = front[-1]
    text = (
        f"{pick.id} is the most accurate that reaches the target on {device}: AP {pick.ap.mean:.1f} at "
        f"{pick.fps.mean:.1f} FPS; it holds with probability {100 * (pick.reach_probability or 0):.0f} %."
    )
    close = [c for c in front[:-1] if pick.ap.mean - c.ap.mean < NOISE_AP]
    if close:
        text += f" Within the noise of {NOISE_AP:g} AP, {close[0].id} runs at {close[0].fps.mean:.1f} FPS."
    return text


def _unreachable(evaluator: Evaluator, estimator: Estimator, nearest: Candidate) -> str:
    """What stands in the way: the overhead, the dearest stage, or another limit."""
    network = evaluator.network(nearest.params)
    frame = nearest.engine_ms.mean + nearest.overhead_ms
    target = evaluator.target_fps
    reasons = []
    if target is not None and frame > 1000 / target:
        dearest = max(nearest.stages, key=lambda share: share.ms)
        budget = 1000 / target
        reasons.append(
            f"{target:g} FPS leave {budget:.1f} ms a frame, of which pre- and post-processing take "
            f"{nearest.overhead_ms:.1f} ms and the network {nearest.engine_ms.mean:.1f} ms "
            f"(most in {dearest.name}: {dearest.ms:.1f} ms)"
        )
    for name, excess in evaluator.violations(network, frame, estimator).items():
        if name == UNMEASURED and excess > 0:
            reasons.append(f"{excess:.0f} of its kernels are of a kind or size that the table knows nothing about")
        elif name != "fps" and excess > 0:
            what = (
                f"the {estimator.device.memory_gib:g} GiB of the device"
                if name == DEVICE_MEMORY
                else f"the limit on {name}"
            )
            reasons.append(f"it exceeds {what} by {100 * excess:.0f} %")
    return (
        f"None of the candidates evaluated meets the demands on {estimator.device.name}. {nearest.id} comes nearest "
        f"with {nearest.fps.mean:.1f} FPS and AP {nearest.ap.mean:.1f}; {'; '.join(reasons)}."
    )
