"""What a kernel takes that a measured table lacks: a Gaussian process on the table's own rows.

The table is the model: its rows are the training points, only a few hyperparameters a group of kernels are kept
beside them. What is regressed is the logarithm of the time over the kernel's work, so that far from every row a time
grows with the work. Kernels form groups (convolutions, depthwise, swish, ...) that share nothing but their
form: features are logarithms of sizes, channels also rounded up to the blocks in which vector units take them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.latency.kernels import Kernel

FloatArray: TypeAlias = npt.NDArray[np.float64]

CHANNEL_BLOCK = 16
"""Channels that kernels take at a time: 16 floats of a 512-bit vector; tensor cores take 8 or 16 halves."""
FEATURES = (
    "work",
    "pixels_out",
    "pixels_in",
    "channels_in",
    "channels_out",
    "padding",
    "kernel",
    "stride",
    "inputs",
    "activation",
)
ODD_CHANNELS = 4
"""Convolutions whose input channels are no multiple of this run on another path (75 channels of a YOLO head)."""
NARROW_INPUT = 8
"""Channels below which a convolution is a network's first, which has a path of its own everywhere."""
TREND_SD = 0.3
"""How far the throughput may drift per e-fold of a feature, beyond what the process sees: the width of its prior."""
UNSEEN_LOG_SD = 0.7
"""Standard deviation of the logarithm for a kernel of a group that the table does not have at all."""
_ACTIVATIONS = {"none": 0.0, "relu": 0.5, "relu6": 0.5, "sigmoid": 1.0}


class Sample(NamedTuple):
    """A measured kernel."""

    kernel: Kernel
    ms: float
    networks: int
    """How many networks it was measured in."""


class Hyper(NamedTuple):
    """Hyperparameters of a group."""

    amplitude: float
    """Standard deviation of the process, in logarithms."""
    noise: float
    """Standard deviation of one network's observation of a kernel."""
    lengths: tuple[float, ...]
    """Distance over which times are alike, a feature each, in the features' units."""


DEFAULT_HYPER = Hyper(0.3, 0.05, (2.0,) * len(FEATURES))


def group_of(kernel: Kernel) -> str:
    """The group whose kernels are alike."""
    if kernel.op == "pointwise":
        return f"pointwise {kernel.activation}"
    if kernel.op == "conv":
        if kernel.c_in < NARROW_INPUT:
            return "conv first"
        return "conv odd" if kernel.c_in % ODD_CHANNELS else "conv"
    return kernel.op


def padded(channels: int) -> int:
    """Channels rounded up to whole blocks; a few channels stay as they are."""
    return -(-channels // CHANNEL_BLOCK) * CHANNEL_BLOCK if channels >= NARROW_INPUT else channels


def features(kernels: Sequence[Kernel]) -> FloatArray:
    """`[kernels, len(FEATURES)]`; the first column is the logarithm of the work."""
    rows = []
    for k in kernels:
        pixels = k.h_out * k.w_out
        c_in, c_out = padded(k.c_in), padded(k.c_out)
        if k.op in ("conv", "linear"):
            reduction = k.kernel**2 * (k.c_in if k.groups > 1 else c_in) // k.groups
        else:
            reduction = k.kernel**2 if k.op in ("depthwise", "pool") else k.inputs
        rows.append(
            (
                math.log(max(reduction, 1) * c_out * pixels),
                math.log(pixels),
                math.log(k.h_in * k.w_in),
                math.log(c_in),
                math.log(c_out),
                (c_out - k.c_out + c_in - k.c_in) / CHANNEL_BLOCK,
                math.log(k.kernel),
                math.log(k.stride),
                float(k.inputs),
                _ACTIVATIONS.get(k.activation, 0.0),
            )
        )
    return np.array(rows, dtype=np.float64).reshape(-1, len(FEATURES))


def covariance(a: FloatArray, b: FloatArray, hyper: Hyper) -> FloatArray:
    """Prior covariance between two sets of points: a Matérn 5/2 process on a broad linear trend."""
    distance = np.sqrt(5 * squared_distance(a, b, np.array(hyper.lengths)) + 1e-12)
    process = hyper.amplitude**2 * (1 + distance + distance**2 / 3) * np.exp(-distance)
    return np.asarray(process + TREND_SD**2 * (a @ b.T) + 1.0)


def squared_distance(a: FloatArray, b: FloatArray, lengths: FloatArray) -> FloatArray:
    """Squared distances of all pairs, in lengths."""
    scaled_a, scaled_b = a / lengths, b / lengths
    square = (scaled_a**2).sum(axis=1)[:, None] + (scaled_b**2).sum(axis=1) - 2 * scaled_a @ scaled_b.T
    return np.asarray(np.maximum(square, 0.0))


class Group:
    """The process of one group, conditioned on its samples."""

    def __init__(self, samples: Sequence[Sample], hyper: Hyper) -> None:
        x = features([sample.kernel for sample in samples])
        y = np.log([sample.ms for sample in samples]) - x[:, 0]
        self._center = x.mean(axis=0)
        self._x = x - self._center
        self._level = float(y.mean())
        self._hyper = hyper
        matrix = covariance(self._x, self._x, hyper) + np.diag(observation_variance(samples, hyper.noise))
        self._inverse = np.linalg.inv(matrix)
        self._weights = self._inverse @ (y - self._level)

    def log_ms(self, kernels: Sequence[Kernel]) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the logarithm of each kernel's time in ms."""
        x = features(kernels)
        centered = x - self._center
        between = covariance(centered, self._x, self._hyper)
        mean = between @ self._weights + self._level + x[:, 0]
        own = self._hyper.amplitude**2 + TREND_SD**2 * (centered**2).sum(axis=1) + 1.0
        variance = own - ((between @ self._inverse) * between).sum(axis=1)
        return mean, np.sqrt(np.maximum(variance, 1e-8))


def observation_variance(samples: Sequence[Sample], noise: float) -> FloatArray:
    """Variance of each sample's logarithm: of one network's observation over the number of networks."""
    return np.array([noise**2 / sample.networks for sample in samples])


class KernelRegression:
    """All groups of a table.

    Args:
        samples: The measured kernels, each once.
        hypers: By group; a group without takes `DEFAULT_HYPER`.
    """

    def __init__(self, samples: Sequence[Sample], hypers: Mapping[str, Hyper]) -> None:
        by_group: dict[str, list[Sample]] = {}
        for sample in samples:
            by_group.setdefault(group_of(sample.kernel), []).append(sample)
        self._groups = {name: Group(rows, hypers.get(name, DEFAULT_HYPER)) for name, rows in by_group.items()}
        work = features([sample.kernel for sample in samples])[:, 0]
        self._usual = float(np.median(np.log([sample.ms for sample in samples]) - work))

    def log_ms(self, kernels: Sequence[Kernel]) -> tuple[FloatArray, FloatArray]:
        """Mean and standard deviation of the logarithm of each kernel's time in ms."""
        mean = features(kernels)[:, 0] + self._usual
        spread = np.full(len(kernels), UNSEEN_LOG_SD)
        places: dict[str, list[int]] = {}
        for place, kernel in enumerate(kernels):
            places.setdefault(group_of(kernel), []).append(place)
        for name, rows in places.items():
            if name in self._groups:
                mean[rows], spread[rows] = self._groups[name].log_ms([kernels[row] for row in rows])
        return mean, spread
