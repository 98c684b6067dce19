"""Published losses of accuracy by 8-bit integers: a float figure beside that of the same weights as INT8.

Detectors, and classifiers as support. A row gives two scores, or one and the drop, whichever is printed. Sources are
the laboratories' own tables; each row names its address. Not here, because training went on after quantisation or
nobody says that it did not: AIMET's other classifiers, and Hailo's models but for those whose script forbids it. What a
network is like (activation and so on) is ours, from its definition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from scaler.files import choice_cell, number_cell, read_csv
from scaler.graph.ops import ActivationKind
from scaler.published.cells import figure, flag, optional

__all__ = ["INT8_FILE", "Calibrated", "Int8Metric", "Int8Row", "int8_rows"]

INT8_FILE = Path(__file__).with_name("int8.csv")

Int8Metric = Literal["ap", "ap50", "top1"]
"""AP over IoU 0.50 to 0.95, AP at 0.5, or accuracy on ImageNet."""
Calibrated = Literal["max", "entropy", "percentile", "mse", "tuned", "unstated"]
"""How ranges of activations were found. `tuned`: weights were equalised or rounded with care, or the tool searched
until the loss was small and left layers in float for it."""

_TEXT = ("network", "model", "data", "runtime", "laboratory", "unused", "source", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Row:
    """One published pair of figures; None where nothing is printed, scores in points."""

    network: str
    """As the source names it."""
    model: str
    """The same for all sources and versions of one network."""
    task: str
    """`detection` or `classification`."""
    data: str
    metric: Int8Metric
    float_score: float | None
    """In FP32 or FP16."""
    int8_score: float | None
    loss: float | None
    """Where the drop is printed rather than a score."""
    activation: ActivationKind
    """Of most layers."""
    depthwise: bool
    """Made of depthwise-separable convolutions."""
    squeeze_excite: bool
    """With channel attention."""
    reparameterised: bool
    """Trained with parallel branches that were merged into one convolution afterwards."""
    calibration: Calibrated
    partly_float: bool
    """Layers known to be sensitive stay in float."""
    runtime: str
    laboratory: str
    """Who measured: rows of one laboratory share tools and habits."""
    unused: str
    """Why no fit uses the row; empty where one does."""
    source: str
    """Address, with the table where a page has several."""
    note: str

    @property
    def loss_points(self) -> float:
        """What INT8 costs, in points of the metric; negative where it gains."""
        if self.loss is not None:
            return self.loss
        if self.float_score is None or self.int8_score is None:
            raise AssertionError(f"{INT8_FILE.name}: {self.network} has neither two scores nor a drop")
        return self.float_score - self.int8_score


@cache
def int8_rows() -> tuple[Int8Row, ...]:
    """All published figures, used or not.

    Raises:
        FileError: The shipped file was damaged; the message has line and column.
    """
    flags = ("depthwise", "squeeze_excite", "reparameterised", "partly_float")
    columns: dict[str, Callable[[str], Any]] = dict.fromkeys(Int8Row.__dataclass_fields__, figure)
    columns |= dict.fromkeys(_TEXT, str) | dict.fromkeys(flags, flag)
    columns |= {
        "task": choice_cell(("detection", "classification")),
        "metric": choice_cell(get_args(Int8Metric)),
        "loss": optional(number_cell()),
        "activation": choice_cell(get_args(ActivationKind)),
        "calibration": choice_cell(get_args(Calibrated)),
    }
    rows = read_csv(INT8_FILE, columns)
    return tuple(Int8Row(**dict(zip(columns, row, strict=True))) for row in rows)
