"""Whether what a search promises holds on this computer, without and with refinement.

A table of this computer is measured as `scaler profile run` does, a search is made by it alone, and one that is refined
by measurements. Then every candidate of both fronts is measured anew, in a session of its own, in mixed order, those
near the target once more in reverse order, and compared with the time that the target leaves: at the speed that the
machine had when the table was made, and as timed.

    python benchmarks/refine.py --work /tmp/refine

takes about ten minutes on a quiet machine; the same folder goes on where it was. The exit code is 1 where a promise of
the refined search breaks at the table's speed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

import numpy as np

from scaler.cli import run as command
from scaler.cli.options import measuring, say
from scaler.latency.estimator import load_uncorrected
from scaler.latency.observed import observed_path
from scaler.profiling.machine import machine_for, setting
from scaler.profiling.refine import ROUNDS, Watch, refine, summary
from scaler.profiling.verify import Timed, bench
from scaler.search.result import Candidate
from scaler.search.run import Search, SearchOptions, search

NAMES = ("the table alone", "refined")
NEAR = 0.9
"""Share of the time that the target leaves from which a promise is near it."""


class Anew(NamedTuple):
    """A candidate measured again, the mean of its passes."""

    level_ms: float
    """At the speed that the machine had when the table was made."""
    now_ms: float
    apart: float
    """Of the logarithms of two passes; NaN where there was one."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for table, measurements and result")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--space", default="yolo-ret")
    parser.add_argument("--networks", type=int, default=20, help="networks behind the table")
    parser.add_argument("--refine", type=int, default=8, help="candidates measured a round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="forget the observed networks, not the table")
    return parser.parse_args()


def main() -> int:
    wanted, start = arguments(), time.perf_counter()
    os.environ["SCALER_DATA_DIR"] = str(wanted.work / "data")
    (wanted.work / "data").mkdir(parents=True, exist_ok=True)
    count = str(wanted.networks)
    if not (wanted.work / "data" / "latency_tables" / "host").is_dir():
        asked = ["profile", "run", "--device", "host", "--space", wanted.space, "--networks", count]
        if command(asked) != 0:
            return 1
    host = setting("host")
    observed = observed_path("host", host.runtime, host.precision, host.mode.name)
    if wanted.fresh:
        observed.unlink(missing_ok=True)
    elif observed.exists():
        shutil.copy(observed, wanted.work / "observed-before.json")
        say(f"{observed} is used: --fresh starts without")
    profiled = time.perf_counter() - start
    options = SearchOptions(
        devices=("host",), target_fps=wanted.fps, space=wanted.space, trials=wanted.trials, seed=wanted.seed
    )
    plain = plain_search(options, observed)
    refined = refine(options, wanted.refine, rounds=wanted.rounds, watch=Watch(measuring=measuring, say=say))
    say(summary(refined))
    searched = time.perf_counter() - start - profiled
    fronts = [promised(plain), promised(refined.found)]
    every = list({one.id: one for front in fronts for one in front}.values())
    timed, drift = remeasure(refined.found, every, NEAR * 1000 / wanted.fps)
    report = {
        "fps": wanted.fps,
        "refinement": {"rounds": [done._asdict() for done in refined.rounds], "settled": refined.settled},
        "drift": drift,
        "two passes apart, %": 100 * float(np.nanmean([row.apart for row in timed.values()])),
        **{name: judged(front, timed, 1000 / wanted.fps) for name, front in zip(NAMES, fronts, strict=True)},
        "seconds": {"profile": profiled, "search and refinement": searched, "all": time.perf_counter() - start},
    }
    (wanted.work / "refine.json").write_text(json.dumps(report, indent=1, default=str) + "\n")
    show(report)
    return int(report["refinement"]["settled"] is False or bool(report[NAMES[1]]["broken"]))


def plain_search(options: SearchOptions, observed: Path) -> Search:
    """The search by the table alone: the observed networks stand aside for it."""
    aside = observed.with_suffix(".aside")
    if observed.exists():
        observed.rename(aside)
    try:
        return search(options)
    finally:
        if aside.exists():
            aside.rename(observed)


def promised(found: Search) -> tuple[Candidate, ...]:
    """Every candidate of the front: that it is there promises the target."""
    return found.result.devices[0].front


def remeasure(found: Search, candidates: Sequence[Candidate], near_ms: float) -> tuple[dict[str, Anew], float]:
    """Measure candidates anew, slow ones twice: by id, and how much slower the machine is than for the table."""
    device = found.result.devices[0]
    order = [candidates[place] for place in np.random.default_rng(1).permutation(len(candidates))]
    timed: dict[str, list[Timed]] = {one.id: [] for one in order}
    machine = machine_for(setting("host"))
    machine = machine._replace(effort=replace(machine.effort, rounds=5, quiet_seconds=0.25, patience=1.5))
    with (
        measuring("measuring anew") as progress,
        bench(found.result, device, order, load_uncorrected("host"), machine) as stand,
    ):
        todo = [*order, *(one for one in order[::-1] if one.engine_ms.high >= near_ms)]
        for number, one in enumerate(todo, start=1):
            timed[one.id].append(stand.candidate(one))
            if progress is not None:
                progress(number, len(todo), f"{one.id} {timed[one.id][-1].level_ms:.2f} ms")
        drift = float(stand.drift or 0.0)
    whole = {name: rows for name, rows in timed.items() if not any(row.failure for row in rows)}
    return {
        name: Anew(
            geometric_mean(row.level_ms for row in rows),
            geometric_mean(row.median_ms for row in rows),
            abs(math.log(rows[0].level_ms / rows[-1].level_ms)) if len(rows) > 1 else math.nan,
        )
        for name, rows in whole.items()
    }, drift


def judged(front: Sequence[Candidate], timed: dict[str, Anew], budget: float) -> dict[str, Any]:
    """What of a front's promises holds."""
    rows = [(one, timed[one.id]) for one in front if one.id in timed]
    near = [(one, found) for one, found in rows if one.engine_ms.high >= NEAR * budget]
    errors = np.array([one.engine_ms.mean / found.level_ms - 1 for one, found in rows])
    inside = [one.engine_ms.low <= found.level_ms <= one.engine_ms.high for one, found in rows]
    pick, of_pick = rows[-1]
    return {
        "promised": len(rows),
        "failed": [one.id for one in front if one.id not in timed],
        "hold": sum(found.level_ms <= budget for _, found in rows),
        "hold as timed": sum(found.now_ms <= budget for _, found in rows),
        "near": len(near),
        "near that hold": sum(found.level_ms <= budget for _, found in near),
        "broken": {one.id: round(found.level_ms, 2) for one, found in rows if found.level_ms > budget},
        "mean error, %": 100 * float(np.mean(np.abs(errors))),
        "bias, %": 100 * float(np.mean(errors)),
        "90 % intervals cover, %": 100 * float(np.mean(inside)),
        "mean half width, %": 100
        * float(np.mean([math.log(one.engine_ms.high / one.engine_ms.mean) for one, _ in rows])),
        "pick": pick.id,
        "pick AP": pick.ap.mean,
        "pick predicted ms": pick.engine_ms.mean,
        "pick measured ms": of_pick.level_ms,
    }


def show(report: dict[str, Any]) -> None:
    drift = f"the machine is {100 * report['drift']:+.1f} % slower than when the table was made"
    drift += f"; the two passes differ by {report['two passes apart, %']:.1f} % on average"
    print(f"\n{report['fps']:g} FPS leave {1000 / report['fps']:.2f} ms; {drift}")
    for name in NAMES:
        row = report[name]
        share = 100 * row["hold"] / row["promised"]
        print(
            f"{name}: {row['hold']} of {row['promised']} promised candidates hold ({share:.0f} %; as timed "
            f"{row['hold as timed']}), of those near the target {row['near that hold']} of {row['near']}; mean error "
            f"{row['mean error, %']:.1f} %, bias {row['bias, %']:+.1f} %, intervals cover "
            f"{row['90 % intervals cover, %']:.0f} % (half width {row['mean half width, %']:.1f} %)\n"
            f"  pick {row['pick']}: AP {row['pick AP']:.2f}, predicted {row['pick predicted ms']:.2f} ms, "
            f"measured {row['pick measured ms']:.2f} ms; broken: {row['broken'] or 'none'}"
        )
    done = report["refinement"]
    print(
        f"refinement: {len(done['rounds'])} rounds, {sum(len(r['measured']) for r in done['rounds'])} networks, "
        f"settled: {done['settled']}; seconds: "
        + ", ".join(f"{name} {seconds:.0f}" for name, seconds in report["seconds"].items())
    )


if __name__ == "__main__":
    sys.exit(main())
