"""`scaler doctor`: what is there, what is not and why, and which computer this is."""

import json
import os
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from scaler.cli import doctor, run
from scaler.host import processor_name
from scaler.runtimes.jetson import Jetson, JetsonState
from scaler.runtimes.trtexec import JETPACK_PLACE

NONE = JetsonState(device=None, model="", l4t=None, power_mode=None)
NANO = replace(NONE, device="nano", model="NVIDIA Jetson Nano Developer Kit", l4t="32.7.1")


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder for the user's own data, no Jetson, and no trtexec."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("SCALER_DATA_DIR", str(folder))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("scaler.runtimes.trtexec.JETPACK_PLACE", tmp_path / "none" / JETPACK_PLACE.name)
    monkeypatch.setattr(Jetson, "state", lambda _: NONE)


def checks(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, tuple[bool | None, str]]:
    """What `scaler doctor --json` says, by name."""
    assert run(["doctor", "--json"]) == code
    return {row["check"]: (row["ok"], row["detail"]) for row in json.loads(capsys.readouterr().out)}


def installed(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Make these packages the only optional ones, without a distribution that has their version."""
    monkeypatch.setattr(doctor, "find_spec", lambda name: ModuleSpec(name, None) if name in packages else None)
    monkeypatch.setattr(doctor, "packages_distributions", dict)


def test_measuring_on_this_computer_needs_onnx_and_onnx_runtime(capsys) -> None:
    pytest.importorskip("onnxruntime")
    found = checks(capsys)

    assert found["onnx"][0] is True
    ok, detail = found["onnxruntime"]
    assert ok is True
    assert detail[0].isdigit()
    assert detail.endswith(", measuring on this computer")


def test_absent_parts_say_what_they_are_for_and_how_to_get_them(capsys, monkeypatch) -> None:
    installed(monkeypatch)
    found = checks(capsys)

    assert found["onnxruntime"] == (None, "measuring on this computer: pip install 'scaler-nas[onnxruntime]'")
    assert found["onnx"] == (None, "writing networks as ONNX files: pip install 'scaler-nas[export]'")
    assert "comes with JetPack" in found["tensorrt"][1]
    assert "pip install pycuda" in found["pycuda"][1]
    assert found["trtexec"][0] is None


def test_a_package_that_cannot_be_imported_says_why_in_one_line(capsys, monkeypatch) -> None:
    def broken(module: str) -> None:
        raise OSError(f"libnvinfer.so.8: cannot open shared object file ({module})\nmore")

    installed(monkeypatch, "tensorrt", "pycuda")
    monkeypatch.setattr(doctor, "import_module", broken)
    found = checks(capsys)

    reason = "installed, but it cannot be used: OSError: libnvinfer.so.8: cannot open shared object file"
    assert found["tensorrt"] == (None, f"TensorRT in process: {reason} (tensorrt)")
    assert found["pycuda"] == (None, f"TensorRT in process: {reason} (pycuda.driver)")


def test_a_reason_is_given_even_where_the_error_has_none(monkeypatch) -> None:
    def silent(_: str) -> None:
        raise ImportError

    monkeypatch.setattr(doctor, "import_module", silent)

    assert doctor._failure("tensorrt") == "ImportError: no reason given"


def test_a_package_of_unknown_version_is_still_there(capsys, monkeypatch) -> None:
    installed(monkeypatch, "tensorrt")
    monkeypatch.setattr(doctor, "import_module", lambda _: None)

    assert checks(capsys)["tensorrt"] == (True, "of unknown version, TensorRT in process")


def test_trtexec_is_found_on_the_path_and_where_jetpack_puts_it(capsys, monkeypatch, tmp_path) -> None:
    tool = tmp_path / "bin" / "trtexec"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    expected = (True, f"{tool}, measuring with TensorRT on this computer")
    assert checks(capsys)["trtexec"][0] is None

    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path), str(tool.parent)]))
    assert checks(capsys)["trtexec"] == expected
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("scaler.runtimes.trtexec.JETPACK_PLACE", tool)
    assert checks(capsys)["trtexec"] == expected


def test_this_computer_is_named_by_its_processor(capsys) -> None:
    ok, detail = checks(capsys)["this computer"]

    assert ok is True
    assert detail.startswith(f"{processor_name()}, ")
    assert detail.endswith(": --device host")


@pytest.mark.parametrize(
    ("board", "ok", "said"),
    [
        (NONE, None, "this computer is none"),
        (replace(NONE, model="Raspberry Pi 4 Model B Rev 1.5"), None, "this computer is none"),
        (NANO, True, "this is a Jetson Nano (L4T 32.7.1): --device nano; its CPU alone: --device host"),
        (replace(NANO, l4t=None), True, "this is a Jetson Nano: --device nano; its CPU alone: --device host"),
        (
            replace(NANO, device=None, model="NVIDIA Jetson AGX Thor Developer Kit", l4t="38.2"),
            True,
            "this is a Jetson AGX Thor Developer Kit (L4T 38.2), of which no profile is shipped: write one, "
            "`python -m pydoc scaler.devices` has its keys",
        ),
    ],
    ids=["none", "another board", "known", "release unknown", "without a profile"],
)
def test_a_jetson_is_told_which_device_it_is(capsys, monkeypatch, board, ok, said) -> None:
    monkeypatch.setattr(Jetson, "state", lambda _: board)

    assert checks(capsys)["Jetson"] == (ok, said)


def test_a_jetson_whose_own_profile_is_malformed_is_a_failure(capsys, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(Jetson, "state", lambda _: NANO)
    (tmp_path / "data" / "profiles").mkdir()
    (tmp_path / "data" / "profiles" / "nano.toml").write_text("nonsense")

    ok, detail = checks(capsys, code=1)["Jetson"]
    assert ok is False
    assert "nano.toml" in detail


def test_a_malformed_profile_of_ones_own_is_a_failure(capsys, tmp_path) -> None:
    (tmp_path / "data" / "profiles").mkdir()
    (tmp_path / "data" / "profiles" / "host.toml").write_text('schema_version = 1\nid = "host"')

    ok, detail = checks(capsys, code=1)["device profiles"]
    assert ok is False
    assert "host.toml" in detail


def test_a_missing_base_package_is_a_failure(monkeypatch) -> None:
    assert doctor._package("no-such-package-of-ours") == (
        "no-such-package-of-ours",
        False,
        "not installed, although scaler needs it: pip install scaler-nas",
    )
