"""Speed of what a user waits for, against the limits that the project promises.

Whole commands are run as cold processes; the figure is the median of several runs, the ratio is to the limit.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time

HELP_LIMIT_S = 0.4
SEARCH_LIMIT_S = 6.0
SEARCH_LIMIT_MIB = 400.0
PLAN_LIMIT_S = 10.0
FRONT_LIMIT_S = 20.0


def command_seconds(arguments: list[str], runs: int) -> float:
    """Median wall time of a cold `scaler` process."""
    times = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-m", "scaler", *arguments], cwd=folder, check=True, capture_output=True)
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def front_seconds() -> tuple[float, int]:
    """Time to score every candidate of the shipped space, and their number."""
    from scaler.accuracy import load
    from scaler.latency.estimator import load_estimator
    from scaler.search.evaluation import Evaluator, Limits
    from scaler.search.front import pareto_front
    from scaler.space_file import read_space

    begin = time.perf_counter()
    space = read_space("yolo-ret")
    limits = Limits(params=1e12)  # met by all, but it makes every candidate be counted
    evaluator, estimator = Evaluator(space, "voc", load("voc"), limits=limits), load_estimator("nano")
    candidates = list(space.candidates())
    scored = evaluator.score_many(candidates, estimator)
    pareto_front([s.ap for s in scored], [s.frame_ms for s in scored])
    return time.perf_counter() - begin, len(candidates)


def report(name: str, figure: float, limit: float, unit: str) -> None:
    """Print a figure beside its limit."""
    print(f"{name:40} {figure:7.2f} {unit:4} limit {limit:5g} {unit:4} ratio {figure / limit:.2f}")


def main(runs: int) -> None:
    """Print every figure with its limit and ratio."""
    helped = command_seconds(["--help"], runs)
    report("scaler --help", helped, HELP_LIMIT_S, "s")
    searched = command_seconds(["search", "--device", "nano", "--fps", "30"], runs)
    report("scaler search --device nano --fps 30", searched, SEARCH_LIMIT_S, "s")
    measured = command_seconds(["search", "--device", "xeon-vm", "--fps", "30"], runs)
    report("scaler search with a measured table", measured, SEARCH_LIMIT_S, "s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    report("  the larger's memory", peak, SEARCH_LIMIT_MIB, "MiB")
    planned = command_seconds(["profile", "plan", "--device", "nano"], runs)
    report("scaler profile plan --device nano", planned, PLAN_LIMIT_S, "s")
    seconds, count = front_seconds()
    report(f"exact front of {count:,} candidates", seconds, FRONT_LIMIT_S, "s")
    print(f"  {count / seconds:,.0f} candidates per second")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    main(parser.parse_args().runs)
