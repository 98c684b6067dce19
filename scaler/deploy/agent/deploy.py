#!/usr/bin/env python3
"""Build the engine of a trained network on its device, measure it, and run it on pictures; trtexec is enough.

Python 3.6 and its standard library are enough. `measure.sh` beside it starts it; `measure.py`, `bench.py` and
`device.py` are those of the bundles of `scaler profile`. What comes out, for `scaler import`::

    engine/<name>.engine, .engine.json      the engine itself, to be used here: it stays on the device
    results/plan.json, run.json, system.txt, SHA256SUMS       what was asked for, by what it was measured
    results/idle-power.txt        what tegrastats says with nothing running
    results/networks/<part>/      a part of the work; appears by a rename, so it is whole or not there
        result.json               how it went; `error` is empty where it went well
        before-*.txt, after-*.txt, notes.txt, commands.txt, error.log, SHA256SUMS
    results/networks/engine/      the engine's
        network.engine.json       which engine it is: digests, TensorRT, GPU
        build.log, said.txt       what trtexec said; the lines of the latter tell placement and memory, all of them
        times-reference-<i>.json, times-network-<i>.json      trtexec --exportTimes; one reference more than rounds
        profile.json, layers.json, times-reference-profile.json
        power.txt, times-power.json                           tegrastats during one more run, and the times of that run
    results/networks/pictures-<nnn>/      some of the pictures
        <nnnnn>.json.gz           trtexec --exportOutput of one picture
        engine.txt                digest of the engine that made them
"""
# ruff: noqa: UP006, UP035, UP045  (the syntax and the library of Python 3.6)

import argparse
import contextlib
import gzip
import hashlib
import json
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from bench import RUN_TIMEOUT_S, Bench, Bundle, Settings, Timed
from device import (
    FailedError,
    StopError,
    Trtexec,
    ends_of,
    find_trtexec,
    run,
    sha256,
    write,
)
from measure import POWER_SECONDS, SPARE_DISK_BYTES, Campaign, Progress, lock, pack, read_bundle, stop

ENGINE = "engine"
"""The first part: the rest needs it."""
NETWORK, REFERENCE = "network", "reference"
SAID = re.compile(r"Layers Running on|DlaLayer|GpuLayer|DLA|Mem|Selected Device|Compute Capability", re.IGNORECASE)
LISTED = re.compile(r"Layers running on", re.IGNORECASE)
SAID_BYTES = 2**20
WITH_TRANSFERS = (11,)  # from this version on trtexec copies no inputs unless told to


class Deployed(Bundle):
    """A bundle of one network; its parts all concern the same model."""

    def model(self, network: str) -> Path:
        """ONNX file of the reference, or of the network."""
        name = REFERENCE if network == REFERENCE else NETWORK
        return self.folder / "models" / f"{name}.onnx"


def told(log: str) -> List[str]:
    """The lines of a log that tell placement and memory; TensorRT before 8.2 lists layers in the line below."""
    lines = log.splitlines()
    pairs = zip(["", *lines], lines)  # noqa: B905  (Python 3.6)
    return [line for before, line in pairs if SAID.search(line) or LISTED.search(before)]


class DeployBench(Bench):
    """Builds and times; the network, but not the reference, goes to the DLA where that is wanted."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.telling: Dict[str, List[str]] = {}  # lines about the network, by stage

    @property
    def placement(self) -> List[str]:
        """Flags that place the network."""
        core = self.bundle.plan["dla"]
        return [] if core is None else [f"--useDLACore={core}", "--allowGPUFallback"]

    def call(self, stage: str, timeout: float, **values: object) -> None:
        """Run one stage of trtexec."""
        settings = self.settings
        command = self.trtexec.command(
            stage, warm_up=settings.warm_up, duration=settings.duration, workspace=settings.workspace, **values
        )
        is_network = Path(str(values["engine"])).parent != self.work  # where the reference lies
        if is_network:
            command += self.placement
        self.commands.append(" ".join(command))
        run(command, self.log, timeout)
        if is_network:
            self.telling[stage] = told(self.log.read_bytes().decode("utf-8", "replace").replace("\0", ""))

    def infer(self, engine: Path, inputs: Path, outputs: Path) -> None:
        """Run an engine once on an input in a file, its outputs into another."""
        transfers = ["--includeDataTransfers"] if self.trtexec.version >= WITH_TRANSFERS else []
        command = [
            self.trtexec.path,
            f"--loadEngine={engine}",
            f"--loadInputs={self.bundle.plan['engine']['input']}:{inputs}",
            f"--exportOutput={outputs}",
            *("--iterations=1", "--avgRuns=1", "--warmUp=0", "--duration=0"),
            *transfers,
            *self.placement,
        ]
        self.commands.append(" ".join(command))
        run(command, self.log, RUN_TIMEOUT_S)
        if not outputs.is_file():
            raise FailedError("trtexec wrote no outputs")


class Tables:
    """From the bytes of a fitted picture to the network's input, by tables: the same numbers as at home.

    Args:
        content: 256 numbers of 32 bits a channel.
    """

    def __init__(self, content: bytes) -> None:
        channels = [content[start : start + 1024] for start in range(0, len(content), 1024)]
        self.bytes_of = [[channel[place::4] for place in range(4)] for channel in channels]

    def floats(self, planes: bytes) -> bytes:
        """The numbers of a picture, whose bytes lie channel by channel."""
        side = len(planes) // len(self.bytes_of)
        values = bytearray(4 * len(planes))
        for channel, tables in enumerate(self.bytes_of):
            plane = planes[channel * side : (channel + 1) * side]
            for place, table in enumerate(tables):
                values[4 * channel * side + place : 4 * (channel + 1) * side : 4] = plane.translate(table)
        return bytes(values)


class Steps(Progress):
    """Progress whose last word a part may choose."""

    said = ""

    def end(self, text: str, seconds: float) -> None:
        """A part is done."""
        super().end(self.said or text, seconds)
        self.said = ""


class Deployment(Campaign):
    """All parts of the work, those done already left alone."""

    def __init__(self, bundle: Bundle, bench: Bench, out: Path, root: Path) -> None:
        super().__init__(bundle, bench, out, root)
        name = bundle.plan["name"]
        self.engine = bundle.folder / "engine" / f"{name}.engine"
        self.facts = self.engine.with_name(self.engine.name + ".json")
        self.tables = Tables((bundle.folder / "pictures" / "table.f32").read_bytes()) if self.pictures else None

    @property
    def pictures(self) -> List[Dict[str, Any]]:
        """The pictures to run on."""
        return self.bundle.plan["pictures"]

    def forget_another_engine(self) -> None:
        """Begin again where the engine of which results are there is gone, so that all are of one."""
        if not any(self.done.iterdir()) or self.finished(ENGINE).get("error"):
            return  # with an engine that failed nothing was run
        if self.finished(ENGINE) and self.engine.is_file():
            facts = json.loads((self.done / ENGINE / "network.engine.json").read_text(encoding="utf-8"))
            if sha256(self.engine) == facts["engine_sha256"]:
                return
        print(f"{self.engine} is gone or another one: beginning again", flush=True)
        shutil.rmtree(str(self.done))
        self.done.mkdir()

    def time_and_profile(self, network: str, folder: Path, notes: List[str], say: Progress) -> Timed:
        """Do one part; its name is that of the folder."""
        if network == ENGINE:
            return self.measure_engine(folder, notes, say)
        return self.run_on_pictures(network, folder, say)

    def measure_engine(self, folder: Path, notes: List[str], say: Progress) -> Timed:
        """Build the engine, keep it, time it beside the reference, layer by layer, and once more beside tegrastats."""
        say.stage("building the engine")
        self.engine.parent.mkdir(exist_ok=True)
        start = time.monotonic()
        self.bench.build(NETWORK, self.engine)
        seconds = time.monotonic() - start
        write(folder / "build.log", ends_of(self.bench.log))
        write(folder / "network.engine.json", self.tell_engine(seconds))
        shutil.copyfile(str(folder / "network.engine.json"), str(self.facts))
        timed = self.bench.steady_rounds(self.engine, folder, say.stage)
        said = [*self.bench.telling["build"], *self.bench.telling["time"]]
        write(folder / "said.txt", "\n".join(said)[:SAID_BYTES] + "\n")
        for stage, measure in (
            ("power", lambda: self.bench.power(self.engine, folder, self.power_seconds)),
            ("layer by layer", lambda: self.bench.profile(self.engine, folder)),
        ):
            say.stage(stage)
            try:
                measure()
            except FailedError as failed:
                notes.append(str(failed))
        return timed

    def tell_engine(self, seconds: float) -> str:
        """What stands beside the engine."""
        gpu = re.search(r"\[I\] Selected Device: (.+)", "\n".join(self.bench.telling["build"]))
        facts = {
            **self.bundle.plan["engine"],
            "engine_sha256": sha256(self.engine),
            "tensorrt": self.bench.trtexec.shown,
            "gpu": gpu.group(1).strip() if gpu else "unknown",
            "build_seconds": round(seconds, 1),
        }
        return json.dumps(facts, indent=1) + "\n"

    def run_on_pictures(self, part: str, folder: Path, say: Progress) -> Timed:
        """Run the engine on the pictures of a part, one process each."""
        engine = json.loads((self.done / ENGINE / "network.engine.json").read_text(encoding="utf-8"))
        write(folder / "engine.txt", engine["engine_sha256"] + "\n")
        digests = (self.bundle.folder / "pictures" / "inputs.txt").read_text(encoding="utf-8").splitlines()
        wanted = [line.split()[0] for line in digests]
        inputs, outputs = self.bench.work / "input.f32", self.bench.work / "outputs.json"
        mine = [number for number, picture in enumerate(self.pictures) if picture["part"] == part]
        for place, number in enumerate(mine, start=1):
            say.stage(f"picture {place} of {len(mine)}")
            planes = (self.bundle.folder / "pictures" / f"{number:05d}.u8").read_bytes()
            values = self.tables.floats(planes)
            if hashlib.sha256(values).hexdigest() != wanted[number]:
                raise FailedError("the inputs are others than at home; unpack the bundle again")
            inputs.write_bytes(values)
            with contextlib.suppress(OSError):
                outputs.unlink()
            try:
                self.bench.infer(self.engine, inputs, outputs)
            except FailedError as failed:
                raise FailedError(f"picture {self.pictures[number]['name']}: {failed}") from None
            (folder / f"{number:05d}.json.gz").write_bytes(gzip.compress(outputs.read_bytes(), 6))
        say.said = f"{len(mine)} pictures"
        return Timed(1, 1.0, 0.0)


# --- the command ---


def check_disk(bundle: Bundle, out: Path) -> None:
    """Refuse to start where engines or results would not fit."""
    models = sum(bundle.model(name).stat().st_size for name in (NETWORK, REFERENCE))
    needed = 4 * models + 2 * bundle.plan["result_bytes"] + SPARE_DISK_BYTES
    free = shutil.disk_usage(str(out)).free
    if free < needed:
        raise StopError(
            f"{out}: {free // 2**20} MiB are free, {needed // 2**20 + 1} are needed; make room or use --out"
        )


def work_through(work: Deployment, retry_failed: bool) -> None:
    """Do what remains."""
    work.forget_another_engine()
    todo = work.todo(retry_failed)
    known = len(work.bundle.networks) - len(todo)
    print(f"TensorRT {work.bench.trtexec.shown}: {len(todo)} parts to do, {known} done already", flush=True)
    if not todo:
        return
    say = Steps(len(todo))
    if ENGINE in todo:
        say.start(0, REFERENCE)
        say.stage("building and warming up")
        work.bench.ready_reference()
    for place, part in enumerate(todo, start=1):
        if part != ENGINE and work.finished(ENGINE).get("error", "missing"):
            return  # without an engine there is nothing to run
        say.start(place, part)
        try:
            work.measure(part, say)
        except KeyboardInterrupt:
            work.forget_start(part)
            raise


def summary(work: Deployment, archive: Path) -> str:
    """What came of it and what to do next."""
    results = {part: work.finished(part) for part in work.bundle.networks}
    failed = {part: result["error"] for part, result in results.items() if result and result["error"]}
    whole = sum(bool(result) for result in results.values()) - len(failed)
    lines = [f"{whole} parts done, {len(failed)} failed, {len(results) - whole - len(failed)} to do"]
    lines += [f"{part} failed: {error}; --retry-failed tries again" for part, error in failed.items()]
    if work.engine.is_file():
        lines.append(f"the engine stays here, to be used here: {work.engine}")
    lines.append(f"copy {archive} back and read it with: scaler import {archive.name}")
    return "\n".join(lines)


def read_arguments(arguments: Optional[List[str]]) -> argparse.Namespace:
    """The command line."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(
        prog="measure.sh",
        description="Build, measure and run the network of this bundle. Killed at any point, it goes on when run "
        "again.",
    )

    def number(text: str) -> int:
        if not text.isdigit() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of 1 or more")
        return int(text)

    parser.add_argument("--out", type=Path, default=here / "results", help="folder for the results (%(default)s)")
    parser.add_argument("--trtexec", help="the trtexec to use; default: the one of JetPack")
    parser.add_argument("--retry-failed", action="store_true", help="do again what failed before")
    parser.add_argument("--pack", action="store_true", help="only pack what is done already")
    for name, default, text in (
        ("rounds", 4, "timed runs of the network, the reference before and after each"),
        ("duration", 3, "seconds of a timed run"),
        ("power-seconds", POWER_SECONDS, "seconds of the run beside which power is read"),
        ("warm-up", 1000, "milliseconds before a timed run"),
        ("workspace", 512, "MiB of memory that TensorRT may use to build"),
        ("build-timeout", 3600, "seconds until a build is given up"),
    ):
        parser.add_argument(f"--{name}", type=number, default=default, help=f"{text} (%(default)s)")
    parser.add_argument("--system-root", type=Path, default=Path("/"), help="where sys, proc and etc are (%(default)s)")
    return parser.parse_args(arguments)


def deploy(options: argparse.Namespace) -> None:
    """Do all, then pack."""
    bundle = Deployed(*read_bundle(Path(__file__).resolve().parent))
    options.out.mkdir(parents=True, exist_ok=True)
    out = options.out.resolve()
    if re.search("[,:]", str(out)):
        raise StopError(f"{out}: trtexec cannot read inputs below a folder with ',' or ':' in its name; use --out")
    with lock(out):
        trtexec: Trtexec = find_trtexec(options.trtexec, bundle.plan["precision"], bundle.strongly_typed)
        settings = Settings(options.rounds, options.duration, options.warm_up, options.workspace)
        work = out / "work"
        work.mkdir(exist_ok=True)
        bench = DeployBench(trtexec, settings, bundle, work, options.build_timeout)
        deployment = Deployment(bundle, bench, out, options.system_root)
        deployment.prepare()
        deployment.power_seconds = options.power_seconds
        if not options.pack:
            check_disk(bundle, out)
            deployment.note_idle(options.power_seconds / 2)
            work_through(deployment, options.retry_failed)
        print(summary(deployment, pack(out)))


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command; the exit code."""
    options = read_arguments(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup has it ignored
            signal.signal(number, stop)
    try:
        deploy(options)
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
