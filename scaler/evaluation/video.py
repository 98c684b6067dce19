"""Videos, frame by frame, by OpenCV."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from scaler.data import require_cv2
from scaler.data.dataset import Image
from scaler.data.images import BrokenMediaError
from scaler.errors import UserError

SUFFIXES = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".ts"))
"""Of the files that count as videos, in lower case."""
OUTPUT_SUFFIX = ".mp4"
_CODEC = "mp4v"  # MPEG-4 part 2: every OpenCV writes it
_FRAME_RATE = 25.0  # where a video does not tell its own
_QUIET = "-8"  # AV_LOG_QUIET


class BrokenVideoError(BrokenMediaError):
    """A video."""


class VideoReader:
    """The frames of a video, RGB.

    Attributes:
        fps: Frames per second, 25 where the file does not tell.
        frames: How many, as the file tells; 0 where it does not.

    Raises:
        BrokenVideoError: It is missing, or OpenCV finds no video in it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise BrokenVideoError(path, "no such file")
        self._cv2 = quiet_cv2()
        self._path = path
        self._capture: Any = self._cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise BrokenVideoError(path, "no video that OpenCV reads, or cut off")
        rate = float(self._capture.get(self._cv2.CAP_PROP_FPS))
        self.fps = rate if 0 < rate < 1000 else _FRAME_RATE
        self.frames = max(0, int(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Image]:
        """The frames `[height, width, 3]`, once.

        Raises:
            BrokenVideoError: There is none.
        """
        count = 0
        while True:
            done, frame = self._capture.read()
            if not done:
                break
            count += 1
            yield self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB)
        if not count:
            raise BrokenVideoError(self._path, "has no frame that can be read")

    def close(self) -> None:
        """Release the file."""
        self._capture.release()

    def __enter__(self) -> Self:
        """Close at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class VideoWriter:
    """Writes an MP4 file beside its place; it takes its place at the end of the block, if nothing went wrong.

    Args:
        path: The file, `.mp4`; its folder exists.
        fps: Frames per second.

    Raises:
        UserError: It cannot be written (raised by the first frame).
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._passing = path.with_name(f".scaler-{os.urandom(6).hex()}{OUTPUT_SUFFIX}")
        self._cv2 = quiet_cv2()
        self._writer: Any = None

    def write(self, frame: Image) -> None:
        """Append a frame, RGB; all are of one size."""
        if self._writer is None:
            height, width = frame.shape[:2]
            codec = self._cv2.VideoWriter_fourcc(*_CODEC)
            self._writer = self._cv2.VideoWriter(str(self._passing), codec, self._fps, (width, height))
            if not self._writer.isOpened():
                raise UserError(f"cannot write {self._path}: OpenCV cannot open it; is the folder writable?")
        self._writer.write(self._cv2.cvtColor(frame, self._cv2.COLOR_RGB2BGR))

    def __enter__(self) -> Self:
        """Write until the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the file in its place, or remove it after an error."""
        if self._writer is not None:
            self._writer.release()
        try:
            if kind is None and self._writer is not None:
                self._passing.replace(self._path)
        except OSError as problem:
            reason = (problem.strerror or str(problem)).lower()
            raise UserError(f"cannot write {self._path}: {reason}; what was there before is unchanged") from None
        finally:
            with contextlib.suppress(OSError):
                self._passing.unlink()


def quiet_cv2() -> Any:
    """Return OpenCV, neither it nor FFmpeg printing of its own what becomes an error of ours."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _QUIET)
    cv2 = require_cv2()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
