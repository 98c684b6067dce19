"""Converters of CSV cells that the tables of published figures share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from scaler.files import choice_cell, number_cell

__all__ = ["figure", "flag", "optional"]

T = TypeVar("T")


def optional(convert: Callable[[str], T]) -> Callable[[str], T | None]:
    """Return a converter that takes an empty cell as None."""
    return lambda text: convert(text) if text else None


def flag(text: str) -> bool:
    """Convert `1` to true, `0` and an empty cell to false."""
    return choice_cell(("", "0", "1"))(text) == "1"


figure = optional(number_cell(minimum=0.0))
"""A number that is not negative, or None where nothing is printed."""
