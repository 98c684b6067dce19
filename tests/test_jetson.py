"""A Jetson asked as a whole: files in a folder, outputs of tools from `test_jetson_text`."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from test_jetson_text import CONFIGURATION, NANO, NANO_AS_ROOT, NANO_CLOCKS

from scaler.runtimes.jetson import Jetson, detect, run_tool
from scaler.runtimes.jetson_text import Clock

# --- the whole system ---


class Board:
    """The files and tools of a board, in a folder."""

    def __init__(self, root: Path, outputs: dict[str, str] | None = None) -> None:
        self.root = root
        self.outputs = outputs or {}
        self.asked: list[str] = []

    def write(self, files: dict[str, str]) -> "Board":
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        return self

    def run(self, command: Sequence[str]) -> str:
        self.asked.append(command[0])
        return self.outputs.get(command[0], "")

    def jetson(self) -> Jetson:
        return Jetson(self.root, self.run)


def zone(number: int, kind: str, millidegrees: str) -> dict[str, str]:
    folder = f"sys/class/thermal/thermal_zone{number}"
    return {f"{folder}/type": f"{kind}\n", f"{folder}/temp": f"{millidegrees}\n"}


def cooling(number: int, kind: str, state: int) -> dict[str, str]:
    folder = f"sys/class/thermal/cooling_device{number}"
    return {f"{folder}/type": f"{kind}\n", f"{folder}/cur_state": f"{state}\n"}


def gpu_clock(name: str, current: int, low: int, high: int) -> dict[str, str]:
    folder = f"sys/class/devfreq/{name}"
    return {f"{folder}/{part}_freq": f"{hz}\n" for part, hz in (("cur", current), ("min", low), ("max", high))}


def cpu_clock(number: int, current: int, low: int, high: int) -> dict[str, str]:
    folder = f"sys/devices/system/cpu/cpu{number}/cpufreq"
    return {
        f"{folder}/scaling_{part}_freq": f"{khz}\n" for part, khz in (("cur", current), ("min", low), ("max", high))
    }


NANO_FILES = {
    "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref",
    "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,jetson-nano\0",
    **zone(0, "AO-therm", "46000"),
    **zone(1, "CPU-therm", "40500"),
    **zone(4, "PMIC-Die", "100000"),
}


@pytest.fixture
def nano(tmp_path: Path) -> Board:
    outputs = {"nvpmodel": "NV Power Mode: 5W\n1\n", "jetson_clocks": NANO_CLOCKS}
    return Board(tmp_path, outputs).write(NANO_FILES)


def test_a_nano_as_root(nano: Board):
    state = nano.jetson().state()
    assert (state.device, state.l4t, state.power_mode) == ("nano", "32.7.1", "5W")
    assert state.clocks["gpu"].mhz == 614.4
    assert state.clocks_pinned is True
    assert state.temperature_c == 46.0, "the fixed sensor is left out"
    assert state.notes == ("L4T 32.7.1",)
    assert "tegrastats" not in nano.asked, "nothing was left to ask it"


def test_conditions_have_what_the_system_and_the_runtime_say(nano: Board):
    conditions = (
        nano.jetson()
        .state()
        .conditions(runtime="tensorrt", version="8.2.1", precision="fp16", batch=1, gpu=None, notes=["trtexec"])
    )
    assert conditions.processor == "NVIDIA Jetson Nano Developer Kit"
    assert conditions.power_mode == "5W"
    assert conditions.clocks_mhz == {"cpu": 921.6, "gpu": 614.4, "emc": 1600.0}
    assert (conditions.clocks_pinned, conditions.temperature_c) == (True, 46.0)
    assert conditions.notes == ("trtexec", "L4T 32.7.1")


def test_without_permission_files_tell_and_notes_say_what_is_missing(nano: Board):
    nano.outputs = {"tegrastats": NANO}
    nano.write(gpu_clock("57000000.gpu", 76800000, 76800000, 921600000))
    nano.write(cpu_clock(0, 102000, 102000, 1479000) | cpu_clock(1, 1479000, 102000, 1479000))
    nano.write({"var/lib/nvpmodel/status": "pmode:0001", "etc/nvpmodel.conf": CONFIGURATION})
    state = nano.jetson().state()
    assert state.power_mode == "5W"
    assert state.clocks == {"gpu": Clock(76.8, 921.6, False), "cpu": Clock(1479.0, 1479.0, False)}
    assert state.clocks_pinned is False
    assert "the memory's clock could not be read: jetson_clocks --show and tegrastats tell it to root" in state.notes
    assert "the clocks can move: pin them with sudo jetson_clocks" in state.notes


def test_the_memorys_clock_may_come_from_tegrastats(nano: Board):
    nano.outputs = {"tegrastats": NANO_AS_ROOT}
    nano.write(gpu_clock("57000000.gpu", 921600000, 921600000, 921600000))
    state = nano.jetson().state()
    assert state.clocks["emc"].mhz == 1600
    assert state.clocks_pinned is True, "whether the memory's clock is pinned is not known"


@pytest.mark.parametrize(
    "name", ["57000000.gpu", "17000000.gp10b", "17000000.gv11b", "17000000.ga10b", "17000000.gpu", "gpu-gpc-0"]
)
def test_the_gpus_clock_is_found_on_every_board(nano: Board, name: str):
    nano.outputs = {}
    nano.write(gpu_clock(name, 306000000, 306000000, 918000000))
    assert nano.jetson().state().clocks["gpu"] == Clock(306, 918, False)


def test_a_board_that_tells_nothing_gets_notes_and_no_error(nano: Board):
    nano.outputs = {}
    state = nano.jetson().state()
    assert (state.power_mode, state.clocks, state.clocks_pinned, state.throttled) == (None, {}, None, None)
    assert "the power mode could not be read" in state.notes
    assert "the GPU's clock could not be read" in state.notes


def test_another_computer_is_no_jetson(tmp_path: Path):
    board = Board(tmp_path, {"nvpmodel": "NV Power Mode: MAXN\n0\n"})
    state = board.jetson().state()
    assert (state.device, state.power_mode, state.notes) == (
        None,
        None,
        ("no Jetson: neither power mode nor clocks read",),
    )
    assert board.asked == []


@pytest.mark.parametrize(
    ("compatible", "told", "mode"),
    [
        ("nvidia,p3449-0000+p3668-0000", "MODE_15W_2CORE", "15W"),
        ("nvidia,p3449-0000+p3668-0000", "MODE_10W_DESKTOP", "10W_DESKTOP"),
        ("nvidia,p2972-0000+p2888-0004", "MODE_30W_ALL", "30W"),
        ("nvidia,p3768-0000+p3767-0003", "MAXN_SUPER", "MAXN_SUPER"),
        ("nvidia,p3737-0000+p3701-0005", "MODE_50W", "50W"),
    ],
)
def test_the_power_mode_has_the_name_of_the_profile(nano: Board, compatible: str, told: str, mode: str):
    nano.write({"proc/device-tree/compatible": compatible})
    nano.outputs["nvpmodel"] = f"NV Power Mode: {told}\n3\n"
    assert nano.jetson().state().power_mode == mode


def test_a_power_mode_that_the_profile_lacks_keeps_its_name_and_is_noted(nano: Board):
    nano.outputs["nvpmodel"] = "NV Power Mode: CUSTOM\n9\n"
    state = nano.jetson().state()
    assert state.power_mode == "CUSTOM"
    assert "the profile of nano has no power mode CUSTOM" in state.notes


def test_a_module_without_a_profile_is_noted(nano: Board):
    nano.write({"proc/device-tree/compatible": "nvidia,p3767-0004", "proc/device-tree/model": "Orin Nano 4GB"})
    state = nano.jetson().state()
    assert state.device is None
    assert "Orin Nano 4GB has no device profile" in state.notes


# --- throttling ---


@pytest.mark.parametrize(
    ("devices", "throttled"),
    [
        ([("pwm-fan", 3), ("gpu-throttle-alert", 0), ("cpu-throttle-alert", 0)], False),
        ([("pwm-fan", 0), ("gpu-throttle-alert", 1)], True),
        ([("devfreq-gpu-gpc-0", 18), ("cpufreq-cpu0", 2)], None),
        ([], None),
    ],
)
def test_alerts_mean_throttling_and_fans_do_not(nano: Board, devices: list[tuple[str, int]], throttled: bool | None):
    nano.outputs = {}
    for number, (kind, state) in enumerate(devices):
        nano.write(cooling(number, kind, state))
    assert nano.jetson().state().throttled is throttled


def test_over_current_events_count_from_one_question_to_the_next(nano: Board):
    def events(count: int) -> None:
        nano.write(
            {"sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n", "sys/class/hwmon/hwmon3/oc3_event_cnt": f"{count}\n"}
        )

    jetson = nano.jetson()
    events(27390)
    assert jetson.state().throttled is False, "those before the first question are nobody's"
    events(27391)
    assert jetson.state().throttled is True
    assert jetson.state().throttled is False


@pytest.mark.parametrize(("current", "throttled"), [(921600000, False), (768000000, True)])
def test_a_pinned_gpu_below_its_clock_is_throttled(nano: Board, current: int, throttled: bool):
    nano.outputs = {}
    nano.write(gpu_clock("57000000.gpu", current, 921600000, 921600000))
    assert nano.jetson().state().throttled is throttled


def test_files_that_hold_nonsense_are_ignored(nano: Board):
    nano.outputs = {}
    nano.write(zone(0, "AO-therm", "hot") | zone(1, "CPU-therm", "") | cooling(0, "gpu-throttle-alert", 0))
    nano.write({"sys/class/thermal/cooling_device0/cur_state": "?", "sys/class/devfreq/57000000.gpu/cur_freq": "x"})
    state = nano.jetson().state()
    assert (state.temperature_c, state.throttled, state.clocks) == (None, None, {})


# --- running tools ---


def test_a_tool_that_ends_is_read_whole():
    assert run_tool(("sh", "-c", "echo one; echo two >&2; exit 3")) == "one\n"


def test_a_tool_that_goes_on_is_ended_and_read_so_far(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scaler.runtimes.jetson._SECONDS", 0.3)
    assert run_tool(("sh", "-c", "echo one; exec sleep 60")) == "one\n"


def test_a_tool_that_is_missing_says_nothing():
    assert run_tool(("/nowhere/nvpmodel", "-q")) == ""


def test_this_board_is_asked_by_the_shortcut(nano: Board):
    assert detect(nano.root) == "nano"
