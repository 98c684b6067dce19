"""What moves the weights: torch's optimisers with the settings of a recipe."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from scaler.training.recipe import Optimiser

_EPSILON = 1e-8  # YOLO-ReT's code; torch's own


def make_optimiser(module: nn.Module, settings: Optimiser, lr: float) -> Optimizer:
    """An optimiser of the weights that learn.

    Weights of convolutions and fully connected layers decay; biases, normalisations and the scales of weighted sums
    do not.
    """
    decayed, kept = _groups(module)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    filled = [group for group in groups if group["params"]]
    betas = settings.momentum, settings.beta2
    match settings.kind:
        case "sgd":
            nesterov = settings.nesterov and settings.momentum > 0
            return torch.optim.SGD(filled, lr, momentum=settings.momentum, nesterov=nesterov, foreach=True)
        case "adam":
            return torch.optim.Adam(filled, lr, betas=betas, eps=_EPSILON, foreach=True)
        case "adamw":
            return torch.optim.AdamW(filled, lr, betas=betas, eps=_EPSILON, foreach=True)


def set_rate(optimiser: Optimizer, lr: float) -> None:
    """Set the learning rate of all weights."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def _groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Weights that decay, and those that do not."""
    weights = {id(part.weight) for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return (
        [parameter for parameter in learning if id(parameter) in weights],
        [parameter for parameter in learning if id(parameter) not in weights],
    )
