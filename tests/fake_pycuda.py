"""Fakes of `pycuda.driver` and `pycuda.autoinit`: a GPU whose memory is bytes and whose clock stands still.

They have what scaler uses with the arguments of pycuda's documentation, and nothing beside it.
"""

from types import ModuleType, SimpleNamespace

import numpy as np


class World:
    """The GPU behind the fakes, and what is to go wrong."""

    def __init__(self, version: str) -> None:
        self.version = tuple(int(part) for part in version.split("."))[:2]
        self.gpu = "Orin"
        self.dla_cores = 0
        self.gpu_ms = 0.0
        self.allocated: dict[int, int] = {}
        self.contents: dict[int, bytearray] = {}
        self.memory = 10**9
        self.engines = 0
        self.most_engines = 0
        self.enqueued = 0
        self.builds: list[SimpleNamespace] = []
        self.plugins = False
        """Whether NVIDIA's plugins were registered."""
        self.computes = False
        """Whether inferences compute the network, by ONNX Runtime; else they leave the outputs alone."""
        self.fails = ""
        """parse, build, build-memory, load, context, enqueue, execute, cuda, silent-profiler or inspector."""

    def has(self, since: tuple[int, int] = (8, 0), until: tuple[int, int] = (99, 0)) -> bool:
        return since <= self.version < until

    def write(self, address: int, values: np.ndarray) -> None:
        content = values.tobytes()
        assert len(content) <= self.allocated[address]
        self.contents[address][: len(content)] = content

    def read(self, address: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        count = int(np.prod(shape))
        assert count * dtype.itemsize <= self.allocated[address]
        return np.frombuffer(bytes(self.contents[address]), dtype, count).reshape(shape)


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
            return world.gpu

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
            world.contents[self.address] = bytearray(size)

        def __int__(self) -> int:
            return self.address

        def free(self) -> None:
            del world.allocated[self.address]
            del world.contents[self.address]

    def memset_d8(place: DeviceAllocation, value: int, count: int) -> None:
        assert world.allocated[int(place)] >= count
        assert value == 0

    class Pinned(np.ndarray):
        """Host memory that asynchronous copies take."""

    def pagelocked_empty(shape: object, dtype: object) -> Pinned:
        return np.full(shape, 7, dtype).view(Pinned)

    def memcpy_htod_async(dest: int, src: Pinned, stream: Stream) -> None:
        assert isinstance(src, Pinned)
        assert src.flags.c_contiguous
        assert isinstance(stream, Stream)
        world.write(int(dest), src)

    def memcpy_dtoh_async(dest: Pinned, src: int, stream: Stream) -> None:
        assert isinstance(dest, Pinned)
        assert dest.flags.c_contiguous
        assert isinstance(stream, Stream)
        dest[...] = world.read(int(src), dest.dtype, dest.shape)

    driver = ModuleType("pycuda.driver")
    driver.__dict__.update(Error=Error, MemoryError=CudaMemoryError, Device=Device, Stream=Stream, Event=Event)
    driver.__dict__.update(mem_alloc=DeviceAllocation, memset_d8=memset_d8, pagelocked_empty=pagelocked_empty)
    driver.__dict__.update(memcpy_htod_async=memcpy_htod_async, memcpy_dtoh_async=memcpy_dtoh_async)
    package, autoinit = ModuleType("pycuda"), ModuleType("pycuda.autoinit")
    package.__dict__.update(driver=driver, autoinit=autoinit, __path__=[])
    return {"pycuda": package, "pycuda.driver": driver, "pycuda.autoinit": autoinit}
