"""A data set as decoded pictures: broken ones have a stand-in, and as many as wished stay in memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from scaler.data.dataset import Boxes, Dataset, Image
from scaler.data.images import BrokenPictureError, read_image
from scaler.errors import UserError

_CHUNK = 64
_MOST_THREADS = 8


class ReadPictures:
    """The pictures of a data set, decoded when asked for.

    In place of a broken picture comes the next one that is whole, so that what comes does not depend on who read what
    before. Processes forked from this one share the pictures in memory.
    """

    def __init__(self, dataset: Dataset, cache_mib: float = 0.0) -> None:
        """Decode the first pictures until the memory that is granted is used.

        Args:
            dataset: At least one picture.
            cache_mib: For decoded pictures, in MiB; the others are decoded each time.

        Raises:
            UserError: The data set is empty.
        """
        if not dataset.pictures:
            raise UserError(
                f"{dataset.name}: no pictures in {dataset.split!r}; check the data set with scaler data check"
            )
        self.dataset = dataset
        self.broken: dict[int, str] = {}
        """What is wrong with the pictures found to be broken so far, by index."""
        self._kept: dict[int, Image] = {}
        self._remember(int(cache_mib * 2**20))

    def __len__(self) -> int:
        return len(self.dataset.pictures)

    @property
    def remembered(self) -> int:
        """Number of pictures in memory."""
        return len(self._kept)

    def __getitem__(self, index: int, /) -> tuple[Image, Boxes]:
        """The picture, or its stand-in, with its boxes.

        Raises:
            UserError: All pictures are broken.
        """
        while True:
            found = self.stand_in(index)
            image = self._read(found)
            if image is not None:
                return image, self.dataset.pictures[found].boxes

    def stand_in(self, index: int) -> int:
        """Index of the picture that comes for this one, by what is known so far: itself if it is not broken.

        Raises:
            UserError: All pictures are broken.
        """
        if len(self.broken) == len(self):
            path, reason = self.dataset.pictures[0].path, self.broken[0]
            raise UserError(
                f"{self.dataset.name}: none of the {len(self)} pictures in {self.dataset.split!r} can be read; "
                f"the first, {path}: {reason}; check the data set with scaler data check"
            )
        while index in self.broken:
            index = (index + 1) % len(self)
        return index

    def _read(self, index: int) -> Image | None:
        if (kept := self._kept.get(index)) is not None:
            return kept
        try:
            return read_image(self.dataset.pictures[index].path)
        except BrokenPictureError as error:
            self.broken[index] = error.reason
            return None

    def _remember(self, room: int) -> None:
        with ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1)) as pool:  # decoding frees the interpreter
            for start in range(0, len(self), _CHUNK):
                if room <= 0:
                    return
                rows = range(start, min(start + _CHUNK, len(self)))
                for row, image in zip(rows, pool.map(self._read, rows), strict=True):
                    room -= 0 if image is None else image.nbytes
                    if image is not None and room >= 0:
                        image.flags.writeable = False
                        self._kept[row] = image
