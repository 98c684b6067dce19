"""All candidates of a device's part of a result: to be gone through, or each replaced by another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from scaler.search.result import Candidate, DeviceResult

__all__ = ["candidates_of", "changed", "named_candidates"]


def candidates_of(device: DeviceResult) -> tuple[Candidate, ...]:
    """The front of a device, and the nearest candidate where the target is not reached."""
    return device.front if device.nearest is None else (*device.front, device.nearest)


def named_candidates(device: DeviceResult) -> dict[str, Candidate]:
    """The candidates of a device by id, and by the id of their network where that names no other one."""
    found = candidates_of(device)
    return {one.network: one for one in reversed(found)} | {one.id: one for one in reversed(found)}


def changed(device: DeviceResult, change: Callable[[Candidate], Candidate]) -> DeviceResult:
    """The device's part of a result with every candidate replaced by what `change` makes of it."""
    return replace(
        device,
        front=tuple(change(candidate) for candidate in device.front),
        nearest=None if device.nearest is None else change(device.nearest),
    )
