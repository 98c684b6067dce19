"""Mixed precision: convolutions at 16 bits, everything that adds up at 32."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType

import torch
from torch.amp import GradScaler

from scaler.training.loop.plan import Precision

_TYPES: Mapping[Precision, torch.dtype] = MappingProxyType({"bf16": torch.bfloat16, "fp16": torch.float16})


def autocast(device: str, precision: Precision) -> AbstractContextManager[object]:
    """What the forward pass runs in; the loss stays outside it."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(torch.device(device).type, _TYPES[precision])


def make_scaler(device: str, precision: Precision) -> GradScaler:
    """Scales the loss so that gradients of 16 bits do not vanish; does nothing but for fp16."""
    return GradScaler(torch.device(device).type, enabled=precision == "fp16")
