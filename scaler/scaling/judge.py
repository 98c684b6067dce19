"""Counts, times and rates networks on one device, each graph built once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scaler.accuracy import AccuracyModel
from scaler.cost import Cost, graph_cost, peak_activation_elements
from scaler.graph.graph import Graph
from scaler.latency.estimator import Estimator
from scaler.latency.prediction import Z_90
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config as Config
from scaler.models.detectors.scaled_yolov4 import build
from scaler.search.memory import build_gib, engine_mib, excess
from scaler.search.result import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """A network, what it costs, and what is predicted for it."""

    config: Config
    factor: float
    """Its MACs over those of the base."""
    cost: Cost
    memory_mib: float
    """Folded weights and peak activations at the engine's precision, batch 1."""
    frame_ms: Interval
    engine_ms: Interval
    overhead_ms: float
    ap: Interval
    ap_outside: tuple[str, ...]
    """Why the accuracy is an extrapolation; empty where it is not."""
    latency_doubt: str
    """Why the time is an estimate even on a calibrated or measured device; empty where it is not."""

    @property
    def fps(self) -> Interval:
        """Frames per second; `low` is the slow end."""
        frame = self.frame_ms
        return Interval(1000 / frame.mean, 1000 / frame.high, 1000 / frame.low)


class Judge:
    """What scaling asks of a network on one device.

    Args:
        estimator: Of the device.
        accuracy: Of the family.
    """

    def __init__(self, estimator: Estimator, accuracy: AccuracyModel) -> None:
        self.estimator = estimator
        self.accuracy = accuracy
        self._graphs: dict[Config, Graph] = {}
        self._frames: dict[Config, float] = {}

    def graph(self, config: Config) -> Graph:
        """The lowered network."""
        if config not in self._graphs:
            self._graphs[config] = build(config)
        return self._graphs[config]

    def macs(self, config: Config) -> int:
        """Multiply-accumulates."""
        return graph_cost(self.graph(config)).macs

    def frame_ms(self, config: Config) -> float:
        """Predicted frame time."""
        if config not in self._frames:
            self._frames[config] = float(self.estimator.estimate(self.graph(config)).frame[0])
        return self._frames[config]

    def fps(self, config: Config) -> float:
        """Predicted frame rate."""
        return 1000 / self.frame_ms(config)

    def memory_mib(self, config: Config) -> float:
        """Folded weights and peak activations, batch 1."""
        graph = self.graph(config)
        return engine_mib(graph_cost(graph).folded_params, peak_activation_elements(graph), self.estimator.precision)

    def misfit(self, config: Config) -> str | None:
        """Why an engine cannot be built on the device; None where its memory suffices, or nobody knows it."""
        device, precision = self.estimator.device, self.estimator.precision
        if excess(self.graph(config), device, precision) <= 0:
            return None
        needed = build_gib(self.graph(config), device, precision)
        return f"{config.name} takes about {needed:.1f} GiB to build, {device.name} has {device.memory_gib:g}"

    def scaled(self, config: Config, base_macs: int) -> Scaled:
        """Everything about a network."""
        graph = self.graph(config)
        cost, prediction = graph_cost(graph), self.estimator.estimate(graph)
        engine, frame = float(prediction.engine[0]), float(prediction.frame[0])
        spread = math.exp(Z_90 * float(prediction.engine_log_sd[0]))
        ap = self.accuracy.predict(config)
        return Scaled(
            config=config,
            factor=cost.macs / base_macs,
            cost=cost,
            memory_mib=self.memory_mib(config),
            frame_ms=Interval(frame, float(prediction.low[0]), float(prediction.high[0])),
            engine_ms=Interval(engine, engine / spread, engine * spread),
            overhead_ms=float(prediction.overhead[0]),
            ap=Interval(ap.mean, ap.low, ap.high),
            ap_outside=ap.outside,
            latency_doubt=self.estimator.doubt(graph),
        )
