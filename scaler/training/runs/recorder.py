"""Writes a run down while it goes: `metrics.csv`, TensorBoard's files and the pictures of its folder."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from scaler.data.dataset import Dataset, Picture
from scaler.data.images import BrokenPictureError, read_image
from scaler.evaluation.coco_ap import RECALLS
from scaler.evaluation.detections import Detector, Selection
from scaler.evaluation.metrics import Metrics
from scaler.training.loop.batches import Batch
from scaler.training.loop.events import Epoch, Outcome, Silent, Start, Step
from scaler.training.runs.folder import METRICS, RunFolder
from scaler.training.runs.logs import MetricsFile, Row, TensorBoard
from scaler.training.runs.pictures import Tile, write_batch, write_predictions
from scaler.training.runs.plots import write_ap, write_loss, write_precision_recall

REDRAW_SECONDS = 30.0
"""Least time between two drawings of the curves while the run goes on."""
SHOWN_PICTURES = 12
SHOWN_PAIRS = 8
SHOWN_CONFIDENCE = 0.25


class Recorder(Silent):
    """Keeps the folder of a run up to date; leaving it, whatever the reason, draws the curves once more."""

    def __init__(self, folder: RunFolder, title: str, *, tensorboard: bool = False) -> None:
        self._folder, self._title = folder, title
        self._metrics: MetricsFile | None = None
        self._tensorboard = tensorboard
        self._board: TensorBoard | None = None
        self._drawn, self._steps_per_epoch = time.monotonic(), 1

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board:
            self._board.close()
        self._draw()

    def on_start(self, event: Start) -> None:
        """Cut what is done again."""
        self._metrics = MetricsFile(self._folder.file(METRICS), after_epoch=event.epoch)
        self._steps_per_epoch = event.steps_per_epoch
        if self._tensorboard:
            self._board = TensorBoard(self._folder.path, after_step=event.epoch * event.steps_per_epoch + event.step)

    def on_step(self, event: Step) -> None:
        """Tell TensorBoard."""
        if self._board:
            number = event.epoch * self._steps_per_epoch + event.step
            self._board.step(number, {name: value for name, value in event.losses.items() if value}, event.lr)

    def on_epoch(self, event: Epoch) -> None:
        """Write a row."""
        row = row_of(event)
        if self._metrics:
            self._metrics.add(row)
        if self._board:
            self._board.epoch(row)
        if time.monotonic() - self._drawn > REDRAW_SECONDS:
            self._draw()

    def on_end(self, event: Outcome) -> None:
        """Draw precision against recall."""
        if event.metrics is not None:
            draw_precision_recall(event.metrics, self._title, self._folder)

    def _draw(self) -> None:
        rows = self._metrics.rows if self._metrics else []
        if rows:
            write_loss(rows, self._title, self._folder.file("loss.png"))
            write_ap(rows, self._title, self._folder.file("ap.png"))
        self._drawn = time.monotonic()


def row_of(event: Epoch) -> Row:
    """What `metrics.csv` says of an epoch: epochs and stages from 1, AP in points."""
    ap, ap50 = (event.metrics.ap, event.metrics.ap50) if event.metrics else (None, None)
    return Row(
        epoch=event.epoch + 1,
        stage=event.stage + 1,
        lr=event.lr,
        box=event.losses["box"],
        objectness=event.losses["objectness"],
        classes=event.losses["classes"],
        adversarial=event.losses.get("adversarial"),
        loss=event.losses["total"],
        ap=None if ap is None else 100 * ap,
        ap50=None if ap50 is None else 100 * ap50,
        seconds=event.seconds,
        pictures_per_second=event.pictures_per_s,
    )


def draw_precision_recall(metrics: Metrics, title: str, folder: RunFolder) -> None:
    """Draw `pr.png`; nothing where there was no object to find."""
    seen = [row for row in metrics.by_class if row.precision]
    recall = np.asarray(RECALLS, np.float32)
    curves = {row.name: (recall, np.asarray(row.precision, np.float32)) for row in seen}
    ap50 = {row.name: 100 * (row.ap50 or 0.0) for row in seen}
    if curves:
        write_precision_recall(curves, ap50, title, folder.file("pr.png"))


def draw_batch(batch: Batch, classes: Sequence[str], title: str, folder: RunFolder) -> None:
    """Draw `batch.png`: pictures of a batch as the network gets them."""
    images = batch.images.permute(0, 2, 3, 1).contiguous().numpy()
    corners, labels, pictures = (part.numpy() for part in batch.targets)
    tiles = []
    for index in range(min(len(images), SHOWN_PICTURES)):
        own = pictures == index
        tiles.append(Tile(images[index], corners[own], labels[own]))
    write_batch(tiles, classes, title, folder.file("batch.png"))


def draw_predictions(detector: Detector, dataset: Dataset, selection: Selection, title: str, folder: RunFolder) -> None:
    """Draw `predictions.png`: evenly chosen pictures with their labels and with what a detector finds."""
    chosen = Selection(confidence=SHOWN_CONFIDENCE, iou=selection.iou, most=selection.most)
    pairs = []
    for picture in spread(dataset.pictures):
        try:
            image = read_image(picture.path)
        except BrokenPictureError:
            continue
        found = detector.detect([image], chosen)[0]
        wanted = ~picture.boxes.ignored
        drawn = Tile(image, picture.boxes.corners[wanted], picture.boxes.labels[wanted], note=picture.name)
        pairs.append((drawn, Tile(image, found.corners, found.labels, found.scores)))
    if pairs:
        write_predictions(pairs, dataset.classes, title, folder.file("predictions.png"))


def spread(pictures: Sequence[Picture], most: int = SHOWN_PAIRS) -> list[Picture]:
    """At most so many pictures with objects, evenly over the set; without objects where there are no others."""
    seen = [picture for picture in pictures if len(picture.boxes)] or list(pictures)
    return [seen[len(seen) * index // most] for index in range(most)] if len(seen) > most else seen
