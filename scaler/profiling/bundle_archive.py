"""Opens what came from a device without trusting it.

An archive may climb out of its folder, hold links and devices, lie about sizes or unpack to terabytes; checksums beside
the files tell damage.
"""

from __future__ import annotations

import gzip
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from scaler.errors import FileError

__all__ = ["FOLDER", "strict_text", "unpacked", "verified"]

FOLDER = "scaler-results"
"""Folder that results unpack to."""

_SUMS = "SHA256SUMS"
_NAME = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}"
_MEMBER = re.compile(rf"{FOLDER}/(?:networks/{_NAME}/)?{_NAME}")
_DIRECTORY = re.compile(rf"{FOLDER}(?:/networks(?:/{_NAME})?)?/?")
_SUM = re.compile(rf"([0-9a-f]{{64}}) [ *]({_NAME})")
_LARGEST_FILE = 256 * 2**20
_LARGEST_ALL = 8 * 2**30
_MOST_FILES = 200_000
_BLOCK = 2**20
_LONGEST_CHECKSUM_FILE = 4096
_DAMAGE = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError, OverflowError, RecursionError)
_AGAIN = "copy it from the device again"


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The folder of the results, unpacked for the time being where an archive is given.

    Args:
        path: `results.tar.gz`, what it unpacks to, the device's `results` folder, or a folder that has one of these.

    Raises:
        FileError: There is no such file, or it is no archive of results, damaged or dangerous.
    """
    if path.is_dir():
        yield _results_in(path)
        return
    _check_sum_beside(path)
    with TemporaryDirectory(prefix="scaler-import-") as place:
        _extract(path, Path(place))
        yield Path(place) / FOLDER


def verified(folder: Path) -> dict[str, bytes]:
    """The files of a folder that its checksums list, by name; others are not looked at.

    Raises:
        FileError: The list is missing, or a file is missing, changed, a link, or far too large.
    """
    contents: dict[str, bytes] = {}
    for line in _regular(folder / _SUMS).decode("utf-8", "replace").splitlines():
        found = _SUM.fullmatch(line)
        if not found or found[2] in contents:
            raise FileError(_SUMS, "", "damaged", todo=_AGAIN)
        digest, name = found.groups()
        contents[name] = _regular(folder / name)
        if sha256(contents[name]).hexdigest() != digest:
            raise FileError(name, "", "differs from its checksum", todo=_AGAIN)
    if not contents:
        raise FileError(_SUMS, "", "empty", todo=_AGAIN)
    return contents


def _regular(path: Path) -> bytes:
    try:
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
            what = "a link" if path.is_symlink() else "missing"
            raise FileError(path.name, "", what, todo=_AGAIN)
        with path.open("rb") as stream:
            content = stream.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise FileError(path.name, "", f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(content) > _LARGEST_FILE:
        raise FileError(path.name, "", f"larger than {_LARGEST_FILE // 2**20} MiB", todo=_AGAIN)
    return content


def _results_in(path: Path) -> Path:
    for folder in (path, path / FOLDER, path / "results"):
        if (folder / "run.json").is_file():
            return folder
    raise FileError(path, "", "no results of a bundle", "expected results.tar.gz or the folder of results", "name it")


def _check_sum_beside(path: Path) -> None:
    """Compare an archive with the checksum that was written beside it, if that came along."""
    beside = path.with_name(f"{path.name}.sha256")
    if not beside.is_file():
        return
    try:
        with beside.open("rb") as stream:
            wanted = stream.read(_LONGEST_CHECKSUM_FILE).decode("ascii", "replace").partition(" ")[0]
        digest = sha256()
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from None
    if digest.hexdigest() != wanted.strip():
        raise FileError(path, "", f"differs from its checksum in {beside.name}", todo="copy both from the device again")


class _Bounded(gzip.GzipFile):
    """A gzip stream that gives neither more in all nor more at once than results can have."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_FILE or self.tell() + size > _LARGEST_ALL + _BLOCK:
            raise tarfile.ReadError("too large")
        return super().read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence > 1 or offset > _LARGEST_ALL:  # 1 is what tell() asks with
            raise tarfile.ReadError("too large")
        return super().seek(offset, whence)


def _extract(path: Path, place: Path) -> None:
    """Unpack the regular files of an archive of results; read it to its end, where its checksum stands."""
    try:
        with _Bounded(path, "rb") as stream:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                _extract_members(path, archive, place)
            while stream.read(_BLOCK):
                pass
    except (
        tarfile.TarError,
        gzip.BadGzipFile,
        EOFError,
        zlib.error,
        ValueError,
        RecursionError,
        OverflowError,
    ) as error:
        what = f"no whole archive of results: {str(error).lower() or 'damaged'}"
        raise FileError(path, "", what, "expected results.tar.gz of measure.sh", _AGAIN) from None
    except OSError as error:
        raise _unreadable(path, error) from None
    if not (place / FOLDER).is_dir():
        raise FileError(path, "", "no archive of results", "expected results.tar.gz of measure.sh", "name it")


def _extract_members(path: Path, archive: tarfile.TarFile, place: Path) -> None:
    total = 0
    for number, member in enumerate(archive):
        if member.isdir() and _DIRECTORY.fullmatch(member.name):
            continue
        if not member.isreg() or not _MEMBER.fullmatch(member.name):
            kind = "a file" if member.isreg() else "a link, device or folder"
            raise FileError(
                path, "", f"holds {kind} that results do not have, {member.name[:80]!r}", todo="name another"
            )
        total += member.size
        if member.size > _LARGEST_FILE or total > _LARGEST_ALL or number > _MOST_FILES:
            raise FileError(path, "", "unpacks to more than results can be", todo="name another file")
        target = place / member.name
        target.parent.mkdir(parents=True, exist_ok=True)
        source = archive.extractfile(member)
        if source is None or target.exists():
            raise FileError(path, "", f"holds {member.name!r} twice", todo=_AGAIN)
        with source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy, _BLOCK)


def _unreadable(path: Path, error: OSError) -> FileError:
    reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
    return FileError(path, "", reason, todo="check the path")


def strict_text(files: Mapping[str, bytes], name: str) -> str:
    """A file that must be there and be text."""
    if name not in files:
        raise FileError(name, "", "missing")
    try:
        return files[name].decode()
    except UnicodeDecodeError:
        raise FileError(name, "", "not UTF-8") from None
