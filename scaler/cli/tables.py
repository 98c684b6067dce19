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
    from scaler.latency.validation import DeviceReport

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
    headings = ("table", "mode", "provenance", "networks", "error, networks left out", "sources left out", "created")
    for heading in headings:
        table.add_column(heading)
    for info in infos:
        table.add_row(
            info.name, info.power_mode, info.provenance, str(info.networks), *_errors(info.validation), info.created
        )
    console().print(table)


def _errors(validation: Mapping[str, float]) -> tuple[str, str]:
    """Errors of networks left out and of sources left out; a measured table has one source."""
    network = validation.get("leave_one_model_out_error", validation.get("error"))
    source = validation.get("leave_one_source_out_error")
    return tuple("-" if error is None else f"{error:.1f} %" for error in (network, source))  # type: ignore[return-value]


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
    """Fit the device models to the published times and write their tables (provenance: calibrated).

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

    Example: scaler tables validate --device nx
    """
    from scaler.cli.tables_report import plain, print_leaps, print_report  # noqa: PLC0415
    from scaler.latency.transfer import leaps  # noqa: PLC0415

    reports = _reports(device)
    far = leaps()
    if json_output:
        print_json({"devices": [plain(report) for report in reports], "log_error_of_leaps": far})
        return
    for report in reports:
        print_report(report)
    print_leaps(far)


def _reports(device: list[str] | None) -> list[DeviceReport]:
    from scaler.devices import load_device  # noqa: PLC0415
    from scaler.errors import UsageError  # noqa: PLC0415
    from scaler.latency.calibration import CALIBRATED_DEVICES, CALIBRATIONS  # noqa: PLC0415
    from scaler.latency.validation import validate  # noqa: PLC0415

    names = [load_device(name).id for name in device] if device else list(CALIBRATED_DEVICES)
    for name in names:
        if name not in CALIBRATED_DEVICES:
            raise UsageError(f"{name} has no published times to fit; calibrated are {', '.join(CALIBRATED_DEVICES)}")
    return [validate(*setting) for setting in CALIBRATIONS if setting[0] in names]
