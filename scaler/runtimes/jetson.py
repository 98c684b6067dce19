"""Under which conditions a Jetson runs: power mode, clocks, temperature, throttling.

Files are preferred to tools, and nothing here needs root: what a user may not read becomes a note, never an error.
Written against documented files and recorded outputs; not yet run on a device.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from scaler.devices import Precision, load_device
from scaler.errors import UserError
from scaler.runtimes.jetson_text import (
    Clock,
    is_sensor,
    parse_device,
    parse_jetson_clocks,
    parse_power_mode,
    parse_release,
    parse_saved_power_mode,
    parse_tegrastats,
    together,
)
from scaler.runtimes.protocol import Conditions

__all__ = ["Jetson", "JetsonState", "Runner", "detect", "run_tool"]

Runner: TypeAlias = Callable[[Sequence[str]], str]
"""Runs a command and returns what it wrote to standard output; an empty text if it cannot be run."""

_SECONDS = 1.5
_SLOWED = 0.97  # of its highest value, for a clock that is pinned there
_GPU_CLOCKS = ("*.gpu", "*.gp10b", "*.gv11b", "*.ga10b", "gpu-gpc-0")
"""Names under /sys/class/devfreq: Nano and Orin, TX2, Xavier, Orin with JetPack 5, Thor."""
_THROTTLING = "throttle-alert"
"""Ends the names of the cooling devices whose state is above 0 while the hardware slows itself down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JetsonState:
    """What a Jetson says of itself at one moment."""

    device: str | None
    """Id of its device profile."""
    model: str
    """What the board calls itself; empty on other computers."""
    l4t: str | None
    power_mode: str | None
    """By its name in the device's profile, or nvpmodel's where the profile lacks it."""
    clocks: Mapping[str, Clock] = field(default_factory=dict)
    """By domain: `gpu`, `emc`, `cpu`."""
    temperature_c: float | None = None
    """The hottest sensor."""
    throttled: bool | None = None
    """None where nothing tells."""
    notes: tuple[str, ...] = ()

    @property
    def clocks_pinned(self) -> bool | None:
        """Whether no clock of which this is known can move; None without the GPU's."""
        return not _moving(self.clocks) if "gpu" in self.clocks else None

    def conditions(
        self, *, runtime: str, version: str, precision: Precision, batch: int, gpu: str | None, notes: Sequence[str]
    ) -> Conditions:
        """The conditions of a measurement.

        Args:
            runtime: `tensorrt`.
            version: The runtime's.
            precision: Of the engine.
            batch: Pictures at a time.
            gpu: Its name where the runtime tells; else the board's stands for it.
            notes: The runtime's own, before those of the system.
        """
        return Conditions(
            runtime=runtime,
            runtime_version=version,
            precision=precision,
            batch=batch,
            processor=gpu or self.model or "unknown GPU",
            power_mode=self.power_mode or "unknown",
            clocks_mhz={domain: clock.mhz for domain, clock in self.clocks.items()},
            clocks_pinned=self.clocks_pinned,
            temperature_c=self.temperature_c,
            throttled=self.throttled,
            notes=(*notes, *self.notes),
        )


def run_tool(command: Sequence[str]) -> str:
    """Run a command for a moment; one that goes on, like tegrastats, is ended, and what it wrote until then counts."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
        output = done.stdout
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
    except OSError:
        return ""
    return output.decode(errors="replace")


class Jetson:
    """The system that the runtimes ask.

    Over-current events count from one question to the next, so ask the same one before and after a measurement.

    Args:
        root: Where the system's files begin; another folder in tests.
        run: Runs a command.
    """

    def __init__(self, root: Path = Path("/"), run: Runner = run_tool) -> None:
        self._root = root
        self._run = run
        self._events: int | None = None

    def detect(self) -> str | None:
        """Id of the device profile of this board, or None."""
        return parse_device(self._text("proc/device-tree/compatible"), self._model())

    def state(self) -> JetsonState:
        """Ask everything there is to ask; takes about two seconds where tegrastats is needed."""
        model, device = self._model(), self.detect()
        l4t = parse_release(self._text("etc/nv_tegra_release"))
        if l4t is None and not model:
            return JetsonState(
                device=None,
                model="",
                l4t=None,
                power_mode=None,
                notes=("no Jetson: neither power mode nor clocks read",),
            )
        notes = [f"L4T {l4t}"] if l4t else []
        if device is None:
            notes.append(f"{model or 'this board'} has no device profile")
        power_mode = self._power_mode(device, notes)
        clocks = self._clocks(notes)
        return JetsonState(
            device=device,
            model=model,
            l4t=l4t,
            power_mode=power_mode,
            clocks=clocks,
            temperature_c=max(self._temperatures(), default=None),
            throttled=self._throttled(clocks),
            notes=tuple(notes),
        )

    def _power_mode(self, device: str | None, notes: list[str]) -> str | None:
        name = parse_power_mode(self._run(("nvpmodel", "-q"))) or parse_saved_power_mode(
            self._text("var/lib/nvpmodel/status"), self._text("etc/nvpmodel.conf")
        )
        if name is None:
            notes.append("the power mode could not be read")
        elif device:
            try:
                return load_device(device).mode(name).name
            except UserError:
                notes.append(f"the profile of {device} has no power mode {name}")
        return name

    def _clocks(self, notes: list[str]) -> dict[str, Clock]:
        """Clocks from jetson_clocks, which needs root, else from files, the memory's from tegrastats."""
        clocks = dict(parse_jetson_clocks(self._run(("jetson_clocks", "--show"))))
        for domain, read in (("gpu", self._gpu_clocks), ("cpu", self._cpu_clocks)):
            if domain not in clocks:
                for clock in read():
                    clocks[domain] = together(clocks.get(domain), clock)
        if "emc" not in clocks:
            told = parse_tegrastats(self._run(("tegrastats", "--interval", "200"))).clocks_mhz.get("emc")
            if told:
                clocks["emc"] = Clock(told, told, pinned=None)
            else:
                notes.append(
                    "the memory's clock could not be read: jetson_clocks --show and tegrastats tell it to root"
                )
        if "gpu" not in clocks:
            notes.append("the GPU's clock could not be read")
        elif _moving(clocks):
            notes.append("the clocks can move: pin them with sudo jetson_clocks")
        return clocks

    def _gpu_clocks(self) -> Iterator[Clock]:
        for pattern in _GPU_CLOCKS:
            for folder in sorted((self._root / "sys/class/devfreq").glob(pattern)):
                yield from self._clock(folder, "{}_freq", 1e6)

    def _cpu_clocks(self) -> Iterator[Clock]:
        for folder in sorted((self._root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")):
            yield from self._clock(folder, "scaling_{}_freq", 1e3)

    def _clock(self, folder: Path, name: str, unit: float) -> Iterator[Clock]:
        current, low, high = (_integer(folder / name.format(part)) for part in ("cur", "min", "max"))
        if current is not None and high is not None:
            yield Clock(current / unit, high / unit, pinned=low == high)

    def _temperatures(self) -> Iterator[float]:
        for zone in (self._root / "sys/class/thermal").glob("thermal_zone*"):
            millidegrees = _integer(zone / "temp")
            if millidegrees is not None and is_sensor(_text(zone / "type"), millidegrees / 1e3):
                yield millidegrees / 1e3

    def _throttled(self, clocks: Mapping[str, Clock]) -> bool | None:
        """Alerts of the hardware, new over-current events, or a pinned GPU that is slower than it should be."""
        signs: list[bool] = []
        for device in (self._root / "sys/class/thermal").glob("cooling_device*"):
            state = _integer(device / "cur_state")
            if _text(device / "type").endswith(_THROTTLING) and state is not None:
                signs.append(state > 0)
        counters = [_integer(path) for path in (self._root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")]
        events = sum(count for count in counters if count is not None)
        if counters:
            signs.append(self._events is not None and events > self._events)
            self._events = events
        gpu = clocks.get("gpu")
        if gpu and gpu.pinned:
            signs.append(gpu.mhz < _SLOWED * gpu.max_mhz)
        return any(signs) if signs else None

    def _model(self) -> str:
        return self._text("proc/device-tree/model")

    def _text(self, path: str) -> str:
        return _text(self._root / path)


def detect(root: Path = Path("/")) -> str | None:
    """Id of the device profile of the board that this runs on, or None."""
    return Jetson(root).detect()


def _moving(clocks: Mapping[str, Clock]) -> bool:
    return any(clock.pinned is False for clock in clocks.values())


def _text(path: Path) -> str:
    """Content of a file of the system without NULs and space around it; empty if it cannot be read."""
    try:
        return path.read_bytes().decode(errors="replace").replace("\0", " ").strip()
    except OSError:
        return ""


def _integer(path: Path) -> int | None:
    try:
        return int(_text(path)[:20])
    except ValueError:
        return None
