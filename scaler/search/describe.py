"""Turns a scored candidate into what the reports show: intervals, cost by stage and kernel kind, provenance."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from scaler.cost import MIB, by_stage, placement_cost
from scaler.devices import element_bytes
from scaler.graph.graph import Graph, Placement
from scaler.latency.device_model import FloatArray
from scaler.latency.estimator import Estimator
from scaler.latency.fusion import block_kernels
from scaler.latency.kernels import Kernel
from scaler.latency.prediction import Z_90
from scaler.search.evaluation import Evaluator, Network
from scaler.search.precision import PRECISION, Engines, estimator_of, network_id
from scaler.search.result import Candidate, Coverage, Interval, Share
from scaler.space import Params

KIND_NAMES = {
    "depthwise": "depthwise convolution",
    "linear": "fully connected",
    "pool": "max-pool",
    "reduce": "global average pool",
    "resize": "resize",
    "pointwise": "element-wise",
    "copy": "copy into concatenation",
}


def kind_name(kernel: Kernel) -> str:
    """What a kernel is, in words."""
    if kernel.op == "conv":
        return f"{kernel.kernel}x{kernel.kernel} convolution"
    return KIND_NAMES[kernel.op]


def describe(evaluator: Evaluator, engines: Engines | Estimator, params: Params) -> Candidate:
    """Everything that the reports say of a candidate on a device."""
    network, estimator = evaluator.network(params), estimator_of(engines, params)
    sums = estimator.sums(network.graph)
    prediction = estimator.predict([sums])
    energy = estimator.energy_mj([sums], prediction)
    frame, engine = float(prediction.frame[0]), float(prediction.engine[0])
    low, high = float(prediction.low[0]), float(prediction.high[0])
    spread = math.exp(Z_90 * float(prediction.engine_log_sd[0]))
    overhead, share = float(prediction.overhead[0]), float(prediction.table_share[0])
    ap, loss = evaluator.ap(params, estimator.precision), evaluator.loss(params, estimator.precision)
    width = element_bytes(estimator.precision)
    modelled = estimator.fallback == "model"
    stages, kinds = breakdown(network, estimator, engine)
    identity = evaluator.space.candidate_id(params)
    return Candidate(
        id=identity,
        params=dict(network.params),
        ap=Interval(ap.mean, ap.low, ap.high),
        ap_inside_support=ap.inside_support,
        ap_outside=ap.outside,
        ap_provenance=ap.provenance,
        engine_ms=Interval(engine, engine / spread, engine * spread),
        overhead_ms=overhead,
        fps=Interval(1000 / frame, 1000 / high, 1000 / low),
        reach_probability=reach_probability(frame, float(prediction.log_sd[0]), evaluator.target_fps),
        parameters=network.cost.params,
        macs=network.cost.macs,
        memory_access_bytes=network.cost.memory_access * width,
        peak_activation_mib=network.peak_elements * width / MIB,
        weights_mib=network.cost.folded_params * width / MIB,
        provenance="estimated" if estimator.doubt(network.graph) else estimator.provenance,
        coverage=Coverage(table=share, model=(1 - share) * modelled, roofline=(1 - share) * (not modelled)),
        stages=stages,
        kinds=kinds,
        trained=evaluator.accuracy.trained(network_id(evaluator.space, params)),
        precision=str(params.get(PRECISION, "")),
        ap_loss=None if loss is None else Interval(loss.mean, loss.low, loss.high),
        energy_mj=None if energy is None else Interval(*(float(part[0]) for part in energy)),
    )


def reach_probability(frame_ms: float, log_sd: float, target_fps: float | None) -> float | None:
    """Probability that a frame takes no longer than the target allows; None without a target."""
    if target_fps is None:
        return None
    return 0.5 * (1 + math.erf(math.log(1000 / target_fps / frame_ms) / log_sd / math.sqrt(2)))


def timed_kernels(
    graph: Graph, estimator: Estimator, engine_ms: float
) -> tuple[list[tuple[Placement, Kernel]], FloatArray, npt.NDArray[np.bool_]]:
    """Every kernel with its place, its milliseconds and whether the table has it; times sum to `engine_ms`."""
    placed = [(p, kernel) for p in graph.placements for kernel in block_kernels(p.block, estimator.rules)]
    ms, in_table = estimator.kernel_times([kernel for _, kernel in placed])
    return placed, ms * (engine_ms / ms.sum()), in_table


def breakdown(network: Network, estimator: Estimator, engine_ms: float) -> tuple[tuple[Share, ...], tuple[Share, ...]]:
    """Cost by stage in execution order and by kernel kind, dearest first; times sum to `engine_ms`."""
    placed, ms, _ = timed_kernels(network.graph, estimator, engine_ms)
    kernels = [kernel for _, kernel in placed]
    width = element_bytes(estimator.precision)
    figures = np.array([(k.macs, k.moved * width, k.weights, 1) for k in kernels])
    params = {
        stage: sum(placement_cost(p).params for p in placements)
        for stage, placements in by_stage(network.graph).items()
    }
    stages = _shares([placement.stage for placement, _ in placed], ms, figures, params)
    kinds = _shares([kind_name(kernel) for kernel in kernels], ms, figures, {})
    return stages, tuple(sorted(kinds, key=lambda share: -share.ms))


def _shares(
    names: list[str], ms: FloatArray, figures: npt.NDArray[np.int64], params: dict[str, int]
) -> tuple[Share, ...]:
    """Sums by name, in order of appearance; parameters are the kernels' weights where `params` has none."""
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    places = np.array([order[name] for name in names])
    times = np.bincount(places, weights=ms)
    sums = np.zeros((len(order), figures.shape[1]), dtype=np.int64)
    np.add.at(sums, places, figures)
    return tuple(
        Share(
            name=name,
            ms=float(times[place]),
            macs=int(sums[place, 0]),
            memory_access_bytes=int(sums[place, 1]),
            params=params.get(name, int(sums[place, 2])),
            kernels=int(sums[place, 3]),
        )
        for name, place in order.items()
    )
