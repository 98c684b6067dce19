"""torch's settings for the length of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def settings(device: str, threads: int | None) -> Iterator[None]:
    """Set threads; deterministic operators on a CPU, the fastest convolutions on a GPU; undone afterwards.

    Determinism costs little on a CPU and makes a resumed run bit for bit the uninterrupted one. On a GPU it would
    refuse operators that have no deterministic form.
    """
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filling: Any = torch.utils.deterministic  # its attributes have no types
    fills, searches = filling.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(torch.device(device).type == "cpu")
        filling.fill_uninitialized_memory = False  # finds bugs of operators, at the price of a write
        torch.backends.cudnn.benchmark = True
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        filling.fill_uninitialized_memory = fills
        torch.backends.cudnn.benchmark = searches
