"""Which weights a stage keeps as they are."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from scaler.training.recipe import Frozen

BACKBONE = "backbone."


def freeze(module: nn.Module, what: Frozen, transferred: Collection[str]) -> int:
    """Let only the weights of a stage learn; undoes what an earlier stage froze.

    Args:
        module: The network.
        what: See `scaler.training.recipe.Stage.freeze`.
        transferred: Keys of the module's `state_dict`, or names of its parts, that hold pretrained weights; those of
            the backbone stay. Without any nothing is frozen: random weights have to learn.

    Returns:
        How many parameters stay.
    """
    names = _frozen_parts(what, transferred)
    still = 0
    for name, parameter in module.named_parameters():
        stays = bool(names) and (name.startswith(BACKBONE) if what == "backbone" else within(name, names))
        parameter.requires_grad_(not stays)
        if stays:
            parameter.grad = None
            still += parameter.numel()
    return still


def training_mode(module: nn.Module) -> None:
    """Training mode, but for batch normalisations that are frozen: they use their running statistics and keep them."""
    module.train()
    for part in module.modules():
        if isinstance(part, _BatchNorm) and part.weight is not None and not part.weight.requires_grad:
            part.eval()


def _frozen_parts(what: Frozen, transferred: Collection[str]) -> frozenset[str]:
    return frozenset(name for name in transferred if name.startswith(BACKBONE)) if what != "none" else frozenset()


def within(name: str, parts: Collection[str]) -> bool:
    """Whether a parameter is one of these or lies in one of these."""
    return name in parts or name.rpartition(".")[0] in parts
