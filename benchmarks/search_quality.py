"""How near the default search comes to the exact front: `python benchmarks/search_quality.py`.

For each case the exact front of the whole shipped space is computed once; each seed's search is then measured by the
share of the exact front's hypervolume that it reaches. The reference point lies a tenth of the exact front's extent
beyond its worst accuracy and its worst frame time (`scaler.search.front.reference_point`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from scaler.latency.estimator import load_estimator
from scaler.search.evaluation import Evaluated, Evaluator
from scaler.search.front import hypervolume, pareto_front, reference_point
from scaler.search.predictors import load_predictor
from scaler.search.study import DEFAULT_TRIALS, StudyPlan, run_study
from scaler.space_file import read_space

CASES = (("nano", None), ("nano", 30.0), ("nx", None), ("nx", 60.0), ("agx", 60.0))
GOAL = 0.995


def main(seeds: int = 20, sampler: str = "auto", trials: int | None = None) -> bool:
    """Print a line a case; whether every search reached the goal."""
    trials = trials or DEFAULT_TRIALS[sampler]
    print(f"Share of the exact front's hypervolume: {sampler}, {trials} trials, {seeds} seeds, journal file")
    print(f"{'device':8}{'fps':>5}{'feasible':>10}{'front':>7}{'worst':>9}{'mean':>9}{'s a search':>12}")
    worst = min([run_case(device, fps, sampler, trials, seeds) for device, fps in CASES])
    print(f"worst of all {worst:.4f}, goal of the default search {GOAL}")
    return worst >= GOAL


def run_case(device: str, fps: float | None, sampler: str, trials: int, seeds: int) -> float:
    space = read_space("yolo-ret")
    evaluator = Evaluator(space, load_predictor(space), target_fps=fps)
    estimator = load_estimator(device)
    ap, frame_ms = feasible(evaluator.score_many(list(space.candidates()), estimator))
    reference = reference_point(ap, frame_ms)
    exact = hypervolume(ap, frame_ms, reference)
    shares, seconds = [], []
    for seed in range(seeds):
        fresh = Evaluator(space, evaluator.accuracy, target_fps=fps)  # nothing is cached
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            plan = StudyPlan(sampler=sampler, trials=trials, seed=seed)
            found = run_study(space, fresh.scorer(estimator), plan=plan, storage=Path(folder) / "study.journal")
            seconds.append(time.perf_counter() - start)
        shares.append(hypervolume(*feasible(scored for _, scored in found.evaluated), reference) / exact)
    front = pareto_front(ap, frame_ms).size
    print(f"{device:8}{fps or '-':>5}{ap.size:>10}{front:>7}{min(shares):>9.4f}{np.mean(shares):>9.4f}"
          f"{np.mean(seconds):>12.2f}", flush=True)  # fmt: skip
    return min(shares)


def feasible(scored: Iterable[Evaluated]) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy and frame time of what meets its constraints."""
    met = [s for s in scored if max(s.violations.values(), default=0.0) <= 0]
    return np.array([s.ap for s in met]), np.array([s.frame_ms for s in met])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Quality of the search against the exact front.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--sampler", default="auto", choices=DEFAULT_TRIALS)
    parser.add_argument("--trials", type=int, help="default: the sampler's")
    sys.exit(not main(**vars(parser.parse_args())))
