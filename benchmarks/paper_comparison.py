"""Prints the README's comparison: the nine published YOLO-ReT models, published against predicted."""

from __future__ import annotations

from scaler.accuracy import load
from scaler.latency.calibration import CALIBRATED_DEVICES
from scaler.latency.estimator import load_estimator
from scaler.search.cards import references
from scaler.search.evaluation import Evaluator
from scaler.space_file import read_space


def table() -> str:
    """The comparison as Markdown."""
    evaluator = Evaluator(read_space("yolo-ret"), "voc", load("voc"))
    columns = [references(evaluator, load_estimator(device)) for device in CALIBRATED_DEVICES]
    lines = [
        "| model | AP50 published | predicted | Nano FPS published | predicted | NX | predicted | AGX | predicted |",
        "|---|" + "---:|" * 8,
    ]
    for row in zip(*columns, strict=True):
        first = row[0]
        cells = [first.name, f"{first.published_ap:.2f}", f"{first.predicted_ap.mean:.1f}"]
        for reference in row:
            cells += [f"{reference.published_fps:.1f}", f"{reference.predicted_fps.mean:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
