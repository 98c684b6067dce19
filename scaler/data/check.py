"""Everything that can be wrong with a data set, found before it is trained on."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from scaler.data.dataset import Dataset, FloatArray, IntArray, Picture, Splits
from scaler.data.findings import MEANINGS, Finding, Kind
from scaler.data.images import BrokenPictureError, decode, picture_size, read_bytes
from scaler.data.labels import placed

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many pictures of how many are looked at."""

SMALL, MEDIUM = 32**2, 96**2
"""Areas in pixels of the picture below which COCO calls an object small, or medium."""
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Bounds of the histogram of sides: the root of the box's area over that of the picture."""
_THREADS = 2 * (os.cpu_count() or 1)  # each waits for the disk half of its time


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What a split holds."""

    split: str
    pictures: int
    objects: int
    ignored: int
    """Boxes that are neither trained on nor judged."""
    without_objects: int
    """Pictures."""
    class_objects: tuple[int, ...]
    """Of each class."""
    class_pictures: tuple[int, ...]
    """Pictures with at least one object of each class."""
    coco_sizes: tuple[int, int, int]
    """Objects that are small, medium and large by COCO's areas, in pixels of the pictures."""
    shares: tuple[int, ...]
    """Objects by their side as a share of the picture's: below, between and above `SHARES`."""
    picture_sides: tuple[int, int, int]
    """Smallest, median and largest longer side of the pictures in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found in a data set."""

    name: str
    file: Path
    classes: tuple[str, ...]
    summaries: tuple[Summary, ...]
    findings: tuple[Finding, ...]
    """The gravest first."""
    decoded: bool
    """Whether the pictures were decoded, or their headers read only."""

    @property
    def usable(self) -> bool:
        """Whether it can be trained on or evaluated with as it is."""
        return not any(finding.meaning.severity == "error" for finding in self.findings)

    def as_data(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "name": self.name,
            "file": str(self.file),
            "usable": self.usable,
            "decoded": self.decoded,
            "classes": list(self.classes),
            "splits": {summary.split: self._split(summary) for summary in self.summaries},
            "findings": [
                {
                    "kind": finding.kind,
                    "severity": finding.meaning.severity,
                    "split": finding.split or None,
                    "count": len(finding.places),
                    "places": list(finding.places),
                }
                for finding in self.findings
            ],
        }

    def _split(self, summary: Summary) -> dict[str, Any]:
        return {
            "pictures": summary.pictures,
            "objects": summary.objects,
            "ignored": summary.ignored,
            "pictures_without_objects": summary.without_objects,
            "objects_of_class": dict(zip(self.classes, summary.class_objects, strict=True)),
            "pictures_with_class": dict(zip(self.classes, summary.class_pictures, strict=True)),
            "coco_sizes": dict(zip(("small", "medium", "large"), summary.coco_sizes, strict=True)),
            "side_shares": {"bounds": list(SHARES), "counts": list(summary.shares)},
            "picture_sides": dict(zip(("smallest", "median", "largest"), summary.picture_sides, strict=True)),
        }


def check(splits: Splits, *, quick: bool = False, threads: int = _THREADS, progress: Progress | None = None) -> Report:
    """Look at every picture and box of a data set.

    Args:
        splits: Read with `strict=False`, so that everything wrong is listed, not only the first.
        quick: Whether to read the headers of the pictures only; otherwise each is decoded.
        threads: That decode.
        progress: Told of every few pictures.
    """
    datasets = list(splits.splits.values())
    looks = _look_at([picture for dataset in datasets for picture in dataset.pictures], quick, threads, progress)
    findings = [finding for dataset in datasets for finding in dataset.findings]
    start = 0
    for dataset in datasets:
        own = looks[start : start + len(dataset.pictures)]
        findings += _of_pictures(dataset, own) + _of_boxes(dataset, splits.classes)
        start += len(own)
    findings += _of_copies(datasets, looks)
    return Report(
        name=splits.name,
        file=splits.file,
        classes=splits.classes,
        summaries=tuple(summary(dataset, len(splits.classes)) for dataset in datasets),
        findings=tuple(sorted(_merged(findings), key=lambda finding: list(MEANINGS).index(finding.kind))),
        decoded=not quick,
    )


def summary(dataset: Dataset, classes: int) -> Summary:
    """Count what a split holds."""
    owners, labels, corners, ignored = _columns(dataset)
    sides = np.array([(picture.width, picture.height) for picture in dataset.pictures], np.float64).reshape(-1, 2)
    trained = ~ignored
    areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)[trained]
    shares = np.sqrt(areas / np.maximum(sides.prod(axis=1)[owners[trained]], 1))
    pairs = np.unique(np.stack([owners[trained], labels[trained]], axis=1), axis=0)
    small, medium, large = _counts(np.digitize(areas, (SMALL, MEDIUM)), 3)
    longest = np.sort(sides.max(axis=1)) if len(sides) else np.zeros(1)
    return Summary(
        split=dataset.split,
        pictures=len(dataset.pictures),
        objects=int(trained.sum()),
        ignored=int(ignored.sum()),
        without_objects=len(dataset.pictures) - len(np.unique(owners[trained])),
        class_objects=_counts(labels[trained], classes),
        class_pictures=_counts(pairs[:, 1], classes),
        coco_sizes=(small, medium, large),
        shares=_counts(np.digitize(shares, SHARES), len(SHARES) + 1),
        picture_sides=(int(longest[0]), int(longest[len(longest) // 2]), int(longest[-1])),
    )


class _Look(NamedTuple):
    """What a picture's file is like."""

    problem: str = ""
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""
    length: int = 0


def _look_at(pictures: Sequence[Picture], quick: bool, threads: int, progress: Progress | None) -> list[_Look]:
    """Look at all pictures, in their order; a file that several splits have is looked at once."""
    paths = list(dict.fromkeys(picture.path for picture in pictures))
    found: dict[Path, _Look] = {}
    pool = ThreadPoolExecutor(max(1, threads))
    try:
        for path, look in zip(paths, pool.map(_glance if quick else _study, paths), strict=True):
            found[path] = look
            if progress is not None:
                progress(len(found), len(paths))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)  # Ctrl-C does not wait for the others
    if quick:
        found |= _digested(found)
    return [found[picture.path] for picture in pictures]


def _study(path: Path) -> _Look:
    """Read and decode a picture."""
    try:
        content = read_bytes(path)
        height, width = decode(content, path).shape[:2]
    except BrokenPictureError as error:
        return _Look(error.reason)
    return _Look("", (width, height), _digest(content), len(content))


def _glance(path: Path) -> _Look:
    """Read a picture's header."""
    try:
        return _Look("", picture_size(path), length=path.stat().st_size)
    except BrokenPictureError as error:
        return _Look(error.reason)
    except OSError as error:
        return _Look(str(error.strerror).lower())


def _digested(looks: dict[Path, _Look]) -> dict[Path, _Look]:
    """The whole files of equal length, read for their digests: only those can be copies."""
    counts = Counter(look.length for look in looks.values() if look.length)
    found = {}
    for path, look in looks.items():
        if counts[look.length] > 1:
            try:
                found[path] = look._replace(digest=_digest(read_bytes(path)))
            except BrokenPictureError as error:
                found[path] = _Look(error.reason)
    return found


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _of_pictures(dataset: Dataset, looks: Sequence[_Look]) -> list[Finding]:
    """Corrupt pictures, those of another size, and whether any is left that has objects."""
    corrupt, other, left = [], [], 0
    for picture, look in zip(dataset.pictures, looks, strict=True):
        labelled = (picture.width, picture.height)
        if look.problem:
            corrupt.append(f"{picture.path}: {look.problem}")
            continue
        left += int((~picture.boxes.ignored).any())
        if look.size != labelled:
            turned = ", turned: the labels follow its EXIF tag" if look.size == labelled[::-1] else ""
            sides = f"{look.size[0]}x{look.size[1]}, labels {labelled[0]}x{labelled[1]}"
            other.append(f"{picture.path}: {sides}{turned}")
    found = [_finding("corrupt-picture", dataset, corrupt), _finding("other-size", dataset, other)]
    if dataset.objects and not left:
        found.append(_finding("unusable", dataset, [f"{dataset.split}: every picture with objects is corrupt"]))
    return found


def _of_boxes(dataset: Dataset, classes: Sequence[str]) -> list[Finding]:
    """Boxes that stand twice, classes and pictures without an object."""
    owners, labels, corners, ignored = _columns(dataset)
    table = np.column_stack([owners, labels, corners])
    order = np.lexsort(table.T)
    again = order[1:][(table[order][1:] == table[order][:-1]).all(axis=1)] if len(order) else order
    doubled = (
        placed(dataset.pictures[owners[row]].path, classes[labels[row]], corners[row]) for row in sorted(again.tolist())
    )
    counts = _counts(labels[~ignored], len(classes))
    absent = [name for name, count in zip(classes, counts, strict=True) if not count] if dataset.pictures else []
    holders = set(owners[~ignored].tolist())
    bare = (str(picture.path) for row, picture in enumerate(dataset.pictures) if row not in holders)
    return [
        _finding("doubled-box", dataset, doubled),
        _finding("absent-class", dataset, absent),
        _finding("no-objects", dataset, bare),
    ]


def _of_copies(datasets: Sequence[Dataset], looks: Sequence[_Look]) -> list[Finding]:
    """Pictures with the same content: twice in a split, or in several."""
    groups: dict[bytes, list[tuple[Dataset, Path]]] = {}
    owners = chain.from_iterable(((dataset, picture.path) for picture in dataset.pictures) for dataset in datasets)
    for owner, look in zip(owners, looks, strict=True):
        if not look.problem and (key := look.digest or str(owner[1]).encode()):
            groups.setdefault(key, []).append(owner)
    copies = [group for group in groups.values() if len(group) > 1]
    leaked = [
        " = ".join(f"{path} ({dataset.split})" for dataset, path in group)
        for group in copies
        if len({dataset.split for dataset, _ in group}) > 1
    ]
    found = [Finding("leaked-picture", "", tuple(leaked))]
    for dataset in datasets:
        own = [[path for owner, path in group if owner is dataset] for group in copies]
        found.append(_finding("doubled-picture", dataset, (" = ".join(map(str, paths)) for paths in own if paths[1:])))
    return found


def _finding(kind: Kind, dataset: Dataset, places: Iterable[str]) -> Finding:
    return Finding(kind, dataset.split, tuple(places))


def _merged(findings: Iterable[Finding]) -> list[Finding]:
    """One finding of a kind and split, the empty ones left out."""
    places: dict[tuple[Kind, str], tuple[str, ...]] = {}
    for finding in findings:
        key = finding.kind, finding.split
        places[key] = places.get(key, ()) + finding.places
    return [Finding(kind, split, found) for (kind, split), found in places.items() if found]


def _columns(dataset: Dataset) -> tuple[IntArray, IntArray, FloatArray, Any]:
    """Picture, class, corners and ignored flag of every box."""
    boxes = [picture.boxes for picture in dataset.pictures]
    if not boxes:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, bool)
    return (
        np.repeat(np.arange(len(boxes)), [len(found) for found in boxes]),
        np.concatenate([found.labels for found in boxes]),
        np.concatenate([found.corners for found in boxes]),
        np.concatenate([found.ignored for found in boxes]),
    )


def _counts(values: IntArray, kinds: int) -> tuple[int, ...]:
    return tuple(np.bincount(values, minlength=kinds).tolist())
