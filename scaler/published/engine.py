"""Times of networks on the accelerator alone, one file for all laboratories: `engine.csv`.

Sources, batch 1 each:

- NetsPresso: the trainer's device matrix (github.com/Nota-NetsPresso/netspresso-trainer at cdefe12,
  docs/benchmarks/device_matrix/tensorrt.md);
- torch2trt: github.com/NVIDIA-AI-IOT/torch2trt at 4e820ae, docs/benchmarks;
- trtutils: github.com/justincdavis/trtutils at 471d1e9, benchmark/data/models;
- tf_to_trt: github.com/NVIDIA-AI-IOT/tf_to_trt_image_classification at 1082295, README;
- ultralytics: the table of github.com/ultralytics/ultralytics, docs/en/guides/nvidia-jetson.md;
- Scaled-YOLOv4: Wang et al. (CVPR 2021), Table 14;
- tensorrt_demos: github.com/jkjung-avt/tensorrt_demos, README.

All their rows are here, also of networks that `scaler.models.zoo` does not build. A row that contradicts the others
beyond physics has a `doubt`, with its reason in the note.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scaler.files import choice_cell, integer_cell, number_cell, read_csv

ENGINE_FILE = Path(__file__).with_name("engine.csv")
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRow:
    """The time of one network on the accelerator, without pre- and post-processing."""

    device: str
    power_mode: str
    """Where the source states one, or its conditions leave one only; else empty: the profile's default."""
    precision: str
    protocol: str
    """What was timed and how; one of `scaler.latency.protocol.PROTOCOLS`."""
    network: str
    """A name of `scaler.models.zoo.NETWORKS`, or of a network outside of our vocabulary."""
    resolution: int
    """Side of the square input in pixels."""
    latency_ms: float
    source: str
    doubt: float
    """Standard deviation of the logarithm to be added to the noise of other rows: how far the row is not believed."""
    note: str


@cache
def engine_rows() -> tuple[EngineRow, ...]:
    """All engine-only times.

    Raises:
        FileError: The shipped file was damaged; the message has line and column.
    """
    cells: dict[str, Callable[[str], Any]] = {
        "device": str,
        "power_mode": str,
        "precision": choice_cell(PRECISIONS),
        "protocol": str,
        "network": str,
        "resolution": integer_cell(minimum=1),
        "latency_ms": number_cell(minimum=1e-6),
        "source": str,
        "doubt": _doubt,
        "note": str,
    }
    rows = read_csv(ENGINE_FILE, cells)
    return tuple(EngineRow(**dict(zip(cells, row, strict=True))) for row in rows)


def _doubt(text: str) -> float:
    return float(number_cell(minimum=0.0)(text)) if text else 0.0
