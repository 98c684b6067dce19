"""A detector on a data set: read, fit, detect, judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import NamedTuple, TypeAlias

import numpy as np

from scaler.data.dataset import Boxes, Dataset, Image, IntArray, Picture
from scaler.data.images import BrokenPictureError, read_image
from scaler.data.preprocessing import Fit, Preprocessing, letterbox
from scaler.errors import UnsupportedError, UserError, listed
from scaler.evaluation.detect import selected
from scaler.evaluation.detections import Detections, Detector, Selection
from scaler.evaluation.metrics import Metrics, Seconds, Skipped, score

Progress: TypeAlias = Callable[[int, int, str], None]
"""Told how many pictures are done, of how many, and the name of the last."""


def evaluate(
    detector: Detector,
    dataset: Dataset,
    selection: Selection | None = None,
    *,
    batch: int = 16,
    workers: int = 2,
    progress: Progress | None = None,
) -> Metrics:
    """Judge a detector by the objects of a data set.

    Pictures that cannot be read are left out and told in `Metrics.skipped`.

    Args:
        detector: The network.
        dataset: Pictures and objects. Its classes have the names of the detector's, in any order.
        selection: Which boxes count; those that counted in its training where None, or those of `Selection()` where the
            detector does not know.
        batch: Pictures that go through the network together.
        workers: Threads that read the next batch meanwhile.
        progress: Told after every batch.

    Raises:
        UnsupportedError: The classes are others.
        UserError: There are no pictures, or none can be read.
        MissingExtraError: The package `faster-coco-eval` is not installed.
    """
    labels = label_map(detector.classes, dataset.classes)
    selection = selection or detector.selection or Selection()
    if not dataset.pictures:
        raise UserError(f"{dataset.name}: the split {dataset.split!r} has no pictures; check its folder and labels")
    truth: list[Boxes] = []
    found: list[Detections] = []
    skipped: list[Skipped] = []
    loading = network = postprocessing = 0.0
    for loaded in _loaded(dataset.pictures, detector.preprocessing, batch, workers):
        skipped += loaded.skipped
        loading += loaded.seconds
        if loaded.pictures:
            start = perf_counter()
            boxes, scores = detector.raw(np.stack(loaded.images))
            between = perf_counter()
            for own_boxes, own_scores, fit in zip(boxes, scores, loaded.fits, strict=True):
                detections = selected(own_boxes, own_scores, fit, selection)
                found.append(Detections(detections.corners, detections.scores, labels[detections.labels]))
            network += between - start
            postprocessing += perf_counter() - between
            truth += [picture.boxes for picture in loaded.pictures]
        if progress:
            progress(len(truth) + len(skipped), len(dataset.pictures), loaded.last)
    if not truth:
        raise UserError(
            f"{dataset.name}: none of the {len(skipped)} pictures of the split {dataset.split!r} can be read; the "
            f"first: {skipped[0].picture}: {skipped[0].reason}"
        )
    return score(
        truth,
        found,
        dataset.classes,
        dataset=dataset.name,
        split=dataset.split,
        selection=selection,
        skipped=skipped,
        seconds=Seconds(loading, network, postprocessing),
    )


def label_map(network: Sequence[str], dataset: Sequence[str]) -> IntArray:
    """For each class of a network its place among the classes of a data set.

    Raises:
        UnsupportedError: The names are not the same.
    """
    if sorted(network) != sorted(dataset):
        raise UnsupportedError(
            f"the network knows {_counted(network)} ({listed(network)}), the data set has {len(dataset)} "
            f"({listed(dataset)}); evaluate it on data with its classes"
        )
    return np.array([dataset.index(name) for name in network], np.int64)


def _counted(classes: Sequence[str]) -> str:
    return f"{len(classes)} class" + ("es" if len(classes) != 1 else "")


class _Loaded(NamedTuple):
    """A batch; its pictures are those that can be read."""

    pictures: list[Picture]
    images: list[Image]
    fits: list[Fit]
    skipped: list[Skipped]
    last: str
    seconds: float
    """That were waited for it."""


def _loaded(pictures: Sequence[Picture], preprocessing: Preprocessing, batch: int, workers: int) -> Iterator[_Loaded]:
    """Batches of fitted pictures, read in threads one batch ahead."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        parts = (pictures[start : start + batch] for start in range(0, len(pictures), batch))

        def ordered() -> list[tuple[Picture, Future[tuple[Image, Fit] | Skipped]]]:
            return [(picture, pool.submit(_fitted, picture, preprocessing)) for picture in next(parts, ())]

        current = ordered()
        while current:
            following = ordered()
            yield _awaited(current)
            current = following


def _awaited(ordered: Sequence[tuple[Picture, Future[tuple[Image, Fit] | Skipped]]]) -> _Loaded:
    loaded = _Loaded([], [], [], [], ordered[-1][0].name, 0.0)
    start = perf_counter()
    for picture, future in ordered:
        match future.result():
            case Skipped() as skipped:
                loaded.skipped.append(skipped)
            case image, fit:
                loaded.pictures.append(picture)
                loaded.images.append(image)
                loaded.fits.append(fit)
    return loaded._replace(seconds=perf_counter() - start)


def _fitted(picture: Picture, preprocessing: Preprocessing) -> tuple[Image, Fit] | Skipped:
    try:
        return letterbox(read_image(picture.path), preprocessing)
    except BrokenPictureError as error:
        return Skipped(str(picture.path), error.reason)
