"""The recorded outputs of power sensors in tests/data/power: trees of the system's files, lines of tegrastats."""

import errno
from collections.abc import Callable
from pathlib import Path

RECORDS = Path(__file__).parent / "data/power"
ERRORS = {"Input/output error": errno.EIO, "No data available": errno.ENODATA, "Permission denied": errno.EACCES}


def record(name: str) -> str:
    return (RECORDS / name).read_text(encoding="utf-8")


def lines() -> dict[str, str]:
    """Lines of tegrastats by board."""
    pairs = (line.partition(": ") for line in record("tegrastats.txt").splitlines())
    return {board: line for board, _, line in pairs}


def plant(name: str, root: Path) -> Path:
    """Write the files of a tree below a folder; those that cannot be read hold their error."""
    for line in record(f"{name}.tree").splitlines():
        path, _, content = line.rpartition(": ")
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{content}\n", encoding="utf-8")
    return root


def reader(*, forbidden: str = "") -> Callable[[Path], str]:
    """Reads planted files, with their errors; those of a name may be read by root alone."""

    def read(path: Path) -> str:
        if path.name == forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        text = path.read_text(encoding="utf-8").strip()
        if text.startswith("["):
            raise OSError(ERRORS[text.strip("[]")], text.strip("[]"), str(path))
        return text

    return read
