"""Predicts from a table that was measured: its rows, the regression on them, a correction fitted end to end.

The engine time is `constant + factor x (sum of the kernel times)^exponent`, in ms: sums of layers are biased, and what
a runtime does between layers is in no layer. Where the table has a kernel its row is used, else the regression on all
rows. Only the engine is measured; the host's work per frame is added when the user gives it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from scaler.devices import Device, Mode, Precision, Provenance
from scaler.graph.graph import Graph
from scaler.latency.energy import EnergyPrediction
from scaler.latency.fusion import RULES, FusionRules
from scaler.latency.kernel_regression import Hyper, KernelRegression, Sample, group_of
from scaler.latency.kernels import Kernel
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.prediction import BlockSums, FloatArray, KernelSource, Prediction, Sums
from scaler.latency.table import Entry, TableInfo

LARGER = 16.0
"""Times the largest measured kernel of its kind, in work or in elements moved: beyond, nothing is known."""
WELL_MEASURED = 4
"""Networks from which the median of a kernel's times says more than the regression on all kernels."""


class KernelTimes:
    """Time of any kernel on a measured device; each is worked out once.

    Args:
        entries: The table's rows.
        hypers: Of the regression on them.
    """

    def __init__(self, entries: Mapping[Kernel, Entry], hypers: Mapping[str, Hyper]) -> None:
        self.entries = entries
        samples = [Sample(kernel, entry.latency_us * 1e-3, entry.networks) for kernel, entry in entries.items()]
        self._regression = KernelRegression(samples, hypers)
        self._known: dict[Kernel, tuple[float, float, bool]] = {}
        self._largest: dict[tuple[str, str, int], tuple[int, int]] = {}
        for kernel in entries:
            work, moved = self._largest.get(_kind(kernel), (0, 0))
            self._largest[_kind(kernel)] = max(work, kernel.macs), max(moved, kernel.moved)

    def ms(self, kernels: Sequence[Kernel]) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
        """Milliseconds of each kernel, standard deviation of their logarithm, and whether the table has it."""
        known = self._known
        if new := [kernel for kernel in dict.fromkeys(kernels) if kernel not in known]:
            mean, spread = self._regression.log_ms(new)
            known.update(zip(new, map(self._of, new, np.exp(mean).tolist(), spread.tolist()), strict=True))
        rows = [known[kernel] for kernel in kernels]
        return (
            np.array([row[0] for row in rows]),
            np.array([row[1] for row in rows]),
            np.array([row[2] for row in rows], dtype=np.bool_),
        )

    def strange(self, kernel: Kernel) -> bool:
        """Whether the table has no kernel of this kind, or only far smaller ones: its time is a guess."""
        work, moved = self._largest.get(_kind(kernel), (-1.0, -1.0))
        return kernel.macs > LARGER * work or kernel.moved > LARGER * moved

    def _of(self, kernel: Kernel, ms: float, spread: float) -> tuple[float, float, bool]:
        """A kernel's time and doubt, and whether both its row is there and is well measured, so that it is taken."""
        entry = self.entries.get(kernel)
        if entry is None or entry.networks < WELL_MEASURED:
            return ms, spread, False
        return entry.latency_us * 1e-3, spread, True


def _kind(kernel: Kernel) -> tuple[str, str, int]:
    """Kernels of one kind differ in sizes only; a dense convolution is of another kind with every window."""
    return group_of(kernel), kernel.activation, kernel.kernel if kernel.op == "conv" else 0


class MeasuredEstimator:
    """The latency of networks on one measured device; see `scaler.latency.estimator.load_estimator`.

    Args:
        device: The device.
        mode: Its power mode or number of threads.
        info: What the table is of.
        model: What stands beside its rows.
        entries: Its rows.
        overhead_ms: Pre- and post-processing of a frame; none where None.
    """

    def __init__(
        self,
        device: Device,
        mode: Mode,
        info: TableInfo,
        model: MeasuredModel,
        entries: Mapping[Kernel, Entry],
        *,
        overhead_ms: float | None = None,
    ) -> None:
        self.device = device
        self.mode = mode
        self.precision: Precision = info.precision
        self.provenance: Provenance = info.provenance
        self.info: TableInfo | None = info
        self.model = model
        self.overhead_ms = overhead_ms
        self._times = KernelTimes(entries, model.hypers)
        self._blocks = BlockSums(self.rules, self._columns, 6)

    @property
    def rules(self) -> FusionRules:
        """Fusion rules of the runtime."""
        assert self.info is not None
        return RULES[self.info.runtime]

    @property
    def fingerprint(self) -> str:
        """8 hexadecimal digits that change with whatever the predictions depend on."""
        content: tuple[object, ...] = (self.model, self.overhead_ms, sorted(self._times.entries.items()))
        if self.info is not None:
            content = (*content, *(law for law in (self.info.energy, self.info.memory) if law is not None))
        return blake2b(repr(content).encode(), digest_size=4).hexdigest()

    @property
    def fallback(self) -> KernelSource:
        """Where kernels that the table lacks come from."""
        return "model"

    def kernel_times(self, kernels: Sequence[Kernel]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Engine milliseconds of kernels, and whether the table has each."""
        ms, _, found = self._times.ms(kernels)
        return ms * self.model.factor, found

    def _columns(self, kernels: Sequence[Kernel]) -> FloatArray:
        ms, spread, found = self._times.ms(kernels)
        strange = [self._times.strange(kernel) for kernel in kernels]
        macs, moved = [kernel.macs for kernel in kernels], [kernel.moved for kernel in kernels]
        return np.column_stack([ms, ms * found, ms * spread, strange, macs, moved])

    def sums(self, graph: Graph) -> Sums:
        """What the prediction of a network needs."""
        return self._blocks.of(graph)

    def strange_kernels(self, graph: Graph) -> int:
        """How many kernels of a network are of a kind or size that was never measured: their times are guesses."""
        return int(self.sums(graph).blocks[3])

    def doubt(self, graph: Graph) -> str:
        """Why the time of a network is an estimate though the device is measured; empty where it is none."""
        if not (strange := self.strange_kernels(graph)):
            return ""
        return (
            f"{strange} of its kernels are of a kind or size that the table of {self.device.id} knows nothing about; "
            f"measure their space with scaler profile run --device {self.device.id} --space SPACE"
        )

    def predict(self, sums: Sequence[Sums]) -> Prediction:
        """Frame times of networks from their sums."""
        blocks = np.stack([s.blocks for s in sums])
        engine = self.model.constant_ms + self.model.factor * blocks[:, 0] ** self.model.exponent
        doubt = self.model.kernel_share * blocks[:, 2] / blocks[:, 0]
        log_sd = np.sqrt(self.model.residual_log_sd**2 + doubt**2)
        overhead = np.full(len(sums), self.overhead_ms or 0.0)
        frame = engine + overhead
        return Prediction(engine, overhead, frame, log_sd * engine / frame, log_sd, blocks[:, 1] / blocks[:, 0])

    def energy_mj(self, sums: Sequence[Sums], frames: Prediction | None = None) -> EnergyPrediction | None:
        """Energy of a frame of networks in mJ, idle power included; None where the table tells no energy.

        Args:
            sums: Of the networks.
            frames: Their predicted times, where somebody knows better than `predict`.
        """
        if self.info is None or self.info.energy is None:
            return None
        blocks = np.stack([s.blocks for s in sums])
        return self.info.energy.predict(self.predict(sums) if frames is None else frames, blocks[:, 4], blocks[:, 5])

    def estimate(self, graph: Graph) -> Prediction:
        """Frame time of one network, as arrays of length 1."""
        return self.predict([self.sums(graph)])
