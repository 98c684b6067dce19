"""Predicts the frame time of a network: table first, then the model fitted to it, then the roofline.

No kernel is ever counted as zero. A device that was measured has its own table and regression; one with published
times has a calibrated device model; any other GPU takes a model carried over to its data sheet, and a CPU must be
measured. Whichever it is, networks that were measured whole on the device correct it.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TypeAlias

from scaler.devices import HOST, Device, Mode, PowerMode, Precision, load_device
from scaler.errors import UnsupportedError, UsageError, UserError
from scaler.graph.graph import Graph
from scaler.latency.calibrated import CalibratedEstimator
from scaler.latency.calibration import CALIBRATED_DEVICES, PRECISION, Calibration
from scaler.latency.corrected import Base, CorrectedEstimator, why_not
from scaler.latency.measured import MeasuredEstimator
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.observed import observed_path, read_observed
from scaler.latency.prediction import KernelSource, Prediction, Sums
from scaler.latency.table import LatencyTable, TableInfo, find_table, list_tables, read_table, table_name
from scaler.latency.transfer import as_estimate, donors, mean_of

__all__ = [
    "Estimator", "KernelSource", "Prediction", "Sums", "load_estimator", "load_uncorrected", "strange_kernels",
    "unmeasured",
]  # fmt: skip

Estimator: TypeAlias = CalibratedEstimator | MeasuredEstimator | CorrectedEstimator


def load_estimator(
    device: str,
    *,
    precision: str | None = None,
    power_mode: str | None = None,
    overhead_ms: float | None = None,
    table: LatencyTable | None = None,
    corrected: bool = True,
) -> Estimator:
    """The best estimator that the tables allow: measured or calibrated where there is a table, else estimated.

    Networks that were measured on the device correct it, unless a table is given or `corrected` says no.

    Args:
        device: Name, alias or path of a device profile.
        precision: Of the engine; the default of the device where None.
        power_mode: The profile's default where None.
        overhead_ms: Replaces the overhead of the protocol.
        table: Used instead of the catalogue's.
        corrected: Whether to use the networks that were measured on the device.

    Raises:
        UsageError: Unknown device or power mode.
        UnsupportedError: The device has no such precision, or is a CPU that nobody measured.
        FileError: The file of the measured networks, or of the table, is malformed.
    """
    base = load_uncorrected(device, precision=precision, power_mode=power_mode, overhead_ms=overhead_ms, table=table)
    if table is not None or not corrected:
        return base
    try:
        path = observed_path(base.device.id, base.device.runtimes[0], base.precision, base.mode.name)
    except UserError:  # no home, so nothing was measured
        return base
    rows = read_observed(path)
    return CorrectedEstimator(base, rows) if any(not why_not(base, row) for row in rows) else base


def load_uncorrected(
    device: str,
    *,
    precision: str | None = None,
    power_mode: str | None = None,
    overhead_ms: float | None = None,
    table: LatencyTable | None = None,
) -> Base:
    """As `load_estimator`, by the tables alone."""
    if overhead_ms is not None and not 0 <= overhead_ms < math.inf:
        raise UsageError(f"the overhead must be 0 ms or more and finite, not {overhead_ms:g}")
    profile = load_device(device)
    wanted = profile.require_precision(precision)
    mode = profile.mode(power_mode)
    runtime = profile.runtimes[0]
    if table is None:
        table = find_table(profile.id, runtime, wanted, mode.name)
    asked = (profile.id, wanted, mode.name)
    fits = table is not None and (table.info.device, table.info.precision, table.info.power_mode) == asked
    if table is not None and fits and isinstance(table.info.model, MeasuredModel):
        measured = _of_this_computer(profile, table.info) if profile.id == HOST else table.info
        return MeasuredEstimator(profile, mode, measured, table.info.model, table.entries, overhead_ms=overhead_ms)
    if not isinstance(mode, PowerMode):
        raise unmeasured(profile, runtime, wanted, mode)
    if table is not None and fits:
        return CalibratedEstimator(
            profile,
            mode,
            wanted,
            table.info.calibration,
            provenance=table.info.provenance,
            entries=table.entries,
            info=table.info,
            overhead_ms=overhead_ms,
        )
    calibration, info = _carried_over(profile, wanted)
    return CalibratedEstimator(
        profile, mode, wanted, calibration, provenance="estimated", info=info, overhead_ms=overhead_ms
    )


def strange_kernels(estimator: Estimator, graph: Graph) -> int | None:
    """How many kernels of a network are of a kind or size that was never measured: their times are guesses.

    Returns:
        0 for a network that was itself measured; None where the times come from no measured table.
    """
    table = estimator.base if isinstance(estimator, CorrectedEstimator) else estimator
    if not isinstance(table, MeasuredEstimator):
        return None
    known = isinstance(estimator, CorrectedEstimator) and estimator.is_observed(graph)
    return 0 if known else table.strange_kernels(graph)


def _of_this_computer(device: Device, info: TableInfo) -> TableInfo:
    """What a table of the computer at hand is of; a runtime of another version than is installed is noted.

    Raises:
        UnsupportedError: It was measured on another computer.
    """
    if info.processor != device.processor:
        raise UnsupportedError(
            f"the latency table of {HOST} was measured on {info.processor}, this computer has {device.processor}; "
            f"measure it: scaler profile run --device {HOST}"
        )
    with suppress(PackageNotFoundError):
        if (installed := version(info.runtime)) != info.runtime_version:
            doubt = f"measured with {info.runtime} {info.runtime_version}, installed is {installed}: measure it anew"
            return replace(info, conditions=(*info.conditions, doubt))
    return info


def unmeasured(device: Device, runtime: str, precision: Precision, mode: Mode) -> UnsupportedError:
    """Compose the error for a device that only a measured table can speak of."""
    other = "" if precision == device.default_precision else f" --precision {precision}"
    other += "" if mode.name == device.default_mode else f" --power-mode {mode.name}"
    known = ", ".join(f"{info.precision} {info.power_mode}" for info in list_tables() if info.device == device.id)
    return UnsupportedError(
        f"no latency table of {device.id} for {runtime} {precision}, {mode.name}"
        f"{f' (there is one for {known})' if known else ''}; "
        f"measure one in about five minutes: scaler profile run --device {device.id}{other}"
    )


def _carried_over(device: Device, precision: Precision) -> tuple[Calibration, TableInfo | None]:
    """A model for what nobody measured: the device's own at another mode or precision, else its like's."""

    def info_of(name: str) -> TableInfo:
        return read_table(table_name(name, "tensorrt", PRECISION)).info

    if device.id in CALIBRATED_DEVICES:
        own = info_of(device.id)
        return as_estimate(own.calibration, precision), own
    likes = donors(device, {name: info_of(name).calibration for name in CALIBRATED_DEVICES})
    return as_estimate(mean_of(likes), precision), None
