"""Predicts with a device model fitted to published times, or carried over to a data sheet.

Where the table has a kernel, its time is taken; the rest comes from the device model. Sums are kept per block, so a
candidate costs one addition over its blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from scaler.devices import Device, PowerMode, Precision, Provenance
from scaler.graph.graph import Graph
from scaler.latency.calibration import Calibration, Engine, arithmetic, compose, seen_engine
from scaler.latency.device_model import (
    ENGINE_PARAMETERS,
    hardware,
    kernel_ms,
    kernel_ms_and_gradients,
    work_of,
)
from scaler.latency.energy import EnergyPrediction
from scaler.latency.fusion import TENSORRT, FusionRules
from scaler.latency.kernels import Kernel
from scaler.latency.prediction import BlockSums, FloatArray, KernelSource, Prediction, Sums
from scaler.latency.protocol import MOST_BOXES, YOLO_RET, NetworkSize, overhead_units, toolchain_slopes
from scaler.latency.table import Entry, TableInfo

_GRADIENT = 5
"""Columns of a block's sums: ms, ms of kernels that only move data, ms from the table, weights, MACs; then the
gradients of the first two."""


class CalibratedEstimator:
    """The latency of networks on one device, in one power mode and precision.

    Args:
        device: The device.
        mode: Its power mode.
        precision: A precision that it supports; TensorRT computes fp32 engines in tf32 where the GPU has it.
        calibration: The device model.
        provenance: Of the predictions.
        entries: Kernel times of a table made in the same mode and precision.
        info: What that table, or the one behind the model, is of; None for estimates.
        overhead_ms: Replaces the protocol's overhead where given.
    """

    def __init__(
        self,
        device: Device,
        mode: PowerMode,
        precision: Precision,
        calibration: Calibration,
        *,
        provenance: Provenance,
        entries: dict[Kernel, Entry] | None = None,
        info: TableInfo | None = None,
        overhead_ms: float | None = None,
    ) -> None:
        self.device = device
        self.mode = mode
        self.precision = precision
        self.calibration = calibration
        self.provenance = provenance
        self.info = info
        self._entries = entries or {}
        self._overhead_ms = overhead_ms
        self._rates = hardware(mode, arithmetic(device, precision))
        self._blocks = BlockSums(TENSORRT, self._columns, _GRADIENT + 2 * len(ENGINE_PARAMETERS))

    @property
    def rules(self) -> FusionRules:
        """Fusion rules of the runtime."""
        return TENSORRT

    @property
    def fingerprint(self) -> str:
        """8 hexadecimal digits that change with whatever the predictions depend on."""
        model = self.calibration
        fitted = (
            model.theta.tobytes(), model.covariance.tobytes(), model.residual_sd, model.engine_sd, model.largest_macs
        )  # fmt: skip
        content = (fitted, self._rates, self._overhead_ms, sorted(self._entries.items()))
        return blake2b(repr(content).encode(), digest_size=4).hexdigest()

    @property
    def fallback(self) -> KernelSource:
        """Where kernels that the table lacks come from."""
        return "roofline" if self.provenance == "estimated" else "model"

    def kernel_times(self, kernels: Sequence[Kernel]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Engine milliseconds of kernels, the authors' toolchain apart, and whether the table has each."""
        ms = kernel_ms(work_of(kernels), self.calibration.engine, self._rates)
        return ms, self._look_up(kernels, ms)

    def _look_up(self, kernels: Sequence[Kernel], ms: FloatArray) -> npt.NDArray[np.bool_]:
        """Put the table's times into `ms` where it has them; returns where."""
        entries = [self._entries.get(kernel) for kernel in kernels]
        for place, entry in enumerate(entries):
            if entry is not None:
                ms[place] = entry.latency_us * 1e-3
        return np.array([entry is not None for entry in entries])

    def sums(self, graph: Graph) -> Sums:
        """What the prediction of a network needs."""
        return self._blocks.of(graph)

    def doubt(self, graph: Graph) -> str:
        """Why the time of a network is an estimate though the device is calibrated; empty where it is none."""
        macs, largest = self.sums(graph).blocks[4], self.calibration.largest_macs
        if macs <= largest:
            return ""
        return (
            f"larger than any network with a published time on such a device: {macs / 1e9:.0f} G MACs, "
            f"the largest has {largest / 1e9:.0f} G"
        )

    def _columns(self, kernels: Sequence[Kernel]) -> FloatArray:
        work = work_of(kernels)
        ms, gradients = kernel_ms_and_gradients(work, self.calibration.engine, self._rates)
        in_table = self._look_up(kernels, ms)
        weights = [kernel.weights for kernel in kernels]
        macs = [kernel.macs for kernel in kernels]
        moves = work.memory_bound
        return np.column_stack([ms, ms * moves, ms * in_table, weights, macs, gradients, gradients * moves[:, None]])

    def predict(self, sums: Sequence[Sums]) -> Prediction:
        """Frame times of networks from their sums."""
        blocks = np.stack([s.blocks for s in sums])
        sizes = [NetworkSize(s.blocks[3], s.blocks[4], min(s.boxes, MOST_BOXES)) for s in sums]
        slopes = np.array([toolchain_slopes(YOLO_RET, size) for size in sizes])
        units = np.array([overhead_units(YOLO_RET, size) for size in sizes])
        gradient, memory_gradient = np.split(blocks[:, _GRADIENT:], 2, axis=1)
        found = Engine(blocks[:, 0], gradient, blocks[:, 1], memory_gradient)
        model, macs = self.calibration, blocks[:, 4]
        engine, of_engine = seen_engine(model.theta, found, slopes)
        frame, of_frame = compose(model.theta, found, units, slopes)
        overhead = frame - engine
        if self._overhead_ms is not None:
            overhead = np.full(len(sums), self._overhead_ms)
            frame, of_frame = engine + overhead, of_engine
        return Prediction(
            engine,
            overhead,
            frame,
            model.log_sd(frame, of_frame, macs, model.residual_sd),
            model.log_sd(engine, of_engine, macs, model.engine_sd),
            blocks[:, 2] / blocks[:, 0],
        )

    def energy_mj(self, sums: Sequence[Sums], frames: Prediction | None = None) -> EnergyPrediction | None:  # noqa: ARG002
        """None: published times tell no energy; see `MeasuredEstimator.energy_mj`."""
        return None

    def estimate(self, graph: Graph) -> Prediction:
        """Frame time of one network, as arrays of length 1."""
        return self.predict([self.sums(graph)])
