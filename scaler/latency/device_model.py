"""The device model: how long one kernel takes, from its work and a device's data sheet.

A kernel costs its launch plus the smooth maximum of computing and moving data (a roofline):

- computing: `(k^2 c_in / groups + idle_channels) (c_out + idle_channels) (pixels + idle_pixels)`
  multiply-accumulates at a share of the peak rate; the idle terms are the utilisation of small kernels, which
  fill tiles and lanes only in part. On tensor cores, c_out counts in whole tiles of 64;
- moving: bytes read and written at a share of the memory bandwidth, one share for convolutions, one for
  depthwise convolutions and one for element-wise kernels. What the second-level cache holds of the feature maps,
  `1 / (1 + (maps / cache)^2)` of them, moves `1 + cache_gain` times as fast. A share above 1 means that caches serve
  more than that.

The shares, the idle terms and the launch time are the engine parameters, fitted per device in
`scaler.latency.calibration`. All are positive and are fitted as logarithms; gradients are with respect to those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.devices import Gpu, PowerMode, Precision, element_bytes
from scaler.latency.kernels import Kernel

FloatArray: TypeAlias = npt.NDArray[np.float64]

ENGINE_PARAMETERS = (
    "launch_us",
    "gemm_efficiency",
    "spatial_efficiency",
    "conv_bandwidth",
    "depthwise_bandwidth",
    "elementwise_bandwidth",
    "idle_pixels",
    "idle_channels",
    "cache_gain",
)
"""Names in the order of the parameter vector. `gemm`: 1x1 convolutions, the stem and fully connected layers;
`spatial`: dense k x k convolutions (Winograd saves work there, so their efficiency may exceed 1)."""

_LAUNCH, _GEMM, _SPATIAL, _CONV, _DEPTHWISE, _ELEMENTWISE, _PIXELS, _CHANNELS, _CACHE = range(9)
_NARROW_INPUT = 8
"""Channels below which a k x k convolution (the stem) runs as a plain matrix product."""

TENSOR_CORE_TILE = 64
"""Output channels that a tensor core kernel computes at once; the last tile costs as much as a full one."""


class Hardware(NamedTuple):
    """The data sheet's side of the model, in one power mode and precision."""

    macs_per_s: float
    bytes_per_s: float
    bytes_per_element: int
    channel_tile: int = 1
    """Output channels are computed in multiples of it."""
    cache_bytes: float = 0.0
    """Size of the second-level cache."""


def uses_tensor_cores(gpu: Gpu, precision: Precision) -> bool:
    """Whether a precision runs on tensor cores: more than twice as fast as FP32 on CUDA cores."""
    rates = dict(gpu.fma_per_sm_clock)
    return rates.get(precision, 0) > 2 * rates["fp32"]


def hardware(mode: PowerMode, precision: Precision) -> Hardware:
    """Peak rates of a power mode at a precision."""
    tile = TENSOR_CORE_TILE if uses_tensor_cores(mode.gpu, precision) else 1
    return Hardware(
        mode.peak_macs_per_s(precision),
        mode.bandwidth_bytes_per_s,
        element_bytes(precision),
        tile,
        mode.gpu.l2_kib * 1024.0,
    )


class Work(NamedTuple):
    """What kernels do, an array each."""

    reduction: FloatArray
    """Multiply-accumulates per output element."""
    pixels: FloatArray
    channels: FloatArray
    maps: FloatArray
    """Elements of feature maps read and written."""
    weights: FloatArray
    computes: FloatArray
    """1 for kernels whose arithmetic counts, 0 for those that only move data."""
    efficiency: npt.NDArray[np.intp]
    """Which efficiency parameter holds."""
    bandwidth: npt.NDArray[np.intp]
    """Which bandwidth parameter holds."""

    @property
    def memory_bound(self) -> npt.NDArray[np.bool_]:
        """Whether a kernel only moves data, as depthwise and element-wise kernels do."""
        return np.asarray(self.computes == 0)


def work_of(kernels: Sequence[Kernel]) -> Work:
    """The work of kernels as arrays."""
    rows = [
        (
            k.kernel**2 * k.c_in // k.groups,
            k.h_out * k.w_out,
            k.c_out,
            k.moved - k.weights,
            k.weights,
            k.op in ("conv", "linear"),
            _SPATIAL if k.kernel > 1 and k.c_in >= _NARROW_INPUT else _GEMM,
            _CONV if k.op in ("conv", "linear") else _DEPTHWISE if k.op == "depthwise" else _ELEMENTWISE,
        )
        for k in kernels
    ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 8).T
    efficiency, bandwidth = columns[6:].astype(np.intp)
    reduction, pixels, channels, maps, weights, computes = columns[:6]
    return Work(reduction, pixels, channels, maps, weights, computes, efficiency, bandwidth)


def kernel_ms(work: Work, parameters: FloatArray, rates: Hardware) -> FloatArray:
    """Milliseconds of each kernel."""
    computing, moving = _sides(work, parameters, rates)
    return np.asarray(_smooth_maximum(computing, moving) + parameters[_LAUNCH] * 1e-3)


def kernel_ms_and_gradients(work: Work, parameters: FloatArray, rates: Hardware) -> tuple[FloatArray, FloatArray]:
    """Milliseconds of each kernel, and `[kernels, 9]` derivatives with respect to the parameters' logarithms."""
    computing, moving = _sides(work, parameters, rates)
    roof = _smooth_maximum(computing, moving)
    launch, idle_pixels, idle_channels = (parameters[i] for i in (_LAUNCH, _PIXELS, _CHANNELS))
    below = np.maximum(roof, 1e-30) ** 2
    by_computing = computing * computing * computing / below
    by_moving = moving * moving * moving / below
    rows = np.arange(len(computing))
    gradients = np.zeros((len(computing), len(ENGINE_PARAMETERS)))
    gradients[:, _LAUNCH] = launch * 1e-3
    gradients[rows, work.efficiency] -= by_computing
    gradients[rows, work.bandwidth] -= by_moving
    gradients[:, _PIXELS] = by_computing * (idle_pixels / (work.pixels + idle_pixels))
    channels = _in_tiles(work, rates)
    gradients[:, _CHANNELS] = by_computing * (
        idle_channels / (work.reduction + idle_channels) + idle_channels / (channels + idle_channels)
    )
    gain = float(parameters[_CACHE])
    saved = _cached(work, rates) * gain / (1 + gain) ** 2
    moved = work.weights + work.maps - _cached(work, rates) * _saved(parameters)
    gradients[:, _CACHE] = -by_moving * saved / np.maximum(moved, 1e-30)
    return roof + launch * 1e-3, gradients


def _sides(work: Work, parameters: FloatArray, rates: Hardware) -> tuple[FloatArray, FloatArray]:
    """Milliseconds of computing and of moving data."""
    idle_channels = parameters[_CHANNELS]
    macs = (
        (work.reduction + idle_channels)
        * (_in_tiles(work, rates) + idle_channels)
        * (work.pixels + parameters[_PIXELS])
        * work.computes
    )
    computing = macs / (rates.macs_per_s * parameters[work.efficiency]) * 1e3
    share = parameters[work.bandwidth]
    moved = work.weights + work.maps - _cached(work, rates) * _saved(parameters)
    return computing, moved * rates.bytes_per_element / (rates.bytes_per_s * share) * 1e3


def _cached(work: Work, rates: Hardware) -> FloatArray:
    """Elements of maps that the cache holds."""
    if not rates.cache_bytes:
        return np.zeros_like(work.maps)
    return np.asarray(work.maps / (1 + (work.maps * rates.bytes_per_element / rates.cache_bytes) ** 2))


def _saved(parameters: FloatArray) -> float:
    """The share of the time that a cached element saves."""
    gain = float(parameters[_CACHE])
    return gain / (1 + gain)


def _in_tiles(work: Work, rates: Hardware) -> FloatArray:
    """Output channels, the last tile filled up."""
    return np.asarray(np.ceil(work.channels / rates.channel_tile) * rates.channel_tile)


def _smooth_maximum(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cube root of the sum of cubes: where both sides are equal, the kernel takes 2^(1/3) = 1.26 times either."""
    return np.cbrt(a * a * a + b * b * b)
