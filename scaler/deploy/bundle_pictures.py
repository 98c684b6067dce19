"""Pictures of a data set as the network's input: bytes that fit it, and tables that turn them into its numbers.

A byte is a quarter of a number; the device looks every byte up, so that it computes with the very numbers of
`scaler.data.preprocessing.normalised`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from scaler.data.dataset import Dataset, Picture
from scaler.data.images import BrokenPictureError, decode, read_bytes
from scaler.data.preprocessing import Preprocessing, letterbox, normalised
from scaler.errors import UserError
from scaler.runtimes.engine_facts import digest

__all__ = ["FittedPicture", "fitted_pictures", "input_tables", "spread"]


class FittedPicture(NamedTuple):
    """One picture for the device."""

    name: str
    """Of its file, without the folder."""
    sha256: str
    """Of its file."""
    width: int
    """Pixels of the picture before it was fitted."""
    height: int
    planes: bytes
    """Of the fitted picture, channel by channel: red, green, blue."""
    input_sha256: str
    """Of the numbers that the network reads, 32 bits each, little-endian."""


def fitted_pictures(dataset: Dataset, preprocessing: Preprocessing, most: int) -> tuple[FittedPicture, ...]:
    """Pictures of a split, fitted as in training; those that cannot be read are left out.

    Args:
        dataset: The split.
        preprocessing: Of the network.
        most: How many, spread evenly over the split.

    Raises:
        UserError: There are none, or none can be read.
    """
    found: list[FittedPicture] = []
    reason = "it has none; check its folder and labels"
    for picture in spread(dataset.pictures, most):
        try:
            found.append(_fitted(picture, preprocessing))
        except BrokenPictureError as error:
            reason = f"the last: {picture.path}: {error.reason}"
    if not found:
        raise UserError(f"{dataset.name}: no picture of the split {dataset.split!r} can be read; {reason}")
    return tuple(found)


def spread(pictures: tuple[Picture, ...], most: int) -> tuple[Picture, ...]:
    """At most so many of the pictures, evenly spread."""
    if len(pictures) <= most:
        return pictures
    return tuple(pictures[place * len(pictures) // most] for place in range(most))


def input_tables(preprocessing: Preprocessing) -> bytes:
    """What the network reads for each byte of red, green and blue: 3 x 256 numbers of 32 bits, little-endian."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, None, :, None], 3, axis=3)
    return normalised(ramp, preprocessing).astype("<f4").tobytes()


def _fitted(picture: Picture, preprocessing: Preprocessing) -> FittedPicture:
    content = read_bytes(picture.path)
    image = decode(content, picture.path)
    height, width = image.shape[:2]
    fitted, _ = letterbox(image, preprocessing)
    planes = np.ascontiguousarray(fitted.transpose(2, 0, 1)).tobytes()
    numbers = normalised(fitted[None], preprocessing).astype("<f4").tobytes()
    return FittedPicture(picture.path.name, digest(content), width, height, planes, digest(numbers))
