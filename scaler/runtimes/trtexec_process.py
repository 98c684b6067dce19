"""A program that runs to its end or is ended, with all that it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scaler.runtimes.protocol import RuntimeFailedError

__all__ = ["ended_by", "run_program"]


def run_program(executable: Path, what: str, options: Sequence[str], timeout: float) -> tuple[int, str]:
    """Run a program to its end; it ends with us, whatever interrupts.

    Args:
        executable: The program.
        what: What it does, for messages.
        options: Its arguments.
        timeout: Longest time in seconds.

    Returns:
        Its return code (negative: the signal that ended it) and its output, errors among the rest.

    Raises:
        RuntimeFailedError: It cannot be run, or takes longer.
    """
    try:
        child = subprocess.Popen(
            [str(executable), *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that it can be ended with all that it started
        )
    except OSError as error:
        raise RuntimeFailedError(f"{executable} cannot be run: {error.strerror or error}") from None
    with child:
        try:
            output, _ = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(child)
            raise RuntimeFailedError(f"{what} failed: {executable.name} took longer than {timeout:g} s") from None
        except BaseException:  # Ctrl-C
            _end(child)
            raise
    return child.returncode, output.decode(errors="replace")


def ended_by(number: int) -> str:
    """What a signal means."""
    if number == signal.SIGKILL:
        return "was killed, most likely because the memory ran out; close other programs or allow a smaller workspace"
    name = signal.Signals(number).name if number in {*signal.Signals} else f"signal {number}"
    return f"crashed ({name})"


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
