"""Precision as a dimension: a candidate of a search is a network and the precision of its engine.

The precision is the last parameter of a space of its own around the search space, so that studies and samplers need to
know nothing of it. Where one precision is searched there is no such space, and candidates, ids and studies are those of
the networks alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scaler.accuracy import AccuracyPrediction
from scaler.devices import Device, Precision, load_device
from scaler.errors import UnsupportedError, UsageError, unknown_name
from scaler.latency.estimator import Estimator, load_estimator
from scaler.latency.measured_model import MeasuredModel
from scaler.models.detectors.families import Config
from scaler.search.result import Candidate, Interval
from scaler.space import Alternative, Parameter, Params, Space, Value

if TYPE_CHECKING:
    from scaler.accuracy.int8_loss import Loss
    from scaler.graph.graph import Graph

__all__ = [
    "ALL", "INT8", "PRECISION", "Engines", "PrecisionSpace", "as_network", "estimator_of", "int8_fingerprint",
    "int8_loss", "load_engines", "network_id", "network_params", "with_loss", "with_precisions",
]  # fmt: skip

PRECISION = "precision"
"""The parameter that says at which precision a network runs."""
ALL = "all"
"""In place of a list of precisions: whatever the device has."""
INT8: Precision = "int8"
"""The precision that costs accuracy; 16 bits cost less than the noise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionSpace(Space):
    """A space that has every network once at each precision; what it says of the network, `base` says.

    Attributes:
        base: The space of the networks.
        usual: The precision that is meant where parameters name none; ids do not mention it.
    """

    base: Space
    usual: Precision

    @property
    def precisions(self) -> tuple[Value, ...]:
        """Those that are searched."""
        return self.parameters[-1].alternatives[0].values

    def canonical(self, params: Mapping[str, Value]) -> Params:
        """As `Space.canonical`; without a precision the usual one is meant."""
        precision = params.get(PRECISION, self.usual)
        if precision not in self.precisions:
            raise UsageError(unknown_name("precision", str(precision), [str(known) for known in self.precisions]))
        return {**self.base.canonical(network_params(params)), PRECISION: precision}

    def contains(self, params: Mapping[str, Value]) -> bool:
        """As `Space.contains`."""
        return params.get(PRECISION, self.usual) in self.precisions and self.base.contains(network_params(params))

    def find(self, config: Config) -> Params | None:
        """As `Space.find`, at the usual precision."""
        found = self.base.find(config)
        return None if found is None else {**found, PRECISION: self.usual}

    def configure(self, params: Mapping[str, Value], classes: int) -> Config:
        """As `Space.configure`."""
        return self.base.configure(network_params(params), classes)

    def candidate_id(self, params: Params) -> str:
        """The id of the network, and the precision behind it where it is not the usual one: `1a2b3c4d-int8`."""
        precision = params.get(PRECISION, self.usual)
        identity = self.base.candidate_id(network_params(params))
        return identity if precision == self.usual else f"{identity}-{precision}"


def with_precisions(space: Space, precisions: Sequence[Precision], usual: Precision) -> PrecisionSpace:
    """A space with the precision as its last parameter.

    Args:
        space: Of the networks.
        precisions: Two or more different ones.
        usual: One of them.
    """
    option = Alternative(values=tuple(precisions), when={}, step=None, named={})
    return PrecisionSpace(
        name=space.name,
        families=space.families,
        description=space.description,
        parameters=(*space.parameters, Parameter(name=PRECISION, alternatives=(option,))),
        limits=space.limits,
        size=space.size * len(precisions),
        members=space.members,
        base=space,
        usual=usual,
    )


def network_id(space: Space, params: Params) -> str:
    """The id of a candidate's network."""
    networks = space.base if isinstance(space, PrecisionSpace) else space
    return networks.candidate_id(network_params(params))


def network_params(params: Mapping[str, Value]) -> Params:
    """The parameters of the network alone."""
    return {name: value for name, value in params.items() if name != PRECISION}


@dataclass(frozen=True, slots=True, eq=False)
class Engines:
    """The estimators of one device, one for each precision that is searched; the usual one first."""

    estimators: tuple[Estimator, ...]

    @property
    def usual(self) -> Estimator:
        """What stands for the device: that of its default precision where that is searched, else the first."""
        return self.estimators[0]

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Those that are searched."""
        return tuple(estimator.precision for estimator in self.estimators)

    @property
    def partly_measured(self) -> bool:
        """Whether some of them speak from a measured table and others do not."""
        tables = [estimator.info is not None and estimator.info.model for estimator in self.estimators]
        return len({isinstance(model, MeasuredModel) for model in tables}) > 1

    def of(self, params: Mapping[str, Value]) -> Estimator:
        """What predicts a candidate."""
        wanted = params.get(PRECISION, self.usual.precision)
        return next(estimator for estimator in self.estimators if estimator.precision == wanted)

    def space(self, networks: Space) -> Space:
        """The candidates of a search on this device: the networks, at each precision where there are several."""
        if len(self.estimators) == 1:
            return networks
        return with_precisions(networks, self.precisions, self.usual.precision)


def estimator_of(engines: Engines | Estimator, params: Mapping[str, Value]) -> Estimator:
    """What predicts a candidate; one estimator predicts all."""
    return engines.of(params) if isinstance(engines, Engines) else engines


def load_engines(
    device: str, precision: str | None, *, power_mode: str | None = None, overhead_ms: float | None = None
) -> Engines:
    """The estimators of a device for the precisions that a user names.

    Args:
        device: Name, alias or path of a device profile.
        precision: One, several with commas between, `all` for whatever the device has, or None for its default.
        power_mode: The profile's default where None.
        overhead_ms: As for `load_estimator`.

    Raises:
        UsageError: Unknown device, power mode or precision, or a precision named twice.
        UnsupportedError: The device lacks a precision that is named, or has none that anybody can speak of.
    """
    profile = load_device(device)

    def load(wanted: str | None) -> Estimator:
        return load_estimator(device, precision=wanted, power_mode=power_mode, overhead_ms=overhead_ms)

    if precision is not None and precision.strip().casefold() == ALL:
        loaded = _whatever(profile, load)
    else:
        loaded = [load(name) for name in _names(precision)]
    loaded.sort(key=lambda estimator: estimator.precision != profile.default_precision)  # stable: else as named
    return Engines(tuple(loaded))


def _whatever(profile: Device, load: Callable[[str], Estimator]) -> list[Estimator]:
    """Every precision of a device that anybody can speak of; TF32 is how FP32 engines compute, not one beside it."""
    found: list[Estimator] = []
    problem: UnsupportedError | None = None
    for precision in profile.precisions:
        if precision != "tf32":
            try:
                found.append(load(precision))
            except UnsupportedError as error:  # nobody measured it
                problem = problem or error
    if not found and problem is not None:
        raise problem
    return found


def _names(precision: str | None) -> list[str | None]:
    """The precisions of a list with commas, each once."""
    if precision is None:
        return [None]
    names: list[str | None] = []
    for name in (part.strip().casefold() for part in precision.split(",")):
        if not name:
            raise UsageError(f"--precision {precision}: a name is missing; give for instance --precision fp16,int8")
        if name in names:
            raise UsageError(f"--precision {precision}: {name} is given twice")
        if name == ALL:
            raise UsageError(f"--precision {precision}: {ALL} stands alone, for whatever the device has")
        names.append(name)
    return names


def int8_loss(config: Config, graph: Graph, metric: str) -> Loss:
    """What 8-bit integers cost the accuracy of a network, in points of a metric such as `VOC AP50`."""
    from scaler.accuracy.int8_loss import predict_loss  # noqa: PLC0415  (few searches ask)

    return predict_loss(config, graph, metric="ap50" if metric.endswith("AP50") else "ap")


def int8_fingerprint() -> str:
    """8 hexadecimal digits that change with the law of that loss."""
    from scaler.accuracy.int8_loss import fingerprint  # noqa: PLC0415

    return fingerprint()


def with_loss(ap: AccuracyPrediction, loss: Loss) -> AccuracyPrediction:
    """The accuracy of a network in 8-bit integers: its own less what they cost, as independent errors."""
    outside = () if loss.inside_support else ("its loss in 8-bit integers: nobody published one of such a network",)
    return replace(
        ap,
        mean=max(ap.mean - loss.mean, 0.0),
        low=max(ap.mean - loss.mean - math.hypot(ap.mean - ap.low, loss.high - loss.mean), 0.0),
        high=min(max(ap.mean - loss.mean + math.hypot(ap.high - ap.mean, loss.mean - loss.low), 0.0), 100.0),
        inside_support=ap.inside_support and loss.inside_support,
        outside=(*ap.outside, *outside),
        provenance="calibrated" if ap.provenance == "measured" else ap.provenance,
    )


def as_network(candidate: Candidate) -> Candidate:
    """The network of a candidate, which is what is trained: id without precision, accuracy without loss.

    Itself where the search had one precision that loses nothing.
    """
    loss, ap = candidate.ap_loss, candidate.ap
    if loss is not None:
        mean = ap.mean + loss.mean
        ap = Interval(
            mean,
            0.0 if ap.low <= 0 else mean - _without(ap.mean - ap.low, loss.high - loss.mean),  # 0 is cut off
            mean + _without(ap.high - ap.mean, loss.mean - loss.low),
        )
    return replace(candidate, id=candidate.network, ap=ap, ap_loss=None)


def _without(both: float, one: float) -> float:
    """The other side of a right-angled triangle."""
    return math.sqrt(max(both**2 - one**2, 0.0))
