"""Predicts as another estimator does, corrected by the networks that were measured whole on the device.

A network that was measured gets its own time within its noise, like networks learn from it, and what is unlike any
keeps the estimator's own time and interval (`scaler.latency.correction`). Intervals are of what a measurement will
show. Engine times are corrected; the work of the host around them stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from scaler.devices import Device, Mode, Precision, Provenance
from scaler.errors import UserError
from scaler.graph.graph import Graph
from scaler.latency.calibrated import CalibratedEstimator
from scaler.latency.correction import Correction, LeftOut, Networks, numbered
from scaler.latency.energy import EnergyPrediction
from scaler.latency.fusion import FusionRules
from scaler.latency.kernels import Kernel
from scaler.latency.measured import MeasuredEstimator
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.observed import Observed
from scaler.latency.prediction import BlockSums, FloatArray, KernelSource, Prediction, Sums
from scaler.latency.table import TableInfo
from scaler.models.detectors.families import FAMILIES

KINDS = ("1x1 convolution", "larger convolution", "depthwise", "other")
"""Kernels whose shares of the time tell networks apart."""
SHARE_STEP = 0.25
"""Difference of a share that is as clear as a time 2.7 times as long."""
MOST_NETWORKS = 200
"""Observed networks that are used, the newest ones: the work grows with their cube."""
SAME_LEVEL = 1e-4
"""Relative difference within which two times of a reference network are one."""

Base = CalibratedEstimator | MeasuredEstimator


class CorrectedEstimator:
    """The latency of networks on a device of which some were measured; see `scaler.latency.estimator.load_estimator`.

    Args:
        base: What predicts.
        observed: Measured networks, one at least of which `usable` says that it can be used.

    Attributes:
        base: What predicts without them.
        observed: The networks that are used.
        left_out: Why the others are not, a reason each.
    """

    def __init__(self, base: Base, observed: Sequence[Observed]) -> None:
        self.base = base
        self.device: Device = base.device
        self.mode: Mode = base.mode
        self.precision: Precision = base.precision
        self.provenance: Provenance = base.provenance
        self.info: TableInfo | None = base.info
        self._shares = BlockSums(base.rules, self._columns, len(KINDS))
        reasons = [why_not(base, row) for row in observed]
        self.left_out = tuple(reason for reason in reasons if reason)
        rows = [row for row, reason in zip(observed, reasons, strict=True) if not reason]
        self.observed = tuple(sorted(rows, key=lambda row: row.created)[-MOST_NETWORKS:])
        known = [self.sums(network_of(row)) for row in self.observed]
        self._numbers = {key: number for number, key in enumerate(dict.fromkeys(map(_key, known)))}
        before = base.predict(self._own(known))
        measured = np.array([row.engine_ms for row in self.observed])
        noise = np.array([row.log_sd for row in self.observed])
        self._correction = Correction(self._networks(known, before), np.log(measured / before.engine), noise)

    @property
    def rules(self) -> FusionRules:
        """Fusion rules of the runtime."""
        return self.base.rules

    @property
    def fingerprint(self) -> str:
        """8 hexadecimal digits that change with whatever the predictions depend on."""
        content = (self.base.fingerprint, self.observed)
        return blake2b(repr(content).encode(), digest_size=4).hexdigest()

    @property
    def fallback(self) -> KernelSource:
        """Where kernels that the table lacks come from."""
        return self.base.fallback

    @property
    def cross_validation(self) -> LeftOut | None:
        """Errors of each observed network predicted by the others; None where there are fewer than three."""
        return self._correction.left_out()

    def kernel_times(self, kernels: Sequence[Kernel]) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Engine milliseconds of kernels, uncorrected, and whether the table has each."""
        return self.base.kernel_times(kernels)

    def _columns(self, kernels: Sequence[Kernel]) -> FloatArray:
        ms, _ = self.base.kernel_times(kernels)
        return np.asarray(ms[:, None] * np.eye(len(KINDS))[[_kind(kernel) for kernel in kernels]])

    def sums(self, graph: Graph) -> Sums:
        """What the prediction of a network needs: what the estimator behind needs, then times by kind of kernel."""
        own = self.base.sums(graph)
        return Sums(np.concatenate([own.blocks, self._shares.of(graph).blocks]), own.pixels, own.boxes)

    def doubt(self, graph: Graph) -> str:
        """Why the time of a network is an estimate though the device is known; empty where it is none."""
        return "" if self.is_observed(graph) else self.base.doubt(graph)

    def predict(self, sums: Sequence[Sums]) -> Prediction:
        """Frame times of networks from their sums."""
        before = self.base.predict(self._own(sums))
        mean, log_sd = self._correction.predict(self._networks(sums, before))
        engine = before.engine * np.exp(mean)
        frame = engine + before.overhead
        of_engine, was, of_frame = (
            (s * ms) ** 2
            for s, ms in (
                (log_sd, engine),
                (before.engine_log_sd, before.engine),
                (before.log_sd, before.frame),
            )
        )
        # What the frame knows less of than its engine stays; where it knows more, it goes on doing so.
        variance = np.minimum(of_engine + np.maximum(of_frame - was, 0), of_frame * np.maximum(of_engine / was, 1))
        return Prediction(engine, before.overhead, frame, np.sqrt(variance) / frame, log_sd, before.table_share)

    def energy_mj(self, sums: Sequence[Sums], frames: Prediction | None = None) -> EnergyPrediction | None:
        """Energy of a frame of networks in mJ at their corrected times; None where the table tells no energy."""
        return self.base.energy_mj(self._own(sums), self.predict(sums) if frames is None else frames)

    def estimate(self, graph: Graph) -> Prediction:
        """Frame time of one network, as arrays of length 1."""
        return self.predict([self.sums(graph)])

    def is_observed(self, graph: Graph) -> bool:
        """Whether this very network was measured."""
        return _key(self.sums(graph)) in self._numbers

    def _own(self, sums: Sequence[Sums]) -> list[Sums]:
        """The sums of the estimator behind."""
        return [Sums(s.blocks[: -len(KINDS)], s.pixels, s.boxes) for s in sums]

    def _networks(self, sums: Sequence[Sums], before: Prediction) -> Networks:
        ms = np.stack([s.blocks[-len(KINDS) :] for s in sums])
        shares = ms / ms.sum(axis=1, keepdims=True)
        features = np.column_stack([np.log(before.engine), shares / SHARE_STEP])
        return Networks(features, numbered([_key(s) for s in sums], self._numbers), before.engine_log_sd)


def _kind(kernel: Kernel) -> int:
    if kernel.op == "conv":
        return int(kernel.kernel > 1)
    return 2 if kernel.op == "depthwise" else 3


def _key(sums: Sums) -> bytes:
    """Equal for networks that launch the same kernels."""
    return np.array([*sums.blocks, sums.pixels, sums.boxes]).tobytes()


def network_of(row: Observed) -> Graph:
    """The network that was measured.

    Raises:
        UserError: This version of scaler has no such family, or no such network in it.
    """
    family = FAMILIES.get(row.family)
    if family is None:
        raise UserError(f"{row.network}: the family {row.family} is unknown")
    try:
        return family.build(family.configure(**row.params, classes=row.classes))
    except TypeError:
        raise UserError(f"{row.network}: {row.family} has no such parameters") from None


def why_not(base: Base, row: Observed) -> str:
    """Why an observed network says nothing of an estimator; empty where it does."""
    model = base.info.model if base.info is not None else None
    level = model.reference_ms if isinstance(model, MeasuredModel) else -1.0
    if row.reference_ms is not None and not math.isclose(row.reference_ms, level, rel_tol=SAME_LEVEL):
        return "measured beside another table"
    try:
        network_of(row)
    except UserError:
        return "of a network that this version does not know"
    return ""
