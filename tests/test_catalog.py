"""Finding search spaces, tables and profiles by name: the user's before ours, nothing by accident."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scaler import catalog
from scaler.errors import FileError, UsageError, UserError


def refusal(action: Callable[[], object], error: type[UserError] = FileError) -> str:
    """Return the message of the error that the action must end with."""
    with pytest.raises(error) as raised:
        action()
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a user folder, a repository and an installed package, a file in each."""
    for place, names in {
        "user": ["nano", "mine"],
        "repository": ["nano", "nx"],
        "repository/scaler/shipped": ["nano", "nx", "tx2"],
    }.items():
        for name in names:
            file = tmp_path / place / "profiles" / f"{name}.toml"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    (tmp_path / "repository" / "pyproject.toml").touch()
    monkeypatch.setattr(catalog, "_PACKAGE", tmp_path / "repository" / "scaler")
    monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path / "user"))
    return tmp_path


def test_the_names_of_all_places_are_listed_once() -> None:
    assert catalog.names("profiles") == ("mine", "nano", "nx", "tx2")


@pytest.mark.parametrize(
    ("name", "place"), [("nano", "user"), ("nx", "repository"), ("tx2", "repository/scaler/shipped")]
)
def test_the_user_comes_before_the_repository_before_the_package(data: Path, name: str, place: str) -> None:
    assert catalog.find("profiles", name) == data / place / "profiles" / f"{name}.toml"


def test_a_path_is_taken_as_it_stands(data: Path) -> None:
    path = data / "user" / "profiles" / "mine.toml"

    assert catalog.find("profiles", path) == path


def test_a_path_to_nothing_is_refused(data: Path) -> None:
    assert "no such file; expected a device profile" in refusal(lambda: catalog.find("profiles", data / "no.toml"))


def test_a_name_may_have_a_folder(data: Path) -> None:
    path = data / "user" / "latency_tables" / "nano" / "tensorrt-fp16.toml"
    path.parent.mkdir(parents=True)
    path.touch()

    assert catalog.names("latency_tables") == ("nano/tensorrt-fp16",)
    assert catalog.find("latency_tables", "nano/tensorrt-fp16") == path


@pytest.mark.parametrize("name", ["nanoo", "../profiles/nano", "", "nano\0"])
def test_an_unknown_name_is_refused(name: str) -> None:
    message = refusal(lambda: catalog.find("profiles", name), UsageError)

    assert message.startswith("unknown device profile")
    assert message.endswith("known: mine, nano, nx, tx2")


def test_nothing_beside_an_installed_package_is_taken_for_ours(data: Path) -> None:
    (data / "repository" / "pyproject.toml").unlink()

    assert "shipped" in catalog.find("profiles", "nx").parts


def test_a_user_folder_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALER_DATA_DIR", "/nowhere")

    assert "SCALER_DATA_DIR names /nowhere" in refusal(lambda: catalog.names("profiles"), UsageError)


def test_the_user_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCALER_DATA_DIR")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("sys.platform", "linux")

    assert catalog.user_folder() == Path("/home/me/.local/share/scaler")


def test_a_user_without_a_home_still_has_our_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SCALER_DATA_DIR")
    monkeypatch.setattr(Path, "home", homeless)

    assert catalog.names("profiles") == ("nano", "nx", "tx2")
    assert "set SCALER_DATA_DIR" in refusal(catalog.user_folder, UserError)


def test_reading_files_imports_the_standard_library_alone() -> None:
    code = "import sys; before = set(sys.modules); import scaler.devices; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    roots = {name.partition(".")[0] for name in loaded.split()}
    assert roots - set(sys.stdlib_module_names) == {"scaler"}
