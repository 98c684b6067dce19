"""Cross-validation of the calibrated device models, recomputed from the shipped measurements."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from scaler.devices import Precision
from scaler.latency.calibration import PRECISION, Calibration, Problem, calibrate, fit
from scaler.latency.device_model import ENGINE_PARAMETERS
from scaler.latency.measurements import Measurement
from scaler.latency.prediction import Z_90

HoldOut = Literal["network", "backbone", "source"]
"""What is left out together: all measurements of a network, of a backbone, or of a laboratory."""

Mask = npt.NDArray[np.bool_]


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
    """Predictions of one kind of hold-out; errors are shares, not percent. Without rows there is no figure."""

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

    @property
    def believed(self) -> CrossValidation:
        """Without the rows that are doubted for a stated reason."""
        return CrossValidation(tuple(p for p in self.rows if not p.row.doubt))

    @property
    def doubted(self) -> CrossValidation:
        """The rows that are doubted."""
        return CrossValidation(tuple(p for p in self.rows if p.row.doubt))

    def by(self, attribute: Literal["source", "group"]) -> dict[str, CrossValidation]:
        """The same predictions apart by source or network."""
        parts: dict[str, list[Prediction]] = {}
        for prediction in self.rows:
            parts.setdefault(getattr(prediction.row, attribute), []).append(prediction)
        return {name: CrossValidation(tuple(rows)) for name, rows in parts.items()}


@dataclass(frozen=True, slots=True, eq=False)
class DeviceReport:
    """How well the model of one device predicts."""

    device: str
    precision: Precision
    problem: Problem
    calibration: Calibration
    leave_one_model_out: CrossValidation
    """All fitted rows of all sources, each network left out with all its rows."""
    leave_one_source_out: CrossValidation
    """All fitted rows, each source left out; where it is the only one, its likes' priors remain."""
    leave_one_network_out: CrossValidation
    """Of these, YOLO-ReT's detectors of Tables 2 to 5 with a published neck; empty where there are none."""
    leave_one_backbone_out: CrossValidation
    """The same detectors, each backbone left out, its classifier too."""
    bifpn: CrossValidation
    """Rows of the paper's BiFPN, whose design is not published: predicted with ours, never fitted."""

    @property
    def other(self) -> CrossValidation:
        """Everything beside YOLO-ReT's detectors, each network left out."""
        return CrossValidation(tuple(p for p in self.leave_one_model_out.rows if not p.row.reported))


def predictions(data: Problem, calibration: Calibration, mask: Mask) -> list[Prediction]:
    """Predictions of the marked rows with 90 % intervals, each with the scatter of rows of its kind and its doubt."""
    frame, gradient = data.predict(calibration.theta)
    scatter = np.where(data.mask("of_detector"), calibration.residual_sd, calibration.engine_sd)
    doubt = np.array([row.doubt for row in data.rows])
    spread = np.exp(Z_90 * calibration.log_sd(frame, gradient, data.macs, np.hypot(scatter, doubt)))
    return [
        Prediction(data.rows[i], float(frame[i]), float(frame[i] / spread[i]), float(frame[i] * spread[i]))
        for i in np.flatnonzero(mask)
    ]


def cross_validate(data: Problem, hold_out: HoldOut, wanted: Mask | None = None) -> CrossValidation:
    """Leave out every network, backbone or source in turn, all its measurements together, and predict it.

    Args:
        data: The measurements.
        hold_out: What is left out together.
        wanted: The rows to predict; all fitted ones where None.
    """
    keys = np.array([row.group if hold_out == "network" else getattr(row, hold_out) for row in data.rows])
    fitted = data.mask("fitted")
    wanted = fitted if wanted is None else wanted & fitted
    start = fit(data).theta
    found: list[Prediction] = []
    for key in dict.fromkeys(keys[wanted].tolist()):
        left_out = keys == key
        seen = fit(data, fitted & ~left_out, start)
        if hold_out == "source":
            seen = _with_own_overhead(data, seen, fitted & left_out)
        found += predictions(data, seen, wanted & left_out)
    return CrossValidation(tuple(found))


def _with_own_overhead(data: Problem, others: Calibration, own: Mask) -> Calibration:
    """An engine fitted to other sources, with the overhead and toolchain that a source's own rows give.

    What a lab adds to the engine cannot be known from other labs; the engine can.
    """
    free = np.abs(data.predict(others.theta)[1][own]).max(axis=0) > 0
    free[: len(ENGINE_PARAMETERS)] = False
    if not free.any():
        return others
    overhead = fit(data, own, others.theta, free)
    covariance = others.covariance.copy()
    covariance[free, :] = covariance[:, free] = 0.0
    return replace(others, theta=overhead.theta, covariance=covariance + overhead.covariance)


def validate(device: str, precision: Precision = PRECISION) -> DeviceReport:
    """Recompute all errors of a device's model from the shipped measurements."""
    data, calibration = calibrate(device, precision)
    everything = cross_validate(data, "network")
    return DeviceReport(
        device=device,
        precision=precision,
        problem=data,
        calibration=calibration,
        leave_one_model_out=everything,
        leave_one_source_out=cross_validate(data, "source"),
        leave_one_network_out=CrossValidation(tuple(p for p in everything.rows if p.row.reported)),
        leave_one_backbone_out=cross_validate(data, "backbone", data.mask("reported")),
        bifpn=CrossValidation(tuple(predictions(data, calibration, ~data.mask("fitted")))),
    )
