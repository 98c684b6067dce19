"""Whole frames: from a picture's file to its objects, timed in rounds beside the reference network like an engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

import numpy as np

from scaler.data.images import read_image, write_image
from scaler.data.shapes import drawn
from scaler.evaluation.detections import Detector, Selection
from scaler.evaluation.live import found_in
from scaler.evaluation.live_frames import Frame
from scaler.profiling.measurement import Measurement
from scaler.runtimes.protocol import Conditions, FloatArray, LayerTime

__all__ = ["GENERATED", "PARTS", "SELECTION", "FrameSession", "Frames", "generated_pictures"]

PARTS = ("decoding", "letterbox", "network", "nms")
SELECTION = Selection(confidence=0.25, iou=0.5, most=100)
"""What `scaler run` shows unless told otherwise: the frame of a deployed network, not that of an evaluation."""
GENERATED = (640, 480)
"""Width and height of generated pictures, those of a plain camera."""
_WARM_UP_FRAMES = 3
_DRAWN_SIDE = 160


class Frames:
    """A detector on picture files as a `scaler.runtimes.protocol.Runtime`, whose inferences are whole frames.

    Args:
        detector: The network.
        pictures: Files, used in turn.
        conditions: Under which it runs.
    """

    name = "frames"

    def __init__(self, detector: Detector, pictures: Sequence[Path], conditions: Conditions) -> None:
        self._detector = detector
        self._pictures = pictures
        self._conditions = conditions
        self.session: FrameSession | None = None
        """Of the last model."""

    def conditions(self) -> Conditions:
        """Those that were given."""
        return self._conditions

    def prepare(self, model: Path) -> FrameSession:  # noqa: ARG002
        """Warm up; the detector is the model."""
        self.session = FrameSession(self._detector, self._pictures)
        self.session.time(_WARM_UP_FRAMES)
        return self.session

    def parts_ms(self, measurement: Measurement, quiet_ms: float) -> Mapping[str, float]:
        """Median milliseconds of each of `PARTS` over the frames of the quiet rounds of a measurement."""
        assert self.session is not None
        kept = {total for round_ in measurement.quiet_rounds(quiet_ms) for total in round_.network_ms}
        rows = [parts for parts in self.session.rows if sum(parts) in kept]
        return dict(zip(PARTS, np.median(rows, axis=0).tolist(), strict=True))


class FrameSession:
    """Frames one after another; see `scaler.runtimes.protocol.Session`.

    Attributes:
        rows: Milliseconds of the parts of every frame.
    """

    def __init__(self, detector: Detector, pictures: Sequence[Path]) -> None:
        self._detector = detector
        self._pictures = cycle(pictures)
        self.rows: list[tuple[float, ...]] = []

    def time(self, runs: int) -> FloatArray:
        """Milliseconds of `runs` frames, from reading the file to the objects in the picture's pixels."""
        new = [self._frame(next(self._pictures)) for _ in range(runs)]
        self.rows += new
        return np.array([sum(parts) for parts in new])

    def profile(self, runs: int) -> tuple[LayerTime, ...]:  # noqa: ARG002
        """A frame has parts and no layers."""
        return ()

    def close(self) -> None:
        """Nothing to release: the detector is the caller's."""

    def __enter__(self) -> Self:
        """Enter a block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave it."""

    def _frame(self, picture: Path) -> tuple[float, ...]:
        start = perf_counter()
        image = read_image(picture)
        decoded = perf_counter()
        _, moments = found_in(self._detector, Frame(image, 0.0, decoded - start, None), SELECTION)
        return tuple((1e3 * np.diff([start, decoded, *moments])).tolist())


def generated_pictures(folder: Path, count: int = 8) -> tuple[Path, ...]:
    """Write JPEG pictures of `GENERATED` size, where the user has given no data."""
    import cv2  # noqa: PLC0415

    paths = tuple(folder / f"generated{number}.jpg" for number in range(count))
    for number, path in enumerate(paths):
        image, _ = drawn(_DRAWN_SIDE, np.random.default_rng((0, number)))
        write_image(path, np.asarray(cv2.resize(image, GENERATED, interpolation=cv2.INTER_LINEAR), np.uint8))
    return paths
