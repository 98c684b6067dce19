"""Latency tables: `latency_tables/<device>/<runtime>-<precision>.csv` with a `.toml` beside it.

A measured table has its power mode in the name too (`host/onnxruntime-fp32-1-thread`), so that one of each can stand
beside a calibrated one, over which it goes.

The CSV has a row a kernel: the key columns, the median time in microseconds, its spread (half width of the 90 %
interval), how many networks it was seen in, and its provenance. The TOML says of what the times are: device,
power mode, runtime, precision, how the table was made, and how wrong it is; for a calibrated table also the device
model behind it, for a measured one the numbers that its estimator needs.
"""

from __future__ import annotations

import json
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
    make_folder,
    number_cell,
    read_csv,
    read_toml,
    write_atomic,
)
from scaler.latency.calibration import PARAMETERS, Calibration
from scaler.latency.energy import EnergyLaw, energy_lines, read_energy
from scaler.latency.fusion import RULES
from scaler.latency.kernel_regression import FEATURES, Hyper
from scaler.latency.kernels import Kernel, KernelOp
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.running_memory import MemoryLaw, memory_lines, read_memory

SCHEMA_VERSION = 1
HELD_OUT = (
    "leave_one_model_out",
    "leave_one_source_out",
    "doubted",
    "leave_one_network_out",
    "leave_one_backbone_out",
    "bifpn",
    "other_protocols",
)
FIGURES = tuple(f"{part}_{figure}" for part in HELD_OUT for figure in ("error", "coverage"))
"""What a calibrated table may say about its errors; see `scaler.latency.build.summary`."""
CROSS_VALIDATION = ("error", "within_10", "coverage", "noise")
"""What a measured table says about its errors: mean error of networks left out, the share of them within 10 %, how many
the 90 % intervals cover, and the mean spread of the measurements themselves."""


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
    model: Calibration | MeasuredModel
    """What gives the kernels that the table lacks, and everything beside kernels."""
    validation: dict[str, float]
    """Errors and coverages in percent by name, from held-out networks."""
    processor: str = ""
    """What computed, by the name that the system gives it; only of measured tables."""
    seconds: float = 0.0
    """What measuring took; only of measured tables."""
    conditions: tuple[str, ...] = ()
    """Under what was measured: clocks, temperature, doubts; only of measured tables."""
    energy: EnergyLaw | None = None
    """Energy of a frame; only of measured tables, where the device's power was read."""
    memory: MemoryLaw | None = None
    """Memory of a running network; only of measured tables, where the runtime or the system tells it."""

    @property
    def calibration(self) -> Calibration:
        """The device model of a table that was fitted to published times."""
        if not isinstance(self.model, Calibration):
            raise TypeError(f"the table {self.name} has no device model")
        return self.model

    @property
    def name(self) -> str:
        """Its name in the catalogue."""
        mode = self.power_mode if isinstance(self.model, MeasuredModel) else None
        return table_name(self.device, self.runtime, self.precision, mode)


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
_MEASURED: dict[str, Any] = {"networks": integer_cell(minimum=1)}
"""What a measured table wants otherwise: its rows were seen in a network."""


def table_name(device: str, runtime: str, precision: str, mode: str | None = None) -> str:
    """Name of a table in the catalogue; a measured one has its power mode in it."""
    suffix = "" if mode is None else f"-{mode.lower().replace(' ', '-')}"
    return f"{device}/{runtime}-{precision}{suffix}"


def find_table(device: str, runtime: str, precision: str, mode: str) -> LatencyTable | None:
    """The table for a setting, shipped or the user's: the measured one, else the calibrated one, else None."""
    known = names("latency_tables")
    for name in (table_name(device, runtime, precision, mode), table_name(device, runtime, precision)):
        if name in known:
            return read_table(name)
    return None


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
    measured = isinstance(info.model, MeasuredModel)
    columns = _KEY | _VALUES | (_MEASURED if measured else {})
    for line, row in enumerate(read_csv(rows_path, columns), start=2):
        kernel = Kernel(*row[:width])
        if kernel in entries:
            raise FileError(rows_path, f"line {line}", "this kernel stands twice", todo="keep one of the two rows")
        entries[kernel] = Entry(*row[width:])
    if measured and not entries:
        raise FileError(rows_path, "", "no rows", "expected the measured kernels", "measure the device again")
    return LatencyTable(info=info, entries=entries)


def list_tables() -> list[TableInfo]:
    """What every table of the catalogue is of."""
    paths = [find("latency_tables", name) for name in names("latency_tables")]
    return [_read_info(read_toml(path, schema_version=SCHEMA_VERSION)) for path in paths]


def _read_info(reader: Reader) -> TableInfo:
    provenance = cast("Provenance", reader.choice("provenance", get_args(Provenance)))
    validation = reader.table("validation")
    measured = provenance == "measured" or "model" in reader.keys  # a transferred table has a model too
    info = TableInfo(
        device=reader.string("device"),
        power_mode=reader.string("power_mode"),
        runtime=reader.choice("runtime", tuple(RULES)),
        runtime_version=reader.string("runtime_version"),
        precision=cast("Precision", reader.choice("precision", get_args(Precision))),
        batch=reader.integer("batch", minimum=1),
        provenance=provenance,
        created=reader.string("created"),
        method=reader.string("method"),
        networks=reader.integer("networks", minimum=0),
        sources=reader.strings("sources"),
        model=_read_measured(reader.table("model")) if measured else _read_calibration(reader),
        validation={
            name: validation.number(name, minimum=0.0)
            for name in (CROSS_VALIDATION if measured else FIGURES)
            if measured or name in validation.keys or name.startswith("leave_one_model_out")
        },
        processor=reader.string("processor") if measured else "",
        seconds=reader.number("seconds", minimum=0) if measured else 0.0,
        conditions=reader.strings("conditions") if measured else (),
        energy=read_energy(reader.table("energy", None)) if measured else None,
        memory=read_memory(reader.table("memory", None)) if measured else None,
    )
    reader.finish()
    return info


def _read_calibration(reader: Reader) -> Calibration:
    parameters = reader.table("parameters")
    if missing := [name for name in PARAMETERS if name not in parameters.keys]:
        raise reader.error(
            "parameters",
            f"without {', '.join(missing)}: of a device model of an older version",
            todo="build the table again: scaler tables build",
        )
    return Calibration(
        theta=np.array([parameters.number(name) for name in PARAMETERS]),
        covariance=_read_covariance(reader),
        residual_sd=reader.number("residual_sd", minimum=0.0),
        engine_sd=reader.number("engine_sd", minimum=0.0),
        largest_macs=reader.number("largest_gmacs", minimum=1e-6) * 1e9,
    )


def _read_measured(reader: Reader) -> MeasuredModel:
    groups = reader.table("groups")
    return MeasuredModel(
        hypers={name: _read_hyper(groups.table(name)) for name in groups.keys},
        factor=reader.number("factor", minimum=1e-3, maximum=1e3),
        exponent=reader.number("exponent", minimum=0.5, maximum=2.0),
        constant_ms=reader.number("constant_ms", minimum=0),
        residual_log_sd=reader.number("residual_log_sd", minimum=1e-6),
        kernel_share=reader.number("kernel_share", minimum=0, maximum=1),
        reference=_read_reference(reader),
        reference_ms=reader.number("reference_ms", minimum=1e-6),
    )


def _read_reference(reader: Reader) -> dict[str, str | int | float | bool]:
    """The parameters of the reference network, whatever they are called."""
    table = reader.table("reference", None)
    found: dict[str, str | int | float | bool] = {}
    for name in () if table is None else table.keys:
        value = table.raw(name) if table is not None else None
        if not isinstance(value, str | int | float | bool):
            raise reader.error(f"reference.{name}", "not a parameter", "expected a text, a number, true or false")
        found[name] = value
    return found


def _read_hyper(reader: Reader) -> Hyper:
    lengths = reader.numbers("lengths", minimum=1e-3, maximum=1e3)
    if len(lengths) != len(FEATURES):
        raise reader.error("lengths", f"{len(lengths)} numbers", f"expected {len(FEATURES)}: {', '.join(FEATURES)}")
    amplitude, noise = (reader.number(name, minimum=1e-4, maximum=1e2) for name in ("amplitude", "noise"))
    return Hyper(amplitude, noise, lengths)


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
    path = folder / f"{table.info.name}.toml"
    make_folder(path.parent)
    write_atomic(path.with_suffix(".csv"), _csv(table.entries.items()))
    write_atomic(path, _toml(table.info))
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
    measured = isinstance(info.model, MeasuredModel)
    made_by = "scaler profile run" if measured else "scaler tables build"
    lines = [
        f"# A latency table; `{made_by}` writes it, scaler/latency/table.py explains it.",
        f"schema_version = {SCHEMA_VERSION}",
        *(f"{name} = {_quoted(getattr(info, name))}" for name in strings),
        f"batch = {info.batch}",
        f"networks = {info.networks}",
        f"sources = {_listed(info.sources)}",
        *(_of_measured(info) if measured else []),
        *(_measured_model(info.model) if isinstance(info.model, MeasuredModel) else _calibration(info.model)),
        "",
        "[validation] # percent, on networks that the fit had not seen",
        *(f"{name} = {value:.3g}" for name, value in info.validation.items()),
        *energy_lines(info.energy),
        *memory_lines(info.memory),
    ]
    return "\n".join(lines) + "\n"


def _of_measured(info: TableInfo) -> list[str]:
    return [
        f"processor = {_quoted(info.processor)}",
        f"seconds = {info.seconds:.1f}",
        f"conditions = {_listed(info.conditions)}",
    ]


def _calibration(model: Calibration) -> list[str]:
    lower = model.covariance[np.tril_indices(len(PARAMETERS))]
    return [
        f"residual_sd = {model.residual_sd:.6g}",
        f"engine_sd = {model.engine_sd:.6g}",
        f"largest_gmacs = {model.largest_macs / 1e9:.6g}",
        f"covariance = [{', '.join(f'{value + 0.0:.6g}' for value in lower)}]",
        "",
        "[parameters] # logarithms of the positive ones; see scaler/latency/device_model.py and protocol.py",
        *(f"{n} = {v + 0.0:.8g}" for n, v in zip(PARAMETERS, model.theta, strict=True)),
    ]


def _measured_model(model: MeasuredModel) -> list[str]:
    lines = [
        "",
        "[model] # see scaler/latency/measured_model.py; the rows of the table are the regression's data",
        f"factor = {model.factor:.6g}",
        f"exponent = {model.exponent:.6g}",
        f"constant_ms = {model.constant_ms:.6g}",
        f"residual_log_sd = {model.residual_log_sd:.4g}",
        f"kernel_share = {model.kernel_share:.4g}",
        f"reference_ms = {model.reference_ms:.6g}",
        f"reference = {{ {', '.join(f'{name} = {_value(value)}' for name, value in model.reference.items())} }}",
        "",
        f"[model.groups] # lengths: {', '.join(FEATURES)}",
    ]
    for name, hyper in sorted(model.hypers.items()):
        lengths = ", ".join(f"{length:.4g}" for length in hyper.lengths)
        fields = f"amplitude = {hyper.amplitude:.4g}, noise = {hyper.noise:.4g}, lengths = [{lengths}]"
        lines.append(f"{_quoted(name)} = {{ {fields} }}")
    return lines


def _value(value: str | int | float | bool) -> str:
    """A parameter as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return _quoted(value) if isinstance(value, str) else repr(value)


def _listed(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(_quoted, texts))}]"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # JSON leaves DEL as it is
