"""`scaler doctor`: what this installation can and cannot do."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.util import find_spec

import typer

from scaler.cli.options import Json, console, print_json

OPTIONAL = {
    "torch": ("the GP sampler (and training, later)", "train"),
    "optuna_dashboard": ("watching studies in a browser", "dashboard"),
    "psycopg": ("studies on PostgreSQL", "postgresql"),
    "tensorrt": ("TensorRT in process; on a Jetson it comes with JetPack", "tensorrt"),
}
BASE = ("numpy", "scipy", "pandas", "optuna", "matplotlib", "plotly", "rich", "typer")


def command(json_output: Json = False) -> None:
    """Check the installation: versions, shipped data, optional parts.

    Example: scaler doctor
    """
    from rich.markup import escape  # noqa: PLC0415

    checks = [*_checks()]
    if json_output:
        print_json([{"check": name, "ok": ok, "detail": detail} for name, ok, detail in checks])
    else:
        for name, ok, detail in checks:
            mark = {True: "[green]ok    [/green]", False: "[red]failed[/red]", None: "[yellow]absent[/yellow]"}[ok]
            console().print(f"{mark} {name}: {escape(detail)}")
    if any(ok is False for _, ok, _ in checks):
        raise typer.Exit(1)


def _checks() -> list[tuple[str, bool | None, str]]:
    """Name, whether it is well (None: an optional part is absent), and what was found."""
    found: list[tuple[str, bool | None, str]] = [
        ("Python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    ]
    for package in BASE:
        found.append(_package(package))
    found += [_data("device profiles", _devices), _data("search spaces", _spaces), _data("latency tables", _tables)]
    for package, (purpose, extra) in OPTIONAL.items():
        if find_spec(package) is not None:
            found.append((package, True, purpose))
        else:
            found.append((package, None, f"{purpose}: pip install 'scaler-nas[{extra}]'"))
    return found


def _package(name: str) -> tuple[str, bool, str]:
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

    try:
        return name, True, version(name)
    except PackageNotFoundError:
        return name, False, "not installed, although scaler needs it: pip install scaler-nas"


def _data(name: str, read: Callable[[], list[str]]) -> tuple[str, bool, str]:
    from scaler.errors import UserError  # noqa: PLC0415

    try:
        names = read()
    except UserError as error:
        return name, False, str(error)
    return (name, bool(names), ", ".join(names) or "none found: the installation is incomplete")


def _devices() -> list[str]:
    from scaler.devices import list_devices  # noqa: PLC0415

    return [device.id for device in list_devices()]


def _spaces() -> list[str]:
    from scaler.space_file import list_spaces  # noqa: PLC0415

    return [f"{space.name} ({space.size:,} candidates)" for space in list_spaces()]


def _tables() -> list[str]:
    from scaler.latency.table import list_tables  # noqa: PLC0415

    return [f"{info.device}/{info.runtime}-{info.precision} ({info.provenance})" for info in list_tables()]
