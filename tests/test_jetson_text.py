"""What the tools and files of a Jetson say: outputs from public repositories, shortened; none was recorded by us."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.devices import load_device
from scaler.runtimes.jetson_text import (
    Clock,
    parse_device,
    parse_jetson_clocks,
    parse_power_mode,
    parse_release,
    parse_saved_power_mode,
    parse_tegrastats,
)

# --- release and power mode ---


@pytest.mark.parametrize(
    ("text", "l4t"),
    [
        ("# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref, EABI: aarch64, DATE: Sat Feb 19", "32.7.1"),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64", "35.4.1"),
        ("# R36 (release), REVISION: 5.0\nextra\n", "36.5.0"),
        ("Ubuntu 22.04", None),
        ("", None),
    ],
)
def test_the_release_is_read(text: str, l4t: str | None):
    assert parse_release(text) == l4t


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MAXN\n0\n", "MAXN"),
        ("NV Power Mode: 5W\n1\n", "5W"),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_15W_2CORE\n0\n", "15W_2CORE"),
        ("NV Power Mode: MODE_10W_DESKTOP\n5\n", "10W_DESKTOP"),
        ("NV Power Mode: MAXN_SUPER\n2\n", "MAXN_SUPER"),
        ("NVPM VERB: Current mode: NV Power Mode: MAXN\n0\n", "MAXN"),
        ("NVPM ERROR: Error opening /var/lib/nvpmodel/status: 13\n", None),
        ("", None),
    ],
)
def test_the_power_mode_is_read(text: str, mode: str | None):
    assert parse_power_mode(text) == mode


CONFIGURATION = """\
# MAXN is the NONE power model to release all constraints
< POWER_MODEL ID=0 NAME=MAXN >
CPU_ONLINE CORE_1 1
< POWER_MODEL ID=1 NAME=MODE_5W >
< PM_CONFIG DEFAULT=0 >
"""


@pytest.mark.parametrize(
    ("status", "mode"), [("pmode:0000 fmode:quiet", "MAXN"), ("pmode:0001\n", "5W"), ("pmode:0007", None), ("", None)]
)
def test_the_saved_power_mode_is_read_without_permission(status: str, mode: str | None):
    assert parse_saved_power_mode(status, CONFIGURATION) == mode


# --- clocks ---

NANO_CLOCKS = """\
SOC family:tegra210  Machine:NVIDIA Jetson Nano Developer Kit
Online CPUs: 0-1
cpu0: Online=1 Governor=schedutil MinFreq=921600 MaxFreq=921600 CurrentFreq=921600 IdleStates: WFI=0 c7=0
cpu1: Online=1 Governor=schedutil MinFreq=921600 MaxFreq=921600 CurrentFreq=921600 IdleStates: WFI=0 c7=0
cpu2: Online=0 Governor=schedutil MinFreq=102000 MaxFreq=921600 CurrentFreq=921600 IdleStates: WFI=0 c7=0
GPU MinFreq=614400000 MaxFreq=614400000 CurrentFreq=614400000
EMC MinFreq=204000000 MaxFreq=1600000000 CurrentFreq=1600000000 FreqOverride=1
Fan: PWM=0
NV Power Mode: 5W
"""
ORIN_CLOCKS = """\
cpu0: Online=1 Governor=schedutil MinFreq=729600 MaxFreq=2201600 CurrentFreq=2201600 IdleStates: WFI=1 c7=1
cpu4: Online=1 Governor=schedutil MinFreq=729600 MaxFreq=2201600 CurrentFreq=1190400 IdleStates: WFI=1 c7=1
GPU MinFreq=306000000 MaxFreq=1300500000 CurrentFreq=306000000
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride=0
DLA0_CORE:   Online=1 MinFreq=0 MaxFreq=1600000000 CurrentFreq=1600000000
PVA0_AXI:  Online=1 MinFreq=0 MaxFreq=832000000 CurrentFreq=832000000
FAN Dynamic Speed control=active hwmon2_pwm1=55
NV Power Mode: MAXN
"""
ORIN_NANO_CLOCKS = """\
SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
Online CPUs: 0-5, Offline CPUs:
cpu0:  Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=960000 IdleStates: WFI=1 c7=1
GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=306000000
Active GPU TPCs: 4
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=665600000
NV Power Mode: 25W
"""


def test_pinned_clocks_of_a_nano():
    assert parse_jetson_clocks(NANO_CLOCKS) == {
        "cpu": Clock(921.6, 921.6, True),
        "gpu": Clock(614.4, 614.4, True),
        "emc": Clock(1600, 1600, True),
    }


def test_moving_clocks_of_an_orin():
    assert parse_jetson_clocks(ORIN_CLOCKS) == {
        "cpu": Clock(2201.6, 2201.6, False),
        "gpu": Clock(306, 1300.5, False),
        "emc": Clock(2133, 3199, False),
    }


def test_clocks_of_an_orin_nano_with_jetpack_6():
    assert parse_jetson_clocks(ORIN_NANO_CLOCKS) == {
        "cpu": Clock(960, 1344, False),
        "gpu": Clock(306, 918, False),
        "emc": Clock(665.6, 3199, False),
    }


@pytest.mark.parametrize("text", ["", "jetson_clocks: Permission denied", "GPU MinFreq= MaxFreq= CurrentFreq="])
def test_clocks_that_may_not_be_read_are_absent(text: str):
    assert parse_jetson_clocks(text) == {}


# --- tegrastats ---

NANO = (
    "RAM 613/3964MB (lfb 634x4MB) SWAP 0/1982MB (cached 0MB) CPU [2%@102,1%@102,off,off] EMC_FREQ 0% GR3D_FREQ 0% "
    "PLL@39C CPU@40.5C PMIC@100C GPU@41C AO@46C thermal@41C POM_5V_IN 900/943 POM_5V_GPU 0/0 POM_5V_CPU 123/123"
)
NANO_AS_ROOT = (
    "RAM 1923/3964MB (lfb 2x2MB) SWAP 191/1982MB (cached 6MB) IRAM 0/252kB(lfb 252kB) CPU [5%@1224,4%@1479] "
    "EMC_FREQ 0%@1600 GR3D_FREQ 98%@921 APE 25 PLL@37C CPU@40C PMIC@50C GPU@40C AO@45C thermal@40C POM_5V_IN 1750/1628"
)
XAVIER = (
    "RAM 408/15823MB (lfb 3702x4MB) SWAP 0/7911MB CPU [12%@2265,9%@2265] EMC_FREQ 0%@2133 GR3D_FREQ 0%@1377 "
    "APE 150 MTS fg 0% bg 0% AO@26.5C GPU@28C Tdiode@31.25C PMIC@100C AUX@26.5C CPU@28.5C Tboard@27C"
)
ORIN_NANO = (
    "01-24-2024 09:17:09 RAM 3503/7337MB (lfb 7x1MB) SWAP 430/3668MB (cached 1MB) CPU [11%@729,13%@729,off,off] "
    "EMC_FREQ 0%@2133 GR3D_FREQ 0%@305 GR3D2_FREQ 0%@0 APE 174 CV0@-256C CPU@44.093C SOC2@42.625C tj@46.968C"
)
ORIN_JETPACK_7 = (
    "07-25-2026 09:08:28 RAM 20642/62817MB CPU [23%@2201,10%@2201] EMC_FREQ 3%@3199 GR3D_FREQ 12%@[1300,1300] "
    "NVENC0 off VIC off APE 174 cpu@52.968C/52.968C soc0@49.531C/49.531C gpu@47.625C/47.625C VDD_GPU_SOC 5139mW/5139mW"
)
THOR = "RAM 4722/7844MB (lfb 1x512kB) EMC_FREQ 2%@1866 GR3D_FREQ @[1000,1000,1000] APE 150"


@pytest.mark.parametrize(
    ("line", "load", "clocks", "hottest"),
    [
        (NANO, 0, {"cpu": 102}, 46),
        (NANO_AS_ROOT, 98, {"gpu": 921, "emc": 1600, "cpu": 1479}, 45),
        (XAVIER, 0, {"gpu": 1377, "emc": 2133, "cpu": 2265}, 31.25),
        (ORIN_NANO, 0, {"gpu": 305, "emc": 2133, "cpu": 729}, 46.968),
        (ORIN_JETPACK_7, 12, {"gpu": 1300, "emc": 3199, "cpu": 2201}, 52.968),
        (THOR, None, {"gpu": 1000, "emc": 1866}, None),
    ],
)
def test_tegrastats_of_every_generation(line: str, load: float | None, clocks: dict[str, float], hottest: float | None):
    stats = parse_tegrastats(line)
    assert stats.gpu_load == load
    assert stats.clocks_mhz == clocks
    assert max(stats.temperatures_c.values(), default=None) == hottest


def test_the_last_line_counts_and_the_fixed_sensor_does_not():
    stats = parse_tegrastats(f"{XAVIER}\n{NANO}\nStopping\n")
    assert stats.gpu_load == 0
    assert "PMIC" not in stats.temperatures_c


def test_sensors_that_are_switched_off_do_not_count():
    assert "CV0" not in parse_tegrastats(ORIN_NANO).temperatures_c


@pytest.mark.parametrize("text", ["", "tegrastats: not found", "GR3D_FREQ", "GR3D_FREQ x%@y CPU [,] a@C"])
def test_other_texts_say_nothing(text: str):
    stats = parse_tegrastats(text)
    assert (stats.gpu_load, stats.clocks_mhz, stats.temperatures_c) == (None, {}, {})


PIECES = [
    *NANO_CLOCKS.split(),
    *ORIN_JETPACK_7.split(),
    *CONFIGURATION.split(),
    "GPU",
    "EMC",
    "\n",
    "9" * 30,
    "pmode:9",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=30).map(" ".join))
def test_no_text_is_too_strange(text: str):
    assert all(clock.mhz >= 0 for clock in parse_jetson_clocks(text).values())
    assert all(mhz >= 0 for mhz in parse_tegrastats(text).clocks_mhz.values())
    for told in (parse_power_mode(text), parse_release(text), parse_saved_power_mode(text, text)):
        assert told is None or told.strip() == told
    assert parse_device(text, text) in {None, "nano", "tx2", "nx", "agx", "orin-nano", "orin-nx", "agx-orin"}


# --- which board ---


@pytest.mark.parametrize(
    ("compatible", "model", "device"),
    [
        ("nvidia,p3449-0000-b00+p3448-0000-b00\0nvidia,jetson-nano\0nvidia,tegra210", "NVIDIA Jetson Nano", "nano"),
        ("nvidia,p3542-0000+p3448-0003\0nvidia,jetson-nano-2gb", "NVIDIA Jetson Nano 2GB Developer Kit", "nano"),
        ("nvidia,p2597-0000+p3310-1000\0nvidia,tegra186", "quill", "tx2"),
        ("nvidia,p3509-0000+p3636-0001\0nvidia,tegra186", "lightning", "tx2"),
        ("nvidia,p3449-0000+p3668-0000\0nvidia,tegra194", "NVIDIA Jetson Xavier NX Developer Kit", "nx"),
        ("nvidia,p2972-0000+p2888-0004\0nvidia,tegra194", "Jetson-AGX", "agx"),
        ("nvidia,p3768-0000+p3767-0005\0nvidia,tegra234", "NVIDIA Jetson Orin Nano Developer Kit", "orin-nano"),
        ("nvidia,p3768-0000+p3767-0000\0nvidia,tegra234", "NVIDIA Jetson Orin NX", "orin-nx"),
        ("nvidia,p3737-0000+p3701-0005\0nvidia,tegra234", "NVIDIA Jetson AGX Orin Developer Kit", "agx-orin"),
        ("nvidia,tegra234", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "orin-nano"),
        ("nvidia,tegra194", "Jetson-AGX", "agx"),
        ("", "NVIDIA Jetson AGX Orin", "agx-orin"),
        ("", "quill", "tx2"),
    ],
)
def test_boards_lead_to_device_profiles(compatible: str, model: str, device: str):
    assert parse_device(compatible, model) == device
    assert load_device(device).id == device


@pytest.mark.parametrize(
    ("compatible", "model"),
    [
        ("nvidia,p3768-0000+p3767-0004", "NVIDIA Jetson Orin Nano 4GB"),
        ("nvidia,p3768-0000+p3767-0001", "NVIDIA Jetson Orin NX 8GB"),
        ("nvidia,p3737-0000+p3701-0004", "NVIDIA Jetson AGX Orin 32GB"),
        ("nvidia,p2972-0000+p2888-0006", "Jetson-AGX"),
        ("nvidia,p4071-0000+p3834-0008", "NVIDIA Jetson AGX Thor Developer Kit"),
        ("raspberrypi,4-model-b", "Raspberry Pi 4 Model B"),
        ("", ""),
    ],
)
def test_modules_with_other_sms_or_clocks_have_no_profile(compatible: str, model: str):
    assert parse_device(compatible, model) is None
