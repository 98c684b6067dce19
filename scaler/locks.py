"""Locks of files that several processes change: readers, changers and writers of one file take turns."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from scaler.errors import UserError

if sys.platform != "win32":
    import fcntl

_PATIENCE_S = 600.0
_POLL_S = 0.05


@contextlib.contextmanager
def locked(path: Path, *, patience_s: float = _PATIENCE_S, busy: str = "") -> Iterator[None]:
    """Hold the lock of a file, `.<name>.lock` beside it; it ends with the process, however that ends.

    Args:
        path: The file.
        patience_s: How long to wait for somebody else who holds it.
        busy: What to say then.

    Raises:
        UserError: The folder cannot be written to, or somebody holds the lock for longer than that.
    """
    lock = path.with_name(f".{path.name}.lock")
    end = time.monotonic() + patience_s
    try:
        while (stream := _taken(lock)) is None:
            if time.monotonic() > end:
                minutes = f"{patience_s / 60:.0f} minutes"
                raise UserError(
                    busy or f"{path}: another process has been writing it for {minutes}; stop it and try again"
                )
            time.sleep(_POLL_S)
    except OSError as error:
        raise UserError(f"{lock}: cannot be written: {error.strerror or error}") from None
    with stream:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # on Windows nothing that is open can go
                lock.unlink()


def _taken(lock: Path) -> IO[str] | None:
    """The open file of the lock, where it could be had now; whoever waits for one that was removed opens another."""
    stream = lock.open("a")
    try:
        if sys.platform == "win32":
            import msvcrt  # noqa: PLC0415

            msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
            return stream
    except (BlockingIOError, PermissionError, FileNotFoundError):  # somebody holds it, or has just removed it
        pass
    except BaseException:
        stream.close()
        raise
    stream.close()
    return None
