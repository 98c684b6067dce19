"""What was measured of one network: raw samples, layer times, conditions; a JSON file each.

A network is timed in rounds, each beside the same reference network, so that drift of the machine cancels in the
quotient of the two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import NamedTuple, TypeVar, cast, get_args

import numpy as np

from scaler.devices import PRECISIONS
from scaler.files import Reader, read_json, write_atomic
from scaler.runtimes.protocol import Conditions, FloatArray, LayerTime
from scaler.space import Params, Value

T = TypeVar("T")

SCHEMA_VERSION = 1
KIND = "scaler-measurement"
LARGEST_SPREAD = 0.10
"""Spread above which a measurement is repeated, and flagged if it stays."""
BUSY = 1.2
"""Slowdown of the reference from which a round does not count as quiet."""
_OPTIONAL = ("energy", "memory_mib")
"""Keys that files of earlier versions lack, and others where nothing was told."""
LEAST_QUIET = 3
"""Quiet rounds with which the others are not needed."""


class Round(NamedTuple):
    """Raw samples in ms of the network and, just before and after, of the reference: half of them before."""

    reference_ms: tuple[float, ...]
    network_ms: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Time of the network over that of the reference."""
        return median(self.network_ms) / fmean(self.reference_medians)

    @property
    def reference_medians(self) -> tuple[float, float]:
        """What the reference took before and after the network."""
        half = len(self.reference_ms) // 2
        return median(self.reference_ms[:half] or self.reference_ms), median(self.reference_ms[half:])

    def is_quiet(self, quiet_ms: float) -> bool:
        """Whether the reference was about as fast as it is on a quiet machine, before and after the network."""
        return max(self.reference_medians) <= BUSY * quiet_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameEnergy:
    """Energy of a frame, taken in a block of its own beside the timed ones."""

    source: str
    """The meter; energies of different ones do not mix."""
    scope: str
    """What it sees."""
    frame_ms: float
    """From one frame to the next during the block."""
    mj: float | None
    """Millijoules a frame, idle power included; None where the rails do not tell the whole."""
    error_mj: float | None = None
    """Half width of its 90 % interval."""
    idle_w: float | None = None
    """Watts before the first network of the run."""
    rails_mj: Mapping[str, float] = field(default_factory=dict)
    """Millijoules a frame by rail."""
    samples: int = 0
    """Values of the meter that count."""
    lost: int = 0
    """Values that do not, because a rail of the whole could not be read."""
    notes: tuple[str, ...] = ()


class MemoryMib(NamedTuple):
    """Memory of a network in MiB; None where nobody tells."""

    running: float | None = None
    building: float | None = None
    """The peak while its engine was built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One network on one device; `error` is set and there are no rounds where it could not be measured."""

    network: str
    """The candidate's id."""
    params: Params
    """The candidate."""
    conditions: Conditions
    rounds: tuple[Round, ...] = ()
    layers: tuple[LayerTime, ...] = ()
    seconds: float = 0.0
    """What the measurement took, preparation included."""
    tries: int = 1
    warnings: tuple[str, ...] = ()
    """What is doubtful about it: a large spread, throttling, clocks that could not be pinned."""
    error: str = ""
    energy: FrameEnergy | None = None
    """None where no meter was at hand, and in files of earlier versions; so is the memory."""
    memory_mib: MemoryMib | None = None

    def quiet_rounds(self, quiet_ms: float) -> tuple[Round, ...]:
        """The rounds to use: the quiet ones, or all where there are too few.

        Args:
            quiet_ms: What the reference takes on a quiet machine, see `quiet_reference_ms`.
        """
        quiet = tuple(r for r in self.rounds if r.is_quiet(quiet_ms))
        return quiet if len(quiet) >= LEAST_QUIET else self.rounds

    def ratio(self, quiet_ms: float) -> float:
        """Time of the network over that of the reference: the median over the rounds to use."""
        return median(r.ratio for r in self.quiet_rounds(quiet_ms))

    def spread(self, quiet_ms: float) -> float:
        """Range of the middle half of these ratios over their median."""
        low, middle, high = np.percentile([r.ratio for r in self.quiet_rounds(quiet_ms)], (25, 50, 75))
        return float((high - low) / middle)

    @property
    def samples_ms(self) -> FloatArray:
        """All raw samples of the network."""
        return np.concatenate([r.network_ms for r in self.rounds])

    @property
    def p99_ms(self) -> float:
        """99th percentile of the raw samples."""
        return float(np.percentile(self.samples_ms, 99))


def quiet_reference_ms(measurements: Iterable[Measurement]) -> float:
    """What the reference takes on a quiet machine: the 10th percentile over the rounds of all measurements."""
    medians = [median(r.reference_ms) for measurement in measurements for r in measurement.rounds]
    return float(np.percentile(medians, 10))


def write_measurement(measurement: Measurement, path: Path) -> None:
    """Write a measurement, whole or not at all."""
    content = {"schema_version": SCHEMA_VERSION, "kind": KIND, **asdict(measurement)}
    content["rounds"] = [r._asdict() for r in measurement.rounds]
    content["layers"] = [layer._asdict() for layer in measurement.layers]
    content["memory_mib"] = None if measurement.memory_mib is None else measurement.memory_mib._asdict()
    for key in _OPTIONAL:
        if content[key] is None:
            del content[key]
    write_atomic(path, json.dumps(content, allow_nan=False) + "\n")


def read_measurement(path: Path | str) -> Measurement:
    """Read a measurement.

    Raises:
        FileError: The file is missing, cut off or of another kind, or a time is not a positive number.
    """
    reader = read_json(path, schema_version=SCHEMA_VERSION)
    reader.choice("kind", (KIND,))
    error = _text(reader, "error")
    measurement = Measurement(
        network=reader.string("network"),
        params=read_params(reader, "params"),
        conditions=read_conditions(reader.table("conditions")),
        rounds=tuple(_round(table) for table in reader.tables("rounds", at_least=0 if error else 1)),
        layers=tuple(_layer(table) for table in reader.tables("layers")),
        seconds=reader.number("seconds", minimum=0),
        tries=reader.integer("tries", minimum=0),
        warnings=reader.strings("warnings"),
        error=error,
        energy=_energy(reader.table("energy", None)),
        memory_mib=_memory(reader.table("memory_mib", None)),
    )
    reader.finish()
    return measurement


def read_conditions(reader: Reader) -> Conditions:
    """Read the conditions of a measurement."""
    clocks = reader.table("clocks_mhz")
    return Conditions(
        runtime=reader.string("runtime"),
        runtime_version=reader.string("runtime_version"),
        precision=reader.choice("precision", PRECISIONS),
        batch=reader.integer("batch", minimum=1),
        processor=reader.string("processor"),
        power_mode=reader.string("power_mode"),
        clocks_mhz={name: clocks.number(name, minimum=0) for name in clocks.keys},
        clocks_pinned=_optional(reader, "clocks_pinned", reader.boolean),
        temperature_c=_optional(reader, "temperature_c", reader.number),
        throttled=_optional(reader, "throttled", reader.boolean),
        notes=reader.strings("notes"),
    )


def read_params(reader: Reader, key: str) -> Params:
    """Read the parameters of a candidate."""
    raw = reader.raw(key)
    if not isinstance(raw, Mapping) or not all(isinstance(value, get_args(Value)) for value in raw.values()):
        raise reader.error(key, "no parameters", "expected a table of texts, numbers and true or false")
    return cast("Params", dict(raw))


def _optional(reader: Reader, key: str, read: Callable[[str], T]) -> T | None:
    return None if reader.raw(key) is None else read(key)


def _text(reader: Reader, key: str) -> str:
    """A text that may be empty."""
    value = reader.raw(key)
    if not isinstance(value, str):
        raise reader.error(key, f"found {value!r}", "expected a text")
    return value


def _energy(reader: Reader | None) -> FrameEnergy | None:
    if reader is None:
        return None
    rails = reader.table("rails_mj")
    return FrameEnergy(
        source=reader.string("source"),
        scope=reader.string("scope"),
        frame_ms=reader.number("frame_ms", minimum=1e-6),
        mj=_optional(reader, "mj", reader.number),
        error_mj=_optional(reader, "error_mj", reader.number),
        idle_w=_optional(reader, "idle_w", reader.number),
        rails_mj={name: rails.number(name) for name in rails.keys},
        samples=reader.integer("samples", minimum=0),
        lost=reader.integer("lost", minimum=0),
        notes=reader.strings("notes"),
    )


def _memory(reader: Reader | None) -> MemoryMib | None:
    if reader is None:
        return None
    return MemoryMib(_optional(reader, "running", reader.number), _optional(reader, "building", reader.number))


def _round(reader: Reader) -> Round:
    return Round(
        reader.numbers("reference_ms", at_least=1, minimum=1e-6), reader.numbers("network_ms", at_least=1, minimum=1e-6)
    )


def _layer(reader: Reader) -> LayerTime:
    return LayerTime(
        _text(reader, "name"), reader.number("ms", minimum=0), reader.strings("nodes"), _text(reader, "kind")
    )
