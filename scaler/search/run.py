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
from scaler.errors import UnsupportedError, UsageError, unknown_name
from scaler.files import make_folder
from scaler.latency.energy import why_no_energy
from scaler.search.cards import accuracy_card, latency_card, references, warm_starts
from scaler.search.describe import describe
from scaler.search.evaluation import ENERGY, LATENCY, MINIMIZE, Evaluated, Evaluator, Limits
from scaler.search.front import knee, pareto_front
from scaler.search.message import message
from scaler.search.precision import ALL, INT8, Engines, int8_fingerprint, load_engines
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
    """One, several with commas between, or `all` for whatever the device has; None takes each device's default."""
    power_mode: str | None = None
    overhead_ms: float | None = None
    trials: int | None = None
    """None takes the sampler's default."""
    sampler: str = "auto"
    seed: int = 0
    minimize: str = LATENCY
    """The objective beside the accuracy: `latency`, or `energy` where the device's table tells it."""
    limits: Limits = field(default_factory=Limits)
    folder: Path | None = None
    """Where reports will go: made once the question is known to be a good one, before anything is paid for."""
    storage: str | Path | None = None
    """Journal file or Optuna storage URL; None keeps the study in memory."""
    study: str | None = None
    sure: bool = False
    """Whether a frame rate is promised by the slow end of the 90 % interval, as refined searches do."""
    starts: tuple[Params, ...] = ()
    """Candidates to begin with, beside the published ones."""
    command: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """A result and whether it is of a search that was stopped early."""

    result: SearchResult
    interrupted: bool
    contenders: tuple[Candidate, ...] = ()
    """Of the first device: what would be on the front if the mean were promised and not the slow end."""


def search(options: SearchOptions, progress: Progress | None = None) -> Search:
    """Find the Pareto fronts of a space, one for each device.

    Raises:
        UserError: What the user asks for is unknown or impossible; the message is one line.
    """
    _check(options)
    space = read_space(options.space)
    accuracy = load_predictor(space, options.dataset, options.metric, options.accuracy)
    limits = Limits(*(_tighter(a, b) for a, b in zip(options.limits, Limits(**space.limits), strict=True)))
    shared = Evaluator(
        space, accuracy, target_fps=options.target_fps, limits=limits, minimize=options.minimize, sure=options.sure
    )
    by_device = _engines(options, shared)
    if options.folder is not None:
        make_folder(options.folder)
    results, outcomes = [], []
    contenders: tuple[Candidate, ...] = ()
    for device, engines in by_device.items():
        evaluator = shared.over(engines.space(space))
        outcome = run_study(
            evaluator.space,
            evaluator.scorer(engines),
            plan=_plan(options, evaluator, engines),
            storage=options.storage,
            progress=None if progress is None else _named(progress, device),
            evaluate_many=partial(evaluator.score_many, engines=engines),
        )
        outcomes.append(outcome)
        results.append(device_result(evaluator, engines, outcome))
        if options.sure and len(outcomes) == 1:
            contenders = _contenders(evaluator, engines, outcome, results[0].front)
        if outcome.interrupted:
            break
    result = SearchResult(
        scaler_version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        space=options.space,
        space_size=max(engines.space(space).size for engines in by_device.values()),
        dataset=accuracy.dataset,
        metric=accuracy.metric,
        sampler=options.sampler,
        seed=options.seed,
        trials=sum(outcome.trials for outcome in outcomes),
        distinct=sum(outcome.distinct for outcome in outcomes),
        study="; ".join(outcome.storage for outcome in outcomes),
        limits={name: value for name, value in limits._asdict().items() if value is not None},
        noise_ap=NOISE_AP,
        accuracy_model=accuracy_card(accuracy, {one for engines in by_device.values() for one in engines.precisions}),
        devices=tuple(results),
        classes=accuracy.classes,
        accuracy_file=accuracy.file,
        minimize=options.minimize,
    )
    return Search(result, any(outcome.interrupted for outcome in outcomes), contenders)


def _check(options: SearchOptions) -> None:
    """Refuse numbers that make no question."""
    fps = options.target_fps
    if fps is not None and not 0 < fps < math.inf:
        raise UsageError(f"the frame rate must be above 0 and finite, not {fps:g}; give for instance --fps 30")
    for name, limit in options.limits._asdict().items():
        if limit is not None and not 0 < limit < math.inf:
            raise UsageError(f"the limit on {name} must be above 0 and finite, not {limit:g}")
    if options.minimize not in MINIMIZE:
        raise UsageError(unknown_name("objective", options.minimize, MINIMIZE))


def _engines(options: SearchOptions, evaluator: Evaluator) -> dict[str, Engines]:
    """What predicts on each device, by its id."""
    by_device: dict[str, Engines] = {}
    for name in options.devices:
        engines = load_engines(name, options.precision, power_mode=options.power_mode, overhead_ms=options.overhead_ms)
        by_device.setdefault(engines.usual.device.id, engines)  # two names of one device are one device
    if options.minimize == ENERGY:
        _require_energy(evaluator, by_device)
    return by_device


def _require_energy(evaluator: Evaluator, by_device: dict[str, Engines]) -> None:
    """Refuse to minimise the energy where a table has none."""
    graph = evaluator.network(next(evaluator.space.candidates())).graph
    for engines in by_device.values():
        for estimator in engines.estimators:
            if estimator.energy_mj([estimator.sums(graph)]) is None:
                conditions = estimator.info.conditions if estimator.info is not None else ()
                raise UnsupportedError(why_no_energy(estimator.device.id, conditions))


def _tighter(first: float | None, second: float | None) -> float | None:
    given = [value for value in (first, second) if value is not None]
    return min(given) if given else None


def _named(progress: Progress, device: str) -> Callable[[int, int], None]:
    return lambda done, wanted: progress(device, done, wanted)


def _plan(options: SearchOptions, evaluator: Evaluator, engines: Engines) -> StudyPlan:
    """The study of one device; unless the user names it, its name holds the question, so that each has its own."""
    limits = {name: f"{value:g}" for name, value in evaluator.limits._asdict().items() if value is not None}
    target = "none" if options.target_fps is None else f"{options.target_fps:g}"
    estimator = engines.usual
    metadata = {
        "device": estimator.device.id,
        "power_mode": estimator.mode.name,
        "precision": ",".join(engines.precisions),
        "dataset": evaluator.dataset,
        "target_fps": target,
        "overhead_ms": "published" if options.overhead_ms is None else f"{options.overhead_ms:g}",
        "limits": ", ".join(f"{name} <= {value}" for name, value in limits.items()) or "none",
        "latency": ",".join(one.fingerprint for one in engines.estimators),
    }
    if not evaluator.accuracy.metric.endswith("AP50"):
        metadata["metric"] = evaluator.accuracy.metric
    if evaluator.accuracy.fit is not None:
        metadata["accuracy"] = evaluator.accuracy.fit.fingerprint
    if INT8 in engines.precisions:
        metadata["int8_loss"] = int8_fingerprint()
    if options.minimize != LATENCY:
        metadata["minimize"] = options.minimize
    if options.sure:
        metadata["promise"] = "slow end"
    if options.study is not None:
        name = f"{options.study}-{estimator.device.id}"
        name += f"-{metadata['latency']}" if options.sure else ""  # each correction asks another question
    else:
        asked = (evaluator.space.name, evaluator.dataset, estimator.device.id, f"{target}fps", options.sampler)
        digest = blake2b(repr((evaluator.space.digest, metadata)).encode(), digest_size=3).hexdigest()
        name = "-".join((*asked, f"seed{options.seed}", digest))
    return StudyPlan(
        sampler=options.sampler,
        trials=options.trials,
        seed=options.seed,
        name=name,
        warm_starts=(*map(evaluator.space.canonical, options.starts), *warm_starts(evaluator)),
        metadata=metadata,
        minimized=MINIMIZE[options.minimize],
    )


def default_folder(options: SearchOptions) -> Path:
    """Where reports and study go when the user names no folder: `results/` and the question."""
    target = "" if options.target_fps is None else f"-{options.target_fps:g}fps"
    devices = "-".join(Path(name).stem for name in options.devices)  # a device may be the path of a profile
    dataset = options.dataset or default_dataset(read_space(options.space))
    if options.accuracy is not None:
        dataset = options.accuracy.stem
    metric = "" if options.metric is None else f"-{options.metric.lower()}"
    precision = (options.precision or "").replace(" ", "").casefold()
    several = precision if "," in precision or precision == ALL else ""
    suffix = "".join(f"-{part.replace(',', '-')}" for part in (several, options.minimize) if part not in ("", LATENCY))
    return Path("results") / f"{Path(options.space).stem}-{dataset}{metric}-{devices}{target}{suffix}"


def device_result(evaluator: Evaluator, engines: Engines, outcome: StudyOutcome) -> DeviceResult:
    """The exact front of everything that a study has evaluated on a device."""
    seen = [(params, scored) for params, scored in outcome.evaluated]
    feasible = [(p, s) for p, s in seen if all(v <= 0 for v in s.violations.values())]
    ap = np.array([scored.ap for _, scored in feasible])
    minimized = np.array([scored.minimized for _, scored in feasible])
    front = tuple(describe(evaluator, engines, feasible[place][0]) for place in pareto_front(ap, minimized))
    best = knee(ap, minimized)
    nearest = None if front else _nearest(evaluator, engines, seen)
    estimator = engines.usual
    runtime = estimator.device.runtimes[0]
    precisions = ", ".join(precision.upper() for precision in engines.precisions)
    return DeviceResult(
        device=estimator.device.id,
        title=f"{estimator.device.name} ({estimator.mode.name}, {RUNTIME_TITLES[runtime]} {precisions})",
        power_mode=estimator.mode.name,
        runtime=runtime,
        precision=estimator.precision,
        target_fps=evaluator.target_fps,
        front=front,
        pick=front[-1].id if front and evaluator.target_fps is not None else None,
        knee=None if best is None else evaluator.space.candidate_id(feasible[best][0]),
        message=message(evaluator, engines, front, nearest, [scored for _, scored in seen]),
        nearest=nearest,
        references=references(evaluator, estimator),
        explored=tuple((round(s.minimized, 3), round(s.ap, 3)) for _, s in seen),
        latency_model=latency_card(engines),
    )


def _contenders(
    evaluator: Evaluator, engines: Engines, outcome: StudyOutcome, front: tuple[Candidate, ...]
) -> tuple[Candidate, ...]:
    """The front of everything that meets the target by its mean, and all other demands, fastest first."""
    budget = math.inf if evaluator.target_fps is None else 1000 / evaluator.target_fps
    hopeful = [
        (params, scored)
        for params, scored in outcome.evaluated
        if scored.frame_ms <= budget and all(v <= 0 for name, v in scored.violations.items() if name != "fps")
    ]
    places = pareto_front([scored.ap for _, scored in hopeful], [scored.minimized for _, scored in hopeful])
    described = {one.id: one for one in front}
    chosen = [hopeful[place][0] for place in places]
    return tuple(
        described.get(evaluator.space.candidate_id(params)) or describe(evaluator, engines, params) for params in chosen
    )


def _nearest(evaluator: Evaluator, engines: Engines, seen: list[tuple[Params, Evaluated]]) -> Candidate | None:
    """The candidate that misses its constraints least, by the largest relative excess."""
    if not seen:
        return None
    params, _ = min(seen, key=lambda pair: (max(pair[1].violations.values()), -pair[1].ap))
    return describe(evaluator, engines, params)
