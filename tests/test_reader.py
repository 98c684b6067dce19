"""The typed view of a table: the right value, or one line that says what is wrong and where."""

from collections.abc import Callable

import pytest

from scaler.errors import FileError
from scaler.reader import Reader


def refusal(action: Callable[[], object]) -> str:
    """Return the message of the error that the action must end with."""
    with pytest.raises(FileError) as raised:
        action()
    message = str(raised.value)
    assert "\n" not in message
    return message


def reader(**data: object) -> Reader:
    return Reader(data, "space.toml")


def test_a_value_of_the_right_kind_is_returned() -> None:
    view = reader(a="x", b=3, c=2, d=True, e=["x", "y"], f=[1, 2.5], g=[1, 2], h=["n"])

    assert view.string("a") == "x"
    assert view.integer("b", minimum=1, maximum=3) == 3
    assert view.number("c") == 2.0
    assert view.boolean("d") is True
    assert view.strings("e") == ("x", "y")
    assert view.numbers("f") == (1.0, 2.5)
    assert view.integers("g") == (1, 2)
    assert view.choices("h", ("n", "m")) == ("n",)
    assert view.raw("f") == [1, 2.5]


def test_a_missing_key_has_its_default() -> None:
    assert reader().string("name", None) is None


def test_a_missing_key_without_a_default_is_refused() -> None:
    message = refusal(lambda: reader().string("name"))

    assert message == "space.toml: name: missing; expected a text; add it"


def test_a_refusal_names_the_place_in_tables_of_tables() -> None:
    view = reader(devices=[{"modes": [{}, {}, {"gpu_mhz": "fast"}]}])
    mode = view.tables("devices")[0].tables("modes")[2]

    message = refusal(lambda: mode.number("gpu_mhz", minimum=1))

    assert message == (
        "space.toml: devices[0].modes[2].gpu_mhz: found 'fast'; expected a number >= 1; write a number, without quotes"
    )


def test_a_refusal_in_a_list_names_the_item() -> None:
    message = refusal(lambda: reader(widths=[0.5, "1"]).numbers("widths"))

    assert message.startswith("space.toml: widths[1]: found '1'; expected a number;")


def test_a_strange_key_is_quoted_in_the_path() -> None:
    message = refusal(lambda: reader(**{"a key\n": 1}).string("a key\n"))

    assert message.startswith(r"space.toml: 'a key\n': found 1;")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400], ids=repr)
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    assert "write a finite number" in refusal(lambda: reader(a=value).number("a"))


@pytest.mark.parametrize("value", [True, False])
def test_a_boolean_is_no_number(value: bool) -> None:
    assert f"found {str(value).lower()}" in refusal(lambda: reader(a=value).integer("a"))
    assert f"found {str(value).lower()}" in refusal(lambda: reader(a=value).number("a"))


@pytest.mark.parametrize("value", [3.0, "3", None, [3], {"a": 3}])
def test_only_a_whole_number_is_an_integer(value: object) -> None:
    assert "expected a whole number" in refusal(lambda: reader(a=value).integer("a"))


@pytest.mark.parametrize("value", [2**63, 1 << 20_000], ids=["2**63", "1 << 20_000"])
def test_an_integer_beyond_64_bits_is_refused(value: int) -> None:
    assert "more than 64 bits" in refusal(lambda: reader(a=value).integer("a"))


@pytest.mark.parametrize("value", [0, 5])
def test_a_number_out_of_range_is_refused_with_the_range(value: int) -> None:
    view = reader(a=value)

    assert "expected a whole number from 1 to 4" in refusal(lambda: view.integer("a", minimum=1, maximum=4))
    assert "expected a number from 0.5 to 4.5" in refusal(lambda: view.number("a", minimum=0.5, maximum=4.5))


@pytest.mark.parametrize("value", ["", "  ", "a\0b", "\ud800", 3, None])
def test_a_text_is_not_blank_and_can_be_written(value: object) -> None:
    assert "space.toml: a: found" in refusal(lambda: reader(a=value).string("a"))


def test_a_wrong_choice_is_answered_with_the_nearest() -> None:
    message = refusal(lambda: reader(a="fp61").choice("a", ("fp32", "fp16")))

    assert message == "space.toml: a: found 'fp61'; expected one of fp32, fp16; did you mean 'fp16'?"


def test_a_list_that_is_too_short_is_refused() -> None:
    assert "a list of at least 1, each a table" in refusal(lambda: reader(modes=[]).tables("modes", at_least=1))


@pytest.mark.parametrize("value", [1, "x", [], [1], None])
def test_what_is_no_table_is_refused(value: object) -> None:
    assert "expected a table" in refusal(lambda: reader(gpu=value).table("gpu"))


def test_an_unknown_key_is_refused_with_the_nearest_known() -> None:
    view = reader(gpu_mhz=1, gpu_mzh=2)
    view.number("gpu_mhz")

    message = refusal(view.finish)

    assert message == "space.toml: gpu_mzh: unknown key; known: gpu_mhz; did you mean 'gpu_mhz'?"


def test_finish_looks_into_the_tables_that_were_read() -> None:
    view = reader(gpu={"cores": 1})
    view.table("gpu")

    assert "gpu.cores: unknown key" in refusal(view.finish)


def test_a_table_that_is_read_twice_is_one_table() -> None:
    view = reader(gpu={"sms": 1, "mhz": 2})
    view.table("gpu").integer("sms")
    view.table("gpu").integer("mhz")

    view.finish()


def test_an_optional_key_that_is_absent_is_known_all_the_same() -> None:
    view = reader(note="x")
    view.string("notes", None)

    assert "did you mean 'notes'?" in refusal(view.finish)


def test_a_long_value_is_cut_in_the_message() -> None:
    assert len(refusal(lambda: reader(a="x" * 10**6).number("a"))) < 200
