"""Makes the shipped tables: fits a device to the published measurements and tabulates its kernels."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np

from scaler.devices import load_device
from scaler.latency.calibration import PRECISION
from scaler.latency.device_model import kernel_ms_and_gradients, work_of
from scaler.latency.fusion import graph_kernels
from scaler.latency.kernels import Kernel
from scaler.latency.prediction import Z_90
from scaler.latency.table import HELD_OUT, Entry, LatencyTable, TableInfo
from scaler.latency.validation import DeviceReport

METHOD = (
    "device model fitted to published frame rates (scaler/latency/calibration.py); every time in the table is "
    "calculated by it, none was measured kernel by kernel"
)
RUNTIME_VERSION = "not stated by the sources (JetPack 4.4 to 4.6 by their dates)"


def build_table(report: DeviceReport) -> LatencyTable:
    """The calibrated table of the kernels of all published networks that were fitted or compared."""
    device, data, calibration = load_device(report.device), report.problem, report.calibration
    seen = Counter[Kernel]()
    for graph in {row.graph.name: row.graph for row in data.rows}.values():
        seen.update(set(graph_kernels(graph)))
    kernels = sorted(seen)
    work = work_of(kernels)
    ms, gradients = kernel_ms_and_gradients(work, calibration.engine, data.rates)
    engine_covariance = calibration.covariance[: gradients.shape[1], : gradients.shape[1]]
    spread = Z_90 * np.sqrt(np.einsum("ij,jk,ik->i", gradients, engine_covariance, gradients))
    info = TableInfo(
        device=device.id,
        power_mode=device.mode().name,
        runtime="tensorrt",
        runtime_version=RUNTIME_VERSION,
        precision=PRECISION,
        batch=1,
        provenance="calibrated",
        created=datetime.now(UTC).date().isoformat(),
        method=METHOD,
        networks=len({row.group for row in data.rows if row.fitted}),
        sources=(
            "YOLO-ReT (WACV 2022), Tables 1 to 5",
            *dict.fromkeys(row.label.partition(":")[0] for row in data.rows if not row.protocol.fixed),
        ),
        model=calibration,
        validation=summary(report),
    )
    entries = {
        kernel: Entry(float(t) * 1e3, float(s) * 1e3, seen[kernel], "calibrated")
        for kernel, t, s in zip(kernels, ms, spread, strict=True)
    }
    return LatencyTable(info=info, entries=entries)


def summary(report: DeviceReport) -> dict[str, float]:
    """Errors and coverages of a report in percent, by name."""
    parts = (report.leave_one_network_out, report.leave_one_backbone_out, report.bifpn, report.other)
    figures: dict[str, float] = {}
    for name, part in zip(HELD_OUT, parts, strict=True):
        figures[f"{name}_error"] = 100 * part.mean_error
        figures[f"{name}_coverage"] = 100 * part.coverage
    return figures
