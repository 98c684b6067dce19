"""Pictures from the disk and onto it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from scaler.data import require_cv2
from scaler.data.dataset import Image
from scaler.errors import UserError
from scaler.files import write_atomic

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"))
"""Of the files that count as pictures, in lower case."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"
_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
"""JPEG markers of a frame header, which holds the size (ITU-T T.81, table B.1)."""
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length


class BrokenMediaError(UserError):
    """A picture or video that is missing, cut off, or none at all.

    Attributes:
        path: The file.
        reason: What is wrong with it.
    """

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = Path(path), reason

    def _message(self) -> str:
        return f"{self.path}: {self.reason}"


class BrokenPictureError(BrokenMediaError):
    """A picture."""


def read_image(path: Path | str) -> Image:
    """Return a picture `[height, width, 3]`, RGB, as its pixels lie on the disk: no orientation tag is applied.

    Grey, transparent and 16-bit pictures become RGB with 8 bits.

    Raises:
        BrokenPictureError: It is missing, cut off, or none at all.
    """
    return decode(read_bytes(path), path)


def read_bytes(path: Path | str) -> bytes:
    """Return a file's content.

    Raises:
        BrokenPictureError: It cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise BrokenPictureError(path, _reason(error)) from None


def decode(content: bytes, path: Path | str) -> Image:
    """Return the picture in a file's content, as `read_image` does; the path is for messages.

    Raises:
        BrokenPictureError: It is cut off, or no picture.
    """
    if not content:
        raise BrokenPictureError(path, "an empty file")
    cv2 = _cv2()
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise BrokenPictureError(path, f"cannot be decoded: {getattr(error, 'err', '') or 'damaged'}") from None
    if image is None:
        raise BrokenPictureError(path, "no picture, or cut off")
    found: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, image)
    return found


def write_image(path: Path | str, image: Image) -> None:
    """Write an RGB picture in the format of the path's suffix, the whole file or nothing.

    Raises:
        UserError: The suffix is none of a picture, or the file cannot be written.
    """
    cv2, suffix = _cv2(), check_suffix(path)
    try:
        done, content = cv2.imencode(suffix, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))
    except cv2.error:
        done = False
    if not done:
        raise UserError(f"cannot write {path}: this OpenCV does not write {suffix}; use .png or .jpg")
    write_atomic(path, content.tobytes())


def check_suffix(path: Path | str) -> str:
    """Return the suffix of a picture that is to be written, in lower case.

    Raises:
        UserError: It is none of a picture.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"cannot write {path}: {suffix or 'no suffix'} is no format of pictures; use .png or .jpg")
    return suffix


def picture_size(path: Path | str) -> tuple[int, int]:
    """Return width and height in pixels: of PNG and JPEG from the file's first bytes, otherwise by decoding.

    Raises:
        BrokenPictureError: It is missing or no picture.
    """
    try:
        with Path(path).open("rb") as stream:
            size = _header_size(stream)
    except (OSError, ValueError) as error:
        raise BrokenPictureError(path, _reason(error)) from None
    if size is None:
        height, width = read_image(path).shape[:2]
        return width, height
    return size


def _header_size(stream: BinaryIO) -> tuple[int, int] | None:
    start = stream.read(24)
    if start.startswith(_PNG) and len(start) == 24:
        width, height = int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
    elif start.startswith(_JPEG):
        stream.seek(2)
        width, height = _jpeg_size(stream)
    else:
        return None
    return (width, height) if width and height else None


def _jpeg_size(stream: BinaryIO) -> tuple[int, int]:
    """Return the size in the first frame header; zeros where there is none."""
    while marker := stream.read(2):
        if len(marker) < 2 or marker[0] != 0xFF:
            break
        if marker[1] == 0xFF:  # fill byte
            stream.seek(-1, 1)
        elif marker[1] in _FRAMES:
            header = stream.read(7)
            return int.from_bytes(header[5:7]), int.from_bytes(header[3:5])
        elif marker[1] not in _BARE:
            stream.seek(max(int.from_bytes(stream.read(2)) - 2, 0), 1)
    return 0, 0


def _cv2() -> Any:
    """Return OpenCV, which does not print of its own what becomes an error of ours."""
    cv2 = require_cv2()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return f"cannot be read: {(getattr(error, 'strerror', None) or str(error)).lower()}"
