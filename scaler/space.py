"""A search space: the parameters of a detector family, their values, and which of them apply when.

A candidate is a dictionary of the parameters that apply to it, in the space's order; its length varies, since
a parameter may exist only under a condition (the width only for MobileNetV2) or have other values under
another one (how many blocks can be dropped). What does not apply takes the family's default.

A space may join others: then the first parameter, `space`, names the member that a candidate is of, and every other
parameter is a member's own, under the condition that it is this member's turn.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from itertools import islice

import numpy as np

from scaler.errors import UsageError, listed, unknown_name
from scaler.models.detectors.families import FAMILIES, Config, family_of, parameters_of

__all__ = [
    "MEMBER", "Alternative", "Key", "Parameter", "Params", "Space", "Value", "defaults", "joined", "key", "same",
    "states",
]  # fmt: skip

Value = str | int | float | bool
Params = dict[str, Value]
Key = tuple[tuple[str, Value], ...]
"""A candidate as something that can be looked up."""

MEMBER = "space"
"""The parameter that names the member of a joined space."""

_MOST_FILLED = 64  # neighbours from one changed value, where it brings parameters that did not apply before


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The values of a parameter under one condition."""

    values: tuple[Value, ...]
    """Different values of one type; numbers ascend."""
    when: Mapping[str, tuple[Value, ...]]
    """Every parameter named here must have one of these values; empty is always."""
    step: int | float | None
    """Distance of the values where the file gives them as a range."""
    named: Mapping[str, Value]
    """Values that have a name, such as a published cut."""

    def holds(self, params: Mapping[str, Value]) -> bool:
        """Whether the condition is met; it is not where a parameter that it names does not apply."""
        for name, allowed in self.when.items():  # noqa: SIM110  # all() takes twice as long
            if name not in params or params[name] not in allowed:
                return False
        return True

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers, so that some are adjacent."""
        return not isinstance(self.values[0], str | bool)

    @property
    def label(self) -> str:
        """The condition in short: `mobilenetv2`, `3|5|7`; empty for always."""
        return ",".join("|".join(map(str, allowed)) for allowed in self.when.values())

    def beside(self, value: Value) -> tuple[Value, ...]:
        """The values one step from this one: the adjacent numbers, every other text."""
        if not self.ordered:
            return tuple(other for other in self.values if other != value)
        place = self.values.index(value)
        return self.values[max(place - 1, 0) : place] + self.values[place + 1 : place + 2]

    def nearest(self, value: Value) -> Value | None:
        """The value itself or, for numbers, the nearest one; None for a text that is not among them."""
        if value in self.values:
            return value
        if not self.ordered or isinstance(value, str):
            return None
        return min(self.values, key=lambda other: abs(float(other) - value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of the family and its values, condition by condition."""

    name: str
    alternatives: tuple[Alternative, ...]
    """At most one of them holds for any candidate."""

    def active(self, params: Mapping[str, Value]) -> Alternative | None:
        """The alternative that holds, given the parameters before this one; None where it does not apply."""
        for alternative in self.alternatives:
            if alternative.holds(params):
                return alternative
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """All candidates of a search; `scaler.space_file` reads one and explains the file.

    Attributes:
        name: What the user calls it.
        families: Detector families, keys of `FAMILIES`: one, or those of the members of a joined space.
        description: For people.
        parameters: In the file's order, fixed ones first; conditions look back only.
        limits: Upper limits on what a candidate may cost, by name; see `scaler.space_file.LIMITS`.
        size: Number of candidates.
        members: The spaces that a joined one consists of; empty otherwise.
    """

    name: str
    families: tuple[str, ...]
    description: str
    parameters: tuple[Parameter, ...]
    limits: Mapping[str, float]
    size: int
    members: tuple[Space, ...] = ()

    def family_of(self, params: Mapping[str, Value]) -> str:
        """The family of a candidate.

        Raises:
            UsageError: A candidate of a joined space that does not say of which member.
        """
        return self._member(params).families[0]

    def _member(self, params: Mapping[str, Value]) -> Space:
        """The space whose parameters these are."""
        if not self.members:
            return self
        for member in self.members:
            if member.name == params.get(MEMBER):
                return member
        names = [member.name for member in self.members]
        raise UsageError(_not_in_space(self.name, MEMBER, params.get(MEMBER, ""), names))

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for the set of candidates: equal for equal sets of parameters."""
        shape = [
            (parameter.name, [(option.values, sorted(option.when.items())) for option in parameter.alternatives])
            for parameter in self.parameters
        ]
        family = self.families if self.members else self.families[0]
        return blake2b(repr((family, shape)).encode(), digest_size=8).hexdigest()

    def candidates(self) -> Iterator[Params]:
        """All candidates, in the order of the file; two spaces of one digest give the same order."""
        yield from _walk(self.parameters, {})

    def canonical(self, params: Mapping[str, Value]) -> Params:
        """Bring parameters into the one form of their candidate: those that apply, in the space's order.

        A parameter that is missing takes the family's default. What does not apply is dropped unseen.

        Raises:
            UsageError: An unknown parameter, or a value that the space does not have.
        """
        if self.members:
            member = self._member(params)
            own = {name: value for name, value in params.items() if name != MEMBER}
            return {MEMBER: member.name, **member.canonical(own)}
        (family,) = self.families
        usual = defaults(family)
        for name in params:
            if name not in usual:
                raise UsageError(unknown_name(f"parameter of {family}", name, usual))
        result: Params = {}
        for parameter in self.parameters:
            if (option := parameter.active(result)) is not None:
                value = params.get(parameter.name, usual[parameter.name])
                found = next((known for known in option.values if same(known, value)), None)
                if found is None:
                    raise UsageError(_not_in_space(self.name, parameter.name, value, option.values))
                result[parameter.name] = found
        searched = {parameter.name for parameter in self.parameters}
        for name, value in params.items():
            if name not in searched and not same(value, usual[name]):
                raise UsageError(_not_in_space(self.name, name, value, [usual[name]]))
        return result

    def contains(self, params: Mapping[str, Value]) -> bool:
        """Whether these parameters describe a candidate; what does not apply must have the family's default."""
        try:
            candidate = self.canonical(params)
        except UsageError:
            return False
        usual = defaults(self.family_of(params))
        return all(name in candidate or same(value, usual[name]) for name, value in params.items())

    def find(self, config: Config) -> Params | None:
        """The candidate that a configuration is, its number of classes apart; None where there is none."""
        family, params = family_of(config), parameters_of(config)
        for member in self.members or (self,):
            if member.families == (family.name,) and member.contains(params):
                found = member.canonical(params)
                return {MEMBER: member.name, **found} if self.members else found
        return None

    def configure(self, params: Mapping[str, Value], classes: int) -> Config:
        """The checked configuration of a candidate.

        Raises:
            UsageError: The family refuses a value.
            UnsupportedError: The family refuses a combination.
        """
        own = {name: value for name, value in params.items() if name != MEMBER}
        return FAMILIES[self.family_of(params)].configure(**own, classes=classes)

    def candidate_id(self, params: Params) -> str:
        """8 hexadecimal digits of a candidate: the same network has the same ones in every space.

        They name the family and what differs from its defaults, so that a family may grow parameters. Two of
        tens of thousands of candidates may share them: use `key` to look candidates up.
        """
        family = self.family_of(params)
        usual = defaults(family)
        differing = sorted((n, value) for n, value in params.items() if n != MEMBER and value != usual[n])
        return blake2b(repr((family, differing)).encode(), digest_size=4).hexdigest()

    def neighbours(self, params: Params) -> list[Params]:
        """All candidates one step away: one parameter takes an adjacent number or any other text.

        Members of a joined space are not one step apart. Parameters that still apply keep their value or take the
        nearest that is left; those that now apply take each of theirs.
        """
        found: dict[Key, Params] = {}
        for parameter in self.parameters:
            if parameter.name != MEMBER and (option := parameter.active(params)) is not None:
                for value in option.beside(params[parameter.name]):
                    filled = _fill(self.parameters, {**params, parameter.name: value}, {}, _every_value)
                    found.update((key(other), other) for other in islice(filled, _MOST_FILLED))
        return list(found.values())

    def repaired(self, wanted: Mapping[str, Value], rng: np.random.Generator) -> Params:
        """The candidate nearest to some values, which need not fit together; what is missing is drawn."""

        def drawn(option: Alternative) -> Sequence[Value]:
            return (option.values[int(rng.integers(len(option.values)))],)

        return next(_fill(self.parameters, wanted, {}, drawn))

    def sample(self, rng: np.random.Generator) -> Params:
        """Draw a candidate: each parameter that applies uniformly, in the space's order."""
        return self.repaired({}, rng)


def joined(name: str, description: str, members: Sequence[Space], limits: Mapping[str, float]) -> Space:
    """One space of several; of limits it has its own only."""
    of_member = Alternative(values=tuple(member.name for member in members), when={}, step=None, named={})
    parameters = [Parameter(name=MEMBER, alternatives=(of_member,))]
    for member in members:
        turn: Mapping[str, tuple[Value, ...]] = {MEMBER: (member.name,)}
        for parameter in member.parameters:
            options = tuple(replace(option, when={**turn, **option.when}) for option in parameter.alternatives)
            parameters.append(Parameter(name=parameter.name, alternatives=options))
    return Space(
        name=name,
        families=tuple(dict.fromkeys(family for member in members for family in member.families)),
        description=description,
        parameters=tuple(parameters),
        limits=limits,
        size=sum(member.size for member in members),
        members=tuple(members),
    )


def key(params: Params) -> Key:
    """A candidate in its canonical form as something that can be looked up."""
    return tuple(params.items())


def same(first: Value, second: Value) -> bool:
    """Whether two values are one: 1 is 1.0, but true is not 1."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


@cache
def defaults(family: str) -> dict[str, Value]:
    """The parameters of a family with their defaults; the empty text where there is none."""
    parameters = inspect.signature(FAMILIES[family].configure).parameters.values()
    return {
        parameter.name: "" if parameter.default is parameter.empty else parameter.default
        for parameter in parameters
        if parameter.name != "classes"
    }


def states(parameters: Sequence[Parameter]) -> Iterator[tuple[Parameter | None, Counter[Key]]]:
    """Go through a space without enumerating it, for counting and checking.

    Yields:
        Every parameter with the ways in which the conditions can stand before it: what the parameters that
        conditions name may be, and how many partial candidates have them so. Last None with the ways at the end,
        whose counts sum to the size of the space.
    """
    named = {name for parameter in parameters for option in parameter.alternatives for name in option.when}
    current: Counter[Key] = Counter({(): 1})
    for parameter in parameters:
        yield parameter, current
        following: Counter[Key] = Counter()
        for state, count in current.items():
            option = parameter.active(dict(state))
            if option is None:
                following[state] += count
            elif parameter.name in named:
                for value in option.values:
                    following[(*state, (parameter.name, value))] += count
            else:
                following[state] += count * len(option.values)
        current = following
    yield None, current


def _walk(parameters: tuple[Parameter, ...], params: Params) -> Iterator[Params]:
    if not parameters:
        yield params
        return
    first, rest = parameters[0], parameters[1:]
    option = first.active(params)
    if option is None:
        yield from _walk(rest, params)
    elif rest:
        for value in option.values:
            yield from _walk(rest, {**params, first.name: value})
    else:
        for value in option.values:
            yield {**params, first.name: value}


def _fill(
    parameters: tuple[Parameter, ...],
    wanted: Mapping[str, Value],
    params: Params,
    missing: Callable[[Alternative], Sequence[Value]],
) -> Iterator[Params]:
    """Go on with candidates that are as near to some values as they can be."""
    for place, parameter in enumerate(parameters):
        option = parameter.active(params)
        if option is None:
            continue
        value = option.nearest(wanted[parameter.name]) if parameter.name in wanted else None
        if value is not None:
            params = {**params, parameter.name: value}
            continue
        for chosen in missing(option):
            yield from _fill(parameters[place + 1 :], wanted, {**params, parameter.name: chosen}, missing)
        return
    yield params


def _every_value(option: Alternative) -> Sequence[Value]:
    return option.values


def _not_in_space(space: str, name: str, value: Value, allowed: Sequence[Value]) -> str:
    shown = value if name and value != "" else "missing"
    return f"{name} = {shown!r}: the space {space!r} allows {listed(map(str, allowed))}"
