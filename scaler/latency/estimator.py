"""Predicts the frame time of a network: table first, then the fitted kernel model, then the roofline.

No kernel is ever counted as zero. Where the table has a kernel, its time is taken; the rest comes from the
device model fitted on the same device, or, for a device that nobody measured, from a model carried over to its
data sheet. Sums are kept per block, so a candidate costs one addition over its blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from scaler.devices import Device, PowerMode, Precision, Provenance, load_device
from scaler.graph.graph import Block, Graph
from scaler.latency.calibration import CALIBRATED_DEVICES, Calibration, compose
from scaler.latency.device_model import (
    ENGINE_PARAMETERS,
    FloatArray,
    hardware,
    kernel_ms,
    kernel_ms_and_gradients,
    work_of,
)
from scaler.latency.fusion import block_kernels
from scaler.latency.kernels import Kernel
from scaler.latency.protocol import NetworkSize, toolchain_slopes
from scaler.latency.table import Entry, LatencyTable, TableInfo, has_table, read_table, table_name
from scaler.latency.transfer import as_estimate, donors, mean_of
from scaler.latency.validation import Z_90

RUNTIME = "tensorrt"
KernelSource = Literal["table", "model", "roofline"]

_GRADIENT = 4
"""Columns of a block's sums: ms, ms from the table, weights, MACs, then the gradient."""


class Prediction(NamedTuple):
    """Frame times of networks in ms, an array each; the low and high ends are those of the 90 % interval."""

    engine: FloatArray
    overhead: FloatArray
    frame: FloatArray
    log_sd: FloatArray
    """Standard deviation of the logarithm of the frame time."""
    engine_log_sd: FloatArray
    """The same of the engine time alone, of which less is known: only frames were published."""
    table_share: FloatArray
    """Share of the engine time found in the table."""

    @property
    def low(self) -> FloatArray:
        """Fast end of the frame time."""
        return np.asarray(self.frame * np.exp(-Z_90 * self.log_sd))

    @property
    def high(self) -> FloatArray:
        """Slow end of the frame time."""
        return np.asarray(self.frame * np.exp(Z_90 * self.log_sd))


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What the prediction of one network needs, summed over its blocks."""

    blocks: FloatArray
    pixels: float
    boxes: float


class Estimator:
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
        arithmetic: Precision = "tf32" if precision == "fp32" and "tf32" in device.gpu.precisions else precision
        self._rates = hardware(mode, arithmetic)
        self._index: dict[Block, int] = {}
        self._sums = np.zeros((1024, _GRADIENT + len(ENGINE_PARAMETERS)))

    @property
    def fingerprint(self) -> str:
        """8 hexadecimal digits that change with whatever the predictions depend on."""
        model = self.calibration
        fitted = (model.theta.tobytes(), model.covariance.tobytes(), model.residual_sd)
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
        """Add up a network's blocks; blocks seen before cost one look-up."""
        index = self._index
        self._learn(dict.fromkeys([p.block for p in graph.placements if p.block not in index]))
        rows = [index[placement.block] for placement in graph.placements]
        _, height, width = graph.input_shape
        return Sums(self._sums[rows].sum(axis=0), height * width, graph.boxes)

    def _learn(self, blocks: Iterable[Block]) -> None:
        """Sum up the kernels of new blocks, all at once."""
        kernels: list[Kernel] = []
        rows: list[int] = []
        offsets: list[int] = []
        for block in blocks:
            row = self._index[block] = len(self._index)
            if row == len(self._sums):
                self._sums = np.vstack([self._sums, np.zeros_like(self._sums)])
            if found := block_kernels(block):  # a block without kernels keeps its row of zeros
                rows.append(row)
                offsets.append(len(kernels))
                kernels += found
        if not kernels:
            return
        ms, gradients = kernel_ms_and_gradients(work_of(kernels), self.calibration.engine, self._rates)
        in_table = self._look_up(kernels, ms)
        weights = [kernel.weights for kernel in kernels]
        macs = [kernel.macs for kernel in kernels]
        columns = np.column_stack([ms, ms * in_table, weights, macs, gradients])
        self._sums[rows] = np.add.reduceat(columns, offsets, axis=0)

    def predict(self, sums: Sequence[Sums]) -> Prediction:
        """Frame times of networks from their sums."""
        blocks = np.stack([s.blocks for s in sums])
        sizes = [NetworkSize(s.blocks[2], s.blocks[3], s.pixels, s.boxes) for s in sums]
        slopes = np.array([toolchain_slopes(size) for size in sizes])
        boxes = np.array([size.boxes / 1e3 for size in sizes])
        model = self.calibration
        frame, gradient = compose(model.theta, blocks[:, 0], blocks[:, _GRADIENT:], np.ones(len(sums)), boxes, slopes)
        engine = blocks[:, 0] * np.exp(slopes @ model.theta[-slopes.shape[1] :])
        overhead = frame - engine
        if self._overhead_ms is not None:
            overhead = np.full(len(sums), self._overhead_ms)
            frame = engine + overhead
        of_engine = gradient.copy()
        of_engine[:, len(ENGINE_PARAMETERS) : -slopes.shape[1]] = 0.0  # no overhead parameter moves the engine
        log_sd = model.log_sd(frame, gradient if self._overhead_ms is None else of_engine)
        share = blocks[:, 1] / blocks[:, 0]
        return Prediction(engine, overhead, frame, log_sd, model.log_sd(engine, of_engine), share)

    def estimate(self, graph: Graph) -> Prediction:
        """Frame time of one network, as arrays of length 1."""
        return self.predict([self.sums(graph)])


def load_estimator(
    device: str,
    *,
    precision: str = "fp16",
    power_mode: str | None = None,
    overhead_ms: float | None = None,
    table: LatencyTable | None = None,
) -> Estimator:
    """The best estimator that the tables allow: measured or calibrated where there is a table, else estimated.

    Args:
        device: Name, alias or path of a device profile.
        precision: Of the engine.
        power_mode: The profile's default where None.
        overhead_ms: Replaces the overhead of the protocol.
        table: Used instead of the catalogue's.

    Raises:
        UsageError: Unknown device or power mode.
        UnsupportedError: The device has no such precision.
    """
    profile = load_device(device)
    wanted = profile.require_precision(precision)
    mode = profile.mode(power_mode)
    if table is None and has_table(profile.id, RUNTIME, wanted):
        table = read_table(table_name(profile.id, RUNTIME, wanted))
    asked = (profile.id, wanted, mode.name)
    if table is not None and (table.info.device, table.info.precision, table.info.power_mode) == asked:
        return Estimator(
            profile,
            mode,
            wanted,
            table.info.calibration,
            provenance=table.info.provenance,
            entries=table.entries,
            info=table.info,
            overhead_ms=overhead_ms,
        )
    calibration, info = _carried_over(profile)
    return Estimator(profile, mode, wanted, calibration, provenance="estimated", info=info, overhead_ms=overhead_ms)


def _carried_over(device: Device) -> tuple[Calibration, TableInfo | None]:
    """A model for what nobody measured: the device's own at another mode or precision, else its like's."""
    tables = {name: read_table(table_name(name, RUNTIME, "fp16")).info for name in CALIBRATED_DEVICES}
    if own := tables.get(device.id):
        return as_estimate(own.calibration), own
    return mean_of(donors(device, {name: info.calibration for name, info in tables.items()})), None
