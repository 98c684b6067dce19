"""What `measure.py` asks of the device: files, programs, trtexec and its flags, the conditions.

Python 3.6 and its standard library are enough.
"""
# ruff: noqa: UP006, UP035, UP045  (the syntax and the library of Python 3.6)

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence, Tuple

LOG_BYTES = 32 * 2**10  # kept of each end of a log
TRTEXEC_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/usr/local/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")
TOOL_PLACES = ("/usr/sbin", "/usr/bin", "/usr/local/bin", "/sbin", "/bin")
SUMS = "SHA256SUMS"

OLDEST = (8, 0)
EVER = (1000,)
FLAGS = (  # stage, from this version on, before this one, flag; from sampleOptions.cpp of TensorRT 8.0 to 11.1
    ("build", OLDEST, (8, 4), "--workspace={workspace}"),
    ("build", (8, 4), EVER, "--memPoolSize=workspace:{workspace}"),
    ("build", OLDEST, (8, 6), "--buildOnly"),
    ("build", (8, 6), EVER, "--skipInference"),
    ("build", (8, 6), EVER, "--maxAuxStreams=0"),  # layers that overlap cannot be timed one by one
    ("build", OLDEST, (8, 2), "--nvtxMode=verbose"),
    ("build", (8, 2), EVER, "--profilingVerbosity=detailed"),
    ("build", OLDEST, EVER, "--timingCacheFile={cache}"),
    ("build", OLDEST, EVER, "--onnx={model}"),
    ("build", OLDEST, EVER, "--saveEngine={engine}"),
    ("run", OLDEST, EVER, "--loadEngine={engine}"),
    ("run", OLDEST, (11,), "--noDataTransfers"),
    ("run", OLDEST, (11,), "--useSpinWait"),
    ("run", (11,), EVER, "--noCudaGraph"),  # the others have none either
    ("run", OLDEST, EVER, "--warmUp={warm_up}"),
    ("run", OLDEST, EVER, "--duration={duration}"),
    ("time", OLDEST, EVER, "--exportTimes={times}"),
    ("profile", OLDEST, EVER, "--dumpProfile"),
    ("profile", OLDEST, EVER, "--exportProfile={profile}"),
    ("profile", (8, 2), EVER, "--profilingVerbosity=detailed"),
    ("profile", (8, 2), EVER, "--exportLayerInfo={layers}"),
)
STAGES = {"build": ("build",), "time": ("run", "time"), "profile": ("run", "profile")}
PRECISION_FLAGS = {"fp32": ("--noTF32",), "tf32": (), "fp16": ("--fp16",), "int8": ("--int8", "--fp16")}
ROOT_TOOLS = (("nvpmodel", ("-q",)), ("jetson_clocks", ("--show",)))
FIXED_FILES = (  # what the system is; below the root
    "proc/device-tree/model",
    "proc/device-tree/compatible",
    "proc/version",
    "etc/nv_tegra_release",
    "etc/nvpmodel.conf",
)
STATE_FILES = (  # how it is at the moment
    "proc/meminfo",
    "var/lib/nvpmodel/status",
    "sys/class/devfreq/*/cur_freq",
    "sys/class/devfreq/*/min_freq",
    "sys/class/devfreq/*/max_freq",
    "sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_*_freq",
    "sys/class/thermal/thermal_zone*/type",
    "sys/class/thermal/thermal_zone*/temp",
    "sys/class/thermal/cooling_device*/type",
    "sys/class/thermal/cooling_device*/cur_state",
    "sys/class/hwmon/hwmon*/oc*_event_cnt",
)
FILE_BYTES = 2**16  # kept of each
POWER_INTERVAL_MS = 100
FIRST_LINE_SECONDS = 3


class StopError(Exception):
    """Nothing can be measured; the message is for the user."""


class FailedError(Exception):
    """A network cannot be measured; the message says why."""


class Trtexec(NamedTuple):
    """The program, its version and what goes with every build."""

    path: str
    version: Tuple[int, ...]
    build_flags: Tuple[str, ...]

    @property
    def shown(self) -> str:
        """The version as people write it."""
        return ".".join(map(str, self.version))

    def command(self, stage: str, **values: object) -> List[str]:
        """The command line of a stage with the flags that this version knows."""
        flags = [
            flag.format(**values)
            for part, since, before, flag in FLAGS
            if part in STAGES[stage] and since <= self.version < before
        ]
        return [self.path, *flags, *(self.build_flags if stage == "build" else ())]


# --- files ---


def sha256(path: Path) -> str:
    """Checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(2**20), b""):
            digest.update(block)
    return digest.hexdigest()


def write(path: Path, text: str) -> None:
    """Write a text."""
    path.write_text(text, encoding="utf-8")


def write_sums(folder: Path) -> None:
    """Write the checksums of the files that lie in a folder."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != "." != SUMS)
    write(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in names if name != SUMS))


def damaged(folder: Path) -> Optional[str]:
    """The first file that is missing or differs from its checksum; None where all is well."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return SUMS
    for line in lines:
        digest, _, name = line.partition("  ")
        try:
            whole = sha256(folder / name) == digest
        except (OSError, ValueError):
            whole = False
        if not whole:
            return name or SUMS
    return None if lines else SUMS


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(str(folder), ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def ends_of(path: Path) -> str:
    """A log, its middle left out where it is long."""
    with path.open("rb") as stream:
        start = stream.read(2 * LOG_BYTES)
        size = os.fstat(stream.fileno()).st_size
        if size > 2 * LOG_BYTES:
            stream.seek(size - LOG_BYTES)
            start = start[:LOG_BYTES] + b"\n[...]\n" + stream.read()
    return start.decode("utf-8", "replace").replace("\0", "")


# --- running programs ---


def die_with_parent() -> None:
    """In the child: end when this program is killed, and be what the kernel ends when memory runs out."""
    with contextlib.suppress(Exception):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def run(command: Sequence[str], log: Path, timeout: float) -> None:
    """Run a program, its output into a file; raise FailedError if it does not end well in time."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            preexec_fn=die_with_parent,  # noqa: PLW1509  (this program has one thread)
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise FailedError(f"trtexec was stopped after {timeout:.0f} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        raise FailedError("trtexec was killed (signal 9), probably because memory ran out")
    if code < 0:
        raise FailedError(f"trtexec crashed (signal {-code})")
    if code or b"\n&&&& PASSED" not in log.read_bytes():
        raise FailedError(f"trtexec failed (code {code})")


def output_of(command: Sequence[str], timeout: float = 20) -> Tuple[int, str]:
    """Exit code and output of a small program; a code below 0 if it could not be run or took too long."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return -1, str(error)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def tool(name: str) -> Optional[str]:
    """Path of a program of the system; root's folders count too."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *TOOL_PLACES]))


# --- what is there ---


def find_trtexec(path: Optional[str], precision: str, strongly_typed: bool) -> Trtexec:
    """The trtexec to use, by its own account of its version."""
    found = path or shutil.which("trtexec") or next(filter(os.path.exists, TRTEXEC_PLACES), None)
    if not found:
        raise StopError(
            "there is no trtexec; JetPack brings it (package libnvinfer-bin); name its place with --trtexec"
        )
    _, text = output_of([found, "--help"], timeout=120)
    banner = re.search(r"\[TensorRT v(\d+)\]", text)
    if not banner:
        said = (text.strip().splitlines() or ["nothing"])[0]
        raise StopError(f"{found} does not tell its version; it said: {said[:200]}")
    number = int(banner.group(1))
    unit = 1000 if number < 10000 else 10000  # v8201 is 8.2.1, v100300 is 10.3.0
    version = (number // unit, number % unit // 100, number % 100)
    return Trtexec(found, version, build_flags(version, precision, strongly_typed))


def build_flags(version: Tuple[int, ...], precision: str, strongly_typed: bool) -> Tuple[str, ...]:
    """The flags that set the precision."""
    shown = ".".join(map(str, version))
    if version < OLDEST:
        raise StopError(f"TensorRT {shown} is too old: 8.0 (JetPack 4.6) or newer is needed")
    if strongly_typed:
        if version < (10,):
            raise StopError(f"this bundle is strongly typed, which TensorRT {shown} does not know; write a plain one")
        return ("--stronglyTyped",) if version < (11,) else ()
    if version >= (11,) and precision not in ("fp32", "tf32"):
        raise StopError(f"TensorRT {shown} takes the precision from the model; write the bundle strongly typed")
    return PRECISION_FLAGS[precision]


def note_conditions(folder: Path, moment: str, notes: List[str], root: Path) -> None:
    """Write down power mode, clocks, temperatures and memory as the system tells them; note what it does not."""
    for name, arguments in ROOT_TOOLS:
        code, text = ask_tool(name, arguments)
        if code == 0:
            write(folder / f"{moment}-{name}.txt", text)
        elif text not in notes:
            notes.append(text)
    write(folder / f"{moment}-tegrastats.txt", tegrastats_lines())
    write(folder / f"{moment}-files.txt", texts_of(root, STATE_FILES))


def texts_of(root: Path, patterns: Sequence[str]) -> str:
    """Files of the system, each below a line with its path; what cannot be read is left out."""
    texts = []
    for pattern in patterns:
        for path in sorted(root.glob(pattern)):
            with contextlib.suppress(OSError):  # of a part that is switched off
                with path.open("rb") as stream:
                    text = stream.read(FILE_BYTES).replace(b"\0", b" ").decode("utf-8", "replace").strip()
                texts.append(f"== {path.relative_to(root)}\n{text}\n")
    return "".join(texts)


def ask_tool(name: str, arguments: Sequence[str]) -> Tuple[int, str]:
    """Run a program that may want root's rights: its code and output, or why there is none."""
    path = tool(name)
    if path is None:
        return -1, f"there is no {name}"
    code, text = -1, ""
    if os.geteuid() and tool("sudo"):
        code, text = output_of(["sudo", "-n", path, *arguments])
    if code:
        code, text = output_of([path, *arguments])
    if code:
        said = (text.strip().splitlines() or ["nothing"])[-1]
        text = f"{name} was not permitted; it said: {said[:200]}"
    return code, text


class Recording:
    """What tegrastats says while a block runs, into a file; no file where there is no tegrastats."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.process: Optional[subprocess.Popen[bytes]] = None

    def __enter__(self) -> "Recording":
        """Start it, and wait for its first line."""
        program = tool("tegrastats")
        if program is None:
            return self
        with self.path.open("wb") as stream:
            self.process = subprocess.Popen(
                [program, "--interval", str(POWER_INTERVAL_MS)],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.DEVNULL,
                preexec_fn=die_with_parent,  # noqa: PLW1509  (this program has one thread)
            )
        end = time.monotonic() + FIRST_LINE_SECONDS
        while not self.path.stat().st_size and self.process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        return self

    def __exit__(self, *_error: object) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def tegrastats_lines() -> str:
    """A few lines of tegrastats; empty where there is none."""
    path = tool("tegrastats")
    if path is None:
        return ""
    process = subprocess.Popen(
        [path, "--interval", "200"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_parent,  # noqa: PLW1509  (this program has one thread)
    )
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    text, end = b"", time.monotonic() + 3
    while text.count(b"\n") < 4 and time.monotonic() < end:
        block = process.stdout.read()
        text += block or b""
        if block == b"":
            break
        time.sleep(0.02)
    process.kill()
    process.stdout.close()
    process.wait()
    return text.decode("utf-8", "replace")[: 2**16]
