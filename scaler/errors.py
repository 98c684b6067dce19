"""What can go wrong, as a tree.

::

    ScalerError
    └── UserError                 a mistake or an impossible wish: one clear line, exit code 1
        ├── UsageError            a wrong option value, an unknown name: exit code 2
        ├── FileError             a malformed file: where, what, what is allowed, what to do
        ├── UnsupportedError      the device, runtime or network cannot do what is asked
        └── MissingExtraError     an optional part is not installed; says which ``pip install`` brings it

The command line prints a `UserError` without a trace and leaves with its `exit_code`. A bug of ours is an
ordinary exception, stands outside this tree and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_KNOWN_SHOWN = 20
_NAME_SHOWN = 60


class ScalerError(Exception):
    """The root: everything that scaler raises on purpose."""


class UserError(ScalerError):
    """A mistake of the user or an impossible wish, told in one line."""

    exit_code = 1

    def __str__(self) -> str:
        return " ".join(line.strip() for line in self._message().splitlines())

    def _message(self) -> str:
        return super().__str__()


class UsageError(UserError):
    """A wrong option value or an unknown name."""

    exit_code = 2


class FileError(UserError):
    """A file that cannot be used, with the place in it, what is allowed there and the way out.

    Attributes:
        file: The file as the user named it.
        where: Dotted path (``devices[0].gpu_mhz``) or ``line 3, column 5``; empty for the whole file.
        what: What was found.
        allowed: What is allowed there; may be empty.
        todo: What to do about it; may be empty.
    """

    def __init__(self, file: Path | str, where: str, what: str, allowed: str = "", todo: str = "") -> None:
        super().__init__(file, where, what, allowed, todo)
        self.file, self.where, self.what, self.allowed, self.todo = file, where, what, allowed, todo

    def _message(self) -> str:
        sentence = "; ".join(part for part in (self.what, self.allowed, self.todo) if part)
        return ": ".join(part for part in (str(self.file), self.where, sentence) if part)


class UnsupportedError(UserError):
    """The device, runtime or network cannot do what is asked."""


class MissingExtraError(UserError):
    """An optional part is not installed.

    Attributes:
        purpose: What needs it ("training").
        package: The package that is missing ("torch").
        extra: The extra of the distribution that brings it ("train").
    """

    def __init__(self, purpose: str, package: str, extra: str) -> None:
        super().__init__(purpose, package, extra)
        self.purpose, self.package, self.extra = purpose, package, extra

    def _message(self) -> str:
        missing = f"{self.purpose} needs {self.package}, which is not installed"
        return f"{missing}: pip install 'scaler-nas[{self.extra}]'"


def nearest_name(name: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name that the user probably meant, whatever its case, or None."""
    by_folded = {known.casefold(): known for known in allowed}
    close = get_close_matches(name[:_NAME_SHOWN].casefold(), by_folded, n=1)
    return by_folded[close[0]] if close else None


def unknown_name(kind: str, name: str, allowed: Iterable[str], also: Iterable[str] = ()) -> str:
    """Compose ``unknown device 'nanoo'; did you mean 'nano'? known: agx, nano, nx``.

    Args:
        kind: What the name should be the name of.
        name: What the user wrote.
        allowed: The names to guess from and to list.
        also: Names to guess from that are not worth listing, such as aliases.
    """
    known = list(allowed)
    shown = name if len(name) <= _NAME_SHOWN else name[:_NAME_SHOWN] + "…"
    nearest = nearest_name(name, [*known, *also])
    guess = f"did you mean {nearest!r}? " if nearest else ""
    return f"unknown {kind} {shown!r}; {guess}known: {listed(known)}"


def listed(names: Iterable[str]) -> str:
    """Return the names with commas between them; a long list is cut and counted."""
    known = list(names)
    if len(known) > _KNOWN_SHOWN:
        return f"{', '.join(known[:_KNOWN_SHOWN])}, … ({len(known)} in all)"
    return ", ".join(known) or "none"
