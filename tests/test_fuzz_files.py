"""Whatever a file holds, its reader returns or refuses it by a `UserError`: never a traceback."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scaler.devices import load_device
from scaler.errors import UserError
from scaler.files import Reader, choice_cell, integer_cell, number_cell, read_csv, read_json, read_toml

PROFILE = (Path(__file__).parent.parent / "profiles" / "nano.toml").read_bytes()
JSON = b'{"schema_version": 1, "a": [1, 2.5e3, true, null], "b": {"c": "\\u00e9", "d": -0.0}}'
CSV = b'op,k,us\nconv,3,1.5\nadd,1,2e3\n"conv",5,.5\n'
COLUMNS = {"op": choice_cell(["conv", "add"]), "k": integer_cell(), "us": number_cell()}
TOKENS = [
    *(
        b"\0",
        b"\xff",
        b"\xed\xa0\x80",
        b'"',
        b"'",
        b"\n",
        b"\r",
        b",",
        b"=",
        b"[",
        b"]",
        b"{",
        b"}",
        b"#",
        b"\\",
        b".",
    ),
    *(b"nan", b"inf", b"-1", b"1e999", b"0x" + b"f" * 9000, b"9" * 5000, b"\\ud800", b"null", b"true", b'""'),
    *(b"1979-05-27", b"25:00:00", b"[" * 2000, b"{" * 2000, b'"""', b"schema_version = 1\n", b"\xe2\x80\xa8"),
]

fuzz = settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # the one file of a test is overwritten
)


def mutations(valid: bytes) -> st.SearchStrategy[bytes]:
    """A valid file with some spans cut out and some tokens put in."""
    edit = st.tuples(st.integers(0, len(valid)), st.integers(0, 12), st.sampled_from([b"", *TOKENS]))
    return st.lists(edit, min_size=1, max_size=4).map(lambda edits: edited(valid, edits))


def edited(content: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for start, length, token in edits:
        content = content[:start] + token + content[start + length :]
    return content


def read_everything(view: Reader) -> None:
    """Ask every getter for every key, as a room with another schema would."""
    plain = (view.string, view.integer, view.number, view.boolean, view.strings, view.integers, view.numbers)
    for key in view.keys:
        for get in (*plain, view.raw, partial(view.choice, allowed=("a", "b")), partial(read_tables, view)):
            refuses_at_most(partial(get, key))
    refuses_at_most(view.finish)


def read_tables(view: Reader, key: str) -> None:
    refuses_at_most(lambda: read_everything(view.table(key)))
    for table in view.tables(key):
        read_everything(table)


def refuses_at_most(action: Callable[[], object]) -> None:
    try:
        action()
    except UserError as error:
        assert len(str(error).splitlines()) == 1
        assert len(str(error)) < 2000


@pytest.mark.parametrize("suffix", ["toml", "json", "csv"])
@given(content=st.binary(max_size=200))
@fuzz
def test_arbitrary_bytes_are_refused_in_one_line(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)

    refuses_at_most(lambda: read(path))


@given(content=mutations(PROFILE))
@fuzz
def test_a_damaged_profile_loads_or_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "nano.toml"
    path.write_bytes(content)

    refuses_at_most(lambda: load_device(path))
    refuses_at_most(lambda: read(path))


@given(content=mutations(JSON))
@fuzz
def test_a_damaged_json_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)

    refuses_at_most(lambda: read(path))


@given(content=mutations(CSV))
@fuzz
def test_a_damaged_csv_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)

    refuses_at_most(lambda: read(path))


def read(path: Path) -> None:
    if path.suffix == ".csv":
        assert all(len(row) == len(COLUMNS) for row in read_csv(path, COLUMNS))
    elif path.suffix == ".json":
        read_everything(read_json(path, schema_version=1))
    else:
        read_everything(read_toml(path, schema_version=1))
