"""A data set in memory: pictures by path, their boxes as arrays.

Boxes are corners `x1, y1, x2, y2` in pixels of the picture as it lies on the disk, x2 and y2 exclusive, float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.data.findings import Finding

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
Image: TypeAlias = npt.NDArray[np.uint8]
"""A picture `[height, width, 3]`, RGB."""

Split: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True, eq=False)
class Boxes:
    """The objects of one picture, a row each."""

    corners: FloatArray
    """`[objects, 4]`."""
    labels: IntArray
    """`[objects]`, index into the classes."""
    ignored: BoolArray
    """`[objects]`: VOC's `difficult`, COCO's `iscrowd`; not trained on, neither hit nor miss in an evaluation."""

    def __len__(self) -> int:
        return len(self.labels)

    @staticmethod
    def of(corners: Any, labels: Any, ignored: Any = None) -> Boxes:
        """Make one from lists or arrays of any number type."""
        found = np.asarray(labels, np.int64).reshape(-1)
        skip = np.zeros(len(found), bool) if ignored is None else np.asarray(ignored, bool).reshape(-1)
        return Boxes(np.asarray(corners, np.float32).reshape(-1, 4), found, skip)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture on the disk and its objects."""

    path: Path
    boxes: Boxes
    width: int = 0
    """Pixels as the labels tell; 0 where they do not."""
    height: int = 0

    @property
    def name(self) -> str:
        """File name without the suffix."""
        return self.path.stem


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """One split of a data set."""

    name: str
    """Of the whole data set, from `data.toml`."""
    split: Split
    classes: tuple[str, ...]
    pictures: tuple[Picture, ...]
    findings: tuple[Finding, ...] = ()
    """What reading the labels left out, clipped or dropped."""

    @property
    def objects(self) -> int:
        """Number of boxes that are trained on."""
        return sum(int((~picture.boxes.ignored).sum()) for picture in self.pictures)


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """What a `data.toml` describes."""

    name: str
    file: Path
    classes: tuple[str, ...]
    splits: Mapping[Split, Dataset]
