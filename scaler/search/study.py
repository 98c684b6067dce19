"""A study: proposes candidates, has them evaluated and keeps them where others can read them.

Only this module, `stored`, `samplers` and `storage` know Optuna, and import it when a study is run. A study has
two objectives (accuracy up, frame time or energy down) and a constraint for each violation that the evaluation reports.

`auto` and `random` write a trial once, whole, when it is evaluated (about 1 ms on a journal file), so that a worker
that is killed leaves nothing half done. Optuna's own samplers need a running trial and write every parameter
(about 7 ms).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scaler.errors import UsageError, unknown_name
from scaler.search.evaluation import Evaluated
from scaler.search.front import pareto_front
from scaler.search.local_search import LocalSearch
from scaler.space import Params, Space

if TYPE_CHECKING:
    from scaler.search.stored import StoredStudy

__all__ = ["DEFAULT_TRIALS", "SAMPLERS", "StudyOutcome", "StudyPlan", "run_study"]

Evaluate = Callable[[Params], Evaluated]
EvaluateMany = Callable[[Sequence[Params]], Sequence[Evaluated]]
Progress = Callable[[int, int], None]

DEFAULT_TRIALS = {"auto": 800, "nsga2": 1000, "nsga3": 1000, "tpe": 300, "gp": 100, "random": 1000}
"""What `auto` needs for 99.5 % of the exact front's hypervolume, and what the others do in bearable time."""
SAMPLERS = (*DEFAULT_TRIALS, "exhaustive")

_CHUNK = 512  # candidates between two reports of an exhaustive search


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPlan:
    """What to do in a study."""

    sampler: str = "auto"
    """One of `SAMPLERS`."""
    trials: int | None = None
    """Completed trials that the study shall have in the end, all workers' and former runs' together; None takes the
    sampler's default. Without meaning for an exhaustive search."""
    seed: int = 0
    """Decides the proposals of a fresh study; `auto` and `random` also go on from it after an interruption."""
    name: str = "scaler"
    """Of the study in its storage."""
    warm_starts: Sequence[Params] = ()
    """Candidates to begin with; they must be in the space."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What makes results comparable, such as device and data set: a study of other metadata is refused."""
    minimized: str = "frame_ms"
    """The second objective: `frame_ms`, or `energy_mj` where every score has it."""


@dataclass(frozen=True, slots=True, eq=False)
class StudyOutcome:
    """What a study found."""

    evaluated: tuple[tuple[Params, Evaluated], ...]
    """Every different candidate with its scores, in order; those of other workers and former runs too."""
    trials: int
    """Completed trials of the study; for an exhaustive search the candidates evaluated."""
    distinct: int
    """Different candidates among them."""
    interrupted: bool
    """Whether Ctrl-C ended it early; the same call goes on."""
    storage: str
    """Where the study lives and its name, for people; without a password."""


def run_study(
    space: Space,
    evaluate: Evaluate,
    *,
    plan: StudyPlan,
    storage: str | Path | None = None,
    progress: Progress | None = None,
    evaluate_many: EvaluateMany | None = None,
) -> StudyOutcome:
    """Run or continue a study until it has the wanted trials or no candidate is left.

    Several workers may run one study at the same time; it may then get a trial more for each of them, and two of
    them may now and then evaluate the same candidate. An exhaustive search evaluates every candidate anew and
    stores those of the front.

    Args:
        space: The search space.
        evaluate: Scores a candidate; a worker never calls it for one that the study knows.
        plan: What to do.
        storage: None for the memory, a journal file's path, or an URL of Optuna's.
        progress: Told the completed and the wanted trials.
        evaluate_many: Scores many candidates at once, for an exhaustive search.

    Raises:
        UsageError: An unknown sampler, a number of trials or a seed that is none, a warm start outside the space.
        UserError: The storage cannot be used, or the study is about another space, device or version.
        MissingExtraError: The sampler or the storage needs an optional part.
    """
    _check(plan)
    report, starts = progress or _silent, _canonical(plan.warm_starts, space)
    with _quiet():
        from scaler.search.storage import with_storage  # noqa: PLC0415  # Optuna takes a third of a second
        from scaler.search.stored import StoredStudy  # noqa: PLC0415

        with with_storage(storage) as opened:
            study = StoredStudy(opened, plan.name, space, plan.metadata, plan.minimized)
            if plan.sampler == "exhaustive":
                many = evaluate_many or (lambda candidates: [evaluate(params) for params in candidates])
                interrupted = _exhaust(study, many, report)
            elif plan.sampler in ("auto", "random"):
                interrupted = _propose(study, evaluate, plan, starts, report)
            else:
                interrupted = _ask(study, evaluate, plan, starts, report)
    found = study.history.evaluated
    trials = len(found) if plan.sampler == "exhaustive" else study.completed
    return StudyOutcome(tuple(found), trials, len(found), interrupted, f"{opened.name}, study {plan.name!r}")


def _check(plan: StudyPlan) -> None:
    if plan.sampler not in SAMPLERS:
        raise UsageError(unknown_name("sampler", plan.sampler, SAMPLERS))
    if plan.trials is not None and plan.trials < 1:
        raise UsageError(f"the number of trials must be 1 or more, not {plan.trials}")
    if plan.seed < 0:
        raise UsageError(f"the seed must be 0 or more, not {plan.seed}")
    if not plan.name.strip():
        raise UsageError("the name of the study is blank")


def _canonical(warm_starts: Sequence[Params], space: Space) -> list[Params]:
    for params in warm_starts:
        if not space.contains(params):
            given = ", ".join(f"{name} = {value}" for name, value in params.items())
            raise UsageError(f"the warm start {given} is not in the search space {space.name!r}")
    return [space.canonical(params) for params in warm_starts]


def _silent(done: int, wanted: int) -> None:
    pass


def _propose(
    study: StoredStudy, evaluate: Evaluate, plan: StudyPlan, starts: Sequence[Params], report: Progress
) -> bool:
    """Evaluate our own proposals; whether Ctrl-C came."""
    history, wanted = study.history, plan.trials or DEFAULT_TRIALS[plan.sampler]
    search = LocalSearch(history, plan.seed)
    expected, lane = study.completed, 0
    try:
        while study.completed < wanted:
            params = next((start for start in starts if not history.knows(start)), None)
            if params is None and plan.sampler == "auto":
                params = search.propose(lane)
            elif params is None:
                params = history.new_anywhere(np.random.default_rng((plan.seed, len(history), lane)))
            if params is None:
                break
            study.add(params, evaluate(params))
            study.catch_up()
            report(min(study.completed, wanted), wanted)
            expected += 1
            if study.completed > expected and not lane:  # another worker is here: leave its lane
                lane = 1 + int.from_bytes(os.urandom(4))
    except KeyboardInterrupt:
        return True
    return False


def _ask(study: StoredStudy, evaluate: Evaluate, plan: StudyPlan, starts: Sequence[Params], report: Progress) -> bool:
    """Evaluate what one of Optuna's samplers proposes; whether Ctrl-C came."""
    from scaler.search.samplers import make_sampler  # noqa: PLC0415
    from scaler.search.stored import STALE_S  # noqa: PLC0415

    history, wanted = study.history, plan.trials or DEFAULT_TRIALS[plan.sampler]
    seed = plan.seed if study.fresh else plan.seed + int.from_bytes(os.urandom(4))  # lest it proposes the same again
    study.use(make_sampler(plan.sampler, seed), seed)
    study.fail_stale(STALE_S)
    trial = None
    try:
        for start in starts:
            study.enqueue(start)
        while study.completed < wanted and not history.exhausted:
            trial, params = study.ask()
            study.tell(trial, params, history.find(params) or evaluate(params))
            trial = None
            study.catch_up()
            report(min(study.completed, wanted), wanted)
    except BaseException as error:
        if trial is not None:
            study.fail(trial)
        if isinstance(error, KeyboardInterrupt):
            return True
        raise
    return False


def _exhaust(study: StoredStudy, evaluate_many: EvaluateMany, report: Progress) -> bool:
    """Evaluate every candidate and store the front of all; whether Ctrl-C came."""
    from scaler.search.history import History  # noqa: PLC0415

    stored, space = study.history, study.history.space
    study.history = History(space)
    todo = space.candidates()
    try:
        while chunk := [params for _, params in zip(range(_CHUNK), todo, strict=False)]:
            for params, scored in zip(chunk, evaluate_many(chunk), strict=True):
                study.history.add(params, scored)
            report(len(study.history), space.size)
        ap, minimized, violation = study.history.figures()
        feasible = np.flatnonzero(violation <= 0)
        for place in feasible[pareto_front(ap[feasible], minimized[feasible])]:
            params, scored = study.history.evaluated[place]
            if not stored.knows(params):
                study.add(params, scored)
    except KeyboardInterrupt:
        return True
    return False


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna from talking: we say what there is to say."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="optuna")
        import optuna  # noqa: PLC0415

        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="optuna")
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.CRITICAL)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(level)
