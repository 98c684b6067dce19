"""What moves the weights: torch's optimisers with the settings of a recipe."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from scaler.training.loop.freezing import within
from scaler.training.loop.schedule import Rates
from scaler.training.recipe import Optimiser

_EPSILON = 1e-8  # YOLO-ReT's code; torch's own


def make_optimiser(module: nn.Module, settings: Optimiser, lr: float, transferred: Collection[str] = ()) -> Optimizer:
    """An optimiser of the weights that learn.

    Weights of convolutions and fully connected layers decay; biases, normalisations and the scales of weighted sums
    do not.

    Args:
        module: The network.
        settings: Of the recipe.
        lr: Learning rate.
        transferred: Keys of the module's `state_dict`, or names of its parts, that hold pretrained weights.
    """
    filled = _groups(module, settings, transferred)
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
        group["lr"] = (rates.biases if group["biases"] else rates.weights) * group["share"]
        if "momentum" in group:
            group["momentum"] = rates.momentum


def rate_of(optimiser: Optimizer) -> float:
    """The learning rate that was set last for weights that are neither biases nor transferred, `Rates.weights`."""
    groups = [group for group in optimiser.param_groups if group["share"] > 0]
    rates = [group["lr"] / group["share"] for group in groups if not group["biases"]]
    return float(rates[0]) if rates else 0.0


def _groups(module: nn.Module, settings: Optimiser, transferred: Collection[str]) -> list[dict[str, Any]]:
    """Weights that learn alike, with their decay, whether they are biases, and their share of the learning rate."""
    decayed = {id(part.weight) for part in module.modules() if isinstance(part, nn.Conv2d | nn.Linear)}
    known = frozenset(transferred)
    groups: dict[tuple[float, bool, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if id(parameter) in decayed else 0.0
            share = settings.transferred_lr if within(name, known) else 1.0
            groups.setdefault((decay, name.endswith("bias"), share), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "biases": biases, "share": share}
        for (decay, biases, share), parameters in groups.items()
    ]
