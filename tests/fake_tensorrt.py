"""Fakes of the packages `tensorrt` and `pycuda`, with the API of one TensorRT version and nothing beside it.

Classes have exactly the methods and attributes that python/src/infer/pyCore.cpp of github.com/NVIDIA/TensorRT gives
them in the branch of that version, as far as scaler could use them: what a version lacks raises AttributeError, and
what it has but deprecates is left out too. An "engine" runs on a clock of its own.
"""

import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import onnx

LAYER_MS = 0.25
OVERHEAD_MS = 0.1
TIMING_CACHE = b"timing cache "


class World:
    """The GPU behind the fakes, and what is to go wrong."""

    def __init__(self, version: str) -> None:
        self.version = tuple(int(part) for part in version.split("."))[:2]
        self.gpu_ms = 0.0
        self.allocated: dict[int, int] = {}
        self.memory = 10**9
        self.engines = 0
        self.most_engines = 0
        self.enqueued = 0
        self.builds: list[SimpleNamespace] = []
        self.fails = ""
        """parse, build, build-memory, load, context, enqueue, execute, cuda, silent-profiler or inspector."""

    def has(self, since: tuple[int, int] = (8, 0), until: tuple[int, int] = (99, 0)) -> bool:
        return since <= self.version < until


class IHostMemory(bytearray):
    """Offers its bytes as a buffer."""


def install(monkeypatch, version: str) -> World:
    """Put the fakes into sys.modules."""
    world = World(version)
    modules = {**cuda_modules(world), "tensorrt": tensorrt_module(world, version)}
    for name, module in modules.items():
        monkeypatch.setitem(__import__("sys").modules, name, module)
    return world


def cuda_modules(world: World) -> dict[str, ModuleType]:
    """`pycuda`, `pycuda.driver`, `pycuda.autoinit`."""

    class Error(Exception):
        pass

    class CudaMemoryError(Error):
        pass

    class Device:
        def __init__(self, number: int) -> None:
            assert number == 0

        def name(self) -> str:
            return "Orin"

    class Stream:
        handle = 77

        def synchronize(self) -> None:
            if world.fails == "cuda":
                raise Error("cuStreamSynchronize failed: an illegal memory access was encountered")

    class Event:
        def __init__(self) -> None:
            self.ms: float | None = None

        def record(self, stream: Stream) -> None:
            assert isinstance(stream, Stream)
            self.ms = world.gpu_ms

        def synchronize(self) -> None:
            assert self.ms is not None

        def time_till(self, later: "Event") -> float:
            return later.ms - self.ms

    class DeviceAllocation:
        def __init__(self, size: int) -> None:
            if sum(world.allocated.values()) + size > world.memory:
                raise CudaMemoryError("cuMemAlloc failed: out of memory")
            self.address = 4096 * (1 + len(world.allocated) + max(world.allocated, default=0))
            world.allocated[self.address] = size

        def __int__(self) -> int:
            return self.address

        def free(self) -> None:
            del world.allocated[self.address]

    def memset_d8(place: DeviceAllocation, value: int, count: int) -> None:
        assert world.allocated[int(place)] >= count
        assert value == 0

    driver = ModuleType("pycuda.driver")
    driver.__dict__.update(Error=Error, MemoryError=CudaMemoryError, Device=Device, Stream=Stream, Event=Event)
    driver.__dict__.update(mem_alloc=DeviceAllocation, memset_d8=memset_d8)
    package, autoinit = ModuleType("pycuda"), ModuleType("pycuda.autoinit")
    package.__dict__.update(driver=driver, autoinit=autoinit, __path__=[])
    return {"pycuda": package, "pycuda.driver": driver, "pycuda.autoinit": autoinit}


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

    trt.__dict__.update(ILogger=ILogger, Logger=Logger, IProfiler=IProfiler)
    flags = {"TF32": 1, "DEBUG": 2} | ({"FP16": 3, "INT8": 4} if world.has(until=(11, 0)) else {})
    trt.BuilderFlag = SimpleNamespace(**flags)
    creation = {"EXPLICIT_BATCH": 0} if world.has(until=(10, 0)) else {"STRONGLY_TYPED": 1}
    trt.NetworkDefinitionCreationFlag = SimpleNamespace(**creation)
    detailed = "DETAILED" if world.has(since=(8, 2)) else "VERBOSE"
    trt.ProfilingVerbosity = SimpleNamespace(**{"NONE": 0, detailed: 2})
    trt.DataType = SimpleNamespace(FLOAT=SimpleNamespace(name="FLOAT"), HALF=SimpleNamespace(name="HALF"))
    if world.has(since=(8, 4)):
        trt.MemoryPoolType = SimpleNamespace(WORKSPACE=0)
    if world.has(since=(8, 5)):
        trt.TensorIOMode = SimpleNamespace(NONE=0, INPUT=1, OUTPUT=2)
    if world.has(since=(8, 2)):
        trt.LayerInformationFormat = SimpleNamespace(ONELINE=0, JSON=1)
    trt.OnnxParser = parser_class(world, ILogger)
    trt.Builder = builder_class(world, ILogger)
    trt.Runtime = runtime_class(world, ILogger, trt)
    return trt


def parser_class(world: World, logger_class: type) -> type:
    class OnnxParser:
        def __init__(self, network, logger) -> None:
            assert isinstance(logger, logger_class)
            assert logger.ready
            self._network, self._errors, self._logger = network, [], logger

        def parse_from_file(self, model: str) -> bool:
            try:
                graph = onnx.load(model).graph
            except Exception:
                self._logger.log(1, "ModelImporter.cpp:735:\nFailed to parse ONNX model from file")
                return False
            unknown = [node for node in graph.node if node.op_type == "GridSample"]
            if world.fails == "parse" or unknown:
                self._errors = [
                    "In node 7 (importGridSample): UNSUPPORTED_NODE:\n  No importer registered for op: GridSample"
                ]
            self._network.graph = graph
            return not self._errors

        @property
        def num_errors(self) -> int:
            return len(self._errors)

        def get_error(self, index: int) -> str:
            return self._errors[index]

    return OnnxParser


def builder_class(world: World, logger_class: type) -> type:
    class Tensor:
        __slots__ = ("name", "shape", *(("dynamic_range",) if world.has(until=(11, 0)) else ()))

        def __init__(self, name: str, shape: tuple[int, ...]) -> None:
            self.name, self.shape = name, shape

    class Network:
        def __init__(self, flags: int) -> None:
            assert flags == (1 if world.has(until=(10, 0)) else 0)
            self.graph = None
            self._tensors: dict[str, Tensor] = {}

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
            outputs = [self._tensors.setdefault(n, Tensor(n, ())) for n in self.graph.node[index].output]
            return SimpleNamespace(num_outputs=len(outputs), get_output=outputs.__getitem__)

        @property
        def ranges(self) -> int:
            return sum(hasattr(tensor, "dynamic_range") for tensor in self._tensors.values())

    class TimingCache:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def serialize(self) -> IHostMemory:
            return IHostMemory(self.content)

    old = ("max_workspace_size",) if world.has(until=(8, 4)) else ()
    streams = ("max_aux_streams",) if world.has(since=(8, 6)) else ()

    class BuilderConfig:
        __slots__ = ("profiling_verbosity", "flags", "pools", "cache", *old, *streams)

        def __init__(self) -> None:
            self.flags, self.pools, self.cache = {1}, {}, None

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

        def build_serialized_network(self, network: Network, config: BuilderConfig) -> IHostMemory | None:
            self._logger.log(2, "a warning that nobody wants to read")
            if world.fails in ("build", "build-memory"):
                what = "Could not find any implementation for node x." if world.fails == "build" else "OutOfMemory"
                self._logger.log(1, f"10: [optimizer.cpp::computeCosts::3628] Error Code 10: {what}")
                return None
            names = {1: "TF32", 3: "FP16", 4: "INT8"}
            world.builds.append(
                SimpleNamespace(
                    flags={names[flag] for flag in config.flags},
                    workspace=config.pools.get(0) or getattr(config, "max_workspace_size", None),
                    verbosity=config.profiling_verbosity,
                    streams=getattr(config, "max_aux_streams", None),
                    cache=config.cache.content,
                    ranges=network.ranges,
                )
            )
            config.cache.content += TIMING_CACHE if not config.cache.content else b"+"
            outputs = [(value.name, [1, 4, 16, 16]) for value in network.graph.output]
            inputs = [(value.name, list(network.get_input(i).shape)) for i, value in enumerate(network.graph.input)]
            plan = {"nodes": [n.name for n in network.graph.node], "inputs": inputs, "outputs": outputs}
            return IHostMemory(json.dumps(plan).encode())

    return Builder


def runtime_class(world: World, logger_class: type, trt: ModuleType) -> type:
    class Context:
        def __init__(self, engine) -> None:
            self._engine, self._addresses, self.profiler = engine, {}, None

        def execute_v2(self, bindings: list[int]) -> bool:
            assert list(bindings) == [place for place in world.allocated if place in bindings]
            if world.fails == "execute":
                return False
            for name, ms in self._engine.layers() if self.profiler and world.fails != "silent-profiler" else ():
                self.profiler.report_layer_time(name, ms)
            world.gpu_ms += self._engine.ms
            return True

        def _enqueue(self, stream: int) -> bool:
            assert stream == 77
            world.enqueued += 1
            if world.fails == "enqueue":
                self._engine.logger.log(
                    1, "1: [genericReformat.cu::call::110] Error Code 1: Cuda Runtime (invalid resource)"
                )
                return False
            world.gpu_ms += self._engine.ms
            return True

    if world.has(until=(8, 5)):

        def execute_async_v2(self, bindings: list[int], stream_handle: int) -> bool:
            assert all(place in world.allocated for place in bindings)
            assert len(bindings) == len(self._engine.tensors)
            return self._enqueue(stream_handle)

        Context.execute_async_v2 = execute_async_v2
    else:

        def set_tensor_address(self, name: str, memory: int) -> bool:
            assert memory in world.allocated
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert set(self._addresses) == {name for name, *_ in self._engine.tensors}
            return self._enqueue(stream_handle)

        Context.set_tensor_address = set_tensor_address
        Context.execute_async_v3 = execute_async_v3

    class Engine:
        def __init__(self, plan: dict, logger) -> None:
            self.nodes, self.logger = plan["nodes"], logger
            self.tensors = [(name, tuple(shape), True) for name, shape in plan["inputs"]]
            self.tensors += [(name, tuple(shape), False) for name, shape in plan["outputs"]]
            world.engines += 1
            world.most_engines = max(world.most_engines, world.engines)

        def __del__(self) -> None:
            world.engines -= 1

        @property
        def ms(self) -> float:
            return LAYER_MS * len(self.nodes) + OVERHEAD_MS

        def layers(self) -> list[tuple[str, float]]:
            """A reformat, then two and two nodes together."""
            pairs = [self.nodes[place : place + 2] for place in range(0, len(self.nodes), 2)]
            first = " + ".join(pairs[0])
            reformat = (f"Reformatting CopyNode for Input Tensor 0 to {first}", 0.01)
            return [reformat, *((" + ".join(pair), LAYER_MS * len(pair)) for pair in pairs)]

        def create_execution_context(self) -> Context | None:
            return None if world.fails == "context" else Context(self)

    if world.has(until=(8, 5)):
        Engine.num_bindings = property(lambda self: len(self.tensors))
        Engine.get_binding_name = lambda self, index: self.tensors[index][0]
        Engine.get_binding_shape = lambda self, index: self.tensors[index][1]
        Engine.get_binding_dtype = lambda _self, _index: trt.DataType.FLOAT
        Engine.binding_is_input = lambda self, index: self.tensors[index][2]
    else:
        mode = trt.TensorIOMode
        Engine.num_io_tensors = property(lambda self: len(self.tensors))
        Engine.get_tensor_name = lambda self, index: self.tensors[index][0]
        Engine.get_tensor_shape = lambda self, name: {t[0]: t[1] for t in self.tensors}[name]
        Engine.get_tensor_dtype = lambda _self, _name: trt.DataType.HALF
        Engine.get_tensor_mode = lambda self, name: (
            mode.INPUT if {t[0]: t[2] for t in self.tensors}[name] else mode.OUTPUT
        )

    def get_engine_information(engine: Engine, form: int) -> str:
        assert form == 1
        layers = [
            {"Name": name, "LayerType": "Fused" if number else "Reformat"}
            for number, (name, _) in enumerate(engine.layers())
        ]
        if world.has(since=(8, 6)):
            for layer in layers[1:]:
                layer["Metadata"] = "\x1e".join(f"[ONNX Layer: {name}]" for name in layer["Name"].split(" + "))
        return "{" if world.fails == "inspector" else json.dumps({"Layers": layers})

    if world.has(since=(8, 2)):
        Engine.create_engine_inspector = lambda self: SimpleNamespace(
            get_engine_information=lambda form: get_engine_information(self, form)
        )

    class Runtime:
        def __init__(self, logger) -> None:
            assert isinstance(logger, logger_class)
            self._logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            if world.fails == "load":
                self._logger.log(
                    1, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (magicTag does not match)"
                )
                return None
            return Engine(json.loads(bytes(plan)), self._logger)

    return Runtime


def rtx_available() -> bool:
    """Whether NVIDIA's own builder that runs without a GPU is installed."""
    from importlib.util import find_spec

    return find_spec("tensorrt_rtx") is not None and Path(find_spec("tensorrt_rtx").origin).exists()
