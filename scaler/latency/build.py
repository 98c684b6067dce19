"""Makes the shipped tables: fits a device to the published measurements and tabulates its kernels."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np

from scaler.devices import load_device
from scaler.latency.calibration import arithmetic
from scaler.latency.device_model import hardware, kernel_ms_and_gradients, work_of
from scaler.latency.fusion import graph_kernels
from scaler.latency.kernels import Kernel
from scaler.latency.prediction import Z_90
from scaler.latency.table import Entry, LatencyTable, TableInfo
from scaler.latency.validation import CrossValidation, DeviceReport

METHOD = (
    "device model fitted to published times (scaler/latency/calibration.py); every time in the table is calculated by "
    "it, none was measured kernel by kernel"
)
RUNTIME_VERSIONS = {
    "Maxwell": "not stated by all sources (JetPack 4.4 to 4.6 by their dates)",
    "Pascal": "JetPack 4.6 for most times, 3.2 for some",
    "Volta": "not stated by all sources (JetPack 4.4 to 5.1 by their dates)",
    "Ampere": "not stated by all sources (JetPack 5 and 6)",
}
"""By the architecture of the GPU, which decides what JetPack can be installed."""


def build_table(report: DeviceReport) -> LatencyTable:
    """The calibrated table of the kernels of all published networks that were fitted or compared."""
    device, data, calibration = load_device(report.device), report.problem, report.calibration
    seen = Counter[Kernel]()
    for graph in {row.graph.name: row.graph for row in data.rows}.values():
        seen.update(set(graph_kernels(graph)))
    kernels = sorted(seen)
    rates = hardware(device.gpu_mode(), arithmetic(device, report.precision))
    ms, gradients = kernel_ms_and_gradients(work_of(kernels), calibration.engine, rates)
    engine_covariance = calibration.covariance[: gradients.shape[1], : gradients.shape[1]]
    spread = Z_90 * np.sqrt(np.einsum("ij,jk,ik->i", gradients, engine_covariance, gradients))
    info = TableInfo(
        device=device.id,
        power_mode=device.mode().name,
        runtime="tensorrt",
        runtime_version=RUNTIME_VERSIONS[device.require_gpu().architecture],
        precision=report.precision,
        batch=1,
        provenance="calibrated",
        created=datetime.now(UTC).date().isoformat(),
        method=METHOD,
        networks=len({row.group for row in data.rows if row.fitted}),
        sources=tuple(dict.fromkeys(row.source for row in data.rows)),
        model=calibration,
        validation=summary(report),
    )
    entries = {
        kernel: Entry(float(t) * 1e3, float(s) * 1e3, seen[kernel], "calibrated")
        for kernel, t, s in zip(kernels, ms, spread, strict=True)
    }
    return LatencyTable(info=info, entries=entries)


def parts(report: DeviceReport) -> dict[str, CrossValidation]:
    """What a table says about its errors, by name.

    The model and source left out count the rows that are believed; those doubted for a stated reason stand apart.
    Where the paper has no detectors, networks and backbones left out are those of the other sources.
    """
    models = report.leave_one_model_out
    detectors = bool(report.leave_one_network_out.rows)
    return {
        "leave_one_model_out": models.believed,
        "leave_one_source_out": report.leave_one_source_out.believed,
        "doubted": models.doubted,
        "leave_one_network_out": report.leave_one_network_out if detectors else models.believed,
        "leave_one_backbone_out": report.leave_one_backbone_out if detectors else models.believed,
        "bifpn": report.bifpn,
        "other_protocols": report.other.believed,
    }


def summary(report: DeviceReport) -> dict[str, float]:
    """Errors and coverages of a report in percent, by name; a part without rows has none."""
    figures: dict[str, float] = {}
    for name, part in parts(report).items():
        if part.rows:
            figures[f"{name}_error"] = 100 * part.mean_error
            figures[f"{name}_coverage"] = 100 * part.coverage
    return figures
