"""Cross-validation of the calibrated device models, recomputed from the shipped measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from scaler.latency.calibration import Calibration, Measurement, Problem, calibrate, fit
from scaler.latency.device_model import FloatArray
from scaler.latency.prediction import Z_90

HoldOut = Literal["network", "backbone"]


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """A measurement beside what a fit that had not seen it predicts."""

    row: Measurement
    predicted_ms: float
    low_ms: float
    high_ms: float

    @property
    def error(self) -> float:
        """Predicted over measured, minus 1."""
        return self.predicted_ms / self.row.ms - 1

    @property
    def covered(self) -> bool:
        """Whether the 90 % interval holds the measurement."""
        return self.low_ms <= self.row.ms <= self.high_ms


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidation:
    """Predictions of one kind of hold-out; errors are shares, not percent."""

    rows: tuple[Prediction, ...]

    @property
    def mean_error(self) -> float:
        """Mean absolute relative error."""
        return float(np.mean([abs(p.error) for p in self.rows]))

    @property
    def coverage(self) -> float:
        """Share of measurements inside their 90 % interval."""
        return float(np.mean([p.covered for p in self.rows]))

    def within(self, share: float) -> float:
        """Share of measurements whose error is at most `share`."""
        return float(np.mean([abs(p.error) <= share for p in self.rows]))

    @property
    def half_width(self) -> float:
        """Mean half width of the intervals relative to the prediction."""
        return float(np.mean([(p.high_ms - p.low_ms) / 2 / p.predicted_ms for p in self.rows]))

    def worst(self, count: int) -> list[Prediction]:
        """The rows with the largest errors."""
        return sorted(self.rows, key=lambda p: -abs(p.error))[:count]


@dataclass(frozen=True, slots=True, eq=False)
class DeviceReport:
    """How well the model of one device predicts."""

    device: str
    problem: Problem
    calibration: Calibration
    leave_one_network_out: CrossValidation
    leave_one_backbone_out: CrossValidation
    bifpn: CrossValidation
    """Rows of the paper's BiFPN, whose design is not published: predicted with ours, never fitted."""
    other: CrossValidation
    """Classifiers of Table 1 and other labs' engine times, each left out in turn."""


def predictions(data: Problem, calibration: Calibration, mask: FloatArray) -> list[Prediction]:
    """Predictions of the marked rows with 90 % intervals."""
    frame, gradient = data.predict(calibration.theta)
    spread = np.exp(Z_90 * calibration.log_sd(frame, gradient))
    return [
        Prediction(data.rows[i], float(frame[i]), float(frame[i] / spread[i]), float(frame[i] * spread[i]))
        for i in np.flatnonzero(mask)
    ]


def cross_validate(data: Problem, hold_out: HoldOut, *, reported: bool = True) -> CrossValidation:
    """Leave out every network (or backbone) in turn, all its measurements together, and predict it."""
    keys = np.array([row.group if hold_out == "network" else row.backbone for row in data.rows])
    fitted = np.array([row.fitted for row in data.rows])
    wanted = fitted & (np.array([row.reported for row in data.rows]) == reported)
    start = fit(data).theta
    found: list[Prediction] = []
    for key in dict.fromkeys(keys[wanted].tolist()):
        left_out = keys == key
        found += predictions(data, fit(data, fitted & ~left_out, start), wanted & left_out)
    return CrossValidation(tuple(found))


def validate(device: str) -> DeviceReport:
    """Recompute all errors of a device's model from the shipped measurements."""
    data, calibration = calibrate(device)
    ours = np.array([not row.fitted for row in data.rows])
    return DeviceReport(
        device,
        data,
        calibration,
        cross_validate(data, "network"),
        cross_validate(data, "backbone"),
        CrossValidation(tuple(predictions(data, calibration, ours))),
        cross_validate(data, "network", reported=False),
    )
