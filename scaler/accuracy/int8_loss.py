"""What 8-bit integers cost a detector's accuracy: predicted from published losses of others, with an interval.

For quantisation without further training, as `scaler export --precision int8` does it; FP16 costs less than the noise
of a published figure (0.3 AP) and is taken to cost nothing. Nobody published a loss of the searched networks, so the
law knows kinds of networks only (activations, depthwise convolutions, squeeze-and-excitation) and how ranges were
calibrated; its intervals are as wide as published losses scatter. Errors: docs/adr/022-int8-loss.md.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from hashlib import blake2b
from typing import Literal, NamedTuple, TypeAlias

from scaler.accuracy.int8_loss_fit import EFFECTS, SHAPES, Traits, shipped_fit
from scaler.accuracy.prediction import Metric
from scaler.graph.graph import Block, Graph
from scaler.graph.ops import Activation, Conv, Gate
from scaler.models.detectors.families import Config, build
from scaler.published.int8 import INT8_FILE

__all__ = ["Calibration", "Loss", "fingerprint", "graph_traits", "predict_loss"]

Calibration: TypeAlias = Literal["percentile", "entropy", "min-max"]
"""As the INT8 export names them."""
_CALIBRATED = {"percentile": "clipped", "entropy": "entropy", "min-max": "max"}
_FULL = 0.19
"""Depthwise convolutions, and gates, over all convolutions of a detector on EfficientNet: the least of those that are
made of them (`yolo-ret` on MobileNetV2 has 0.26)."""
_LAW = 1
"""Counts changes of the law itself."""


class Loss(NamedTuple):
    """Accuracy that INT8 costs, in points; negative where it gains."""

    mean: float
    """Expected value; the middle of the interval is lower, because few networks lose much."""
    low: float
    """End of the 90 % interval in which the loss of one network, measured by one laboratory, would lie."""
    high: float
    inside_support: bool
    """Whether a detector with such an architecture is among those published."""


def predict_loss(
    config: Config,
    graph: Graph | None = None,
    *,
    metric: Metric = "ap",
    calibration: Calibration = "percentile",
    partly_float: bool = False,
) -> Loss:
    """Predict what a detector loses as INT8 without further training.

    Args:
        config: Of the detector.
        graph: Its lowering, where the caller has it.
        metric: In which the loss is told.
        calibration: How ranges of activations are found.
        partly_float: Whether layers that were measured to be sensitive stay in float.

    Raises:
        FileError: The shipped table of published losses was damaged.
    """
    traits = graph_traits(build(config) if graph is None else graph)
    how = {_CALIBRATED[calibration]: 1.0, "partly_float": float(partly_float), "ap50": float(metric == "ap50")}
    return _loss(traits._replace(**how))


def graph_traits(graph: Graph) -> Traits:
    """What the law knows of a network, its calibration apart; in hundredths, so that similar networks share results."""
    counts: Counter[str] = Counter()
    for placement in graph.placements:
        counts.update(_counts(placement.block))
    activations = max(sum(counts[shape] for shape in dict.fromkeys(SHAPES.values())), 1)
    full = max(_FULL * counts["convolution"], 1.0)
    return Traits(
        **{shape: round(counts[shape] / activations, 2) for shape in ("relu6", "leaky", "smooth")},
        depthwise=round(min(counts["depthwise"] / full, 1.0), 2),
        squeeze_excite=round(min(counts["gate"] / full, 1.0), 2),
    )


def fingerprint() -> str:
    """8 hexadecimal digits that change with the published losses and with the law."""
    content = INT8_FILE.read_bytes() + repr((_LAW, EFFECTS)).encode()
    return blake2b(content, digest_size=4).hexdigest()


@cache
def _counts(block: Block) -> Counter[str]:
    """Activations by kind, convolutions, depthwise ones among them, and gates."""
    found: Counter[str] = Counter()
    for node in block.nodes:
        match node.op:
            case Activation(kind) if kind in SHAPES:
                found[SHAPES[kind]] += 1
            case Conv(groups=groups):
                found["convolution"] += 1
                found["depthwise"] += groups > 1
            case Gate():
                found["gate"] += 1
    return found


@cache
def _loss(traits: Traits) -> Loss:
    fit = shipped_fit()
    mean, low, high = (float(ends[0]) for ends in fit.predict([traits]))
    return Loss(mean, low, high, traits.architecture in fit.known)
