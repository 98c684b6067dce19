"""`scaler tables`: latency tables and the device models behind them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaler.cli.options import Json, console, print_json, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scaler.latency.calibration import Calibration
    from scaler.latency.measured_model import MeasuredModel
    from scaler.latency.table import TableInfo
    from scaler.latency.validation import CrossValidation, DeviceReport

app = typer.Typer(help="List, build and validate latency tables.", no_args_is_help=True)

Devices = Annotated[
    list[str] | None, typer.Option("--device", "-d", help="Calibrated device; may be repeated; all otherwise.")
]


@app.command("list")
def list_command(json_output: Json = False) -> None:
    """List the tables with provenance and error.

    Example: scaler tables list
    """
    from scaler.latency.table import list_tables  # noqa: PLC0415

    infos = list_tables()
    if json_output:
        print_json([_plain(info) for info in infos])
        return
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    headings = ("table", "mode", "provenance", "networks", "error, networks left out", "backbones left out", "created")
    for heading in headings:
        table.add_column(heading)
    for info in infos:
        table.add_row(
            info.name, info.power_mode, info.provenance, str(info.networks), *_errors(info.validation), info.created
        )
    console().print(table)


def _errors(validation: Mapping[str, float]) -> tuple[str, str]:
    """Errors of networks left out and of backbones left out; a measured table has no backbone left out."""
    network = validation.get("leave_one_network_out_error", validation.get("error"))
    backbone = validation.get("leave_one_backbone_out_error")
    return tuple("-" if error is None else f"{error:.1f} %" for error in (network, backbone))  # type: ignore[return-value]


def _plain(info: TableInfo) -> dict[str, Any]:
    return {
        "device": info.device,
        "power_mode": info.power_mode,
        "runtime": info.runtime,
        "runtime_version": info.runtime_version,
        "precision": info.precision,
        "batch": info.batch,
        "provenance": info.provenance,
        "created": info.created,
        "method": info.method,
        "networks": info.networks,
        "sources": list(info.sources),
        "parameters": _parameters(info.model),
        "processor": info.processor,
        "seconds": info.seconds,
        "conditions": list(info.conditions),
        "validation_percent": info.validation,
    }


def _parameters(model: Calibration | MeasuredModel) -> dict[str, float]:
    """The fitted numbers of a model by name."""
    from scaler.latency.calibration import Calibration  # noqa: PLC0415

    if isinstance(model, Calibration):
        return model.named()
    names = ("factor", "exponent", "constant_ms", "residual_log_sd", "kernel_share", "reference_ms")
    return {name: getattr(model, name) for name in names}


@app.command("build")
def build_command(
    device: Devices = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the tables.")] = Path("latency_tables"),
) -> None:
    """Fit the device models to the published frame rates and write their tables (provenance: calibrated).

    Example: scaler tables build --device nano
    """
    from scaler.latency.build import build_table  # noqa: PLC0415
    from scaler.latency.table import write_table  # noqa: PLC0415

    for report in _reports(device):
        table = build_table(report)
        path = write_table(table, out)
        say(f"{path}: {len(table.entries)} kernels, {table.info.networks} networks")


@app.command("validate")
def validate_command(device: Devices = None, json_output: Json = False) -> None:
    """Recompute the cross-validation of every device model from the shipped measurements.

    Example: scaler tables validate
    """
    from scaler.latency.build import summary  # noqa: PLC0415
    from scaler.latency.transfer import leaps  # noqa: PLC0415

    reports = _reports(device)
    far = leaps()
    if json_output:
        print_json(
            {
                "devices": {report.device: summary(report) for report in reports},
                "log_error_of_leaps_to_unmeasured_devices": far,
            }
        )
        return
    for report in reports:
        _print_report(report)
    screen = console()
    screen.print("[bold]devices that nobody measured[/bold] (estimated): a model carried over from its like")
    for name, error in far.items():
        screen.print(f"  to {name}: typical factor {2.718281828**error:.2f} (root mean square)")


def _reports(device: list[str] | None) -> list[DeviceReport]:
    from scaler.devices import load_device  # noqa: PLC0415
    from scaler.errors import UsageError  # noqa: PLC0415
    from scaler.latency.calibration import CALIBRATED_DEVICES  # noqa: PLC0415
    from scaler.latency.validation import validate  # noqa: PLC0415

    names = [load_device(name).id for name in device] if device else list(CALIBRATED_DEVICES)
    for name in names:
        if name not in CALIBRATED_DEVICES:
            raise UsageError(
                f"{name} has no published frame rates to fit; calibrated are {', '.join(CALIBRATED_DEVICES)}"
            )
    return [validate(name) for name in dict.fromkeys(names)]


def _print_report(report: DeviceReport) -> None:
    from rich.table import Table  # noqa: PLC0415

    screen = console()
    screen.print(f"[bold]{report.device}[/bold]: {len(report.problem.rows)} published times")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("left out", "times", "mean error", "within 10 %", "90 % interval covers", "half width"):
        table.add_column(heading, justify="left" if heading == "left out" else "right")
    for name, part in (
        ("each network", report.leave_one_network_out),
        ("each backbone", report.leave_one_backbone_out),
        ("BiFPN (ours, never fitted)", report.bifpn),
        ("classifiers, other labs", report.other),
    ):
        table.add_row(name, *_figures(part))
    screen.print(table)
    screen.print("worst, network left out:")
    for worst in report.leave_one_network_out.worst(4):
        screen.print(
            f"  {worst.row.label}: {worst.predicted_ms:.1f} ms predicted, {worst.row.ms:.1f} published "
            f"({100 * worst.error:+.0f} %)"
        )
    values = ", ".join(f"{name} {value:.3g}" for name, value in report.calibration.named().items())
    screen.print(f"[dim]{values}[/dim]\n")


def _figures(part: CrossValidation) -> tuple[str, ...]:
    return (
        str(len(part.rows)),
        f"{100 * part.mean_error:.2f} %",
        f"{100 * part.within(0.10):.0f} %",
        f"{100 * part.coverage:.0f} %",
        f"{100 * part.half_width:.0f} %",
    )
