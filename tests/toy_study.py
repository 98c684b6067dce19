"""A small space, a formula in place of the predictors, and helpers, for the tests of studies."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import optuna

from scaler.search.evaluation import Evaluated
from scaler.search.front import pareto_front
from scaler.search.study import StudyOutcome, StudyPlan, run_study
from scaler.space import Key, Params, Space, key

TINY = """
schema_version = 1
name = "tiny"
family = "yolo-ret"
description = "72 candidates"
[parameters.backbone]
choices = ["mobilenetv2", "efficientnet-b0"]
[parameters.width]
when = { backbone = "mobilenetv2" }
choices = [0.5, 1.0]
[parameters.rfcr]
choices = [0, 5]
[parameters.resolution]
range = [160, 512, 32]
"""


class Toy:
    """Scores by a formula that has the shape of the real thing, and counts its calls."""

    def __init__(self, fps: float | None = None, then: Callable[[int], object] = bool) -> None:
        self.fps, self.then, self.number = fps, then, 0
        self.calls: Counter[Key] = Counter()

    def __call__(self, params: Params) -> Evaluated:
        self.calls[key(params)] += 1
        self.number += 1
        self.then(self.number)
        p = {"width": 1.0, "drop": 0, "neck": "panet", "rfcr": 0, "shortcut": False, "repeats": 1, **params}
        size = {"mobilenetv2": 1.0}.get(p["backbone"], 2.0 + 0.8 * int(str(p["backbone"])[-1]))
        neck = ["none", "fpn", "panet", "bifpn"].index(p["neck"]) + 0.4 * (p["repeats"] - 1)
        depth = size * p["width"] ** 1.5 * (1 - 0.06 * p["drop"]) + 0.12 * neck + 0.02 * p["rfcr"] + 0.1 * p["shortcut"]
        ms = 4 + 6 * depth * (p["resolution"] / 320) ** 1.8 + neck
        ap = 80 - 9 / depth**0.7 - 30 * (160 / p["resolution"]) - p["drop"] ** 1.4 + (0.8 if p["rfcr"] == 5 else 0)
        return Evaluated(ap, ms, {} if self.fps is None else {"fps": ms * self.fps / 1000 - 1})


def run(space: Space, toy: Toy, storage: str | Path | None = None, **plan: object) -> StudyOutcome:
    return run_study(space, toy, plan=StudyPlan(**plan), storage=storage)  # type: ignore[arg-type]


def front(outcome: StudyOutcome) -> list[tuple[Params, Evaluated]]:
    found = [pair for pair in outcome.evaluated if max(pair[1].violations.values(), default=0) <= 0]
    return [found[i] for i in pareto_front([s.ap for _, s in found], [s.frame_ms for _, s in found])]


def completed(path: Path, name: str = "scaler") -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return optuna.load_study(study_name=name, storage=backend).trials
