"""An engine on the GPU with memory for its inputs and outputs, through pycuda; its errors as ours."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from scaler.errors import MissingExtraError, UnsupportedError
from scaler.runtimes.protocol import RuntimeFailedError
from scaler.runtimes.tensorrt_api import Tensor, TensorRtApi
from scaler.runtimes.tensorrt_errors import failure

__all__ = ["Resident", "gpu_name", "guarded", "load_cuda"]


def load_cuda() -> Any:
    """The module `pycuda.driver`, with a CUDA context that ends with the process.

    Raises:
        MissingExtraError: `pycuda` is not installed.
        UnsupportedError: There is no GPU, or its driver cannot be loaded.
    """
    try:
        import pycuda.driver  # noqa: PLC0415
    except ModuleNotFoundError:
        raise MissingExtraError("TensorRT in process", "pycuda", "tensorrt") from None
    except ImportError as error:
        raise UnsupportedError(f"pycuda cannot be loaded: {error}; is the NVIDIA driver installed?") from None
    try:
        import pycuda.autoinit  # noqa: PLC0415
    except (pycuda.driver.Error, ImportError) as error:
        raise UnsupportedError(f"no GPU that CUDA can use: {error}") from None
    return pycuda.driver


def gpu_name(cuda: Any) -> str:
    """Name of the GPU that is used."""
    return str(cuda.Device(0).name())


@contextmanager
def guarded(cuda: Any, api: TensorRtApi, what: str) -> Iterator[None]:
    """Turn errors of CUDA into one of ours, with what TensorRT says about it.

    Raises:
        RuntimeFailedError: CUDA failed.
    """
    try:
        yield
    except cuda.Error as error:
        raise failure([f"CUDA error: {error}", *api.take_messages()], what, RuntimeFailedError) from None


class Resident:
    """A loaded engine, zeros in its inputs and outputs.

    Args:
        api: TensorRT.
        cuda: `pycuda.driver`.
        plan: The engine.
        subject: Its name, for messages.
        batch: Pictures at a time where the engine leaves it open.
        dla: DLA core for which it was built.

    Attributes:
        tensors: Inputs and outputs, by name; shapes as the engine has them.
        sizes: Of the memory of inputs and outputs in bytes, by name: the most that they take.
        shapes: What is known of outputs whose size depends on what is computed, by name, after an inference.

    Raises:
        RuntimeFailedError: It cannot be loaded, or the memory does not suffice.
    """

    def __init__(
        self, api: TensorRtApi, cuda: Any, plan: bytes, subject: str, *, batch: int = 1, dla: int | None = None
    ) -> None:
        self._api, self._cuda, self._subject, self._batch = api, cuda, subject, batch
        self._memory: dict[str, Any] = {}
        self.sizes: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        with guarded(cuda, api, f"{subject}: loading the engine"):
            self._engine = api.load(plan, subject, dla)
            self.tensors = {tensor.name: tensor for tensor in api.tensors(self._engine)}
            self._allocate()

    @property
    def engine(self) -> Any:
        """TensorRT's object."""
        return self._engine

    @property
    def addresses(self) -> dict[str, int]:
        """Where inputs and outputs lie on the GPU, by name, in the order of the bindings."""
        return {name: int(place) for name, place in self._memory.items()}

    def context(self) -> Any:
        """What runs the engine, bound to its inputs and outputs.

        Raises:
            RuntimeFailedError: There is no memory for it.
        """
        context = self._sized()
        self._api.bind(context, self.addresses)
        for tensor in self.tensors.values():
            if not tensor.is_input and self.is_data_dependent(context, tensor):
                place, size = int(self._memory[tensor.name]), self.sizes[tensor.name]
                self._api.keep_output(context, tensor.name, place, size, self.shapes)
        return context

    def is_data_dependent(self, context: Any, tensor: Tensor) -> bool:
        """Whether the size of an output is known only after an inference."""
        return -1 in tensor.shape and -1 in self._api.shape(context, self._engine, tensor.name)

    def resize(self, context: Any, pictures: int) -> None:
        """Run so many pictures at a time from now on, up to the batch; of no effect where the engine fixes it.

        Raises:
            RuntimeFailedError: The engine does not take so many.
        """
        for tensor in self.tensors.values():
            if tensor.is_input and -1 in tensor.shape:
                shape = (pictures, *tensor.shape[1:])
                if not self._api.set_shape(context, self._engine, tensor.name, shape):
                    what = f"{self._subject}: {pictures} pictures at a time"
                    raise failure(self._api.take_messages(), what, RuntimeFailedError)

    def free(self) -> None:
        """Give the memory back; twice does no harm."""
        for place in self._memory.values():
            place.free()
        self._memory, self._engine = {}, None

    def _sized(self) -> Any:
        context = self._api.context(self._engine, self._subject)
        self.resize(context, self._batch)
        return context

    def _allocate(self) -> None:
        opened = any(-1 in tensor.shape for tensor in self.tensors.values())
        context = self._sized() if opened else None
        for tensor in self.tensors.values():
            size = max(1, self._bytes(context, tensor))
            self._memory[tensor.name] = place = self._cuda.mem_alloc(size)
            self.sizes[tensor.name] = size
            self._cuda.memset_d8(place, 0, size)

    def _bytes(self, context: Any, tensor: Tensor) -> int:
        """The most that an input or output takes."""
        if context is None or -1 not in tensor.shape:
            return math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize
        if not tensor.is_input and (most := self._api.most_bytes(context, tensor.name)) is not None:
            return most
        shape = self._api.shape(context, self._engine, tensor.name)
        if -1 in shape:
            raise UnsupportedError(
                f"{self._subject}: how large its output {tensor.name} becomes depends on what is found, which TensorRT "
                f"{self._api.version} does not support; write the file with --nms none or --nms efficient"
            )
        return math.prod(shape) * np.dtype(tensor.dtype).itemsize
