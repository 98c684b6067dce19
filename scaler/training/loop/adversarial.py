"""Self-adversarial training: pictures changed in one step so that the network errs more.

The fast gradient sign method (Goodfellow et al., ICLR 2015) as the released YOLO-ReT code asks neural structured
learning for it: steps of 0.2 by the infinity norm on pictures from 0 to 1, the loss on them weighted by 0.2. Unlike
there, pixels stay pixels: what goes beyond black or white is clipped.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def adversarial(images: Tensor, gradient: Tensor, step: float) -> Tensor:
    """Pictures whose every pixel has moved by `step` towards a larger loss, cut from any gradient.

    Args:
        images: Of any shape, from 0 to 1, before any normalisation.
        gradient: Of the loss with respect to them; where it is 0 or not a number the pixel stays.
        step: 0 to 1.
    """
    return (images + step * gradient.sign().nan_to_num(0)).clamp(0, 1)
