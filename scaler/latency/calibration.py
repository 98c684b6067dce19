"""Fits a device model to published measurements: maximum a posteriori, with scipy.

Priors are wide and the same for every device; they say what is physically sensible where the data do not.
Residuals are of the logarithm of the frame time. Tables 1 to 5 of the YOLO-ReT paper are one lab's single
figures (noise 5 %: the source disagrees with itself by that much); other labs' engine times anchor the
split between engine and overhead at their toolchains' mutual distance (15 %).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from scaler.devices import PowerMode, Precision, load_device
from scaler.graph.graph import Graph
from scaler.latency.device_model import (
    ENGINE_PARAMETERS,
    FloatArray,
    Hardware,
    Work,
    hardware,
    kernel_ms_and_gradients,
    work_of,
)
from scaler.latency.fusion import graph_kernels
from scaler.latency.kernels import Kernel
from scaler.latency.protocol import (
    ENGINE,
    OVERHEAD_PARAMETERS,
    TOOLCHAIN_PARAMETERS,
    YOLO_RET,
    YOLO_RET_CLASSIFIER,
    NetworkSize,
    Protocol,
    toolchain_slopes,
)
from scaler.models.backbones import efficientnet, mobilenetv2, resnet
from scaler.models.detectors import yolo_ret
from scaler.published import engine_rows, yolo_ret_rows

CALIBRATED_DEVICES = ("nano", "nx", "agx")
PRECISION: Precision = "fp16"
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
    "fixed_ms": (3.0, 1.0),
    "ms_per_thousand_boxes": (0.5, 1.0),
    "toolchain": (0.0, 0.1),
    "toolchain_weights": (0.0, 0.1),
    "toolchain_pixels": (0.0, 0.1),
}
"""Median and standard deviation of the logarithm; for the toolchain, mean and standard deviation."""

PAPER_NOISE = 0.05
OTHER_LAB_NOISE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measurement:
    """One published time."""

    label: str
    group: str
    """Network: all its measurements are left out together in cross-validation."""
    backbone: str
    """Shared by its detectors and its classifier, which are left out together too."""
    graph: Graph
    protocol: Protocol
    ms: float
    reported: bool
    """Whether it counts in the reported errors: detectors of Tables 2 to 5 with a published neck."""
    fitted: bool
    """BiFPN rows are not fitted: that design is ours, not the paper's."""


@cache
def measurements(device: str) -> tuple[Measurement, ...]:
    """All published times of a device that we can rebuild the network of."""
    return (*_paper_rows(device), *_classifier_rows(device), *_engine_rows(device))


def _paper_rows(device: str) -> list[Measurement]:
    found = []
    for row in yolo_ret_rows():
        config, fps = row.detector(), getattr(row, f"fps_{device}", None)
        if config is None or fps is None:
            continue
        ours = config.neck == "bifpn"
        found.append(
            Measurement(
                label=f"Table {row.table}: {config.name}",
                group=config.name,
                backbone=_backbone(config.backbone, config.width),
                graph=yolo_ret.build(config),
                protocol=YOLO_RET,
                ms=1000 / fps,
                reported=not ours,
                fitted=not ours,
            )
        )
    return found


def _classifier_rows(device: str) -> list[Measurement]:
    graphs = {
        ("MobileNetV2", "1.4"): "mobilenetv2-1.4",
        ("EfficientNet", "B0"): "efficientnet-b0",
        ("EfficientNet", "B3"): "efficientnet-b3",
        ("ResNet50", ""): "resnet-50",
    }
    return [
        _classifier(f"Table 1: {network}", network, row.resolution, YOLO_RET_CLASSIFIER, 1000 / fps)
        for row in yolo_ret_rows()
        if row.table == "1"
        and (network := graphs.get((row.backbone, row.variant)))
        and (fps := getattr(row, f"fps_{device}", None))
    ]


def _engine_rows(device: str) -> list[Measurement]:
    return [
        _classifier(f"{row.source}: {row.network}", row.network, row.resolution, ENGINE, row.latency_ms)
        for row in engine_rows()
        if row.device == device
    ]


def _classifier(label: str, network: str, resolution: int, protocol: Protocol, ms: float) -> Measurement:
    family, _, variant = network.partition("-")
    if family == "mobilenetv2":
        graph = mobilenetv2.classifier(float(variant), resolution)
    else:
        module = {"efficientnet": efficientnet, "resnet": resnet}[family]
        graph = module.classifier(variant, resolution)
    return Measurement(
        label=label,
        group=f"{protocol.name} {network}",
        backbone=_backbone(family, float(variant)) if family == "mobilenetv2" else network,
        graph=graph,
        protocol=protocol,
        ms=ms,
        reported=False,
        fitted=True,
    )


def _backbone(name: str, width: float) -> str:
    return f"{name}-{width:g}" if name == "mobilenetv2" else name


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Measurements as arrays: what the fit and the cross-validation read."""

    rows: tuple[Measurement, ...]
    rates: Hardware
    work: Work
    """Of all distinct kernels."""
    counts: FloatArray
    """How often each network launches each kernel, `[networks, kernels]`."""
    fixed: FloatArray
    boxes: FloatArray
    """Thousands of candidate boxes, 0 where the protocol does not decode them."""
    slopes: FloatArray
    """Of the toolchain parameters, `[networks, 3]`."""
    ms: FloatArray
    noise: FloatArray

    def predict(self, theta: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Frame times in ms and their derivatives `[networks, parameters]`."""
        ms, gradients = kernel_ms_and_gradients(self.work, np.exp(theta[:_ENGINE]), self.rates)
        return compose(theta, self.counts @ ms, self.counts @ gradients, self.fixed, self.boxes, self.slopes)


def compose(
    theta: FloatArray,
    engine: FloatArray,
    gradient: FloatArray,
    fixed: FloatArray,
    boxes: FloatArray,
    slopes: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Frame times and derivatives from engine times and the protocol's share; see `scaler.latency.protocol`."""
    fixed_ms, per_thousand = np.exp(theta[_ENGINE:_POSITIVE])
    seen = engine * np.exp(slopes @ theta[_POSITIVE:])
    overhead = np.stack([fixed * fixed_ms, boxes * per_thousand], axis=1)
    scale = (seen / engine)[:, None]
    return seen + overhead.sum(axis=1), np.hstack([gradient * scale, overhead, slopes * seen[:, None]])


def problem(rows: Sequence[Measurement], mode: PowerMode) -> Problem:
    """Arrays of measurements taken in one power mode."""
    networks = [graph_kernels(row.graph) for row in rows]
    index: dict[Kernel, int] = {}
    for kernels in networks:
        for kernel in kernels:
            index.setdefault(kernel, len(index))
    counts = np.zeros((len(rows), len(index)))
    for place, kernels in enumerate(networks):
        np.add.at(counts[place], [index[kernel] for kernel in kernels], 1.0)
    sizes = [network_size(row.graph, kernels) for row, kernels in zip(rows, networks, strict=True)]
    return Problem(
        rows=tuple(rows),
        rates=hardware(mode, PRECISION),
        work=work_of(list(index)),
        counts=counts,
        fixed=np.array([float(row.protocol.fixed) for row in rows]),
        boxes=np.array([s.boxes / 1e3 * r.protocol.boxes for r, s in zip(rows, sizes, strict=True)]),
        slopes=np.array(
            [np.array(toolchain_slopes(s)) * r.protocol.toolchain for r, s in zip(rows, sizes, strict=True)]
        ),
        ms=np.array([row.ms for row in rows]),
        noise=np.array([OTHER_LAB_NOISE if row.protocol is ENGINE else PAPER_NOISE for row in rows]),
    )


def network_size(graph: Graph, kernels: Sequence[Kernel]) -> NetworkSize:
    """What overhead and toolchain of a network depend on."""
    return NetworkSize(
        weights=sum(kernel.weights for kernel in kernels),
        macs=sum(kernel.macs for kernel in kernels),
        pixels=graph.input_shape[1] * graph.input_shape[2],
        boxes=graph.boxes,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A fitted device model.

    `theta` holds logarithms of the positive parameters, then the toolchain's; `covariance` is theirs;
    `residual_sd` is the scatter of measured over predicted frame times of the reported rows.
    """

    theta: FloatArray
    covariance: FloatArray
    residual_sd: float

    @property
    def engine(self) -> FloatArray:
        """Engine parameters in natural units."""
        return np.exp(self.theta[:_ENGINE])

    def named(self) -> dict[str, float]:
        """Parameters by name in natural units; the toolchain's as they are."""
        values = np.concatenate([np.exp(self.theta[:_POSITIVE]), self.theta[_POSITIVE:]])
        return dict(zip(PARAMETERS, values.tolist(), strict=True))

    def log_sd(self, frame: FloatArray, gradient: FloatArray) -> FloatArray:
        """Standard deviation of the logarithm of predicted frame times, residual scatter included."""
        relative = gradient / frame[:, None]
        parametric = np.einsum("ij,jk,ik->i", relative, self.covariance, relative)
        return np.asarray(np.sqrt(parametric + self.residual_sd**2))


def prior() -> tuple[FloatArray, FloatArray]:
    """Mean and standard deviation of the parameter vector."""
    means = [math.log(PRIORS[n][0]) if i < _POSITIVE else PRIORS[n][0] for i, n in enumerate(PARAMETERS)]
    return np.array(means), np.array([PRIORS[name][1] for name in PARAMETERS])


def fit(data: Problem, chosen: FloatArray | None = None, start: FloatArray | None = None) -> Calibration:
    """Fit to the rows marked in `chosen` (all fitted rows by default), starting from `start` or the prior."""
    from scipy.optimize import least_squares  # noqa: PLC0415  (0.4 s that only a fit should pay)

    use = np.array([row.fitted for row in data.rows]) if chosen is None else np.asarray(chosen, dtype=bool)
    mean, deviation = prior()
    logs, noise = np.log(data.ms[use]), data.noise[use]

    def residuals(theta: FloatArray) -> FloatArray:
        frame = data.predict(theta)[0][use]
        return np.concatenate([(np.log(frame) - logs) / noise, (theta - mean) / deviation])

    def jacobian(theta: FloatArray) -> FloatArray:
        frame, gradient = data.predict(theta)
        return np.vstack([(gradient / frame[:, None])[use] / noise[:, None], np.diag(1 / deviation)])

    solution = least_squares(residuals, mean if start is None else start, jac=jacobian, xtol=1e-10, ftol=1e-10)
    theta = np.asarray(solution.x, dtype=np.float64)
    normal = jacobian(theta).T @ jacobian(theta)
    covariance = np.asarray(np.linalg.inv(normal), dtype=np.float64)
    return Calibration(theta, covariance, _residual_sd(data, theta, covariance, use))


def _residual_sd(data: Problem, theta: FloatArray, covariance: FloatArray, use: FloatArray) -> float:
    """Scatter of the reported rows, with the degrees of freedom that the fit has spent on them."""
    reported = use & np.array([row.reported for row in data.rows])
    frame, gradient = data.predict(theta)
    relative = (gradient / frame[:, None])[reported]
    leverage = np.einsum("ij,jk,ik->", relative, covariance, relative) / PAPER_NOISE**2
    residual = np.log(data.ms[reported] / frame[reported])
    return math.sqrt(float(residual @ residual) / max(reported.sum() - leverage, 1.0))


def calibrate(device: str) -> tuple[Problem, Calibration]:
    """Fit the model of a device to its published measurements, in its default power mode."""
    data = problem(measurements(device), load_device(device).gpu_mode())
    return data, fit(data)
