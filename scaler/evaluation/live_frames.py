"""Where the frames of `scaler run` come from: cameras, network streams, videos, pictures, folders of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

from scaler.data.dataset import Image
from scaler.data.images import BrokenMediaError, read_image
from scaler.errors import UnsupportedError, UsageError, UserError
from scaler.evaluation import video
from scaler.evaluation.metrics import Skipped
from scaler.evaluation.sources import find_files, is_video

_CAMERA_RATE = 30.0  # frames per second, where a camera does not tell its own
_LEAST_RATE = 0.1  # frames per second of a video of pictures; OpenCV writes none below 0.001
_MOST_BAD = 10
"""Frames in a row that may be damaged, as a USB camera's first ones are, before a camera counts as broken."""
_DEVICES = Path("/dev")
_DIGITS = 3
"""Of a camera's number: far more than a machine has; OpenCV's number is a C int."""


class Frame(NamedTuple):
    """One picture of a source, and what it took."""

    image: Image
    waited: float
    """Seconds until the camera had it."""
    decoded: float
    """Seconds from there to RGB in memory."""
    shown: float | None
    """Seconds that it stands in a video; None of a camera, whose frames last until the next one comes."""


class FrameSource(Protocol):
    """Frames, one after another. Use it as a context: it is closed at the end of the block."""

    @property
    def name(self) -> str:
        """To be told."""

    @property
    def fps(self) -> float:
        """Frames per second of a video made of it."""

    @property
    def frames(self) -> int:
        """How many, as far as is known before they are read; 0 of a camera."""

    @property
    def broken(self) -> Sequence[Skipped]:
        """What could not be read until now."""

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once.

        Raises:
            UserError: There is none.
        """

    def __enter__(self) -> Self:
        """Close at the end of the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""


class CameraFrames:
    """The frames of a camera or stream that OpenCV has opened, the newest ones where it can keep fewer.

    Args:
        capture: A `cv2.VideoCapture`, or what behaves like one: `get`, `set`, `grab`, `retrieve`, `release`.
        name: To be told.
    """

    broken: Sequence[Skipped] = ()
    frames = 0

    def __init__(self, capture: Any, name: str) -> None:
        self._cv2 = video.quiet_cv2()
        self._capture, self.name = capture, name
        capture.set(self._cv2.CAP_PROP_BUFFERSIZE, 1)  # V4L2 keeps four otherwise, each a frame late
        rate = float(capture.get(self._cv2.CAP_PROP_FPS))
        self.fps = rate if 0 < rate < 1000 else _CAMERA_RATE

    def __iter__(self) -> Iterator[Frame]:
        """The frames until the camera is gone or the stream has ended.

        Raises:
            UserError: None comes.
        """
        found = bad = 0
        start = perf_counter()
        while bad <= _MOST_BAD and self._capture.grab():
            came = perf_counter()
            done, picture = self._capture.retrieve()
            if done and picture is not None and picture.size:
                found, bad = found + 1, 0
                yield Frame(self._rgb(picture), came - start, perf_counter() - came, None)
                start = perf_counter()
            else:
                bad += 1
        if not found:
            raise UserError(f"{self.name}: opened, but gives no frame; does another program use it? is it connected?")

    def _rgb(self, picture: Any) -> Image:
        """RGB of what the backend gives: BGR, or grey or BGRx where a pipeline says so."""
        channels = 1 if picture.ndim == 2 else picture.shape[2]
        codes = {1: self._cv2.COLOR_GRAY2RGB, 3: self._cv2.COLOR_BGR2RGB, 4: self._cv2.COLOR_BGRA2RGB}
        if channels not in codes:
            raise UserError(f"{self.name}: frames of {channels} channels; end the pipeline with video/x-raw,format=BGR")
        image: Image = self._cv2.cvtColor(picture, codes[channels])
        return image

    def __enter__(self) -> Self:
        """Release the camera at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the camera."""
        self._capture.release()


class FileFrames:
    """The frames of videos and pictures, one file after another. What cannot be read is left out and told.

    Args:
        name: What the user named, to be told.
        paths: The files.
        picture_seconds: How long a picture is shown.

    Attributes:
        fps: Of the first video, or of the pictures where there is none.
        frames: Of all together, as far as the files tell.
        broken: What could not be read until now.
    """

    def __init__(self, name: str, paths: Sequence[Path], picture_seconds: float) -> None:
        self.name, self._paths, self._picture_seconds = name, tuple(paths), picture_seconds
        self.broken: list[Skipped] = []
        videos = [told for path in paths if is_video(path) and (told := _rate_and_count(path))]
        self.fps = videos[0][0] if videos else max(1 / picture_seconds, _LEAST_RATE)
        self.frames = sum(count for _, count in videos) + sum(not is_video(path) for path in paths)

    def __iter__(self) -> Iterator[Frame]:
        """The frames.

        Raises:
            UserError: There is none.
        """
        found = 0
        for path in self._paths:
            try:
                for frame in _of_video(path) if is_video(path) else self._of_picture(path):
                    found += 1
                    yield frame
            except BrokenMediaError as error:
                self.broken.append(Skipped(str(path), error.reason))
        if not found:
            first = self.broken[0]
            raise UserError(f"{self.name}: no frame can be read; {first.picture}: {first.reason}")

    def _of_picture(self, path: Path) -> Iterator[Frame]:
        start = perf_counter()
        image = read_image(path)
        yield Frame(image, 0.0, perf_counter() - start, self._picture_seconds)

    def __enter__(self) -> Self:
        """Files are closed where their frames end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""


def open_source(text: str, out: Path | None, picture_seconds: float) -> FrameSource:
    """Open what the user named.

    Args:
        text: The number of a camera, its device file, a GStreamer pipeline (it has `!` in it), the address of a stream
            (`rtsp://...`), a video, a picture, a folder of them, or a pattern.
        out: The video that is written, if one is: an earlier one in the folder is not read.
        picture_seconds: How long a picture is shown.

    Raises:
        UserError: There is no such thing, or it cannot be opened.
        UsageError: No camera has such a number.
        UnsupportedError: A pipeline, and this OpenCV has no GStreamer.
        MissingExtraError: OpenCV is not installed.
    """
    if is_camera(text):
        return CameraFrames(_opened(text), f"camera {text}" if text.isdecimal() else text)
    try:
        found = find_files([text], out)
    except OSError as error:  # a name too long, a folder that may not be searched
        raise UserError(f"--source {text}: {(error.strerror or str(error)).lower()}; check the path") from None
    return FileFrames(text, [path for path, _ in found.values()], picture_seconds)


def is_camera(text: str) -> bool:
    """Whether the frames come by the clock: from a camera, a pipeline or a stream."""
    return text.isdecimal() or _is_pipeline(text) or "://" in text or text.startswith(f"{_DEVICES}/")


def _is_pipeline(text: str) -> bool:
    return "!" in text and not _exists(Path(text))


def _exists(path: Path) -> bool:
    """Whether it is there; False where that cannot be told: the name is too long, or a folder may not be searched."""
    try:
        return path.exists()
    except OSError:
        return False


def _opened(text: str) -> Any:
    """The `cv2.VideoCapture` of a camera, pipeline or stream."""
    if text.isdecimal() and len(text.lstrip("0")) > _DIGITS:
        raise UsageError(f"--source {text}: cameras have numbers from 0 to {10**_DIGITS - 1}; a file is ./{text}")
    cv2 = video.quiet_cv2()
    if _is_pipeline(text):
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise UnsupportedError(
                f"--source {text}: this OpenCV ({cv2.__version__}) is built without GStreamer, as all from pip are; "
                "install one that is built with WITH_GSTREAMER=ON, or name a USB camera by its number"
            )
        capture = cv2.VideoCapture(text, cv2.CAP_GSTREAMER)
        advice = "does gst-launch-1.0 run it? it must end with: videoconvert ! video/x-raw,format=BGR ! appsink"
    elif "://" in text:
        capture = cv2.VideoCapture(text)
        advice = "is the address right, and does the camera answer?"
    else:
        capture = cv2.VideoCapture(int(text) if text.isdecimal() else text)
        devices = ", ".join(sorted(str(path) for path in _DEVICES.glob("video*"))) or "no camera"
        advice = f"is it connected and free, and may you read it (group video)? found here: {devices}"
    if not capture.isOpened():
        capture.release()
        raise UserError(f"--source {text}: cannot be opened; {advice}")
    return capture


def _rate_and_count(path: Path) -> tuple[float, int] | None:
    """Frames per second and frames of a video; None where it cannot be read, which is told when its turn comes."""
    with contextlib.suppress(video.BrokenVideoError), video.VideoReader(path) as reader:
        return reader.fps, reader.frames
    return None


def _of_video(path: Path) -> Iterator[Frame]:
    with video.VideoReader(path) as reader:
        start = perf_counter()
        for image in reader:
            yield Frame(image, 0.0, perf_counter() - start, 1 / reader.fps)
            start = perf_counter()
