"""What the user can do after a search, as commands; the one place that names them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from scaler.search.candidates import candidates_of
from scaler.search.result import DeviceResult, SearchResult


@dataclass(frozen=True, slots=True)
class Step:
    """One command and what it is good for."""

    command: str
    purpose: str


def next_steps(result: SearchResult, folder: Path | None = None) -> tuple[Step, ...]:
    """Commands that go on from this result.

    Args:
        result: What was found.
        folder: Where the reports were written; None where they were not.
    """
    device = next((d for d in result.devices if d.pick is not None), next(iter(result.devices), None))
    if device is None:
        return ()
    if folder is None:
        return (Step(f"{result.command} --out results", "write CSV, JSON, pictures and the interactive page"),)
    pareto = shlex.quote((folder / "pareto.json").as_posix())
    chosen = device.pick or (device.nearest.id if device.nearest else device.knee)
    steps = []
    if chosen is not None:
        steps.append(
            Step(
                f"scaler show {pareto} --pick {shlex.quote(chosen)} --device {shlex.quote(device.device)}",
                "see where its time goes",
            )
        )
    steps += _verifying(device, chosen, pareto)
    steps.append(Step(f"scaler plot {pareto} --out front.svg", "draw the front for a paper"))
    return tuple(steps)


def _verifying(device: DeviceResult, chosen: str | None, pareto: str) -> list[Step]:
    """Measuring on the device: what was trained first, else what is chosen; nothing once that was measured."""
    candidates = candidates_of(device)
    trained = [one for one in candidates if one.trained and not any(found.model for found in one.verified)]
    own = next((one for one in trained if one.id == chosen), next(iter(trained), None))
    if own is not None:
        command, purpose = "--data data.toml", "prove frame rate and accuracy of what was trained, on the device"
    else:
        own = next((one for one in candidates if one.id == chosen and not one.verified), None)
        command, purpose = "", "measure it beside its prediction, on the device"
    if own is None:
        return []
    pick = f"scaler verify {pareto} --pick {shlex.quote(own.id)} --device {shlex.quote(device.device)} {command}"
    return [Step(pick.rstrip(), purpose)]
