"""Scores candidates: one graph each, read by cost, latency and accuracy.

The network of a candidate does not depend on the device, so several devices share it and its accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from scaler.accuracy import AccuracyPrediction
from scaler.cost import Cost, graph_cost, peak_activation_elements
from scaler.devices import Precision
from scaler.graph.graph import Graph
from scaler.latency.estimator import Estimator, Sums
from scaler.latency.measured import MeasuredEstimator
from scaler.models.detectors.families import Config, build
from scaler.search import memory
from scaler.search.predictors import Predictor
from scaler.space import Key, Params, Space, key

DEVICE_MEMORY = "device memory"
"""The constraint that every device sets; every candidate of a study has the same constraints, as samplers demand."""
UNMEASURED = "unmeasured kernels"
"""The constraint of a measured table: kernels of a kind or size that it knows nothing about."""


class Limits(NamedTuple):
    """Upper limits on a candidate beside its frame time; None is no limit."""

    params: float | None = None
    """Number of parameters."""
    macs: float | None = None
    """Multiply-accumulates."""
    memory_mib: float | None = None
    """Weights and peak activations together, at the engine's precision."""


class Evaluated(NamedTuple):
    """One candidate's two objectives and how far it misses the constraints."""

    ap: float
    frame_ms: float
    violations: dict[str, float]
    """Relative excess by constraint, for instance {"fps": 0.2}; feasible where none is above 0."""


@dataclass(frozen=True, eq=False)
class Network:
    """A candidate lowered and counted; the same for every device."""

    params: Params
    config: Config
    graph: Graph

    @cached_property
    def cost(self) -> Cost:
        """What the network costs; only limits and reports ask for it."""
        return graph_cost(self.graph)

    @cached_property
    def peak_elements(self) -> int:
        """Peak activations in elements; only limits on memory and reports ask for it."""
        return peak_activation_elements(self.graph)

    def memory_mib(self, precision: Precision) -> float:
        """Folded weights and peak activations, batch 1."""
        return memory.engine_mib(self.cost.folded_params, self.peak_elements, precision)

    def figure(self, name: str, precision: Precision) -> float:
        """The figure that a limit of this name bounds."""
        match name:
            case "params":
                return self.cost.params
            case "macs":
                return self.cost.macs
            case _:
                return self.memory_mib(precision)


class Evaluator:
    """Builds and scores the candidates of a space for one data set.

    Args:
        space: The search space.
        accuracy: Predictor for the families of the space; its data set gives the number of classes.
        target_fps: Frame rate to reach, or None.
        limits: Other limits.
    """

    def __init__(
        self,
        space: Space,
        accuracy: Predictor,
        *,
        target_fps: float | None = None,
        limits: Limits = Limits(),
    ) -> None:
        self.space = space
        self.dataset = accuracy.dataset
        self.accuracy = accuracy
        self.target_fps = target_fps
        self.limits = limits
        self._networks: dict[Key, Network] = {}
        self._ap: dict[Key, AccuracyPrediction] = {}

    def network(self, params: Params) -> Network:
        """The network of a candidate, built once."""
        place = key(params)
        if place not in self._networks:
            self._networks[place] = self._build(params)
        return self._networks[place]

    def _build(self, params: Params) -> Network:
        config = self.space.configure(params, self.accuracy.classes)
        return Network(params, config, build(config))

    def ap(self, params: Params) -> AccuracyPrediction:
        """Predicted accuracy of a candidate, computed once."""
        place = key(params)
        if place not in self._ap:
            self._ap[place] = self.accuracy.predict(self.network(params).config)
        return self._ap[place]

    def scorer(self, estimator: Estimator) -> Callable[[Params], Evaluated]:
        """What a study calls for each candidate on one device."""

        def score(params: Params) -> Evaluated:
            network = self.network(params)
            frame_ms = float(estimator.estimate(network.graph).frame[0])
            return Evaluated(self.ap(params).mean, frame_ms, self.violations(network, frame_ms, estimator))

        return score

    def violations(self, network: Network, frame_ms: float, estimator: Estimator) -> dict[str, float]:
        """Relative excess over each constraint that is set, and over the device's memory."""
        found: dict[str, float] = {}
        if self.target_fps is not None:
            found["fps"] = frame_ms * self.target_fps / 1000 - 1
        for name, limit in self.limits._asdict().items():
            if limit is not None:
                found[name] = network.figure(name, estimator.precision) / limit - 1
        sure = memory.surely_fits(network.graph, estimator.device)
        found[DEVICE_MEMORY] = -1.0 if sure else memory.excess(network.graph, estimator.device, estimator.precision)
        if isinstance(estimator, MeasuredEstimator):
            found[UNMEASURED] = float(estimator.strange_kernels(network.graph) or -1)
        return found

    def score_many(self, candidates: Sequence[Params], estimator: Estimator) -> list[Evaluated]:
        """Score many candidates at once, without keeping their networks."""
        networks: list[Network] = []
        sums: list[Sums] = []
        for params in candidates:
            network = self._build(params)
            sums.append(estimator.sums(network.graph))
            networks.append(network)
        ap = self.accuracy.predict_many([network.config for network in networks]).mean.tolist()
        frame = estimator.predict(sums).frame.tolist()
        return [
            Evaluated(accuracy, ms, self.violations(network, ms, estimator))
            for network, accuracy, ms in zip(networks, ap, frame, strict=True)
        ]
