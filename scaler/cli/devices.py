"""`scaler devices`: what is known of each device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaler.cli.options import Json, console, print_json

if TYPE_CHECKING:
    from scaler.devices import Device, Mode

NONE_YET = "none yet"
SOURCES = ("gpu", "cpu", "modes", "memory", "precisions", "software")


def command(
    name: Annotated[str | None, typer.Argument(help="One device in full; all in short otherwise.")] = None,
    json_output: Json = False,
) -> None:
    """List the devices: modes, peak rates, software, precisions and where latencies come from.

    The last one, host, is the computer at hand.

    Example: scaler devices nano
    """
    from scaler.devices import list_devices, load_device, load_host  # noqa: PLC0415

    found = (*list_devices(), load_host()) if name is None else (load_device(name),)
    if json_output:
        print_json([_plain(device) for device in found])
    elif name is None:
        _print_list(found)
    else:
        _print_one(found[0])


def _rates(mode: Mode) -> dict[str, float]:
    """Peaks in 10^12 operations a second by precision; none of a CPU."""
    from scaler.devices import PowerMode  # noqa: PLC0415

    return {p: round(mode.peak_tops(p), 3) for p in mode.gpu.precisions} if isinstance(mode, PowerMode) else {}


def _has_table(device: Device) -> bool:
    from scaler.catalog import names  # noqa: PLC0415

    return any(name.startswith(f"{device.id}/") for name in names("latency_tables"))


def _latency(device: Device) -> str:
    """Where its latencies come from; there are none of a CPU that was not measured."""
    return device.latency_provenance if device.gpu or _has_table(device) else NONE_YET


def _plain(device: Device) -> dict[str, Any]:
    """The facts by name, the same names for every device; null where a fact does not apply."""
    chip = device.chip
    return {
        "id": device.id,
        "name": device.name,
        "aliases": list(device.aliases),
        "latency_provenance": device.latency_provenance,
        "has_latency_table": _has_table(device),
        "kind": "gpu" if device.gpu else "cpu",
        "processor": device.processor,
        "architecture": chip.architecture,
        "compute_capability": getattr(chip, "compute_capability", None),
        "instruction_sets": list(getattr(chip, "instruction_sets", ())),
        "cores": getattr(chip, "cores", None),
        "memory_gib": device.memory_gib,
        "l2_kib": chip.l2_kib,
        "l3_kib": getattr(chip, "l3_kib", None),
        "dla_count": device.dla_count,
        "precisions": list(device.precisions),
        "default_precision": device.default_precision,
        "runtimes": list(device.runtimes),
        "default_mode": device.default_mode,
        "default_mode_reason": device.default_mode_reason,
        "modes": [
            {
                "name": mode.name,
                "threads": getattr(mode, "threads", None),
                "sms": getattr(mode, "sms", None),
                "gpu_mhz": getattr(mode, "gpu_mhz", None),
                "bandwidth_gb_per_s": getattr(mode, "bandwidth_gb_per_s", None),
                "peak_tops": _rates(mode),
            }
            for mode in device.modes
        ],
        "software": [
            {
                "jetpack": s.jetpack,
                "cuda": s.cuda,
                "tensorrt": s.tensorrt,
                "python": s.python,
                "onnx_opset": s.onnx_opset,
            }
            for s in device.software
        ],
        "unverified": list(device.unverified),
        "sources": {name: getattr(device.sources, name) for name in SOURCES},
    }


def _print_list(devices: tuple[Device, ...]) -> None:
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "device",
        "name",
        "processor",
        "mode",
        "FP16 TFLOPS",
        "GB/s",
        "memory",
        "precisions",
        "runtime",
        "latency",
    ):
        table.add_column(heading, justify="right" if heading in ("FP16 TFLOPS", "GB/s", "memory") else "left")
    for device in devices:
        table.add_row(*map(escape, _row(device)))
    console().print(table)
    console().print(
        "\nlatency: calibrated = model fitted to published times of this device; estimated = from the data sheet only; "
        "measured = timed on it; none yet = `scaler profile run --device NAME` measures it. `host` is this computer. "
        "`scaler devices NAME` shows all modes and sources."
    )


def _row(device: Device) -> tuple[str, ...]:
    from scaler.devices import RUNTIME_TITLES, PowerMode  # noqa: PLC0415

    mode = device.mode()
    peak = f"{mode.peak_tops('fp16'):.2f}" if isinstance(mode, PowerMode) and "fp16" in device.precisions else ""
    bandwidth = f"{mode.bandwidth_gb_per_s:g}" if isinstance(mode, PowerMode) else ""
    return (
        device.id,
        device.name,
        f"{device.cpu.architecture}, {_cores(device.cpu.cores)}" if device.cpu else device.processor,
        mode.name,
        peak,
        bandwidth,
        _memory(device),
        " ".join(device.precisions),
        " ".join((RUNTIME_TITLES[device.runtimes[0]], *(stack.tensorrt for stack in device.software[-1:]))),
        _latency(device),
    )


def _memory(device: Device) -> str:
    return "" if device.memory_gib is None else f"{device.memory_gib:g} GiB"


def _cores(count: int) -> str:
    return f"{count} core{'s' if count > 1 else ''}"


def _facts(device: Device) -> list[str]:
    """The facts beside the modes, those that are known."""
    if device.gpu is not None:
        return [device.processor, f"L2 {device.gpu.l2_kib} KiB", _memory(device), f"DLA cores: {device.dla_count}"]
    assert device.cpu is not None
    cpu = device.cpu
    caches = [f"{name} {size} KiB" for name, size in (("L2", cpu.l2_kib), ("L3", cpu.l3_kib)) if size is not None]
    named = [] if cpu.processor == device.name else [cpu.processor]
    return [*named, cpu.architecture, _cores(cpu.cores), *caches, _memory(device), *cpu.instruction_sets]


def _print_one(device: Device) -> None:
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    screen = console()
    screen.print(f"[bold]{escape(device.name)}[/bold] ({escape(', '.join((device.id, *device.aliases)))})")
    latency = _latency(device)
    hint = f": scaler profile run --device {device.id}" if latency == NONE_YET else ""
    screen.print(escape(f"{', '.join(filter(None, _facts(device)))}; latency {latency}{hint}"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    figures = ("SM", "GPU MHz", "GB/s", *(f"{p} TOPS" for p in device.precisions)) if device.gpu else ("threads",)
    for heading in ("mode", *figures):
        table.add_column(heading)
    for mode in device.modes:
        name = f"{mode.name} *" if mode.name == device.default_mode else mode.name
        table.add_row(escape(name), *_figures(mode))
    screen.print(table)
    screen.print(escape(f"* default: {device.default_mode_reason}"))
    for stack in device.software:
        opset = "" if stack.onnx_opset is None else f", ONNX opset up to {stack.onnx_opset}"
        screen.print(
            escape(
                f"JetPack {stack.jetpack}: TensorRT {stack.tensorrt}, CUDA {stack.cuda}, Python {stack.python}{opset}"
            )
        )
    for fact in device.unverified:
        screen.print(escape(f"unverified: {fact}"))
    for name in SOURCES:
        if source := getattr(device.sources, name):
            screen.print(f"[dim]source of {name}: {escape(source)}[/dim]")


def _figures(mode: Mode) -> tuple[str, ...]:
    from scaler.devices import ThreadMode  # noqa: PLC0415

    if isinstance(mode, ThreadMode):
        return (str(mode.threads),)
    rates = (f"{rate:g}" for rate in _rates(mode).values())
    return (str(mode.sms), f"{mode.gpu_mhz:g}", f"{mode.bandwidth_gb_per_s:g}", *rates)
