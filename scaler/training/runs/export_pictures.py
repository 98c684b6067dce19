"""Pictures on which an exported file is tried, and others on which INT8 is calibrated."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from scaler.data import images
from scaler.data.dataset import Dataset, FloatArray, Image
from scaler.data.images import BrokenPictureError, read_image
from scaler.data.preprocessing import Preprocessing, letterbox, normalised
from scaler.errors import UserError
from scaler.evaluation.metrics import Skipped

T = TypeVar("T")

MOST_PICTURES = 16
"""Pictures of a folder or split that are looked at, evenly spread over it."""
GENERATED = 4
"""Pictures of noise where there are no real ones."""
_HELD_OUT = 5
"""One in so many pictures of a folder is kept back where there are no others to judge by."""


class Pictures(NamedTuple):
    """What a file is tried on."""

    images: Image
    """`[pictures, size, size, 3]`, uint8, fitted into the input."""
    source: str
    """To be told."""
    generated: bool
    skipped: tuple[Skipped, ...] = ()
    """That could not be read."""
    paths: tuple[Path, ...] = ()
    """Of all that were looked at; none of generated ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Pictures as a network reads them, `[batch, 3, size, size]` each, to be gone through as often as one likes."""

    pictures: Pictures
    preprocessing: Preprocessing
    batch: int = 1
    """Pictures at a time; the last ones are filled up with the first."""

    def some(self, most: int) -> Inputs:
        """Of so many of the pictures, evenly spread."""
        count = len(self.pictures.images)
        places = spread(range(count), most)
        return Inputs(self.pictures._replace(images=self.pictures.images[places]), self.preprocessing, self.batch)

    def __iter__(self) -> Iterator[FloatArray]:
        """Batch by batch, made when it is asked for."""
        count = len(self.pictures.images)
        for start in range(0, count, self.batch):
            places = np.arange(start, start + self.batch) % count
            yield normalised(self.pictures.images[places], self.preprocessing)


def pictures_of_folder(place: Path, preprocessing: Preprocessing) -> Pictures:
    """Pictures of a folder and those in it, or one picture.

    Raises:
        UserError: There is none, or none can be read.
    """
    return read_pictures(spread(paths_of_folder(place, "--check"), MOST_PICTURES), str(place), preprocessing)


def pictures_of_split(dataset: Dataset, preprocessing: Preprocessing) -> Pictures:
    """Some pictures of a split.

    Raises:
        UserError: None can be read.
    """
    source = f"{dataset.name} {dataset.split}"
    return read_pictures(spread(paths_of_split(dataset), MOST_PICTURES), source, preprocessing)


def pictures_held_out(place: Path, preprocessing: Preprocessing) -> Pictures:
    """A few pictures of a folder whose others INT8 is calibrated on.

    Raises:
        UserError: There are too few, or none can be read.
    """
    paths = paths_of_folder(place, "--calibrate")
    count = min(MOST_PICTURES, len(paths) // _HELD_OUT)
    if not count:
        raise UserError(
            f"--calibrate {place}: {len(paths)} pictures are too few to keep some back to judge by; name {_HELD_OUT} "
            "or more, give others by --check FOLDER, or leave the comparison out by --unchecked"
        )
    return read_pictures(spread(paths, count), f"{place}, not calibrated on", preprocessing)


def pictures_apart(
    paths: Sequence[Path], judged: Collection[Path], most: int, source: str, preprocessing: Preprocessing
) -> Pictures:
    """Pictures to calibrate on: never one on which the file is judged.

    Args:
        paths: Of those that may be taken.
        judged: Of those that may not, resolved.
        most: How many are taken, evenly spread.
        source: To be told.
        preprocessing: How they are fitted.

    Raises:
        UserError: There is none left, or none can be read.
    """
    apart = [path for path in paths if path.resolve() not in judged]
    if not apart:
        raise UserError(f"{source}: INT8 is judged on all of these pictures; calibrate on others by --calibrate FOLDER")
    return read_pictures(spread(apart, most), source, preprocessing)


def generated_pictures(preprocessing: Preprocessing) -> Pictures:
    """Noise, the same every time."""
    size = preprocessing.size
    noise = np.random.default_rng(0).integers(0, 256, (GENERATED, size, size, 3), dtype=np.uint8)
    return Pictures(noise, "generated noise", generated=True)


def paths_of_folder(place: Path, option: str) -> list[Path]:
    """Of the pictures of a folder and those in it, or of one picture.

    Raises:
        UserError: There is none; named with the option that asked for them.
    """
    if not place.exists():
        raise UserError(f"{option} {place}: no such folder or picture; check the path")
    inside = sorted(place.rglob("*")) if place.is_dir() else [place]
    paths = [path for path in inside if path.suffix.lower() in images.SUFFIXES and path.is_file()]
    if not paths:
        raise UserError(f"{option} {place}: no picture there; known: {', '.join(sorted(images.SUFFIXES))}")
    return paths


def paths_of_split(dataset: Dataset) -> list[Path]:
    """Of its pictures."""
    return [Path(picture.path) for picture in dataset.pictures]


def spread(values: Sequence[T], most: int) -> list[T]:
    """So many of them, evenly spread; all where there are fewer."""
    count = min(len(values), most)
    return [values[place * len(values) // count] for place in range(count)]


def read_pictures(paths: Sequence[Path], source: str, preprocessing: Preprocessing) -> Pictures:
    """Those that can be read, fitted.

    Raises:
        UserError: None can be.
    """
    fitted: list[Image] = []
    skipped: list[Skipped] = []
    for path in paths:
        try:
            fitted.append(letterbox(read_image(path), preprocessing)[0])
        except BrokenPictureError as error:
            skipped.append(Skipped(str(path), error.reason))
    if not fitted:
        reason = f"; the first: {skipped[0].picture}: {skipped[0].reason}" if skipped else ""
        raise UserError(f"{source}: no picture can be read{reason}")
    return Pictures(np.stack(fitted), source, generated=False, skipped=tuple(skipped), paths=tuple(paths))
