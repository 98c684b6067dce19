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
GRAPHS = (("csp", 640, 1.0, 5.0), ("p7", 1536, 1.25, 15.0))
"""Variant, resolution, width and the most milliseconds that one may take."""


def command_seconds(arguments: list[str], runs: int) -> float:
    """Median wall time of a cold `scaler` process."""
    times = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-m", "scaler", *arguments], cwd=folder, check=True, capture_output=True)
            times.append(time.perf_counter() - begin)
    return statistics.median(times)


def front_seconds(name: str, device: str) -> tuple[float, int]:
    """Time to score every candidate of a shipped space, and their number."""
    from scaler.latency.estimator import load_estimator
    from scaler.search.evaluation import Evaluator, Limits
    from scaler.search.front import pareto_front
    from scaler.search.predictors import load_predictor
    from scaler.space_file import read_space

    begin = time.perf_counter()
    space = read_space(name)
    limits = Limits(params=1e12)  # met by all, but it makes every candidate be counted
    evaluator, estimator = Evaluator(space, load_predictor(space), limits=limits), load_estimator(device)
    candidates = list(space.candidates())
    scored = evaluator.score_many(candidates, estimator)
    pareto_front([s.ap for s in scored], [s.frame_ms for s in scored])
    return time.perf_counter() - begin, len(candidates)


def graph_ms(variant: str, resolution: int, width: float) -> float:
    """Time to build a network, count its cost and predict its latency; no block of it was seen before."""
    from scaler.cost import graph_cost
    from scaler.latency.estimator import load_estimator
    from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config, build

    estimator, times = load_estimator("agx-orin"), []
    for smaller in range(4):  # another size has other blocks
        config = ScaledYoloV4Config(variant=variant, resolution=resolution - 128 * smaller, width=width)
        begin = time.perf_counter()
        graph = build(config)
        graph_cost(graph)
        estimator.estimate(graph)
        times.append(time.perf_counter() - begin)
    return 1e3 * statistics.median(times)


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
    for variant, resolution, width, limit in GRAPHS:
        milliseconds = graph_ms(variant, resolution, width)
        report(f"yolov4-{variant}@{resolution}, counted and timed", milliseconds, limit, "ms")
    for space, device in (("yolo-ret", "nano"), ("scaled-yolov4", "agx-orin")):
        seconds, count = front_seconds(space, device)
        report(f"exact front of {space}, {count:,} candidates", seconds, FRONT_LIMIT_S, "s")
        print(f"  {count / seconds:,.0f} candidates per second")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    main(parser.parse_args().runs)
