"""A finished TensorRT engine that computes what it is given: copy to the GPU, infer, copy back, through pinned memory.

`scaler.runtimes.tensorrt_engine` times engines and leaves their inputs zero; this runs them. Written against NVIDIA's
and pycuda's documentation; it has not run on a GPU yet.
"""

from __future__ import annotations

import atexit
import weakref
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from scaler.errors import UnsupportedError
from scaler.runtimes.engine_facts import check_here, read_engine
from scaler.runtimes.protocol import RuntimeFailedError
from scaler.runtimes.tensorrt_api import Tensor, load_api
from scaler.runtimes.tensorrt_cuda import Resident, gpu_name, guarded, load_cuda
from scaler.runtimes.tensorrt_errors import failure

__all__ = ["TensorRtInference"]

AnyArray: TypeAlias = npt.NDArray[Any]


class TensorRtInference:
    """Runs an engine file that was built on this computer; it stays on the GPU until `close`.

    Args:
        path: The engine, with what is known of it beside it (`scaler.runtimes.engine_facts`).

    Attributes:
        facts: What is known of it.
        outputs: By name.

    Raises:
        MissingExtraError: `tensorrt` or `pycuda` is not installed.
        FileError: The engine or what is known of it is missing or damaged.
        UnsupportedError: There is no GPU, or the engine is of another TensorRT or GPU, or has several inputs.
        RuntimeFailedError: It cannot be loaded, or the memory does not suffice.
    """

    def __init__(self, path: Path | str) -> None:
        plan, self.facts = read_engine(path)
        self._api, self._cuda = load_api(), load_cuda()
        check_here(path, self.facts, str(self._api.version), gpu_name(self._cuda))
        self._subject = Path(path).name
        resident = Resident(self._api, self._cuda, plan, self._subject, batch=self.facts.batch, dla=self.facts.dla)
        self._resident: Resident | None = resident
        inputs = [tensor for tensor in resident.tensors.values() if tensor.is_input]
        if len(inputs) != 1:
            raise UnsupportedError(f"{path}: it has {len(inputs)} inputs; a detector has one")
        self._input = inputs[0]
        self.outputs = {name: tensor for name, tensor in resident.tensors.items() if not tensor.is_input}
        with guarded(self._cuda, self._api, f"{self._subject}: loading the engine"):
            self._context = resident.context()
            self._stream = self._cuda.Stream()
            self._pinned = {name: self._cuda.pagelocked_empty(size, np.uint8) for name, size in resident.sizes.items()}
        atexit.register(_close, weakref.ref(self))  # before pycuda's own, which ends the CUDA context

    def run(self, values: AnyArray) -> dict[str, AnyArray]:
        """Compute pictures.

        Args:
            values: `[pictures, channels, height, width]`; as many as the engine takes, or fewer where its batch is
                open.

        Returns:
            The outputs by name, in the engine's number formats.

        Raises:
            RuntimeFailedError: CUDA or TensorRT failed, or the engine was closed.
        """
        what = f"{self._subject}: running it"
        resident = self._resident
        if resident is None:
            raise RuntimeFailedError(f"{what} failed: it was closed")
        with guarded(self._cuda, self._api, what):
            resident.resize(self._context, len(values))
            self._send(resident, values)
            if not self._api.enqueue(self._context, resident.addresses, int(self._stream.handle)):
                raise failure(self._api.take_messages(), what, RuntimeFailedError)
            shapes = {name: self._api.shape(self._context, resident.engine, name) for name in self.outputs}
            late = [name for name, shape in shapes.items() if -1 in shape]
            known = {name: self._fetch(resident, name, shape) for name, shape in shapes.items() if name not in late}
            self._stream.synchronize()
            known |= {name: self._fetch(resident, name, resident.shapes[name]) for name in late}
            if late:
                self._stream.synchronize()
        return {name: np.array(known[name]) for name in self.outputs}  # the pinned memory is used again

    def close(self) -> None:
        """Give the GPU's memory back; closing twice does no harm."""
        if self._resident is not None:
            self._context = None
            self._resident.free()
            self._resident = None
            self._pinned = {}

    def _send(self, resident: Resident, values: AnyArray) -> None:
        place = self._view(self._input, values.shape)
        np.copyto(place, values, casting="same_kind")
        self._cuda.memcpy_htod_async(resident.addresses[self._input.name], place, self._stream)

    def _fetch(self, resident: Resident, name: str, shape: tuple[int, ...]) -> AnyArray:
        """Queue the copy of an output; what is returned holds once the stream was waited for."""
        place: AnyArray = self._view(self.outputs[name], shape)
        self._cuda.memcpy_dtoh_async(place, resident.addresses[name], self._stream)
        return place

    def _view(self, tensor: Tensor, shape: tuple[int, ...]) -> Any:
        """Pinned memory as an array of a tensor's numbers."""
        kind = np.dtype(tensor.dtype)
        size = int(np.prod(shape)) * kind.itemsize
        return self._pinned[tensor.name][:size].view(kind).reshape(shape)


def _close(inference: weakref.ref[TensorRtInference]) -> None:
    alive = inference()
    if alive is not None:
        alive.close()
