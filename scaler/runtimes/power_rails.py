"""The power rails of a Jetson: the INA3221 sensors in the system's files, and what tegrastats says of them.

The sensors show as ``iio`` devices in JetPack 3 and 4 and as ``hwmon`` devices since JetPack 5. Which rail is the
whole module depends on the board (NVIDIA's developer guide, "Software-Based Power Consumption Modeling", and the
product design guides). Written against documented files and recorded outputs; not yet run on a device.

One step of the sensor is 40 uV at the shunt: 8 mA with 5 mOhm (Nano, NX, Orin NX and Nano), 20 mA with 2 mOhm (AGX
Orin, whose GPU and CPU rails are at the board's input of up to 20 V: 0.4 W). A mean over many values is finer.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import NamedTuple, TypeAlias

from scaler.runtimes.power import Watts

__all__ = ["Ina3221Power", "Rail", "TegrastatsPower", "find_rails", "parse_rails", "read_text", "whole_module"]

Read: TypeAlias = Callable[[Path], str]
"""Content of a file of the system; raises OSError."""

WHOLE_MODULES = (
    ("VDD_IN",),
    ("POM_5V_IN",),
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"),
)
"""Rails whose sum is the module's power, the first that a board has all of.

TX1, TX2, TX2 NX, Xavier NX, Orin NX and Nano meter their input (``VDD_IN``), and so does the Nano (``POM_5V_IN``).
AGX Xavier, AGX Orin and Thor do not: SYS_VIN_HV feeds the GPU, CPU, SOC and CV rails, SYS_VIN_MV the 5 V rail, each
metered once. On AGX Orin ``VDDQ_VDD2_1V8AO`` is fed by ``VIN_SYS_5V0`` and would count twice; Thor's ``VIN`` is the
input of the developer kit with its carrier board.
"""

_NOT_CONNECTED = "NC"
_RAIL = re.compile(r"(?<!\S)([A-Z][A-Z0-9_]*) (-?\d{1,9})(?:mW(?:/-?\d{1,9}mW){0,2}|/-?\d{1,9})(?!\S)")
_INTERVAL_MS = 100
_FIRST_LINE_SECONDS = 3.0
_LOOK_SECONDS = 0.02
_STOP_SECONDS = 2.0


class Rail(NamedTuple):
    """A metered rail: the product of the numbers in its files, in `unit` watts."""

    name: str
    files: tuple[Path, ...]
    unit: float


def read_text(path: Path) -> str:
    """Content of a file of the system."""
    return path.read_bytes().decode(errors="replace").strip()


def parse_rails(line: str) -> Watts:
    """Watts by rail in a line of tegrastats: the value of now, not the average since it started.

    Milliwatts: ``POM_5V_IN 900/943`` up to JetPack 4, ``VDD_IN 5832mW/5852mW`` since JetPack 5, with a third number in
    JetPack 7, the peak.
    """
    return {name: int(milliwatts) / 1e3 for name, milliwatts in _RAIL.findall(line) if name != _NOT_CONNECTED}


def whole_module(rails: Iterable[str]) -> tuple[str, ...]:
    """The rails whose sum is the whole module; empty for a board that is not known."""
    there = set(rails)
    return next((whole for whole in WHOLE_MODULES if there.issuperset(whole)), ())


def find_rails(root: Path = Path("/"), read: Read = read_text) -> tuple[Rail, ...]:
    """The rails of all INA3221 sensors, in the order of their addresses; those of a carrier board are among them."""
    found: dict[str, Rail] = {}
    for rail in (*_iio_rails(root, read), *_hwmon_rails(root, read)):
        if rail.name and rail.name != _NOT_CONNECTED:
            found.setdefault(rail.name, rail)
    return tuple(found.values())


class Ina3221Power:
    """The sensors of a Jetson by the system's files; an implementation of `scaler.runtimes.power.Power`.

    Args:
        rails: See `find_rails`.
        read: Reads a file.
    """

    source = "ina3221"
    scope = "module"

    def __init__(self, rails: Sequence[Rail], read: Read = read_text) -> None:
        self._rails = tuple(rails)
        self._read = read
        self.rails = tuple(rail.name for rail in rails)
        self.whole = whole_module(self.rails)

    def sample(self) -> Watts:
        """Watts of now; a sensor averages over some milliseconds by itself."""
        values = {rail.name: self._watts(rail) for rail in self._rails}
        return {name: watts for name, watts in values.items() if watts is not None}

    def close(self) -> None:
        """Nothing is open."""

    def _watts(self, rail: Rail) -> float | None:
        try:
            return prod(int(self._read(path)) for path in rail.files) * rail.unit
        except (OSError, ValueError):  # a rail that is switched off, a busy bus
            return None


class TegrastatsPower:
    """The rails that tegrastats prints, for boards whose files may not be read; runs until it is closed.

    Args:
        command: How to start it.

    Raises:
        OSError: It cannot be started.
    """

    source = "tegrastats"
    scope = "module"

    def __init__(self, command: Sequence[str] = ("tegrastats", "--interval", str(_INTERVAL_MS))) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._text = b""
        self.rails = tuple(self._first())
        self.whole = whole_module(self.rails)

    def sample(self) -> Watts:
        """Watts of the latest line; empty where there is no new one."""
        stdout = self._process.stdout
        if stdout is None or stdout.closed:
            return {}
        try:
            while piece := os.read(stdout.fileno(), 1 << 16):
                self._text += piece
        except BlockingIOError:
            pass
        lines, newline, self._text = self._text.rpartition(b"\n")
        return parse_rails(lines.rpartition(b"\n")[2].decode(errors="replace")) if newline else {}

    def close(self) -> None:
        """End tegrastats."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _first(self) -> Watts:
        """The first line with a rail; empty where none comes in time."""
        end = time.monotonic() + _FIRST_LINE_SECONDS
        while time.monotonic() < end:
            over = self._process.poll() is not None
            watts = self.sample()
            if watts or over:
                return watts
            time.sleep(_LOOK_SECONDS)
        return {}


def _iio_rails(root: Path, read: Read) -> Iterator[Rail]:
    """JetPack 3 (``iio_device``) and 4 (``iio:device0``): milliwatts by channel, counted from 0."""
    drivers = root / "sys/bus/i2c/drivers/ina3221x"
    for label in sorted(drivers.glob("*/iio[:_]device*/rail_name_[0-9]")):
        name = _text(label, read)
        yield Rail(name, (label.parent / f"in_power{label.name[-1]}_input",), 1e-3)


def _hwmon_rails(root: Path, read: Read) -> Iterator[Rail]:
    """JetPack 5 to 7: millivolts and milliamperes by channel, counted from 1; the sum of shunts has no current."""
    drivers = root / "sys/bus/i2c/drivers/ina3221"
    for label in sorted(drivers.glob("*/hwmon/hwmon*/in[0-9]_label")):
        channel = label.name[2]
        volts, amperes = (label.parent / f"{kind}{channel}_input" for kind in ("in", "curr"))
        if amperes.exists():
            yield Rail(_text(label, read), (volts, amperes), 1e-6)


def _text(path: Path, read: Read) -> str:
    try:
        return read(path)
    except OSError:
        return ""
