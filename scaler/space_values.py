"""The values of a parameter as a search-space file gives them: choices, a range, names for some."""

from __future__ import annotations

from collections.abc import Sequence

from scaler.errors import listed
from scaler.files import Reader
from scaler.space import Value

__all__ = ["choices", "named", "scalar", "span"]

_MOST_VALUES = 1000  # of one parameter: far above any use, so that a slip does not fill the memory


def choices(reader: Reader, kind: type) -> tuple[Value, ...]:
    """The list under `choices`, texts and truth values in the order of the file, numbers ascending."""
    values: tuple[Value, ...]
    if kind is bool:
        raw = reader.raw("choices")
        if not isinstance(raw, list) or not raw or not all(isinstance(item, bool) for item in raw):
            raise reader.error("choices", "not a list of true and false", "expected [false, true]", "write it so")
        values = tuple(raw)
    elif kind is str:
        values = reader.strings("choices", at_least=1)
    elif kind is int:
        values = reader.integers("choices", at_least=1)
    else:
        values = reader.numbers("choices", at_least=1)
    for i, value in enumerate(values):
        if value in values[:i]:
            raise reader.error(f"choices[{i}]", f"{value!r} stands twice", todo="remove one of them")
    if len(values) > _MOST_VALUES:
        raise reader.error("choices", f"{len(values)} values", f"expected at most {_MOST_VALUES}", "remove some")
    return values if kind in (str, bool) else tuple(sorted(values))


def span(reader: Reader, name: str, kind: type) -> tuple[tuple[Value, ...], int | float]:
    """The numbers from the first to the last under `range`, and their distance."""
    if kind in (str, bool):
        raise reader.error("range", f"{name} is no number", "expected choices", "write choices = [...]")
    bounds = reader.integers("range") if kind is int else reader.numbers("range")
    if len(bounds) != 3:
        raise reader.error("range", f"{len(bounds)} numbers", "expected [first, last, step]", "write these three")
    low, high, step = bounds
    if step <= 0 or low > high:
        what = "the step is not above 0" if step <= 0 else f"first {low} is above last {high}"
        raise reader.error("range", what, "expected [first, last, step]", "correct it")
    steps = (high - low) / step
    if steps > _MOST_VALUES - 1:
        raise reader.error("range", "too many values", f"expected at most {_MOST_VALUES}", "take a larger step")
    if abs(steps - round(steps)) > 1e-6:
        reachable = low + int(steps) * step
        raise reader.error(
            "range",
            f"steps of {step} from {low} miss {high}",
            "expected a last value that is reached",
            f"for instance {reachable:g}",
        )
    count = round(steps) + 1
    if kind is int:
        return tuple(low + i * step for i in range(count)), step
    return tuple(round(low + i * step, 10) for i in range(count)), step


def named(reader: Reader, values: Sequence[Value], kind: type) -> dict[str, Value]:
    """The names under `named`, each of one of the values."""
    table = reader.table("named", None)
    if table is None:
        return {}
    found: dict[str, Value] = {}
    for key in table.keys:
        value = scalar(table, key, kind)
        if value not in values:
            raise table.error(
                key,
                f"{value!r} is not a value here",
                f"expected one of {listed(map(str, values))}",
                "correct it or add the value",
            )
        found[key] = value
    return found


def scalar(table: Reader, key: str, kind: type) -> Value:
    """The single value of this type under a key."""
    if kind is bool:
        return table.boolean(key)
    if kind is str:
        return table.string(key)
    return table.integer(key) if kind is int else table.number(key)
