"""Sizes of pictures from their headers, remembered beside the data set."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scaler.data.dataset import IntArray
from scaler.data.images import BrokenPictureError, picture_size
from scaler.errors import UserError
from scaler.files import write_atomic

_SCHEMA_VERSION = 1
_WORTH_WRITING = 500  # headers: fewer are read again as fast
_THREADS = 8
_CHUNK = 256


class Sizes(NamedTuple):
    """Of the pictures that were asked for, in their order."""

    values: IntArray
    """`[pictures, 2]`: width, height; 0 where the picture is broken."""
    broken: dict[int, str]
    """What is wrong, by row."""


def cache_of(data_file: Path) -> Path:
    """The file beside a `data.toml` that remembers sizes."""
    return data_file.with_name(f".{data_file.stem}-sizes.json")


def picture_sizes(paths: Sequence[Path], cache: Path) -> Sizes:
    """Return sizes from the headers, or from the cache where a file's time and length are as they were.

    The cache is a help and no more: damaged it counts as none, and where it cannot be written it is not.

    Args:
        paths: Pictures.
        cache: A JSON file; its pictures are named relative to its folder.
    """
    known, beside = _read(cache), f"{cache.parent}{os.sep}"
    names = [str(path).removeprefix(beside) for path in paths]
    chunks = [range(i, min(i + _CHUNK, len(paths))) for i in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:  # they wait for the disk, or for the one on the network
        parts = pool.map(lambda rows: [_fact(paths[row], known.get(names[row])) for row in rows], chunks)
        facts = [fact for part in parts for fact in part]
    fresh = {name: list(fact) for name, fact in zip(names, facts, strict=True) if not isinstance(fact, str)}
    if sum(known.get(name) != fact for name, fact in fresh.items()) >= _WORTH_WRITING:
        content = json.dumps({"schema_version": _SCHEMA_VERSION, "pictures": known | fresh}, separators=(",", ":"))
        with contextlib.suppress(UserError):
            write_atomic(cache, content)
    values = np.array([(0, 0) if isinstance(fact, str) else fact[2:] for fact in facts], np.int64).reshape(-1, 2)
    return Sizes(values, {row: fact for row, fact in enumerate(facts) if isinstance(fact, str)})


def _fact(path: Path, known: list[int] | None) -> tuple[int, int, int, int] | str:
    """Time, length, width and height of a picture, or what is wrong with it."""
    try:
        status = path.stat()
        if known is not None and known[:2] == [status.st_mtime_ns, status.st_size]:
            return known[0], known[1], known[2], known[3]
        return (status.st_mtime_ns, status.st_size, *picture_size(path))
    except BrokenPictureError as error:
        return error.reason
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def _read(cache: Path) -> dict[str, list[int]]:
    """Pictures of the cache, those that are whole; none where it is missing or damaged."""
    try:
        data = json.loads(cache.read_bytes())
        if data["schema_version"] != _SCHEMA_VERSION:
            return {}
        return {
            name: fact
            for name, fact in data["pictures"].items()
            if len(fact) == 4 and all(type(value) is int and value > 0 for value in fact)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
