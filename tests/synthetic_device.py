"""A made-up computer whose kernel times are known: plans, measurements and tables of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scaler.devices import load_host
from scaler.graph.graph import Graph
from scaler.latency.fusion import RULES, FusionRules, graph_kernels, kernel_groups
from scaler.latency.kernels import Kernel
from scaler.latency.table import LatencyTable
from scaler.profiling.measure import Effort
from scaler.profiling.measurement import Measurement, Round
from scaler.profiling.networks import graph_of
from scaler.profiling.plan_file import Plan, Planned
from scaler.profiling.tabulate import Tabulated, tabulate
from scaler.runtimes.protocol import Conditions, LayerTime
from scaler.space_file import read_space

ONNX_RUNTIME = RULES["onnxruntime"]
NETWORK_MS = 0.4
"""Time of a network beside its kernels."""
REFERENCE_MS = 5.0
TINY_EFFORT = Effort(
    rounds=3,
    quiet_seconds=0.0,
    block_seconds=0.001,
    reference_seconds=0.001,
    patience=0.02,
    pause=0.001,
    profile_seconds=0.0,
    profile_runs=3,
    tries=2,
)

SPACE = """
schema_version = 1
name = "small"
family = "yolo-ret"
description = "For tests"
[parameters.backbone]
choices = ["mobilenetv2", "efficientnet-b0"]
[parameters.width]
when = { backbone = "mobilenetv2" }
choices = [0.35, 0.5, 0.75, 1.0]
[parameters.drop]
range = [1, 4, 1]
[parameters.rfcr]
choices = [0, 3, 5]
[parameters.shortcut]
when = { rfcr = [3, 5] }
choices = [false, true]
[parameters.neck]
choices = ["none", "fpn", "panet", "bifpn"]
[parameters.repeats]
when = { neck = "bifpn" }
choices = [1]
[parameters.resolution]
choices = [192, 256, 320, 384]
"""

TINY_SPACE = """
schema_version = 1
name = "tiny"
family = "yolo-ret"
description = "Small networks that differ in their input"
[fixed]
backbone = "mobilenetv2"
width = 0.35
drop = 4
neck = "none"
[parameters.rfcr]
choices = [0, 3]
[parameters.shortcut]
when = { rfcr = 3 }
choices = [false]
[parameters.resolution]
choices = [160, 192, 224, 256]
"""


def kernel_ms(kernel: Kernel) -> float:
    """The truth: a launch, arithmetic in blocks of channels, memory; exotic kernels below their peak."""
    rate = {"conv": 8e7, "linear": 2e7, "depthwise": 2e7, "pool": 1e7}.get(kernel.op, 1e7)
    block = 16 if kernel.c_out >= 16 else 1
    waste = -(-kernel.c_out // block) * block / kernel.c_out
    extra = 3e-8 * kernel.outputs if kernel.activation not in ("none", "relu", "relu6") else 0.0
    return 0.002 + waste * kernel.macs / rate + kernel.moved / 1.5e7 + extra


def network_ms(graph: Graph, rules: FusionRules = ONNX_RUNTIME) -> float:
    """The truth, end to end."""
    return NETWORK_MS + sum(map(kernel_ms, graph_kernels(graph, rules)))


def layer_times(graph: Graph, rules: FusionRules = ONNX_RUNTIME, overhead_ms: float = 0.0) -> tuple[LayerTime, ...]:
    """A perfect profile: a layer a kernel, which it names by its nodes."""
    layers = []
    for placement in graph.placements:
        for kernel, nodes in kernel_groups(placement.block, rules):
            names = tuple(f"{placement.name}.{placement.block.nodes[node].name}" for node in nodes)
            layers.append(LayerTime(" + ".join(names), kernel_ms(kernel) + overhead_ms, names, kernel.op))
    return tuple(layers)


def make_plan(folder: Path, count: int, *, space: str = SPACE, seed: int = 0, **changes: Any) -> Plan:
    """A plan of `count` random networks; its space lies in the folder."""
    path = folder / "space.toml"
    path.write_text(space)
    known = read_space(str(path))
    candidates = list(known.candidates())
    chosen = [candidates[index] for index in np.random.default_rng(seed).permutation(len(candidates))[: count + 1]]
    plan = Plan(
        device="host",
        power_mode="1-thread",
        runtime="onnxruntime",
        precision="fp32",
        batch=1,
        opset=13,
        space=str(path),
        digest=known.digest,
        dataset="voc",
        networks=tuple(Planned(network=known.candidate_id(params), params=params) for params in chosen[:count]),
        reference=chosen[count],
    )
    return replace(plan, **changes)


def graphs_of(plan: Plan) -> list[Graph]:
    """The networks of a plan."""
    space = read_space(plan.space)
    return [graph_of(space, planned.params, plan.dataset) for planned in plan.networks]


def conditions(plan: Plan) -> Conditions:
    """Those of the plan, on the processor of the computer at hand."""
    return Conditions(
        runtime=plan.runtime,
        runtime_version="1.2",
        precision=plan.precision,
        batch=plan.batch,
        processor=load_host().processor,
        power_mode=plan.power_mode,
    )


def measured(
    plan: Plan, graphs: Sequence[Graph], *, noise: float = 0.0, overhead_ms: float = 0.0, seed: int = 0
) -> list[Measurement]:
    """Measurements of the made-up computer.

    Args:
        plan: Of the networks.
        graphs: The networks.
        noise: Standard deviation of the logarithm of each time.
        overhead_ms: What the profiler adds to a layer.
        seed: Of the noise.
    """
    rng = np.random.default_rng(seed)

    def shaken(ms: float) -> float:
        return float(ms * np.exp(noise * rng.standard_normal()))

    return [
        Measurement(
            network=planned.network,
            params=planned.params,
            conditions=conditions(plan),
            rounds=tuple(
                Round(
                    tuple(shaken(REFERENCE_MS) for _ in range(4)),
                    tuple(shaken(network_ms(graph)) for _ in range(4)),
                )
                for _ in range(4)
            ),
            layers=tuple(layer._replace(ms=shaken(layer.ms)) for layer in layer_times(graph, overhead_ms=overhead_ms)),
            seconds=1.5,
        )
        for planned, graph in zip(plan.networks, graphs, strict=True)
    ]


def tabulated(folder: Path, count: int, *, noise: float = 0.02, overhead_ms: float = 0.0, seed: int = 0) -> Tabulated:
    """The table of `count` networks of the made-up computer."""
    plan = make_plan(folder, count, seed=seed)
    graphs = graphs_of(plan)
    return tabulate(plan, measured(plan, graphs, noise=noise, overhead_ms=overhead_ms, seed=seed), graphs)


def host_table(folder: Path, count: int = 12, **changes: Any) -> LatencyTable:
    """A measured table of the computer at hand, with made-up times; changes are to its facts."""
    table = tabulated(folder, count).table
    return replace(table, info=replace(table.info, **changes))
