"""The device model: gradients, bounds and orders, and that no kernel is free."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.devices import load_device
from scaler.latency.calibration import CALIBRATED_DEVICES, PARAMETERS, PRIORS, problem, wide_priors
from scaler.latency.device_model import (
    ENGINE_PARAMETERS,
    Hardware,
    hardware,
    kernel_ms,
    kernel_ms_and_gradients,
    work_of,
)
from scaler.latency.fusion import graph_kernels
from scaler.latency.kernels import Kernel
from scaler.latency.measurements import measurements
from scaler.models.backbones import resnet
from scaler.models.detectors.yolo_ret import YoloRetConfig, build

RATES = hardware(load_device("nano").mode(), "fp16")
MEDIANS = np.array([PRIORS[name][0] for name in ENGINE_PARAMETERS])
KERNELS = sorted(
    {
        *graph_kernels(build(YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True))),
        *graph_kernels(build(YoloRetConfig(backbone="efficientnet-b0", neck="bifpn"))),
        *graph_kernels(resnet.classifier("50")),
    }
)
WORK = work_of(KERNELS)
parameter_vectors = st.lists(
    st.floats(-1.5, 1.5), min_size=len(ENGINE_PARAMETERS), max_size=len(ENGINE_PARAMETERS)
).map(lambda logs: MEDIANS * np.exp(logs))


def of(kernel: Kernel, parameters=MEDIANS, rates: Hardware = RATES) -> float:
    """Milliseconds of one kernel."""
    return float(kernel_ms(work_of([kernel]), parameters, rates)[0])


def changed(**values: float) -> np.ndarray:
    """The median parameters with some replaced."""
    return np.array([values.get(name, median) for name, median in zip(ENGINE_PARAMETERS, MEDIANS, strict=True)])


def differences(function, at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences with respect to the parameters' logarithms, a column each."""
    columns = []
    for index in range(len(at)):
        up, down = (at * np.exp(sign * step * (np.arange(len(at)) == index)) for sign in (1, -1))
        columns.append((function(up) - function(down)) / (2 * step))
    return np.stack(columns, axis=1)


class TestGradients:
    @given(parameter_vectors)
    @settings(derandomize=True, max_examples=25, deadline=None)
    def test_gradients_are_the_finite_differences(self, parameters):
        ms, gradients = kernel_ms_and_gradients(WORK, parameters, RATES)
        expected = differences(lambda p: kernel_ms(WORK, p, RATES), parameters)
        np.testing.assert_allclose(gradients, expected, rtol=1e-4, atol=1e-8 * ms.max())

    @given(parameter_vectors)
    @settings(derandomize=True, max_examples=10, deadline=None)
    def test_times_beside_gradients_are_the_times_without(self, parameters):
        ms, _ = kernel_ms_and_gradients(WORK, parameters, RATES)
        np.testing.assert_allclose(ms, kernel_ms(WORK, parameters, RATES), rtol=1e-14)

    @pytest.mark.parametrize("device", CALIBRATED_DEVICES)
    def test_gradients_of_whole_frames_with_overhead_and_toolchain_are_the_finite_differences(self, device):
        data = problem(measurements(device), load_device(device), "fp16", wide_priors())
        theta, step = wide_priors().mean + np.linspace(-0.3, 0.3, len(PARAMETERS)), 1e-5
        _, gradients = data.predict(theta)
        for index in range(len(theta)):
            shift = step * (np.arange(len(theta)) == index)
            column = (data.predict(theta + shift)[0] - data.predict(theta - shift)[0]) / (2 * step)
            np.testing.assert_allclose(gradients[:, index], column, rtol=1e-5, atol=1e-7)

    def test_every_engine_parameter_moves_some_kernel(self):
        _, gradients = kernel_ms_and_gradients(WORK, MEDIANS, RATES)
        assert (np.abs(gradients).max(axis=0) > 1e-6).all()

    def test_signs_are_those_of_physics(self):
        """Launch and idle terms cost; efficiencies, bandwidths and caches save."""
        _, gradients = kernel_ms_and_gradients(WORK, MEDIANS, RATES)
        costs = [name in ("launch_us", "idle_pixels", "idle_channels") for name in ENGINE_PARAMETERS]
        assert (gradients[:, costs] >= 0).all()
        assert (gradients[:, ~np.array(costs)] <= 0).all()


class TestRoofline:
    def test_no_kernel_is_free_even_without_work(self):
        assert (kernel_ms(WORK, MEDIANS, RATES) > MEDIANS[0] * 1e-3).all()

    def test_the_launch_is_paid_by_every_kernel_once(self):
        graph = build(YoloRetConfig(backbone="mobilenetv2", width=0.5, drop=2))
        kernels = graph_kernels(graph)
        slow, fast = (kernel_ms(work_of(kernels), changed(launch_us=us), RATES).sum() for us in (30.0, 10.0))
        assert slow - fast == pytest.approx(0.020 * len(kernels))

    @given(parameter_vectors)
    @settings(derandomize=True, max_examples=25, deadline=None)
    def test_a_kernel_takes_its_slower_side_and_at_most_a_quarter_more(self, parameters):
        """Each side alone is what remains when the other costs nothing."""
        launch = parameters[0] * 1e-3
        roof = kernel_ms(WORK, parameters, RATES) - launch
        free_moving = parameters * np.where([name.endswith("bandwidth") for name in ENGINE_PARAMETERS], 1e9, 1)
        free_computing = parameters * np.where([name.endswith("efficiency") for name in ENGINE_PARAMETERS], 1e9, 1)
        computing = kernel_ms(WORK, free_moving, RATES) - launch
        moving = kernel_ms(WORK, free_computing, RATES) - launch
        slower = np.maximum(computing, moving)
        assert (roof >= slower * (1 - 1e-6)).all()
        assert (roof <= slower * 2 ** (1 / 3) * (1 + 1e-6)).all()

    def test_equal_sides_take_1_26_times_either(self):
        kernel = Kernel("conv", 1, 1, 1, 64, 64, 20, 20, 20, 20, "none", 1)
        none = changed(launch_us=1e-12)
        computing = of(kernel, none * np.where([n.endswith("bandwidth") for n in ENGINE_PARAMETERS], 1e9, 1))
        moving = of(kernel, none * np.where([n.endswith("efficiency") for n in ENGINE_PARAMETERS], 1e9, 1))
        balanced = none * np.where(np.array(ENGINE_PARAMETERS) == "conv_bandwidth", moving / computing, 1)
        assert of(kernel, balanced) == pytest.approx(2 ** (1 / 3) * computing)

    def test_a_large_convolution_runs_at_its_share_of_the_peak(self):
        kernel = Kernel("conv", 1, 1, 1, 4096, 4096, 64, 64, 64, 64, "none", 1)
        parameters = changed(launch_us=1e-9, idle_pixels=1e-9, idle_channels=1e-9, conv_bandwidth=1e9)
        assert of(kernel, parameters) == pytest.approx(kernel.macs / (RATES.macs_per_s * 0.5) * 1e3)

    def test_an_element_wise_kernel_moves_its_bytes_at_its_share_of_the_bandwidth(self):
        kernel = Kernel("pointwise", 1, 1, 1, 48, 48, 160, 160, 160, 160, "add", 2)
        assert of(kernel, changed(launch_us=1e-9)) == pytest.approx(
            3 * 48 * 160**2 * 2 / (25.6e9 * 0.7) * 1e3, rel=2e-3
        )

    @pytest.mark.parametrize(("channels", "as_many"), [(33, 64), (64, 64), (65, 128), (96, 128), (192, 192)])
    def test_tensor_cores_compute_whole_tiles_of_channels(self, channels, as_many):
        """YOLOX-tiny's 24, 48 and 96 channels cost what 64, 64 and 128 do."""
        none = changed(launch_us=1e-9, conv_bandwidth=1e9, idle_channels=1e-9)
        kernels = [Kernel("conv", 1, 1, 1, 256, c, 80, 80, 80, 80, "none", 1) for c in (channels, as_many)]
        tiled = [of(kernel, none, hardware(load_device("nx").mode(), "fp16")) for kernel in kernels]
        assert tiled[0] == pytest.approx(tiled[1])
        plain = [of(kernel, none) for kernel in kernels]
        assert plain[1] / plain[0] == pytest.approx(as_many / channels)

    def test_maps_that_the_cache_holds_move_faster_and_larger_ones_do_not(self):
        def speedup(side: int) -> float:
            kernel = Kernel("pointwise", 1, 1, 1, 16, 16, side, side, side, side, "swish", 1)
            slow, fast = (of(kernel, changed(launch_us=1e-9, cache_gain=gain)) for gain in (1e-9, 3.0))
            return slow / fast

        assert speedup(8) == pytest.approx(4, rel=0.01)
        assert speedup(64) == pytest.approx(1 / (1 - 0.75 / (1 + (2 * 16 * 64**2 * 2 / (256 * 1024)) ** 2)))
        assert speedup(640) == pytest.approx(1, rel=0.01)

    def test_small_kernels_use_the_gpu_worse(self):
        small = Kernel("conv", 1, 1, 1, 512, 512, 5, 5, 5, 5, "none", 1)
        large = small._replace(h_in=40, w_in=40, h_out=40, w_out=40)
        assert (of(small) - 0.008) / small.macs > 2 * (of(large) - 0.008) / large.macs

    @pytest.mark.parametrize(
        ("kernel", "parameter"),
        [
            (Kernel("conv", 1, 1, 1, 64, 64, 80, 80, 80, 80, "none", 1), "gemm_efficiency"),
            (Kernel("conv", 3, 2, 1, 3, 32, 320, 320, 160, 160, "none", 1), "gemm_efficiency"),
            (Kernel("linear", 1, 1, 1, 1280, 1000, 1, 1, 1, 1, "none", 1), "gemm_efficiency"),
            (Kernel("conv", 3, 1, 1, 64, 64, 80, 80, 80, 80, "none", 1), "spatial_efficiency"),
            (Kernel("conv", 1, 1, 1, 64, 64, 80, 80, 80, 80, "none", 1), "conv_bandwidth"),
            (Kernel("depthwise", 3, 1, 64, 64, 64, 80, 80, 80, 80, "none", 1), "depthwise_bandwidth"),
            (Kernel("pointwise", 1, 1, 1, 64, 64, 80, 80, 80, 80, "swish", 1), "elementwise_bandwidth"),
            (Kernel("resize", 1, 1, 1, 64, 64, 40, 40, 80, 80, "none", 1), "elementwise_bandwidth"),
            (Kernel("copy", 1, 1, 1, 64, 64, 80, 80, 80, 80, "none", 1), "elementwise_bandwidth"),
            (Kernel("pool", 2, 2, 1, 64, 64, 80, 80, 40, 40, "none", 1), "elementwise_bandwidth"),
            (Kernel("reduce", 80, 1, 1, 64, 64, 80, 80, 1, 1, "none", 1), "elementwise_bandwidth"),
        ],
    )
    def test_each_kind_of_kernel_has_its_own_shares(self, kernel, parameter):
        used = {name for name in ENGINE_PARAMETERS[1:6] if of(kernel, changed(**{name: 1e-3})) > 2 * of(kernel)}
        assert parameter in used
        assert {name.rpartition("_")[2] for name in used - {parameter}} <= {"efficiency", "bandwidth"}
        assert len([name for name in used if name.endswith(parameter.rpartition("_")[2])]) == 1


dense = st.builds(
    Kernel,
    st.sampled_from(["conv", "depthwise"]),
    st.sampled_from([1, 3, 5, 7]),
    st.just(1),
    st.just(1),
    st.integers(8, 600),
    st.integers(8, 600),
    *[st.integers(1, 160)] * 4,
    st.just("none"),
    st.integers(1, 2),
).map(lambda k: k._replace(h_out=k.h_in, w_out=k.w_in, **_depthwise(k)))


def _depthwise(kernel: Kernel) -> dict[str, int]:
    return {"groups": kernel.c_in, "c_out": kernel.c_in} if kernel.op == "depthwise" else {}


def larger(kernel: Kernel, by: int) -> list[Kernel]:
    """The kernel with more channels, more pixels, another input, another picture row."""
    grown = [
        kernel._replace(h_in=kernel.h_in + by, h_out=kernel.h_out + by),
        kernel._replace(w_in=kernel.w_in + by, w_out=kernel.w_out + by),
        kernel._replace(inputs=kernel.inputs + by),
    ]
    if kernel.op == "depthwise":
        c = kernel.c_in + by
        return [*grown, kernel._replace(c_in=c, c_out=c, groups=c)]
    return [*grown, kernel._replace(c_in=kernel.c_in + by), kernel._replace(c_out=kernel.c_out + by)]


class TestOrders:
    @given(dense, st.integers(1, 50), parameter_vectors)
    @settings(derandomize=True, max_examples=200, deadline=None)
    def test_more_channels_pixels_or_inputs_always_take_longer(self, kernel, by, parameters):
        assert all(of(grown, parameters) > of(kernel, parameters) for grown in larger(kernel, by))

    @given(dense, parameter_vectors)
    @settings(derandomize=True, max_examples=60, deadline=None)
    def test_a_larger_window_of_the_same_kind_always_takes_longer(self, kernel, parameters):
        windows = (3, 5, 7) if kernel.op == "conv" else (1, 3, 5, 7)
        times = [of(kernel._replace(kernel=k), parameters) for k in windows]
        assert all(a < b for a, b in itertools.pairwise(times))

    @given(st.sampled_from(KERNELS), st.floats(1.01, 10))
    @settings(derandomize=True, max_examples=60, deadline=None)
    def test_a_faster_device_is_never_slower(self, kernel, factor):
        for faster in (
            RATES._replace(macs_per_s=RATES.macs_per_s * factor),
            RATES._replace(bytes_per_s=RATES.bytes_per_s * factor),
        ):
            assert of(kernel, rates=faster) <= of(kernel)

    def test_wider_numbers_take_longer(self):
        mode = load_device("nx").mode()
        fp32, fp16, int8 = (kernel_ms(WORK, MEDIANS, hardware(mode, p)) for p in ("fp32", "fp16", "int8"))
        assert (fp32 > fp16).all()
        assert (fp16 > int8).all()


class TestHardware:
    @pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("fp16", 2), ("int8", 1)])
    def test_rates_come_from_the_data_sheet(self, precision, size):
        mode = load_device("nx").mode()
        peaks = (mode.peak_macs_per_s(precision), mode.bandwidth_bytes_per_s)
        assert hardware(mode, precision) == (*peaks, size, 1 if precision == "fp32" else 64, 512 * 1024)

    @pytest.mark.parametrize(
        ("device", "precision", "tile"),
        [
            ("nano", "fp16", 1),
            ("tx2", "fp16", 1),
            ("agx-orin", "fp16", 64),
            ("agx-orin", "tf32", 64),
            ("agx", "fp32", 1),
        ],
    )
    def test_channels_come_in_tiles_on_tensor_cores_only(self, device, precision, tile):
        assert hardware(load_device(device).mode(), precision).channel_tile == tile

    def test_tf32_is_stored_as_fp32(self):
        assert hardware(load_device("agx-orin").mode(), "tf32").bytes_per_element == 4

    def test_no_kernels_take_no_time(self):
        assert kernel_ms(work_of([]), MEDIANS, RATES).sum() == 0.0


def test_a_detector_with_more_work_of_each_kind_takes_longer_with_any_parameters():
    """Kernel by kernel, so the order of sums holds too."""
    base = YoloRetConfig(backbone="mobilenetv2", width=0.5, drop=2, rfcr=3)
    bigger = [
        replace(base, width=0.75),
        replace(base, drop=1),
        replace(base, rfcr=5),
        replace(base, shortcut=True),
        replace(base, resolution=352),
        replace(base, repeats=2),
        replace(base, classes=21),
    ]
    generator = np.random.default_rng(0)
    for _ in range(10):
        parameters = MEDIANS * np.exp(generator.uniform(-1, 1, len(ENGINE_PARAMETERS)))
        times = [kernel_ms(work_of(graph_kernels(build(c))), parameters, RATES).sum() for c in (base, *bigger)]
        assert all(time > times[0] for time in times[1:])
