"""Several processes that train one network together, started by torchrun: `torchrun --nproc-per-node 2 -m scaler …`.

Every process sees its share of each batch; the gradients are averaged, so that all keep the same weights. Process 0
prints and writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from scaler.errors import UserError

_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun sets."""
_PATIENCE = timedelta(hours=6)  # the others wait while process 0 evaluates


class World:
    """The processes that train together, seen from one of them; alone, everything here does nothing."""

    def __init__(self, rank: int = 0, size: int = 1, device: str = "cpu", *, sync_batch_norm: bool = False) -> None:
        self.rank, self.size, self.device = rank, size, device
        self.sync_batch_norm = sync_batch_norm

    @property
    def leads(self) -> bool:
        """Whether this process prints and writes."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over the processes, on the same parameters; wrap after freezing.

        With `sync_batch_norm` the module's normalisations are replaced in place by such as look at all processes'
        pictures.
        """
        if self.size == 1:
            return module
        if self.sync_batch_norm:
            module = synchronised(module, self.device)
        if not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        devices = [torch.device(self.device)] if self.device.startswith("cuda") else None
        return DistributedDataParallel(module, device_ids=devices)

    def mean(self, value: float) -> float:
        """The mean of the processes' values."""
        return self._reduced(value, distributed.ReduceOp.SUM) / self.size if self.size > 1 else value

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def broadcast_flag(self, flag: bool) -> bool:
        """Whether any process says so, told to all: a reduction by "or", in which nobody's word counts more."""
        return self._reduced(float(flag), distributed.ReduceOp.MAX) > 0 if self.size > 1 else flag

    def _reduced(self, value: float, operation: Any) -> float:
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(shared, operation)
        return float(shared)


@contextmanager
def join(
    on: str = "cpu", *, sync_batch_norm: bool = False, variables: Mapping[str, str] | None = None
) -> Iterator[World]:
    """Join the processes that torchrun has started, or be alone; leaves them at the end.

    Args:
        on: `cpu` (processes talk by gloo) or `cuda` (by nccl, each on the GPU of its local rank).
        sync_batch_norm: Whether batch normalisations look at all processes' pictures.
        variables: The environment; the process' own where None.

    Raises:
        UserError: torchrun's variables are incomplete, or there are more processes than GPUs.
    """
    told = os.environ if variables is None else variables
    if int(told.get("WORLD_SIZE", "1")) == 1:
        yield World(device=on)
        return
    if missing := [name for name in _VARIABLES if name not in told]:
        raise UserError(f"WORLD_SIZE is set but {missing[0]} is not: start several processes with torchrun")
    rank, size, local = (int(told[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    device, backend = _place(on, local)
    distributed.init_process_group(backend, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        yield World(rank, size, device, sync_batch_norm=sync_batch_norm)
    finally:
        distributed.destroy_process_group()


def _place(on: str, local: int) -> tuple[str, str]:
    """Device and backend of a process."""
    if not on.startswith("cuda"):
        return on, "gloo"
    if on != "cuda":
        raise UserError(f"--on {on} is one GPU; with torchrun give --on cuda, and each process takes one of its own")
    gpus = torch.cuda.device_count()
    if local >= gpus:
        raise UserError(f"this computer has {gpus} GPUs, torchrun has started more processes: --nproc-per-node {gpus}")
    torch.cuda.set_device(local)
    return f"cuda:{local}", "nccl"


class _Sum(torch.autograd.Function):
    """Sum over the processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the pictures of all processes, with the names and numbers of `nn.BatchNorm2d`.

    torch's own `SyncBatchNorm` is faster but works on CUDA only; this one works wherever `all_reduce` does. Means and
    deviations are summed one after the other, so that nothing cancels.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (torch's name)
        """Normalise `[batch, channels, height, width]`; as `nn.BatchNorm2d` does in evaluation mode."""
        if not self.training:
            return super().forward(input)
        values = input.float() if input.dtype.itemsize < 4 else input  # sums of 16 bits are too coarse
        count = torch.tensor(values.numel() / values.shape[1], dtype=values.dtype, device=values.device)
        distributed.all_reduce(count)  # of pictures times cells, which may differ between processes
        mean = _summed(values.sum((0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _summed(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), (variance * count / (count - 1).clamp(min=1)).detach())
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def _summed(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return total


def synchronised(module: nn.Module, device: str = "cpu") -> nn.Module:
    """Let the batch normalisations of a module, in place, look at all processes' pictures; parameters stay the same."""
    if device.startswith("cuda"):
        found: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
        return found
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = SynchronisedBatchNorm
    return module
