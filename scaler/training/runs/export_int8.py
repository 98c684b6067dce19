"""INT8 for an export: calibrated on some pictures, judged on others by what the written bytes themselves find."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

from onnx import ModelProto

from scaler.data.data_file import read_splits
from scaler.data.dataset import Dataset
from scaler.data.preprocessing import Preprocessing
from scaler.errors import FileError, UsageError
from scaler.evaluation.evaluate import Progress, evaluate
from scaler.evaluation.metrics import Metrics, Skipped
from scaler.export.int8 import Target, check_kept, quantised
from scaler.export.int8_calibration import DEFAULT_METHOD, Calibration, Method, calibrated
from scaler.export.int8_graph import check_float, layers
from scaler.export.int8_sensitivity import Choice, DetectionLoss, choose
from scaler.training.runs.export_check import running
from scaler.training.runs.export_pictures import (
    MOST_PICTURES,
    Inputs,
    Pictures,
    paths_of_folder,
    paths_of_split,
    pictures_apart,
)

DEFAULT_PICTURES = 200
Watch: TypeAlias = Callable[[str], AbstractContextManager[Progress | None]]
"""From what is done to a block in which its progress may be told."""


def unwatched(what: str) -> AbstractContextManager[Progress | None]:  # noqa: ARG001
    """Tells nobody."""
    return nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Order:
    """How a user wants his 8 bits."""

    folder: Path | None = None
    """Pictures to calibrate on; the train split of the data where None."""
    method: Method = DEFAULT_METHOD
    pictures: int = DEFAULT_PICTURES
    """The most that are taken."""
    cache: Path | None = None
    """Where the calibration is remembered; beside the file where None, and then made anew when it does not fit."""
    target: Target = "tensorrt"
    keep: tuple[str, ...] = ()
    """Layers that stay in float."""
    bound: float | None = None
    """The most that `DetectionLoss` may be: the layers that cost most stay in float; not looked at where None."""


DEFAULT_INT8 = Int8Order()


class Material(NamedTuple):
    """Pictures, each with its purpose."""

    calibration: Inputs
    check: Inputs | None
    """To measure the loss on; None where nothing is compared."""
    val: Dataset | None
    """To compute AP on; None where there are no labels."""


class Quantised(NamedTuple):
    """A network in 8 bits, and what that cost."""

    model: ModelProto
    calibration: Calibration
    cache: Path
    source: str
    """Of the pictures of the calibration, to be told."""
    skipped: tuple[Skipped, ...]
    """Pictures of the calibration that could not be read."""
    layers: int
    """That could have been quantised."""
    kept: tuple[str, ...]
    """Those of them that stayed in float."""
    choice: Choice | None
    """Measured layer by layer on some pictures of the calibration; None where that was not asked for."""
    loss: float | None
    """`DetectionLoss` against the float network; None where nothing was compared."""
    before: Metrics | None
    """AP of the float file."""
    after: Metrics | None
    """AP of this one."""


def calibration_pictures(
    order: Int8Order, data: Path | None, judged: Collection[Path], preprocessing: Preprocessing
) -> Pictures:
    """Those of the folder, or of the train split; never one on which the file is judged.

    Args:
        order: What is wanted.
        data: The `data.toml`.
        judged: Pictures on which the file is judged, resolved.
        preprocessing: How they are fitted.

    Raises:
        UsageError: Neither a folder nor data.
        UserError: There are no other pictures, or none can be read.
    """
    if order.folder is not None:
        paths, source = paths_of_folder(order.folder, "--calibrate"), str(order.folder)
    elif data is not None:
        train = read_splits(data, ["train"]).splits["train"]
        paths, source = paths_of_split(train), f"{train.name} train"
    else:
        raise UsageError(
            "--precision int8: on which pictures is it calibrated? give --calibrate FOLDER, or --data data.toml, whose "
            "train split is taken"
        )
    return pictures_apart(paths, judged, order.pictures, source, preprocessing)


def check_int8(model: ModelProto, order: Int8Order) -> None:
    """Refuse, before it takes time, what cannot be quantised so.

    Raises:
        UnsupportedError: The opset is too old.
        UsageError: A layer to keep is not there.
    """
    check_float(model)
    check_kept(model, order.keep)


def quantise(model: ModelProto, order: Int8Order, path: Path, material: Material, watch: Watch) -> Quantised:
    """Calibrate, choose the layers that stay in float, write the others in 8 bits, and measure what it cost.

    Args:
        model: The network in FP32.
        order: What is wanted.
        path: The file to be, for messages and the default cache.
        material: Pictures.
        watch: Told of what takes long.

    Raises:
        FileError: The cache that was named is of something else.
        UserError: A picture or the calibration cannot be used, or ONNX Runtime refuses the network.
        MissingExtraError: ONNX Runtime, or what computes AP, is not installed.
    """
    before = _metrics(model, path, material.val, watch("AP of the float file"))
    cache = order.cache or path.with_suffix(".calibration.json")
    with watch("calibrating INT8") as progress:
        calibration = _calibration(model, order, cache, material.calibration, progress)
    choice = None
    if order.bound is not None:
        with watch("sensitivity of layers") as progress:
            choice = _choice(model, order, order.bound, calibration, material.calibration, progress)
    kept = tuple(dict.fromkeys(order.keep if choice is None else choice.keep))
    result = quantised(model, calibration, target=order.target, keep=kept)
    seen = material.calibration.pictures
    return Quantised(
        model=result,
        calibration=calibration,
        cache=cache,
        source=seen.source,
        skipped=seen.skipped,
        layers=len(layers(model)),
        kept=kept,
        choice=choice,
        loss=None if material.check is None else DetectionLoss(model, material.check)(result),
        before=before,
        after=_metrics(result, path, material.val, watch("AP of the INT8 file")),
    )


def _calibration(
    model: ModelProto, order: Int8Order, cache: Path, inputs: Inputs, progress: Progress | None
) -> Calibration:
    try:
        return calibrated(model, inputs, order.method, cache=cache, progress=progress)
    except FileError:
        if order.cache is not None:
            raise
    cache.unlink()  # ours, of another network, other pictures or another method
    return calibrated(model, inputs, order.method, cache=cache, progress=progress)


def _choice(
    model: ModelProto,
    order: Int8Order,
    bound: float,
    calibration: Calibration,
    inputs: Inputs,
    progress: Progress | None,
) -> Choice:
    """By pictures of the calibration, so that those on which the file is judged have no say."""
    loss = DetectionLoss(model, inputs.some(MOST_PICTURES))
    return choose(model, calibration, loss, bound=bound, target=order.target, keep=order.keep, progress=progress)


def _metrics(
    model: ModelProto, path: Path, val: Dataset | None, watched: AbstractContextManager[Progress | None]
) -> Metrics | None:
    """How well the bytes that this model is written as find the objects of a split."""
    if val is None:
        return None
    with running(model, path) as detector, watched as progress:
        return evaluate(detector, val, progress=progress)
