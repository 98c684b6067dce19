"""A detector on frames as they come, each part of every frame timed: what `scaler run` shows."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from scaler.data.preprocessing import letterbox
from scaler.evaluation.detect import selected
from scaler.evaluation.detections import Detections, Detector, Selection
from scaler.evaluation.live_frames import Frame, FrameSource
from scaler.evaluation.live_output import Recorder, Window, write_overlay
from scaler.evaluation.predict import drawn

Progress: TypeAlias = Callable[[int, int, str], None]
"""Told how many frames are done, of how many (0: not known), and the name of the source."""

Ending: TypeAlias = Literal["frames", "asked", "source"]
"""Why a run ended: as many as wanted; by key, closed window, Ctrl-C or time limit; there are no more."""

_WARM_UPS = 3
_SMOOTHED = 30
"""Frames over which the figures in the picture are the mean."""
_KEPT = 200_000
"""Frames whose times are kept, the last ones: two hours at 30 FPS."""


class FrameTimes(NamedTuple):
    """Milliseconds of the parts of one frame."""

    waiting: float
    """For the camera, or for the moment at which a window shows the next frame of a video."""
    decoding: float
    """To RGB in memory."""
    letterbox: float
    """Into the network's input."""
    network: float
    """From there to boxes and scores in memory, normalisation and copies included."""
    nms: float
    drawing: float
    """Boxes and figures."""
    output: float
    """Showing in the window and writing into the video."""

    @property
    def frame(self) -> float:
        """From the frame that has come to the drawn one: without waiting and output."""
        return sum(self) - self.waiting - self.output


class Statistic(NamedTuple):
    """Of one part, in milliseconds."""

    median: float
    p99: float


@dataclass(frozen=True, slots=True)
class LiveRun:
    """What a run took."""

    frames: int
    seconds: float
    """From the first frame asked for to the last one shown."""
    times: tuple[FrameTimes, ...]
    """Of every frame, of the last 200,000 in longer runs."""
    ended: Ending

    @property
    def fps(self) -> float:
        """Frames per second that were reached, waiting and output included; 0 without frames."""
        return self.frames / self.seconds if self.frames else 0.0

    @property
    def possible_fps(self) -> float:
        """Frames per second of frames one after another, without waiting and output; 0 without frames."""
        return 1000 / float(np.mean([row.frame for row in self.times])) if self.times else 0.0

    def statistics(self) -> Mapping[str, Statistic]:
        """Median and 99th percentile by part, in order, and of the whole `frame`; empty without frames."""
        if not self.times:
            return {}
        columns = dict(zip(FrameTimes._fields, np.array(self.times).T, strict=True))
        columns["frame"] = np.array([row.frame for row in self.times])
        return {name: Statistic(*np.percentile(column, (50, 99)).tolist()) for name, column in columns.items()}


def run_live(
    detector: Detector,
    source: FrameSource,
    selection: Selection,
    *,
    window: Window | None = None,
    recorder: Recorder | None = None,
    frames: int | None = None,
    seconds: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: Progress | None = None,
) -> LiveRun:
    """Find objects in frame after frame, draw them with what it takes, show and record them.

    Where there is a window, frames of files stay in it as long as they do in a player; without one, each follows the
    one before at once. A KeyboardInterrupt ends the run as `stop` does.

    Args:
        detector: The network.
        source: The frames.
        selection: Which boxes count.
        window: To show them in.
        recorder: To write them with.
        frames: Most that are shown.
        seconds: End after this time, from the first frame asked for, but not without one.
        stop: Asked after every frame, and while one stays in the window, whether to end.
        progress: Told after every frame.

    Raises:
        UserError: There is no frame, the network fails, or a result cannot be shown or written.
    """
    loop = _Loop(detector, selection, window, recorder)
    loop.warm_up()
    total = min(filter(None, (frames, source.frames)), default=0)
    tell = (lambda: progress(loop.done, total, source.name)) if progress else lambda: None
    start = perf_counter()
    end = math.inf if seconds is None else start + seconds
    ended = _until_the_end(loop, source, frames, lambda: stop() or perf_counter() >= end, tell)
    return LiveRun(loop.done, perf_counter() - start, tuple(loop.times), ended)


def _until_the_end(
    loop: _Loop, source: FrameSource, frames: int | None, stop: Callable[[], bool], tell: Callable[[], None]
) -> Ending:
    """Take frame after frame; returns why no more."""
    try:
        for frame in source:
            go_on = loop.step(frame, stop)
            tell()
            if loop.done == frames:
                return "frames"
            if not go_on or stop():
                return "asked"
    except KeyboardInterrupt:
        return "asked"
    return "source"


class _Loop:
    """What is done to each frame, and the times of those before."""

    def __init__(
        self, detector: Detector, selection: Selection, window: Window | None, recorder: Recorder | None
    ) -> None:
        self._detector, self._selection = detector, selection
        self._window, self._recorder = window, recorder
        self._recent: deque[FrameTimes] = deque(maxlen=_SMOOTHED)
        self.times: deque[FrameTimes] = deque(maxlen=_KEPT)
        self.done = 0

    def warm_up(self) -> None:
        """Do all of it to grey pictures, but show none: the first runs allocate, choose algorithms and load fonts."""
        side = self._detector.preprocessing.size
        grey = Frame(np.full((side, side, 3), 114, np.uint8), 0.0, 0.0, None)
        for _ in range(_WARM_UPS):
            found, _moments = found_in(self._detector, grey, self._selection)
            write_overlay(drawn(grey.image, found, self._detector.classes), ("FPS",))

    def step(self, frame: Frame, stop: Callable[[], bool]) -> bool:
        """Take a frame from its pixels to the outputs; whether to go on. `stop` ends its time in the window."""
        start = perf_counter()
        found, moments = found_in(self._detector, frame, self._selection)
        image = drawn(frame.image, found, self._detector.classes)
        write_overlay(image, overlay(tuple(self._recent)))
        moments.append(perf_counter())
        go_on = self._window is None or self._window.show(image)
        if self._recorder:
            self._recorder.write(image, frame.shown)
        moments.append(perf_counter())
        waited = frame.waited
        if self._window and go_on and frame.shown is not None:
            rest = frame.shown - frame.decoded - (moments[-1] - start)
            if rest > 0:
                go_on = self._window.pause(rest, stop)
                waited += perf_counter() - moments[-1]
        parts = (waited, frame.decoded, *np.diff([start, *moments]).tolist())
        row = FrameTimes(*(1000 * seconds for seconds in parts))
        self.times.append(row)
        self._recent.append(row)
        self.done += 1
        return go_on


def found_in(detector: Detector, frame: Frame, selection: Selection) -> tuple[Detections, list[float]]:
    """Objects of a frame, and the moments (of `perf_counter`) at which letterbox, network and NMS were done."""
    image, fit = letterbox(frame.image, detector.preprocessing)
    fitted = perf_counter()
    boxes, scores = detector.raw(image[None])
    through = perf_counter()
    found = selected(boxes[0], scores[0], fit, selection)
    return found, [fitted, through, perf_counter()]


def overlay(recent: tuple[FrameTimes, ...]) -> tuple[str, ...]:
    """Lines with the mean figures of recent frames; none before the first."""
    if not recent:
        return ()
    mean = FrameTimes(*np.mean(recent, axis=0).tolist())
    return (
        f"{1000 / sum(mean):.1f} FPS",
        f"network {mean.network:.1f} ms  frame {mean.frame:.1f} ms",
        f"decode {mean.decoding:.1f}  letterbox {mean.letterbox:.1f}  NMS {mean.nms:.1f}  drawing {mean.drawing:.1f}",
    )
