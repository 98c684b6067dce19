"""What 8-bit integers cost, layer by layer, measured; and which layers had better stay in float.

The cost of a file is a loss: by default how far its boxes and scores are from the float network's (`DetectionLoss`),
or whatever the caller measures, such as the AP that is lost on his validation set.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from scaler.errors import UsageError
from scaler.export.decode import BOXES, SCORES
from scaler.export.int8 import Target, quantised
from scaler.export.int8_calibration import Calibration, Pictures, Progress
from scaler.export.int8_graph import detector, layers, session
from scaler.export.weights import Array
from scaler.graph.graph import INPUT_NAME

IntArray: TypeAlias = npt.NDArray[np.int64]
Loss: TypeAlias = Callable[[ModelProto], float]
"""From a quantised model to what it costs: 0 for none, larger is worse."""

DEFAULT_BOUND = 0.05
"""Of `DetectionLoss`: on average 5 % less overlap with the float network's boxes, or scores 0.05 off."""
_TOP = 100


class DetectionLoss:
    """How far detections move from the float network's, before NMS, on some pictures.

    Of every picture the 100 best boxes of the float network are looked at, each as important as its score is high. The
    loss is the mean of `1 - IoU` with the same box of the quantised network plus the mean difference of their scores in
    their best class: 0 where nothing moved, 2 where nothing is left. No labels are needed.

    Args:
        model: The float network.
        pictures: What it reads; a few suffice.

    Raises:
        UnsupportedError: The network makes no boxes and scores.
    """

    def __init__(self, model: ModelProto, pictures: Pictures) -> None:
        self._pictures = [np.ascontiguousarray(picture, np.float32) for picture in pictures]
        if not self._pictures:
            raise UsageError("sensitivity: no pictures; name some")
        self._wanted = [_best(boxes, scores) for boxes, scores in self._run(model)]

    def __call__(self, model: ModelProto) -> float:
        """The loss of a quantised model."""
        total = weight = 0.0
        for wanted, (boxes, scores) in zip(self._wanted, self._run(model), strict=True):
            picture, box, label = wanted.places
            cost = _moved(wanted.boxes, boxes[picture, box]) + np.abs(wanted.scores - scores[picture, box, label])
            total += float((np.where(np.isfinite(cost), cost, 2) * wanted.scores).sum())
            weight += float(wanted.scores.sum())
        return total / max(weight, 1e-9)

    def _run(self, model: ModelProto) -> list[tuple[Array, Array]]:
        runtime, found = session(detector(model)), []
        for picture in self._pictures:
            boxes, scores = runtime.run([BOXES, SCORES], {INPUT_NAME: picture})
            found.append((boxes, scores))
        return found


class LayerLoss(NamedTuple):
    """What quantising one layer alone costs."""

    layer: str
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which layers stay in float."""

    keep: tuple[str, ...]
    """Those that the caller keeps, then the most sensitive layers, worst first; as few as the bound allows."""
    loss: float
    """Of the network in which these are float and all others 8-bit."""
    loss_of_all: float
    """Of the network in which every layer is 8-bit, but for those that the caller keeps."""
    bound: float
    alone: tuple[LayerLoss, ...]
    """Of every layer that the caller does not keep, quantised alone, worst first."""

    def table(self, most: int = 20) -> str:
        """The worst layers and what was decided, as text."""
        shown = self.alone[: max(most, len(self.keep))]
        width = max([len(entry.layer) for entry in shown] + [len("layer")])
        kept = set(self.keep)
        lines = [f"{'layer':<{width}}  loss alone  stays"]
        lines += [f"{layer:<{width}}  {loss:10.4f}  {'float' if layer in kept else 'int8'}" for layer, loss in shown]
        if len(shown) < len(self.alone):
            lines.append(f"… and {len(self.alone) - len(shown)} that cost less, int8")
        lines.append(
            f"all {len(self.alone)} layers in INT8: loss {self.loss_of_all:.4f}; {len(self.keep)} in float: "
            f"{self.loss:.4f} (bound {self.bound:g})"
        )
        return "\n".join(lines)


def sensitivity(
    model: ModelProto,
    calibration: Calibration,
    loss: Loss,
    *,
    target: Target = "tensorrt",
    keep: Collection[str] = (),
    progress: Progress | None = None,
) -> tuple[LayerLoss, ...]:
    """Measure what quantising each layer alone costs, worst first.

    Args:
        model: The float network.
        calibration: Of this network.
        loss: What a quantised model costs.
        target: Who will run it.
        keep: Names of layers that stay in float anyway: they are left out.
        progress: Told after every layer.
    """
    names, found = layers(model), list[LayerLoss]()
    tried = [name for name in names if name not in keep]
    for name in tried:
        alone = quantised(model, calibration, target=target, keep=[other for other in names if other != name])
        found.append(LayerLoss(name, loss(alone)))
        if progress is not None:
            progress(len(found), len(tried), name)
    return tuple(sorted(found, key=lambda entry: -entry.loss))


def choose(
    model: ModelProto,
    calibration: Calibration,
    loss: Loss,
    *,
    bound: float = DEFAULT_BOUND,
    target: Target = "tensorrt",
    keep: Collection[str] = (),
    alone: Sequence[LayerLoss] | None = None,
    progress: Progress | None = None,
) -> Choice:
    """Find the fewest layers to leave in float so that the loss stays under a bound.

    Layers are kept in the order of their sensitivity; how many is found by bisection, and what is returned was measured
    with exactly these layers kept. The bound always holds: a network all in float loses nothing.

    Args:
        model: The float network.
        calibration: Of this network.
        loss: What a quantised model costs.
        bound: The most that may be lost, 0 or more.
        target: Who will run it.
        keep: Names of layers that stay in float anyway.
        alone: What `sensitivity` found, where it is known.
        progress: Told after every layer that was quantised alone.

    Raises:
        UsageError: A negative bound.
    """
    if not bound >= 0:
        raise UsageError(f"bound = {bound!r}: allowed is 0 or more")
    measured: dict[int, float] = {}
    order: list[str] = []

    def kept(count: int) -> float:
        if count not in measured:
            measured[count] = loss(quantised(model, calibration, target=target, keep=[*keep, *order[:count]]))
        return measured[count]

    everything = kept(0)
    if alone is None:
        alone = sensitivity(model, calibration, loss, target=target, keep=keep, progress=progress)
    alone = tuple(entry for entry in alone if entry.layer not in keep)
    order = [entry.layer for entry in alone]
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if kept(middle) <= bound:
            high = middle
        else:
            low = middle + 1
    return Choice(keep=(*keep, *order[:low]), loss=kept(low), loss_of_all=everything, bound=bound, alone=alone)


class _Best(NamedTuple):
    """The best boxes of a batch of pictures."""

    places: tuple[IntArray, IntArray, IntArray]
    """Picture, box and class of each."""
    boxes: Array
    scores: Array


def _best(boxes: Array, scores: Array) -> _Best:
    label, score = scores.argmax(axis=2), scores.max(axis=2)
    box = np.argsort(-score, axis=1, kind="stable")[:, :_TOP]
    picture = np.arange(len(boxes)).repeat(box.shape[1])
    box = box.reshape(-1)
    return _Best((picture, box, label[picture, box]), boxes[picture, box], score[picture, box])


def _moved(first: Array, second: Array) -> Array:
    """`1 - IoU` of pairs of boxes `[pairs, 4]`, corners; 0 where both are the same, even empty or infinite ones."""
    same = ((first == second) | (np.isnan(first) & np.isnan(second))).all(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):  # an untrained network's boxes may be infinite
        return np.where(same, np.float32(0), 1 - _iou(first, second))


def _iou(first: Array, second: Array) -> Array:
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    common = np.maximum(high - low, 0).prod(axis=1)
    both = _area(first) + _area(second) - common
    return np.asarray(common / np.maximum(both, 1e-9), np.float32)


def _area(boxes: Array) -> Array:
    sides: Array = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return sides[:, 0] * sides[:, 1]
