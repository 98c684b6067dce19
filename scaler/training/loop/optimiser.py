"""What moves the weights: torch's optimisers with the settings of a recipe."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from scaler.training.loop.schedule import Rates
from scaler.training.recipe import Optimiser

_EPSILON = 1e-8  # YOLO-ReT's code; torch's own


def make_optimiser(module: nn.Module, settings: Optimiser, lr: float) -> Optimizer:
    """An optimiser of the weights that learn.

    Weights of convolutions and fully connected layers decay; biases, normalisations and the scales of weighted sums
    do not.
    """
    decayed, kept, biases = _groups(module)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay, "biases": False},
        {"params": kept, "weight_decay": 0.0, "biases": False},
        {"params": biases, "weight_decay": 0.0, "biases": True},
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


def set_rates(optimiser: Optimizer, rates: Rates) -> None:
    """Set the learning rates of all weights, and SGD's momentum."""
    for group in optimiser.param_groups:
        group["lr"] = rates.biases if group["biases"] else rates.weights
        if "momentum" in group:
            group["momentum"] = rates.momentum


def _groups(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Weights that decay, those that do not, and biases, which do not either."""
    weights = {id(part.weight) for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            group = decayed if id(parameter) in weights else biases if name.endswith("bias") else kept
            group.append(parameter)
    return decayed, kept, biases
