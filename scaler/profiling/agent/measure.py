#!/usr/bin/env python3
"""Measure the networks of a scaler bundle with trtexec, on the device.

Python 3.6 and its standard library are enough. `measure.sh` beside it starts it, and measures by itself, more plainly,
where there is no Python. A network is timed in rounds, its own time between two of the reference network, so that drift
of the device cancels in the quotient. What comes out, for `scaler profile import`::

    results/idle-power.txt                                    what tegrastats says with nothing running
    results/plan.json, run.json, system.txt, SHA256SUMS       what was asked for, by what it was measured
    results/networks/<id>/        one network; appears by a rename, so it is whole or not there
        result.json               how it went; `error` is empty where it went well
        times-reference-<i>.json, times-network-<i>.json      trtexec --exportTimes; one reference more than rounds
        profile.json, layers.json                             --exportProfile and, from TensorRT 8.2, --exportLayerInfo
        times-reference-profile.json                          the reference again, right after the profile
        power.txt, times-power.json                           tegrastats during one more run, and the times of that run
        before-*.txt, after-*.txt, notes.txt                  what the system tells, and what it does not
        build.log, run.log, error.log, commands.txt, SHA256SUMS
"""
# ruff: noqa: UP006, UP035, UP045  (the syntax and the library of Python 3.6)

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import tarfile
import time
from pathlib import Path
from typing import IO, Any, Dict, List, Optional

from bench import Bench, Bundle, Settings, Timed, tail
from device import (
    FIXED_FILES,
    SUMS,
    FailedError,
    Recording,
    StopError,
    damaged,
    ends_of,
    find_trtexec,
    fresh,
    note_conditions,
    sha256,
    texts_of,
    tool,
    write,
    write_sums,
)

SCHEMA_VERSION = 1
POWER_SECONDS = 6
MOST_STARTS = 3  # of a network during which the device or this program died
SPARE_DISK_BYTES = 64 * 2**20
RESULT_BYTES = 2**20  # what the files of one network take, roughly
ARCHIVE_FOLDER = "scaler-results"


def read_bundle(folder: Path) -> Bundle:
    """The bundle that this program lies in, checked to be whole."""
    if not (folder / SUMS).is_file():
        raise StopError(f"{folder} is no whole bundle: there is no {SUMS}; unpack the bundle again")
    broken = damaged(folder)
    if broken:
        raise StopError(f"the bundle is damaged: {broken} is missing or changed; copy and unpack it again")
    plan, bundle = (json.loads((folder / name).read_text(encoding="utf-8")) for name in ("plan.json", "bundle.json"))
    return Bundle(folder, plan, bundle["strongly_typed"])


def check_disk(bundle: Bundle, out: Path) -> None:
    """Refuse to start where engines or results would not fit."""
    sizes = [bundle.model(network).stat().st_size for network in [*bundle.networks, "reference"]]
    needed = 3 * max(sizes) + 2 * sizes[-1] + len(sizes) * RESULT_BYTES + SPARE_DISK_BYTES
    free = shutil.disk_usage(str(out)).free
    if free < needed:
        raise StopError(
            f"{out}: {free // 2**20} MiB are free, {needed // 2**20 + 1} are needed; make room or use --out"
        )


class Progress:
    """Says how far it is: a line a network, and on a terminal what is being done now."""

    def __init__(self, total: int) -> None:
        self.total, self.place, self.network = total, 0, ""
        self.live = sys.stdout.isatty()
        self.seconds: List[float] = []

    def start(self, place: int, network: str) -> None:
        """A network begins."""
        self.place, self.network = place, network

    def stage(self, text: str) -> None:
        """Show what is being done, where it can be replaced later."""
        if self.live:
            print(f"\r[{self.place:>3}/{self.total}] {self.network}: {text[:60]:<60}", end="", flush=True)

    def end(self, text: str, seconds: float) -> None:
        """A network is done."""
        self.seconds.append(seconds)
        left = (self.total - self.place) * sum(self.seconds) / len(self.seconds)
        remaining = f"; about {duration_text(left)} left" if left else ""
        if self.live:
            print("\r", end="")
        print(
            f"[{self.place:>3}/{self.total}] {self.network}: {text}, {duration_text(seconds)}{remaining}".ljust(79),
            flush=True,
        )


def duration_text(seconds: float) -> str:
    """A time in words: 45 s, 12 min, 3 h 5 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class Campaign:
    """All networks of a bundle, those measured already left alone."""

    def __init__(self, bundle: Bundle, bench: Bench, out: Path, root: Path) -> None:
        self.bundle, self.bench, self.out, self.root = bundle, bench, out, root
        self.done, self.begun = out / "networks", out / "work" / "begun"
        self.power_seconds = POWER_SECONDS

    def prepare(self) -> None:
        """Write down what is measured by what; refuse to go on with results of something else."""
        header = {
            "schema_version": SCHEMA_VERSION,
            "kind": "scaler-device-run",
            "tensorrt": self.bench.trtexec.shown,
            "strongly_typed": self.bundle.strongly_typed,
            "bundle_sha256": sha256(self.bundle.folder / SUMS),
            **self.bench.settings._asdict(),
        }
        for folder in (self.done, self.begun):
            folder.mkdir(parents=True, exist_ok=True)
        if damaged(self.out) is None:
            known = json.loads((self.out / "run.json").read_text(encoding="utf-8"))
            for name, value in header.items():
                if known.get(name) != value:
                    found = f"{name} was {known.get(name)} and is {value} now"
                    raise StopError(f"{self.out} holds results of another run: {found}; name another folder with --out")
            return
        if any(self.done.iterdir()):
            raise StopError(f"{self.out} holds results, but their run.json is damaged; name another folder with --out")
        shutil.copyfile(str(self.bundle.folder / "plan.json"), str(self.out / "plan.json"))
        write(self.out / "run.json", json.dumps(header, indent=1) + "\n")
        write(self.out / "system.txt", texts_of(self.root, FIXED_FILES))
        write_sums(self.out)

    def note_idle(self, seconds: float) -> None:
        """Write down once what tegrastats says before anything runs."""
        path, passing = self.out / "idle-power.txt", self.out / "work" / "idle-power.txt"
        if path.is_file() or tool("tegrastats") is None:
            return
        with Recording(passing):
            time.sleep(seconds)
        passing.replace(path)
        write_sums(self.out)

    def finished(self, network: str) -> Dict[str, Any]:
        """The result of a network that is measured already; empty where it is not, or is damaged."""
        folder = self.done / network
        if damaged(folder) is not None:
            return {}
        result: Dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return result

    def todo(self, retry_failed: bool) -> List[str]:
        """The networks that remain."""
        results = {network: self.finished(network) for network in self.bundle.networks}
        return [network for network, result in results.items() if not result or (retry_failed and result["error"])]

    def measure(self, network: str, say: Progress) -> None:
        """Measure one network, or write down why it cannot be; it appears in the results when all is done."""
        start = time.monotonic()
        folder = fresh(self.out / "work" / "current")
        notes: List[str] = []
        note_conditions(folder, "before", notes, self.root)
        self.bench.commands.clear()
        timed, error = Timed(0, 0.0, 0.0), ""
        try:
            self.check_starts(network)
            timed = self.time_and_profile(network, folder, notes, say)
        except FailedError as failed:
            error = str(failed)
            for path in folder.glob("*.json"):
                path.unlink()
            write(folder / "error.log", tail(self.bench.log) + "\n")
        note_conditions(folder, "after", notes, self.root)
        seconds = time.monotonic() - start
        result = {
            "schema_version": SCHEMA_VERSION,
            "kind": "scaler-device-result",
            "network": network,
            "model_sha256": sha256(self.bundle.model(network)),
            "tries": timed.tries,
            "seconds": round(seconds, 1),
            "error": error,
        }
        write(folder / "result.json", json.dumps(result, indent=1) + "\n")
        write(folder / "notes.txt", "".join(f"{note}\n" for note in notes))
        write(folder / "commands.txt", "".join(f"{command}\n" for command in self.bench.commands))
        self.finish(network, folder)
        say.end(error or f"{timed.ratio:.3f} x the reference, spread {100 * timed.spread:.1f} %", seconds)

    def check_starts(self, network: str) -> None:
        """Count how often a network was begun: one that takes the device down is left out at last."""
        mark = self.begun / network
        starts = len(mark.read_text()) if mark.is_file() else 0
        if starts >= MOST_STARTS:
            self.bench.log.write_text("")
            raise FailedError(f"the device or this program died {starts} times while it was measured")
        write(mark, "x" * (starts + 1))
        os.sync()

    def time_and_profile(self, network: str, folder: Path, notes: List[str], say: Progress) -> Timed:
        """Fill the folder of a network with what trtexec writes."""
        engine = self.bench.work / f"{network}.engine"
        try:
            say.stage("building the engine")
            self.bench.build(network, engine)
            write(folder / "build.log", ends_of(self.bench.log))
            timed = self.bench.steady_rounds(engine, folder, say.stage)
            write(folder / "run.log", self.bench.said)
            for stage, measure in (
                ("power", lambda: self.bench.power(engine, folder, self.power_seconds)),
                ("layer by layer", lambda: self.bench.profile(engine, folder)),
            ):
                say.stage(stage)
                try:
                    measure()
                except FailedError as failed:
                    notes.append(str(failed))
            return timed
        finally:
            for path in self.bench.work.glob(f"{network}.engine*"):
                path.unlink()

    def finish(self, network: str, folder: Path) -> None:
        """Give a finished folder its place."""
        write_sums(folder)
        os.sync()
        shutil.rmtree(str(self.done / network), ignore_errors=True)
        folder.replace(self.done / network)
        self.forget_start(network)

    def forget_start(self, network: str) -> None:
        """A network that ended in an orderly way, or was stopped by the user, was not begun in vain."""
        with contextlib.suppress(OSError):
            (self.begun / network).unlink()


# --- the command ---


def pack(out: Path) -> Path:
    """Pack the results into one archive beside their folder, with its checksum."""
    archive = out.with_name(out.name + ".tar.gz")
    passing = archive.with_name(archive.name + ".tmp")
    top = sorted(path for path in out.iterdir() if path.is_file() and not path.name.startswith("."))
    with tarfile.open(str(passing), "w:gz") as tar:
        for path in [*top, *sorted((out / "networks").glob("*/*"))]:
            tar.add(str(path), f"{ARCHIVE_FOLDER}/{path.relative_to(out)}", recursive=False)
    passing.replace(archive)
    write(archive.with_name(archive.name + ".sha256"), f"{sha256(archive)}  {archive.name}\n")
    return archive


def lock(out: Path) -> IO[str]:
    """Keep a second run away from the same folder; the lock goes with this program, however it ends."""
    stream = (out / ".lock").open("w")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StopError(f"another run is at work in {out}") from None
    return stream


def work_through(campaign: Campaign, retry_failed: bool) -> None:
    """Measure what remains."""
    todo = campaign.todo(retry_failed)
    known = len(campaign.bundle.networks) - len(todo)
    print(
        f"TensorRT {campaign.bench.trtexec.shown}: {len(todo)} networks to measure, {known} measured already",
        flush=True,
    )
    if not todo:
        return
    for path in campaign.bench.work.glob("*.engine*"):  # left by a run that was killed
        if path != campaign.bench.reference:
            path.unlink()
    say = Progress(len(todo))
    say.start(0, "reference")
    say.stage("building and warming up")
    campaign.bench.ready_reference()
    for place, network in enumerate(todo, start=1):
        say.start(place, network)
        try:
            campaign.measure(network, say)
        except KeyboardInterrupt:
            campaign.forget_start(network)
            raise


def summary(campaign: Campaign, archive: Path) -> str:
    """What came of it and what to do next."""
    results = {network: campaign.finished(network) for network in campaign.bundle.networks}
    failed = [network for network, result in results.items() if result and result["error"]]
    whole = sum(bool(result) for result in results.values()) - len(failed)
    text = f"{whole} measured, {len(failed)} failed, {len(results) - whole - len(failed)} to do"
    if failed:
        text += f" (failed: {', '.join(failed[:8])}{' ...' if len(failed) > 8 else ''}; --retry-failed tries again)"
    return f"{text}\ncopy {archive} back and read it with: scaler profile import {archive.name}"


def read_arguments(arguments: Optional[List[str]]) -> argparse.Namespace:
    """The command line."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(
        prog="measure.sh",
        description="Measure the networks of this bundle. Killed at any point, it goes on when run again.",
    )

    def number(text: str) -> int:
        if not text.isdigit() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 1 or more")
        return int(text)

    parser.add_argument("--out", type=Path, default=here / "results", help="folder for the results (%(default)s)")
    parser.add_argument("--trtexec", help="the trtexec to use; default: the one of JetPack")
    parser.add_argument("--retry-failed", action="store_true", help="measure again what failed before")
    parser.add_argument("--pack", action="store_true", help="only pack what is measured already")
    for name, default, text in (
        ("rounds", 4, "timed runs of a network, the reference before and after each"),
        ("duration", 3, "seconds of a timed run"),
        ("power-seconds", POWER_SECONDS, "seconds of the run beside which power is read"),
        ("warm-up", 1000, "milliseconds before a timed run"),
        ("workspace", 512, "MiB of memory that TensorRT may use to build"),
        ("build-timeout", 3600, "seconds until a build is given up"),
    ):
        parser.add_argument(f"--{name}", type=number, default=default, help=f"{text} (%(default)s)")
    parser.add_argument("--system-root", type=Path, default=Path("/"), help="where sys, proc and etc are (%(default)s)")
    return parser.parse_args(arguments)


def measure_all(options: argparse.Namespace) -> None:
    """Measure, then pack."""
    bundle = read_bundle(Path(__file__).resolve().parent)
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out.resolve()
    with lock(out):
        trtexec = find_trtexec(options.trtexec, bundle.plan["precision"], bundle.strongly_typed)
        settings = Settings(options.rounds, options.duration, options.warm_up, options.workspace)
        work = out / "work"
        work.mkdir(exist_ok=True)
        campaign = Campaign(
            bundle, Bench(trtexec, settings, bundle, work, options.build_timeout), out, options.system_root
        )
        campaign.prepare()
        campaign.power_seconds = options.power_seconds
        if not options.pack:
            check_disk(bundle, out)
            campaign.note_idle(options.power_seconds / 2)
            work_through(campaign, options.retry_failed)
        print(summary(campaign, pack(out)))


def stop(_number: int, _frame: object) -> None:
    """End in an orderly way when the terminal goes away or the system shuts down."""
    raise KeyboardInterrupt


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command; the exit code."""
    options = read_arguments(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup has it ignored
            signal.signal(number, stop)
    try:
        measure_all(options)
    except StopError as reason:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {error}; run again to go on", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; run again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
