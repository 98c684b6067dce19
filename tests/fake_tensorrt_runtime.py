"""The half of the fake `tensorrt` that loads and runs engines; `fake_tensorrt` is the other one."""

import json
from types import ModuleType, SimpleNamespace

import numpy as np
from fake_engine import Network as Computed
from fake_pycuda import World

LAYER_MS = 0.25
OVERHEAD_MS = 0.1
KINDS = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32", "int64": "INT64"}
ERROR, INFO = 1, 3
MOST_OF_UNKNOWN = 4096
"""Bound of a size that depends on what is computed."""


def runtime_class(world: World, logger_class: type, trt: ModuleType, version: str) -> type:
    class Context:
        def __init__(self, engine) -> None:
            self._engine, self._addresses, self.profiler, self._allocators = engine, {}, None, {}
            self._batch = {value.name: value.dims[0] for value in engine.network.inputs}
            engine.logger.log(
                INFO,
                "[MemUsageChange] TensorRT-managed allocation in IExecutionContext creation: CPU +0, GPU +80, "
                "now: CPU 1, GPU 265 (MiB)",
            )

        def execute_v2(self, bindings: list[int]) -> bool:
            assert list(bindings) == [place for place in world.allocated if place in bindings]
            if world.fails == "execute":
                return False
            for name, ms in self._engine.layers() if self.profiler and world.fails != "silent-profiler" else ():
                self.profiler.report_layer_time(name, ms)
            world.gpu_ms += self._engine.ms
            return self._compute(dict(zip((t.name for t in self._engine.tensors), bindings, strict=True)))

        def _enqueue(self, stream: int, addresses: dict[str, int]) -> bool:
            assert stream == 77
            world.enqueued += 1
            if world.fails == "enqueue":
                self._engine.logger.log(
                    1, "1: [genericReformat.cu::call::110] Error Code 1: Cuda Runtime (invalid resource)"
                )
                return False
            world.gpu_ms += self._engine.ms
            return self._compute(addresses)

        def _compute(self, addresses: dict[str, int]) -> bool:
            network = self._engine.network
            assert not any(isinstance(size, str) for size in self._batch.values()), "an open batch was not set"
            for value in network.inputs:
                assert world.allocated[addresses[value.name]] >= np.prod(self._shape(value)) * value.dtype.itemsize
            if not world.computes:
                return True
            inputs = {v.name: world.read(addresses[v.name], v.dtype, self._shape(v)) for v in network.inputs}
            for name, values in network.run(inputs).items():
                if -1 in self._shape(next(value for value in network.outputs if value.name == name)):
                    keeper = self._allocators[name]
                    address = keeper.reallocate_output(name, addresses[name], values.nbytes, 256)
                    assert address == addresses[name]
                    keeper.notify_shape(name, values.shape)
                world.write(addresses[name], values)
            return True

        def _shape(self, value) -> tuple[int, ...]:
            """-1 where it is not known; every name of a batch means that of the input."""
            batches = {v.dims[0]: self._batch[v.name] for v in self._engine.network.inputs}
            sizes = (batches.get(size, -1) if isinstance(size, str) else size for size in value.dims)
            return tuple(-1 if isinstance(size, str) else size for size in sizes)

        def _set(self, name: str, shape: tuple[int, ...]) -> bool:
            value = next(value for value in self._engine.network.inputs if value.name == name)
            if shape[1:] != value.dims[1:] or not 1 <= shape[0] <= self._engine.network.most:
                self._engine.logger.log(ERROR, f"3: Parameter check failed, condition: dims {shape} are in the profile")
                return False
            self._batch[name] = shape[0]
            return True

    if world.has(until=(8, 5)):

        def execute_async_v2(self, bindings: list[int], stream_handle: int) -> bool:
            assert all(place in world.allocated for place in bindings)
            names = [value.name for value in self._engine.tensors]
            return self._enqueue(stream_handle, dict(zip(names, bindings, strict=True)))

        Context.execute_async_v2 = execute_async_v2
        Context.set_binding_shape = lambda self, index, shape: self._set(self._engine.tensors[index].name, shape)
        Context.get_binding_shape = lambda self, index: self._shape(self._engine.tensors[index])
    else:

        def set_tensor_address(self, name: str, memory: int) -> bool:
            assert memory in world.allocated
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            assert set(self._addresses) == {tensor.name for tensor in self._engine.tensors}
            return self._enqueue(stream_handle, self._addresses)

        def set_output_allocator(self, name: str, output_allocator) -> bool:
            assert isinstance(output_allocator, trt.IOutputAllocator)
            assert output_allocator.ready
            self._allocators[name] = output_allocator
            return True

        def get_max_output_size(self, name: str) -> int:
            value = next(value for value in self._engine.network.outputs if value.name == name)
            sizes = [MOST_OF_UNKNOWN if size == -1 else size for size in self._shape(value)]
            return int(np.prod(sizes)) * value.dtype.itemsize

        Context.set_tensor_address = set_tensor_address
        Context.execute_async_v3 = execute_async_v3
        Context.set_output_allocator = set_output_allocator
        Context.get_max_output_size = get_max_output_size
        Context.set_input_shape = Context._set
        Context.get_tensor_shape = lambda self, name: self._shape(
            next(value for value in self._engine.tensors if value.name == name)
        )

    class Engine:
        def __init__(self, plan: bytes, logger) -> None:
            self.network, self.logger = Computed(plan), logger
            self.nodes = self.network.nodes
            self.tensors = [*self.network.inputs, *self.network.outputs]
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

    def shape_of(value) -> tuple[int, ...]:
        return tuple(-1 if isinstance(size, str) else size for size in value.dims)

    def kind_of(value) -> SimpleNamespace:
        return getattr(trt.DataType, KINDS[value.dtype.name])

    def named(engine: Engine, name: str):
        return next(value for value in engine.tensors if value.name == name)

    if world.has(until=(8, 5)):
        Engine.num_bindings = property(lambda self: len(self.tensors))
        Engine.get_binding_name = lambda self, index: self.tensors[index].name
        Engine.get_binding_index = lambda self, name: [value.name for value in self.tensors].index(name)
        Engine.get_binding_shape = lambda self, index: shape_of(self.tensors[index])
        Engine.get_binding_dtype = lambda self, index: kind_of(self.tensors[index])
        Engine.binding_is_input = lambda self, index: self.tensors[index] in self.network.inputs
    else:
        mode = trt.TensorIOMode
        Engine.num_io_tensors = property(lambda self: len(self.tensors))
        Engine.get_tensor_name = lambda self, index: self.tensors[index].name
        Engine.get_tensor_shape = lambda self, name: shape_of(named(self, name))
        Engine.get_tensor_dtype = lambda self, name: kind_of(named(self, name))
        Engine.get_tensor_mode = lambda self, name: (
            mode.INPUT if named(self, name) in self.network.inputs else mode.OUTPUT
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
            self.DLA_core = -1

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            try:
                network = Computed(plan)
            except ValueError:
                network = None
            if world.fails == "load" or network is None or network.version != version:
                self._logger.log(
                    1, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (magicTag does not match)"
                )
                return None
            assert network.dla is None or network.dla == self.DLA_core
            return Engine(plan, self._logger)

    return Runtime
