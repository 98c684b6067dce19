"""Under which conditions a device measured, from the files and the output of tools that it wrote down.

They are laid out again in a folder and asked there as on the device itself, by `scaler.runtimes.jetson`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from scaler.devices import Device
from scaler.errors import UserError
from scaler.profiling.plan_file import Plan
from scaler.runtimes.jetson import Jetson, JetsonState
from scaler.runtimes.protocol import Conditions
from scaler.runtimes.trtexec_text import parse_gpu

__all__ = ["ForeignError", "check_place", "conditions_of", "doubts_of", "loose_text", "states_of"]

_COMPUTE_CAPABILITY = re.compile(r"Compute Capability: (\d+\.\d+)")
_FILE_LINE = re.compile(r"^== (.+)$", re.MULTILINE)
_SYSTEM_PATH = re.compile(r"(?:etc|proc|sys|var)(?:/[A-Za-z0-9_@:-][A-Za-z0-9_@:.-]{0,79}){1,12}")
_BEFORE, _AFTER = "before", "after"


@dataclass(slots=True)
class _Recorded:
    """What the tools of the device said, in place of running them."""

    files: Mapping[str, bytes]
    moment: str

    def run(self, command: Sequence[str]) -> str:
        """The output of a command."""
        return loose_text(self.files, f"{self.moment}-{command[0]}.txt")


class ForeignError(Exception):
    """A network was measured elsewhere or otherwise than planned."""


def states_of(files: Mapping[str, bytes], system: str) -> tuple[JetsonState, ...]:
    """What the device said of itself before and after: its files are laid out again, and asked as on the device."""
    states = []
    with TemporaryDirectory(prefix="scaler-device-") as place:
        root, recorded = Path(place), _Recorded(files, _BEFORE)
        jetson = Jetson(root, recorded.run)
        _lay_out(system, root)
        for recorded.moment in (_BEFORE, _AFTER):
            _lay_out(loose_text(files, f"{recorded.moment}-files.txt"), root)
            states.append(jetson.state())
    return tuple(states)


def _lay_out(text: str, root: Path) -> None:
    """Write the files of a text where they were on the device; what is no file of a system is left out."""
    _, *parts = _FILE_LINE.split(text)
    for name, content in zip(parts[::2], parts[1::2], strict=True):
        if _SYSTEM_PATH.fullmatch(name):
            with suppress(OSError):  # a file where another needs a folder
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(content, encoding="utf-8")


def conditions_of(
    files: Mapping[str, bytes], state: JetsonState, plan: Plan, device: Device, tensorrt: str
) -> Conditions:
    """The conditions of a measurement; a power mode that the device does not tell is the planned one."""
    notes = list(loose_text(files, "notes.txt").splitlines())
    known = state if state.power_mode else replace(state, power_mode=plan.power_mode)
    if not state.power_mode:
        notes.append(f"the power mode is taken to be {plan.power_mode}, as planned")
    conditions = known.conditions(
        runtime=plan.runtime,
        version=tensorrt,
        precision=plan.precision,
        batch=plan.batch,
        gpu=parse_gpu(loose_text(files, "build.log") or loose_text(files, "error.log")),
        notes=notes,
    )
    return replace(conditions, power_mode=device.mode(known.power_mode).name)


def check_place(states: Sequence[JetsonState], files: Mapping[str, bytes], plan: Plan, device: Device) -> None:
    """Refuse what was measured on another device or in another power mode than planned.

    Raises:
        ForeignError: So it was.
    """
    mode = device.mode(plan.power_mode)
    capability = _COMPUTE_CAPABILITY.search(loose_text(files, "build.log"))
    if capability and device.gpu and capability[1] != device.gpu.compute_capability:
        found = f"a GPU of compute capability {capability[1]}"
        raise ForeignError(f"measured on {found}; that of {device.id} has {device.gpu.compute_capability}")
    for state in states:
        if state.device and state.device not in (device.id, *device.aliases):
            raise ForeignError(f"measured on {state.device} ({state.model}), planned for {device.id}")
        if not state.power_mode:
            continue
        try:
            found = device.mode(state.power_mode).name
        except UserError:
            found = f"{state.power_mode} (which the profile of {device.id} lacks)"
        if found != mode.name:
            raise ForeignError(f"measured in power mode {found}, planned for {mode.name}")


def doubts_of(states: Sequence[JetsonState]) -> tuple[str, ...]:
    """What is doubtful about times that were taken in these states."""
    throttled = any(state.throttled for state in states)
    free = any(state.clocks_pinned is False for state in states)
    return (
        *(("the device reports that it was throttled",) if throttled else ()),
        *(("the clocks were not pinned",) if free else ()),
    )


def loose_text(files: Mapping[str, bytes], name: str) -> str:
    """A file for people; empty where it is missing."""
    return files.get(name, b"").decode(errors="replace").replace("\0", " ")
