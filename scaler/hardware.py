"""What a device is: the GPU or CPU that computes, the modes in which it runs, the software it takes.

A GPU's peaks are derived: ``sms`` multiprocessors at ``gpu_mhz`` do ``sms x fma_per_sm_clock x gpu_mhz``
multiply-accumulates a second, and a FLOP count is twice that. A CPU has no peak here: how much of it a runtime gets
out is only known by measuring.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from scaler.errors import UnsupportedError, UsageError, unknown_name

__all__ = [
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
    "plain_mode",
    "thread_mode",
]

Precision = Literal["fp32", "tf32", "fp16", "int8"]
"""Number format of an engine; TensorRT computes fp32 engines in tf32 where the GPU has it, if allowed to."""

Provenance = Literal["measured", "calibrated", "estimated"]
"""Kind of truth of a latency: timed on the device, fitted to published times of it, or from its data sheet only."""

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PROVENANCES: tuple[Provenance, ...] = get_args(Provenance)

RUNTIME_TITLES = {"tensorrt": "TensorRT", "onnxruntime": "ONNX Runtime"}
"""What a runtime is called in a sentence, by its name in files and options."""


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
    def processor(self) -> str:
        """What it is, in a word: "Volta 7.2"."""
        return f"{self.architecture} {self.compute_capability}"

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes whose times there are of it."""
        return ("tensorrt",)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that TensorRT runs on this GPU."""
        return tuple(precision for precision, _ in self.fma_per_sm_clock)

    @property
    def default_precision(self) -> Precision:
        """The precision that is meant when none is named."""
        return "fp16" if "fp16" in self.precisions else "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """A CPU, whatever the number of threads.

    Attributes:
        processor: The name that the system reports.
        architecture: "x86_64", "aarch64", "arm64".
        instruction_sets: Those of its vector and matrix units, free texts: "avx2", "amx_int8", "asimddp".
        cores: Physical cores that a program may use.
        l2_kib: L2 cache that one core sees, of its own or shared; None where the system does not tell.
        l3_kib: L3 cache; None where there is none or the system does not tell.
    """

    processor: str
    architecture: str
    instruction_sets: tuple[str, ...]
    cores: int
    l2_kib: int | None
    l3_kib: int | None

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes whose times there are of it."""
        return ("onnxruntime",)

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that are timed on CPUs."""
        return ("fp32", "int8")

    @property
    def default_precision(self) -> Precision:
        """The precision that is meant when none is named."""
        return "fp32"


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
            raise _unsupported(f"a {self.gpu.architecture} GPU", self.gpu, precision)
        return self.sms * rates[precision] * self.gpu_mhz * 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadMode:
    """A number of threads within an operator; operators run one after the other.

    Attributes:
        name: Its short name, "1-thread".
        aliases: Other names of it, "1".
        threads: How many.
    """

    name: str
    aliases: tuple[str, ...]
    threads: int


Mode: TypeAlias = PowerMode | ThreadMode
"""In what setting a device runs; times of one mode say nothing of another."""


def thread_mode(threads: int) -> ThreadMode:
    """Return the mode of so many threads under its usual name: "1-thread", "2-threads"."""
    name, other = f"{threads}-thread", f"{threads}-threads"
    if threads > 1:
        name, other = other, name
    return ThreadMode(name=name, aliases=(str(threads), other), threads=threads)


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
    """Where the facts of a profile come from, group by group; blank where a device has no such group."""

    gpu: str = ""
    cpu: str = ""
    modes: str = ""
    memory: str = ""
    precisions: str = ""
    software: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device; `scaler.devices` explains its facts key by key.

    Attributes:
        id: Its short name, the file's name, and the folder of its latency tables.
        name: Its full name.
        aliases: Other names that `scaler.devices.load_device` takes.
        latency_provenance: Kind of truth of the latency tables shipped for it.
        memory_gib: Memory, shared by CPU and GPU; None where the system does not tell.
        dla_count: Deep-learning accelerators beside the GPU.
        chip: What computes: its GPU or its CPU.
        modes: Its power modes, the fastest first; for a CPU its numbers of threads.
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
    memory_gib: float | None
    dla_count: int
    chip: Gpu | Cpu
    modes: tuple[Mode, ...]
    default_mode: str
    default_mode_reason: str
    software: tuple[SoftwareStack, ...]
    unverified: tuple[str, ...]
    sources: Sources

    @property
    def gpu(self) -> Gpu | None:
        """Its GPU; None for a CPU."""
        return self.chip if isinstance(self.chip, Gpu) else None

    @property
    def cpu(self) -> Cpu | None:
        """Its CPU; None for a GPU."""
        return self.chip if isinstance(self.chip, Cpu) else None

    @property
    def processor(self) -> str:
        """What computes, by name: "Volta 7.2", or a CPU as the system reports it."""
        return self.chip.processor

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The runtimes whose times there are of it, the usual one first; `RUNTIME_TITLES` has them in words."""
        return self.chip.runtimes

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """The precisions that these run on it."""
        return self.chip.precisions

    @property
    def default_precision(self) -> Precision:
        """The precision that is meant when none is named."""
        return self.chip.default_precision

    def mode(self, name: str | None = None) -> Mode:
        """Return a mode by its name or alias (nvpmodel's ``MODE_`` in front may stay), or the default.

        Raises:
            UsageError: The device has no such mode.
        """
        wanted = plain_mode(self.default_mode if name is None else name)
        for mode in self.modes:
            if wanted in map(plain_mode, (mode.name, *mode.aliases)):
                return mode
        known = [mode.name for mode in self.modes]
        kind = "power mode" if self.gpu else "thread mode"
        raise UsageError(unknown_name(f"{kind} of {self.name}", name or "", known))

    def gpu_mode(self, name: str | None = None) -> PowerMode:
        """Return a mode, as `mode` does, for what needs the peak rates of a GPU.

        Raises:
            UsageError: The device has no such mode.
            UnsupportedError: It is a CPU.
        """
        mode = self.mode(name)
        if isinstance(mode, PowerMode):
            return mode
        raise self._without_peaks()

    def require_gpu(self) -> Gpu:
        """Return its GPU, for what needs the peak rates of one.

        Raises:
            UnsupportedError: It is a CPU.
        """
        if self.gpu is None:
            raise self._without_peaks()
        return self.gpu

    def require_precision(self, precision: str | None) -> Precision:
        """Return the precision if a runtime runs it on this device; the device's default for None.

        Raises:
            UsageError: There is no such precision.
            UnsupportedError: The device lacks it.
        """
        if precision is None:
            return self.default_precision
        for known in PRECISIONS:
            if known == precision.casefold():
                if known not in self.precisions:
                    raise _unsupported(self.name, self.chip, known)
                return known
        raise UsageError(unknown_name("precision", precision, self.precisions))

    def _without_peaks(self) -> UnsupportedError:
        return UnsupportedError(
            f"{self.name} is a CPU: there is no estimate from a data sheet, its latency must be measured: "
            f"scaler profile run --device {self.id}"
        )


def plain_mode(name: str) -> str:
    """Return the form in which names of modes are compared."""
    return name.strip().upper().removeprefix("MODE_")


def _unsupported(subject: str, chip: Gpu | Cpu, precision: Precision) -> UnsupportedError:
    """Compose ``Jetson Nano has no INT8 in TensorRT; it supports fp32, fp16``."""
    runtimes = " or ".join(RUNTIME_TITLES[name] for name in chip.runtimes)
    supported = ", ".join(chip.precisions)
    return UnsupportedError(f"{subject} has no {precision.upper()} in {runtimes}; it supports {supported}")
