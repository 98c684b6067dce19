"""What TensorRT calls back: loggers, profilers, and who keeps outputs whose size is not known before.

Classes of ours derive from those of the package, which is known only when it is loaded; pybind11 wants their
constructors called by name.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

__all__ = ["LayerReport", "Messages", "make_logger", "make_output_keeper", "make_profiler"]

_KEPT = 5000
"""Lines of information; a build of a network on the DLA has one a layer."""


class LayerReport(NamedTuple):
    """Time of one layer in one inference."""

    name: str
    ms: float


class Messages:
    """What TensorRT said since the last time somebody asked."""

    def __init__(self) -> None:
        self._errors: list[str] = []
        self._log: deque[str] = deque(maxlen=_KEPT)

    def add(self, text: str, *, is_error: bool) -> None:
        """Take one message down."""
        line = " ".join(text.split())
        self._log.append(line)
        if is_error:
            self._errors.append(line)

    def take_errors(self) -> tuple[str, ...]:
        """Errors since the last call."""
        taken = tuple(self._errors)
        self._errors.clear()
        return taken

    def take_log(self) -> str:
        """Everything since the last call, a message a line: memory, layers on the DLA, warnings."""
        taken = "\n".join(self._log)
        self._log.clear()
        return taken


def make_logger(package: Any, messages: Messages) -> Any:
    """A logger that keeps errors, warnings and information, and drops what is more verbose."""
    worst, least = package.Logger.ERROR, package.Logger.INFO

    class Collector(package.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            package.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity <= least:
                messages.add(msg, is_error=bool(severity <= worst))

    return Collector()


def make_profiler(package: Any, reports: list[LayerReport]) -> Any:
    """A profiler that adds to a list, layer by layer."""

    class Collector(package.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            package.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            reports.append(LayerReport(layer_name, ms))

    return Collector()


def make_output_keeper(package: Any, address: int, size: int, shapes: dict[str, tuple[int, ...]]) -> Any:
    """What gives TensorRT (since 8.5) the memory of an output whose size depends on what was computed.

    Args:
        package: The module `tensorrt`.
        address: Of memory that suffices always.
        size: Of it in bytes.
        shapes: Gets the shape of the output after every inference, by name.
    """

    class Keeper(package.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            package.IOutputAllocator.__init__(self)

        def reallocate_output(self, tensor_name: str, memory: int, size_wanted: int, alignment: int) -> int:  # noqa: ARG002
            return address if size_wanted <= size else 0

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            shapes[tensor_name] = tuple(shape)

    return Keeper()
