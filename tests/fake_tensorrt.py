"""Fakes of the packages `tensorrt` and `pycuda`, with the API of one TensorRT version and nothing beside it.

Classes have exactly the methods and attributes that python/src/infer/pyCore.cpp of github.com/NVIDIA/TensorRT gives
them in the branch of that version, as far as scaler could use them: what a version lacks raises AttributeError, and
what it has but deprecates is left out too. An "engine" runs on a clock of its own.
"""

from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx
from fake_engine import described, plan_of
from fake_pycuda import World, cuda_modules
from fake_tensorrt_runtime import KINDS, LAYER_MS, OVERHEAD_MS, runtime_class

__all__ = ["LAYER_MS", "OVERHEAD_MS", "TIMING_CACHE", "World", "install", "rtx_available"]

TIMING_CACHE = b"timing cache "
ON_DLA = frozenset(["Add", "Concat", "Conv", "MaxPool", "Mul", "Relu", "Sigmoid"])
INFO = 3


class IHostMemory(bytearray):
    """Offers its bytes as a buffer."""


def install(monkeypatch, version: str) -> World:
    """Put the fakes into sys.modules."""
    world = World(version)
    modules = {**cuda_modules(world), "tensorrt": tensorrt_module(world, version)}
    for name, module in modules.items():
        monkeypatch.setitem(__import__("sys").modules, name, module)
    return world


def tensorrt_module(world: World, version: str) -> ModuleType:
    """`tensorrt` of one version."""
    trt = ModuleType("tensorrt")
    trt.__version__ = f"{version}.9"

    class ILogger:
        def __init__(self) -> None:
            self.ready = True

    class Logger(ILogger):
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    class IProfiler:
        def __init__(self) -> None:
            self.ready = True

    class IOutputAllocator:
        def __init__(self) -> None:
            self.ready = True

    def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
        assert isinstance(logger, ILogger)
        assert namespace == ""
        world.plugins = True
        return True

    trt.__dict__.update(ILogger=ILogger, Logger=Logger, IProfiler=IProfiler)
    trt.init_libnvinfer_plugins = init_libnvinfer_plugins
    if world.has(since=(8, 5)):
        trt.IOutputAllocator = IOutputAllocator
    trt.LayerType = SimpleNamespace(CONVOLUTION=0, QUANTIZE=41)
    trt.DeviceType = SimpleNamespace(GPU=0, DLA=1)
    flags = {"TF32": 1, "DEBUG": 2, "GPU_FALLBACK": 5} | ({"FP16": 3, "INT8": 4} if world.has(until=(11, 0)) else {})
    trt.BuilderFlag = SimpleNamespace(**flags)
    creation = {"EXPLICIT_BATCH": 0} if world.has(until=(10, 0)) else {"STRONGLY_TYPED": 1}
    trt.NetworkDefinitionCreationFlag = SimpleNamespace(**creation)
    detailed = "DETAILED" if world.has(since=(8, 2)) else "VERBOSE"
    trt.ProfilingVerbosity = SimpleNamespace(**{"NONE": 0, detailed: 2})
    trt.DataType = SimpleNamespace(**{name: SimpleNamespace(name=name) for name in KINDS.values()})
    if world.has(since=(8, 4)):
        trt.MemoryPoolType = SimpleNamespace(WORKSPACE=0)
    if world.has(since=(8, 5)):
        trt.TensorIOMode = SimpleNamespace(NONE=0, INPUT=1, OUTPUT=2)
    if world.has(since=(8, 2)):
        trt.LayerInformationFormat = SimpleNamespace(ONELINE=0, JSON=1)
    trt.OnnxParser = parser_class(world, ILogger)
    trt.Builder = builder_class(world, ILogger, version)
    trt.Runtime = runtime_class(world, ILogger, trt, version)
    return trt


def parser_class(world: World, logger_class: type) -> type:
    class OnnxParser:
        def __init__(self, network, logger) -> None:
            assert isinstance(logger, logger_class)
            assert logger.ready
            self._network, self._errors, self._logger = network, [], logger

        def parse_from_file(self, model: str) -> bool:
            try:
                loaded = onnx.load(model)
            except Exception:
                self._logger.log(1, "ModelImporter.cpp:735:\nFailed to parse ONNX model from file")
                return False
            unknown = [node for node in loaded.graph.node if node.op_type == "GridSample"]
            assert world.plugins or all(node.op_type != "EfficientNMS_TRT" for node in loaded.graph.node)
            if world.fails == "parse" or unknown:
                self._errors = [
                    "In node 7 (importGridSample): UNSUPPORTED_NODE:\n  No importer registered for op: GridSample"
                ]
            self._network.model = loaded
            return not self._errors

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> str:
            return self._errors[index]

    return OnnxParser


def builder_class(world: World, logger_class: type, version: str) -> type:
    class Tensor:
        __slots__ = ("name", "shape", *(("dynamic_range",) if world.has(until=(11, 0)) else ()))

        def __init__(self, name: str, shape: tuple[int, ...]) -> None:
            self.name, self.shape = name, shape

    class Network:
        def __init__(self, flags: int) -> None:
            assert flags == (1 if world.has(until=(10, 0)) else 0)
            self.model = None
            self._tensors: dict[str, Tensor] = {}

        @property
        def graph(self):
            return self.model.graph

        @property
        def num_inputs(self) -> int:
            return len(self.graph.input)

        def get_input(self, index: int) -> Tensor:
            value = self.graph.input[index]
            shape = tuple(d.dim_value or -1 for d in value.type.tensor_type.shape.dim)
            return self._tensors.setdefault(value.name, Tensor(value.name, shape))

        @property
        def num_layers(self) -> int:
            return len(self.graph.node)

        def get_layer(self, index: int) -> SimpleNamespace:
            node = self.graph.node[index]
            outputs = [self._tensors.setdefault(n, Tensor(n, ())) for n in node.output]
            kind = {"Conv": 0, "QuantizeLinear": 41}.get(node.op_type, 7)
            return SimpleNamespace(
                num_outputs=len(outputs), get_output=outputs.__getitem__, name=node.name, type=kind, node=node
            )

        @property
        def ranges(self) -> int:
            return sum(hasattr(tensor, "dynamic_range") for tensor in self._tensors.values())

    class OptimizationProfile:
        def __init__(self) -> None:
            self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

        def set_shape(self, name: str, least: tuple[int, ...], best: tuple[int, ...], most: tuple[int, ...]) -> None:
            self.shapes[name] = (least, best, most)

    class TimingCache:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def serialize(self) -> IHostMemory:
            return IHostMemory(self.content)

    old = ("max_workspace_size",) if world.has(until=(8, 4)) else ()
    streams = ("max_aux_streams",) if world.has(since=(8, 6)) else ()

    class BuilderConfig:
        __slots__ = (
            *("DLA_core", "default_device_type", "profiling_verbosity", "flags", "pools", "cache", "profiles"),
            *old,
            *streams,
        )

        def __init__(self) -> None:
            self.flags, self.pools, self.cache, self.profiles = {1}, {}, None, []
            self.DLA_core, self.default_device_type = -1, 0

        def add_optimization_profile(self, profile: OptimizationProfile) -> int:
            self.profiles.append(profile)
            return len(self.profiles) - 1

        def can_run_on_DLA(self, layer: SimpleNamespace) -> bool:  # noqa: N802
            assert self.default_device_type == 1
            return layer.node.op_type in ON_DLA

        def set_flag(self, flag: int) -> None:
            self.flags.add(flag)

        def clear_flag(self, flag: int) -> None:
            self.flags.discard(flag)

        def create_timing_cache(self, content: bytes) -> TimingCache | None:
            fits = not content or content.startswith(TIMING_CACHE)
            return TimingCache(bytes(content)) if fits else None

        def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
            assert isinstance(cache, TimingCache)
            assert ignore_mismatch
            self.cache = cache
            return True

        def get_timing_cache(self) -> TimingCache:
            return self.cache

    if world.has(since=(8, 4)):
        BuilderConfig.set_memory_pool_limit = lambda self, pool, size: self.pools.update({pool: size})

    class Builder:
        def __init__(self, logger) -> None:
            assert isinstance(logger, logger_class)
            assert logger.ready
            self._logger = logger

        def create_network(self, flags: int = 0) -> Network:
            return Network(flags)

        def create_builder_config(self) -> BuilderConfig:
            return BuilderConfig()

        def create_optimization_profile(self) -> OptimizationProfile:
            return OptimizationProfile()

        @property
        def num_DLA_cores(self) -> int:  # noqa: N802
            return world.dla_cores

        def build_serialized_network(self, network: Network, config: BuilderConfig) -> IHostMemory | None:
            self._logger.log(2, "a warning that nobody wants to read")
            if world.fails in ("build", "build-memory"):
                what = "Could not find any implementation for node x." if world.fails == "build" else "OutOfMemory"
                self._logger.log(1, f"10: [optimizer.cpp::computeCosts::3628] Error Code 10: {what}")
                return None
            inputs = described(network.graph.input)
            opened = [value.name for value in inputs if isinstance(value.dims[0], str)]
            shapes = {name: shape for profile in config.profiles for name, shape in profile.shapes.items()}
            assert set(opened) == set(shapes), "an open batch needs a profile, a fixed one none"
            quantised = any(node.op_type == "QuantizeLinear" for node in network.graph.node)
            assert not (quantised and network.ranges), "TensorRT takes no ranges beside quantisation nodes"
            names = {1: "TF32", 3: "FP16", 4: "INT8", 5: "GPU_FALLBACK"}
            world.builds.append(
                SimpleNamespace(
                    flags={names[flag] for flag in config.flags},
                    workspace=config.pools.get(0) or getattr(config, "max_workspace_size", None),
                    verbosity=config.profiling_verbosity,
                    streams=getattr(config, "max_aux_streams", None),
                    cache=config.cache.content,
                    ranges=network.ranges,
                    shapes=shapes,
                    dla=config.DLA_core if config.default_device_type else None,
                )
            )
            config.cache.content += TIMING_CACHE if not config.cache.content else b"+"
            for line in told_of_build(network.graph.node, config.default_device_type):
                self._logger.log(INFO, line)
            most = max((shape[2][0] for shape in shapes.values()), default=1)
            core = config.DLA_core if config.default_device_type else None
            return IHostMemory(plan_of(network.model, version, most, core))

    return Builder


def told_of_build(nodes, device: int) -> list[str]:
    """Messages of a build, as in logs of 8.4 on."""
    taken = [node.name for node in nodes if node.op_type in ON_DLA] if device else []
    left = [node for node in nodes if node.name not in taken]
    gone = "Unsupported on DLA. Switching this layer's device type to GPU."
    return [
        *([f"Layer '{node.name}' ({node.op_type.upper()}): {gone}" for node in left] if device else []),
        "---------- Layers Running on DLA ----------",
        *([f"[DlaLayer] {{ForeignNode[{taken[0]}...{taken[-1]}]}}"] if taken else []),
        "---------- Layers Running on GPU ----------",
        *(f"[GpuLayer] {node.op_type.upper()}: {node.name}" for node in left),
        "[MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 13 MiB, GPU 112 MiB",
        "Total Activation Memory: 2097152",
    ]


def rtx_available() -> bool:
    """Whether NVIDIA's own builder that runs without a GPU is installed."""
    from importlib.util import find_spec

    return find_spec("tensorrt_rtx") is not None and Path(find_spec("tensorrt_rtx").origin).exists()
