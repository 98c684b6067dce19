"""Which runtime speaks for a device on the computer at hand; a Jetson is played by a fake trtexec."""

import sys
from pathlib import Path

import pytest

from scaler.errors import UserError
from scaler.export.onnx_model import to_onnx, write_onnx
from scaler.profiling.machine import machine_for, setting
from scaler.profiling.measure import Effort
from scaler.profiling.plan import make_plan
from scaler.profiling.run import run
from scaler.runtimes import jetson

FAKE = Path(__file__).parent / "fake_trtexec.py"
EFFORT = Effort(rounds=2, quiet_seconds=0.0, block_seconds=0.0, reference_seconds=0.0, patience=0.0, tries=1,
                profile_seconds=0.0, profile_runs=2)  # fmt: skip


@pytest.fixture
def nano(tmp_path, monkeypatch):
    """A computer that takes itself for a Nano; it does not tell its power mode."""
    program = tmp_path / "bin" / "trtexec"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(jetson, "detect", lambda *_: "nano")


def test_a_jetson_that_does_not_tell_its_mode_is_believed(nano):
    machine = machine_for(setting("nano"))

    assert machine.runtime.name == "tensorrt"
    assert machine.runtime.conditions().power_mode == "unknown"


def test_another_jetson_than_asked_for_is_refused(nano):
    with pytest.raises(UserError, match="this computer is nano, not nx"):
        machine_for(setting("nx"))


def test_a_computer_that_is_no_jetson_is_sent_to_the_bundle(monkeypatch):
    monkeypatch.setattr(jetson, "detect", lambda *_: None)

    with pytest.raises(UserError, match="scaler profile bundle --device nano"):
        machine_for(setting("nano"))


@pytest.mark.slow
def test_a_run_on_a_jetson_goes_on_where_it_was(nano, tmp_path):
    plan = make_plan("yolo-ret", "voc", "nano", "MAXN", "tensorrt", "fp16", 1, 13, networks=2)
    first = run(plan, machine_for(setting("nano")).runtime, tmp_path / "work", effort=EFFORT, settle_seconds=0)
    assert [m.error for m in first] == ["", ""]

    again = run(plan, machine_for(setting("nano")).runtime, tmp_path / "work", effort=EFFORT, settle_seconds=0)
    assert again == first


def test_a_model_can_be_prepared_on_it(nano, tmp_path):
    from scaler.models.detectors.yolo_ret import YoloRetConfig, build

    write_onnx(to_onnx(build(YoloRetConfig(backbone="mobilenetv2", resolution=160))), tmp_path / "m.onnx")
    with machine_for(setting("nano")).runtime.prepare(tmp_path / "m.onnx") as session:
        assert len(session.time(3)) == 3
