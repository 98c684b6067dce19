"""Multi-scale training: a new input size every ten steps."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn.functional import interpolate

from scaler.training.losses.targets import Targets

STEPS = 10
"""That keep a size."""
_SIZE = (2,)  # spawn key of the generator


def drawn_size(base: int, multi_scale: float, stride: int, seed: int, step: int) -> int:
    """The input size of a step, whoever asks: equally likely one of the multiples of the stride within the range.

    Args:
        base: Size without multi-scale, in pixels.
        multi_scale: Largest change as a share of it; 0 is off.
        stride: Of the coarsest map.
        seed: Of the run.
        step: From 0, over all epochs.
    """
    low = max(1, -int(-base * (1 - multi_scale) // stride))
    high = int(base * (1 + multi_scale) // stride)
    if not multi_scale or low > high:
        return base
    rng = np.random.default_rng(np.random.SeedSequence([seed, step // STEPS], spawn_key=_SIZE))
    return stride * int(rng.integers(low, high + 1))


def resize_batch(images: Tensor, targets: Targets, size: int) -> tuple[Tensor, Targets]:
    """Return pictures and boxes at another input size; averaged over areas where they shrink, as `letterbox` does.

    Args:
        images: `[n, 3, s, s]`, float.
        targets: In their pixels.
        size: Wished, in pixels.
    """
    before = images.shape[-1]
    if size == before:
        return images, targets
    resized = interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=size < before)
    return resized, targets._replace(boxes=targets.boxes * (size / before))
