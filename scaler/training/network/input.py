"""Pictures as a network reads them."""

from __future__ import annotations

import torch
from torch import Tensor

from scaler.data.preprocessing import UNIT, Preprocessing


class ToInput:
    """Makes of pictures what a network reads: `data.preprocessing.normalised` on a device, their layout kept.

    Args:
        preprocessing: Mean and deviation.
        device: Where the result lies.
    """

    def __init__(self, preprocessing: Preprocessing, device: str | torch.device = "cpu") -> None:
        self._device = device
        self._plain = (preprocessing.mean, preprocessing.std) == UNIT
        self._mean, self._std = (
            torch.tensor(parts, dtype=torch.float32, device=device)[:, None, None]
            for parts in (preprocessing.mean, preprocessing.std)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Of uint8 pictures `[n, 3, s, s]` the input, float32."""
        return self.normalised(self.unit(images))

    def unit(self, images: Tensor) -> Tensor:
        """From 0 to 1, float32; uint8 pictures travel to the device as they are, a quarter of the bytes."""
        return images.to(self._device, non_blocking=True).float().mul_(1 / 255)

    def normalised(self, values: Tensor) -> Tensor:
        """Pictures from 0 to 1 by mean and deviation; gradients go through."""
        return values if self._plain else (values - self._mean).div_(self._std)
