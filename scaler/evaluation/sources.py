"""What `scaler predict` is given: pictures, videos, folders of them, and patterns; and where the results go."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from scaler.data import images
from scaler.errors import UsageError, UserError
from scaler.evaluation import video


class Source(NamedTuple):
    """One picture or video and the file that its boxes are drawn into."""

    path: Path
    output: Path

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by its suffix."""
        return is_video(self.path)


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return path.suffix.lower() in video.SUFFIXES


def find_sources(names: Sequence[str], out: Path) -> tuple[Source, ...]:
    """Resolve what the user named, in that order, folders and patterns sorted; every file once.

    Folders are searched with those in them, their structure is kept; hidden files and the folder of the results are
    left out. Files of equal names from different places get a number.

    Args:
        names: Files, folders, or patterns with `*`, `?` and `[]`.
        out: Folder of the results.

    Raises:
        UserError: Nothing is there, or a file is neither picture nor video by its suffix.
        UsageError: A result would overwrite a file that is read.
    """
    found = find_files(names, out)
    sources = []
    taken: set[Path] = set()
    for path, place in found.values():
        output = _free(out / place.with_suffix(_output_suffix(path)), taken)
        taken.add(output)
        if output.resolve() in found:
            raise UsageError(f"--out {out}: {output} is read too and would be overwritten; name another folder")
        sources.append(Source(path, output))
    return tuple(sources)


def find_files(names: Sequence[str], out: Path | None) -> dict[Path, tuple[Path, Path]]:
    """Files that the user named, as `find_sources` does, and their places in the folder of the results, by real path.

    Args:
        names: Files, folders, or patterns with `*`, `?` and `[]`.
        out: File or folder of the results, which is left out; None: there is none.

    Raises:
        UserError: Nothing is there, or a file is neither picture nor video by its suffix.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    for name in names:
        for path, place in _files(name, out):
            found.setdefault(path.resolve(), (path, place))
    return found


def _files(name: str, out: Path | None) -> Iterator[tuple[Path, Path]]:
    """Files that a name stands for, and their places in the folder of the results."""
    path = Path(name)
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if _wanted(file, path, out))
        if not inside:
            raise UserError(f"{name}: there is no picture or video in this folder; known: {_known()}")
        yield from ((file, file.relative_to(path)) for file in inside)
    elif path.is_file():
        if not _readable(path):
            raise UserError(f"{name}: neither a picture nor a video by its suffix; known: {_known()}")
        yield path, Path(path.name)
    elif glob.has_magic(name):
        matches = [Path(match) for match in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207 (absolute ones)
        inside = [file for file in matches if file.is_file() and _readable(file)]
        if not inside:
            raise UserError(f"{name}: no picture or video matches this pattern")
        yield from ((file, Path(file.name)) for file in inside)
    else:
        raise UserError(f"{name}: no such file or folder; check the path")


def _wanted(file: Path, folder: Path, out: Path | None) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    own = out is not None and out.resolve() != folder.resolve() and file.resolve().is_relative_to(out.resolve())
    return not hidden and not own and _readable(file) and file.is_file()


def _readable(file: Path) -> bool:
    return file.suffix.lower() in images.SUFFIXES | video.SUFFIXES


def _output_suffix(path: Path) -> str:
    return video.OUTPUT_SUFFIX if is_video(path) else path.suffix


def _free(path: Path, taken: set[Path]) -> Path:
    number, free = 1, path
    while free in taken:
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _known() -> str:
    return ", ".join(sorted(images.SUFFIXES) + sorted(video.SUFFIXES))
