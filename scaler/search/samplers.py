"""Optuna's samplers on a space of ours. Imports Optuna: import it late.

An Optuna study knows flat parameters only. To keep the search space the same for every trial, which all samplers need
to work as they should, every alternative of every parameter is suggested (`drop[mobilenetv2]`,
`drop[efficientnet-b0]`, …) and the ones that do not apply are ignored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIIISampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from scaler.errors import MissingExtraError
from scaler.search.history import History
from scaler.space import Alternative, Parameter, Params, Space

__all__ = ["FlatSpace", "Steered", "make_sampler"]

_LARGEST_SEED = 2**32


class FlatSpace:
    """A space in Optuna's terms.

    Attributes:
        distributions: Of every alternative that leaves a choice, by its flat name.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._alternatives = Counter(p.name for p in space.parameters for _ in p.alternatives)
        self.distributions: dict[str, BaseDistribution] = {
            self._name(parameter, option): _distribution(option)
            for parameter in space.parameters
            for option in parameter.alternatives
            if len(option.values) > 1
        }

    def read(self, flat: Mapping[str, Any]) -> Params:
        """The candidate that flat parameters describe; what is missing takes its first value."""
        params: Params = {}
        for parameter in self.space.parameters:
            if (option := parameter.active(params)) is not None:
                value = flat.get(self._name(parameter, option))
                found = None if value is None else option.nearest(value)
                params[parameter.name] = option.values[0] if found is None else found
        return params

    def active(self, params: Params) -> dict[str, Any]:
        """The flat parameters that apply to a candidate and leave a choice."""
        flat = {}
        for parameter in self.space.parameters:
            option = parameter.active(params)
            if option is not None and len(option.values) > 1:
                flat[self._name(parameter, option)] = params[parameter.name]
        return flat

    def _name(self, parameter: Parameter, option: Alternative) -> str:
        return f"{parameter.name}[{option.label}]" if self._alternatives[parameter.name] > 1 else parameter.name


class Steered(BaseSampler):
    """A sampler that is led away from what is known: to a new neighbour, lest a trial be wasted.

    Args:
        sampler: Any of Optuna's.
        flat: The space.
        history: What is known, kept up to date by the study.
        seed: Of the study.
    """

    def __init__(self, sampler: BaseSampler, flat: FlatSpace, history: History, seed: int) -> None:
        self._sampler, self._flat, self._history = sampler, flat, history
        self._rng = np.random.default_rng(seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        """All flat parameters, always."""
        return self._flat.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """What the sampler proposes, moved to the nearest candidate that is new."""
        inner = self._sampler.infer_relative_search_space(study, trial)
        found = self._sampler.sample_relative(study, trial, inner)
        for name, distribution in search_space.items():
            if name not in found:
                found[name] = self._sampler.sample_independent(study, trial, name, distribution)
        new = self._history.new_near(self._flat.read(found), self._rng)
        return found if new is None else {**found, **self._flat.active(new)}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never needed, since all parameters are relative."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Pass it on."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Pass it on."""
        self._sampler.after_trial(study, trial, state, values)


def make_sampler(name: str, seed: int) -> BaseSampler:
    """One of Optuna's samplers.

    Args:
        name: `nsga2`, `nsga3`, `tpe` or `gp`.
        seed: Any non-negative number.

    Raises:
        MissingExtraError: The sampler needs torch, which is not installed.
    """
    if name == "gp" and find_spec("torch") is None:
        raise MissingExtraError("the sampler gp", "torch", "train")
    makers: dict[str, Callable[[int], BaseSampler]] = {
        "nsga2": lambda seed: NSGAIISampler(seed=seed),
        "nsga3": lambda seed: NSGAIIISampler(seed=seed),
        "tpe": lambda seed: TPESampler(seed=seed, multivariate=True),
        "gp": lambda seed: GPSampler(seed=seed, deterministic_objective=True),
    }
    return makers[name](seed % _LARGEST_SEED)


def _distribution(option: Alternative) -> BaseDistribution:
    low, high, step = option.values[0], option.values[-1], option.step
    if isinstance(step, int) and isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, step=step)
    if step is not None and not isinstance(low, str) and not isinstance(high, str):
        return FloatDistribution(float(low), float(high), step=float(step))
    return CategoricalDistribution(option.values)
