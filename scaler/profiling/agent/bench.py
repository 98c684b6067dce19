"""One network on the device: its engine, its times beside the reference, its layer times.

Python 3.6 and its standard library are enough.
"""
# ruff: noqa: UP006, UP035  (the syntax and the library of Python 3.6)

import contextlib
import json
import shutil
import statistics
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple

from device import FailedError, Recording, StopError, Trtexec, ends_of, fresh, run, tool

LARGEST_SPREAD = 0.10  # between rounds; above it the network is measured again
MOST_TRIES = 3
RUN_TIMEOUT_S = 900


class Settings(NamedTuple):
    """How to measure."""

    rounds: int
    duration: int  # seconds of one timed run; TensorRT 8.0 takes whole ones only
    warm_up: int  # milliseconds
    workspace: int  # MiB


class Bundle(NamedTuple):
    """What to measure."""

    folder: Path
    plan: Dict[str, Any]
    strongly_typed: bool

    @property
    def networks(self) -> List[str]:
        """Ids in the order in which to measure."""
        return [planned["network"] for planned in self.plan["networks"]]

    def model(self, network: str) -> Path:
        """ONNX file of a network."""
        return self.folder / "models" / f"{network}.onnx"


class Timed(NamedTuple):
    """What the rounds of a network say."""

    tries: int
    ratio: float  # time of the network over that of the reference, median
    spread: float


def median_ms(path: Path, warm_up: int) -> float:
    """Median time in an --exportTimes file without the warm-up, which TensorRT before 8.5 writes too."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        times = [float(row["computeMs"]) for row in rows if row["startComputeMs"] >= warm_up]
    except (OSError, ValueError, KeyError, TypeError):
        raise FailedError(f"trtexec wrote no usable {path.name}") from None
    if not times or not all(0 < ms < 1e9 for ms in times):
        raise FailedError(f"trtexec wrote no usable times into {path.name}")
    return statistics.median(times)


def spread(ratios: List[float]) -> float:
    """Range of the middle half over the median."""
    ordered = sorted(ratios)

    def percentile(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    return (percentile(0.75) - percentile(0.25)) / percentile(0.5)


class Bench:
    """Builds, times and profiles on one trtexec; keeps the engine of the reference."""

    def __init__(self, trtexec: Trtexec, settings: Settings, bundle: Bundle, work: Path, build_timeout: int) -> None:
        self.trtexec, self.settings, self.bundle, self.work = trtexec, settings, bundle, work
        self.build_timeout = build_timeout
        self.reference = work / "reference.engine"
        self.log = work / "trtexec.log"
        self.commands: List[str] = []
        self.said = ""  # by trtexec when it last ran the network: of its memory, among others

    def call(self, stage: str, timeout: float, **values: object) -> None:
        """Run one stage of trtexec."""
        command = self.trtexec.command(
            stage,
            warm_up=self.settings.warm_up,
            duration=self.settings.duration,
            workspace=self.settings.workspace,
            **values,
        )
        self.commands.append(" ".join(command))
        run(command, self.log, timeout)

    def build(self, network: str, engine: Path) -> None:
        """Build an engine; the timing cache is replaced only by a whole one."""
        cache, passing = self.work / "timing.cache", self.work / "timing.cache.tmp"
        with contextlib.suppress(OSError):
            passing.unlink()
        if cache.is_file():
            shutil.copyfile(str(cache), str(passing))
        unfinished = engine.with_name(engine.name + ".tmp")
        model = self.bundle.model(network)
        try:
            self.call("build", self.build_timeout, model=model, engine=unfinished, cache=passing)
            if not unfinished.is_file():
                raise FailedError("trtexec wrote no engine")
        except FailedError as failed:
            raise FailedError(f"building the engine of {network}: {failed}") from None
        unfinished.replace(engine)
        if passing.is_file():
            passing.replace(cache)

    def time(self, engine: Path, what: str, times: Path) -> float:
        """Time an engine into a file; the median in ms."""
        try:
            self.call("time", RUN_TIMEOUT_S, engine=engine, times=times)
            return median_ms(times, self.settings.warm_up)
        except FailedError as failed:
            raise FailedError(f"timing {what}: {failed}") from None

    def ready_reference(self) -> float:
        """Make sure of an engine of the reference that runs, and warm the device up with it; its time in ms."""
        passing = self.work / "times.json"
        with contextlib.suppress(FailedError):
            if self.reference.is_file():
                return self.time(self.reference, "the reference", passing)
        try:
            self.build("reference", self.reference)
            return self.time(self.reference, "the reference", passing)
        except FailedError as failed:
            raise StopError(f"the reference cannot be measured: {failed}\n{tail(self.log)}") from None

    def rounds(self, engine: Path, folder: Path, say: Callable[[str], None]) -> List[float]:
        """Time network and reference in turn into a folder; the quotients."""
        quotients: List[float] = []
        before = self.time(self.reference, "the reference", folder / "times-reference-0.json")
        for number in range(self.settings.rounds):
            say(f"round {number + 1} of {self.settings.rounds}")
            network = self.time(engine, "the network", folder / f"times-network-{number}.json")
            self.said = ends_of(self.log)
            after = self.time(self.reference, "the reference", folder / f"times-reference-{number + 1}.json")
            quotients.append(2 * network / (before + after))
            before = after
        return quotients

    def steady_rounds(self, engine: Path, folder: Path, say: Callable[[str], None]) -> Timed:
        """Rounds until they agree; the files of the steadiest are kept."""
        best = Timed(0, 0.0, float("inf"))
        for number in range(1, MOST_TRIES + 1):
            passing = fresh(self.work / "try")
            try:
                quotients = self.rounds(engine, passing, say)
            except FailedError:
                if not best.tries:
                    raise
                break
            best = best._replace(tries=number)
            if spread(quotients) < best.spread:
                best = Timed(number, statistics.median(quotients), spread(quotients))
                for path in passing.iterdir():
                    path.replace(folder / path.name)
            if best.spread <= LARGEST_SPREAD:
                break
            say("the rounds disagree: once more")
        return best

    def profile(self, engine: Path, folder: Path) -> None:
        """Time layer by layer, and the reference right after."""
        files = {name: folder / f"{name}.json" for name in ("profile", "layers")}
        try:
            self.call("profile", RUN_TIMEOUT_S, engine=engine, **files)
            if not files["profile"].is_file():
                raise FailedError("trtexec wrote no profile")
            self.time(self.reference, "the reference", folder / "times-reference-profile.json")
        except FailedError as failed:
            for path in files.values():
                with contextlib.suppress(OSError):
                    path.unlink()
            raise FailedError(f"profiling: {failed}") from None

    def power(self, engine: Path, folder: Path, seconds: int) -> None:
        """Run the network once more beside tegrastats, where there is one; times of this run count for nothing else."""
        if tool("tegrastats") is None:
            return
        settings, lines, times = self.settings, folder / "power.txt", folder / "times-power.json"
        self.settings = settings._replace(duration=seconds)
        try:
            with Recording(lines):
                self.time(engine, "the network beside tegrastats", times)
        except FailedError:
            for path in (lines, times):
                with contextlib.suppress(OSError):
                    path.unlink()
            raise
        finally:
            self.settings = settings


def tail(log: Path) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(ends_of(log).splitlines()[-40:])
    except OSError:
        return ""
