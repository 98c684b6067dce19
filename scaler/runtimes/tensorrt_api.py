"""TensorRT's Python package behind one face: everything that differs between 8.0 and 11.x is here and only here.

==========================  =================================================================================
until 8.4                   `max_workspace_size`; then `set_memory_pool_limit`
8.0                         no engine inspector, verbosity `VERBOSE`; then `DETAILED`
until 8.5                   bindings by index and `execute_async_v2`; then tensors by name and `execute_async_v3`
until 10.0                  networks need the flag `EXPLICIT_BATCH`
from 8.6                    `max_aux_streams`
until 11.0                  builder flags for FP16 and INT8, dynamic ranges; then the model's own number format
==========================  =================================================================================

Source: python/src/infer/pyCore.cpp and pyGraph.cpp of github.com/NVIDIA/TensorRT, branches release/8.0 to
release/11.1. Building is checked against NVIDIA's `tensorrt_rtx` package, the rest against fakes of each version;
nothing here has run on a GPU yet.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from scaler.devices import Precision
from scaler.errors import MissingExtraError, UnsupportedError
from scaler.runtimes.protocol import ModelRejectedError, RuntimeFailedError
from scaler.runtimes.tensorrt_errors import failure
from scaler.runtimes.tensorrt_version import STRONGLY_TYPED, Span, Version, check_version

__all__ = ["Built", "EngineSettings", "LayerReport", "Tensor", "TensorRtApi", "load_api"]

_MEMORY_POOLS = Span(since=(8, 4))
_DETAILED = Span(since=(8, 2))
_INSPECTOR = Span(since=(8, 2))
_TENSOR_NAMES = Span(since=(8, 5))
_EXPLICIT_BATCH = Span(until=(10, 0))
_AUXILIARY_STREAMS = Span(since=(8, 6))

_BYTES = {"FLOAT": 4, "INT32": 4, "HALF": 2, "BF16": 2, "INT8": 1, "UINT8": 1, "BOOL": 1, "FP8": 1, "INT64": 8}
_MIB = 2**20
_RANGE = 4.0
"""Made-up dynamic range of every tensor for INT8: no accuracy, but the right kernels; trtexec does likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How engines are built."""

    precision: Precision
    workspace_mib: int


class Built(NamedTuple):
    """An engine, and what was learned while it was built."""

    plan: bytes
    timing_cache: bytes


class Tensor(NamedTuple):
    """An input or output of an engine."""

    name: str
    shape: tuple[int, ...]
    size: int
    """Bytes."""
    is_input: bool


class LayerReport(NamedTuple):
    """Time of one layer in one inference."""

    name: str
    ms: float


def load_api() -> TensorRtApi:
    """The installed TensorRT.

    Raises:
        MissingExtraError: The package `tensorrt` is not installed.
        UnsupportedError: It is older than 8.0, or its libraries cannot be loaded.
    """
    try:
        import tensorrt  # noqa: PLC0415
    except ModuleNotFoundError:
        raise MissingExtraError("timing with TensorRT in process", "tensorrt", "tensorrt") from None
    except ImportError as error:
        raise UnsupportedError(f"the package tensorrt cannot be loaded: {error}; is it made for this CUDA?") from None
    return TensorRtApi(tensorrt, package_version(str(tensorrt.__version__)))


def package_version(text: str) -> Version:
    """The version in `tensorrt.__version__`: `8.2.1.9`, `10.3.0`."""
    numbers = [int(number) for number in re.findall(r"\d{1,9}", text)[:3]]
    return Version(*numbers, *[0] * (3 - len(numbers)))


class TensorRtApi:
    """The package of one version.

    Args:
        package: The module `tensorrt`, or one that behaves like it.
        version: Which API it has.

    Raises:
        UnsupportedError: The version is older than 8.0.
    """

    def __init__(self, package: Any, version: Version) -> None:
        check_version(version)
        self.version = version
        self._trt = package
        self._messages: list[str] = []
        self._logger = _logger(package, self._messages)

    def has_auxiliary_streams(self) -> bool:
        """Whether engines may use several streams, unless told not to."""
        return _AUXILIARY_STREAMS.includes(self.version)

    def take_messages(self) -> tuple[str, ...]:
        """Error messages since the last call."""
        taken = tuple(self._messages)
        self._messages.clear()
        return taken

    def builder(self) -> Any:
        """What makes networks and engines.

        Raises:
            RuntimeFailedError: TensorRT cannot be started.
        """
        try:
            return self._trt.Builder(self._logger)
        except (RuntimeError, TypeError):  # pybind11 makes no object of a null pointer
            raise failure(self.take_messages(), "starting TensorRT", RuntimeFailedError) from None

    def parse(self, model: Path, builder: Any) -> Any:
        """The network of an ONNX model.

        Raises:
            ModelRejectedError: TensorRT does not take it, or its shapes are not static.
        """
        trt = self._trt
        flags = 0
        if _EXPLICIT_BATCH.includes(self.version):
            flags = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
        network = builder.create_network(flags)
        parser = trt.OnnxParser(network, self._logger)
        if not parser.parse_from_file(str(model)):
            errors = [_one_line(str(parser.get_error(place))) for place in range(parser.num_errors)]
            raise failure([*errors, *self.take_messages()], f"{model.name}: reading it", ModelRejectedError)
        for place in range(network.num_inputs):
            if -1 in tuple(network.get_input(place).shape):
                name = network.get_input(place).name
                raise ModelRejectedError(
                    f"{model.name}: the shape of its input {name} is not static; export it with one"
                )
        return network

    def configure(self, builder: Any, network: Any, settings: EngineSettings) -> Any:
        """The configuration for building a network."""
        trt, config = self._trt, builder.create_builder_config()
        size = settings.workspace_mib * _MIB
        if _MEMORY_POOLS.includes(self.version):
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, size)
        else:
            config.max_workspace_size = size
        verbosity = trt.ProfilingVerbosity
        config.profiling_verbosity = verbosity.DETAILED if _DETAILED.includes(self.version) else verbosity.VERBOSE
        if self.has_auxiliary_streams():
            config.max_aux_streams = 0  # else layers overlap and their times add up to more than the network's
        if settings.precision == "fp32":
            config.clear_flag(trt.BuilderFlag.TF32)
        if self.version < STRONGLY_TYPED:
            if settings.precision in ("fp16", "int8"):
                config.set_flag(trt.BuilderFlag.FP16)
            if settings.precision == "int8":
                config.set_flag(trt.BuilderFlag.INT8)
                _set_ranges(network)
        return config

    def build(self, model: Path, settings: EngineSettings, timing_cache: bytes = b"") -> Built:
        """Build the engine of an ONNX model.

        Args:
            model: The file.
            settings: Precision and workspace; from 11.0 on the model has its number format itself.
            timing_cache: What an earlier build returned; an unfit one counts as none.

        Raises:
            ModelRejectedError: TensorRT does not take it.
            RuntimeFailedError: Out of memory, or CUDA failed.
        """
        self.take_messages()
        what = f"{model.name}: building the engine"
        builder = self.builder()
        network = self.parse(model, builder)
        config = self.configure(builder, network, settings)
        cache = config.create_timing_cache(timing_cache)
        if cache is None:
            cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, True)
        try:
            plan = builder.build_serialized_network(network, config)
        except MemoryError:
            raise failure(["out of memory", *self.take_messages()], what, RuntimeFailedError) from None
        if plan is None:
            raise failure(self.take_messages(), what, ModelRejectedError)
        self.take_messages()  # of kernels that were tried and failed
        return Built(bytes(plan), bytes(config.get_timing_cache().serialize()))

    def load(self, plan: bytes, subject: str) -> Any:
        """Load an engine.

        Raises:
            RuntimeFailedError: It cannot be loaded.
        """
        engine = self._trt.Runtime(self._logger).deserialize_cuda_engine(plan)
        if engine is None:
            raise failure(self.take_messages(), f"{subject}: loading the engine", RuntimeFailedError)
        return engine

    def context(self, engine: Any, subject: str) -> Any:
        """What runs an engine.

        Raises:
            RuntimeFailedError: There is no memory for it.
        """
        context = engine.create_execution_context()
        if context is None:
            raise failure(self.take_messages(), f"{subject}: making room for the activations", RuntimeFailedError)
        return context

    def tensors(self, engine: Any) -> tuple[Tensor, ...]:
        """Inputs and outputs of an engine in the order of its bindings."""
        if _TENSOR_NAMES.includes(self.version):
            is_input = self._trt.TensorIOMode.INPUT
            names = [engine.get_tensor_name(place) for place in range(engine.num_io_tensors)]
            return tuple(
                _tensor(
                    name,
                    engine.get_tensor_shape(name),
                    engine.get_tensor_dtype(name),
                    engine.get_tensor_mode(name) == is_input,
                )
                for name in names
            )
        return tuple(
            _tensor(
                engine.get_binding_name(place),
                engine.get_binding_shape(place),
                engine.get_binding_dtype(place),
                engine.binding_is_input(place),
            )
            for place in range(engine.num_bindings)
        )

    def bind(self, context: Any, addresses: Mapping[str, int]) -> None:
        """Tell where the tensors lie, by name and in the order of the bindings; once, before `enqueue`."""
        if _TENSOR_NAMES.includes(self.version):
            for name, address in addresses.items():
                context.set_tensor_address(name, address)

    def enqueue(self, context: Any, addresses: Mapping[str, int], stream: int) -> bool:
        """Put one inference into a CUDA stream; whether that went well."""
        if _TENSOR_NAMES.includes(self.version):
            return bool(context.execute_async_v3(stream))
        return bool(context.execute_async_v2(list(addresses.values()), stream))

    def execute(self, context: Any, addresses: Mapping[str, int]) -> bool:
        """Make one inference and wait for it, its profiler's report included; whether that went well."""
        return bool(context.execute_v2(list(addresses.values())))

    def watch(self, context: Any) -> list[LayerReport]:
        """Attach a profiler to a context; it adds to the list that is returned, layer by layer."""
        reports: list[LayerReport] = []
        context.profiler = _profiler(self._trt, reports)
        return reports

    def layer_information(self, engine: Any) -> str | None:
        """What the engine inspector says, as JSON; None before 8.2."""
        if not _INSPECTOR.includes(self.version):
            return None
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))


def _logger(package: Any, messages: list[str]) -> Any:
    """A logger that keeps errors and drops the rest."""
    worst = package.Logger.ERROR

    class Collector(package.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            package.ILogger.__init__(self)  # pybind11 wants it so

        def log(self, severity: Any, msg: str) -> None:
            if severity <= worst:
                messages.append(_one_line(msg))

    return Collector()


def _profiler(package: Any, reports: list[LayerReport]) -> Any:
    class Collector(package.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            package.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            reports.append(LayerReport(layer_name, ms))

    return Collector()


def _set_ranges(network: Any) -> None:
    """Give every tensor a range, without which TensorRT builds no INT8 engine of a model that has none."""
    tensors = [network.get_input(place) for place in range(network.num_inputs)]
    for place in range(network.num_layers):
        layer = network.get_layer(place)
        tensors += [layer.get_output(number) for number in range(layer.num_outputs)]
    for tensor in tensors:
        if tensor is not None:
            tensor.dynamic_range = (-_RANGE, _RANGE)


def _tensor(name: str, shape: Sequence[int], dtype: Any, is_input: bool) -> Tensor:
    dimensions = tuple(int(size) for size in shape)
    return Tensor(name, dimensions, math.prod(dimensions) * _BYTES.get(str(dtype.name), 4), bool(is_input))


def _one_line(text: str) -> str:
    return " ".join(text.split())
