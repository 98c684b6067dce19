"""The rails of Jetsons: recorded lines of tegrastats, trees of the system's files, a pretended tegrastats."""

import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from power_records import lines, plant, reader

from scaler.runtimes import power_rails
from scaler.runtimes.power_rails import (
    WHOLE_MODULES,
    Ina3221Power,
    TegrastatsPower,
    find_rails,
    parse_rails,
    whole_module,
)

XAVIER = ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")
ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
THOR = ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is slow to start the pretended tegrastats."""
    monkeypatch.setattr(power_rails, "_FIRST_LINE_SECONDS", 60.0)


# --- lines of tegrastats ---


@pytest.mark.parametrize(
    ("board", "whole", "total"),
    [
        ("nano", ("POM_5V_IN",), 0.9),
        ("tx2-jetpack3", ("VDD_IN",), 3.14),
        ("tx2-jetpack4", ("VDD_IN",), 1.649),
        ("agx-xavier-jetpack4", XAVIER, 0.463 + 0.618 + 2.936 + 0.309 + 3.306),
        ("agx-xavier-jetpack5", XAVIER, 0.467 + 0.467 + 1.245 + 0.311 + 2.768),
        ("orin-nano-jetpack6", ("VDD_IN",), 5.263),
        ("agx-orin-jetpack5", ORIN, 2.34 + 0.39 + 4.025),
        ("agx-orin-jetpack6", ORIN, 3.124 + 0.72 + 5.14),
        ("agx-orin-jetpack7", ORIN, 5.139 + 3.268 + 5.5),
        ("thor-jetpack7", THOR, 3.561 + 7.91 + 7.62),
    ],
)
def test_the_whole_module_of_every_board(board: str, whole: tuple[str, ...], total: float):
    watts = parse_rails(lines()[board])
    assert whole_module(watts) == whole
    assert sum(watts[rail] for rail in whole) == pytest.approx(total)


def test_every_recorded_board_is_tested_above():
    assert len(lines()) == 10


@pytest.mark.parametrize("board", ["nano", "tx2-jetpack3", "tx2-jetpack4", "orin-nano-jetpack6"])
def test_a_rail_that_is_the_whole_holds_all_others(board: str):
    watts = dict(parse_rails(lines()[board]))
    (whole,) = whole_module(watts)
    assert watts.pop(whole) >= sum(watts.values())


def test_the_value_of_now_counts_not_the_average():
    assert parse_rails(lines()["nano"]) == {"POM_5V_IN": 0.9, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.123}


def test_memory_swap_and_channels_without_a_rail_are_no_rails():
    names = set(parse_rails(lines()["agx-orin-jetpack5"]))
    assert names == {*ORIN, "VDDQ_VDD2_1V8AO"}


def test_the_input_of_thors_developer_kit_is_a_rail_but_not_the_module():
    assert parse_rails(lines()["thor-jetpack7"])["VIN"] == pytest.approx(26.686)
    assert parse_rails("VDD_GPU 5517mW VDD_CPU_SOC_MSS 7484mW")["VDD_GPU"] == pytest.approx(5.517), "without average"
    assert parse_rails("VDD_GPU -392mW/-392mW") == {"VDD_GPU": pytest.approx(-0.392)}, "offset of a sensor at idle"


@given(st.text())
def test_any_text_is_parsed_without_error(text: str):
    assert all(abs(watts) < 1e6 for watts in parse_rails(text).values())


def test_no_rail_counts_twice_in_a_whole():
    assert all(len(set(whole)) == len(whole) for whole in WHOLE_MODULES)
    assert whole_module(["VDD_X", "VDD_GPU"]) == ()


# --- the system's files ---


@pytest.mark.parametrize(
    ("tree", "rails", "whole", "total"),
    [
        ("nano_jetpack4", 3, ("POM_5V_IN",), 0.9),
        ("tx2_jetpack3", 7, ("VDD_IN",), 3.14),
        ("orin_nx_jetpack6", 3, ("VDD_IN",), 4.976 * 1.192),
        ("agx_orin_jetpack5", 4, ORIN, 12.008 * 0.28 + 12.008 * 0.04 + 4.968 * 0.98),
        ("thor_jetpack7", 3, THOR, 12.04 * 0.64 + 12.04 * 0.96 + 5.088 * 1.74),
    ],
)
def test_the_sensors_of_every_generation(tree: str, rails: int, whole: tuple[str, ...], total: float, tmp_path: Path):
    read = reader()
    power = Ina3221Power(find_rails(plant(tree, tmp_path), read), read)
    watts = power.sample()
    assert len(power.rails) == rails
    assert set(watts) == set(power.rails)
    assert power.whole == whole
    assert sum(watts[rail] for rail in whole) == pytest.approx(total)
    assert (power.source, power.scope) == ("ina3221", "module")
    power.close()
    power.close()


def test_the_rails_keep_the_order_of_their_addresses(tmp_path: Path):
    rails = find_rails(plant("tx2_jetpack3", tmp_path))
    assert [rail.name for rail in rails][:4] == ["VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI", "VDD_IN"]


def test_the_sum_of_the_shunts_and_what_is_not_connected_are_no_rails(tmp_path: Path):
    names = {rail.name for rail in find_rails(plant("agx_orin_jetpack5", tmp_path), reader())}
    assert names == {*ORIN, "VDDQ_VDD2_1V8AO"}


def test_links_to_devices_are_followed_as_the_kernel_lays_them(tmp_path: Path):
    real = plant("orin_nx_jetpack6", tmp_path / "real") / "sys/bus/i2c/drivers/ina3221/1-0040"
    drivers = tmp_path / "sys/bus/i2c/drivers/ina3221"
    drivers.mkdir(parents=True)
    (drivers / "1-0040").symlink_to(real, target_is_directory=True)
    assert [rail.name for rail in find_rails(tmp_path)] == ["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"]


def test_a_rail_that_fails_is_absent_and_the_others_stay(tmp_path: Path):
    plant("orin_nx_jetpack6", tmp_path)
    power = Ina3221Power(find_rails(tmp_path))
    folder = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    (folder / "curr2_input").write_text("\n", encoding="utf-8")
    (folder / "in3_input").unlink()
    assert power.sample() == {"VDD_IN": pytest.approx(4.976 * 1.192)}


def test_a_system_without_sensors_has_no_rails(tmp_path: Path):
    assert find_rails(tmp_path) == ()


def test_a_label_that_cannot_be_read_is_no_rail(tmp_path: Path):
    rails = find_rails(plant("nano_jetpack4", tmp_path), reader(forbidden="rail_name_1"))
    assert [rail.name for rail in rails] == ["POM_5V_IN", "POM_5V_CPU"]


# --- a pretended tegrastats ---


def command(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", f"import time, sys\n{code}"]


def test_tegrastats_is_read_line_by_line_until_it_is_closed(tmp_path: Path):
    go = tmp_path / "go"
    code = f"""
from pathlib import Path
print("VDD_IN 5000mW/5000mW VDD_SOC 1000mW/1000mW")
while not Path({str(go)!r}).exists():
    time.sleep(0.005)
print("VDD_IN 6000mW/5500mW VDD_SOC 1200mW/1100mW")
sys.stdout.write("VDD_IN 7")
sys.stdout.flush()
time.sleep(60)
"""
    power = TegrastatsPower(command(code))
    try:
        assert power.rails == ("VDD_IN", "VDD_SOC")
        assert power.whole == ("VDD_IN",)
        assert power.sample() == {}, "nothing new"
        go.touch()
        watts = power.sample()
        until = time.monotonic() + 300
        while not watts and time.monotonic() < until:
            watts = power.sample()
        assert watts == {"VDD_IN": 6.0, "VDD_SOC": 1.2}
        assert power.sample() == {}, "half a line is none"
    finally:
        power.close()
        power.close()
    assert power.sample() == {}


def test_a_tegrastats_that_prints_no_power_has_no_rails():
    power = TegrastatsPower(command("print('RAM 1/2MB GR3D_FREQ 0%')"))
    assert power.rails == power.whole == ()
    power.close()


def test_a_tegrastats_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scaler.runtimes.power_rails._STOP_SECONDS", 0.05)
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('VDD_IN 5mW/5mW')\ntime.sleep(60)"
    power = TegrastatsPower(command(code))
    assert power.rails == ("VDD_IN",)
    power.close()
    assert power.sample() == {}


def test_a_tegrastats_that_is_not_there_is_an_error_of_the_system(tmp_path: Path):
    with pytest.raises(OSError, match="no-such-tool"):
        TegrastatsPower([str(tmp_path / "no-such-tool")])
