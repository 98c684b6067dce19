"""The device model: how long one kernel takes, from its work and a device's data sheet.

A kernel costs its launch plus the smooth maximum of computing and moving data (a roofline):

- computing: `(k^2 c_in / groups + idle_channels) (c_out + idle_channels) (pixels + idle_pixels)`
  multiply-accumulates at a share of the peak rate; the idle terms are the utilisation of small kernels, which
  fill tiles and lanes only in part;
- moving: bytes read and written at a share of the memory bandwidth, one share for convolutions, one for
  depthwise convolutions and one for element-wise kernels. A share above 1 means that caches serve a part.

The shares, the idle terms and the launch time are the engine parameters, fitted per device in
`scaler.latency.calibration`. All are positive and are fitted as logarithms; gradients are with respect to those.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.devices import PowerMode, Precision, element_bytes
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
)
"""Names in the order of the parameter vector. `gemm`: 1x1 convolutions, the stem and fully connected layers;
`spatial`: dense k x k convolutions (Winograd saves work there, so their efficiency may exceed 1)."""

_LAUNCH, _GEMM, _SPATIAL, _CONV, _DEPTHWISE, _ELEMENTWISE, _PIXELS, _CHANNELS = range(8)
_SHARPNESS = 3
"""Exponent of the smooth maximum: where both sides are equal, the kernel takes 2^(1/3) = 1.26 times either."""

_NARROW_INPUT = 8
"""Channels below which a k x k convolution (the stem) runs as a plain matrix product."""


class Hardware(NamedTuple):
    """The data sheet's side of the model, in one power mode and precision."""

    macs_per_s: float
    bytes_per_s: float
    bytes_per_element: int


def hardware(mode: PowerMode, precision: Precision) -> Hardware:
    """Peak rates of a power mode at a precision."""
    return Hardware(mode.peak_macs_per_s(precision), mode.bandwidth_bytes_per_s, element_bytes(precision))


class Work(NamedTuple):
    """What kernels do, an array each."""

    reduction: FloatArray
    """Multiply-accumulates per output element."""
    pixels: FloatArray
    channels: FloatArray
    moved: FloatArray
    """Elements read and written."""
    computes: FloatArray
    """1 for kernels whose arithmetic counts, 0 for those that only move data."""
    efficiency: npt.NDArray[np.intp]
    """Which efficiency parameter holds."""
    bandwidth: npt.NDArray[np.intp]
    """Which bandwidth parameter holds."""


def work_of(kernels: Sequence[Kernel]) -> Work:
    """The work of kernels as arrays."""
    rows = [
        (
            k.kernel**2 * k.c_in // k.groups,
            k.h_out * k.w_out,
            k.c_out,
            k.moved,
            k.op in ("conv", "linear"),
            _SPATIAL if k.kernel > 1 and k.c_in >= _NARROW_INPUT else _GEMM,
            _CONV if k.op in ("conv", "linear") else _DEPTHWISE if k.op == "depthwise" else _ELEMENTWISE,
        )
        for k in kernels
    ]
    columns = np.array(rows, dtype=np.float64).reshape(-1, 7).T
    reduction, pixels, channels, moved, computes = columns[:5]
    efficiency, bandwidth = columns[5:].astype(np.intp)
    return Work(reduction, pixels, channels, moved, computes, efficiency, bandwidth)


def kernel_ms(work: Work, parameters: FloatArray, rates: Hardware) -> FloatArray:
    """Milliseconds of each kernel."""
    computing, moving = _sides(work, parameters, rates)
    return np.asarray(_smooth_maximum(computing, moving) + parameters[_LAUNCH] * 1e-3)


def kernel_ms_and_gradients(work: Work, parameters: FloatArray, rates: Hardware) -> tuple[FloatArray, FloatArray]:
    """Milliseconds of each kernel, and `[kernels, 8]` derivatives with respect to the parameters' logarithms."""
    computing, moving = _sides(work, parameters, rates)
    roof = _smooth_maximum(computing, moving)
    launch, idle_pixels, idle_channels = (parameters[i] for i in (_LAUNCH, _PIXELS, _CHANNELS))
    below = np.maximum(roof, 1e-30) ** (_SHARPNESS - 1)
    by_computing = computing**_SHARPNESS / below
    by_moving = moving**_SHARPNESS / below
    rows = np.arange(len(computing))
    gradients = np.zeros((len(computing), len(ENGINE_PARAMETERS)))
    gradients[:, _LAUNCH] = launch * 1e-3
    gradients[rows, work.efficiency] -= by_computing
    gradients[rows, work.bandwidth] -= by_moving
    gradients[:, _PIXELS] = by_computing * (idle_pixels / (work.pixels + idle_pixels))
    gradients[:, _CHANNELS] = by_computing * (
        idle_channels / (work.reduction + idle_channels) + idle_channels / (work.channels + idle_channels)
    )
    return roof + launch * 1e-3, gradients


def _sides(work: Work, parameters: FloatArray, rates: Hardware) -> tuple[FloatArray, FloatArray]:
    """Milliseconds of computing and of moving data."""
    idle_channels = parameters[_CHANNELS]
    macs = (
        (work.reduction + idle_channels)
        * (work.channels + idle_channels)
        * (work.pixels + parameters[_PIXELS])
        * work.computes
    )
    computing = macs / (rates.macs_per_s * parameters[work.efficiency]) * 1e3
    moving = work.moved * rates.bytes_per_element / (rates.bytes_per_s * parameters[work.bandwidth]) * 1e3
    return computing, moving


def _smooth_maximum(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.asarray((a**_SHARPNESS + b**_SHARPNESS) ** (1 / _SHARPNESS))
