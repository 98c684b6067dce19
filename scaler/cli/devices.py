"""`scaler devices`: what is known of each device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaler.cli.options import Json, console, print_json

if TYPE_CHECKING:
    from scaler.devices import Device, PowerMode


def command(
    name: Annotated[str | None, typer.Argument(help="One device in full; all in short otherwise.")] = None,
    json_output: Json = False,
) -> None:
    """List the devices: power modes, peak rates, software, precisions and where latencies come from.

    Example: scaler devices nano
    """
    from scaler.devices import list_devices, load_device  # noqa: PLC0415

    found = list_devices() if name is None else (load_device(name),)
    if json_output:
        print_json([_plain(device) for device in found])
    elif name is None:
        _print_list(found)
    else:
        _print_one(found[0])


def _rates(mode: PowerMode) -> dict[str, float]:
    return {p: round(mode.peak_tops(p), 3) for p in mode.gpu.precisions}


def _plain(device: Device) -> dict[str, Any]:
    return {
        "id": device.id,
        "name": device.name,
        "aliases": list(device.aliases),
        "latency_provenance": device.latency_provenance,
        "architecture": device.gpu.architecture,
        "compute_capability": device.gpu.compute_capability,
        "memory_gib": device.memory_gib,
        "l2_kib": device.gpu.l2_kib,
        "dla_count": device.dla_count,
        "default_mode": device.default_mode,
        "default_mode_reason": device.default_mode_reason,
        "modes": [
            {
                "name": mode.name,
                "sms": mode.sms,
                "gpu_mhz": mode.gpu_mhz,
                "bandwidth_gb_per_s": mode.bandwidth_gb_per_s,
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
        "sources": {
            name: getattr(device.sources, name) for name in ("gpu", "modes", "memory", "precisions", "software")
        },
    }


def _print_list(devices: tuple[Device, ...]) -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "device",
        "name",
        "GPU",
        "mode",
        "FP16 TFLOPS",
        "GB/s",
        "memory",
        "precisions",
        "TensorRT",
        "latency",
    ):
        table.add_column(heading, justify="right" if heading in ("FP16 TFLOPS", "GB/s", "memory") else "left")
    for device in devices:
        mode = device.mode()
        table.add_row(
            device.id,
            device.name,
            f"{device.gpu.architecture} {device.gpu.compute_capability}",
            mode.name,
            f"{mode.peak_tops('fp16'):.2f}",
            f"{mode.bandwidth_gb_per_s:g}",
            f"{device.memory_gib:g} GiB",
            ", ".join(device.gpu.precisions),
            device.software[-1].tensorrt if device.software else "-",
            device.latency_provenance,
        )
    console().print(table)
    console().print(
        "\nlatency: calibrated = model fitted to published times of this device; estimated = from the data sheet only. "
        "`scaler devices NAME` shows all modes and sources."
    )


def _print_one(device: Device) -> None:
    from rich.table import Table  # noqa: PLC0415

    screen = console()
    screen.print(f"[bold]{device.name}[/bold] ({', '.join((device.id, *device.aliases))})")
    screen.print(
        f"{device.gpu.architecture} {device.gpu.compute_capability}, L2 {device.gpu.l2_kib or '?'} KiB, "
        f"{device.memory_gib:g} GiB, DLA cores: {device.dla_count}; latency {device.latency_provenance}"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("mode", "SM", "GPU MHz", "GB/s", *(f"{p} TOPS" for p in device.gpu.precisions)):
        table.add_column(heading)
    for mode in device.modes:
        name = f"{mode.name} *" if mode.name == device.default_mode else mode.name
        rates = (f"{rate:g}" for rate in _rates(mode).values())
        table.add_row(name, str(mode.sms), f"{mode.gpu_mhz:g}", f"{mode.bandwidth_gb_per_s:g}", *rates)
    screen.print(table)
    screen.print(f"* default: {device.default_mode_reason}")
    for stack in device.software:
        opset = "" if stack.onnx_opset is None else f", ONNX opset up to {stack.onnx_opset}"
        screen.print(
            f"JetPack {stack.jetpack}: TensorRT {stack.tensorrt}, CUDA {stack.cuda}, Python {stack.python}{opset}"
        )
    for fact in device.unverified:
        screen.print(f"unverified: {fact}")
    for name in ("gpu", "modes", "memory", "precisions", "software"):
        screen.print(f"[dim]source of {name}: {getattr(device.sources, name)}[/dim]")
