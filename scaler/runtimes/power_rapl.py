"""Energy counters of x86 processors (RAPL) by the power capping files of Linux, Intel's and AMD's alike.

Source: Documentation/power/powercap/powercap.rst of the kernel. A package holds its cores and graphics; memory
(``dram``) is counted beside it (Intel's developer manual, volume 3B, 14.10; github.com/powercap/powercap/issues/3), and
``psys``, where there is one, holds all of it and more. Newer kernels let root alone read the counters, because they
tell about what others compute (CVE-2020-8694).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scaler.runtimes.power import Clock, Watts
from scaler.runtimes.power_rails import Read, read_text

__all__ = ["RaplPower", "Zone", "find_zones"]


class Zone(NamedTuple):
    """A counter of energy."""

    rail: str
    """`package-0`, `package-0/dram`, `psys`."""
    counter: Path
    """Microjoules since some time."""
    range_uj: int
    """Where the counter begins again at 0."""


def find_zones(root: Path = Path("/"), read: Read = read_text) -> tuple[Zone, ...]:
    """The counters, packages before their parts; the second interface (``-mmio``) has the same and is left out."""
    names: dict[str, str] = {}
    zones: list[Zone] = []
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*"), key=lambda path: path.name.split(":")):
        try:
            name, range_uj = read(folder / "name"), int(read(folder / "max_energy_range_uj"))
        except (OSError, ValueError):
            continue
        parent = names.get(folder.name.rpartition(":")[0])
        names[folder.name] = rail = f"{parent}/{name}" if parent else name
        zones.append(Zone(rail, folder / "energy_uj", range_uj))
    return tuple(zones)


class RaplPower:
    """The counters of this computer's processors; an implementation of `scaler.runtimes.power.Power`.

    Args:
        zones: See `find_zones`.
        read: Reads a file.
        clock: Seconds.
    """

    source = "rapl"

    def __init__(self, zones: Sequence[Zone], read: Read = read_text, clock: Clock = time.perf_counter) -> None:
        self._zones = tuple(zones)
        self._read = read
        self._clock = clock
        self._last: dict[str, tuple[float, int]] = {}
        self.rails = tuple(zone.rail for zone in zones)
        self.whole = tuple(
            rail for rail in self.rails if rail.startswith("package-") and ("/" not in rail or rail.endswith("/dram"))
        )
        metered = any(rail.endswith("/dram") for rail in self.whole)
        self.scope = "processor and memory" if metered else "processor"

    def sample(self) -> Watts:
        """Mean watts since the last question; ask again before a counter has gone round twice, minutes at full load."""
        watts: dict[str, float] = {}
        for zone in self._zones:
            try:
                now, microjoules = self._clock(), int(self._read(zone.counter))
            except (OSError, ValueError):
                continue
            before = self._last.get(zone.rail)
            self._last[zone.rail] = (now, microjoules)
            if before is None or now <= before[0]:
                continue
            used = microjoules - before[1]
            if used < 0:
                used += zone.range_uj
            if used >= 0:
                watts[zone.rail] = used * 1e-6 / (now - before[0])
        return watts

    def close(self) -> None:
        """Nothing is open."""
