"""Fits a device model to published measurements: maximum a posteriori, with scipy.

Residuals are of the logarithm of the time. Tables 1 to 5 of the YOLO-ReT paper are one lab's single figures (noise 5 %:
the source disagrees with itself by that much). Times of other labs scatter as much, and all those of one network by
one lab share an error of 7 %, so that eight sizes of a network do not count as eight networks; a row that contradicts
the others beyond physics has a doubt on top.

Priors say what is physically sensible where the data do not. Devices resemble those of their kind, with tensor cores or
without, so each is fitted alone with wide priors first, and then the mean of the *others* of its kind is the prior of
its engine parameters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from scaler.devices import Device, Precision, load_device
from scaler.graph.graph import Graph
from scaler.latency.device_model import (
    ENGINE_PARAMETERS,
    FloatArray,
    Hardware,
    Work,
    hardware,
    kernel_ms_and_gradients,
    uses_tensor_cores,
    work_of,
)
from scaler.latency.fusion import graph_kernels
from scaler.latency.kernels import Kernel
from scaler.latency.measurements import Measurement, measurements
from scaler.latency.protocol import (
    OVERHEAD_PARAMETERS,
    SLOPES,
    TOOLCHAIN_PARAMETERS,
    NetworkSize,
    overhead_units,
    toolchain_slopes,
)

CALIBRATED_DEVICES = ("nano", "tx2", "nx", "agx", "orin-nano", "orin-nx", "agx-orin")
PRECISION: Precision = "fp16"
CALIBRATIONS: tuple[tuple[str, Precision], ...] = (*((name, PRECISION) for name in CALIBRATED_DEVICES), ("tx2", "fp32"))
"""Device and precision of every fit."""
PARAMETERS = ENGINE_PARAMETERS + OVERHEAD_PARAMETERS + TOOLCHAIN_PARAMETERS
_ENGINE = len(ENGINE_PARAMETERS)
_POSITIVE = _ENGINE + len(OVERHEAD_PARAMETERS)
"""Parameters before this index are positive and fitted as logarithms; the toolchain's follow as they are."""

PRIORS = {
    "launch_us": (8.0, 0.5),
    "gemm_efficiency": (0.5, 0.5),
    "spatial_efficiency": (0.6, 0.5),
    "conv_bandwidth": (0.7, 0.4),
    "depthwise_bandwidth": (0.3, 0.7),
    "elementwise_bandwidth": (0.7, 0.7),
    "idle_pixels": (64.0, 1.0),
    "idle_channels": (16.0, 1.0),
    "cache_gain": (1.0, 1.0),
    "fixed_ms": (3.0, 1.0),
    "ms_per_thousand_boxes": (0.5, 1.0),
    "trtutils_ms": (0.1, 1.0),
    "nms_ms": (0.3, 1.0),
    "nms_ms_per_thousand_boxes": (0.05, 1.0),
    "tf_to_trt_ms": (0.5, 1.0),
    "scaled_yolov4_ms": (0.3, 1.0),
    "toolchain": (0.0, 0.2),
    "toolchain_weights": (0.0, 0.2),
    "torch2trt": (0.0, 0.1),
    "tf_to_trt": (0.0, 0.15),
    "toolchain_memory": (0.0, 0.4),
}
"""Median and standard deviation of the logarithm; for the toolchain, mean and standard deviation."""

LIKE_LOG_SD = 0.5
"""How far a device may stray from its likes, as the standard deviation of the logarithm."""

NO_TOOLCHAIN_SD = 1e-3
"""Of the toolchain parameters of a device that was not timed with them, which are zero."""

EXTRAPOLATION_LOG_SD = 0.04
"""Of networks larger than any behind the fit, for every factor of e in multiply-accumulates: models fitted to a
thirtieth of the work predict the largest networks within 12 % (tests/test_latency_calibration.py)."""

PAPER_NOISE = 0.05
OTHER_LAB_NOISE = 0.05
OTHER_LAB_NETWORK_NOISE = 0.07
"""Shared by all times of one network by one lab."""


@dataclass(frozen=True, slots=True, eq=False)
class Priors:
    """Mean and standard deviation of the parameter vector."""

    mean: FloatArray
    deviation: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Measurements as arrays: what the fit and the cross-validation read."""

    rows: tuple[Measurement, ...]
    rates: tuple[Hardware, ...]
    """Of the power modes that occur."""
    mode: npt.NDArray[np.intp]
    """Which of them each row was taken in."""
    work: Work
    """Of all distinct kernels."""
    launches: tuple[Any, ...]
    """How often each network launches each kernel, a sparse matrix `[networks, kernels]` for each power mode."""
    macs: FloatArray
    units: FloatArray
    """Of the overhead parameters, `[networks, 7]`."""
    slopes: FloatArray
    """Of the toolchain parameters, `[networks, 5]`."""
    ms: FloatArray
    weight: FloatArray
    """1 over how often the same figure is printed: in two tables of a paper it is one measurement."""
    noise: FloatArray
    """Covariance of the logarithms of the times around the model, `[networks, networks]`."""
    priors: Priors

    def predict(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Frame times in ms and their derivatives `[networks, parameters]`."""
        moves = self.work.memory_bound[:, None]
        sums = np.empty((len(self.rows), 2 * (1 + _ENGINE)))
        for place, (rates, launches) in enumerate(zip(self.rates, self.launches, strict=True)):
            ms, gradients = kernel_ms_and_gradients(self.work, np.exp(theta[:_ENGINE]), rates)
            columns = np.column_stack([ms, gradients])
            sums[self.mode == place] = launches @ np.hstack([columns, columns * moves])
        whole, memory = np.split(sums, 2, axis=1)
        found = Engine(whole[:, 0], whole[:, 1:], memory[:, 0], memory[:, 1:])
        return compose(theta, found, self.units, self.slopes)

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """The rows of which an attribute is true."""
        return np.array([bool(getattr(row, name)) for row in self.rows])

    def informed(self) -> npt.NDArray[np.bool_]:
        """The parameters that some fitted row depends on."""
        _, gradient = self.predict(self.priors.mean)
        return np.asarray(np.abs(gradient[self.mask("fitted")]).max(axis=0) > 0)


@dataclass(frozen=True, slots=True, eq=False)
class Engine:
    """Engine times of networks in ms with their derivatives; `memory` is the share of kernels that only move data."""

    ms: FloatArray
    gradient: FloatArray
    memory: FloatArray
    memory_gradient: FloatArray


def seen_engine(theta: FloatArray, engine: Engine, slopes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Engine times in a protocol's toolchain, and their derivatives `[networks, parameters]`."""
    whole, of_memory = theta[_POSITIVE : _POSITIVE + SLOPES], theta[-1]
    factor = np.exp(slopes[:, :SLOPES] @ whole)[:, None]
    memory = np.exp(slopes[:, SLOPES] * of_memory)
    ms = factor[:, 0] * (engine.ms + (memory - 1) * engine.memory)
    gradient = factor * (engine.gradient + (memory - 1)[:, None] * engine.memory_gradient)
    by_memory = factor[:, 0] * memory * engine.memory * slopes[:, SLOPES]
    nothing = np.zeros((len(ms), len(OVERHEAD_PARAMETERS)))
    return ms, np.hstack([gradient, nothing, slopes[:, :SLOPES] * ms[:, None], by_memory[:, None]])


def compose(theta: FloatArray, engine: Engine, units: FloatArray, slopes: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Frame times and derivatives from engine times and the protocol's share; see `scaler.latency.protocol`."""
    ms, gradient = seen_engine(theta, engine, slopes)
    overhead = units * np.exp(theta[_ENGINE:_POSITIVE])
    gradient[:, _ENGINE:_POSITIVE] = overhead
    return ms + overhead.sum(axis=1), gradient


def problem(rows: Sequence[Measurement], device: Device, precision: Precision, priors: Priors) -> Problem:
    """Arrays of measurements taken on one device in one precision."""
    from scipy.sparse import csr_array  # noqa: PLC0415  (only for fits)

    networks = [graph_kernels(row.graph) for row in rows]
    index: dict[Kernel, int] = {}
    for kernels in networks:
        for kernel in kernels:
            index.setdefault(kernel, len(index))
    printed = Counter((row.source, row.group, row.ms) for row in rows)
    weight = np.array([1 / printed[row.source, row.group, row.ms] for row in rows])
    modes = list(dict.fromkeys(row.mode for row in rows))
    mode = np.array([modes.index(row.mode) for row in rows], dtype=np.intp)
    places = [(row, index[kernel]) for row, kernels in enumerate(networks) for kernel in kernels]
    counts: Any = csr_array((np.ones(len(places)), np.array(places).T), shape=(len(rows), len(index)))
    sizes = [network_size(row.graph, kernels) for row, kernels in zip(rows, networks, strict=True)]
    return Problem(
        rows=tuple(rows),
        rates=tuple(hardware(device.gpu_mode(mode), arithmetic(device, precision)) for mode in modes),
        mode=mode,
        work=work_of(list(index)),
        launches=tuple(counts[np.flatnonzero(mode == place)] for place in range(len(modes))),
        macs=np.array([size.macs for size in sizes]),
        units=np.array([overhead_units(row.protocol, size) for row, size in zip(rows, sizes, strict=True)]),
        slopes=np.array([toolchain_slopes(row.protocol, size) for row, size in zip(rows, sizes, strict=True)]),
        ms=np.array([row.ms for row in rows]),
        weight=weight,
        noise=_noise(rows, weight),
        priors=priors,
    )


def arithmetic(device: Device, precision: Precision) -> Precision:
    """What TensorRT computes in: engines of FP32 use TF32 where the GPU has it."""
    return "tf32" if precision == "fp32" and "tf32" in device.precisions else precision


def network_size(graph: Graph, kernels: Sequence[Kernel]) -> NetworkSize:
    """What overhead and toolchain of a network depend on."""
    return NetworkSize(
        weights=sum(kernel.weights for kernel in kernels),
        macs=sum(kernel.macs for kernel in kernels),
        boxes=graph.boxes,
    )


def _noise(rows: Sequence[Measurement], weight: FloatArray) -> FloatArray:
    own = [math.hypot(PAPER_NOISE if row.of_detector else OTHER_LAB_NOISE, row.doubt) for row in rows]
    keys = [None if row.of_detector else (row.source, row.group) for row in rows]
    shared = [[a is not None and a == b for b in keys] for a in keys]
    return np.asarray(np.diag(np.square(own) / weight) + OTHER_LAB_NETWORK_NOISE**2 * np.array(shared))


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A fitted device model.

    `theta` holds logarithms of the positive parameters, then the toolchain's; `covariance` is theirs. `residual_sd` is
    the scatter of measured over predicted times of whole frames, as the paper has them; `engine_sd` that of other
    labs' engine times. `largest_macs` is the work of the largest network behind the fit.
    """

    theta: FloatArray
    covariance: FloatArray
    residual_sd: float
    engine_sd: float
    largest_macs: float

    @property
    def engine(self) -> FloatArray:
        """Engine parameters in natural units."""
        return np.exp(self.theta[:_ENGINE])

    def named(self) -> dict[str, float]:
        """Parameters by name in natural units; the toolchain's as they are."""
        values = np.concatenate([np.exp(self.theta[:_POSITIVE]), self.theta[_POSITIVE:]])
        return dict(zip(PARAMETERS, values.tolist(), strict=True))

    def log_sd(self, ms: FloatArray, gradient: FloatArray, macs: FloatArray, scatter: FloatArray | float) -> FloatArray:
        """Standard deviation of the logarithm of predicted times with derivatives `gradient`.

        It holds what the parameters leave open, the scatter, and how far a network is larger than those measured.
        """
        relative = gradient / ms[:, None]
        parametric = np.einsum("ij,jk,ik->i", relative, self.covariance, relative)
        beyond = EXTRAPOLATION_LOG_SD * np.log(np.maximum(macs / self.largest_macs, 1.0))
        return np.asarray(np.sqrt(parametric + np.square(scatter) + np.square(beyond)))


def wide_priors() -> Priors:
    """What holds for any device."""
    means = [math.log(PRIORS[n][0]) if i < _POSITIVE else PRIORS[n][0] for i, n in enumerate(PARAMETERS)]
    return Priors(np.array(means), np.array([PRIORS[name][1] for name in PARAMETERS]))


def other_precision_priors(device: str) -> Priors:
    """What holds for a device in another precision: what holds for it in FP16, as far as likes resemble each other."""
    return Priors(calibrate(device)[1].theta, np.minimum(wide_priors().deviation, LIKE_LOG_SD))


@cache
def like_priors(device: str) -> Priors:
    """What holds for a device by its likes: those that use tensor cores as it does, itself left out.

    Overheads are those of the protocols that timed the device; where it has no times of a protocol, its likes'. A
    toolchain that never ran on it is none: its predictions are of clean engines.
    """
    profile, wide = load_device(device), wide_priors()
    tensor_cores = uses_tensor_cores(profile.require_gpu(), PRECISION)
    likes = [
        name
        for name in CALIBRATED_DEVICES
        if name != profile.id and uses_tensor_cores(load_device(name).require_gpu(), PRECISION) == tensor_cores
    ]
    fits = [_alone(name) for name in likes]
    own = _alone(device)[1] if profile.id in CALIBRATED_DEVICES else np.zeros(len(PARAMETERS), dtype=bool)
    mean, deviation = wide.mean.copy(), wide.deviation.copy()
    for place in range(len(PARAMETERS)):
        known = [theta[place] for theta, informed in fits if informed[place]]
        if place >= _POSITIVE and not own[place]:
            deviation[place] = NO_TOOLCHAIN_SD
        elif known and (place < _ENGINE or not own[place]):
            mean[place], deviation[place] = np.mean(known), min(LIKE_LOG_SD, wide.deviation[place])
    return Priors(mean, deviation)


@cache
def _alone(device: str) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """The parameters of a device fitted with the wide priors, and which of them its data tell."""
    data = problem(measurements(device, PRECISION), load_device(device), PRECISION, wide_priors())
    return fit(data).theta, data.informed()


def fit(
    data: Problem,
    chosen: npt.NDArray[np.bool_] | None = None,
    start: FloatArray | None = None,
    free: npt.NDArray[np.bool_] | None = None,
) -> Calibration:
    """Fit to the rows marked in `chosen` (all fitted rows by default), starting from `start` or the prior.

    Where `free` is given, only the marked parameters move, and the others keep the values of `start`.
    """
    from scipy.optimize import least_squares  # noqa: PLC0415  (0.4 s that only a fit should pay)

    use = data.mask("fitted") if chosen is None else chosen
    priors = data.priors
    begin = priors.mean if start is None else start
    move = np.ones(len(begin), dtype=bool) if free is None else free
    logs = np.log(data.ms[use])
    whiten = np.linalg.inv(np.linalg.cholesky(data.noise[np.ix_(use, use)]))
    pull = np.diag(1 / priors.deviation)[:, move]

    def full(moved: FloatArray) -> FloatArray:
        theta = begin.copy()
        theta[move] = moved
        return theta

    @lru_cache(maxsize=1)  # the solver asks for residuals and slopes of one place, one after the other
    def predicted(moved: bytes) -> tuple[FloatArray, FloatArray]:
        return data.predict(full(np.frombuffer(moved)))

    def residuals(moved: FloatArray) -> FloatArray:
        errors = np.log(predicted(moved.tobytes())[0][use]) - logs
        return np.concatenate([whiten @ errors, (full(moved) - priors.mean) / priors.deviation])

    def jacobian(moved: FloatArray) -> FloatArray:
        frame, gradient = predicted(moved.tobytes())
        return np.vstack([whiten @ (gradient / frame[:, None])[use][:, move], pull])

    solution = least_squares(residuals, begin[move], jac=jacobian, xtol=1e-9, ftol=1e-9)
    slopes = jacobian(solution.x)
    covariance = np.zeros((len(begin), len(begin)))
    covariance[np.ix_(move, move)] = np.linalg.inv(slopes.T @ slopes)
    theta = full(np.asarray(solution.x, dtype=np.float64))
    by_row = slopes[: use.sum()]
    leverage = np.einsum("ij,jk,ik->i", by_row, covariance[np.ix_(move, move)], by_row)
    errors = whiten @ (np.log(data.predict(theta)[0][use]) - logs)
    paper = data.mask("of_detector")[use]
    freedom = data.weight[use] - leverage
    other = _scatter(errors[~paper], freedom[~paper]) * math.hypot(OTHER_LAB_NOISE, OTHER_LAB_NETWORK_NOISE)
    frame = _scatter(errors[paper], freedom[paper]) * PAPER_NOISE if paper.any() else other
    largest = data.macs[use].max(initial=0.0) or data.macs.max()
    return Calibration(theta, covariance, frame, other, float(largest))


def _scatter(errors: FloatArray, freedoms: FloatArray) -> float:
    """Root mean square of errors in units of their noise, by the degrees of freedom left; 1 without any."""
    if not errors.size:
        return 1.0
    return math.sqrt(float(errors @ errors) / max(float(freedoms.sum()), 1.0))


@cache
def calibrate(device: str, precision: Precision = PRECISION) -> tuple[Problem, Calibration]:
    """Fit the model of a device to its published measurements."""
    priors = like_priors(device) if precision == PRECISION else other_precision_priors(device)
    data = problem(measurements(device, precision), load_device(device), precision, priors)
    return data, fit(data)
