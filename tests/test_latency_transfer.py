"""Estimates for devices that nobody measured: whose model they take, and how far such a leap may miss."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scaler.devices import load_device
from scaler.latency.calibration import CALIBRATED_DEVICES, Calibration, calibrate, measurements, problem
from scaler.latency.transfer import (
    CHECKED_DEVICES,
    ESTIMATE_LOG_SD,
    as_estimate,
    donors,
    has_tensor_cores,
    leaps,
    mean_of,
)

ALL_DEVICES = ("agx", "agx-orin", "nano", "nx", "orin-nano", "orin-nx", "tx2")


@pytest.fixture(scope="module")
def calibrated() -> dict[str, Calibration]:
    return {name: calibrate(name)[1] for name in CALIBRATED_DEVICES}


@pytest.fixture(scope="module")
def misses() -> dict[str, float]:
    return leaps()


class TestLeaps:
    def test_every_device_with_times_and_a_like_is_leapt_to(self, misses):
        """The Nano has no like among the calibrated devices: nothing can be carried over to it."""
        assert set(misses) == {"nx", "agx", *CHECKED_DEVICES}

    def test_misses_are_finite_and_not_nothing(self, misses):
        assert all(math.isfinite(miss) and miss > 0.01 for miss in misses.values())

    def test_the_stated_scatter_of_an_estimate_is_above_the_largest_miss(self, misses):
        assert max(misses.values()) < ESTIMATE_LOG_SD

    def test_the_stated_scatter_is_not_far_above_either(self, misses):
        assert max(misses.values()) > ESTIMATE_LOG_SD / 1.5

    @pytest.mark.parametrize(("target", "source"), [("nx", "agx"), ("agx", "nx"), ("tx2", "nano")])
    def test_a_miss_is_the_root_mean_square_of_the_logarithms(self, misses, calibrated, target, source):
        data = problem(measurements(target), load_device(target).mode())
        frame, _ = data.predict(calibrated[source].theta)
        squares = [math.log(p / ms) ** 2 for p, ms in zip(frame, data.ms, strict=True)]
        assert misses[target] == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-6)

    def test_the_leap_is_made_without_the_target(self, misses, calibrated):
        """Its own calibration would miss by much less."""
        for name in ("nx", "agx"):
            data = problem(measurements(name), load_device(name).mode())
            frame, _ = data.predict(calibrated[name].theta)
            assert np.sqrt(np.mean(np.log(frame / data.ms) ** 2)) < 0.8 * misses[name]


class TestDonors:
    @pytest.mark.parametrize("name", ALL_DEVICES)
    def test_a_device_is_never_its_own_donor(self, calibrated, name):
        own = calibrated.get(name)
        assert own is None or own not in donors(load_device(name), calibrated)

    @pytest.mark.parametrize(
        ("name", "sources"),
        [
            ("nano", ()),
            ("tx2", ("nano",)),
            ("nx", ("agx",)),
            ("agx", ("nx",)),
            ("orin-nano", ("nx", "agx")),
            ("orin-nx", ("nx", "agx")),
            ("agx-orin", ("nx", "agx")),
        ],
    )
    def test_devices_with_tensor_cores_learn_from_the_xaviers_and_others_from_the_nano(self, calibrated, name, sources):
        assert donors(load_device(name), calibrated) == [calibrated[source] for source in sources]

    @pytest.mark.parametrize("name", ALL_DEVICES)
    def test_tensor_cores_are_told_by_the_rates(self, name):
        assert has_tensor_cores(load_device(name)) == (name not in ("nano", "tx2"))

    def test_a_gpu_without_fp16_has_no_tensor_cores(self):
        nano = load_device("nano")
        plain = replace(nano, chip=replace(nano.gpu, fma_per_sm_clock=(("fp32", 128),)))
        assert not has_tensor_cores(plain)


class TestModels:
    def test_the_mean_of_models_is_geometric_with_the_scatter_of_an_estimate(self, calibrated):
        mean = mean_of([calibrated["nx"], calibrated["agx"]])
        for name, value in mean.named().items():
            first, second = (calibrated[device].named()[name] for device in ("nx", "agx"))
            expected = (first + second) / 2 if name.startswith("toolchain") else math.sqrt(first * second)
            assert value == pytest.approx(expected)
        assert mean.residual_sd == ESTIMATE_LOG_SD
        assert not mean.covariance.any()

    def test_a_device_in_another_mode_keeps_its_model_with_the_scatter_of_an_estimate(self, calibrated):
        own = calibrated["nx"]
        other = as_estimate(own)
        assert (other.theta == own.theta).all()
        assert (other.residual_sd, own.residual_sd < 0.1) == (ESTIMATE_LOG_SD, True)
