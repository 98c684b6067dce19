"""Colours, contrast and compression of pictures: with Albumentations where it has the operation.

Its functions are called, not its transforms: what they draw comes from our generator, so that a picture depends on
seed, epoch and index alone, and a call costs no set-up. Its HSV shift adds, where the recipes multiply, hence ours.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numpy as np

from scaler.data import require_cv2
from scaler.data.augmentation import Augmentation
from scaler.data.dataset import Image
from scaler.errors import MissingExtraError


@cache
def require_albumentations() -> Any:
    """Return Albumentations' pixel functions; loading them takes seconds, so do it before workers are forked.

    Raises:
        MissingExtraError: It is not installed.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # or it asks the network for a newer version
    try:
        from albumentations.augmentations.pixel import functional  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("augmenting pictures", "albumentations", "train") from None
    return functional


def wants_albumentations(settings: Augmentation) -> bool:
    """Whether `recoloured` calls Albumentations."""
    return settings.gamma != (1, 1) or settings.contrast != (1, 1) or settings.jpeg_quality is not None


def recoloured(image: Image, settings: Augmentation, rng: np.random.Generator) -> Image:
    """Change a picture's colours as the settings allow: HSV, gamma, contrast, JPEG, in this order.

    Args:
        image: `[height, width, 3]`; may be changed in place.
        settings: Neutral ones give the picture as it is.
        rng: What is drawn from.
    """
    hue, saturation = rng.uniform(-1, 1) * settings.hue, rng.uniform(*settings.saturation)
    value, gamma, contrast = (rng.uniform(*span) for span in (settings.value, settings.gamma, settings.contrast))
    if (hue, saturation, value) != (0, 1, 1):
        image = shifted_hsv(image, hue, saturation, value)
    if gamma != 1:
        image = require_albumentations().gamma_transform(image, gamma)
    if contrast != 1:
        image = require_albumentations().adjust_contrast_torchvision(image, contrast)
    if settings.jpeg_quality:
        quality = int(rng.integers(settings.jpeg_quality[0], settings.jpeg_quality[1] + 1))
        cv2 = require_cv2()
        blue_first = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # what OpenCV's encoder takes
        image = cv2.cvtColor(require_albumentations().image_compression(blue_first, quality, ".jpg"), cv2.COLOR_BGR2RGB)
    return image


def shifted_hsv(image: Image, hue: float, saturation: float, value: float) -> Image:
    """Turn the hue and multiply saturation and value.

    Args:
        image: `[height, width, 3]`.
        hue: Share of the circle; red + 1/3 is green.
        saturation: Factor.
        value: Factor.
    """
    cv2 = require_cv2()
    hues, saturations, values = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL))
    hues += np.uint8(round(hue * 256) % 256)  # wraps as the circle does
    planes = (hues, cv2.convertScaleAbs(saturations, alpha=saturation), cv2.convertScaleAbs(values, alpha=value))
    changed: Image = cv2.cvtColor(cv2.merge(planes), cv2.COLOR_HSV2RGB_FULL)
    return changed
