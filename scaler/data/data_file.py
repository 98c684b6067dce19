"""`data.toml`: where the pictures and labels of a data set lie.

::

    schema_version = 1
    name = "shapes"
    format = "coco"              # coco, voc or yolo
    classes = ["circle", "square"]   # may be missing for coco: then those of train's labels, in the order of their ids

    [train]                      # val and test alike
    pictures = "train"           # folder; paths are relative to this file
    labels = "train.json"        # coco: the JSON file; voc: folder of XML files; yolo: folder of text files
    list = "train.txt"           # optional: the names of the pictures to take, one a line
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from scaler.data import coco, voc, yolo
from scaler.data.dataset import SPLITS, Dataset, Picture, Split, Splits
from scaler.data.findings import Notes
from scaler.data.labels import Labels, Source, is_one_line, pictures_of
from scaler.data.sizes import cache_of
from scaler.errors import FileError
from scaler.files import read_text, read_toml
from scaler.reader import Reader

SCHEMA_VERSION = 1
Format: TypeAlias = Literal["coco", "voc", "yolo"]
FORMATS: Mapping[Format, Callable[[Source, Notes], Labels]] = {"coco": coco.read, "voc": voc.read, "yolo": yolo.read}


def read_splits(path: Path | str, only: Collection[Split] | None = None, *, strict: bool = True) -> Splits:
    """Read the labels that a `data.toml` names. No picture is decoded, and only the splits that are asked for are read.

    Pictures that are not there are left out, boxes are clipped to their pictures, those without an area are dropped:
    `Dataset.findings` tells.

    Args:
        path: The `data.toml`.
        only: The splits to read; all that the file has without.
        strict: Whether labels that cannot be used are raised. Otherwise they are findings, and a split that cannot
            be read has no pictures.

    Raises:
        FileError: The file is malformed or lacks a split; or, if strict, labels are missing or malformed, a class
            is unknown, or a split has no object.
    """
    reader = read_toml(path, schema_version=SCHEMA_VERSION)
    file = Path(path)
    name = reader.string("name", file.resolve().parent.name or "data")
    layout = reader.choice("format", tuple(FORMATS))
    classes = _classes(reader, layout)
    tables = {split: table for split in SPLITS if (table := reader.table(split, None)) is not None}
    sources = {split: _source(table, file, split) for split, table in tables.items()}
    reader.finish()
    wanted = _wanted(reader, tables, only)
    if not classes and "train" in tables and "train" not in wanted:
        classes = _classes_of_train(tables["train"], sources["train"])
    found: dict[Split, Dataset] = {}
    for split in wanted:
        notes = Notes(split, strict=strict)
        source = replace(sources[split], classes=classes)
        names, pictures = _read_split(tables[split], source, FORMATS[layout], notes)
        classes = classes or names
        found[split] = Dataset(name, split, names, pictures, notes.findings())
    return Splits(name, file, classes, found)


def _classes(reader: Reader, layout: Format) -> tuple[str, ...]:
    if layout == "coco" and "classes" not in reader.keys:
        return ()
    classes = reader.strings("classes", at_least=1)
    for i, name in enumerate(classes):
        if name in classes[:i]:
            raise reader.error(f"classes[{i}]", f"{name[:60]!r} stands twice", todo="remove one of them")
        if not is_one_line(name):
            raise reader.error(f"classes[{i}]", f"found {name[:60]!r}", "expected a name on one line", "correct it")
    return classes


def _source(table: Reader, file: Path, split: Split) -> Source:
    names = table.string("list", None)
    return Source(
        data_file=file,
        split=split,
        pictures=file.parent / table.string("pictures"),
        labels=file.parent / table.string("labels"),
        list_file=None if names is None else file.parent / names,
    )


def _wanted(reader: Reader, tables: Mapping[Split, Reader], only: Collection[Split] | None) -> list[Split]:
    if not tables:
        raise reader.error("", "no split", "expected a table [train] or [val]", "add pictures and labels to one")
    wanted = list(tables) if only is None else [split for split in SPLITS if split in only]
    for split in wanted:
        if split not in tables:
            raise reader.error(split, "missing", "expected a table with pictures and labels", "add it")
    return wanted


def _classes_of_train(table: Reader, source: Source) -> tuple[str, ...]:
    """The classes of the training labels, which are not read otherwise."""
    if not source.labels.is_file():
        what = f"no file {source.labels}, which names the classes"
        raise table.error("labels", what, todo="add classes = […] to do without it")
    return coco.class_names(source.labels)


def _read_split(
    table: Reader, source: Source, read: Callable[[Source, Notes], Labels], notes: Notes
) -> tuple[tuple[str, ...], tuple[Picture, ...]]:
    """Classes and pictures of a split."""
    classes, pictures = source.classes, tuple[Picture, ...]()
    try:
        labels = read(_with_list(_existing(table, source, read)), notes)
        classes, pictures = labels.classes, pictures_of(labels, cache_of(source.data_file), notes)
        if not any((~picture.boxes.ignored).any() for picture in pictures) and not notes.refused:
            raise _empty(table, source, pictures, notes)
    except FileError as error:
        notes.refuse(error)
    return classes, pictures


def _existing(table: Reader, source: Source, read: Callable[[Source, Notes], Labels]) -> Source:
    folders = {"pictures": source.pictures}
    if read is not coco.read:
        folders["labels"] = source.labels
    for key, folder in folders.items():
        if not folder.is_dir():
            what = f"{folder} is no folder" if folder.exists() else f"no folder {folder}"
            raise table.error(key, what, todo=f"correct it; it is relative to {source.data_file.name}")
    return source


def _with_list(source: Source) -> Source:
    if source.list_file is None:
        return source
    lines = (line.strip() for line in read_text(source.list_file).splitlines())
    return replace(source, chosen=tuple(line for line in lines if line))


def _empty(table: Reader, source: Source, pictures: tuple[Picture, ...], notes: Notes) -> FileError:
    """The error of a split without an object; says what became of its pictures."""
    counted = {finding.kind: finding for finding in notes.findings()}
    gone = [f"{len(finding.places)} {finding.meaning.title}, {finding.places[0]}" for finding in counted.values()]
    what = f"no picture with labels in {source.labels}; pictures in {source.pictures}: {len(pictures)} without objects"
    return table.error("", "; ".join([what, *gone[:2]]), todo="check pictures, labels and list")
