"""What may happen to training pictures: the `[augmentation]` table of a recipe."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """What happens to training pictures. Ranges are `(low, high)`, chances 0 to 1; as it stands nothing happens."""

    scale: tuple[float, float] = (1.0, 1.0)
    """Size of the picture relative to the one that fills the square; of a mosaic, of all four together."""
    aspect: float = 0.0
    """Change of width over height: uniform in 1 - a to 1 + a on both sides."""
    translate: float = 0.0
    """Largest shift as a share of the square, where the picture is not placed anew by `random_place`."""
    random_place: bool = False
    """Whether a picture smaller than the square lies anywhere in it and a larger one is cropped anywhere."""
    rotation_degrees: float = 0.0
    """Largest angle, either way, about the middle of the square."""
    flip: float = 0.0
    """Chance of a left-right flip."""
    hue: float = 0.0
    """Largest shift as a share of the circle of hues."""
    saturation: tuple[float, float] = (1.0, 1.0)
    """Factors."""
    value: tuple[float, float] = (1.0, 1.0)
    """Factors of the brightness, HSV's value."""
    gamma: tuple[float, float] = (1.0, 1.0)
    """Exponents of the pixels from 0 to 1; above 1 darkens."""
    contrast: tuple[float, float] = (1.0, 1.0)
    """Factors of the distance from the picture's mean grey."""
    jpeg_quality: tuple[int, int] | None = None
    """1 to 100; None leaves the picture as it is."""
    mosaic: float = 0.0
    """Chance that four pictures make one."""
    mixup: float = 0.0
    """Chance that two (mosaics) are blended."""
    cutout: float = 0.0
    """Chance that grey rectangles hide parts."""
    least_visible: float = 0.1
    """Share of a box that must stay inside for the box to stay."""
