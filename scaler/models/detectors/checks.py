"""What every configuration of a detector checks of its fields."""

from __future__ import annotations

from scaler.errors import UsageError


def require(field_name: str, value: object, fits: bool, allowed: str) -> None:
    """Refuse a value.

    Raises:
        UsageError: It does not fit; the message names field, value and what is allowed.
    """
    if not fits:
        raise UsageError(f"{field_name} = {value!r}: allowed is {allowed}")


def require_text(config: object, *field_names: str) -> None:
    """Refuse fields that are no text, before they are looked up among names.

    Raises:
        UsageError: The first that is not.
    """
    for name in field_names:
        value = getattr(config, name)
        if not isinstance(value, str):
            require(name, value, False, "a name")


def require_number(config: object, *field_names: str) -> None:
    """Refuse fields that are no numbers; a whole number is one, a truth value is none.

    Raises:
        UsageError: The first that is not.
    """
    for name in field_names:
        value = getattr(config, name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            require(name, value, False, "a number")


def require_whole(config: object, *field_names: str) -> None:
    """Refuse fields that are no whole numbers; a truth value is none.

    Raises:
        UsageError: The first that is not.
    """
    for name in field_names:
        value = getattr(config, name)
        if type(value) is not int:
            require(name, value, False, "a whole number")
