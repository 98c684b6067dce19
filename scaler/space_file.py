"""Search-space files, `search_spaces/*.toml`: what may stand in them and what is refused.

::

    schema_version = 1
    name = "small"
    family = "yolo-ret"                       # a detector family; its parameters are the ones below
    description = "What fits on the Nano"

    [fixed]                                   # optional: the same for every candidate
    neck = "panet"

    [parameters.backbone]                     # optional parameters that are left out keep the family's default
    choices = ["mobilenetv2", "efficientnet-b0"]

    [parameters.width]                        # applies only under its condition, here to one backbone
    when = { backbone = "mobilenetv2" }
    choices = [0.5, 0.75, 1.0]

    [[parameters.drop]]                       # alternatives: at most one may hold at a time
    when = { backbone = "mobilenetv2" }
    range = [0, 4, 1]                         # first, last, step
    named = { published = 2 }                 # optional: names of values, for the reports

    [[parameters.drop]]
    when = { backbone = ["efficientnet-b0"] } # one value or a list; several keys must all be met
    range = [0, 5, 1]

    [limits]                                  # optional: see `LIMITS`
    params = 5e6

A condition looks back: it names parameters that stand further up. The file is checked as a whole when it is
read: every two values that can meet are tried on the family.

A file that joins other spaces to one has ``members`` in place of a family and parameters::

    schema_version = 1
    name = "mine"
    members = ["yolo-ret", "small"]           # names; none of them may join others or have limits
    description = "Two families in one front"
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import get_type_hints

from scaler.catalog import find, names
from scaler.errors import FileError, UsageError, UserError, listed, nearest_name
from scaler.files import Reader, read_toml
from scaler.models.detectors.families import FAMILIES
from scaler.space import Alternative, Parameter, Params, Space, Value, defaults, joined, same, states
from scaler.space_values import choices, named, scalar, span

__all__ = ["LIMITS", "SCHEMA_VERSION", "list_spaces", "read_space"]

SCHEMA_VERSION = 1
LIMITS = ("params", "macs", "memory_mib")
"""What `[limits]` may bound from above: a count, a count, MiB of weights and peak activations together."""

_MOST_STATES = 20_000  # in which the conditions of a file can stand


def list_spaces() -> tuple[Space, ...]:
    """Return the search spaces that can be named, the user's and ours, sorted by name."""
    return tuple(read_space(name) for name in names("search_spaces"))


def read_space(name_or_path: str | Path) -> Space:
    """Return a search space by its name, or from a path to a ``.toml`` file.

    Raises:
        FileError: The file is malformed, contradicts itself, or describes what the family refuses.
        UsageError: No search space has this name.
    """
    reader = read_toml(find("search_spaces", name_or_path), schema_version=SCHEMA_VERSION)
    name, description = reader.string("name"), reader.string("description")
    if "members" in reader.keys:
        members, limits = _read_members(reader), _read_limits(reader)
        reader.finish()
        return joined(name, description, members, limits)
    family = reader.choice("family", tuple(FAMILIES))
    draft = _Draft(reader, family)
    fixed, table = reader.table("fixed", None), reader.table("parameters")
    for key in fixed.keys if fixed else ():
        assert fixed is not None
        draft.add_fixed(fixed, key)
    for key in table.keys:
        draft.add(table, key)
    limits = _read_limits(reader)
    reader.finish()
    size = draft.checked_size()
    space = Space(
        name=name, families=(family,), description=description, parameters=draft.parameters, limits=limits, size=size
    )
    _try_on_family(space, draft)
    return space


def _read_members(reader: Reader) -> list[Space]:
    """The spaces that a file joins."""
    members: list[Space] = []
    for place, name in enumerate(reader.strings("members", at_least=2)):
        where = f"members[{place}]"
        if any(name == member.name for member in members):
            raise reader.error(where, f"{name!r} stands twice", todo="remove one of them")
        if reader.string("name") == name:
            raise reader.error(where, "is this space itself", todo="remove it")
        try:
            member = read_space(name)
        except UsageError as error:
            raise reader.error(where, str(error), todo="correct it") from None
        if member.members or member.limits or member.name != name:
            what = (
                "joins others itself" if member.members else "has limits of its own" if member.limits else "is a path"
            )
            raise reader.error(where, f"{name!r} {what}", "expected the name of a simple space", "name another one")
        members.append(member)
    return members


def _read_limits(reader: Reader) -> dict[str, float]:
    table = reader.table("limits", None)
    if table is None:
        return {}
    given = {key: table.number(key, None, minimum=0) for key in LIMITS}
    return {key: limit for key, limit in given.items() if limit is not None}


class _Draft:
    """The parameters read so far, each with the place of its alternatives in the file."""

    def __init__(self, reader: Reader, family: str) -> None:
        self.reader, self.family = reader, family
        self.types: dict[str, type] = {
            name: kind if kind in (int, float, bool) else str
            for name, kind in get_type_hints(FAMILIES[family].configure).items()
            if name in defaults(family)
        }
        self.places: dict[str, list[Reader]] = {}
        self._parameters: dict[str, Parameter] = {}

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(self._parameters.values())

    def add_fixed(self, table: Reader, name: str) -> None:
        self._check_name(table, name)
        value = scalar(table, name, self.types[name])
        option = Alternative(values=(value,), when={}, step=None, named={})
        self.places[name] = [table]
        self._parameters[name] = Parameter(name=name, alternatives=(option,))

    def add(self, table: Reader, name: str) -> None:
        self._check_name(table, name)
        if name in self._parameters:
            raise table.error(name, "is fixed above", "expected one of the two", "remove it here or from [fixed]")
        several = isinstance(table.raw(name), list)
        readers = table.tables(name, at_least=1) if several else (table.table(name),)
        self.places[name] = list(readers)
        options = tuple(self._alternative(reader, name) for reader in readers)
        for reader, option in zip(readers, options, strict=True):
            self._check_texts(reader, name, option.values)
        self._parameters[name] = Parameter(name=name, alternatives=options)

    def checked_size(self) -> int:
        """Check the conditions against each other and count the candidates."""
        usual = defaults(self.family)
        required = [name for name, value in usual.items() if value == ""]
        for name in required:
            if name not in self._parameters:
                raise self.reader.error(f"parameters.{name}", "missing", f"{self.family} has no default", "add it")
        for parameter, ways in states(self.parameters):
            if len(ways) > _MOST_STATES:
                raise self.reader.error(
                    "parameters",
                    "the conditions can stand in too many ways",
                    f"allowed are {_MOST_STATES:,}",
                    "let fewer parameters have conditions",
                )
            if parameter is None:
                return sum(ways.values())
            self._check_conditions(parameter, [dict(way) for way in ways], parameter.name in required)
        raise AssertionError("states() ends with None")

    def _check_conditions(self, parameter: Parameter, ways: Sequence[Params], required: bool) -> None:
        places = self.places[parameter.name]
        met: set[int] = set()
        for way in ways:
            holding = [i for i, option in enumerate(parameter.alternatives) if option.holds(way)]
            met.update(holding)
            if len(holding) > 1:
                raise places[holding[1]].error(
                    "when",
                    f"holds together with that of {places[holding[0]].where}{_given(way)}",
                    "at most one may hold",
                    "narrow one of them",
                )
            if required and not holding:
                raise self.reader.error(
                    f"parameters.{parameter.name}",
                    f"has no value{_given(way)}",
                    f"{self.family} has no default for it",
                    "add an alternative",
                )
        for i, place in enumerate(places):
            if i not in met:
                raise place.error(
                    "when",
                    "can never hold",
                    "expected a condition that some candidate meets",
                    "correct it or remove this table",
                )

    def _check_name(self, table: Reader, name: str) -> None:
        if name not in self.types:
            nearest = nearest_name(name, self.types)
            todo = f"did you mean {nearest!r}?" if nearest else "remove it"
            raise table.error(name, f"unknown parameter of {self.family}", f"known: {listed(self.types)}", todo)

    def _check_texts(self, place: Reader, name: str, values: Sequence[Value]) -> None:
        """Refuse a text that the family does not know, before a condition stumbles over it."""
        base = {known: self._parameters[known].alternatives[0].values[0] for known in self._parameters}
        required = {
            known: base[known] for known, usual in defaults(self.family).items() if usual == "" and known in base
        }
        for i, value in enumerate(values if self.types[name] is str else ()):
            try:
                FAMILIES[self.family].configure(**{**required, name: value}, classes=1)
            except UserError as error:
                if repr(value) in str(error):
                    raise place.error(f"choices[{i}]", str(error), todo="correct it") from None

    def _alternative(self, reader: Reader, name: str) -> Alternative:
        kind = self.types[name]
        given = [key for key in ("choices", "range") if key in reader.keys]
        if len(given) != 1:
            raise reader.error(
                "",
                f"{len(given)} of `choices` and `range`",
                "expected one of them",
                "write choices = [...] or range = [first, last, step]",
            )
        step: int | float | None = None
        if given == ["choices"]:
            values = choices(reader, kind)
        else:
            values, step = span(reader, name, kind)
        return Alternative(values=values, when=self._when(reader, name), step=step, named=named(reader, values, kind))

    def _when(self, reader: Reader, name: str) -> dict[str, tuple[Value, ...]]:
        table = reader.table("when", None)
        if table is None:
            return {}
        return {key: self._allowed(table, key, name) for key in table.keys}

    def _allowed(self, table: Reader, key: str, name: str) -> tuple[Value, ...]:
        if key not in self._parameters:
            nearest = nearest_name(key, self._parameters)
            if key == name or key in self.types:
                todo = "move it below that parameter" if key != name else "remove it"
                what = "is the parameter itself" if key == name else "does not stand further up"
            else:
                what, todo = "unknown parameter", f"did you mean {nearest!r}?" if nearest else "remove it"
            raise table.error(key, what, f"known here: {listed(self._parameters)}", todo)
        known = list(dict.fromkeys(v for o in self._parameters[key].alternatives for v in o.values))
        raw = table.raw(key)
        if isinstance(raw, list) and not raw:
            raise table.error(key, "an empty list", f"expected values of {key}: {listed(map(str, known))}", "fill it")
        found: list[Value] = []
        for i, item in enumerate(raw if isinstance(raw, list) else [raw]):
            place = f"{key}[{i}]" if isinstance(raw, list) else key
            value = next((value for value in known if same(value, item)), None)
            if value is None:
                nearest = nearest_name(item, map(str, known)) if isinstance(item, str) else None
                todo = f"did you mean {nearest!r}?" if nearest else "choose one of these"
                raise table.error(place, f"not a value of {key}", f"expected one of {listed(map(str, known))}", todo)
            if value in found:
                raise table.error(place, "stands twice", todo="remove one of them")
            found.append(value)
        return tuple(found)


def _given(params: Params) -> str:
    return f" with {', '.join(f'{name} = {value}' for name, value in params.items())}" if params else ""


def _try_on_family(space: Space, draft: _Draft) -> None:
    """Refuse a space with candidates that its family refuses: any two values that can meet are tried."""
    for params in _probes(space):
        try:
            space.configure(params, classes=1)
        except UserError as error:
            raise _blamed(space, draft, params, str(error)) from None


def _probes(space: Space) -> Iterator[Params]:
    """Candidates that together contain every two values that can meet."""
    met: set[tuple[tuple[str, Value], tuple[str, Value]]] = set()
    *_, (_, ways) = states(space.parameters)
    for way in ways:
        first = _completed(space, dict(way))
        met.update(combinations(first.items(), 2))
        yield first
        for one, other in combinations(_free(space, first, dict(way)), 2):
            for pair in ((a, b) for a in one for b in other):
                if pair not in met:
                    probe = {**first, **dict(pair)}
                    met.update(combinations(probe.items(), 2))
                    yield probe


def _completed(space: Space, way: Params) -> Params:
    params: Params = {}
    for parameter in space.parameters:
        if (option := parameter.active(params)) is not None:
            params[parameter.name] = way.get(parameter.name, option.values[0])
    return params


def _free(space: Space, params: Params, way: Params) -> list[list[tuple[str, Value]]]:
    """The values that each parameter can take without moving a condition."""
    found = []
    for parameter in space.parameters:
        if (option := parameter.active(params)) is not None:
            values = (params[parameter.name],) if parameter.name in way else option.values
            found.append([(parameter.name, value) for value in values])
    return found


def _blamed(space: Space, draft: _Draft, params: Params, message: str) -> FileError:
    """The error at the parameter that the family's message names first."""
    words = re.findall(r"[a-z_]+", message)
    name = min(params, key=lambda name: words.index(name) if name in words else len(words))
    parameter = next(parameter for parameter in space.parameters if parameter.name == name)
    option = parameter.active(params)
    assert option is not None
    place = draft.places[name][parameter.alternatives.index(option)]
    raw = place.raw("choices", None)
    if isinstance(raw, list) and params[name] in raw:
        where = f"choices[{raw.index(params[name])}]"
    else:
        where = "range" if "range" in place.keys else name
    return place.error(where, f"{space.families[0]} refuses a candidate: {message}", todo="correct it")
