"""TensorRT versions, and what they mean for a model's number format."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from scaler.devices import Precision
from scaler.errors import UnsupportedError
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
