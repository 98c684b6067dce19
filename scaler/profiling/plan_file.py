"""A plan: which networks to measure on which device, with what; a JSON file that run, bundle and import share."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from scaler.devices import PRECISIONS, Precision
from scaler.files import Reader, read_json, write_atomic
from scaler.latency.fusion import RULES
from scaler.profiling.measurement import read_params
from scaler.space import Params

SCHEMA_VERSION = 1
KIND = "scaler-plan"
PLAN = "plan"
"""Name of the plan's own file beside those of its networks."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One network to measure."""

    network: str
    """The candidate's id, unique in the plan."""
    params: Params


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be measured."""

    device: str
    """Id of the device."""
    power_mode: str
    runtime: str
    """`onnxruntime` or `tensorrt`."""
    precision: Precision
    batch: int
    opset: int
    space: str
    """Name of the search space, or the path that the user gave."""
    digest: str
    """Of the space, so that a plan is not used with another one."""
    dataset: str
    """Gives the number of classes: `voc`, `coco`, or the number itself."""
    networks: tuple[Planned, ...]
    """In the order in which to measure."""
    reference: Params
    """The network that is timed beside each other one."""


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan, whole or not at all."""
    write_atomic(path, json.dumps({"schema_version": SCHEMA_VERSION, "kind": KIND, **asdict(plan)}, indent=1) + "\n")


def read_plan(path: Path | str) -> Plan:
    """Read a plan.

    Raises:
        FileError: The file is missing, cut off or of another kind, or names a network twice.
    """
    reader = read_json(path, schema_version=SCHEMA_VERSION)
    reader.choice("kind", (KIND,))
    networks = tuple(
        Planned(network=_network(table), params=read_params(table, "params"))
        for table in reader.tables("networks", at_least=1)
    )
    plan = Plan(
        device=reader.string("device"),
        power_mode=reader.string("power_mode"),
        runtime=reader.choice("runtime", tuple(RULES)),
        precision=reader.choice("precision", PRECISIONS),
        batch=reader.integer("batch", minimum=1),
        opset=reader.integer("opset", minimum=1),
        space=reader.string("space"),
        digest=reader.string("digest"),
        dataset=reader.string("dataset"),
        networks=networks,
        reference=read_params(reader, "reference"),
    )
    reader.finish()
    if len({planned.network for planned in networks}) < len(networks):
        raise reader.error("networks", "a network stands twice", todo="keep one of the two")
    return plan


def _network(reader: Reader) -> str:
    """Name of a network, which names files too."""
    name = reader.string("network")
    if not _NAME.fullmatch(name) or name == PLAN:
        allowed = f"expected letters, digits, '_', '-' and '.', at most 64, and not {PLAN!r}"
        raise reader.error("network", f"found {name[:80]!r}", allowed, "rename it")
    return name
