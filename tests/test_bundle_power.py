"""Power and memory in bundles: tegrastats beside one more run on the device, energy and memory of a frame at home."""

from pathlib import Path

import numpy as np
import pytest
from bundle_device import NANO_FILES, FakeDevice, tiny_plan

from scaler.profiling.bundle import write_bundle
from scaler.profiling.bundle_import import read_results
from scaler.profiling.bundle_power import NO_RAILS, NO_TEGRASTATS, energy_of
from scaler.profiling.measurement import MemoryMib
from scaler.profiling.plan_file import Plan

WAYS = [True, pytest.param(False, marks=pytest.mark.slow)]
"""With Python, and without it."""
TEGRASTATS = r"""
if [ "$2" = 200 ]; then cat "$HOME/idle"; exit; fi
if [ -f "$HOME/seen" ]; then cat "$HOME/busy"; else : >"$HOME/seen" && cat "$HOME/idle"; fi
exec sleep 60
"""
"""Idle in the beginning; the run has a line every tenth of a second, as if its end were now."""


def line(milliwatts: int) -> str:
    """What a Nano's tegrastats says."""
    return (
        f"RAM 613/3964MB GR3D_FREQ 99%@921 GPU@41C POM_5V_IN {milliwatts}/943 POM_5V_GPU 1000/500 POM_5V_CPU 123/123\n"
    )


def lines(*parts: tuple[int, int]) -> str:
    """Numbers of lines, and the milliwatts in them."""
    return "".join(line(milliwatts) * count for count, milliwatts in parts)


BUSY = lines((30, 2000), (40, 8000), (3, 3000))
"""Three seconds of loading, four of load, the end of the process."""


# --- from lines to energy ---


def test_the_lines_within_the_load_are_its_power():
    energy = energy_of(BUSY, lines((20, 1250)), [20.0] * 200, 20.0)
    assert energy is not None
    assert (energy.source, energy.scope, energy.lost) == ("tegrastats", "module", 0)
    assert 24 <= energy.samples <= 25, "of 40 lines of load half a second in the beginning and one at the end are left"
    assert energy.mj == pytest.approx(8.0 * 20)
    assert energy.idle_w == pytest.approx(1.25)
    assert energy.rails_mj == pytest.approx({"POM_5V_IN": 160, "POM_5V_GPU": 20, "POM_5V_CPU": 0.123 * 20})
    assert energy.notes == ()


def test_a_line_that_was_cut_off_does_not_count():
    cut = lines((40, 8000)) + "RAM 613/3964MB POM_5V_IN 80"
    energy = energy_of(cut, "", [20.0] * 200, 20.0)
    assert energy is not None
    assert energy.mj == pytest.approx(160)
    assert energy.idle_w is None


@pytest.mark.parametrize("text", ["", "RAM 613/3964MB GR3D_FREQ 99%@921 GPU@41C\n" * 40, "nonsense"])
def test_a_device_without_rails_has_no_energy(text):
    assert energy_of(text, lines((20, 1250)), [20.0] * 200, 20.0) is None


def test_a_run_that_was_too_short_gives_no_energy_and_says_so():
    energy = energy_of(lines((12, 8000)), "", [20.0] * 50, 20.0)
    assert energy is not None
    assert energy.mj is None
    assert any("let it run longer" in note for note in energy.notes)


def test_a_run_at_another_speed_says_so():
    energy = energy_of(BUSY, "", [22.0] * 190, 20.0)
    assert energy is not None
    assert energy.mj == pytest.approx(8.0 * 22)
    assert energy.notes == ("the energy block ran 10 % slower than the timed ones",)


# --- from the device ---


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return tiny_plan(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def bundle(plan, tmp_path_factory) -> Path:
    return write_bundle(plan, tmp_path_factory.mktemp("bundle") / "bundle.tar.gz").path


@pytest.fixture(scope="module")
def memory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("memory")


@pytest.fixture
def device(bundle, memory, tmp_path) -> FakeDevice:
    device = FakeDevice(tmp_path / "device", memory).unpack(bundle)
    device.files(NANO_FILES)
    (device.home / "idle").write_text(lines((20, 1250)))
    (device.home / "busy").write_text(BUSY)
    return device


@pytest.mark.parametrize("python", WAYS)
def test_power_comes_from_one_more_run_which_is_not_the_timed_one(device, python):
    device.tool("tegrastats", TEGRASTATS)
    device.python = device.python if python else None
    assert device.measure("--power-seconds", "4").code == 0
    (measurement,) = read_results(device.archive).measurements
    energy = measurement.energy
    assert energy is not None
    usual = float(np.median(measurement.rounds[0].network_ms))
    assert energy.frame_ms == pytest.approx(usual, rel=0.02)
    assert energy.mj == pytest.approx(8.0 * energy.frame_ms)
    assert energy.idle_w == pytest.approx(1.25)
    assert not any("no power" in note for note in measurement.conditions.notes)
    assert measurement.error == ""
    beside = [call for call in device.calls if any("times-power.json" in option for option in call)]
    assert len(beside) == 1
    assert "--duration=4" in beside[0]


@pytest.mark.slow
@pytest.mark.parametrize("python", [True, False])
def test_a_run_beside_tegrastats_that_fails_leaves_the_times(device, python):
    device.tool("tegrastats", TEGRASTATS)
    device.python = device.python if python else None
    device.wrapper = 'case "$*" in *times-power.json*) echo "[E] gone"; exit 1 ;; esac'
    assert device.measure().code == 0
    (measurement,) = read_results(device.archive).measurements
    assert measurement.energy is None
    assert measurement.rounds
    assert measurement.layers
    notes = measurement.conditions.notes
    assert any("timing the network beside tegrastats: trtexec failed (code 1)" in note for note in notes)
    assert NO_TEGRASTATS in notes


@pytest.mark.parametrize("python", WAYS)
def test_without_tegrastats_there_is_a_note_and_the_memory_alone(device, python):
    device.python = device.python if python else None
    assert device.measure().code == 0
    (measurement,) = read_results(device.archive).measurements
    assert measurement.energy is None
    assert NO_TEGRASTATS in measurement.conditions.notes
    assert measurement.memory_mib == MemoryMib(running=266, building=125)
    assert not any("times-power" in option for call in device.calls for option in call)


@pytest.mark.slow
def test_a_tegrastats_without_rails_is_told_apart(device):
    (device.home / "idle").write_text("RAM 613/3964MB GPU@41C\n" * 9)
    (device.home / "busy").write_text("RAM 613/3964MB GPU@41C\n" * 60)
    device.tool("tegrastats", TEGRASTATS)
    assert device.measure().code == 0
    (measurement,) = read_results(device.archive).measurements
    assert measurement.energy is None
    assert NO_RAILS in measurement.conditions.notes
