"""The machine that measures: which runtime speaks for a device here, and how patiently to use it."""

from __future__ import annotations

import os
from typing import NamedTuple

from scaler.devices import HOST, Device, Mode, Precision, ThreadMode, load_device, load_host
from scaler.errors import UnsupportedError, UsageError, unknown_name
from scaler.profiling.measure import Effort
from scaler.runtimes.protocol import Runtime

UNKNOWN = "unknown"
"""The power mode of a system that does not tell it: the one that is asked for is believed."""
RUNTIMES = ("auto", "onnxruntime", "tensorrt", "trtexec")
GPU_EFFORT = Effort(
    rounds=4,
    quiet_seconds=2.0,
    block_seconds=1.0,
    reference_seconds=1.0,
    patience=60.0,
    pause=5.0,
    profile_seconds=2.0,
    energy_seconds=6.0,
)
"""For a GPU behind a process of its own (trtexec): long blocks, since each loads its engine anew."""


class OtherComputerError(UnsupportedError):
    """The device is not the computer at hand.

    Args:
        reason: Which computer it is.
        todo: What to do to profile the device.
    """

    def __init__(self, reason: str, todo: str) -> None:
        super().__init__(f"{reason}; {todo}")
        self.reason = reason


class Machine(NamedTuple):
    """What measures."""

    runtime: Runtime
    effort: Effort
    cores: tuple[int, ...]
    """Processor cores among which a measurement may move; empty where that is the system's affair."""


class Setting(NamedTuple):
    """What is to be measured or predicted."""

    device: Device
    mode: Mode
    precision: Precision

    @property
    def runtime(self) -> str:
        """The runtime of the device's tables."""
        return self.device.runtimes[0]


def setting(device: str, precision: str | None = None, power_mode: str | None = None) -> Setting:
    """Resolve what the user names; the device's defaults where None.

    Raises:
        UserError: No such device, precision or power mode.
    """
    profile = load_device(device)
    return Setting(profile, profile.mode(power_mode), profile.require_precision(precision))


def machine_for(wanted: Setting, runtime: str = "auto", *, batch: int = 1) -> Machine:
    """What measures a device on the computer at hand.

    Raises:
        UsageError: No such runtime.
        MissingExtraError: A package is not installed.
        OtherComputerError: The device is another computer.
        UnsupportedError: It runs in another power mode.
    """
    if runtime not in RUNTIMES:
        raise UsageError(unknown_name("runtime", runtime, RUNTIMES))
    if isinstance(wanted.mode, ThreadMode):
        return _cpu(wanted, wanted.mode, runtime, batch)
    return _gpu(wanted, runtime, batch)


def _cpu(wanted: Setting, mode: ThreadMode, runtime: str, batch: int) -> Machine:
    from scaler.runtimes.onnxruntime_cpu import OnnxRuntimeCpu  # noqa: PLC0415

    device = wanted.device
    if device.id != HOST and device.processor != load_host().processor:
        raise OtherComputerError(
            f"{device.id} is {device.processor}, this computer has {load_host().processor}",
            f"measure it there, or this one with --device {HOST}",
        )
    if runtime not in ("auto", "onnxruntime"):
        raise UnsupportedError(f"{runtime} does not run on a CPU; leave --runtime away")
    cores = tuple(sorted(os.sched_getaffinity(0))) if mode.threads == 1 and hasattr(os, "sched_getaffinity") else ()
    return Machine(OnnxRuntimeCpu(mode.threads, precision=wanted.precision, batch=batch), Effort(), cores)


def _gpu(wanted: Setting, runtime: str, batch: int) -> Machine:
    from scaler.runtimes.jetson import detect  # noqa: PLC0415

    device = wanted.device
    here = detect()
    if here is not None and here not in (device.id, *device.aliases):
        raise OtherComputerError(f"this computer is {here}, not {device.id}", f"measure with --device {here}")
    if runtime == "onnxruntime":
        raise UnsupportedError(f"{device.id} is measured with tensorrt or trtexec; leave --runtime away")
    if here is None and device.software:  # what a JetPack brings: the device is a Jetson
        raise OtherComputerError(
            f"this computer is no {device.name}",
            f"make an archive to run there: scaler profile bundle --device {device.id}",
        )
    machine = Machine(_tensorrt(wanted.precision, runtime, batch), GPU_EFFORT, ())
    running = machine.runtime.conditions().power_mode
    if running not in (UNKNOWN, wanted.mode.name):
        known = running in [mode.name for mode in device.modes]
        other = f", or measure this mode with --power-mode {running}" if known else ""
        raise UnsupportedError(
            f"{device.id} runs in {running}, asked for is {wanted.mode.name}: switch it with nvpmodel{other}"
        )
    return machine


def _tensorrt(precision: Precision, runtime: str, batch: int) -> Runtime:
    """TensorRT by its command, which every JetPack has, unless the package is asked for."""
    if runtime == "tensorrt":
        from scaler.runtimes.tensorrt_engine import TensorRtEngine  # noqa: PLC0415

        return TensorRtEngine(precision=precision, batch=batch)
    from scaler.runtimes.trtexec import Trtexec  # noqa: PLC0415

    return Trtexec(precision=precision, batch=batch)
