"""Records finished runs in `pareto.json` and draws the reports beside it anew; safe when several processes do."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from scaler.accuracy.runs import Run
from scaler.errors import UserError
from scaler.report.files import write_json
from scaler.report.writing import write_reports
from scaler.search.result import SearchResult
from scaler.search.result_file import read_result
from scaler.search.trained import with_run, with_trained_of

if sys.platform != "win32":
    import fcntl

__all__ = ["keep_trained", "locked", "record"]

_PATIENCE_S = 600.0
_POLL_S = 0.05


def record(path: Path | str, run: Run, folder: Path | str) -> SearchResult:
    """Record a finished run beside the prediction of its candidate, and write the reports beside the file again.

    Reading, changing and writing happen under a lock, so that runs that end at the same time are all recorded. The
    same run recorded twice stands there once.

    Args:
        path: The `pareto.json` of the search.
        run: The run.
        folder: Its folder; named relative to that of `path`.

    Raises:
        UserError: The run is not finished or of no candidate of the result, or the files cannot be read or written.
    """
    place = Path(path)
    with locked(place):
        old = read_result(place)
        new = with_run(old, run, run_name(place, folder))
        if new != old:
            write_json(new, place)
            write_reports(new, place.parent)
    return new


def run_name(path: Path, folder: Path | str) -> str:
    """How a result names a run's folder: relative to its own, so that runs of equal names stay apart."""
    there, here = Path(folder).resolve(), path.resolve().parent
    try:
        return Path(os.path.relpath(there, here)).as_posix()
    except ValueError:  # another drive of Windows
        return there.as_posix()


def keep_trained(result: SearchResult, path: Path) -> SearchResult:
    """A new result with the runs that the file of its predecessor has recorded; itself where there is none."""
    if not path.is_file():
        return result
    try:
        return with_trained_of(result, read_result(path))
    except UserError:  # a damaged file is about to be replaced
        return result


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
