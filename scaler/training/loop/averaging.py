"""The moving average of the weights, which is evaluated and kept in place of the weights themselves."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

WARMUP_STEPS = 2000
"""Of the decay, as in Scaled-YOLOv4's released code (`ModelEMA`): decay * (1 - exp(-step / 2000))."""


class MovingAverage:
    """An exponential moving average of the parameters and floating-point buffers of a module."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.module = copy.deepcopy(module).eval().requires_grad_(False)
        averaged, followed = self.module.state_dict(), module.state_dict()  # views: they see every later step
        pairs = [(value, followed[key]) for key, value in averaged.items()]
        smooth = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averaged, self._followed = [pair[0] for pair in smooth], [pair[1] for pair in smooth]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take a step of the module in; buffers of whole numbers are copied."""
        self.updates += 1
        share = 1 - self.decay * (1 - math.exp(-self.updates / WARMUP_STEPS))
        torch._foreach_lerp_(self._averaged, self._followed, share)
        for ours, theirs in self._counters:
            ours.copy_(theirs)

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to go on."""
        return {"updates": self.updates, "weights": self.module.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.updates = state["updates"]
        self.module.load_state_dict(state["weights"])
