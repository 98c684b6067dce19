"""TensorRT versions, and what they mean for a model's number format."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from scaler.devices import Precision
from scaler.errors import UnsupportedError, UsageError
from scaler.runtimes.onnx_facts import OnnxFacts


class Version(NamedTuple):
    """A TensorRT version."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


class Span(NamedTuple):
    """Versions that have something."""

    since: tuple[int, int] = (8, 0)
    until: tuple[int, int] = (99, 0)
    """The first version without it, or that would rather have its successor."""

    def includes(self, version: Version) -> bool:
        """Whether a version lies between."""
        return self.since <= version[:2] < self.until


OLDEST = Version(8, 0, 0)
STRONGLY_TYPED = Version(11, 0, 0)
"""From here on the number format is the model's own."""


_DLA = (Span(until=(10, 8)), Span(since=(11, 4)))
"""NVIDIA, "TensorRT Documentation" 11.3 and 11.4, "Working with DLA": 10.7 was the last release with DLA, until 11.4
brought it back for AGX Orin, with the model's own number format."""


def has_dla(version: Version) -> bool:
    """Whether a version can use DLA cores, where the GPU has any."""
    return any(span.includes(version) for span in _DLA)


def check_dla(dla: int | None, precision: Precision, version: Version | None, *, open_batch: bool) -> None:
    """Refuse an engine that no DLA computes.

    It knows INT8 by a calibration on the target alone, not by Q/DQ nodes (NVIDIA, "TensorRT Developer Guide", chapter
    "Working with DLA", restrictions).

    Args:
        dla: The core; None: there is nothing to refuse.
        precision: Of the engine.
        version: TensorRT of the target, where it is known.
        open_batch: Whether the file leaves the batch open.

    Raises:
        UsageError: So it is.
    """
    if dla is None:
        return
    if version is not None and not has_dla(version):
        raise UsageError(f"--dla {dla}: TensorRT {version.major}.{version.minor} knows no DLA; leave it out")
    if precision != "fp16":
        why = "takes no quantisation nodes" if precision == "int8" else f"does not compute in {precision}"
        raise UsageError(f"--dla {dla}: a DLA {why}; ask for --precision fp16, or leave --dla out for the GPU")
    if open_batch:
        raise UsageError(
            f"--dla {dla}: a DLA takes one number of pictures, not an open batch; export it without --dynamic-batch, "
            "or leave --dla out for the GPU"
        )


def parse_version(text: str) -> Version:
    """A version as a user writes it: `8.2`, `10.3`, `8.5.2`.

    Raises:
        UsageError: It is none.
        UnsupportedError: It is older than 8.0.
    """
    parts = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(?:\.(\d{1,3}))?(?:\.\d+)*", text)
    if parts is None:
        raise UsageError(f"--tensorrt {text}: expected a version, such as 8.2 (JetPack 4.6) or 10.3 (JetPack 6.2)")
    version = Version(*(int(part or 0) for part in parts.groups()))
    check_version(version)
    return version


def check_version(version: Version) -> None:
    """Refuse versions that scaler does not know.

    Raises:
        UnsupportedError: The version is older than 8.0.
    """
    if version < OLDEST:
        raise UnsupportedError(
            f"this TensorRT is older than {OLDEST.major}.{OLDEST.minor}, "
            "the oldest that scaler works with; it comes with JetPack 4.6"
        )


def check_precision(precision: Precision, version: Version, facts: OnnxFacts, model: Path) -> None:
    """Refuse a precision that the version takes from the model when the model has another one.

    Raises:
        UnsupportedError: So it is.
    """
    if version < STRONGLY_TYPED:
        return
    fits = {
        "fp32": facts.formats <= {"fp32"},
        "tf32": facts.formats <= {"fp32"},
        "fp16": "fp16" in facts.formats and "fp32" not in facts.formats,
        "int8": facts.quantised,
    }
    if not fits[precision]:
        what = "with quantisation nodes" if precision == "int8" else f"with {precision} weights"
        raise UnsupportedError(
            f"{model.name}: TensorRT {version} takes the number format from the model, which is not {precision}; "
            f"export it {what}, measure in another precision, or use TensorRT 10"
        )
