"""What every runtime offers: make a model ready, time it, time its layers, say under which conditions.

`tests/runtime_conformance.py` holds the tests that every implementation must pass, `scaler.runtimes.fake` one that
runs anywhere. Times are raw samples in milliseconds of one inference each; whoever needs a median, a spread or a
percentile derives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.devices import Precision
from scaler.errors import UnsupportedError, UserError

FloatArray: TypeAlias = npt.NDArray[np.float64]


class ModelRejectedError(UnsupportedError):
    """The runtime does not take a model; the message has its reason."""


class RuntimeFailedError(UserError):
    """The runtime crashed, ran out of memory or time while it built, loaded or ran a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under what a measurement was made; what the system does not tell is None or absent."""

    runtime: str
    """`onnxruntime` or `tensorrt`: times of one are not comparable with those of another."""
    runtime_version: str
    precision: Precision
    batch: int
    processor: str
    """What computes: the model name of the CPU or GPU."""
    power_mode: str
    """Power mode of the device by its name in the device's profile; for a CPU the number of threads, `1-thread`."""
    clocks_mhz: Mapping[str, float] = field(default_factory=dict)
    """Running clocks by domain (`gpu`, `emc`, `cpu`)."""
    clocks_pinned: bool | None = None
    """Whether the clocks cannot move during the measurement."""
    temperature_c: float | None = None
    """The hottest sensor."""
    throttled: bool | None = None
    """Whether the system reports that it slowed down for heat or power."""
    notes: tuple[str, ...] = ()
    """Whatever else a reader of the times should know, such as a setting that was not permitted."""


class LayerTime(NamedTuple):
    """Time of one layer as the runtime names it."""

    name: str
    """The runtime's own name of the layer, fused names included."""
    ms: float
    """Median over the profiled inferences where the runtime gives it, else the mean."""
    nodes: tuple[str, ...]
    """Names of the ONNX nodes or tensors that the runtime says this layer computes; may be empty (a reformat)."""
    kind: str = ""
    """The runtime's type of the layer (`Conv`, `ReorderInput`, `Reformat`); empty where it tells none."""


class Session(Protocol):
    """A model made ready; a context manager that releases it."""

    def time(self, runs: int) -> FloatArray:
        """Milliseconds of `runs` inferences one after the other, raw and in order."""
        ...

    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Time of every layer in execution order, over `runs` inferences; never part of what `time` returns."""
        ...

    def close(self) -> None:
        """Release the model; closing twice does no harm."""
        ...

    def __enter__(self) -> Self:
        """Enter a block at whose end the session closes."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        ...


class Runtime(Protocol):
    """A way of running ONNX models on one device, at one precision and power mode."""

    @property
    def name(self) -> str:
        """`onnxruntime`, `tensorrt` or, in tests, `fake`; the `runtime` of its conditions."""
        ...

    def conditions(self) -> Conditions:
        """Conditions now; asked before and after a measurement."""
        ...

    def prepare(self, model: Path) -> Session:
        """Make the ONNX model of a file ready, warm-up included.

        Raises:
            ModelRejectedError: The runtime does not take it.
            RuntimeFailedError: It crashed or ran out of memory.
        """
        ...
