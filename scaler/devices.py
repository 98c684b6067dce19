"""Devices: what a profile in ``profiles/*.toml`` says about one, and what follows from it.

A profile holds facts, each group with its source; peaks are derived: a GPU of ``sms`` multiprocessors at
``gpu_mhz`` does ``sms x fma_per_sm_clock x gpu_mhz`` multiply-accumulates a second, and a FLOP count is twice
that. A profile of one's own device needs the same keys (``profiles/nano.toml`` is a short model); put
it into the ``profiles`` folder of the user data, or give its path::

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
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from scaler.catalog import find, names
from scaler.errors import UnsupportedError, UsageError, unknown_name
from scaler.files import Reader, read_toml

__all__ = [
    "PRECISIONS",
    "PROVENANCES",
    "Device",
    "Gpu",
    "PowerMode",
    "Precision",
    "Provenance",
    "SoftwareStack",
    "Sources",
    "element_bytes",
    "list_devices",
    "load_device",
]

SCHEMA_VERSION = 1

Precision = Literal["fp32", "tf32", "fp16", "int8"]
"""Number format of an engine; TensorRT computes fp32 engines in tf32 where the GPU has it, if allowed to."""

Provenance = Literal["measured", "calibrated", "estimated"]

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)


def element_bytes(precision: Precision) -> int:
    """Bytes of one number; TF32 is stored as FP32."""
    return {"fp32": 4, "tf32": 4, "fp16": 2, "int8": 1}[precision]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU, whatever its clock.

    Attributes:
        architecture: NVIDIA's name of it.
        compute_capability: Major and minor, "7.2".
        l2_kib: L2 cache.
        fma_per_sm_clock: Dense multiply-accumulates of one SM in one clock, by precision.
    """

    architecture: str
    compute_capability: str
    l2_kib: int
    fma_per_sm_clock: tuple[tuple[Precision, int], ...]

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that TensorRT runs on this GPU."""
        return tuple(precision for precision, _ in self.fma_per_sm_clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerMode:
    """A setting of nvpmodel: it may change the number of SMs, not only the clocks.

    Attributes:
        name: Its short name, "15W".
        aliases: What nvpmodel calls it, "15W_6CORE"; CPU settings make several of them.
        sms: Streaming multiprocessors that are switched on.
        gpu_mhz: Highest GPU clock, reached for sure only when pinned by jetson_clocks.
        bandwidth_gb_per_s: Theoretical memory bandwidth, 10^9 bytes a second.
        gpu: The GPU that runs in this mode.
    """

    name: str
    aliases: tuple[str, ...]
    sms: int
    gpu_mhz: float
    bandwidth_gb_per_s: float
    gpu: Gpu = field(repr=False)

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """Theoretical memory bandwidth in bytes a second."""
        return self.bandwidth_gb_per_s * 1e9

    def peak_tops(self, precision: Precision) -> float:
        """Return the dense peak as data sheets give it, in 10^12 operations a second: two a MAC.

        Raises:
            UnsupportedError: TensorRT does not run this precision on this GPU.
        """
        return 2 * self.peak_macs_per_s(precision) / 1e12

    def peak_macs_per_s(self, precision: Precision) -> float:
        """Return the dense peak in multiply-accumulates a second, half of the FLOPS of a data sheet.

        Raises:
            UnsupportedError: TensorRT does not run this precision on this GPU.
        """
        rates = dict(self.gpu.fma_per_sm_clock)
        if precision not in rates:
            raise _unsupported(f"a {self.gpu.architecture} GPU", precision, self.gpu.precisions)
        return self.sms * rates[precision] * self.gpu_mhz * 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwareStack:
    """What one JetPack brings.

    Attributes:
        jetpack: Version or range of versions, "4.6.1-4.6.6".
        cuda: CUDA version.
        tensorrt: TensorRT version.
        python: Python of the image.
        onnx_opset: Newest opset that this TensorRT's ONNX parser states; None where it states none.
    """

    jetpack: str
    cuda: str
    tensorrt: str
    python: str
    onnx_opset: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the facts of a profile come from, group by group."""

    gpu: str
    modes: str
    memory: str
    precisions: str
    software: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device profile; the module docstring explains the keys.

    Attributes:
        id: Its short name, the file's name, and the folder of its latency tables.
        name: Its full name.
        aliases: Other names that `load_device` takes.
        latency_provenance: Kind of truth of the latency tables shipped for it.
        memory_gib: Memory, shared by CPU and GPU.
        dla_count: Deep-learning accelerators beside the GPU.
        gpu: Its GPU.
        modes: Its power modes, the fastest first.
        default_mode: Name of the mode that is meant when none is named.
        default_mode_reason: Why this one.
        software: What can be installed, oldest first; the last entry is the newest known.
        unverified: Facts of the profile for which no source could be read.
        sources: Where the others come from.
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    latency_provenance: Provenance
    memory_gib: float
    dla_count: int
    gpu: Gpu
    modes: tuple[PowerMode, ...]
    default_mode: str
    default_mode_reason: str
    software: tuple[SoftwareStack, ...]
    unverified: tuple[str, ...]
    sources: Sources

    def mode(self, name: str | None = None) -> PowerMode:
        """Return a power mode by its name or alias (nvpmodel's ``MODE_`` in front may stay), or the default.

        Raises:
            UsageError: The device has no such mode.
        """
        wanted = _plain_mode(self.default_mode if name is None else name)
        for mode in self.modes:
            if wanted in map(_plain_mode, (mode.name, *mode.aliases)):
                return mode
        known = [mode.name for mode in self.modes]
        raise UsageError(unknown_name(f"power mode of {self.name}", name or "", known))

    def require_precision(self, precision: str) -> Precision:
        """Return the precision if TensorRT runs it on this device.

        Raises:
            UsageError: There is no such precision.
            UnsupportedError: The device lacks it.
        """
        for known in PRECISIONS:
            if known == precision.casefold():
                if known not in self.gpu.precisions:
                    raise _unsupported(self.name, known, self.gpu.precisions)
                return known
        raise UsageError(unknown_name("precision", precision, self.gpu.precisions))


def list_devices() -> tuple[Device, ...]:
    """Return all devices, the user's and ours, by id.

    Raises:
        FileError: A profile is malformed.
    """
    return tuple(_read(find("profiles", name)) for name in names("profiles"))


def load_device(name: str | Path) -> Device:
    """Return a device by id, by alias, or by the path of its profile.

    Raises:
        FileError: The profile is malformed.
        UsageError: No device has this name, or several have it as an alias.
    """
    if Path(name).suffix.casefold() == ".toml":
        return _read(find("profiles", name))
    wanted, ids = _plain(str(name)), {_plain(known): known for known in names("profiles")}
    if wanted in ids:
        return _read(find("profiles", ids[wanted]))
    devices = list_devices()
    matches = [device for device in devices if wanted in map(_plain, device.aliases)]
    if len(matches) > 1:
        candidates = " or ".join(device.id for device in matches)
        raise UsageError(f"device {str(name)!r} may be {candidates}; name one of them")
    if not matches:
        aliases = [alias for device in devices for alias in device.aliases]
        raise UsageError(unknown_name("device", str(name), ids.values(), also=aliases))
    return matches[0]


def _plain(name: str) -> str:
    return name.strip().casefold().replace(" ", "-").replace("_", "-")


def _plain_mode(name: str) -> str:
    return name.strip().upper().removeprefix("MODE_")


def _unsupported(subject: str, precision: Precision, supported: tuple[Precision, ...]) -> UnsupportedError:
    return UnsupportedError(f"{subject} has no {precision.upper()} in TensorRT; it supports {', '.join(supported)}")


def _read(path: Path) -> Device:
    reader = read_toml(path, schema_version=SCHEMA_VERSION)
    gpu = _read_gpu(reader.table("gpu"))
    sources = reader.table("sources")
    device = Device(
        id=reader.string("id"),
        name=reader.string("name"),
        aliases=reader.strings("aliases", ()),
        latency_provenance=reader.choice("latency_provenance", PROVENANCES),
        memory_gib=reader.number("memory_gib", minimum=0.25),
        dla_count=reader.integer("dla_count", minimum=0),
        gpu=gpu,
        modes=tuple(_read_mode(table, gpu) for table in reader.tables("modes", at_least=1)),
        default_mode=reader.string("default_mode"),
        default_mode_reason=reader.string("default_mode_reason"),
        software=tuple(_read_software(table) for table in reader.tables("software", ())),
        unverified=reader.strings("unverified", ()),
        sources=Sources(
            gpu=sources.string("gpu"),
            modes=sources.string("modes"),
            memory=sources.string("memory"),
            precisions=sources.string("precisions"),
            software=sources.string("software", ""),
        ),
    )
    reader.finish()
    if device.id != path.stem:
        expected = f"expected the file's name, {path.stem!r}"
        raise reader.error("id", f"found {device.id!r}", expected, "rename one of them")
    _check_modes(reader, device)
    return device


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


def _read_mode(table: Reader, gpu: Gpu) -> PowerMode:
    return PowerMode(
        name=table.string("name"),
        aliases=table.strings("aliases", ()),
        sms=table.integer("sms", minimum=1),
        gpu_mhz=table.number("gpu_mhz", minimum=1),
        bandwidth_gb_per_s=table.number("bandwidth_gb_per_s", minimum=0.1),
        gpu=gpu,
    )


def _read_software(table: Reader) -> SoftwareStack:
    return SoftwareStack(
        jetpack=table.string("jetpack"),
        cuda=table.string("cuda"),
        tensorrt=table.string("tensorrt"),
        python=table.string("python"),
        onnx_opset=table.integer("onnx_opset", None, minimum=1),
    )


def _check_modes(reader: Reader, device: Device) -> None:
    known = [name for mode in device.modes for name in map(_plain_mode, (mode.name, *mode.aliases))]
    for name in known:
        if known.count(name) > 1:
            raise reader.error("modes", f"two are called {name}", todo="rename one of them")
    if _plain_mode(device.default_mode) not in known:
        shown = ", ".join(mode.name for mode in device.modes)
        found = f"found {device.default_mode!r}"
        raise reader.error("default_mode", found, f"expected one of {shown}", "choose one of these")
