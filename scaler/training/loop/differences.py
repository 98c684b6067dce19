"""Where two pieces of plain data differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Difference(NamedTuple):
    """One value that is not the same."""

    where: str
    """Dotted path."""
    then: object
    """None where there was none."""
    now: object


def differences(then: object, now: object, where: str = "") -> Iterator[Difference]:
    """What differs between two trees of dictionaries and lists, in their order; lists of unequal length as a whole."""
    if isinstance(then, dict) and isinstance(now, dict):
        for key in then | now:
            yield from differences(then.get(key), now.get(key), f"{where}.{key}" if where else str(key))
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for index, (old, new) in enumerate(zip(then, now, strict=True)):
            yield from differences(old, new, f"{where}[{index}]")
    elif then != now:
        yield Difference(where, then, now)
