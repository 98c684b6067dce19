"""Estimates for devices that nobody measured: whose model they take, and how far such a leap may miss."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scaler.devices import load_device
from scaler.latency.calibration import CALIBRATED_DEVICES, Calibration, calibrate, problem, wide_priors
from scaler.latency.estimator import load_estimator
from scaler.latency.fusion import graph_kernels
from scaler.latency.measurements import measurements
from scaler.latency.transfer import ESTIMATE_LOG_SD, as_estimate, donors, has_tensor_cores, leaps, mean_of
from scaler.models.zoo import network
from scaler.published import engine_rows

TENSOR_CORES = ("nx", "agx", "orin-nano", "orin-nx", "agx-orin")
LIKE_SIZE = {
    "yolo11-n": "yolov8-n",
    "yolo11-s": "yolov8-s",
    "yolo11-m": "yolov8-m",
    "yolo11-l": "yolov8-m",
    "yolo11-x": "yolov8-l",
}
"""By the published GFLOPs; YOLO11 has attention, which our vocabulary lacks."""


@pytest.fixture(scope="module")
def calibrated() -> dict[str, Calibration]:
    return {name: calibrate(name)[1] for name in CALIBRATED_DEVICES}


@pytest.fixture(scope="module")
def misses() -> dict[str, float]:
    return leaps()


@pytest.fixture(scope="module")
def ratios() -> dict[str, np.ndarray]:
    rows = {
        (row.device, row.power_mode or None, row.network, row.precision): row.latency_ms
        for row in engine_rows()
        if row.source == "ultralytics"
    }
    found: dict[str, list[float]] = {"fp32": [], "int8": []}
    for (device, mode, name, precision), ms in rows.items():
        if precision != "fp16":
            kernels = graph_kernels(network(LIKE_SIZE[name], 640))
            other, half = (
                load_estimator(device, precision=p, power_mode=mode).kernel_times(kernels)[0].sum()
                for p in (precision, "fp16")
            )
            found[precision].append(ms / rows[device, mode, name, "fp16"] / (other / half))
    return {precision: np.array(values) for precision, values in found.items()}


class TestLeaps:
    def test_every_device_with_times_and_every_other_precision_of_one_is_leapt_to(self, misses):
        assert set(misses) == {*CALIBRATED_DEVICES, "tx2 fp32"}

    def test_misses_are_finite_and_not_nothing(self, misses):
        assert all(math.isfinite(miss) and miss > 0.01 for miss in misses.values())

    def test_the_stated_scatter_of_an_estimate_is_above_the_largest_miss(self, misses):
        assert max(misses.values()) < ESTIMATE_LOG_SD

    def test_the_stated_scatter_is_not_far_above_either(self, misses):
        assert max(misses.values()) > ESTIMATE_LOG_SD / 1.5

    @pytest.mark.parametrize("target", CALIBRATED_DEVICES)
    def test_a_miss_is_the_root_mean_square_of_the_logarithms_over_the_believed_rows(self, misses, calibrated, target):
        likes = [name for name in CALIBRATED_DEVICES if (name in TENSOR_CORES) == (target in TENSOR_CORES)]
        theta = np.mean([calibrated[name].theta for name in likes if name != target], axis=0)
        data = problem(measurements(target), load_device(target), "fp16", wide_priors())
        frame, _ = data.predict(theta)
        squares = [math.log(p / row.ms) ** 2 for p, row in zip(frame, data.rows, strict=True) if not row.doubt]
        assert misses[target] == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-6)

    def test_the_leap_is_made_without_the_target(self, misses, calibrated):
        """Its own calibration would miss by much less."""
        for name in ("nx", "agx", "agx-orin", "orin-nano"):
            data = problem(measurements(name), load_device(name), "fp16", wide_priors())
            believed = np.array([not row.doubt for row in data.rows])
            frame, _ = data.predict(calibrated[name].theta)
            assert np.sqrt(np.mean(np.log(frame / data.ms)[believed] ** 2)) < 0.8 * misses[name]


class TestDonors:
    @pytest.mark.parametrize("name", CALIBRATED_DEVICES)
    def test_a_device_is_never_its_own_donor(self, calibrated, name):
        assert calibrated[name] not in donors(load_device(name), calibrated)

    @pytest.mark.parametrize(
        ("name", "sources"),
        [
            ("nano", ("tx2",)),
            ("tx2", ("nano",)),
            ("nx", ("agx", "orin-nano", "orin-nx", "agx-orin")),
            ("orin-nano", ("nx", "agx", "orin-nx", "agx-orin")),
        ],
    )
    def test_devices_with_tensor_cores_learn_from_each_other_and_so_do_those_without(self, calibrated, name, sources):
        assert donors(load_device(name), calibrated) == [calibrated[source] for source in sources]

    @pytest.mark.parametrize("name", CALIBRATED_DEVICES)
    def test_tensor_cores_are_told_by_the_rates(self, name):
        assert has_tensor_cores(load_device(name)) == (name in TENSOR_CORES)

    def test_a_gpu_without_fp16_has_no_tensor_cores(self):
        nano = load_device("nano")
        plain = replace(nano, chip=replace(nano.gpu, fma_per_sm_clock=(("fp32", 128),)))
        assert not has_tensor_cores(plain)


class TestModels:
    def test_the_mean_of_models_is_geometric_with_the_scatter_of_an_estimate(self, calibrated):
        mean = mean_of([calibrated["nx"], calibrated["agx"]])
        for place, (name, value) in enumerate(mean.named().items()):
            first, second = (calibrated[device].named()[name] for device in ("nx", "agx"))
            toolchain = place >= len(mean.theta) - 5
            assert value == pytest.approx((first + second) / 2 if toolchain else math.sqrt(first * second))
        assert mean.residual_sd == mean.engine_sd == ESTIMATE_LOG_SD
        assert not mean.covariance.any()

    def test_a_device_in_another_mode_keeps_its_model_with_the_scatter_of_an_estimate(self, calibrated):
        own = calibrated["nx"]
        other = as_estimate(own)
        assert (other.theta == own.theta).all()
        assert (other.residual_sd, own.residual_sd < 0.1) == (ESTIMATE_LOG_SD, True)


class TestPrecisions:
    """YOLO11 on three Orins: published FP32 and INT8 times over FP16 ones, beside YOLOv8 of like size."""

    def test_tf32_takes_what_its_rates_say(self, ratios):
        assert len(ratios["fp32"]) == 14
        assert np.exp(np.log(ratios["fp32"]).mean()) == pytest.approx(1.0, abs=0.05)
        assert np.abs(np.log(ratios["fp32"])).max() < 0.16

    def test_int8_takes_what_its_rates_and_its_slowdown_say(self, ratios):
        assert len(ratios["int8"]) == 14
        assert np.exp(np.log(ratios["int8"]).mean()) == pytest.approx(1.0, abs=0.03)
        assert np.abs(np.log(ratios["int8"])).max() < ESTIMATE_LOG_SD
