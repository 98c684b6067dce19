"""Energy and memory of a network beside its times: each in a block of its own, never while latencies are taken.

A frame costs the mean watts of the load times the milliseconds from one frame to the next. A runtime in this process
fills the block with its load. One with a process of its own (trtexec) loads and warms up first and writes its times
last, so that only the values count that lie safely within the load, which ends the block.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from scaler.errors import FileError
from scaler.files import read_json, write_atomic
from scaler.profiling.measurement import FrameEnergy, MemoryMib
from scaler.runtimes.power import SETTLE_SECONDS, Power, PowerReading, PowerSampler
from scaler.runtimes.power_find import FoundPower
from scaler.runtimes.power_memory import PeakMemory, TellsMemory
from scaler.runtimes.protocol import FloatArray, Runtime, Session

__all__ = ["NO_METER", "Meter", "energy_of_reading", "measure_energy_of", "memory_of", "metered", "prepared"]

IDLE_FILE = "idle.json"
"""In the folder of a run: the power of the idle board, which does not depend on the network."""
SCHEMA_VERSION = 1
KIND = "scaler-idle"
_IN_PROCESS = "onnxruntime"
TAIL_SECONDS = 1.0
"""End of the block that does not count where the load runs in a process of its own, which still has to end."""
SLOWER = 0.05
"""How far the frame time of the block may be from that of the timed rounds without a note."""
_FILLED = 0.95
"""Share of a block that the load must take to count as all of it."""


class Meter(NamedTuple):
    """What measures power during a run, or why nothing does."""

    power: Power | None
    note: str = ""
    idle_w: float | None = None


NO_METER = Meter(None)
"""Where nobody asked for power."""


@contextmanager
def metered(found: FoundPower | None, folder: Path | None, idle_seconds: float) -> Iterator[Meter]:
    """The meter of a run: looks at the idle board once, and is closed at the end.

    Args:
        found: What `find_power` found; None where nobody asked for power.
        folder: Of the run, where the idle power is kept; None keeps nothing.
        idle_seconds: How long to look at the idle board; 0 leaves it out.
    """
    if found is None or found.power is None:
        yield NO_METER if found is None else Meter(None, found.note)
        return
    try:
        yield Meter(found.power, found.note, _idle_w(found.power, folder, idle_seconds))
    finally:
        found.close()


def measure_energy_of(session: Session, samples_ms: FloatArray, meter: Meter, seconds: float) -> FrameEnergy | None:
    """Energy of the frames of a network that is ready and was timed; None without a meter.

    Args:
        session: The network.
        samples_ms: Its raw times, which say how many frames fill the block.
        meter: What measures.
        seconds: Length of the load.
    """
    if meter.power is None:
        return None
    usual = float(np.median(samples_ms))
    runs = max(1, math.ceil(seconds * 1e3 / usual))
    sampler = PowerSampler(meter.power)
    with sampler:
        begin = time.perf_counter()
        samples = session.time(runs)
        block = time.perf_counter() - begin
    load = float(samples.sum()) * 1e-3
    own_process = load < _FILLED * block
    reading = sampler.reading(last=load - SETTLE_SECONDS, tail=TAIL_SECONDS) if own_process else sampler.reading()
    return energy_of_reading(reading, float(samples.mean()), usual, meter.idle_w)


def energy_of_reading(reading: PowerReading, frame_ms: float, usual_ms: float, idle_w: float | None) -> FrameEnergy:
    """Energy of a frame from the power of a block of frames.

    Args:
        reading: Power of the block.
        frame_ms: From one frame of it to the next.
        usual_ms: The same where latencies were taken.
        idle_w: Watts with nothing running.
    """
    notes = list(reading.notes)
    if abs(frame_ms / usual_ms - 1) > SLOWER:
        word = "slower" if frame_ms > usual_ms else "faster"
        notes.append(f"the energy block ran {100 * abs(frame_ms / usual_ms - 1):.0f} % {word} than the timed ones")
    return FrameEnergy(
        source=reading.source,
        scope=reading.scope,
        frame_ms=frame_ms,
        mj=None if reading.total_w is None else reading.total_w * frame_ms,
        error_mj=None if reading.error_w is None else reading.error_w * frame_ms,
        idle_w=idle_w,
        rails_mj={rail: watts * frame_ms for rail, watts in reading.watts.items()},
        samples=reading.samples,
        lost=reading.lost,
        notes=tuple(notes),
    )


@contextmanager
def prepared(runtime: Runtime, model: Path) -> Iterator[tuple[Session, float | None]]:
    """A network made ready, and the MiB by which this process grew, where the network runs in it and the system tells.

    Raises:
        UserError: See `Runtime.prepare`.
    """
    with PeakMemory() as peak:
        session = runtime.prepare(model)
    with session:
        yield session, peak.mib if runtime.name == _IN_PROCESS else None


def memory_of(session: Session, grown_mib: float | None) -> MemoryMib | None:
    """Memory of a network that has run: what its session tells, else by how much the process grew.

    None where neither is known.
    """
    memory = MemoryMib(grown_mib)
    if hasattr(type(session), "memory"):  # not isinstance, which would ask the property
        told = cast("TellsMemory", session).memory
        memory = MemoryMib(told.running, told.building)
    return memory if any(value is not None for value in memory) else None


def _idle_w(power: Power, folder: Path | None, seconds: float) -> float | None:
    """Watts of the idle board: as kept in the folder where the same meter took them, else measured now."""
    path = None if folder is None else folder / IDLE_FILE
    if path is not None and path.exists():
        with suppress(FileError):  # damaged or of another meter: measured again
            return _read_idle(path, power)
    if seconds <= 0:
        return None
    with PowerSampler(power, settle=min(SETTLE_SECONDS, seconds / 2)) as sampler:
        time.sleep(seconds)
    watts = sampler.reading().total_w
    if path is not None and watts is not None:
        content = {"schema_version": SCHEMA_VERSION, "kind": KIND, "source": power.source, "scope": power.scope}
        write_atomic(path, json.dumps({**content, "watts": watts}) + "\n")
    return watts


def _read_idle(path: Path, power: Power) -> float:
    """The idle power on file.

    Raises:
        FileError: It is damaged, or another meter took it.
    """
    reader = read_json(path, schema_version=SCHEMA_VERSION)
    reader.choice("kind", (KIND,))
    reader.choice("source", (power.source,))
    reader.choice("scope", (power.scope,))
    return reader.number("watts", minimum=0)
