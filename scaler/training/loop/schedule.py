"""The learning rate of every step, and which stage an epoch belongs to.

The rate changes with every step. The released codes of YOLO-ReT and Scaled-YOLOv4 change it once an epoch, which at
their 100 to 300 epochs is the same curve to within half an epoch; over the few epochs of a short run it is not, and
per step the curve does not depend on how many steps an epoch has.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scaler.training.recipe import Recipe, Stage


class Place(NamedTuple):
    """Where a run is within its stages."""

    number: int
    """Of the stage, from 0."""
    stage: Stage
    first: int
    """Epoch of the run with which the stage begins."""


def stage_of(recipe: Recipe, epoch: int) -> Place:
    """The stage of an epoch; both are counted from 0."""
    first = 0
    for number, stage in enumerate(recipe.stages):
        if epoch < first + stage.epochs:
            return Place(number, stage, first)
        first += stage.epochs
    raise ValueError(f"epoch {epoch} of {recipe.epochs}")


class Rates(NamedTuple):
    """How far a step goes."""

    weights: float
    """Learning rate of all that is no bias."""
    biases: float
    """Learning rate of biases."""
    momentum: float
    """Of SGD."""


def rates(stage: Stage, momentum: float, step: int, steps_per_epoch: int) -> Rates:
    """The rates of a step of a stage, counted from 0.

    Over the warm-up the rate of the weights rises from 0 in equal steps, the first of them above 0, to the stage's
    curve, which runs from the stage's first step on; that of the biases and the momentum go from the stage's warm-up
    values to it.

    Args:
        stage: Of the recipe.
        momentum: The recipe's, after the warm-up.
        step: Of the stage.
        steps_per_epoch: Of the optimiser.
    """
    warmup = stage.warmup_epochs * steps_per_epoch
    warm = min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0
    lr = stage.lr * _curve(stage, step / (stage.epochs * steps_per_epoch))
    first = momentum if stage.warmup_momentum is None else stage.warmup_momentum
    return Rates(lr * warm, stage.warmup_bias_lr * (1 - warm) + lr * warm, first * (1 - warm) + momentum * warm)


def _curve(stage: Stage, done: float) -> float:
    """Share of the highest rate after a share of the stage."""
    match stage.curve:
        case "cosine":
            return stage.final + (1 - stage.final) * (1 + math.cos(math.pi * done)) / 2
        case "steps":
            return float(0.1 ** sum(done >= edge for edge in stage.steps))
        case "constant":
            return 1.0
