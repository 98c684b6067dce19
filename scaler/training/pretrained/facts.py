"""What must be known of weights beside their numbers, and the folder where imported ones lie. Needs no torch."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaler.catalog import user_folder
from scaler.data.preprocessing import RGB3
from scaler.errors import UsageError, UserError
from scaler.files import read_toml, write_atomic
from scaler.graph.ops import PaddingStyle
from scaler.reader import Reader
from scaler.training.pretrained.catalogue import PADDINGS

SCHEMA_VERSION = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Conditions under which the numbers of a file are right."""

    format: str
    """Whose names it has: `torchvision`, `timm`, `efficientnet-pytorch`, `keras`, or `scaler` for a checkpoint."""
    network: str
    """What it is of, in words."""
    mean: RGB3
    """Of each channel, for pictures from 0 to 1."""
    std: RGB3
    padding: PaddingStyle
    """Of the strided convolutions: `same` is TensorFlow's."""
    epsilon: float
    """Of the batch normalisation."""
    notes: tuple[str, ...] = ()
    """What is assumed rather than known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Weights in the user's folder."""

    name: str
    file: Path
    sha256: str
    source: str
    """The file that they were imported from."""
    url: str
    """Where their publisher has them; empty where scaler does not know."""
    imported: str
    """ISO 8601, UTC."""
    facts: Facts


def weights_folder() -> Path:
    """Where imported weights lie, which need not exist.

    Raises:
        UserError: This user has no home and SCALER_DATA_DIR is not set.
    """
    return user_folder() / "weights"


def imported() -> dict[str, Imported]:
    """All imported weights by name.

    Raises:
        FileError: The facts of one are damaged; one line.
    """
    return {path.stem: _read(path) for path in sorted(weights_folder().glob("*.toml"))}


def check_name(name: str) -> str:
    """Return a name that a file may have.

    Raises:
        UsageError: It has other signs than letters, digits, points, hyphens and underscores.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for weights: letters, digits, '.', '-' and '_'; choose one with --name")
    return name


def keep(entry: Imported, data: bytes) -> None:
    """Write the weights, then their facts, whole or not at all.

    Raises:
        UserError: The folder cannot be made or written.
    """
    folder = entry.file.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(f"cannot make the folder {folder}: {reason}; set SCALER_DATA_DIR to another") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"cannot write into {folder}: permission denied; set SCALER_DATA_DIR to another folder")
    write_atomic(entry.file, data)
    write_atomic(folder / f"{entry.name}.toml", _toml(entry))


def _toml(entry: Imported) -> str:
    facts = entry.facts
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "file": entry.file.name,
        "sha256": entry.sha256,
        "source": entry.source,
        "url": entry.url,
        "imported": entry.imported,
        "format": facts.format,
        "network": facts.network,
        "mean": list(facts.mean),
        "std": list(facts.std),
        "padding": facts.padding,
        "epsilon": facts.epsilon,
        "notes": list(facts.notes),
    }
    return "".join(f"{key} = {_value(value)}\n" for key, value in values.items() if value != "")


def _value(value: object) -> str:
    """A text, number or list as TOML."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(_CONTROLS.sub(" ", value), ensure_ascii=False) if isinstance(value, str) else repr(value)


def _read(path: Path) -> Imported:
    reader = read_toml(path, schema_version=SCHEMA_VERSION)
    entry = Imported(
        name=path.stem,
        file=path.parent / Path(reader.string("file")).name,
        sha256=reader.string("sha256"),
        source=reader.string("source", ""),
        url=reader.string("url", ""),
        imported=reader.string("imported"),
        facts=Facts(
            format=reader.string("format"),
            network=reader.string("network"),
            mean=_rgb(reader, "mean"),
            std=_rgb(reader, "std"),
            padding=reader.choice("padding", PADDINGS),
            epsilon=reader.number("epsilon", minimum=0),
            notes=reader.strings("notes", ()),
        ),
    )
    reader.finish()
    return entry


def _rgb(reader: Reader, key: str) -> RGB3:
    found = reader.numbers(key, at_least=3)
    return found[0], found[1], found[2]
