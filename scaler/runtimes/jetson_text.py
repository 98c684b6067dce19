"""What the tools and files of a Jetson say, as typed records: pure functions of their text.

The forms are those of Nano, TX2, Xavier and Orin with JetPack 4 to 7, from outputs in public repositories and the
parsers of jetson_stats; none was recorded by us. What a text does not say is None or absent; no text is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)")
_MODE = re.compile(r"NV Power Mode: *(\S+)(?:[^\S\n]*\n *(\d+) *$)?", re.MULTILINE)
_MODE_STATUS = re.compile(r"pmode:(\d{1,9})")
_MODE_DEFINED = re.compile(r"< *POWER_MODEL +ID=(\d{1,9}) +NAME=(\S+) *>")
_CLOCKS = re.compile(
    r"^(GPU|EMC|cpu\d+):? +(?:Online=(\d) +)?(?:Governor=\S+ +)?MinFreq=(\d{1,18}) +MaxFreq=(\d{1,18}) +"
    r"CurrentFreq=(\d{1,18})(?: +FreqOverride=(\d))?",
    re.MULTILINE,
)
_GPU_STATS = re.compile(r"\bGR3D_FREQ (?:(\d{1,3})%)?(?:@\[?(\d{1,9}))?")
_EMC_STATS = re.compile(r"\bEMC_FREQ (\d{1,3})%(?:@(\d{1,9}))?")
_CPU_STATS = re.compile(r"\bCPU \[([^\]]*)\]")
_CPU_CLOCK = re.compile(r"\d+%@(\d{1,9})")
_TEMPERATURE = re.compile(r"\b([A-Za-z][\w-]*)@(-?\d{1,6}(?:\.\d+)?)C\b")
_MODULE = re.compile(r"p\d{4}-\d{4}")
_SWITCHED_OFF_C = -40.0
_FIXED = "pmic"  # reports 50 or 100 degrees whatever happens

_DEVICES: Mapping[str, str | None] = {
    "p3448": "nano",
    "p3310": "tx2",
    "p3489": "tx2",
    "p3636": "tx2",
    "p3668": "nx",
    "p2888": "agx",
    "p2888-0006": None,  # 8 GB: fewer SMs
    "p2888-0008": None,  # Industrial: lower clocks
    "p3767": None,
    "p3767-0000": "orin-nx",
    "p3767-0003": "orin-nano",
    "p3767-0005": "orin-nano",
    "p3701": None,
    "p3701-0000": "agx-orin",
    "p3701-0005": "agx-orin",
}
"""Device profile by module; None: a module like one of ours, but with other SMs or clocks."""

_MODELS = (
    ("orin nano", "orin-nano"),
    ("orin nx", "orin-nx"),
    ("agx orin", "agx-orin"),
    ("xavier nx", "nx"),
    ("agx xavier", "agx"),
    ("jetson-agx", "agx"),
    ("tx2", "tx2"),
    ("quill", "tx2"),
    ("jetson nano", "nano"),
    ("jetson-nano", "nano"),
)
"""Device profile by a part of the model's name, for device trees that name no module."""


class Clock(NamedTuple):
    """A clock domain."""

    mhz: float
    max_mhz: float
    """The highest that the power mode allows."""
    pinned: bool | None
    """Whether it cannot move; None where nothing tells."""


class Tegrastats(NamedTuple):
    """One line of tegrastats; clocks in MHz appear only for root on most devices."""

    gpu_load: float | None
    """Percent."""
    clocks_mhz: Mapping[str, float]
    """By domain: `gpu`, `emc`, `cpu`."""
    temperatures_c: Mapping[str, float]
    """By sensor, those that are switched off or fixed left out."""


def parse_release(text: str) -> str | None:
    """The L4T version in /etc/nv_tegra_release, `32.7.1`."""
    found = _RELEASE.search(text)
    return f"{found[1]}.{found[2]}" if found else None


def parse_power_mode(text: str) -> str | None:
    """The mode's name in the output of `nvpmodel -q`, without the `MODE_` in front of some."""
    found = _MODE.search(text)
    return found[1].removeprefix("MODE_") if found else None


def parse_saved_power_mode(status: str, configuration: str) -> str | None:
    """The mode's name from /var/lib/nvpmodel/status and /etc/nvpmodel.conf, which need no permission."""
    current = _MODE_STATUS.search(status)
    names = {int(number): name for number, name in _MODE_DEFINED.findall(configuration)}
    name = names.get(int(current[1])) if current else None
    return name.removeprefix("MODE_") if name else None


def parse_jetson_clocks(text: str) -> Mapping[str, Clock]:
    """The clocks in the output of `jetson_clocks --show` by domain: `gpu`, `emc`, and `cpu` for all online together."""
    clocks: dict[str, Clock] = {}
    for name, online, low, high, current, override in _CLOCKS.findall(text):
        if online == "0":
            continue
        domain = "cpu" if name.startswith("cpu") else name.lower()
        unit = 1e3 if domain == "cpu" else 1e6
        pinned = override == "1" if override else low == high or (domain == "emc" and current == high)
        clock = Clock(int(current) / unit, int(high) / unit, pinned)
        clocks[domain] = together(clocks.get(domain), clock)
    return clocks


def together(one: Clock | None, other: Clock) -> Clock:
    """Two clocks of one domain: the faster of both, pinned if both are."""
    if one is None:
        return other
    return Clock(max(one.mhz, other.mhz), max(one.max_mhz, other.max_mhz), bool(one.pinned and other.pinned))


def parse_tegrastats(text: str) -> Tegrastats:
    """The last line of tegrastats' output that speaks of the GPU; an empty record if there is none."""
    lines = [line for line in text.splitlines() if "GR3D" in line]
    line = lines[-1] if lines else ""
    gpu, emc, cpus = _GPU_STATS.search(line), _EMC_STATS.search(line), _CPU_STATS.search(line)
    clocks = {
        "gpu": gpu[2] if gpu else None,
        "emc": emc[2] if emc else None,
        "cpu": max(_CPU_CLOCK.findall(cpus[1]), key=int, default=None) if cpus else None,
    }
    return Tegrastats(
        gpu_load=float(gpu[1]) if gpu and gpu[1] else None,
        clocks_mhz={domain: float(mhz) for domain, mhz in clocks.items() if mhz},
        temperatures_c={name: float(c) for name, c in _TEMPERATURE.findall(line) if is_sensor(name, float(c))},
    )


def is_sensor(name: str, temperature_c: float) -> bool:
    """Whether a reading is one: sensors of parts that are switched off give -256, that of the PMIC a fixed value."""
    return temperature_c > _SWITCHED_OFF_C and _FIXED not in name.lower()


def parse_device(compatible: str, model: str) -> str | None:
    """The device profile of a board.

    Args:
        compatible: /proc/device-tree/compatible, `nvidia,p3768-0000+p3767-0005` and more, NUL between.
        model: /proc/device-tree/model.

    Returns:
        Its id, or None for a board without a profile; a module of the same family with other SMs or clocks has none.
    """
    for module in _MODULE.findall(compatible):
        for key in (module, module[:5]):
            if key in _DEVICES:
                return _DEVICES[key]
    return next((device for part, device in _MODELS if part in model.lower()), None)
