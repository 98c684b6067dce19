"""Which networks the user means: picks of a search, published models, parameters written out. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from scaler.accuracy.runs import Predicted
from scaler.errors import UsageError
from scaler.models.detectors.families import Config, family_of, parameters_of
from scaler.profiling.verify import chosen
from scaler.search import explain
from scaler.search.precision import as_network
from scaler.search.published_models import published_models
from scaler.search.result import Candidate, DeviceResult, SearchResult
from scaler.search.result_file import read_result
from scaler.space import Space
from scaler.space_file import read_space
from scaler.training.network.spec import Value

_ANY_CLASSES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A network to train."""

    name: str
    """Id in the search's result or the search space, or the name of a published model."""
    family: str
    parameters: Mapping[str, Value]
    """Of the family's configuration, the number of classes apart."""
    candidate: str = ""
    """Id in the search's result; blank where it comes from none."""
    predicted: Predicted | None = None


def one(network: str, *, pick: str = "best", device: str | None = None, space: str | None = None) -> Named:
    """The network that a command line names.

    Args:
        network: Path of a `pareto.json`, name of a published model, or `key=value` pairs.
        pick: `best`, `knee` or an id, of a `pareto.json`.
        device: Whose front; the first where None.
        space: Search space of `key=value` pairs; the shipped one that has them where None.

    Raises:
        UserError: There is no such file, candidate or model.
    """
    if network.endswith(".json"):
        result, _, candidates = picks(Path(network), pick, device)
        return of_search(result, candidates[0])
    published = published_models()
    if network in published:
        return _of_config(network, published[network].config)
    found = read_space(space or explain.space_of(network))
    params = explain.named(network, found)
    return _of_config(found.candidate_id(params), found.configure(params, _ANY_CLASSES))


def picks(path: Path, pick: str, device: str | None) -> tuple[SearchResult, DeviceResult, tuple[Candidate, ...]]:
    """A search's result, the device's part of it, and the candidates that are meant.

    Raises:
        UserError: The file is malformed, or there is no such device or candidate.
    """
    result = read_result(path)
    if not result.devices:
        raise UsageError(f"{path}: the search has no device, so there is nothing to train")
    return result, *chosen(result, device, pick)


def of_search(result: SearchResult, candidate: Candidate) -> Named:
    """The network of a search's candidate, whatever its precision."""
    space: Space = read_space(result.space)
    config = space.configure(space.canonical(candidate.params), _ANY_CLASSES)
    candidate = as_network(candidate)
    ap = candidate.ap
    predicted = Predicted(mean=ap.mean, low=ap.low, high=ap.high, dataset=result.dataset, metric=result.metric)
    named = _of_config(candidate.id, config)
    return Named(
        name=named.name, family=named.family, parameters=named.parameters, candidate=candidate.id, predicted=predicted
    )


def _of_config(name: str, config: Config) -> Named:
    return Named(name=name, family=family_of(config).name, parameters=parameters_of(config))
