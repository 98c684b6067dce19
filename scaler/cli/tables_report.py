"""What `scaler tables validate` prints: how wrong the device models are, on what they had not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from scaler.cli.options import console
from scaler.latency.build import parts, summary
from scaler.latency.calibration import PARAMETERS
from scaler.latency.measurements import unbuilt
from scaler.latency.validation import CrossValidation, DeviceReport

LABELS = {
    "leave_one_model_out": "each network, all sources",
    "leave_one_source_out": "each source, its overhead kept",
    "doubted": "each network, rows doubted for a stated reason",
    "leave_one_network_out": "YOLO-ReT detectors, each network",
    "leave_one_backbone_out": "YOLO-ReT detectors, each backbone",
    "bifpn": "BiFPN (ours, never fitted)",
    "other_protocols": "classifiers and other labs, each network",
}
WORST = 5


def plain(report: DeviceReport) -> dict[str, Any]:
    """A report as JSON shows it; errors and coverages in percent."""
    return {
        "device": report.device,
        "precision": report.precision,
        "percent": summary(report),
        "by_source": {name: _numbers(part) for name, part in report.leave_one_model_out.by("source").items()},
        "source_left_out": {name: _numbers(part) for name, part in report.leave_one_source_out.by("source").items()},
        "by_model": {name: _numbers(part) for name, part in report.leave_one_model_out.by("group").items()},
        "times_of_networks_outside_our_vocabulary": unbuilt(report.device, report.precision),
        "parameters": report.calibration.named(),
    }


def _numbers(part: CrossValidation) -> dict[str, float]:
    return {
        "times": len(part.rows),
        "doubted": len(part.doubted.rows),
        "error": 100 * part.mean_error,
        "coverage": 100 * part.coverage,
    }


def print_report(report: DeviceReport) -> None:
    """All parts of one device's cross-validation, then by source and by network."""
    screen = console()
    screen.print(f"[bold]{report.device} {report.precision}[/bold]: {len(report.problem.rows)} published times")
    table = _table("left out")
    for name, part in parts(report).items():
        if part.rows and (
            report.leave_one_network_out.rows or name not in ("leave_one_network_out", "leave_one_backbone_out")
        ):
            table.add_row(LABELS[name], *_figures(part))
    screen.print(table)
    screen.print(_by_source(report))
    screen.print(_by_model(report))
    screen.print("worst of the believed, network left out:")
    for worst in report.leave_one_model_out.believed.worst(WORST):
        screen.print(
            f"  {worst.row.label}: {worst.predicted_ms:.1f} ms predicted, {worst.row.ms:.1f} published "
            f"({100 * worst.error:+.0f} %)"
        )
    if others := unbuilt(report.device, report.precision):
        listed = ", ".join(f"{source} {count}" for source, count in others.items())
        screen.print(f"listed, not used: {sum(others.values())} times of networks outside our vocabulary ({listed})")
    informed = report.problem.informed()
    named = report.calibration.named()
    values = ", ".join(f"{n} {named[n]:.3g}" for n, known in zip(PARAMETERS, informed, strict=True) if known)
    screen.print(f"[dim]{values}[/dim]\n")


def print_leaps(far: Mapping[str, float]) -> None:
    """How far a model carried over misses."""
    screen = console()
    screen.print("[bold]carried over[/bold] (estimated): to a device from its likes, to a precision from FP16")
    for name, error in far.items():
        screen.print(f"  to {name}: typical factor {math.exp(error):.2f} (root mean square)")


def _by_source(report: DeviceReport) -> Table:
    table = _table("by source")
    left_out = report.leave_one_source_out.by("source")
    table.add_column("source left out", justify="right")
    for name, part in report.leave_one_model_out.by("source").items():
        doubted = len(part.doubted.rows)
        label = f"{name} ({doubted} doubted)" if doubted else name
        table.add_row(label, *_figures(part), f"{100 * left_out[name].mean_error:.1f} %")
    return table


def _by_model(report: DeviceReport) -> Table:
    """Networks with the errors of all their times, detectors of the paper by backbone."""
    groups: dict[str, list[Any]] = {}
    for prediction in report.leave_one_model_out.rows:
        row = prediction.row
        name = f"YOLO-ReT with {row.backbone}" if row.of_detector else row.group
        groups.setdefault(name, []).append(prediction)
    table = _table("by network")
    for name, found in groups.items():
        table.add_row(name, *_figures(CrossValidation(tuple(found))))
    return table


def _table(first: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (first, "times", "mean error", "within 10 %", "90 % interval covers", "half width"):
        table.add_column(heading, justify="left" if heading == first else "right")
    return table


def _figures(part: CrossValidation) -> tuple[str, ...]:
    return (
        str(len(part.rows)),
        f"{100 * part.mean_error:.2f} %",
        f"{100 * part.within(0.10):.0f} %",
        f"{100 * part.coverage:.0f} %",
        f"{100 * part.half_width:.0f} %",
    )
