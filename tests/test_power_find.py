"""Which meter a computer has, and what it says where it has none."""

import sys
from pathlib import Path

import pytest
from power_records import lines, plant, reader

from scaler.runtimes import power_rails
from scaler.runtimes.power import Power
from scaler.runtimes.power_fake import FakePower
from scaler.runtimes.power_find import find_power


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is slow to start the pretended tegrastats."""
    monkeypatch.setattr(power_rails, "_FIRST_LINE_SECONDS", 60.0)


def tegrastats(line: str) -> list[str]:
    return [sys.executable, "-u", "-c", f"import time\nprint({line!r})\ntime.sleep(60)"]


class PowerConformance:
    """What every meter must keep; a subclass gives the fixture `power`."""

    def test_its_parts_fit_each_other(self, power: Power):
        assert power.source
        assert power.scope
        assert len(set(power.rails)) == len(power.rails) > 0
        assert set(power.whole) <= set(power.rails)

    def test_it_tells_watts_of_its_rails_only(self, power: Power):
        for _ in range(3):
            watts = power.sample()
            assert set(watts) <= set(power.rails)
            assert all(isinstance(value, float) for value in watts.values())

    def test_closing_twice_does_no_harm(self, power: Power):
        power.close()
        power.close()


class TestFakePower(PowerConformance):
    @pytest.fixture
    def power(self) -> Power:
        return FakePower({"IN": 5.0, "GPU": 2.0})


@pytest.mark.parametrize("tree", ["nano_jetpack4", "tx2_jetpack3", "agx_orin_jetpack5", "orin_nx_jetpack6"])
class TestSensors(PowerConformance):
    @pytest.fixture
    def power(self, tree: str, tmp_path: Path) -> Power:
        found = find_power(plant(tree, tmp_path), tegrastats=(), read=reader())
        assert found.power is not None
        assert found.power.source == "ina3221"
        assert found.note == ""
        return found.power


@pytest.mark.parametrize("tree", ["intel", "amd"])
class TestCounters(PowerConformance):
    @pytest.fixture
    def power(self, tree: str, tmp_path: Path) -> Power:
        found = find_power(plant(tree, tmp_path), tegrastats=())
        assert found.power is not None
        assert found.power.source == "rapl"
        assert found.note == ""
        return found.power


def test_a_computer_without_sensors_says_so_in_one_line(tmp_path: Path):
    power, note = find_power(tmp_path, tegrastats=())
    assert power is None
    assert note.startswith("no power is measured: this system shows neither the sensors of a Jetson")
    assert "virtual machines hide them" in note
    assert "\n" not in note


def test_counters_for_root_alone_say_what_to_do(tmp_path: Path):
    power, note = find_power(plant("intel", tmp_path), tegrastats=(), read=reader(forbidden="energy_uj"))
    assert power is None
    assert note == (
        "no power is measured: the processor's energy counters may be read by root alone: run as root, or "
        f"sudo chmod a+r {tmp_path}/sys/class/powercap/*/energy_uj until the next start"
    )


def test_sensors_for_root_alone_say_what_to_do(tmp_path: Path):
    plant("nano_jetpack4", tmp_path)

    def read(path: Path) -> str:
        return reader(forbidden=path.name if path.name.startswith("in_power") else "")(path)

    power, note = find_power(tmp_path, tegrastats=(), read=read)
    assert power is None
    assert "the INA3221 sensors may be read by root alone: run as root, or sudo chmod a+r" in note
    assert "/6-0040/iio:device0/*_input" in note


def test_tegrastats_helps_where_the_sensors_files_may_not_be_read(tmp_path: Path):
    plant("orin_nx_jetpack6", tmp_path)
    read = reader(forbidden="in1_input")

    def nothing(path: Path) -> str:
        return read(path) if path.name.endswith("_label") else read(path.with_name("in1_input"))

    line = lines()["orin-nano-jetpack6"]
    power, note = find_power(tmp_path, tegrastats=tegrastats(line), read=nothing)
    assert power is not None
    try:
        assert power.source == "tegrastats"
        assert power.whole == ("VDD_IN",)
        assert "may be read by root alone" in note
    finally:
        power.close()


def test_a_tegrastats_without_power_is_ended_and_named(tmp_path: Path):
    power, note = find_power(tmp_path, tegrastats=[sys.executable, "-c", "print('RAM 1/2MB')"])
    assert power is None
    assert note == "no power is measured: tegrastats prints no power rails"
    power, note = find_power(tmp_path, tegrastats=[str(tmp_path / "missing")])
    assert power is None
    assert "tegrastats prints no power rails" in note


def test_an_unknown_board_gives_its_rails_and_the_note(tmp_path: Path):
    plant("orin_nx_jetpack6", tmp_path)
    label = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in1_label"
    label.write_text("VDD_NEW\n", encoding="utf-8")
    power, note = find_power(tmp_path, tegrastats=())
    assert power is not None
    assert power.whole == ()
    assert note == (
        "which of the rails VDD_NEW, VDD_CPU_GPU_CV, VDD_SOC is the whole is not known: rails alone, no total"
    )


def test_sensors_that_are_switched_off_are_told_apart_from_forbidden_ones(tmp_path: Path):
    plant("nano_jetpack4", tmp_path)
    for path in tmp_path.rglob("in_power*_input"):
        path.write_text("[No data available]\n", encoding="utf-8")
    power, note = find_power(tmp_path, tegrastats=(), read=reader())
    assert power is None
    assert "the INA3221 sensors tell nothing" in note
    assert "No data available" in note


def test_sensors_with_nonsense_in_them_are_refused(tmp_path: Path):
    plant("nano_jetpack4", tmp_path)
    for path in tmp_path.rglob("in_power*_input"):
        path.write_text("much\n", encoding="utf-8")
    assert "not a number" in find_power(tmp_path, tegrastats=()).note


def test_this_computer_answers_whatever_it_has():
    power, note = find_power(tegrastats=())
    if power is None:
        assert note.startswith("no power is measured: ")
    else:
        assert power.rails
        power.close()
