"""The power meter of the computer at hand, or one line that says why there is none and what to do."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scaler.runtimes.power import Power
from scaler.runtimes.power_rails import Ina3221Power, Read, TegrastatsPower, find_rails, read_text
from scaler.runtimes.power_rapl import RaplPower, find_zones

__all__ = ["FoundPower", "find_power"]

_TEGRASTATS = ("tegrastats", "--interval", "100")
_NOWHERE = (
    "no power is measured: this system shows neither the sensors of a Jetson (INA3221, tegrastats; the Nano with 2 GB "
    "has none) nor the energy counters of a processor (RAPL; virtual machines hide them); a meter at the plug helps"
)


class FoundPower(NamedTuple):
    """A meter, or why there is none."""

    power: Power | None
    note: str
    """One line: the reason and what to do about it, or what else is to be known of the meter; may be empty."""

    def close(self) -> None:
        """Close the meter, if there is one."""
        if self.power is not None:
            self.power.close()


def find_power(
    root: Path = Path("/"), *, tegrastats: Sequence[str] | None = None, read: Read = read_text
) -> FoundPower:
    """Find the meter: the sensors of a Jetson by their files, else by tegrastats, else the processor's counters.

    The caller closes the meter.

    Args:
        root: Where the system's files begin; another folder in tests.
        tegrastats: How to start it; by default the one on the path, if there is one.
        read: Reads a file.
    """
    reasons: list[str] = []
    rails = find_rails(root, read)
    if rails:
        sensors = Ina3221Power(rails, read)
        if sensors.sample():
            return FoundPower(sensors, _unknown_whole(sensors))
        files = [path for rail in rails for path in rail.files]
        reasons.append(_obstacle(files, "the INA3221 sensors", f"{files[0].parent}/*_input", read))
    command = _on_path() if tegrastats is None else tegrastats
    if command:
        stats = _tegrastats(command)
        if stats is not None:
            return FoundPower(stats, "; ".join(filter(None, (*reasons, _unknown_whole(stats)))))
        reasons.append("tegrastats prints no power rails")
    zones = find_zones(root, read)
    if zones:
        counters = RaplPower(zones, read)
        files = [zone.counter for zone in zones if zone.rail in counters.whole]
        reason = _obstacle(
            files, "the processor's energy counters", f"{zones[0].counter.parent.parent}/*/energy_uj", read
        )
        if not reason:
            return FoundPower(counters, _unknown_whole(counters))
        reasons.append(reason)
    return FoundPower(None, f"no power is measured: {'; '.join(reasons)}" if reasons else _NOWHERE)


def _on_path() -> Sequence[str]:
    return _TEGRASTATS if shutil.which(_TEGRASTATS[0]) else ()


def _tegrastats(command: Sequence[str]) -> TegrastatsPower | None:
    try:
        stats = TegrastatsPower(command)
    except OSError:
        return None
    if stats.rails:
        return stats
    stats.close()
    return None


def _unknown_whole(power: Power) -> str:
    if power.whole:
        return ""
    return f"which of the rails {', '.join(power.rails)} is the whole is not known: rails alone, no total"


def _obstacle(files: Sequence[Path], what: str, pattern: str, read: Read) -> str:
    """Why the first of these files that cannot be read cannot be, and what to do; empty if all can."""
    for path in files:
        try:
            int(read(path))
        except PermissionError:
            return f"{what} may be read by root alone: run as root, or sudo chmod a+r {pattern} until the next start"
        except (OSError, ValueError) as error:
            return f"{what} tell nothing ({path}: {getattr(error, 'strerror', None) or 'not a number'})"
    return ""
