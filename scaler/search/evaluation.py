"""Scores candidates: one graph each, read by cost, latency and accuracy.

The network of a candidate does not depend on the device, so several devices share it and its accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from scaler.accuracy import AccuracyPrediction
from scaler.cost import Cost, graph_cost, peak_activation_elements
from scaler.devices import Precision
from scaler.graph.graph import Graph
from scaler.latency.estimator import Estimator, Prediction, Sums, strange_kernels
from scaler.latency.prediction import FloatArray
from scaler.models.detectors.families import Config, build
from scaler.search import memory
from scaler.search.precision import INT8, Engines, estimator_of, int8_loss, network_params, with_loss
from scaler.search.predictors import Predictor
from scaler.space import Key, Params, Space, key

if TYPE_CHECKING:
    from scaler.accuracy.int8_loss import Loss

LATENCY, ENERGY = "latency", "energy"
MINIMIZE = {LATENCY: "frame_ms", ENERGY: "energy_mj"}
"""What a search can make small beside making the accuracy large, and what that is called in a study."""

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
    """Of the running network: as measured where the device's table knows it, else weights and peak activations."""


class Evaluated(NamedTuple):
    """One candidate's two objectives and how far it misses the constraints."""

    ap: float
    frame_ms: float
    violations: dict[str, float]
    """Relative excess by constraint, for instance {"fps": 0.2}; feasible where none is above 0."""
    energy_mj: float | None = None
    """Of a frame, where the search minimises it in place of the frame time."""

    @property
    def minimized(self) -> float:
        """The objective beside the accuracy, which is to be small."""
        return self.frame_ms if self.energy_mj is None else self.energy_mj


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

    def memory_mib(self, estimator: Estimator) -> float:
        """Memory while it runs, batch 1."""
        return memory.running_mib(self.cost.folded_params, self.peak_elements, estimator)

    def figure(self, name: str, estimator: Estimator) -> float:
        """The figure that a limit of this name bounds."""
        match name:
            case "params":
                return self.cost.params
            case "macs":
                return self.cost.macs
            case _:
                return self.memory_mib(estimator)


class Evaluator:
    """Builds and scores the candidates of a space for one data set.

    Args:
        space: The search space.
        accuracy: Predictor for the families of the space; its data set gives the number of classes.
        target_fps: Frame rate to reach, or None.
        limits: Other limits.
        minimize: The objective beside the accuracy, a key of `MINIMIZE`.
        sure: Whether a frame rate is promised by the slow end of the 90 % interval, else by the mean.
    """

    def __init__(
        self,
        space: Space,
        accuracy: Predictor,
        *,
        target_fps: float | None = None,
        limits: Limits = Limits(),
        minimize: str = LATENCY,
        sure: bool = False,
    ) -> None:
        self.space = space
        self.dataset = accuracy.dataset
        self.accuracy = accuracy
        self.target_fps = target_fps
        self.limits = limits
        self.minimize = minimize
        self.sure = sure
        self._networks: dict[Key, Network] = {}
        self._ap: dict[Key, AccuracyPrediction] = {}
        self._losses: dict[Key, Loss] = {}

    def over(self, space: Space) -> Evaluator:
        """The same for another space of these networks; what one of the two has built, the other has too."""
        other = copy(self)
        other.space = space
        return other

    def network(self, params: Params) -> Network:
        """The network of a candidate, built once; the same at every precision."""
        own = network_params(params)
        place = key(own)
        if place not in self._networks:
            self._networks[place] = self._build(own)
        return self._networks[place]

    def _build(self, params: Params) -> Network:
        config = self.space.configure(params, self.accuracy.classes)
        return Network(params, config, build(config))

    def ap(self, params: Params, precision: Precision | None = None) -> AccuracyPrediction:
        """Predicted accuracy of a candidate, computed once.

        Args:
            params: The candidate.
            precision: Of its engine: 8-bit integers cost accuracy, 16 bits lose less than the noise. None asks for the
                network itself.
        """
        network = self.network(params)
        place = key(network.params)
        if place not in self._ap:
            self._ap[place] = self.accuracy.predict(network.config)
        loss = self.loss(params, precision)
        return self._ap[place] if loss is None else with_loss(self._ap[place], loss)

    def loss(self, params: Params, precision: Precision | None) -> Loss | None:
        """What a precision costs the accuracy of a candidate, in points; None where it costs nothing."""
        if precision != INT8:
            return None
        network = self.network(params)
        place = key(network.params)
        if place not in self._losses:
            self._losses[place] = self._int8_loss(network)
        return self._losses[place]

    def _int8_loss(self, network: Network) -> Loss:
        return int8_loss(network.config, network.graph, self.accuracy.metric)

    def scorer(self, engines: Engines | Estimator) -> Callable[[Params], Evaluated]:
        """What a study calls for each candidate on one device."""

        def score(params: Params) -> Evaluated:
            network, estimator = self.network(params), estimator_of(engines, params)
            sums = estimator.sums(network.graph)
            prediction = estimator.predict([sums])
            promised_ms = float(self.promised(prediction)[0])
            return Evaluated(
                self.ap(params, estimator.precision).mean,
                float(prediction.frame[0]),
                _missing(engines) | self.violations(network, promised_ms, estimator),
                self._energies(estimator, [sums], prediction)[0],
            )

        return score

    def _energies(self, estimator: Estimator, sums: Sequence[Sums], times: Prediction) -> list[float | None]:
        """Millijoules of a frame of each network where they are minimised; the estimator knows them then."""
        if self.minimize != ENERGY:
            return [None] * len(sums)
        found = estimator.energy_mj(sums, times)
        assert found is not None, "refused before the search"
        return list(found.mean.tolist())

    def promised(self, prediction: Prediction) -> FloatArray:
        """Milliseconds of a frame of each network that must keep within what the target leaves."""
        return prediction.high if self.sure else prediction.frame

    def violations(self, network: Network, promised_ms: float, estimator: Estimator) -> dict[str, float]:
        """Relative excess over each constraint that is set, and over the device's memory."""
        found: dict[str, float] = {}
        if self.target_fps is not None:
            found["fps"] = promised_ms * self.target_fps / 1000 - 1
        for name, limit in self.limits._asdict().items():
            if limit is not None:
                found[name] = network.figure(name, estimator) / limit - 1
        sure = memory.surely_fits(network.graph, estimator.device)
        found[DEVICE_MEMORY] = -1.0 if sure else memory.excess(network.graph, estimator.device, estimator.precision)
        if (strange := strange_kernels(estimator, network.graph)) is not None:
            found[UNMEASURED] = float(strange or -1)
        return found

    def score_many(self, candidates: Sequence[Params], engines: Engines | Estimator) -> list[Evaluated]:
        """Score many candidates at once, without keeping their networks."""
        built: dict[Key, Network] = {}  # a network stands there once for each precision
        for params in candidates:
            own = network_params(params)
            if key(own) not in built:
                built[key(own)] = self._build(own)
        networks = [built[key(network_params(params))] for params in candidates]
        found = self.accuracy.predict_many([network.config for network in built.values()]).mean.tolist()
        ap = dict(zip(built, found, strict=True))
        scored: dict[int, Evaluated] = {}
        for estimator, places in _by_estimator(engines, candidates).items():
            mine = [networks[place] for place in places]
            sums = [estimator.sums(network.graph) for network in mine]
            prediction = estimator.predict(sums)
            energy = self._energies(estimator, sums, prediction)
            frame, promised = prediction.frame.tolist(), self.promised(prediction).tolist()
            for place, network, ms, slow, mj in zip(places, mine, frame, promised, energy, strict=True):
                loss = self._int8_loss(network).mean if estimator.precision == INT8 else 0.0
                violations = _missing(engines) | self.violations(network, slow, estimator)
                scored[place] = Evaluated(max(ap[key(network.params)] - loss, 0.0), ms, violations, mj)
        return [scored[place] for place in range(len(candidates))]


def _by_estimator(engines: Engines | Estimator, candidates: Sequence[Params]) -> dict[Estimator, list[int]]:
    """Which candidates each estimator predicts."""
    places: dict[Estimator, list[int]] = {}
    for place, params in enumerate(candidates):
        places.setdefault(estimator_of(engines, params), []).append(place)
    return places


def _missing(engines: Engines | Estimator) -> dict[str, float]:
    """The constraints that a study of several precisions has though not every one of their estimators sets them."""
    return {UNMEASURED: -1.0} if isinstance(engines, Engines) and engines.partly_measured else {}
