"""What a run writes down while it goes: `metrics.csv`, a row an epoch, and TensorBoard's event files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scaler.errors import FileError, MissingExtraError, UserError
from scaler.files import integer_cell, number_cell, read_csv, write_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One epoch."""

    epoch: int
    """From 1."""
    stage: int
    """From 1."""
    lr: float
    """At the end of the epoch."""
    box: float
    """Parts of the training loss, means over the epoch's pictures."""
    objectness: float
    classes: float
    adversarial: float | None
    """None where the recipe does without."""
    loss: float
    """Their sum."""
    ap: float | None
    """COCO AP on the validation pictures, 0 to 100; None where the epoch was not evaluated."""
    ap50: float | None
    seconds: float
    """Of training, evaluation apart."""
    pictures_per_second: float


COLUMNS = tuple(field.name for field in fields(Row))


def _maybe(text: str) -> float | None:
    return number_cell()(text) if text else None


_CELLS = {
    **dict.fromkeys(("epoch", "stage"), integer_cell(1)),
    **dict.fromkeys(("lr", "box", "objectness", "classes", "loss", "seconds", "pictures_per_second"), number_cell()),
    **dict.fromkeys(("adversarial", "ap", "ap50"), _maybe),
}


def read_metrics(path: Path) -> tuple[Row, ...]:
    """The epochs of a run.

    Raises:
        FileError: The file is missing or malformed.
    """
    found = read_csv(path, {name: _CELLS[name] for name in COLUMNS})
    return tuple(Row(**dict(zip(COLUMNS, cells, strict=True))) for cells in found)


class MetricsFile:
    """`metrics.csv`, written line by line, so that `tail -f` shows it and a kill costs nothing that was written."""

    def __init__(self, path: Path, *, after_epoch: int = 0) -> None:
        """Begin a file, or go on with one.

        Args:
            path: The file.
            after_epoch: Later rows are cut: the run goes on from a checkpoint of this epoch.

        Raises:
            UserError: The file cannot be written, or the one that is there is malformed.
        """
        self.path = path
        kept: tuple[Row, ...] = ()
        if after_epoch and path.exists():
            _drop_cut_line(path)
            kept = read_metrics(path)
        self.rows = [row for row in kept if row.epoch <= after_epoch]
        write_atomic(path, _lines([COLUMNS, *(_cells(row) for row in self.rows)]))

    def add(self, row: Row) -> None:
        """Append an epoch.

        Raises:
            UserError: The disk is full, or the file has gone.
        """
        self.rows.append(row)
        try:
            place = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(place, _lines([_cells(row)]).encode())  # one call: the whole line or nothing
            finally:
                os.close(place)
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {(error.strerror or str(error)).lower()}") from None


def _drop_cut_line(path: Path) -> None:
    """Cut off what a kill has left of a line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(path, "", f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    whole = content[: content.rfind(b"\n") + 1]
    if whole and whole != content:
        write_atomic(path, whole)


def _cells(row: Row) -> tuple[str, ...]:
    return tuple("" if value is None else f"{value:.8g}" for value in astuple(row))


def _lines(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class TensorBoard:
    """Event files for TensorBoard in a run's folder: losses by step, the rest by epoch."""

    def __init__(self, folder: Path, *, after_step: int = 0) -> None:
        """Open a file.

        Args:
            folder: Of the run, beside the files of the runs before a resumption.
            after_step: TensorBoard forgets what those say of later steps, and of epochs with such numbers: they are
                done again.

        Raises:
            MissingExtraError: The package `tensorboard` is not installed.
        """
        require_tensorboard()
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

        self._writer: Any = SummaryWriter(folder, purge_step=after_step + 1 if after_step else None)

    def step(self, step: int, parts: dict[str, float], lr: float) -> None:
        """Write down the losses of one step of the optimiser."""
        for name, value in parts.items():
            self._writer.add_scalar(f"step/{name}", value, step)
        self._writer.add_scalar("step/lr", lr, step)

    def epoch(self, row: Row) -> None:
        """Write down an epoch."""
        for name in COLUMNS[2:]:
            if (value := getattr(row, name)) is not None:
                self._writer.add_scalar(f"epoch/{name}", value, row.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def require_tensorboard() -> None:
    """Refuse early.

    Raises:
        MissingExtraError: The package `tensorboard` is not installed.
    """
    if find_spec("tensorboard") is None:
        raise MissingExtraError("--tensorboard", "tensorboard", "tensorboard")
