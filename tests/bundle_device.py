"""A device for the tests of bundles: a folder with a bundle, a fake trtexec and the system's files and tools."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scaler.profiling.plan_file import Plan, Planned
from scaler.space_file import read_space

ROOT = Path(__file__).parent.parent
AGENT = ROOT / "scaler" / "profiling" / "agent"
QUICK = ("--rounds", "1", "--duration", "1", "--warm-up", "100", "--power-seconds", "1")
"""A short run; the fake's times are a function of the model, so that more rounds would say the same."""

SPACE = """
schema_version = 1
name = "tiny"
family = "yolo-ret"
description = "Small networks that differ in their input"

[fixed]
backbone = "mobilenetv2"
width = 0.35
drop = 4
neck = "none"

[parameters.resolution]
choices = [160, 192, 224, 256]
"""

NANO_FILES = {
    "proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3450-0000+p3448-0000\0nvidia,jetson-nano\0nvidia,tegra210\0",
    "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29689105, BOARD: t210ref, EABI: aarch64\n",
    "proc/meminfo": "MemTotal:        4059296 kB\nMemFree:         2801420 kB\nMemAvailable:    3200000 kB\n",
    "sys/class/thermal/thermal_zone0/type": "CPU-therm\n",
    "sys/class/thermal/thermal_zone0/temp": "41500\n",
    "sys/class/thermal/thermal_zone1/type": "PMIC-Die\n",
    "sys/class/thermal/thermal_zone1/temp": "100000\n",
    "sys/class/devfreq/57000000.gpu/cur_freq": "921600000\n",
    "sys/class/devfreq/57000000.gpu/min_freq": "921600000\n",
    "sys/class/devfreq/57000000.gpu/max_freq": "921600000\n",
}
"""What a Nano with pinned clocks tells; the forms are those of `scaler.runtimes.jetson`."""

SHELL_TOOLS = """
awk basename cat cmp cp cut date df dirname find grep gzip head id ls mkdir mv rm sed sh sha256sum sleep sort sync
tail tar timeout tr wc xargs
"""

TRTEXEC = r"""#!/bin/sh
read -r call <"$HOME/count" 2>/dev/null || call=0
call=$((call + 1))
echo $call >"$HOME/count"
WRAPPER
case "$*" in *--help*) ;; *) printf '%s\t' "$@" >>"$HOME/calls" && echo >>"$HOME/calls" ;; esac
if [ -n "${FAKE_TRTEXEC_FAIL:-}" ]; then
    case "$*" in *"$FAKE_TRTEXEC_ONLY"*) exec "$FAKE_PYTHON" -IS "$FAKE_PROGRAM" "$@" ;; esac
fi
known=$FAKE_MEMORY/$FAKE_TRTEXEC_VERSION-$FAKE_TRTEXEC_FACTOR
engine= times= profile= layers=
for option; do
    case $option in
        --onnx=* | --loadEngine=*) known="$known ${option##*/}" ;;
        *=/*) known="$known ${option%%=*}" ;;
        *) known="$known $option" ;;
    esac
    case $option in
        --saveEngine=*) engine=${option#*=} ;;
        --exportTimes=*) times=${option#*=} ;;
        --exportProfile=*) profile=${option#*=} ;;
        --exportLayerInfo=*) layers=${option#*=} ;;
    esac
done
if [ ! -d "$known" ]; then
    "$FAKE_PYTHON" -IS "$FAKE_PROGRAM" "$@" >"$HOME/said" 2>&1
    code=$?
    cat "$HOME/said"
    [ $code = 0 ] || exit $code
    mkdir "$HOME/new"
    cp "$HOME/said" "$HOME/new/said"
    [ ! -f "$engine" ] || cp "$engine" "$HOME/new/engine"
    [ ! -f "$times" ] || cp "$times" "$HOME/new/times"
    [ ! -f "$profile" ] || cp "$profile" "$HOME/new/profile"
    [ ! -f "$layers" ] || cp "$layers" "$HOME/new/layers"
    mv "$HOME/new" "$known"
    exit 0
fi
[ ! -f "$known/engine" ] || cp "$known/engine" "$engine"
[ ! -f "$known/times" ] || cp "$known/times" "$times"
[ ! -f "$known/profile" ] || cp "$known/profile" "$profile"
[ ! -f "$known/layers" ] || cp "$known/layers" "$layers"
cat "$known/said"
"""
"""The fake behind a memory: what it once answered to these options about this model, it answers at once."""


def tiny_plan(folder: Path, count: int = 2, **changes: Any) -> Plan:
    """A plan for the Nano; its search space lies in the folder."""
    path = folder / "tiny.toml"
    path.write_text(SPACE)
    space = read_space(path)
    *planned, reference = list(space.candidates())[: count + 1]
    values = {
        "device": "nano",
        "power_mode": "MAXN",
        "runtime": "tensorrt",
        "precision": "fp16",
        "batch": 1,
        "opset": 13,
        "space": str(path),
        "digest": space.digest,
        "dataset": "voc",
        "networks": tuple(Planned(network=space.candidate_id(params), params=params) for params in planned),
        "reference": reference,
    }
    return Plan(**{**values, **changes})


def python_3_6() -> str | None:
    """A Python 3.6 that runs, be it named by SCALER_PYTHON36; some computers have the name alone."""
    found = os.environ.get("SCALER_PYTHON36") or shutil.which("python3.6")
    runs = found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0
    return found if runs else None


def unpacked(archive: Path, place: Path) -> Path:
    """Unpack an archive of our own; Python has a filter for others' from 3.11.4 on, and later wants one named."""
    with tarfile.open(archive) as content:
        content.extractall(place, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # type: ignore[arg-type]
    return place


@dataclass(frozen=True)
class Outcome:
    """How a run of measure.sh ended."""

    code: int
    out: str
    err: str


@dataclass
class FakeDevice:
    """A device with an unpacked bundle.

    Attributes:
        home: Where everything lies.
        memory: Where the answers of the fake are kept; several devices may share it.
        version: TensorRT's; empty on a device without trtexec.
        python: What runs measure.py; None on a device without Python.
        wrapper: Shell lines in front of every call of trtexec; `$call` is its number, from 1.
        environment: More variables, such as those of the fake.
    """

    home: Path
    memory: Path
    version: str = "8.2.1"
    python: str | None = sys.executable
    wrapper: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bundle, self.bin, self.root = self.home / "scaler-bundle", self.home / "bin", self.home / "root"
        for folder in (self.bin, self.root):
            folder.mkdir(parents=True)
        for name in SHELL_TOOLS.split():
            (self.bin / name).symlink_to(shutil.which(name) or f"/missing/{name}")

    def unpack(self, bundle: Path) -> "FakeDevice":
        """Unpack a bundle."""
        unpacked(bundle, self.home)
        return self

    def tool(self, name: str, script: str) -> None:
        """Install a program."""
        (self.bin / name).write_text(script if script.startswith("#!") else f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def files(self, files: dict[str, str]) -> None:
        """Lay out files of the system."""
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)

    def measure(self, *options: str, under: tuple[str, ...] = ()) -> Outcome:
        """Run measure.sh with quick settings; later options win. `under` is what runs it, such as nohup."""
        if self.version:
            self.memory.mkdir(exist_ok=True)
            self.tool("trtexec", TRTEXEC.replace("WRAPPER", self.wrapper))
        environment = {
            "HOME": str(self.home),
            "PATH": str(self.bin),
            "PYTHON": self.python or "no-python-here",
            "PYTHONDONTWRITEBYTECODE": "1",
            "FAKE_PYTHON": sys.executable,
            "FAKE_PROGRAM": str(ROOT / "tests" / "fake_trtexec.py"),
            "FAKE_MEMORY": str(self.memory),
            "FAKE_TRTEXEC_VERSION": self.version,
            "FAKE_TRTEXEC_FACTOR": "20",
            **self.environment,
        }
        done = subprocess.run(
            [*under, "/bin/sh", str(self.bundle / "measure.sh"), *QUICK, "--system-root", str(self.root), *options],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    @property
    def calls(self) -> list[list[str]]:
        """Arguments of all calls of trtexec so far, the probes left out."""
        file = self.home / "calls"
        return [line.split("\t")[:-1] for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def builds(self) -> Counter[str]:
        """How often the engine of each network was built."""
        models = [option for call in self.calls for option in call if option.startswith("--onnx=")]
        return Counter(Path(model).stem for model in models)

    @property
    def archive(self) -> Path:
        """The packed results."""
        return self.bundle / "results.tar.gz"

    @property
    def finished(self) -> set[str]:
        """The networks that have a result."""
        folder = self.bundle / "results" / "networks"
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def result(self, network: str) -> dict[str, Any]:
        """What the device wrote down of a network."""
        content: dict[str, Any] = json.loads(
            (self.bundle / "results" / "networks" / network / "result.json").read_text()
        )
        return content


def end_agent(device: FakeDevice, signal: str = "KILL") -> str:
    """Shell lines that end what called this program: measure.py, or the shell whose id lies in the results."""
    pid = device.bundle / "results" / "work" / "pid"
    return f'if [ -s "{pid}" ]; then kill -{signal} "$(cat "{pid}")"; else kill -{signal} $PPID; fi'
