"""`scaler doctor`: what this installation can and cannot do."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from typing import NamedTuple, TypeAlias

import typer

from scaler.cli.options import Json, console, print_json

Check: TypeAlias = tuple[str, bool | None, str]
"""Name, whether it is well (None: an optional part is absent), and what was found."""


class Optional(NamedTuple):
    """An optional package."""

    package: str
    purpose: str
    remedy: str
    """How to get it."""
    probe: str = ""
    """Module that is imported to see whether the package works, where its presence alone does not tell."""


OPTIONAL = (
    Optional("torch", "the GP sampler (and training, later)", "pip install 'scaler-nas[train]'"),
    Optional("onnx", "writing networks as ONNX files", "pip install 'scaler-nas[export]'", "onnx"),
    Optional("onnxruntime", "measuring on this computer", "pip install 'scaler-nas[onnxruntime]'", "onnxruntime"),
    Optional("optuna_dashboard", "watching studies in a browser", "pip install 'scaler-nas[dashboard]'"),
    Optional("psycopg", "studies on PostgreSQL", "pip install 'scaler-nas[postgresql]'"),
    Optional(
        "tensorrt",
        "TensorRT in process",
        "on a Jetson it comes with JetPack, on a PC: pip install 'scaler-nas[tensorrt]'",
        "tensorrt",
    ),
    Optional("pycuda", "TensorRT in process", "pip install pycuda, which needs the CUDA toolkit", "pycuda.driver"),
)
BASE = ("numpy", "scipy", "pandas", "optuna", "matplotlib", "plotly", "rich", "typer")


def command(json_output: Json = False) -> None:
    """Check the installation: versions, shipped data, optional parts, this computer.

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


def _checks() -> list[Check]:
    return [
        ("Python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        *map(_package, BASE),
        _data("device profiles", _devices),
        _data("search spaces", _spaces),
        _data("latency tables", _tables),
        *map(_optional, OPTIONAL),
        _trtexec(),
        _computer(),
        _jetson(),
    ]


def _package(name: str) -> Check:
    try:
        return name, True, version(name)
    except PackageNotFoundError:
        return name, False, "not installed, although scaler needs it: pip install scaler-nas"


def _optional(part: Optional) -> Check:
    """Whether an optional package is there and, where it has a probe, whether it can be imported."""
    if find_spec(part.package) is None:
        return part.package, None, f"{part.purpose}: {part.remedy}"
    if reason := _failure(part.probe) if part.probe else "":
        return part.package, None, f"{part.purpose}: installed, but it cannot be used: {reason}"
    return part.package, True, f"{_version(part.package)}, {part.purpose}"


def _failure(module: str) -> str:
    """Why a module cannot be imported, in one line; empty if it can."""
    try:
        import_module(module)
    except Exception as error:  # whatever a package of others raises, such as OSError for a missing library
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
    return ""


def _version(package: str) -> str:
    """Version of an installed package, whichever distribution brought it (onnxruntime, onnxruntime-gpu)."""
    try:
        return version(package)
    except PackageNotFoundError:
        return next((version(name) for name in packages_distributions().get(package, ())), "of unknown version")


def _trtexec() -> Check:
    from scaler.errors import UserError  # noqa: PLC0415
    from scaler.runtimes.trtexec import find_trtexec  # noqa: PLC0415

    try:
        return "trtexec", True, f"{find_trtexec()}, measuring with TensorRT on this computer"
    except UserError as error:
        return "trtexec", None, f"measuring with TensorRT on this computer: {error}"


def _computer() -> Check:
    from scaler.devices import HOST  # noqa: PLC0415
    from scaler.host import host_cpu  # noqa: PLC0415

    cpu = host_cpu()
    return "this computer", True, f"{cpu.processor}, {cpu.architecture}, cores: {cpu.cores}: --device {HOST}"


def _jetson() -> Check:
    """Whether this computer is a Jetson, and under which name its GPU is known."""
    from scaler.devices import load_device  # noqa: PLC0415
    from scaler.errors import UserError  # noqa: PLC0415
    from scaler.runtimes.jetson import Jetson  # noqa: PLC0415

    board = Jetson().state()
    if board.device is None and board.l4t is None:
        return "Jetson", None, "this computer is none"
    release = f" (L4T {board.l4t})" if board.l4t else ""
    if board.device is None:
        known = board.model.removeprefix("NVIDIA ") or "Jetson"
        todo = "write one, `python -m pydoc scaler.devices` has its keys"
        return "Jetson", True, f"this is a {known}{release}, of which no profile is shipped: {todo}"
    try:
        known = load_device(board.device).name
    except UserError as error:
        return "Jetson", False, str(error)
    return "Jetson", True, f"this is a {known}{release}: --device {board.device}; its CPU alone: --device host"


def _data(name: str, read: Callable[[], list[str]]) -> Check:
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
