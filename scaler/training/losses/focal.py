"""The focal loss of RetinaNet."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def focal(logits: Tensor, truth: Tensor, *, gamma: float, alpha: float) -> Tensor:
    """Lin et al., "Focal Loss" (ICCV 2017), equation 5, element by element.

    Args:
        logits: Of any shape.
        truth: 0 or 1, of the same shape.
        gamma: How fast easy elements lose weight; 0 gives the cross entropy.
        alpha: Weight of elements whose truth is 1; 1 - alpha of the others.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    chance = logits.sigmoid()
    wrong = chance + truth * (1 - 2 * chance)
    return entropy * wrong.pow(gamma) * (1 - alpha + truth * (2 * alpha - 1))
