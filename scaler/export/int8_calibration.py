"""Ranges of the activations of a float network on the user's pictures, and the file that remembers them.

ONNX Runtime's calibrators do the work, one picture after the other, so that memory stays that of one picture. What
they find is a range a tensor; a target makes its scale of it (`scaler.export.int8`), so one cache serves all targets.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto

from scaler.errors import FileError, UsageError, UserError, unknown_name
from scaler.export.int8_graph import body, check_float, digest, require_onnxruntime
from scaler.export.weights import Array
from scaler.files import read_json, write_atomic
from scaler.graph.graph import INPUT_NAME
from scaler.reader import Reader

Method: TypeAlias = Literal["min-max", "entropy", "percentile"]
Pictures: TypeAlias = Iterable[Array]
"""What the network reads, `[batch, 3, height, width]` each. A list, or anything else that can be gone through again; an
iterator is drawn into a list."""
Progress: TypeAlias = Callable[[int, int, str], None]
"""Told how much is done, of how much, and what it was."""

DEFAULT_METHOD: Method = "percentile"
SCHEMA_VERSION = 1
KIND = "scaler-int8-calibration"
_RULES: Mapping[Method, tuple[str, Mapping[str, float]]] = {
    "min-max": ("MinMax", {}),
    "entropy": ("Entropy", {"num_bins": 4096}),
    "percentile": ("Percentile", {"num_bins": 4096, "percentile": 99.99}),
}
"""ONNX Runtime's name and settings."""
_LEVELS = 128
"""Of one sign of symmetric int8."""
_ENDS = 120
"""Candidates among which `entropy` chooses where to cut."""
_TODO = "delete it, or name another cache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a network's activations were like on some pictures."""

    method: Method
    ranges: Mapping[str, tuple[float, float]]
    """Lowest and highest value that counts, by tensor."""
    model: str
    """Digest of the network (`scaler.export.int8_graph.digest`)."""
    pictures: str
    """Digest of the pictures, `picture_digest`."""
    count: int
    """Of pictures."""

    def as_text(self) -> str:
        """The cache's JSON."""
        facts = {"model": self.model, "pictures": self.pictures, "count": self.count, "method": self.method}
        ranges = {name: list(pair) for name, pair in self.ranges.items()}
        return json.dumps({"kind": KIND, "schema_version": SCHEMA_VERSION, **facts, "ranges": ranges}, indent=1) + "\n"


def calibrate(
    model: ModelProto, pictures: Pictures, method: Method = DEFAULT_METHOD, *, progress: Progress | None = None
) -> Calibration:
    """Run a float network on pictures and find the range of every activation.

    Args:
        model: The network, boxes decoded or not.
        pictures: Some tens to hundreds, as the camera sees them, not the ones that tell the AP.
        method: `min-max` covers all that was seen, `percentile` leaves the outermost 0.01 % out, `entropy` is what
            TensorRT's own calibration does (`entropy_end`). Both need two runs over the pictures.
        progress: Told after every picture, or batch of them, of each run.

    Raises:
        UsageError: An unknown method.
        UserError: No picture, one of another shape, or values that are not finite.
        UnsupportedError: The model cannot be quantised, see `check_float`.
        MissingExtraError: The package `onnxruntime` is not installed.
    """
    if method not in get_args(Method):
        raise UsageError(unknown_name("calibration method", method, get_args(Method)))
    check_float(model)
    seen = repeatable(pictures)
    facts, count = picture_digest(seen)
    if not count:
        raise UserError("INT8 calibration: no pictures; name some that the camera would take")
    with TemporaryDirectory(prefix="scaler-int8-") as folder, quiet():
        path = Path(folder) / "float.onnx"
        onnx.save(body(model), path)
        ranges = _ranges(path, seen, method, _steps(count, method, progress))
    return Calibration(method=method, ranges=ranges, model=digest(model), pictures=facts, count=count)


def calibrated(
    model: ModelProto,
    pictures: Pictures,
    method: Method = DEFAULT_METHOD,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """As `calibrate`, but from the cache where there is one; else the cache is written.

    Raises:
        FileError: The cache is of another network, other pictures or another method, or unreadable.
    """
    if cache is None or not cache.exists():
        found = calibrate(model, pictures, method, progress=progress)
        if cache is not None:
            write_atomic(cache, found.as_text())
        return found
    known = read_calibration(cache)
    seen, _ = picture_digest(repeatable(pictures))
    for what, found_there, wanted in (
        ("network", known.model, digest(model)),
        ("set of pictures", known.pictures, seen),
    ):
        if found_there != wanted:
            raise FileError(cache, "", f"made with another {what}", todo=_TODO)
    if known.method != method:
        raise FileError(cache, "method", f"made by {known.method}", f"asked for is {method}", _TODO)
    return known


def read_calibration(path: Path) -> Calibration:
    """Read a cache.

    Raises:
        FileError: It is none, or malformed.
    """
    reader = read_json(path, schema_version=SCHEMA_VERSION)
    if reader.string("kind") != KIND:
        raise reader.error("kind", f"found {reader.string('kind')!r}", f"expected {KIND!r}", "name another file")
    methods: tuple[Method, ...] = get_args(Method)
    ranges = reader.table("ranges")
    return Calibration(
        method=reader.choice("method", methods),
        ranges={name: _pair(ranges, name) for name in ranges.keys},
        model=reader.string("model"),
        pictures=reader.string("pictures"),
        count=reader.integer("count", minimum=1),
    )


def picture_digest(pictures: Pictures) -> tuple[str, int]:
    """SHA-256 of shapes and values in hexadecimal, and the number of pictures.

    Raises:
        UserError: A picture is not `[batch, 3, height, width]`, or not finite.
    """
    total, count = hashlib.sha256(), 0
    for picture in pictures:
        values = np.ascontiguousarray(picture, np.float32)
        if values.ndim != 4 or values.shape[1] != 3:
            raise UserError(f"INT8 calibration: a picture of shape {list(values.shape)}, not [batch, 3, height, width]")
        if not np.isfinite(values).all():
            raise UserError(f"INT8 calibration: picture {count + 1} has values that are not finite")
        total.update(repr(values.shape).encode())
        total.update(values.tobytes())
        count += len(values)
    return total.hexdigest(), count


def repeatable(pictures: Pictures) -> Pictures:
    """The same, to be gone through as often as one likes."""
    return list(pictures) if iter(pictures) is pictures else pictures


class _OnePicture:
    """ONNX Runtime's reader of one batch."""

    def __init__(self, picture: Array) -> None:
        self._left: dict[str, Array] | None = {INPUT_NAME: np.ascontiguousarray(picture, np.float32)}

    def get_next(self) -> dict[str, Array] | None:
        given, self._left = self._left, None
        return given


Step: TypeAlias = Callable[[int], None]
"""Told how many pictures went through the network once more."""


def _steps(count: int, method: Method, progress: Progress | None) -> Step:
    """Tells how far a calibration on so many pictures is, both of its runs together."""
    total, done = count if method == "min-max" else 2 * count, 0

    def step(pictures: int) -> None:
        nonlocal done
        done += pictures
        if progress is not None:
            progress(done, total, "ranges" if done <= count else method)

    return step


def _ranges(path: Path, pictures: Pictures, method: Method, step: Step) -> dict[str, tuple[float, float]]:
    """Of the tensors of the network in this file."""
    watching = _calibrator(path, "min-max")
    _collect(watching, pictures, step)
    widest = _computed(watching)
    if method == "min-max":
        return widest
    calibrator = _calibrator(path, method)
    calibrator.collector = _histograms(calibrator, widest)
    _collect(calibrator, pictures, step)
    if method == "percentile":
        return _computed(calibrator)
    cuts = {name: entropy_end(row[0], float(row[4])) for name, row in calibrator.collector.histogram_dict.items()}
    return {name: (max(low, -cuts[name]), min(high, cuts[name])) for name, (low, high) in widest.items()}


def entropy_end(counts: npt.NDArray[np.int64], end: float) -> float:
    """Where to cut a distribution so that its 8 bits tell most of it.

    Migacz, "8-bit inference with TensorRT" (GTC 2017): of all ends the one where the values cut there differ least, by
    Kullback-Leibler divergence, from the same in 128 levels. Zeros do not count, for every scale holds them exactly.
    ONNX Runtime's own search has as many bins as levels by default, so that nothing is left to choose (its issue 9597),
    and takes seconds a tensor with more.

    Args:
        counts: Histogram of even length over `-end` to `end`.
        end: The largest absolute value.
    """
    half = len(counts) // 2
    counts = counts[half:] + counts[:half][::-1]
    counts[0] = counts[1]
    best, least = half, math.inf
    for stop in np.unique(np.linspace(_LEVELS, half, _ENDS).astype(int)):
        inside = counts[:stop].astype(np.float64)
        level = np.arange(stop) * _LEVELS // stop
        filled = np.bincount(level, inside > 0, _LEVELS)
        told = np.where(inside > 0, (np.bincount(level, inside, _LEVELS) / np.maximum(filled, 1))[level], 0)
        inside[-1] += counts[stop:].sum()
        seen = inside > 0
        if not seen.any():
            continue
        true = inside[seen] / inside.sum()
        divergence = float((true * np.log(true / np.maximum(told[seen] / max(told.sum(), 1), 1e-9))).sum())
        if divergence < least:
            best, least = int(stop), divergence
    return end * best / half


def _calibrator(path: Path, method: Method) -> Any:
    require_onnxruntime()
    from onnxruntime.quantization import CalibrationMethod, create_calibrator  # noqa: PLC0415

    name, settings = _RULES[method]
    return create_calibrator(
        path,
        augmented_model_path=str(path.with_name("watched.onnx")),
        calibrate_method=CalibrationMethod[name],
        extra_options={**settings, "symmetric": False},
    )


def _histograms(calibrator: Any, widest: Mapping[str, tuple[float, float]]) -> Any:
    """Empty histograms over all that will be seen.

    ONNX Runtime takes the first picture's range and widens it by bins as wide as the first ones: a bright picture after
    a black one would fill the memory with bins, and the result would depend on the order of pictures.
    """
    from onnxruntime.quantization.calibrate import HistogramCollector  # noqa: PLC0415

    bins = calibrator.num_bins
    collector = HistogramCollector(
        method=calibrator.method,
        symmetric=False,
        num_bins=bins,
        num_quantized_bins=calibrator.num_quantized_bins,
        percentile=calibrator.percentile,
        scenario=calibrator.scenario,
    )
    for name, (low, high) in widest.items():
        end = np.float32(max(-low, high))
        edges = np.linspace(-end, end, bins + 1, dtype=np.float32)
        collector.histogram_dict[name] = (np.zeros(bins, np.int64), edges, np.float32(low), np.float32(high), end)
    return collector


def _collect(calibrator: Any, pictures: Pictures, step: Step) -> None:
    for picture in pictures:
        try:
            calibrator.collect_data(_OnePicture(picture))
        except Exception as error:  # ONNX Runtime's own errors share no base class with a name
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise UserError(f"INT8 calibration: a picture does not go through the network: {reason}") from None
        step(len(picture))


def _computed(calibrator: Any) -> dict[str, tuple[float, float]]:
    found = calibrator.compute_data()
    ranges = {tensor: _bounds(found[tensor]) for tensor in sorted(found.keys())}
    wrong = [name for name, pair in ranges.items() if not all(map(math.isfinite, pair))]
    if wrong:
        raise UserError(f"INT8 calibration: {wrong[0]} is not finite on these pictures; does the FP32 network work?")
    return ranges


def _bounds(data: Any) -> tuple[float, float]:
    lowest, highest = (float(np.asarray(value).reshape(-1)[0]) for value in data.range_value)
    return lowest, highest


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """ONNX Runtime's tools print, log and divide by zero."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _pair(reader: Reader, name: str) -> tuple[float, float]:
    found = reader.numbers(name)
    if len(found) != 2 or found[0] > found[1]:
        raise reader.error(name, f"found {list(found)}", "expected the lowest and the highest value", _TODO)
    return found[0], found[1]
