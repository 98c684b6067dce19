"""Where the frames of `scaler run` go: into a window, into a video; and the figures that stand in their corner."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from scaler.data import drawing
from scaler.data.dataset import Image
from scaler.errors import UnsupportedError
from scaler.evaluation.video import VideoWriter, quiet_cv2

_ENDING = frozenset((ord("q"), ord("Q"), 27))  # 27 is Esc
_SMALLEST, _LARGEST = 640, 1280
"""Pixels of a window's longer side at first; it can be drawn to any size."""
_SLICE = 50
"""Most milliseconds that a window waits before it asks whether to go on."""
_INSTEAD = "use --headless --out demo.mp4"
_WHITE = (255, 255, 255)
_DARKER = 6


class Window:
    """A window on the screen, from its first picture on; q, Esc, or closing it ends the run.

    Raises:
        UnsupportedError: OpenCV has no windows, or there is no screen.
    """

    def __init__(self, title: str) -> None:
        self._cv2, self._title = quiet_cv2(), title
        check_window(self._cv2, os.environ)
        self._open = self._seen = False

    def show(self, image: Image) -> bool:
        """Show a picture, RGB; whether to go on."""
        try:
            if not self._open:
                self._begin(*image.shape[:2])
            self._cv2.imshow(self._title, self._cv2.cvtColor(image, self._cv2.COLOR_RGB2BGR))
        except self._cv2.error as error:
            raise UnsupportedError(
                f"OpenCV cannot open a window: {getattr(error, 'err', '') or error}; {_INSTEAD}"
            ) from None
        return self.pause(0)

    def pause(self, seconds: float, stop: Callable[[], bool] = lambda: False) -> bool:
        """Let the window live for a time, a millisecond at least; whether to go on.

        Args:
            seconds: How long; other keys than those that end the run do not shorten it.
            stop: Asked every 50 ms at least whether to end it.
        """
        end = perf_counter() + seconds
        left = max(1, round(1000 * seconds))
        while left > 0:
            if not self._live(min(left, _SLICE)) or stop():
                return False
            left = round(1000 * (end - perf_counter()))
        return True

    def _live(self, milliseconds: int) -> bool:
        """Let the window live until a key is pressed, so long at most; whether to go on."""
        key = self._cv2.waitKey(milliseconds) & 0xFF
        visible = self._visible()
        closed = self._seen and not visible  # some backends never tell
        self._seen = self._seen or visible
        return key not in _ENDING and not closed

    def close(self) -> None:
        """Take it from the screen."""
        if self._open:
            with contextlib.suppress(self._cv2.error):  # the user has closed it
                self._cv2.destroyAllWindows()

    def _visible(self) -> bool:
        try:
            return bool(self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) >= 1)
        except self._cv2.error:  # Qt's, once its last window is closed
            return False

    def _begin(self, height: int, width: int) -> None:
        self._cv2.namedWindow(self._title, self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO)
        side = max(height, width)
        share = min(max(side, _SMALLEST), _LARGEST) / side
        self._cv2.resizeWindow(self._title, round(width * share), round(height * share))
        self._open = True


def check_window(cv2: Any, environment: Mapping[str, str], platform: str = sys.platform) -> None:
    """Make sure that OpenCV can open a window. Without a screen, OpenCV's Qt ends the process: so it is asked before.

    Raises:
        UnsupportedError: It cannot.
    """
    if not cv2.currentUIFramework():
        raise UnsupportedError(
            f"this OpenCV has no windows (opencv-python-headless); {_INSTEAD}, or "
            "pip uninstall opencv-python-headless and pip install opencv-python"
        )
    if platform == "linux" and not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        raise UnsupportedError(f"there is no screen here (neither DISPLAY nor WAYLAND_DISPLAY is set); {_INSTEAD}")


class Recorder:
    """Writes frames into a video at a fixed rate so that it runs as fast as what was filmed.

    A frame that lasts longer than one of the video is written several times, one that lasts shorter perhaps not at all.
    How long a frame of a camera lasts is known when the next one comes: so the one before fills the time between.
    Frames of another size than the first are fitted into it, with a black border.

    Args:
        writer: Of the video.
        fps: Of the video.
        clock: Seconds, for frames of a camera.
    """

    def __init__(self, writer: VideoWriter, fps: float, clock: Callable[[], float] = perf_counter) -> None:
        self._writer, self._fps, self._clock = writer, fps, clock
        self._start: float | None = None
        self._size: tuple[int, int] | None = None
        self._before: Image | None = None
        self._position = 0.0
        self._written = 0

    def write(self, image: Image, shown: float | None) -> None:
        """Write a frame, RGB, that is shown for so many seconds; None: it has just come from a camera.

        Raises:
            UserError: The video cannot be written.
        """
        if shown is None:
            now = self._clock()
            self._start = now if self._start is None else self._start
            self._position = now - self._start + 1 / self._fps
        else:
            self._position += shown
        copies = round(self._position * self._fps) - self._written
        if shown is None and self._before is not None:
            self._append(self._before, copies - 1)
            copies = min(copies, 1)
        self._append(image, copies)
        self._before = image

    def _append(self, image: Image, copies: int) -> None:
        height, width = self._size = self._size or (image.shape[0], image.shape[1])
        fitted = on_canvas(image, width, height) if copies > 0 else image
        for _ in range(copies):
            self._writer.write(fitted)
        self._written += max(0, copies)


def on_canvas(image: Image, width: int, height: int) -> Image:
    """Return a picture of this size: the given one if it has it, otherwise as large as fits, centred on black."""
    if image.shape[:2] == (height, width):
        return image
    cv2 = quiet_cv2()
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    canvas = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(image, inner, interpolation=method)
    return canvas


def write_overlay(canvas: Image, lines: Sequence[str]) -> None:
    """Write lines into the upper left corner of a picture, on a darkened ground; those too wide for it are left out."""
    _, scale = drawing.weights(canvas)
    sizes = {line: drawing.text_size(line, scale) for line in lines}
    fitting = [line for line in lines if sizes[line][0] <= canvas.shape[1]]
    width = max((sizes[line][0] for line in fitting), default=0)
    canvas[: sum(sizes[line][1] for line in fitting), :width] //= _DARKER
    top = 0
    for line in fitting:
        drawing.write_text(canvas, line, (0, top), _WHITE, scale)
        top += sizes[line][1]
