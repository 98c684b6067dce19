"""FP32 against INT8 of one trained network by ONNX Runtime: AP and ms of the very same file, and their quotient.

    OMP_NUM_THREADS=1 python benchmarks/int8.py runs/best shapes/data.toml [--sensitivity 0.05] [--target onnxruntime]

Writes the float file and the INT8 file of a run folder's `best.pt` into a temporary folder, as `scaler export` does:
ranges are those of pictures of the train split, AP is that of the val split. The two files take turns, one inference of
one picture each, so that a change of the computer's speed hits both; medians are compared, in one thread by default.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from scaler.data.data_file import read_splits
from scaler.evaluation.evaluate import evaluate
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.export.int8_calibration import DEFAULT_METHOD
from scaler.runtimes.onnxruntime_cpu import OnnxRuntimeCpu
from scaler.training.runs.export import Exported, ExportOrder, export
from scaler.training.runs.export_int8 import DEFAULT_PICTURES, Int8Order


class Row(NamedTuple):
    """Of one file."""

    name: str
    mb: float
    ap: float
    ap50: float
    ms: float


def main() -> None:
    options = _options()
    wanted = Int8Order(
        method=options.calibration, pictures=options.pictures, target=options.target, bound=options.sensitivity
    )
    with TemporaryDirectory(prefix="scaler-int8-") as folder:
        files = {
            precision: export(
                ExportOrder(
                    checkpoint=options.run / "best.pt",
                    out=Path(folder) / f"{precision}.onnx",
                    precision=precision,
                    data=options.data,
                    int8=wanted,
                )
            )
            for precision in ("fp32", "int8")
        }
        ms = _by_turns([file.path for file in files.values()], options.rounds, options.threads)
        rows = [_row(precision, file, options.data, ms[file.path]) for precision, file in files.items()]
    made = files["int8"].int8
    assert made is not None
    spec = files["int8"].spec
    print(
        f"{options.run.name}: {spec.family}, {spec.preprocessing.size} px; INT8 for {options.target}, "
        f"{made.calibration.method} of {made.calibration.count} pictures, {len(made.kept)} of {made.layers} layers in "
        f"float, loss {made.loss:.3f}"
    )
    _tell(rows, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, with its best.pt")
    parser.add_argument("data", type=Path, help="data.toml with train and val")
    parser.add_argument("--target", choices=("onnxruntime", "tensorrt"), default="onnxruntime")
    parser.add_argument("--calibration", choices=("percentile", "entropy", "min-max"), default=DEFAULT_METHOD)
    parser.add_argument("--pictures", type=int, default=DEFAULT_PICTURES, help="of the calibration")
    parser.add_argument("--sensitivity", type=float, default=None, help="bound of the loss; layers stay in float")
    parser.add_argument("--rounds", type=int, default=300, help="inferences of each file")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _by_turns(paths: list[Path], rounds: int, threads: int) -> dict[Path, list[float]]:
    """Milliseconds of inferences, one of each file at a time."""
    runtime = OnnxRuntimeCpu(threads)
    sessions = {path: runtime.prepare(path) for path in paths}
    samples: dict[Path, list[float]] = {path: [] for path in paths}
    for _ in range(rounds):
        for path, session in sessions.items():
            samples[path] += session.time(1).tolist()
    for session in sessions.values():
        session.close()
    return samples


def _row(name: str, file: Exported, data: Path, samples: list[float]) -> Row:
    metrics = evaluate(OnnxDetector(file.path, "cpu", threads=1), read_splits(data, ["val"]).splits["val"])
    assert metrics.ap is not None and metrics.ap50 is not None
    return Row(name, file.size / 1e6, 100 * metrics.ap, 100 * metrics.ap50, median(samples))


def _tell(rows: list[Row], options: argparse.Namespace) -> None:
    before, after = rows
    print("\n| file | MB | AP | AP50 | ms |\n|---|---:|---:|---:|---:|")
    for row in rows:
        print(f"| {row.name} | {row.mb:.1f} | {row.ap:.1f} | {row.ap50:.1f} | {row.ms:.2f} |")
    print(
        f"\nINT8 / FP32: {after.ms / before.ms:.2f} of the time (medians of {options.rounds} inferences by turns, "
        f"{options.threads} thread), {after.mb / before.mb:.2f} of the bytes, AP {after.ap - before.ap:+.1f}"
    )


if __name__ == "__main__":
    main()
