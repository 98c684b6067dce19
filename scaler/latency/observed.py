"""Whole networks that were measured on a device: what corrects the predictions of its latency table.

`latency_tables/<device>/<runtime>-<precision>-<mode>.networks.json` in the folder of the user's own data, whatever
table the predictions come from. Verifying, refining and importing add to it; `scaler.latency.corrected` reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from scaler.catalog import user_folder
from scaler.errors import FileError
from scaler.files import Reader, make_folder, read_json, write_atomic
from scaler.latency.table import table_name
from scaler.locks import locked

__all__ = ["How", "Observed", "Value", "observed_path", "read_observed", "record_observed"]

SCHEMA_VERSION = 1
KIND = "scaler-observed-networks"
SUFFIX = ".networks.json"
LARGEST_LOG_SD = 1.0

How = Literal["verify", "refine", "import"]
Value = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One network, measured end to end on its device: the engine alone, batch 1."""

    network: str
    """The candidate's id, without a precision: that is the file's."""
    family: str
    params: dict[str, Value]
    """The candidate's parameters, the member of a joined space apart: with `classes` they give the network."""
    classes: int
    engine_ms: float
    """At the speed that the machine had when its latency table was made; as it was timed where it has none."""
    log_sd: float
    """Standard deviation of the logarithm of `engine_ms`: what measuring once more in the same way would scatter by."""
    how: How
    created: str
    """ISO 8601, UTC."""
    reference_ms: float | None = None
    """What the reference network of the table took, to whose speed `engine_ms` was brought; None where the time is as
    it was timed. A time brought to the speed of another table than the one at hand does not count."""


def observed_path(device: str, runtime: str, precision: str, mode: str) -> Path:
    """Where the observed networks of a setting are kept.

    Args:
        device: Id of the device.
        runtime: `onnxruntime` or `tensorrt`.
        precision: Of the engines.
        mode: Name of the power mode, or of a CPU's number of threads.

    Raises:
        UserError: No folder is set and this user has no home.
    """
    name = table_name(device, runtime, precision, mode)
    return user_folder() / "latency_tables" / f"{name}{SUFFIX}"


def record_observed(path: Path, rows: Iterable[Observed]) -> None:
    """Add measured networks to a file, which is made where there is none; of each network the newest stays.

    Raises:
        UserError: The file cannot be written, or is none of ours.
    """
    make_folder(path.parent)
    with locked(path):
        known = {(row.network, row.classes): row for row in read_observed(path)}
        for row in rows:
            before = known.get((row.network, row.classes))
            if before is None or row.created >= before.created:
                known[row.network, row.classes] = row
        content = {"schema_version": SCHEMA_VERSION, "kind": KIND, "networks": [asdict(row) for row in known.values()]}
        write_atomic(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_observed(path: Path) -> tuple[Observed, ...]:
    """The measured networks of a file, in the order in which they were first measured; none where there is no file.

    Raises:
        FileError: The file is cut off or of another kind, or a time is not a positive number.
    """
    if not path.exists():
        return ()
    try:
        reader = read_json(path, schema_version=SCHEMA_VERSION)
        reader.choice("kind", (KIND,))
        rows = tuple(_row(table) for table in reader.tables("networks"))
        reader.finish()
    except FileError as error:
        todo = "delete it to predict without the networks that were measured"
        raise FileError(error.file, error.where, error.what, error.allowed, todo) from None
    return rows


def _row(reader: Reader) -> Observed:
    level = reader.raw("reference_ms", None)
    row = Observed(
        network=reader.string("network"),
        family=reader.string("family"),
        params=_params(reader),
        classes=reader.integer("classes", minimum=1),
        engine_ms=reader.number("engine_ms", minimum=1e-6),
        log_sd=reader.number("log_sd", minimum=0, maximum=LARGEST_LOG_SD),
        how=reader.choice("how", get_args(How)),
        created=reader.string("created"),
        reference_ms=None if level is None else reader.number("reference_ms", minimum=1e-6),
    )
    reader.finish()
    return row


def _params(reader: Reader) -> dict[str, Value]:
    raw = reader.raw("params")
    if not isinstance(raw, Mapping) or not all(isinstance(value, get_args(Value)) for value in raw.values()):
        raise reader.error("params", "no parameters", "expected a table of texts, numbers and true or false")
    return dict(raw)
