"""Pictures for the tests of augmentation: a rectangle of one colour on grey, so that a box can be found again."""

from pathlib import Path

import cv2
import numpy as np

from scaler.data.dataset import Boxes, Dataset, Image, Picture

GREY, GREEN = 60, (20, 230, 40)


def with_rectangle(width: int, height: int, box: tuple[int, int, int, int]) -> tuple[Image, Boxes]:
    image = np.full((height, width, 3), GREY, np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = GREEN
    return image, Boxes.of([box], [1])


def textured(seed: int, width: int = 120, height: int = 90, objects: int = 3) -> tuple[Image, Boxes]:
    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8), (width, height))
    starts = rng.uniform(0, [width - 30, height - 30], (objects, 2))
    corners = np.concatenate([starts, starts + rng.uniform(8, 30, (objects, 2))], 1)
    return image, Boxes.of(corners, rng.integers(0, 3, objects))


def on_disk(folder: Path, count: int, objects: int = 3) -> Dataset:
    pictures = []
    for number in range(count):
        image, boxes = textured(number, 100 + 7 * number, 80, objects)
        path = folder / f"{number:03}.png"
        cv2.imwrite(str(path), image[..., ::-1])
        pictures.append(Picture(path, boxes, image.shape[1], image.shape[0]))
    return Dataset("toys", "train", ("a", "b", "c"), tuple(pictures))


def bounds_of(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
