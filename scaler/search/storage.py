"""Where a study lives: a journal file, a database, Redis or only the memory. Imports Optuna: import it late.

Whatever goes wrong there (no such server, no driver, a file that is something else, a full disk) becomes a
`UserError` of one line, in which no password stands.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend

from scaler.errors import MissingExtraError, UserError, nearest_name

if sys.platform != "win32":
    import fcntl

__all__ = ["Storage", "storage_errors", "with_storage"]

_FIRST_BYTES = b'{"op_code":'  # of every journal
_OF_STORAGES = ("sqlalchemy", "psycopg", "redis", "sqlite3", "alembic")
_PASSWORD = re.compile(r"://([^:/@\s]*):[^@\s]*@")
_SERVERS = ("postgresql", "mysql", "mariadb", "sqlite", "redis", "rediss", "unix")
_SHOWN = 300


@dataclass(frozen=True, slots=True, eq=False)
class Storage:
    """An open storage.

    Attributes:
        backend: Optuna's.
        name: As a message names it, without a password.
        close: Lets go of files and connections.
    """

    backend: BaseStorage
    name: str
    close: Callable[[], None]


class _Journal(JournalFileBackend):
    """A journal that outlives its writers.

    Optuna's own appends after a line that a killed writer left unfinished, which ruins the file, and waits half a
    minute for a killed writer's lock. This one cuts the unfinished line off, takes back what a full disk let it write
    only in part, and locks by `flock`, which ends with the process.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if sys.platform == "win32":
            super().append_logs(logs)
            return
        content = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        with self._path.open("r+b", buffering=0) as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            end = _end_of_lines(stream)
            try:
                stream.truncate(end)
                stream.seek(end)
                _write_all(stream, content)  # not synced: it outlives a killed process, if not a power cut
            except BaseException:
                stream.truncate(end)
                raise


@contextlib.contextmanager
def with_storage(where: str | Path | None) -> Iterator[Storage]:
    """Open a storage for a while.

    Args:
        where: None for the memory, an URL (``sqlite:///…``, ``postgresql://…``, ``redis://…``), or the path of a
            journal file, which is made where there is none.

    Raises:
        UserError: It cannot be opened.
        MissingExtraError: The database's driver is not installed.
    """
    name = "memory" if where is None else _PASSWORD.sub(r"://\1:***@", str(where))
    with storage_errors(name, opening=True):
        storage = _opened(where, name)
    try:
        yield storage
    finally:
        with contextlib.suppress(Exception):  # there is nothing left to lose
            storage.close()


@contextlib.contextmanager
def storage_errors(name: str, *, opening: bool = False) -> Iterator[None]:
    """Tell what a storage raises in one line.

    Args:
        name: Of the storage.
        opening: Whether every error is the storage's, since none of our own code runs inside.

    Raises:
        UserError: The storage raised something.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}; what was stored before is safe") from None
    except Exception as error:
        foreign = isinstance(error, OptunaError) or type(error).__module__.partition(".")[0] in _OF_STORAGES
        if not (foreign or opening):
            raise
        raise UserError(f"{name}: {_reason(error)}") from None


def _opened(where: str | Path | None, name: str) -> Storage:
    if where is None:
        return Storage(InMemoryStorage(), name, _nothing)
    if isinstance(where, Path) or "://" not in where:
        return Storage(JournalStorage(_journal(Path(where))), name, _nothing)
    scheme = where.partition("://")[0].partition("+")[0]
    if scheme not in _SERVERS and scheme != "postgres":
        nearest = nearest_name(scheme, _SERVERS)
        guess = f"; did you mean {nearest!r}?" if nearest else ""
        raise UserError(f"{name}: no storage of this kind{guess}; known: {', '.join(_SERVERS)}, or a file's path")
    if scheme in ("redis", "rediss", "unix"):
        return _redis(where, name)
    return _database(where, name)


def _journal(path: Path) -> _Journal:
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as stream:  # makes it, and tells at once where nothing can be written
        stream.seek(0)
        start = stream.read(len(_FIRST_BYTES))
    if not _FIRST_BYTES.startswith(start):
        raise UserError(f"{path}: is no study of scaler; name another file")
    return _Journal(path.absolute())


def _database(url: str, name: str) -> Storage:
    if url.startswith(("postgres://", "postgresql://")):
        url = "postgresql+psycopg://" + url.partition("://")[2]
    try:
        backend = RDBStorage(url)
    except ImportError as error:  # Optuna's text advises another driver
        if url.startswith("postgresql+psycopg:"):
            raise MissingExtraError("a study on PostgreSQL", "psycopg", "postgresql") from None
        raise UserError(f"{name}: the driver is not installed: {error.__cause__ or error}") from None

    def close() -> None:
        backend.remove_session()
        backend.engine.dispose()

    return Storage(backend, name, close)


def _redis(url: str, name: str) -> Storage:
    try:
        return Storage(JournalStorage(JournalRedisBackend(url)), name, _nothing)
    except ImportError:
        raise UserError(f"{name}: a study on Redis needs redis, which is not installed: pip install redis") from None


def _end_of_lines(stream: IO[bytes]) -> int:
    """The size of the file without what follows its last line break."""
    size = stream.seek(0, os.SEEK_END)
    block = 4096
    for start in range(size - block, -block, -block):
        stream.seek(max(start, 0))
        place = stream.read(min(block, start + block)).rfind(b"\n")
        if place >= 0:
            return max(start, 0) + place + 1
    return 0


def _write_all(stream: IO[bytes], content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) :]


def _reason(error: Exception) -> str:
    """The first line of an error's text, or of what is at its root."""
    root: BaseException = error
    while root.__cause__ is not None and type(root.__cause__).__module__ != "builtins":
        root = root.__cause__
    text = _PASSWORD.sub(r"://\1:***@", str(root)).strip().splitlines()
    if isinstance(error, json.JSONDecodeError | ValueError | LookupError | TypeError | AssertionError):
        return f"is damaged or no study of scaler ({text[0][:_SHOWN] if text else type(error).__name__}); name another"
    return text[0][:_SHOWN] if text else type(error).__name__


def _nothing() -> None:
    pass
