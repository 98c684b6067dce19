"""The exception tree: one line, an exit code, and the way out."""

import pickle

import pytest

from scaler.errors import (
    FileError,
    MissingExtraError,
    ScalerError,
    UnsupportedError,
    UsageError,
    UserError,
    listed,
    nearest_name,
    unknown_name,
)

FILE_ERROR = FileError("nano.toml", "modes[2].gpu_mhz", "found 'fast'", "expected a number", "remove the quotes")
ALL = [
    UserError("the disk is full"),
    UsageError("unknown device 'x'"),
    UnsupportedError("no INT8"),
    FILE_ERROR,
    MissingExtraError("training", "torch", "train"),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_every_user_error_is_one_of_ours_and_of_the_user(error: UserError) -> None:
    assert isinstance(error, ScalerError)
    assert isinstance(error, UserError)


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_wrong_usage_exits_with_2_and_every_other_mistake_with_1(error: UserError) -> None:
    assert error.exit_code == (2 if isinstance(error, UsageError) else 1)


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_an_error_survives_the_way_from_a_worker_process(error: UserError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy)) == (type(error), str(error))


def test_a_file_error_says_where_what_what_is_allowed_and_what_to_do() -> None:
    assert str(FILE_ERROR) == ("nano.toml: modes[2].gpu_mhz: found 'fast'; expected a number; remove the quotes")


def test_a_file_error_leaves_out_what_it_does_not_know() -> None:
    assert str(FileError("nano.toml", "", "empty")) == "nano.toml: empty"


def test_a_message_is_one_line_whatever_is_put_into_it() -> None:
    assert str(UserError("first\nsecond\r\n  third")) == "first second third"


def test_a_missing_extra_names_the_command_that_brings_it() -> None:
    error = MissingExtraError("training", "torch", "train")

    assert str(error) == ("training needs torch, which is not installed: pip install 'scaler-nas[train]'")


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known() -> None:
    assert unknown_name("device", "nanoo", ["agx", "nano", "nx"]) == (
        "unknown device 'nanoo'; did you mean 'nano'? known: agx, nano, nx"
    )


def test_a_far_off_name_is_answered_without_a_guess() -> None:
    assert unknown_name("device", "zebra", ["agx", "nx"]) == "unknown device 'zebra'; known: agx, nx"


def test_an_alias_is_guessed_from_but_not_listed() -> None:
    message = unknown_name("device", "xavier-nxx", ["nx"], also=["xavier-nx"])

    assert message == "unknown device 'xavier-nxx'; did you mean 'xavier-nx'? known: nx"


def test_a_name_where_none_is_known_says_so() -> None:
    assert unknown_name("candidate", "a", []) == "unknown candidate 'a'; known: none"


def test_the_nearest_name_is_found_whatever_the_case() -> None:
    assert nearest_name("maxn", ["MAXN", "5W"]) == "MAXN"


def test_a_long_list_is_cut_and_counted() -> None:
    assert listed(str(i) for i in range(1000)).endswith("18, 19, … (1000 in all)")


def test_a_name_of_a_million_letters_does_not_fill_the_screen() -> None:
    assert len(unknown_name("device", "n" * 10**6, ["nano"])) < 200
