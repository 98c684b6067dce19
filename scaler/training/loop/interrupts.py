"""Ctrl-C and SIGTERM at a moment that suits: between two steps."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, MappingProxyType
from typing import Any

NAMES = MappingProxyType({signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"})


class Interrupts:
    """Remembers that the run should stop; a second Ctrl-C stops at once.

    Use it as a context. Outside the main thread, where Python takes no signals, only the time limit works.
    """

    def __init__(self, minutes: float | None = None) -> None:
        self.reason = ""
        self._end = None if minutes is None else time.monotonic() + 60 * minutes
        self._impatient = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._asked) for number in NAMES}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def wanted(self) -> bool:
        """Whether to stop now."""
        if not self.reason and self._end is not None and time.monotonic() >= self._end:
            self.reason = "time limit"
        return bool(self.reason)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this, a signal raises KeyboardInterrupt: for long work whose result may be lost."""
        self._impatient = True
        try:
            yield
        finally:
            self._impatient = False

    def _asked(self, number: int, _: FrameType | None) -> None:
        again = bool(self.reason)
        self.reason = NAMES[signal.Signals(number)]
        if again or self._impatient:
            raise KeyboardInterrupt
