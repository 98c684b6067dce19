"""What to do when the memory of the device is full, and how much of it is in use."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from scaler.errors import UserError

_TEXTS = ("out of memory", "ALLOC_FAILED", "can't allocate memory")  # of CUDA, of its libraries, on a CPU


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch failed for want of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in _TEXTS)
    )


@contextmanager
def full_memory_told(device: str) -> Iterator[None]:
    """Tell in one line that the memory is full where no smaller micro-batch helps: with weights, optimiser, average.

    Raises:
        UserError: It is.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"out of memory: {device} has no room for the weights, their moving average and the optimiser; train a "
            "smaller network, or on a larger device"
        ) from None


def release(device: str) -> None:
    """Give back what nobody uses any more."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def halved(micro_batch: int, size: int, processes: int) -> int:
    """The next smaller micro-batch after one that did not fit.

    Raises:
        UserError: There is none, or other processes would not know of it.
    """
    advice = "train a smaller network or resolution, or with --precision bf16"
    if processes > 1:
        raise UserError(
            f"out of memory with {micro_batch} pictures of {size} px a process; "
            f"give --batch {processes * max(1, micro_batch // 2)}, or {advice}"
        )
    if micro_batch == 1:
        raise UserError(f"out of memory with one picture of {size} px at a time; {advice}, or on a larger device")
    return micro_batch // 2


def used_mib(device: str) -> float:
    """Peak memory of a GPU in MiB, or what this process uses at most so far; 0 where the system does not tell."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource  # noqa: PLC0415  (not on Windows)
    except ImportError:
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
