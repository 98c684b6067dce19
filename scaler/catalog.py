"""Where search spaces, latency tables and device profiles are found by name.

A name is looked up in the user's data folder, then in the repository (a checkout or an editable install),
then in the copy inside the installed package; the first folder that has it wins, so that a user's file
overrides ours. The name of a file is its path below the folder without the suffix: ``nano``,
``nano/tensorrt-fp16``. What ends in ``.toml`` is not a name but a path, and is taken as it stands.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Literal

from scaler.errors import FileError, UsageError, UserError, unknown_name

__all__ = ["Kind", "find", "names", "user_folder"]

Kind = Literal["search_spaces", "latency_tables", "profiles"]

_NOUNS: dict[Kind, str] = {
    "search_spaces": "search space",
    "latency_tables": "latency table",
    "profiles": "device profile",
}
_PACKAGE = Path(__file__).parent
_SUFFIX = ".toml"


def names(kind: Kind) -> tuple[str, ...]:
    """Return the names of all files of this kind, the user's and ours, sorted."""
    return tuple(sorted(_files(kind)))


def find(kind: Kind, name: str | Path) -> Path:
    """Return the file of this name, or the path itself where a path to a ``.toml`` file is given.

    Raises:
        FileError: The path names no file.
        UsageError: No file of this kind has this name; the message has the nearest.
    """
    if Path(name).suffix.lower() == _SUFFIX:
        if not Path(name).is_file():
            raise FileError(name, "", "no such file", f"expected a {_NOUNS[kind]}", "check the path")
        return Path(name)
    files = _files(kind)
    if str(name) not in files:
        raise UsageError(unknown_name(_NOUNS[kind], str(name), sorted(files)))
    return files[str(name)]


def user_folder() -> Path:
    """Return the folder of the user's own data: ``$SCALER_DATA_DIR``, else the platform's place for such.

    Raises:
        UserError: No folder is set and this user has no home.
    """
    if chosen := os.environ.get("SCALER_DATA_DIR"):
        return Path(chosen)
    try:
        home = Path.home()
    except RuntimeError:
        raise UserError("this user has no home folder; set SCALER_DATA_DIR to a folder for data") from None
    places = {
        "win32": Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"),
        "darwin": home / "Library" / "Application Support",
    }
    default = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return places.get(sys.platform, default) / "scaler"


def _files(kind: Kind) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in _folders(kind):
        for path in folder.rglob(f"*{_SUFFIX}"):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def _folders(kind: Kind) -> list[Path]:
    """Return the folders to look in, the strongest first."""
    chosen = os.environ.get("SCALER_DATA_DIR")
    if chosen and not Path(chosen).is_dir():
        raise UsageError(f"SCALER_DATA_DIR names {chosen}, which is no folder; create it or unset the variable")
    roots = [_PACKAGE / "shipped"]
    if (_PACKAGE.parent / "pyproject.toml").is_file():  # not the site-packages of an installed wheel
        roots.insert(0, _PACKAGE.parent)
    with contextlib.suppress(UserError):  # without a home there is only our own data
        roots.insert(0, user_folder())
    return [root / kind for root in roots]
