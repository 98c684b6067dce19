"""Files of pretrained weights that are public: what they hold and how to know them. Nothing is downloaded.

`catalogue.csv` names each file with its address, for whoever fetches it, and the digest that its publisher states:
torchvision and timm put the first eight digits of the sha256 into the name, Callidior published the whole, Keras an
md5, and nothing for its MobileNetV2. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any, Literal, TypeAlias, get_args

from scaler.data.preprocessing import IMAGENET, RGB3, SYMMETRIC, UNIT
from scaler.files import choice_cell, number_cell, read_csv
from scaler.graph.ops import PaddingStyle

NormalisationName: TypeAlias = Literal["imagenet", "symmetric", "unit"]

NORMALISATIONS: dict[NormalisationName, tuple[RGB3, RGB3]] = {
    "imagenet": IMAGENET,
    "symmetric": SYMMETRIC,
    "unit": UNIT,
}
"""Mean and deviation of each channel, for pictures from 0 to 1, by the names of the command line."""

PADDINGS: tuple[PaddingStyle, ...] = get_args(PaddingStyle)

_DIGEST = re.compile(r"-([0-9a-f]{8})(?:[0-9a-f]{56})?$")
_DATE = re.compile(r"(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")


@dataclass(frozen=True, slots=True)
class Network:
    """A backbone that public weights exist for."""

    backbone: str
    """`mobilenetv2`, `efficientnet-b0`, `resnet-50`, `vgg-16-bn`, …"""
    width: float = 1.0
    """Multiplier of MobileNetV2; 1 for the others."""

    def __str__(self) -> str:
        """`MobileNetV2 x0.75`, `EfficientNet-B0`."""
        kind, _, variant = self.backbone.partition("-")
        title = {"mobilenetv2": "MobileNetV2", "efficientnet": "EfficientNet", "resnet": "ResNet", "vgg": "VGG"}[kind]
        return f"{title}-{variant.upper()}" if variant else f"{title} x{self.width:g}"


@dataclass(frozen=True, slots=True)
class Published:
    """A public file of weights."""

    file: str
    network: Network
    format: str
    """Whose names it has: `torchvision`, `timm`, `efficientnet-pytorch` or `keras`."""
    normalisation: NormalisationName
    """Of the pictures that it was trained on."""
    padding: PaddingStyle
    sha256: str
    """Whole, or the first eight digits; empty where nobody says."""
    md5: str
    url: str
    """Where its publisher has it."""

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return PurePath(self.file).stem


@cache
def published() -> tuple[Published, ...]:
    """All public files that scaler knows."""
    columns: dict[str, Callable[[str], Any]] = {
        "file": str,
        "backbone": str,
        "width": number_cell(minimum=0.1),
        "format": str,
        "normalisation": choice_cell(get_args(NormalisationName)),
        "padding": choice_cell(PADDINGS),
        "sha256": str,
        "md5": str,
        "url": str,
    }
    rows = read_csv(Path(__file__).with_name("catalogue.csv"), columns)
    return tuple(Published(file, Network(backbone, width), *rest) for file, backbone, width, *rest in rows)


def published_file(name: str, sha256: str) -> Published | None:
    """The public file with this digest or, where the publisher states none, of this name."""
    for known in published():
        if (known.sha256 and sha256.startswith(known.sha256)) or (not known.sha256 and known.file == name):
            return known
    return None


def promised_sha256(file: str) -> str:
    """Start of the sha256 that a file's name promises, as in `resnet50-0676ba61.pth`; empty where it promises none."""
    for known in published():
        if known.file == file:
            return known.sha256
    found = _DIGEST.search(PurePath(file).stem)
    return "" if found is None or _DATE.fullmatch(found[1]) else found[0].removeprefix("-")
