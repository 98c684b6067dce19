"""Training pictures: one or four of them drawn on the square of the input, blended, recoloured, with their boxes.

Nothing here keeps a state: what comes out depends on the settings, the pictures and the generator that is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scaler.data.augmentation import Augmentation
from scaler.data.dataset import Boxes, Image
from scaler.data.mosaic import arranged, blended, cut_out, draw, flipped, joined, placed
from scaler.data.photometric import recoloured, require_albumentations, wants_albumentations
from scaler.data.preprocessing import Preprocessing

MIXUP_BETA = 8.0
"""Both parameters of the distribution of the share in mixup; of Scaled-YOLOv4's code."""
MOSAIC_AREA_BELOW = 0.5
"""Pictures of a mosaic are interpolated down to half their size, as in Scaled-YOLOv4's code: four times the speed."""


class Pictures(Protocol):
    """Pictures to draw from."""

    def __len__(self) -> int:
        """How many."""

    def __getitem__(self, index: int, /) -> tuple[Image, Boxes]:
        """One, with its boxes in its own pixels; the array is not changed by whoever gets it."""


def generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of picture `index` in an epoch, whoever makes it."""
    return np.random.default_rng([seed, epoch, index])


@dataclass(frozen=True, slots=True)
class Augmenter:
    """Makes training pictures; with neutral settings exactly `letterbox`'s.

    Raises:
        MissingExtraError: The settings need Albumentations, which is not installed.
    """

    augmentation: Augmentation
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if wants_albumentations(self.augmentation):
            require_albumentations()

    def __call__(self, pictures: Pictures, index: int, rng: np.random.Generator) -> tuple[Image, Boxes]:
        """Make one.

        Args:
            pictures: Where it and its partners in a mosaic or mixup come from.
            index: The picture.
            rng: What is drawn from; see `generator`.

        Returns:
            The square `[size, size, 3]` and the boxes in its pixels, all inside; `ignored` ones are among them.
        """
        settings = self.augmentation
        image, boxes = self._composed(pictures, index, rng)
        if rng.random() < settings.mixup:
            other, others = self._composed(pictures, int(rng.integers(len(pictures))), rng)
            image = blended(image, other, rng.beta(MIXUP_BETA, MIXUP_BETA))
            boxes = joined([boxes, others])
        if rng.random() < settings.flip:
            image, boxes = flipped(image, boxes)
        image = recoloured(image, settings, rng)
        if rng.random() < settings.cutout:
            image, boxes = cut_out(image, boxes, self.preprocessing.fill, rng)
        return image, boxes

    def _composed(self, pictures: Pictures, index: int, rng: np.random.Generator) -> tuple[Image, Boxes]:
        """One picture or a mosaic of four on the square."""
        settings, size = self.augmentation, self.preprocessing.size
        mosaic = rng.random() < settings.mosaic
        chosen = rng.permutation([index, *rng.integers(len(pictures), size=3)]) if mosaic else [index]
        members = [pictures[int(member)] for member in chosen]
        sides = [(image.shape[1], image.shape[0]) for image, _ in members]
        places = arranged(sides, size, settings, rng)
        degrees = rng.uniform(-1, 1) * settings.rotation_degrees
        canvas = np.full((size, size, 3), self.preprocessing.fill, np.uint8)
        found = []
        for (image, boxes), place in zip(members, places, strict=True):
            matrix = draw(canvas, image, place, degrees=degrees, area_below=MOSAIC_AREA_BELOW if mosaic else 1.0)
            if matrix is not None:
                found.append(placed(boxes, matrix, size, settings.least_visible))
        return canvas, joined(found)
