"""A typed view of a table that came from a file: the whole schema language of scaler's files.

A `Reader` knows its file and its dotted path, so that every refusal names the place, what was found, what is
allowed and what to do. Getters take a default for an optional key; without one the key is required. `finish`
refuses the keys that nobody asked for::

    reader = read_toml(path, schema_version=1)
    device = Device(name=reader.string("name"), memory_gib=reader.number("memory_gib", minimum=0.5))
    reader.finish()
"""

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from scaler.errors import FileError, listed, nearest_name

__all__ = ["Reader", "in_range"]

T = TypeVar("T")
D = TypeVar("D")
C = TypeVar("C", bound=str)

_REQUIRED: Any = object()  # stands for "no default"; Any, so that `str | D` is then plain `str`
_INT64 = 2**63 - 1  # the integers of TOML, numpy and SQLite
_LARGEST = sys.float_info.max
_SHOWN = 60
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")


class _RefusedError(Exception):
    """The value at a path is not of the kind that was asked for."""

    def __init__(self, path: str, found: str, todo: str) -> None:
        super().__init__(path, found, todo)
        self.path, self.found, self.todo = path, found, todo
        self.expected = ""


@dataclass(frozen=True, slots=True)
class _Kind(Generic[T]):
    expected: str  # "a number >= 0"
    convert: Callable[[object, str], T]  # (value, its path); raises _RefusedError

    def __call__(self, value: object, path: str) -> T:
        try:
            return self.convert(value, path)
        except _RefusedError as refused:
            refused.expected = refused.expected or self.expected  # what the item should be, not its list
            raise


class Reader:
    """A table of a file, read key by key.

    Attributes:
        file: The file, as the user named it.
        where: Dotted path of this table in the file; empty for the top level.
    """

    def __init__(self, data: Mapping[str, object], file: Path | str, where: str = "") -> None:
        self.file, self.where = file, where
        self._data = data
        self._asked: dict[str, None] = {}
        self._children: dict[int, Reader] = {}  # by id of the data, so that a table read twice is one reader

    def string(self, key: str, default: D = _REQUIRED) -> str | D:
        """Return a text that is not blank."""
        return self._get(key, _STRING, default)

    def choice(self, key: str, allowed: Sequence[C], default: D = _REQUIRED) -> C | D:
        """Return one of the allowed names."""
        return self._get(key, _choice(allowed), default)

    def integer(self, key: str, default: D = _REQUIRED, *, minimum: int = -_INT64, maximum: int = _INT64) -> int | D:
        """Return a whole number; neither ``true`` nor ``3.0`` is one."""
        return self._get(key, _integer(minimum, maximum), default)

    def number(
        self, key: str, default: D = _REQUIRED, *, minimum: float = -math.inf, maximum: float = math.inf
    ) -> float | D:
        """Return a finite number; whole numbers are welcome, ``true`` and ``nan`` are not."""
        return self._get(key, _number(minimum, maximum), default)

    def boolean(self, key: str, default: D = _REQUIRED) -> bool | D:
        """Return true or false."""
        return self._get(key, _BOOLEAN, default)

    def strings(self, key: str, default: D = _REQUIRED, *, at_least: int = 0) -> tuple[str, ...] | D:
        """Return a list of texts."""
        return self._get(key, _list_of(_STRING, at_least), default)

    def choices(
        self, key: str, allowed: Sequence[C], default: D = _REQUIRED, *, at_least: int = 0
    ) -> tuple[C, ...] | D:
        """Return a list of allowed names."""
        return self._get(key, _list_of(_choice(allowed), at_least), default)

    def integers(
        self,
        key: str,
        default: D = _REQUIRED,
        *,
        minimum: int = -_INT64,
        maximum: int = _INT64,
        at_least: int = 0,
    ) -> tuple[int, ...] | D:
        """Return a list of whole numbers."""
        return self._get(key, _list_of(_integer(minimum, maximum), at_least), default)

    def numbers(
        self,
        key: str,
        default: D = _REQUIRED,
        *,
        minimum: float = -math.inf,
        maximum: float = math.inf,
        at_least: int = 0,
    ) -> tuple[float, ...] | D:
        """Return a list of finite numbers."""
        return self._get(key, _list_of(_number(minimum, maximum), at_least), default)

    def table(self, key: str, default: D = _REQUIRED) -> "Reader | D":
        """Return the table under a key; `finish` of this reader also finishes it."""
        return self._get(key, _Kind("a table", self._child), default)

    def tables(self, key: str, default: D = _REQUIRED, *, at_least: int = 0) -> "tuple[Reader, ...] | D":
        """Return the list of tables under a key; `finish` of this reader also finishes them."""
        return self._get(key, _list_of(_Kind("a table", self._child), at_least), default)

    def raw(self, key: str, default: D = _REQUIRED) -> object | D:
        """Return a value as the parser gave it, unchecked: a number may be infinite, a text blank."""
        return self._get(key, _Kind("a value", lambda value, _: value), default)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of this table in file order, for tables whose keys the user names."""
        return tuple(self._data)

    def error(self, key: str, what: str, allowed: str = "", todo: str = "") -> FileError:
        """Compose the error for a key of this table, or for the whole table with an empty key."""
        return FileError(self.file, self._path(key), what, allowed, todo)

    def finish(self) -> None:
        """Refuse the keys that nobody asked for, here and in the tables read from here.

        Raises:
            FileError: A key is unknown; the message has the nearest known one.
        """
        for key in self._data:
            if key not in self._asked:
                nearest = nearest_name(key, self._asked)
                todo = f"did you mean {nearest!r}?" if nearest else "remove it"
                raise self.error(_quoted(key), "unknown key", f"known: {listed(sorted(self._asked))}", todo)
        for child in self._children.values():
            child.finish()

    def _get(self, key: str, kind: _Kind[T], default: D) -> T | D:
        self._asked[key] = None
        if key not in self._data:
            if default is _REQUIRED:
                raise self.error(_quoted(key), "missing", f"expected {kind.expected}", "add it")
            return default
        try:
            return kind(self._data[key], _quoted(key))
        except _RefusedError as refused:
            found, expected = f"found {refused.found}", f"expected {refused.expected}"
            raise self.error(refused.path, found, expected, refused.todo) from None

    def _child(self, value: object, path: str) -> "Reader":
        if not isinstance(value, dict):
            raise _RefusedError(path, _shown(value), "write a table here")
        return self._children.setdefault(id(value), Reader(value, self.file, self._path(path)))

    def _path(self, key: str) -> str:
        return f"{self.where}.{key}" if self.where and key else self.where or key


def _string(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise _RefusedError(path, _shown(value), "put the text in quotes")
    if not value.strip():
        raise _RefusedError(path, "a blank text", "fill it in or remove the key")
    if "\0" in value or not _is_unicode(value):
        raise _RefusedError(path, _shown(value), "remove the characters that are no text")
    return value


def _boolean(value: object, path: str) -> bool:
    if not isinstance(value, bool):
        raise _RefusedError(path, _shown(value), "write true or false, without quotes")
    return value


_STRING = _Kind("a text", _string)
_BOOLEAN = _Kind("true or false", _boolean)


def _choice(allowed: Sequence[C]) -> _Kind[C]:
    def convert(value: object, path: str) -> C:
        for name in allowed:
            if value == name:
                return name
        nearest = nearest_name(value, allowed) if isinstance(value, str) else None
        todo = f"did you mean {nearest!r}?" if nearest else "choose one of these"
        raise _RefusedError(path, _shown(value), todo)

    return _Kind(f"one of {listed(allowed)}", convert)


def _integer(minimum: int, maximum: int) -> _Kind[int]:
    def convert(value: object, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _RefusedError(path, _shown(value), "write a whole number, without quotes or a point")
        if not minimum <= value <= maximum:
            raise _RefusedError(path, _shown(value), "choose a value in this range")
        return value

    return _Kind(in_range("a whole number", minimum, maximum), convert)


def _number(minimum: float, maximum: float) -> _Kind[float]:
    def convert(value: object, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _RefusedError(path, _shown(value), "write a number, without quotes")
        if not abs(value) <= _LARGEST:  # nan, the infinities, and integers that no float can hold
            raise _RefusedError(path, _shown(value), "write a finite number")
        if not minimum <= value <= maximum:
            raise _RefusedError(path, _shown(value), "choose a value in this range")
        return float(value)

    return _Kind(in_range("a number", minimum, maximum), convert)


def _list_of(kind: _Kind[T], at_least: int) -> _Kind[tuple[T, ...]]:
    def convert(value: object, path: str) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise _RefusedError(path, _shown(value), "put it in square brackets")
        if len(value) < at_least:
            raise _RefusedError(path, f"{len(value)} of them", "add what is missing")
        return tuple(kind(item, f"{path}[{i}]") for i, item in enumerate(value))

    length = f" of at least {at_least}" if at_least else ""
    return _Kind(f"a list{length}, each {kind.expected}", convert)


def in_range(kind: str, minimum: float, maximum: float) -> str:
    """Return "a number from 0 to 1" and the like; bounds beyond 64 bits go without saying."""
    low, high = (abs(bound) < _INT64 for bound in (minimum, maximum))
    if low and high:
        return f"{kind} from {minimum} to {maximum}"
    return f"{kind} >= {minimum}" if low else f"{kind} <= {maximum}" if high else kind


def _quoted(key: str) -> str:
    """Return a key as it stands in a dotted path: quoted and cut where it is not a plain name."""
    return key if _BARE_KEY.fullmatch(key) else _cut(repr(key))


def _shown(value: object) -> str:
    """Return a value as an error names it: short, on one line, in the words of TOML and JSON."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() if abs(value) > _INT64:
            return "a whole number of more than 64 bits"  # repr refuses those of more than 4300 digits
        case int() | float() | str():
            return _cut(repr(value))
        case dict() | list():
            return "a table" if isinstance(value, dict) else "a list"
        case _:
            return "a date or time"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _is_unicode(text: str) -> bool:
    """Tell texts with lone surrogates, which JSON lets through and no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
