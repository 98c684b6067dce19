"""Files: what is read is right, what is wrong is said in one line, what is written is whole."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scaler.errors import FileError, UserError
from scaler.files import (
    choice_cell,
    integer_cell,
    number_cell,
    read_csv,
    read_json,
    read_text,
    read_toml,
    write_atomic,
)
from scaler.reader import Reader


def refusal(action: Callable[[], object], error: type[UserError] = FileError) -> str:
    """Return the message of the error that the action must end with."""
    with pytest.raises(error) as raised:
        action()
    message = str(raised.value)
    assert "\n" not in message
    return message


BROKEN = {
    "missing": None,
    "empty": b"",
    "blank": b" \n\t\n",
    "binary": b"schema_version = 1\0",
    "not UTF-8": b"name = '\xff'",
    "noise": bytes(range(256)),
}


@pytest.mark.parametrize("read", [read_toml, read_json])
class TestEveryStructuredFile:
    @pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
    def test_a_broken_file_is_refused_by_name(
        self, tmp_path: Path, read: Callable[..., Reader], content: bytes | None
    ) -> None:
        path = tmp_path / "a"
        if content is not None:
            path.write_bytes(content)

        assert refusal(lambda: read(path, schema_version=1)).startswith(f"{path}: ")

    def test_a_folder_is_refused(self, tmp_path: Path, read: Callable[..., Reader]) -> None:
        assert "is a folder" in refusal(lambda: read(tmp_path, schema_version=1))

    def test_a_file_of_another_owner_is_refused(
        self, read: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def denied(*_: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "open", denied)

        assert "cannot be read: permission denied" in refusal(lambda: read("a", schema_version=1))

    def test_a_path_with_a_null_byte_is_refused(self, read: Callable[..., Reader]) -> None:
        assert "cannot be read" in refusal(lambda: read("a\0b", schema_version=1))

    def test_deep_nesting_is_refused(self, tmp_path: Path, read: Callable[..., Reader]) -> None:
        path = tmp_path / "a"
        path.write_text(('{"a": ' if read is read_json else "a = ") + "[" * 100_000)

        assert "nested too deep" in refusal(lambda: read(path, schema_version=1))

    def test_a_newer_schema_says_to_update(self, tmp_path: Path, read: Callable[..., Reader]) -> None:
        path = tmp_path / "a"
        path.write_text('{"schema_version": 2}' if read is read_json else "schema_version = 2")

        message = refusal(lambda: read(path, schema_version=1))

        assert message == f"{path}: schema_version: found 2; this scaler reads 1; update scaler"

    def test_a_file_without_a_schema_version_is_refused(self, tmp_path: Path, read: Callable[..., Reader]) -> None:
        path = tmp_path / "a"
        path.write_text('{"a": 2}' if read is read_json else "a = 2")

        assert "schema_version: missing" in refusal(lambda: read(path, schema_version=1))

    def test_a_byte_order_mark_is_dropped(self, tmp_path: Path, read: Callable[..., Reader]) -> None:
        path = tmp_path / "a"
        text = '{"schema_version": 1}' if read is read_json else "schema_version = 1"
        path.write_text(text, encoding="utf-8-sig")

        assert read(path, schema_version=1).keys == ("schema_version",)


def test_a_huge_file_is_refused_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("scaler.files._MAX_BYTES", 2**20)
    (tmp_path / "a").write_bytes(b"x" * (2**20 + 1))

    assert "larger than 1 MiB" in refusal(lambda: read_text(tmp_path / "a"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = \n", "line 1, column 5: "),
        ("a = 1\na = 2\n", "line 2, column 6: "),
        ("a = [1,", "end of document: "),
        ("a = 2020-13-45", "line 1, column 9: "),
        ("a = " + "9" * 5000, "a whole number of thousands of digits; expected TOML"),
    ],
)
def test_wrong_toml_is_refused_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "a.toml").write_text(text)

    assert expected in refusal(lambda: read_toml(tmp_path / "a.toml", schema_version=1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1,}', "line 1, column "),
        ('{"a": 1, "b"', "the file ends; expected JSON; is the file cut off?"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ("[1, 2]", "the top level is no object"),
        ('{"a": ' + "9" * 5000 + "}", "a whole number of thousands of digits; expected JSON"),
    ],
)
def test_wrong_json_is_refused_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "a.json").write_text(text)

    assert expected in refusal(lambda: read_json(tmp_path / "a.json", schema_version=1))


COLUMNS = {"op": choice_cell(["conv", "add"]), "k": integer_cell(minimum=1), "us": number_cell(minimum=0)}


class TestCsv:
    def read(self, tmp_path: Path, text: str) -> list[tuple[object, ...]]:
        path = tmp_path / "t.csv"
        path.write_text(text)
        return read_csv(path, COLUMNS)

    def test_rows_are_converted(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, "op,k,us\nconv,3,1.5\nadd,1,2e3\n") == [
            ("conv", 3, 1.5),
            ("add", 1, 2000.0),
        ]

    def test_columns_may_stand_in_any_order(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, "us,op,k\n1.5,conv,3\n") == [("conv", 3, 1.5)]

    def test_a_table_may_have_no_rows(self, tmp_path: Path) -> None:
        assert self.read(tmp_path, "op,k,us\n") == []

    def test_line_ends_of_windows_are_welcome(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_bytes(b"op,k,us\r\nconv,3,1.5\r\n\r\n")

        assert read_csv(tmp_path / "t.csv", COLUMNS) == [("conv", 3, 1.5)]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("op,us\nconv,1\n", "line 1: missing: k; expected op, k, us; add it"),
            (
                "op,k,uss\nconv,1,1\n",
                "line 1, column 3: unknown column 'uss'; known: op, k, us; did you mean 'us'?",
            ),
            ("op,k,us,k\nconv,1,1,1\n", "line 1, column 4: column 'k' stands twice"),
            ("op,k,us\nconv,1\n", "line 2: 2 cells; the header has 3"),
            ("op,k,us\nconv,1,1\n\nconv,1,1\n", "line 3: 0 cells; the header has 3"),
            ("op,k,us\nconv,1,1\nconv,x,1\n", "line 3, column 'k': found 'x'; expected a whole number >= 1"),
            ("op,k,us\nconv,0,1\n", "line 2, column 'k': found '0'; expected a whole number >= 1"),
            ("op,k,us\nconv,1,\n", "line 2, column 'us': found ''; expected a finite number >= 0"),
            ("op,k,us\nconv,1,nan\n", "line 2, column 'us': found 'nan'"),
            ("op,k,us\nconv,1,inf\n", "line 2, column 'us': found 'inf'"),
            (
                "op,k,us\nconf,1,1\n",
                "line 2, column 'op': found 'conf'; expected one of conv, add; did you mean 'conv'?",
            ),
            ('op,k,us\nadd,1,1\n"conv,1,1\n', "line 3: unexpected end of data"),
            ('op,k,us\n"co\nnv",1,1\n', "line 2: a line break in a cell"),
        ],
    )
    def test_a_wrong_table_is_refused_with_line_and_column(self, tmp_path: Path, text: str, expected: str) -> None:
        assert expected in refusal(lambda: self.read(tmp_path, text))

    def test_the_first_wrong_cell_of_a_column_is_named(self, tmp_path: Path) -> None:
        rows = "".join(f"conv,{'x' if i in (70, 30) else i + 1},1\n" for i in range(100))

        assert "line 32, column 'k'" in refusal(lambda: self.read(tmp_path, "op,k,us\n" + rows))

    def test_20_000_rows_of_14_columns_are_read_in_a_tenth_of_a_second(self, tmp_path: Path) -> None:
        header = [f"c{i}" for i in range(12)] + ["us", "spread"]
        body = "\n".join(",".join([str(i * j % 977) for j in range(12)] + [f"{i}.5", "0.1"]) for i in range(20_000))
        (tmp_path / "t.csv").write_text(",".join(header) + "\n" + body)
        columns = {name: integer_cell() if name[0] == "c" else number_cell() for name in header}

        seconds = []
        for _ in range(5):
            start = time.process_time()
            rows = read_csv(tmp_path / "t.csv", columns)
            seconds.append(time.process_time() - start)

        assert len(rows) == 20_000
        assert min(seconds) < 0.4  # 0.1 s on an idle machine; room for a busy one


class TestWriteAtomic:
    @pytest.mark.parametrize("content", ["täxt\n", b"\0bytes"])
    def test_content_is_written_as_it_is(self, tmp_path: Path, content: str | bytes) -> None:
        write_atomic(tmp_path / "a", content)

        assert (tmp_path / "a").read_bytes() == (content.encode() if isinstance(content, str) else content)

    def test_an_old_file_is_replaced_and_keeps_its_mode(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_text("old")
        path.chmod(0o640)

        write_atomic(path, "new")

        assert (path.read_text(), path.stat().st_mode & 0o777) == ("new", 0o640)

    def test_a_link_stays_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("old")
        (tmp_path / "link").symlink_to("a")

        write_atomic(tmp_path / "link", "new")

        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "a").read_text() == "new"

    @pytest.mark.parametrize(
        ("place", "error"),
        [
            ("os.fsync", OSError(errno.ENOSPC, "No space left on device")),
            ("pathlib.Path.open", PermissionError(errno.EACCES, "Permission denied")),
            ("pathlib.Path.open", OSError(errno.EROFS, "Read-only file system")),
            ("pathlib.Path.replace", OSError(errno.EIO, "Input/output error")),
        ],
    )
    def test_when_the_system_refuses_the_old_file_stays_whole_and_nothing_else_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: OSError
    ) -> None:
        (tmp_path / "a").write_text("old")

        def refuse(*_: object, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(place, refuse)
            message = refusal(lambda: write_atomic(tmp_path / "a", "new"), UserError)

        assert (error.strerror or "").lower() in message
        assert list(tmp_path.iterdir()) == [tmp_path / "a"]
        assert (tmp_path / "a").read_text() == "old"

    def test_an_interrupt_leaves_nothing_behind(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr("os.fsync", interrupt)

        with pytest.raises(KeyboardInterrupt):
            write_atomic(tmp_path / "a", "new")
        assert list(tmp_path.iterdir()) == []

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        message = refusal(lambda: write_atomic(tmp_path / "no" / "a", ""), UserError)

        assert message.endswith(f"there is no folder {tmp_path / 'no'}; create it")

    def test_a_read_only_file_is_kept(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a").write_text("old")
        monkeypatch.setattr("os.access", lambda *_: False)  # what chmod does for everyone but root

        assert "it is read-only" in refusal(lambda: write_atomic(tmp_path / "a", "new"), UserError)

    @pytest.mark.parametrize("place", [".", os.devnull])
    def test_what_is_no_file_is_never_replaced(self, place: str) -> None:
        assert "it is no file" in refusal(lambda: write_atomic(place, "new"), UserError)

    def test_a_path_with_a_null_byte_is_refused(self) -> None:
        assert "cannot write" in refusal(lambda: write_atomic("a\0b", "new"), UserError)
