"""A runtime that runs anywhere and always says the same: for tests, demonstrations, and trying a plan out.

It computes nothing. The time of a model is the sum of what its layers cost, which follows from the ONNX file or from
a function that the caller gives; noise, drift, throttling and failures are added as asked for. Its clock is its own:
it advances by the inferences that it pretends to make, so that a long measurement takes no time.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeAlias

import numpy as np

from scaler.devices import Precision
from scaler.runtimes.onnx_facts import load_model, require_file
from scaler.runtimes.protocol import Conditions, FloatArray, LayerTime, ModelRejectedError, RuntimeFailedError

__all__ = ["FakeFailure", "FakeNode", "FakeRuntime", "FakeSession", "node_ms", "onnx_layers"]

FakeFailure: TypeAlias = Literal["rejected", "out of memory", "crash"]
"""Refused or out of memory while being prepared; crashed while being timed."""

NAME = "fake"
PREPARATION_SECONDS = 1.0
THROTTLED_FACTOR = 1.5
_ROOM_C, _HOT_C = 40.0, 97.0
_MACS_PER_MS, _VALUES_PER_MS, _LAUNCH_MS = 4e8, 5e6, 0.004
_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_JOINS_WEIGHTS = ("BatchNormalization", "Relu", "Clip", "LeakyRelu", "Add")
_POINTWISE = ("Add", "Clip", "HardSigmoid", "LeakyRelu", "Mul", "Relu", "Sigmoid", "Softplus", "Tanh")


class FakeNode(NamedTuple):
    """What the cost of an ONNX node may depend on."""

    name: str
    kind: str
    macs: int
    """Multiply-accumulates."""
    moved: int
    """Values that it reads and writes, weights included."""


def node_ms(node: FakeNode) -> float:
    """Cost of a node on a device of 400 GMAC/s that moves 5 values a nanosecond."""
    return node.macs / _MACS_PER_MS + node.moved / _VALUES_PER_MS


def onnx_layers(model: Path, cost: Callable[[FakeNode], float] = node_ms) -> tuple[LayerTime, ...]:
    """The layers of an ONNX model, fused and named in the manner of TensorRT.

    Args:
        model: The file; its shapes must be static.
        cost: Milliseconds of one node; each layer costs its nodes and one launch.

    Raises:
        ModelRejectedError: There is no such file, or it is no ONNX model.
        MissingExtraError: The package `onnx` is not installed.
    """
    return tuple(
        LayerTime(
            _layer_name([node.name for node in group], group[0].kind),
            _LAUNCH_MS + sum(map(cost, group)),
            tuple(node.name for node in group),
            group[0].kind,
        )
        for group in _fused(model)
    )


class FakeRuntime:
    """A pretended device; an implementation of `scaler.runtimes.protocol.Runtime`.

    Args:
        layers: Layers of a model and what they cost; by default those of the ONNX file.
        noise: Standard deviation of the logarithm of a sample, 0.02 for samples that spread by 2 %.
        seed: Of the noise.
        slowdown: Factor on all times by seconds of the fake's clock: drift, a busy neighbour.
        throttle_after: Second of the fake's clock from which on it is throttled, half as slow again, and says so.
        failures: What goes wrong, by the name of the model's file.
        precision: Only recorded, like batch and power mode.
        batch: Pictures at a time.
        power_mode: Of the device.

    Attributes:
        seconds: What the fake's clock shows; a test may set it.
        calls: What was asked of the runtime, in order: `("time", "model.onnx", 20)`.
    """

    def __init__(
        self,
        layers: Callable[[Path], Sequence[LayerTime]] = onnx_layers,
        *,
        noise: float = 0.0,
        seed: int = 0,
        slowdown: Callable[[float], float] | None = None,
        throttle_after: float = math.inf,
        failures: Mapping[str, FakeFailure] | None = None,
        precision: Precision = "fp32",
        batch: int = 1,
        power_mode: str = "fake",
    ) -> None:
        self.layers = layers
        self.failures = dict(failures or {})
        self.seconds = 0.0
        self.calls: list[tuple[str, str, int]] = []
        self._noise = noise
        self._random = np.random.default_rng(seed)
        self._slowdown = slowdown
        self._throttle_after = throttle_after
        self._precision = precision
        self._batch = batch
        self._power_mode = power_mode

    @property
    def name(self) -> str:
        """`fake`."""
        return NAME

    @property
    def throttled(self) -> bool:
        """Whether it is too hot by now."""
        return self.seconds >= self._throttle_after

    def conditions(self) -> Conditions:
        """Conditions of the pretended device."""
        return Conditions(
            runtime=NAME,
            runtime_version="1",
            precision=self._precision,
            batch=self._batch,
            processor="fake processor",
            power_mode=self._power_mode,
            clocks_mhz={"gpu": 1000 / (THROTTLED_FACTOR if self.throttled else 1)},
            clocks_pinned=True,
            temperature_c=_HOT_C if self.throttled else _ROOM_C,
            throttled=self.throttled,
        )

    def prepare(self, model: Path) -> FakeSession:
        """Pretend to load a model; see `Runtime.prepare`."""
        self.calls.append(("prepare", model.name, 0))
        require_file(model)
        failure = self.failures.get(model.name)
        if failure == "rejected":
            raise ModelRejectedError(f"{model.name}: the fake runtime refuses it, as it was told to")
        if failure == "out of memory":
            raise RuntimeFailedError(f"{model.name}: not enough memory; the fake runtime was told to say so")
        layers = tuple(self.layers(model))
        self.seconds += PREPARATION_SECONDS
        return FakeSession(self, model.name, layers)

    def samples(self, ms: float, runs: int) -> FloatArray:
        """Times of `runs` inferences that cost `ms` each, with everything that slows and shakes them."""
        times = np.empty(runs)
        for index, noise in enumerate(np.exp(self._noise * self._random.standard_normal(runs))):
            factor = THROTTLED_FACTOR if self.throttled else 1.0
            factor *= self._slowdown(self.seconds) if self._slowdown else 1.0
            times[index] = ms * factor * noise
            self.seconds += float(times[index]) * 1e-3
        return times


class FakeSession:
    """One model of the fake; see `scaler.runtimes.protocol.Session`."""

    def __init__(self, runtime: FakeRuntime, model: str, layers: tuple[LayerTime, ...]) -> None:
        self._runtime = runtime
        self._model = model
        self._layers = layers

    def time(self, runs: int) -> FloatArray:
        """Times of `runs` inferences: the sum of the layers, each time."""
        self._enter("time", runs)
        return self._runtime.samples(sum(layer.ms for layer in self._layers), runs)

    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Median time of every layer."""
        self._enter("profile", runs)
        return tuple(
            layer._replace(ms=float(np.median(self._runtime.samples(layer.ms, runs)))) for layer in self._layers
        )

    def close(self) -> None:
        """Nothing to release."""

    def __enter__(self) -> Self:
        """Close at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _enter(self, what: str, runs: int) -> None:
        self._runtime.calls.append((what, self._model, runs))
        if self._runtime.failures.get(self._model) == "crash":
            raise RuntimeFailedError(f"{self._model}: the fake runtime crashed, as it was told to")


def _fused(model: Path) -> list[list[FakeNode]]:
    """Groups of nodes that are computed together: weights with what follows, chains of elementwise operators."""
    groups: list[list[FakeNode]] = []
    last = ""
    for node, inputs, alone, output in _nodes(model):
        kinds = {member.kind for member in groups[-1]} if groups else set()
        after_weights = not kinds.isdisjoint(_WITH_WEIGHTS) and node.kind in _JOINS_WEIGHTS and last in alone
        if after_weights or (kinds.issubset(_POINTWISE) and node.kind in _POINTWISE and last in inputs):
            groups[-1].append(node)
        else:
            groups.append([node])
        last = output
    return groups


def _nodes(model: Path) -> Iterator[tuple[FakeNode, Sequence[str], frozenset[str], str]]:
    """Each node, its inputs, those of them that nobody else reads, and its output."""
    loaded = load_model(model, "the fake runtime")
    import onnx  # noqa: PLC0415

    graph = onnx.shape_inference.infer_shapes(loaded).graph
    sizes = {
        value.name: math.prod(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    weights = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    reads = Counter(name for node in graph.node for name in node.input)
    for place, node in enumerate(graph.node):
        moved = [sizes.get(name, math.prod(weights.get(name, ()))) for name in (*node.input, *node.output) if name]
        macs = 0
        if node.op_type in _WITH_WEIGHTS:
            filters = weights.get(node.input[1], (1,))
            macs = sizes.get(node.output[0], 0) * math.prod(filters[1:])
        fake = FakeNode(node.name or f"node{place}", node.op_type, macs, sum(moved))
        yield fake, node.input, frozenset(name for name in node.input if reads[name] == 1), node.output[0]


def _layer_name(names: Sequence[str], kind: str) -> str:
    if kind not in _POINTWISE:
        return " + ".join(names)
    name = f"PWN({names[0]})"
    for following in names[1:]:
        name = f"PWN({name}, {following})"
    return name
