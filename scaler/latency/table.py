"""Latency tables: `latency_tables/<device>/<runtime>-<precision>.csv` with a `.toml` beside it.

The CSV has a row a kernel: the key columns, the median time in microseconds, its spread (half width of the 90 %
interval), how many networks it was seen in, and its provenance. The TOML says of what the times are: device,
power mode, runtime, precision, how the table was made, and how wrong it is; for a calibrated table also the device
model behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import numpy as np

from scaler.catalog import find, names
from scaler.devices import Precision, Provenance
from scaler.errors import FileError
from scaler.files import (
    Reader,
    choice_cell,
    integer_cell,
    number_cell,
    read_csv,
    read_toml,
    write_atomic,
)
from scaler.latency.calibration import PARAMETERS, Calibration
from scaler.latency.kernels import Kernel, KernelOp

SCHEMA_VERSION = 1
HELD_OUT = ("leave_one_network_out", "leave_one_backbone_out", "bifpn", "other_protocols")
FIGURES = tuple(f"{part}_{figure}" for part in HELD_OUT for figure in ("error", "coverage"))
"""What a table says about its errors; see `scaler.latency.validation.DeviceReport`."""


class Entry(NamedTuple):
    """The time of one kernel."""

    latency_us: float
    spread_us: float
    """Half width of the 90 % interval."""
    networks: int
    """How many measured networks launch it."""
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TableInfo:
    """What the times of a table are of, and how wrong they are."""

    device: str
    power_mode: str
    runtime: str
    runtime_version: str
    precision: Precision
    batch: int
    provenance: Provenance
    created: str
    """ISO date."""
    method: str
    """One sentence: how the table was made."""
    networks: int
    """Measured networks behind it."""
    sources: tuple[str, ...]
    calibration: Calibration
    validation: dict[str, float]
    """Errors and coverages in percent by name, from held-out networks."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LatencyTable:
    """Kernel times of one device, runtime and precision."""

    info: TableInfo
    entries: dict[Kernel, Entry]


_KEY: dict[str, Any] = {
    "op": choice_cell(get_args(KernelOp)),
    **dict.fromkeys(
        ("kernel", "stride", "groups", "c_in", "c_out", "h_in", "w_in", "h_out", "w_out"),
        integer_cell(minimum=1),
    ),
    "activation": str,
    "inputs": integer_cell(minimum=1),
}
_VALUES: dict[str, Any] = {
    "latency_us": number_cell(minimum=1e-3),
    "spread_us": number_cell(minimum=0.0),
    "networks": integer_cell(minimum=0),
    "provenance": choice_cell(get_args(Provenance)),
}


def table_name(device: str, runtime: str, precision: str) -> str:
    """Name of a table in the catalogue."""
    return f"{device}/{runtime}-{precision}"


def has_table(device: str, runtime: str, precision: str) -> bool:
    """Whether a table is shipped or in the user's data folder."""
    return table_name(device, runtime, precision) in names("latency_tables")


def read_table(name: str | Path) -> LatencyTable:
    """Read a table by name or by the path of its TOML file.

    Raises:
        UsageError: No table has this name.
        FileError: A file is malformed, or a kernel stands twice.
    """
    path = find("latency_tables", name)
    info = _read_info(read_toml(path, schema_version=SCHEMA_VERSION))
    rows_path = path.with_suffix(".csv")
    entries: dict[Kernel, Entry] = {}
    width = len(_KEY)
    for line, row in enumerate(read_csv(rows_path, _KEY | _VALUES), start=2):
        kernel = Kernel(*row[:width])
        if kernel in entries:
            raise FileError(rows_path, f"line {line}", "this kernel stands twice", todo="keep one of the two rows")
        entries[kernel] = Entry(*row[width:])
    return LatencyTable(info=info, entries=entries)


def list_tables() -> list[TableInfo]:
    """What every table of the catalogue is of."""
    paths = [find("latency_tables", name) for name in names("latency_tables")]
    return [_read_info(read_toml(path, schema_version=SCHEMA_VERSION)) for path in paths]


def _read_info(reader: Reader) -> TableInfo:
    parameters, validation = reader.table("parameters"), reader.table("validation")
    theta = np.array([parameters.number(name) for name in PARAMETERS])
    info = TableInfo(
        device=reader.string("device"),
        power_mode=reader.string("power_mode"),
        runtime=reader.string("runtime"),
        runtime_version=reader.string("runtime_version"),
        precision=cast("Precision", reader.choice("precision", get_args(Precision))),
        batch=reader.integer("batch", minimum=1),
        provenance=cast("Provenance", reader.choice("provenance", get_args(Provenance))),
        created=reader.string("created"),
        method=reader.string("method"),
        networks=reader.integer("networks", minimum=0),
        sources=reader.strings("sources"),
        calibration=Calibration(theta, _read_covariance(reader), reader.number("residual_sd", minimum=0.0)),
        validation={name: validation.number(name, minimum=0.0) for name in FIGURES},
    )
    reader.finish()
    return info


def _read_covariance(reader: Reader) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The lower triangle, row after row."""
    size = len(PARAMETERS)
    values = reader.numbers("covariance")
    if len(values) != size * (size + 1) // 2:
        raise reader.error(
            "covariance",
            f"{len(values)} numbers",
            f"expected the {size * (size + 1) // 2} of a lower triangle",
        )
    matrix = np.zeros((size, size))
    matrix[np.tril_indices(size)] = values
    return np.asarray(matrix + np.tril(matrix, -1).T)


def write_table(table: LatencyTable, folder: Path) -> Path:
    """Write both files below `folder`; returns the path of the TOML file."""
    info = table.info
    path = folder / f"{table_name(info.device, info.runtime, info.precision)}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path.with_suffix(".csv"), _csv(table.entries.items()))
    write_atomic(path, _toml(info))
    return path


def _csv(entries: Iterable[tuple[Kernel, Entry]]) -> str:
    lines = [",".join((*_KEY, *_VALUES))]
    for kernel, entry in entries:
        times = (f"{entry.latency_us:.4g}", f"{entry.spread_us:.3g}")
        lines.append(",".join(map(str, (*kernel, *times, entry.networks, entry.provenance))))
    return "\n".join(lines) + "\n"


def _toml(info: TableInfo) -> str:
    strings = (
        "device",
        "power_mode",
        "runtime",
        "runtime_version",
        "precision",
        "provenance",
        "created",
        "method",
    )
    lower = info.calibration.covariance[np.tril_indices(len(PARAMETERS))]
    lines = [
        "# A latency table; `scaler tables build` writes it, scaler/latency/table.py explains it.",
        f"schema_version = {SCHEMA_VERSION}",
        *(f"{name} = {_quoted(getattr(info, name))}" for name in strings),
        f"batch = {info.batch}",
        f"networks = {info.networks}",
        f"sources = [{', '.join(map(_quoted, info.sources))}]",
        f"residual_sd = {info.calibration.residual_sd:.6g}",
        f"covariance = [{', '.join(f'{value:.6g}' for value in lower)}]",
        "",
        "[parameters] # logarithms of the positive ones; see scaler/latency/device_model.py and protocol.py",
        *(f"{n} = {v:.8g}" for n, v in zip(PARAMETERS, info.calibration.theta, strict=True)),
        "",
        "[validation] # percent, on networks that the fit had not seen",
        *(f"{name} = {value:.3g}" for name, value in info.validation.items()),
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
