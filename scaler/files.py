"""Reading and writing of files: TOML, JSON and CSV in, whole files out.

Whatever is wrong with a file (missing, a folder, unreadable, empty, binary, cut off, nested too deep, of
another schema, with a duplicate key) is a `FileError` of one line, never a traceback. A file is written
beside its place and then renamed, so that the old one is whole until the new one is.
"""

import contextlib
import csv
import io
import json
import os
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from scaler.errors import FileError, UserError, listed, nearest_name
from scaler.reader import Reader, in_range

__all__ = [
    "Reader",
    "choice_cell",
    "integer_cell",
    "make_folder",
    "number_cell",
    "read_csv",
    "read_json",
    "read_text",
    "read_toml",
    "write_atomic",
]

T = TypeVar("T")
N = TypeVar("N", int, float)

_MAX_BYTES = 256 * 2**20  # far above any file of ours, so that a wrong one does not fill the memory
_SHOWN = 60  # letters of a wrong text that a message repeats
_TOO_MANY_DIGITS = "a whole number of thousands of digits"
_INT64 = 2**63 - 1
_LARGEST = sys.float_info.max
_TOML_PLACE = re.compile(r"(.*) \(at (.*)\)", re.DOTALL)


def read_text(path: Path | str) -> str:
    """Return the text of a UTF-8 file; a byte order mark is dropped.

    Raises:
        FileError: There is no such file, or it is a folder, unreadable, too large, binary or blank.
    """
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise FileError(path, "", "no such file", todo="check the path") from None
    except IsADirectoryError:
        raise FileError(path, "", "is a folder", "expected a file", "name a file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise FileError(path, "", f"cannot be read: {_reason(error)}", todo="check the path") from None
    if len(content) > _MAX_BYTES:
        raise FileError(path, "", f"larger than {_MAX_BYTES // 2**20} MiB", todo="name another file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise FileError(path, f"line {line}", "not UTF-8", "expected a text file", "save it as UTF-8") from None
    if "\0" in text:
        raise FileError(path, "", "binary", "expected a text file", "name another file")
    if not text.strip():
        raise FileError(path, "", "empty", todo="write it again or name another file")
    return text


def read_toml(path: Path | str, *, schema_version: int) -> Reader:
    """Return a reader of a TOML file of this schema version.

    Raises:
        FileError: The file is unreadable, not TOML, or of another schema version.
    """
    text = read_text(path)
    try:
        data = tomllib.loads(text)
    except RecursionError:
        raise _too_deep(path) from None
    except tomllib.TOMLDecodeError as error:
        found = _TOML_PLACE.fullmatch(str(error))
        what, where = found.groups() if found else (str(error), "")
        raise FileError(path, where, what[: 2 * _SHOWN], "expected TOML", "correct the file there") from None
    except ValueError:
        raise FileError(path, "", _TOO_MANY_DIGITS, "expected TOML", "correct the file") from None
    return _of_schema(Reader(data, path), schema_version)


def read_json(path: Path | str, *, schema_version: int) -> Reader:
    """Return a reader of a JSON file, a single object, of this schema version.

    Raises:
        FileError: The file is unreadable, not JSON (``NaN`` is not), has a key twice, or is of another schema
            version.
    """
    text = read_text(path)
    try:
        data = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise _too_deep(path) from None
    except json.JSONDecodeError as error:
        where, at_end = f"line {error.lineno}, column {error.colno}", error.pos >= len(text.rstrip())
        what = f"{error.msg}, and the file ends" if at_end else error.msg
        todo = "is the file cut off? write it again" if at_end else "correct the file there"
        raise FileError(path, where, what, "expected JSON", todo) from None
    except _NotJsonError as error:
        raise FileError(path, "", str(error), "expected JSON", "correct the file") from None
    except ValueError:
        raise FileError(path, "", _TOO_MANY_DIGITS, "expected JSON", "correct the file") from None
    if not isinstance(data, dict):
        raise FileError(path, "", "the top level is no object", 'expected {"schema_version": …}', "name another file")
    return _of_schema(Reader(data, path), schema_version)


def read_csv(path: Path | str, columns: Mapping[str, Callable[[str], Any]]) -> list[tuple[Any, ...]]:
    """Return the rows of a CSV file with exactly these columns, in any order.

    A cell holds no line break and no line is blank, so that row ``i`` of the result stands on line ``i + 2``.

    Args:
        path: The file; its first line names the columns.
        columns: Converter of every column. It refuses a text by a ValueError that says what is expected;
            `integer_cell`, `number_cell` and `choice_cell` make such converters, ``str`` takes every text.

    Returns:
        The rows, a tuple each, in the order of ``columns``.

    Raises:
        FileError: The header or a cell is not as expected; the message has line and column.
    """
    header, *rows = _split_csv(path, read_text(path).rstrip("\r\n"))
    _check_header(path, header, columns)
    cells, width = list(chain.from_iterable(rows)), len(header)
    column_of = {name: cells[i::width] for i, name in enumerate(header)}
    converted = [_convert(path, name, column_of[name], convert) for name, convert in columns.items()]
    return list(zip(*converted, strict=True))


def integer_cell(minimum: int = -_INT64, maximum: int = _INT64) -> Callable[[str], int]:
    """Return a converter of CSV cells that are whole numbers in a range."""
    return _bounded_cell(int, in_range("a whole number", minimum, maximum), minimum, maximum)


def number_cell(minimum: float = -_LARGEST, maximum: float = _LARGEST) -> Callable[[str], float]:
    """Return a converter of CSV cells that are finite numbers in a range."""
    return _bounded_cell(float, in_range("a finite number", minimum, maximum), minimum, maximum)


def choice_cell(allowed: Sequence[str]) -> Callable[[str], str]:
    """Return a converter of CSV cells that hold one of these names."""

    def convert(text: str) -> str:
        if text not in allowed:
            nearest = nearest_name(text, allowed)
            guess = f"; did you mean {nearest!r}?" if nearest else ""
            raise ValueError(f"expected one of {listed(allowed)}{guess}")
        return text

    return convert


def write_atomic(path: Path | str, content: str | bytes) -> None:
    """Write a whole file or leave the old one as it was; a link is followed, the file's mode kept.

    The content goes to a file with a passing name in the same folder, is synced to the disk, and takes its
    place by a rename. Nothing but the finished file is left behind.

    Raises:
        UserError: The folder is missing or read-only, the disk is full, or the place is not a file's.
    """
    try:
        target = Path(os.path.realpath(path))
        if target.exists() and not target.is_file():
            raise UserError(f"cannot write {path}: it is no file; name another place")
        if target.exists() and not os.access(target, os.W_OK):
            raise UserError(f"cannot write {path}: it is read-only; name another place")
        passing = target.with_name(f".scaler-{os.urandom(6).hex()}.tmp")
        try:
            _write_through(passing, content.encode() if isinstance(content, str) else content)
            if target.exists():
                passing.chmod(target.stat().st_mode)
            passing.replace(target)
        except BaseException:  # Ctrl-C too
            with contextlib.suppress(OSError):
                passing.unlink()
            raise
    except FileNotFoundError:
        raise UserError(f"cannot write {path}: there is no folder {Path(path).parent}; create it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {_reason(error)}; what was there before is unchanged") from None


def make_folder(path: Path | str) -> None:
    """Make a folder and those above it, unless it is there; make sure that files can be written into it.

    Raises:
        UserError: A file is in the way, or this user may not write there.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot make the folder {path}: {_reason(error)}; name another with --out") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"cannot write into {path}: permission denied; name another folder with --out")


def _write_through(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)


def _too_deep(path: Path | str) -> FileError:
    return FileError(path, "", "nested too deep", todo="name another file")


def _of_schema(reader: Reader, schema_version: int) -> Reader:
    found = reader.integer("schema_version")
    if found != schema_version:
        todo = "update scaler" if found > schema_version else "write the file again with this scaler"
        raise reader.error("schema_version", f"found {found}", f"this scaler reads {schema_version}", todo)
    return reader


class _NotJsonError(Exception):
    """Python's reader would take it, JSON does not."""


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _NotJsonError(f"the key {counts.most_common(1)[0][0][:_SHOWN]!r} stands twice in one object")
    return table


def _refuse_constant(name: str) -> None:
    raise _NotJsonError(f"{name} is no JSON number")


def _split_csv(path: Path | str, text: str) -> list[list[str]]:
    """Return the rows, all as long as the header and each on a line of its own."""
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = list(lines)
    except csv.Error as error:
        raise FileError(path, f"line {lines.line_num}", str(error), "expected CSV", "correct this line") from None
    width = len(rows[0])
    if lines.line_num == len(rows) and set(map(len, rows)) == {width}:
        return rows
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    for number, row in enumerate(lines, 1):
        where, found = f"line {number}", f"{len(row)} cells"
        if lines.line_num != number:
            raise FileError(path, where, "a line break in a cell", todo="write it on one line")
        if len(row) != width:
            todo = "is a comma or a quote missing?"
            raise FileError(path, where, found, f"the header has {width}", todo)
    raise AssertionError("unreachable: no line was at fault")


def _check_header(path: Path | str, header: list[str], columns: Mapping[str, object]) -> None:
    for i, name in enumerate(header, 1):
        where = f"line 1, column {i}"
        if name not in columns:
            nearest = nearest_name(name, columns)
            todo = f"did you mean {nearest!r}?" if nearest else "remove it"
            raise FileError(path, where, f"unknown column {name[:_SHOWN]!r}", f"known: {listed(columns)}", todo)
        if name in header[: i - 1]:
            raise FileError(path, where, f"column {name!r} stands twice", todo="remove one of them")
    missing = [name for name in columns if name not in header]
    if missing:
        raise FileError(path, "line 1", f"missing: {listed(missing)}", f"expected {listed(columns)}", "add it")


def _bounded_cell(parse: Callable[[str], N], expected: str, minimum: N, maximum: N) -> Callable[[str], N]:
    def convert(text: str) -> N:
        try:
            value = parse(text)
        except ValueError:
            raise ValueError(f"expected {expected}") from None
        if not minimum <= value <= maximum:  # true of nan
            raise ValueError(f"expected {expected}")
        return value

    return convert


def _convert(path: Path | str, name: str, column: list[str], convert: Callable[[str], T]) -> Iterator[T]:
    """Convert a column, every different text once: most columns of a table hold few."""
    distinct = list(dict.fromkeys(column))
    known: dict[str, T] = {}
    try:
        known.update(zip(distinct, map(convert, distinct), strict=True))
    except ValueError as error:
        text = distinct[len(known)]  # the first that is not converted
        where = f"line {column.index(text) + 2}, column {name!r}"
        raise FileError(path, where, f"found {text[:_SHOWN]!r}", str(error), "correct this cell") from None
    return map(known.__getitem__, column)
