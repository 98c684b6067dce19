"""Devices: what a profile in ``profiles/*.toml`` says about one, and what follows from it.

A profile holds facts, each group with its source; what follows from them is in `scaler.hardware`. A profile of
one's own device needs the same keys (``profiles/nano.toml`` is a short model); put it into the ``profiles`` folder of
the user data, or give its path::

    schema_version = 1
    id = "my-board"                      # equals the file's name; latency_tables/<id>/ holds its tables
    name = "My Board"
    aliases = ["myboard"]                # optional
    latency_provenance = "estimated"     # of the tables shipped for it: measured, calibrated or estimated
    memory_gib = 8
    dla_count = 0
    default_mode = "15W"                 # the power mode meant when none is named ...
    default_mode_reason = "..."          # ... and why
    unverified = ["..."]                 # optional: facts below for which no source could be read

    [gpu]
    architecture = "Ampere"
    compute_capability = "8.7"
    l2_kib = 2048
    fma_per_sm_clock = { fp32 = 128, fp16 = 1024 }   # dense; a precision not listed is not supported

    [[modes]]                            # at least one
    name = "15W"
    aliases = ["15W_6CORE"]              # optional: what nvpmodel calls it
    sms = 8
    gpu_mhz = 624.75
    bandwidth_gb_per_s = 68.3            # of the memory, 10^9 bytes

    [[software]]                         # optional: what can be installed, oldest first
    jetpack = "6.2"
    cuda = "12.6"
    tensorrt = "10.3.0"
    python = "3.10"
    onnx_opset = 17                      # optional: the newest opset of its ONNX parser, where stated

    [sources]                            # where each group of facts comes from
    gpu = "..."
    modes = "..."
    memory = "..."
    precisions = "..."
    software = "..."                     # optional, like the group

A device that computes on its CPU has ``[cpu]`` in place of ``[gpu]``, numbers of threads for modes, and neither
``dla_count`` nor ``[[software]]``::

    schema_version = 1
    id = "my-cpu"
    name = "My Computer"
    latency_provenance = "measured"      # a CPU has no data sheet to estimate from
    memory_gib = 16
    default_mode = "1-thread"
    default_mode_reason = "..."

    [cpu]
    processor = "Intel Xeon (Emerald Rapids)"        # the name that the system reports
    architecture = "x86_64"
    instruction_sets = ["avx2", "avx512f", "amx_int8"]   # optional: free texts
    cores = 4                            # physical
    l2_kib = 2048                        # optional: what one core sees
    l3_kib = 16384                       # optional

    [[modes]]                            # at least one
    name = "1-thread"
    aliases = ["1"]                      # optional
    threads = 1

    [sources]
    cpu = "..."
    memory = "..."

The computer at hand needs no profile: ``host`` is its CPU, as `scaler.host` reads it from the system.
"""

import re
from pathlib import Path

from scaler.catalog import find, names
from scaler.errors import UsageError, unknown_name
from scaler.files import Reader, read_toml
from scaler.hardware import (
    PRECISIONS,
    PROVENANCES,
    RUNTIME_TITLES,
    Cpu,
    Device,
    Gpu,
    Mode,
    PowerMode,
    Precision,
    Provenance,
    SoftwareStack,
    Sources,
    ThreadMode,
    element_bytes,
    plain_mode,
    thread_mode,
)
from scaler.host import host_cpu, host_memory_gib

__all__ = [
    "HOST",
    "PRECISIONS",
    "PROVENANCES",
    "RUNTIME_TITLES",
    "Cpu",
    "Device",
    "Gpu",
    "Mode",
    "PowerMode",
    "Precision",
    "Provenance",
    "SoftwareStack",
    "Sources",
    "ThreadMode",
    "element_bytes",
    "list_devices",
    "load_device",
    "load_host",
    "thread_mode",
]

SCHEMA_VERSION = 1

HOST = "host"
"""Id of the computer at hand; no profile may have this name."""


def list_devices() -> tuple[Device, ...]:
    """Return all devices that have a profile, the user's and ours, by id.

    Raises:
        FileError: A profile is malformed.
    """
    return tuple(_read(find("profiles", name)) for name in names("profiles"))


def load_host() -> Device:
    """Return the computer at hand: its CPU, with a mode for each number of threads up to that of its cores."""
    cpu = host_cpu()
    return Device(
        id=HOST,
        name=re.sub(r"\((R|TM)\)", "", cpu.processor, flags=re.IGNORECASE),
        aliases=(),
        latency_provenance="measured",
        memory_gib=host_memory_gib(),
        dla_count=0,
        chip=cpu,
        modes=tuple(thread_mode(threads) for threads in range(1, cpu.cores + 1)),
        default_mode=thread_mode(1).name,
        default_mode_reason="times with more threads did not reproduce on shared machines",
        software=(),
        unverified=(),
        sources=Sources(cpu="this computer's operating system", memory="this computer's operating system"),
    )


def load_device(name: str | Path) -> Device:
    """Return a device by id, by alias, or by the path of its profile; ``host`` is the computer at hand.

    Raises:
        FileError: The profile is malformed, or takes the name ``host``.
        UsageError: No device has this name, or several have it as an alias.
    """
    if Path(name).suffix.casefold() == ".toml":
        return _read(find("profiles", name))
    wanted, ids = _plain(str(name)), {_plain(known): known for known in names("profiles")}
    if wanted in ids:
        return _read(find("profiles", ids[wanted]))
    if wanted == HOST:
        return load_host()
    devices = list_devices()
    matches = [device for device in devices if wanted in map(_plain, device.aliases)]
    if len(matches) > 1:
        candidates = " or ".join(device.id for device in matches)
        raise UsageError(f"device {str(name)!r} may be {candidates}; name one of them")
    if not matches:
        aliases = [alias for device in devices for alias in device.aliases]
        raise UsageError(unknown_name("device", str(name), [*ids.values(), HOST], also=aliases))
    return matches[0]


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "-").replace("_", "-")


def _read(path: Path) -> Device:
    reader = read_toml(path, schema_version=SCHEMA_VERSION)
    chip = _read_chip(reader)
    modes = reader.tables("modes", at_least=1)
    on_gpu = isinstance(chip, Gpu)
    device = Device(
        id=reader.string("id"),
        name=reader.string("name"),
        aliases=reader.strings("aliases", ()),
        latency_provenance=reader.choice("latency_provenance", PROVENANCES),
        memory_gib=reader.number("memory_gib", minimum=0.25),
        dla_count=reader.integer("dla_count", minimum=0) if on_gpu else 0,
        chip=chip,
        modes=tuple(
            _read_power_mode(mode, chip) if isinstance(chip, Gpu) else _read_thread_mode(mode) for mode in modes
        ),
        default_mode=reader.string("default_mode"),
        default_mode_reason=reader.string("default_mode_reason"),
        software=tuple(_read_software(table) for table in reader.tables("software", ())) if on_gpu else (),
        unverified=reader.strings("unverified", ()),
        sources=_read_sources(reader.table("sources"), on_gpu),
    )
    reader.finish()
    _check_names(reader, device, path)
    _check_modes(reader, device)
    return device


def _read_chip(reader: Reader) -> Gpu | Cpu:
    gpu, cpu = reader.table("gpu", None), reader.table("cpu", None)
    if gpu is not None and cpu is not None:
        raise reader.error("cpu", "found beside [gpu]", "expected one of the two", "give each a profile of its own")
    if gpu is not None:
        return _read_gpu(gpu)
    if cpu is not None:
        return _read_cpu(cpu)
    raise reader.error("gpu", "missing", "expected a table [gpu] or [cpu]", "add one of them")


def _read_gpu(table: Reader) -> Gpu:
    rates = table.table("fma_per_sm_clock")
    rates.integer("fp32")  # every GPU has it; the others are optional
    listed = [(precision, rates.integer(precision, None, minimum=1)) for precision in PRECISIONS]
    return Gpu(
        architecture=table.string("architecture"),
        compute_capability=table.string("compute_capability"),
        l2_kib=table.integer("l2_kib", minimum=1),
        fma_per_sm_clock=tuple((precision, rate) for precision, rate in listed if rate is not None),
    )


def _read_cpu(table: Reader) -> Cpu:
    return Cpu(
        processor=table.string("processor"),
        architecture=table.string("architecture"),
        instruction_sets=table.strings("instruction_sets", ()),
        cores=table.integer("cores", minimum=1),
        l2_kib=table.integer("l2_kib", None, minimum=1),
        l3_kib=table.integer("l3_kib", None, minimum=1),
    )


def _read_power_mode(table: Reader, gpu: Gpu) -> PowerMode:
    return PowerMode(
        name=table.string("name"),
        aliases=table.strings("aliases", ()),
        sms=table.integer("sms", minimum=1),
        gpu_mhz=table.number("gpu_mhz", minimum=1),
        bandwidth_gb_per_s=table.number("bandwidth_gb_per_s", minimum=0.1),
        gpu=gpu,
    )


def _read_thread_mode(table: Reader) -> ThreadMode:
    return ThreadMode(
        name=table.string("name"),
        aliases=table.strings("aliases", ()),
        threads=table.integer("threads", minimum=1),
    )


def _read_software(table: Reader) -> SoftwareStack:
    return SoftwareStack(
        jetpack=table.string("jetpack"),
        cuda=table.string("cuda"),
        tensorrt=table.string("tensorrt"),
        python=table.string("python"),
        onnx_opset=table.integer("onnx_opset", None, minimum=1),
    )


def _read_sources(table: Reader, on_gpu: bool) -> Sources:
    required = ("gpu", "modes", "memory", "precisions") if on_gpu else ("cpu", "memory")
    stated = {group: table.string(group) for group in required}
    return Sources(**stated, software=table.string("software", "") if on_gpu else "")


def _check_names(reader: Reader, device: Device, path: Path) -> None:
    if device.id != path.stem:
        expected = f"expected the file's name, {path.stem!r}"
        raise reader.error("id", f"found {device.id!r}", expected, "rename one of them")
    for key, taken in (("id", (device.id,)), ("aliases", device.aliases)):
        if HOST in map(_plain, taken):
            raise reader.error(key, f"{HOST!r} is the name of the computer at hand", todo="choose another name")


def _check_modes(reader: Reader, device: Device) -> None:
    known = [name for mode in device.modes for name in map(plain_mode, (mode.name, *mode.aliases))]
    for name in known:
        if known.count(name) > 1:
            raise reader.error("modes", f"two are called {name}", todo="rename one of them")
    if plain_mode(device.default_mode) not in known:
        shown = ", ".join(mode.name for mode in device.modes)
        found = f"found {device.default_mode!r}"
        raise reader.error("default_mode", found, f"expected one of {shown}", "choose one of these")
