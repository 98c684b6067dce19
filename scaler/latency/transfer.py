"""Estimates for devices, power modes and precisions that nobody measured: a calibrated model, carried over.

The parameters of the calibrated devices (their geometric mean) meet the data sheet of the new one. Devices with tensor
cores learn from the Xaviers and Orins, others from Nano and TX2. How far such a leap misses is measured by making it to
each calibrated device from the others, and to the times published in another precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from scaler.devices import Device, Precision, load_device
from scaler.latency.calibration import (
    CALIBRATED_DEVICES,
    PRECISION,
    Calibration,
    Problem,
    calibrate,
    problem,
    wide_priors,
)
from scaler.latency.device_model import ENGINE_PARAMETERS, FloatArray, uses_tensor_cores
from scaler.latency.measurements import measurements

ESTIMATE_LOG_SD = 0.25
"""Standard deviation of the logarithm of an estimated time: above the largest of the leaps that
`scaler tables validate` prints (tests/test_latency_transfer.py)."""

OTHER_PRECISIONS: tuple[tuple[str, Precision], ...] = (("tx2", "fp32"),)
"""Times in another precision than the calibrated one, of networks that we can build."""


INT8_SLOWDOWN = 1.39
"""What INT8 engines take of what the data sheet's rates alone would give, launches apart: TensorRT leaves some layers
in FP16 and converts between. From the published INT8 times of YOLO11 over those of FP16 on three Orins, beside the same
ratio predicted for YOLOv8 of like size; their ratios in FP32 (TF32) agree within 6 % as they are."""


def has_tensor_cores(device: Device) -> bool:
    """Whether FP16 runs more than twice as fast as FP32."""
    return uses_tensor_cores(device.require_gpu(), PRECISION)


def donors(device: Device, calibrated: Mapping[str, Calibration]) -> list[Calibration]:
    """The calibrations that an estimate for `device` starts from: its like, without itself."""
    like = has_tensor_cores(device)
    return [
        calibration
        for name, calibration in calibrated.items()
        if name != device.id and has_tensor_cores(load_device(name)) == like
    ]


def mean_of(calibrations: list[Calibration]) -> Calibration:
    """The geometric mean of calibrations, with the scatter of an estimate."""
    theta = np.mean([calibration.theta for calibration in calibrations], axis=0)
    largest = max(calibration.largest_macs for calibration in calibrations)
    return Calibration(theta, np.zeros((len(theta), len(theta))), ESTIMATE_LOG_SD, ESTIMATE_LOG_SD, largest)


def as_estimate(calibration: Calibration, precision: Precision = PRECISION) -> Calibration:
    """A calibration at another power mode or in another precision: an estimate."""
    theta = calibration.theta.copy()
    if precision == "int8":
        for place, name in enumerate(ENGINE_PARAMETERS):
            theta[place] -= math.log(INT8_SLOWDOWN) * name.endswith(("efficiency", "bandwidth"))
    return replace(calibration, theta=theta, residual_sd=ESTIMATE_LOG_SD, engine_sd=ESTIMATE_LOG_SD)


def leaps() -> dict[str, float]:
    """Root mean square of log(predicted / measured) of every leap to a device or precision that has measurements.

    Rows that are doubted for a stated reason do not count, unless a setting has no others.
    """
    fitted = {name: calibrate(name) for name in CALIBRATED_DEVICES}
    calibrated = {name: calibration for name, (_, calibration) in fitted.items()}
    found: dict[str, float] = {}
    for name, (data, _) in fitted.items():
        found[name] = _miss(data, mean_of(donors(load_device(name), calibrated)).theta)
    for name, precision in OTHER_PRECISIONS:
        data = problem(measurements(name, precision), load_device(name), precision, wide_priors())
        found[f"{name} {precision}"] = _miss(data, calibrated[name].theta)
    return found


def _miss(data: Problem, theta: FloatArray) -> float:
    believed = ~data.mask("doubt")
    use = believed if believed.any() else ~believed
    return float(np.sqrt(np.mean(np.log(data.predict(theta)[0] / data.ms)[use] ** 2)))
