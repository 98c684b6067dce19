"""A camera, windows and a writer of videos that are none, by OpenCV's interface; and a video that is one."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fake_detector import picture_of

from scaler.evaluation import live_output
from scaler.evaluation.video import VideoWriter


class FakeCapture:
    """A camera by OpenCV's interface that gives these pictures (BGR, or None: damaged), then is gone."""

    def __init__(self, pictures: list[Any], rate: float = 10.0, opened: bool = True) -> None:
        self.pictures, self.rate, self.opened = list(pictures), rate, opened
        self.settings: dict[int, float] = {}
        self.released = False

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return self.opened

    def get(self, key: int) -> float:
        return self.rate if key == cv2.CAP_PROP_FPS else 0.0

    def set(self, key: int, value: float) -> bool:
        self.settings[key] = value
        return True

    def grab(self) -> bool:
        return bool(self.pictures)

    def retrieve(self) -> tuple[bool, Any]:
        picture = self.pictures.pop(0)
        return picture is not None, picture

    def release(self) -> None:
        self.released = True


def bgr(number: int = 1) -> np.ndarray:
    return cv2.cvtColor(picture_of(number, 120, 90), cv2.COLOR_RGB2BGR)


def video(path: Path, frames: int = 4, fps: float = 10.0, size: tuple[int, int] = (120, 90)) -> Path:
    with VideoWriter(path, fps) as writer:
        for _ in range(frames):
            writer.write(picture_of(1, *size))
    return path


class FakeWriter:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []

    def write(self, image: np.ndarray) -> None:
        self.images.append(image)


class FakeGui:
    """OpenCV's windows, and a clock that only their waits move on.

    Args:
        monkeypatch: Of the test.
        keys: That are pressed, one a wait; -1: none.
        visible: Whether the window is visible, one a call.
        quits_at: The picture at which q is pressed.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, keys: list[int], visible: list[float], quits_at: int | None = None
    ) -> None:
        self.keys, self.visible, self.quits_at = list(keys), list(visible), quits_at
        self.now = 0.0
        self.shown: list[np.ndarray] = []
        self.waits: list[int] = []
        self.sizes: list[tuple[int, int]] = []
        self.closed = False
        for name in ("imshow", "waitKey", "getWindowProperty", "namedWindow", "resizeWindow", "destroyAllWindows"):
            monkeypatch.setattr(cv2, name, getattr(self, f"_{name}"))
        monkeypatch.setattr(live_output, "perf_counter", self.clock)
        monkeypatch.setattr(cv2, "currentUIFramework", lambda: "QT5")
        monkeypatch.setenv("DISPLAY", ":0")

    def clock(self) -> float:
        return self.now

    def _imshow(self, _: str, image: np.ndarray) -> None:
        self.shown.append(image)

    def _waitKey(self, milliseconds: int) -> int:  # noqa: N802
        self.waits.append(milliseconds)
        key = self.keys.pop(0) if self.keys else -1
        if len(self.shown) == self.quits_at:
            key = ord("q")
        self.now += (milliseconds if key == -1 else 1) / 1000  # a key ends the wait
        return key

    def _getWindowProperty(self, *_: Any) -> float:  # noqa: N802
        return self.visible.pop(0) if self.visible else 1.0

    def _namedWindow(self, *_: Any) -> None:  # noqa: N802
        pass

    def _resizeWindow(self, _: str, width: int, height: int) -> None:  # noqa: N802
        self.sizes.append((width, height))

    def _destroyAllWindows(self) -> None:  # noqa: N802
        self.closed = True
