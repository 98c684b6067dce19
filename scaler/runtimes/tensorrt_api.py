"""TensorRT's Python package behind one face: everything that differs between 8.0 and 11.x is here and only here.

==========================  =================================================================================
until 8.4                   `max_workspace_size`; then `set_memory_pool_limit`
8.0                         no engine inspector, verbosity `VERBOSE`; then `DETAILED`
until 8.5                   bindings by index, `execute_async_v2`, `set_binding_shape`; then tensors by name and
                            `execute_async_v3`, `set_input_shape`
until 10.0                  networks need the flag `EXPLICIT_BATCH`
from 8.5                    outputs of unknown size, by an allocator
from 8.6                    `max_aux_streams`
until 11.0                  builder flags for FP16 and INT8, dynamic ranges; then the model's own number format
==========================  =================================================================================

Source: python/src/infer/pyCore.cpp and pyGraph.cpp of github.com/NVIDIA/TensorRT, branches release/8.0 to
release/11.1. Building is checked against NVIDIA's `tensorrt_rtx` package, the rest against fakes of each version;
nothing here has run on a GPU yet.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from scaler.devices import Precision
from scaler.errors import MissingExtraError, UnsupportedError
from scaler.runtimes.protocol import ModelRejectedError, RuntimeFailedError
from scaler.runtimes.tensorrt_callbacks import LayerReport, Messages, make_logger, make_output_keeper, make_profiler
from scaler.runtimes.tensorrt_errors import failure
from scaler.runtimes.tensorrt_version import STRONGLY_TYPED, Span, Version, check_version

__all__ = ["Built", "EngineSettings", "Tensor", "TensorRtApi", "load_api"]

_MEMORY_POOLS = Span(since=(8, 4))
_DETAILED = Span(since=(8, 2))
_INSPECTOR = Span(since=(8, 2))
_TENSOR_NAMES = Span(since=(8, 5))
_EXPLICIT_BATCH = Span(until=(10, 0))
_AUXILIARY_STREAMS = Span(since=(8, 6))

_NUMPY = {"FLOAT": "float32", "HALF": "float16", "BF16": "uint16", "FP8": "uint8", "BOOL": "bool"}
"""Numpy's name of a number format where it is not TensorRT's in small letters (`INT32`, `UINT8`); bits where numpy has
none."""
_MIB = 2**20
_RANGE = 4.0
"""Made-up dynamic range of every tensor for INT8: no accuracy, but the right kernels; trtexec does likewise. A model
with quantisation nodes brings its own, and TensorRT takes no other there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How engines are built."""

    precision: Precision
    workspace_mib: int
    batch: int = 1
    """Of a model whose batch is open: the most pictures at a time, and those for which it is made fast."""
    dla: int | None = None
    """DLA core that computes what it can, the GPU the rest."""


class Built(NamedTuple):
    """An engine, and what was learned while it was built."""

    plan: bytes
    timing_cache: bytes
    log: str = ""
    """What TensorRT said: memory, layers on the DLA, warnings."""
    fallback: tuple[str, ...] = ()
    """Layers that the DLA does not take, where it was to."""
    seconds: float = 0.0
    """Of building."""


class Tensor(NamedTuple):
    """An input or output of an engine."""

    name: str
    shape: tuple[int, ...]
    """-1 where it is open: of a batch, or of an output whose size depends on what is computed."""
    dtype: str
    """As numpy calls it."""
    is_input: bool


def load_api() -> TensorRtApi:
    """The installed TensorRT, one for the whole process: it keeps to the first logger that it was given.

    Raises:
        MissingExtraError: The package `tensorrt` is not installed.
        UnsupportedError: It is older than 8.0, or its libraries cannot be loaded.
    """
    try:
        import tensorrt  # noqa: PLC0415
    except ModuleNotFoundError:
        raise MissingExtraError("TensorRT in process", "tensorrt", "tensorrt") from None
    except ImportError as error:
        raise UnsupportedError(f"the package tensorrt cannot be loaded: {error}; is it made for this CUDA?") from None
    return _api_of(tensorrt)


@lru_cache(maxsize=1)
def _api_of(package: Any) -> TensorRtApi:
    return TensorRtApi(package, package_version(str(package.__version__)))


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
        self._messages = Messages()
        self._logger = make_logger(package, self._messages)
        package.init_libnvinfer_plugins(self._logger, "")

    def has_auxiliary_streams(self) -> bool:
        """Whether engines may use several streams, unless told not to."""
        return _AUXILIARY_STREAMS.includes(self.version)

    def take_messages(self) -> tuple[str, ...]:
        """Error messages since the last call."""
        return self._messages.take_errors()

    def take_log(self) -> str:
        """Everything that TensorRT said since the last call, a message a line."""
        return self._messages.take_log()

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
            ModelRejectedError: TensorRT does not take it, or more of its shapes is open than the batch.
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
        for entry in _inputs(network):
            if -1 in tuple(entry.shape)[1:]:
                raise ModelRejectedError(
                    f"{model.name}: more than the batch of its input {entry.name} is open; export it with one size"
                )
        return network

    def configure(self, builder: Any, network: Any, settings: EngineSettings) -> Any:
        """The configuration for building a network.

        Raises:
            UnsupportedError: There is no such DLA core, or it does not take the precision.
        """
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
                if not any(layer.type == trt.LayerType.QUANTIZE for layer in _layers(network)):
                    _set_ranges(network)
        self._open_batch(builder, network, config, settings.batch)
        if settings.dla is not None:
            self._use_dla(builder, config, settings.dla)
        return config

    def _open_batch(self, builder: Any, network: Any, config: Any, batch: int) -> None:
        """Say how many pictures come at a time where the model leaves it open."""
        opened = [entry for entry in _inputs(network) if tuple(entry.shape)[:1] == (-1,)]
        if opened:
            profile = builder.create_optimization_profile()
            for entry in opened:
                picture = tuple(entry.shape)[1:]
                profile.set_shape(entry.name, (1, *picture), (batch, *picture), (batch, *picture))
            config.add_optimization_profile(profile)

    def _use_dla(self, builder: Any, config: Any, core: int) -> None:
        """Let a DLA core compute what it can."""
        trt = self._trt
        cores = builder.num_DLA_cores
        if core >= cores:
            raise UnsupportedError(f"there is no DLA core {core} here: this GPU has {cores or 'none'}")
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)

    def build(self, model: Path, settings: EngineSettings, timing_cache: bytes = b"") -> Built:
        """Build the engine of an ONNX model.

        Args:
            model: The file.
            settings: Precision and workspace; from 11.0 on the model has its number format itself.
            timing_cache: What an earlier build returned; an unfit one counts as none.

        Raises:
            ModelRejectedError: TensorRT does not take it.
            RuntimeFailedError: Out of memory, or CUDA failed.
            UnsupportedError: There is no such DLA core.
        """
        self.take_messages()
        self.take_log()
        what = f"{model.name}: building the engine"
        builder = self.builder()
        network = self.parse(model, builder)
        config = self.configure(builder, network, settings)
        cache = config.create_timing_cache(timing_cache)
        if cache is None:
            cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, True)
        fallback: tuple[str, ...] = ()
        if settings.dla is not None:
            fallback = tuple(str(layer.name) for layer in _layers(network) if not config.can_run_on_DLA(layer))
        try:
            plan = builder.build_serialized_network(network, config)
        except MemoryError:
            raise failure(["out of memory", *self.take_messages()], what, RuntimeFailedError) from None
        if plan is None:
            raise failure(self.take_messages(), what, ModelRejectedError)
        self.take_messages()  # of kernels that were tried and failed
        return Built(bytes(plan), bytes(config.get_timing_cache().serialize()), self.take_log(), fallback)

    def load(self, plan: bytes, subject: str, dla: int | None = None) -> Any:
        """Load an engine, onto a DLA core where it was built for one.

        Raises:
            RuntimeFailedError: It cannot be loaded.
        """
        runtime = self._trt.Runtime(self._logger)
        if dla is not None:
            runtime.DLA_core = dla
        engine = runtime.deserialize_cuda_engine(plan)
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
                Tensor(
                    name,
                    tuple(engine.get_tensor_shape(name)),
                    _numpy(engine.get_tensor_dtype(name)),
                    engine.get_tensor_mode(name) == is_input,
                )
                for name in names
            )
        return tuple(
            Tensor(
                engine.get_binding_name(place),
                tuple(engine.get_binding_shape(place)),
                _numpy(engine.get_binding_dtype(place)),
                engine.binding_is_input(place),
            )
            for place in range(engine.num_bindings)
        )

    def set_shape(self, context: Any, engine: Any, name: str, shape: tuple[int, ...]) -> bool:
        """Tell how large an input with an open batch is; whether the engine takes that."""
        if _TENSOR_NAMES.includes(self.version):
            return bool(context.set_input_shape(name, shape))
        return bool(context.set_binding_shape(engine.get_binding_index(name), shape))

    def shape(self, context: Any, engine: Any, name: str) -> tuple[int, ...]:
        """Shape of an input or output for the shapes that were set; -1 where it depends on what is computed."""
        if _TENSOR_NAMES.includes(self.version):
            return tuple(context.get_tensor_shape(name))
        return tuple(context.get_binding_shape(engine.get_binding_index(name)))

    def most_bytes(self, context: Any, name: str) -> int | None:
        """The most that an output takes for the shapes that were set; None before 8.5, which does not tell."""
        if not _TENSOR_NAMES.includes(self.version):
            return None
        return int(context.get_max_output_size(name))

    def keep_output(self, context: Any, name: str, address: int, size: int, shapes: dict[str, tuple[int, ...]]) -> None:
        """Take an output whose size depends on what is computed; see `make_output_keeper`. Since 8.5."""
        context.set_output_allocator(name, make_output_keeper(self._trt, address, size, shapes))

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
        context.profiler = make_profiler(self._trt, reports)
        return reports

    def layer_information(self, engine: Any) -> str | None:
        """What the engine inspector says, as JSON; None before 8.2."""
        if not _INSPECTOR.includes(self.version):
            return None
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(place) for place in range(network.num_inputs)]


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(place) for place in range(network.num_layers)]


def _set_ranges(network: Any) -> None:
    """Give every tensor a range, without which TensorRT builds no INT8 engine of a model that has none."""
    tensors = _inputs(network)
    for layer in _layers(network):
        tensors += [layer.get_output(number) for number in range(layer.num_outputs)]
    for tensor in tensors:
        if tensor is not None:
            tensor.dynamic_range = (-_RANGE, _RANGE)


def _numpy(dtype: Any) -> str:
    """Numpy's name of a number format of TensorRT's."""
    name = str(dtype.name)
    return _NUMPY.get(name, name.lower())


def _one_line(text: str) -> str:
    return " ".join(text.split())
