"""Estimates for devices, power modes and precisions that nobody measured: a calibrated model, carried over.

The shares and idle terms of the calibrated devices (their geometric mean) meet the data sheet of the new one.
Devices with tensor cores learn from the Xaviers, others from the Nano. How far such a leap misses is
measured by making it between the calibrated devices, and to the engine times published of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from scaler.devices import Device, load_device
from scaler.latency.calibration import CALIBRATED_DEVICES, Calibration, calibrate, measurements, problem

ESTIMATE_LOG_SD = 0.25
"""Standard deviation of the logarithm of an estimated time: above the largest of the leaps that
`scaler tables validate` prints (tests/test_latency_transfer.py)."""

CHECKED_DEVICES = ("tx2", "agx-orin")
"""Estimated devices of which engine times are published: too few to fit, enough to check."""


def has_tensor_cores(device: Device) -> bool:
    """Whether FP16 runs more than twice as fast as FP32."""
    rates = dict(device.require_gpu().fma_per_sm_clock)
    return rates.get("fp16", 0) > 2 * rates["fp32"]


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
    return Calibration(theta, np.zeros((len(theta), len(theta))), ESTIMATE_LOG_SD)


def as_estimate(calibration: Calibration) -> Calibration:
    """A device's own calibration at another power mode or precision: an estimate."""
    return replace(calibration, residual_sd=ESTIMATE_LOG_SD)


def leaps() -> dict[str, float]:
    """Root mean square of log(predicted / measured) of every leap to a device that has measurements."""
    fitted = {name: calibrate(name) for name in CALIBRATED_DEVICES}
    calibrated = {name: calibration for name, (_, calibration) in fitted.items()}
    found: dict[str, float] = {}
    for name in (*CALIBRATED_DEVICES, *CHECKED_DEVICES):
        if sources := donors(load_device(name), calibrated):
            data = fitted[name][0] if name in fitted else problem(measurements(name), load_device(name).gpu_mode())
            frame, _ = data.predict(mean_of(sources).theta)
            found[name] = float(np.sqrt(np.mean(np.log(frame / data.ms) ** 2)))
    return found
