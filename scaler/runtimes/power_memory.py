"""Memory that an engine takes: from TensorRT's messages, and of this process.

A Jetson has one memory for CPU and GPU, so that what TensorRT says of both adds up there.
"""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, runtime_checkable

__all__ = ["EngineMemory", "PeakMemory", "TellsMemory", "parse_engine_memory"]

_MIB = 2.0**20
_BUILDING = re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU (\d{1,9}) MiB, GPU (\d{1,9}) MiB")
_RUNNING = re.compile(
    r"TensorRT-managed allocation in IExecutionContext creation: CPU [+-]\d{1,9}, GPU [+-]\d{1,9}, "
    r"now: CPU (\d{1,9}), GPU (\d{1,9}) \(MiB\)"
)
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d{1,15})\b")
_WEIGHTS = re.compile(r"Total Weights Memory: (\d{1,15})\b")
_RESET_PEAK = "5"


class EngineMemory(NamedTuple):
    """What TensorRT allocates for an engine, in MiB; None where its messages do not tell (before 8.2, or silenced).

    CUDA's own context, cuDNN and cuBLAS come on top: some hundred MiB that every engine needs alike.
    """

    running: float | None = None
    """Engine and execution context, in whole MiB."""
    building: float | None = None
    """The peak while it was built, tactics tried out included."""
    activations: float | None = None
    weights: float | None = None
    """Since 8.6."""

    def updated(self, later: EngineMemory) -> EngineMemory:
        """What was said later where it was said, else what was said before."""
        return EngineMemory(*(old if new is None else new for old, new in zip(self, later, strict=True)))


@runtime_checkable
class TellsMemory(Protocol):
    """A session that knows the memory of its engine, as those of TensorRT do."""

    @property
    def memory(self) -> EngineMemory:
        """What TensorRT said of the engine when it was built and loaded."""
        ...


class PeakMemory:
    """Peak of this process's memory while a block runs, above what it held before (Linux).

    ::

        with PeakMemory() as memory, runtime.prepare(model) as session:
            session.time(20)
        print(memory.mib)

    It tells what was added: what the allocator keeps for later is given back to the system first, where the C library
    can, since memory that was freed before and is used again does not show. Of networks that ran one after the other in
    one process this is 0 to 16 % less than what each takes in a fresh one (ONNX Runtime, eight networks).

    Args:
        folder: Of the process in the system's files; another one in tests.

    Attributes:
        mib: The rise in MiB; None where the system does not tell.
    """

    def __init__(self, folder: Path = Path("/proc/self")) -> None:
        self._folder = folder
        self._before: float | None = None
        self.mib: float | None = None

    def __enter__(self) -> Self:
        """The block begins: the system forgets the peak until now."""
        _give_back()
        try:
            (self._folder / "clear_refs").write_text(_RESET_PEAK)
        except OSError:  # without this a peak before the block might hide the block's own
            self._before = None
        else:
            self._before = self._value("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The block is over."""
        peak = self._value("VmHWM")
        self.mib = None if self._before is None or peak is None else max(0.0, peak - self._before)

    def _value(self, key: str) -> float | None:
        """A line of ``status``, in MiB."""
        try:
            text = (self._folder / "status").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        found = re.search(rf"^{key}:\s+(\d{{1,15}}) kB$", text, re.MULTILINE)
        return int(found[1]) / 1024 if found else None


def _give_back() -> None:
    """Let the C library return what was freed to the system; glibc's can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def parse_engine_memory(text: str) -> EngineMemory:
    """What TensorRT's messages say of the last engine in them: a log of trtexec, or of a logger in process."""
    running, building = _last(_RUNNING, text), _last(_BUILDING, text)
    activations, weights = _last(_ACTIVATIONS, text), _last(_WEIGHTS, text)
    return EngineMemory(
        running=running,
        building=building,
        activations=None if activations is None else activations / _MIB,
        weights=None if weights is None else weights / _MIB,
    )


def _last(pattern: re.Pattern[str], text: str) -> float | None:
    """Sum of the numbers in the last place where a pattern fits."""
    found = [sum(map(int, match.groups())) for match in pattern.finditer(text)]
    return float(found[-1]) if found else None
