"""What trtexec says: version, outcome, summary, and the lines that tell why something failed.

Source: samples/common/logging.h and samples/trtexec/trtexec.cpp of github.com/NVIDIA/TensorRT, and logs of failed
builds in public issues. A line is ``[11/22/2026-05:12:00] [E] [TRT] text``; errors go to standard error, the rest to
standard output. A message may go on over lines without that beginning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from scaler.errors import FileError
from scaler.runtimes.tensorrt_version import Version

_BANNER = re.compile(r"TensorRT\.trtexec(?: \[TensorRT v(\d{1,9})\])?(?: \[b\d+\])? #")
_OUTCOME = re.compile(r"^&&&& (PASSED|FAILED) TensorRT\.trtexec", re.MULTILINE)
_STAMPED = re.compile(r"\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[(\w)\] (.*)")
_DEVICE = re.compile(r"\[I\] Selected Device: (.+)")
_SUMMARY = re.compile(
    r"\[I\] (Latency|Enqueue Time|End-to-End Host Latency|H2D Latency|GPU Compute Time|D2H Latency): (.*)"
)
_STATISTIC = re.compile(r"(min|max|mean|median|percentile\(\d+(?:\.\d+)?%\)) = (\d[\d.e+-]*) ms")
_ORIGIN = re.compile(r"(?:\[TRT\] |Error\[\d+\]: |\d+: |\w+\.cpp:\d+: (?:ERROR: )?|\[\w+\.(?:cpp|cu|h)::?[^\]]*\] )+")


def parse_version(text: str) -> Version | None:
    """The version in trtexec's banner, or None if there is no banner.

    8.x and 9.x write major * 1000 + minor * 100 + patch (``v8201``), from 10.0 on it is major * 10000 (``v100300``).
    Older releases name no version and give 0.0.0.
    """
    found = _BANNER.search(text)
    if not found:
        return None
    number = int(found[1] or 0)
    unit = 1000 if number < 10_000 else 10_000
    return Version(number // unit, number % unit // 100, number % 100)


def parse_outcome(text: str) -> bool | None:
    """Whether trtexec says that it passed; None if it came to no end."""
    found = _OUTCOME.findall(text)
    return found[-1] == "PASSED" if found else None


def parse_gpu(text: str) -> str | None:
    """Name of the GPU that trtexec selected, or None."""
    found = _DEVICE.search(text)
    return found[1].strip() if found else None


def parse_summary(text: str, file: Path | str) -> Mapping[str, Mapping[str, float]]:
    """The performance summary: milliseconds by statistic (`median`, `percentile(99%)`), by what was timed.

    8.0 to 8.4 give one percentile, later versions three; 8.0 and 8.2 have an `End-to-End Host Latency`.

    Raises:
        FileError: There is no summary, or it lacks the `GPU Compute Time`.
    """
    summary = {name: dict(_statistics(line)) for name, line in _SUMMARY.findall(text)}
    if not summary.get("GPU Compute Time"):
        raise FileError(file, "", "no performance summary", "expected the output of trtexec", "measure again")
    return summary


def _statistics(line: str) -> Iterable[tuple[str, float]]:
    for name, number in _STATISTIC.findall(line):
        try:
            yield name, float(number)
        except ValueError:
            continue


def error_messages(text: str) -> tuple[str, ...]:
    """The messages of error lines in order, each on one line, without time stamp and origin."""
    messages: list[str] = []
    inside = False
    for line in text.split("\n"):
        stamped = _STAMPED.match(line)
        if stamped:
            inside = stamped[1] in "EF"
            if inside:
                messages.append(stamped[2])
        elif line.startswith("&&&&"):
            inside = False
        elif inside:
            messages[-1] += f"\n{line}"
    return tuple(plain for message in messages if (plain := _plain(message)))


def _plain(message: str) -> str:
    """A message on one line without its origin."""
    return " ".join(_ORIGIN.sub("", message.strip(), count=1).split()).rstrip(":")
