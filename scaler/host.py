"""The computer at hand: its processor and its memory.

Some functions read facts out of texts (``/proc/cpuinfo``, ``sysctl``), the others fetch these texts. None of them
fails: what a system does not tell is None, empty or a plain word.
"""

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from scaler.hardware import Cpu

__all__ = ["host_cpu", "host_memory_gib", "linux_cpu", "macos_cpu", "processor_name"]

INSTRUCTION_SETS = (
    *("sse4_2", "avx", "fma", "f16c", "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""Those that matter to the speed of a network, by the names that Linux gives them."""

_MACOS_INSTRUCTION_SETS = {
    "AdvSIMD": "asimd",
    "arm.FEAT_FP16": "asimdhp",
    "arm.FEAT_DotProd": "asimddp",
    "arm.FEAT_I8MM": "i8mm",
    "arm.FEAT_BF16": "bf16",
    "arm.FEAT_SME": "sme",
    "sse4_2": "sse4_2",
    "avx1_0": "avx",
    "f16c": "f16c",
    "avx2_0": "avx2",
    "avx512f": "avx512f",
}
"""The same by what macOS calls them below ``hw.optional.``."""

_ARM_CORES = {
    ("0x41", "0xd03"): "ARM Cortex-A53",
    ("0x41", "0xd04"): "ARM Cortex-A35",
    ("0x41", "0xd05"): "ARM Cortex-A55",
    ("0x41", "0xd07"): "ARM Cortex-A57",
    ("0x41", "0xd08"): "ARM Cortex-A72",
    ("0x41", "0xd09"): "ARM Cortex-A73",
    ("0x41", "0xd0a"): "ARM Cortex-A75",
    ("0x41", "0xd0b"): "ARM Cortex-A76",
    ("0x41", "0xd0c"): "ARM Neoverse-N1",
    ("0x41", "0xd40"): "ARM Neoverse-V1",
    ("0x41", "0xd41"): "ARM Cortex-A78",
    ("0x41", "0xd42"): "ARM Cortex-A78AE",
    ("0x41", "0xd49"): "ARM Neoverse-N2",
    ("0x41", "0xd4f"): "ARM Neoverse-V2",
    ("0x41", "0xd83"): "ARM Neoverse-V3AE",
    ("0x4e", "0x003"): "NVIDIA Denver 2",
    ("0x4e", "0x004"): "NVIDIA Carmel",
}
"""Cores by implementer and part, of which alone Linux tells on ARM (the names: lscpu of util-linux)."""

_CPUS = Path("/sys/devices/system/cpu")
_SYSCTL_SECONDS = 5


@cache
def host_cpu() -> Cpu:
    """Return what the system tells of its CPU; where it tells nothing, a CPU without a name."""
    machine = platform.machine() or "unknown"
    usable = _usable_cpus()
    match platform.system():
        case "Linux":
            siblings = [_text(_CPUS / f"cpu{index}/topology/thread_siblings_list") for index in usable]
            return linux_cpu(_text(Path("/proc/cpuinfo")), machine, siblings, _caches(usable[0]))
        case "Darwin":
            return macos_cpu(_sysctl(), machine, len(usable))
        case _:  # Windows tells a name and, without further tools, logical cores only
            name = platform.processor() or f"{machine} CPU"
            return Cpu(
                processor=name, architecture=machine, instruction_sets=(), cores=len(usable), l2_kib=None, l3_kib=None
            )


def processor_name() -> str:
    """Return the name of this computer's CPU as the system reports it."""
    return host_cpu().processor


def host_memory_gib() -> float | None:
    """Return this computer's memory, or None where the system does not tell (Windows)."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def linux_cpu(cpuinfo: str, machine: str, siblings: Sequence[str], caches: Iterable[tuple[str, str, str]]) -> Cpu:
    """Return what the texts of a Linux system tell of its CPU.

    Args:
        cpuinfo: The text of ``/proc/cpuinfo``.
        machine: The architecture as ``uname -m`` gives it.
        siblings: ``thread_siblings_list`` of every logical CPU that may be used, blank where it cannot be read.
        caches: Level, type and size (``"3", "Unified", "16384K"``) of every cache that a CPU sees.
    """
    blocks = [_pairs(block) for block in cpuinfo.split("\n\n")]
    cores = [block for block in blocks if "processor" in block]
    first = cores[0] if cores else {}
    flags = (first.get("flags") or first.get("Features") or "").split()
    sizes = {int(level): _kib(size) for level, kind, size in caches if kind != "Instruction" and level.isdigit()}
    return Cpu(
        processor=_arm_name(cores) or _plain_name(first) or f"{machine} CPU",
        architecture=machine,
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
        cores=len({text or index for index, text in enumerate(siblings)}) or 1,
        l2_kib=sizes.get(2),
        l3_kib=sizes.get(3),
    )


def macos_cpu(sysctl: str, machine: str, logical: int = 1) -> Cpu:
    """Return what ``sysctl hw machdep.cpu`` tells of a Mac's CPU: of the fast cores where it has two kinds.

    Args:
        sysctl: Its text, a ``key: value`` a line.
        machine: The architecture as ``uname -m`` gives it.
        logical: Number of cores where the text has none.
    """
    told = _pairs(sysctl)
    has = {key.removeprefix("hw.optional.") for key, value in told.items() if value == "1"}
    return Cpu(
        processor=told.get("machdep.cpu.brand_string") or f"{machine} CPU",
        architecture=machine,
        instruction_sets=tuple(name for key, name in _MACOS_INSTRUCTION_SETS.items() if key in has),
        cores=_whole(told.get("hw.physicalcpu", "")) or logical,
        l2_kib=_bytes_as_kib(told.get("hw.perflevel0.l2cachesize") or told.get("hw.l2cachesize", "")),
        l3_kib=_bytes_as_kib(told.get("hw.l3cachesize", "")),
    )


def _usable_cpus() -> list[int]:
    """Logical CPUs that this process may use, at least one."""
    try:
        return sorted(os.sched_getaffinity(0)) or [0]
    except (AttributeError, OSError):  # only Linux tells
        return list(range(os.cpu_count() or 1))


def _caches(cpu: int) -> list[tuple[str, str, str]]:
    folders = sorted((_CPUS / f"cpu{cpu}" / "cache").glob("index*"))
    return [(_text(folder / "level"), _text(folder / "type"), _text(folder / "size")) for folder in folders]


def _sysctl() -> str:
    try:
        command = ["/usr/sbin/sysctl", "hw", "machdep.cpu"]
        return subprocess.run(command, capture_output=True, text=True, timeout=_SYSCTL_SECONDS, check=False).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


def _text(path: Path) -> str:
    """The text of a file of the system, or nothing."""
    try:
        return path.read_bytes().decode(errors="replace").strip()
    except (OSError, ValueError):
        return ""


def _pairs(text: str) -> dict[str, str]:
    """Lines of ``key : value``; runs of blanks in a value, which Intel's names have, are one."""
    lines = (line.partition(":") for line in text.splitlines())
    return {key.strip(): " ".join(value.split()) for key, sign, value in lines if sign}


def _arm_name(cores: Iterable[dict[str, str]]) -> str:
    """The kinds of core by name, each once; nothing where an implementer is not told, as on x86."""
    codes = [(core.get("CPU implementer", "").lower(), core.get("CPU part", "").lower()) for core in cores]
    names = [_ARM_CORES.get(code, f"ARM CPU (implementer {code[0]}, part {code[1]})") for code in codes if code[0]]
    return " + ".join(dict.fromkeys(names))


def _plain_name(core: dict[str, str]) -> str:
    return next((core[key] for key in ("model name", "cpu model", "cpu", "uarch") if core.get(key)), "")


def _kib(size: str) -> int | None:
    """KiB of ``2048K`` or ``32M``."""
    found = re.fullmatch(r"(\d+)([KMG])", size)
    return int(found[1]) * {"K": 1, "M": 2**10, "G": 2**20}[found[2]] if found else None


def _whole(text: str) -> int | None:
    return int(text) or None if text.isascii() and text.isdigit() else None


def _bytes_as_kib(text: str) -> int | None:
    size = _whole(text)
    return size // 2**10 or None if size else None
