"""Weights as Keras writes them into HDF5 files, in both of its layouts.

The old layout (Keras 1 and 2, and all files of `keras.applications`): attribute `layer_names` of the file, or of its
group `model_weights` where the whole model was saved; a group a layer with the attribute `weight_names`, the paths of
its arrays below it (`Conv1/kernel:0`). Attributes that are longer than HDF5 allows lie in pieces, `layer_names0`, ….
The new layout (Keras 3, `.weights.h5`): groups `…/vars` with the attribute `name`, the layer's, and arrays `0`, `1`, ….

Kernels are `[height, width, in, out]`, those of depthwise convolutions `[height, width, channels, 1]`, dense ones
`[in, out]`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from scaler.data.preprocessing import IMAGENET, RGB3
from scaler.errors import MissingExtraError

ARRAYS = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""torch's name of an array by Keras'."""

NORMALISATION = "normalization"
"""The layer that scales pictures inside `keras.applications`' EfficientNet."""

_Entry: TypeAlias = tuple[str, str, Any]
"""Layer, array, numbers."""
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_INPUT = ("mean", "variance", "count")
_NEAR = 1e-3


class LayoutError(Exception):
    """The file is HDF5, but not what Keras makes."""


@dataclass(frozen=True, slots=True)
class KerasFacts:
    """What a Keras file says beside its layers' numbers."""

    normalisation: tuple[RGB3, RGB3] | None
    """Mean and deviation inside the network, for pictures from 0 to 1; None where it has none."""
    in_order: bool
    """Whether the file lists its layers in the order of execution."""


def read(data: bytes) -> tuple[dict[str, Tensor], KerasFacts]:
    """Read a file's arrays under `<layer>.weight` and so on, in torch's layouts.

    Raises:
        LayoutError: It is not one of Keras' layouts.
        MissingExtraError: The package h5py is not installed.
    """
    try:
        import h5py  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("reading Keras' .h5 files", "h5py", "train") from None
    with h5py.File(io.BytesIO(data), "r") as file:
        root = file.get("model_weights", file)
        old = "layer_names" in root.attrs or "layer_names0" in root.attrs
        entries = list(_old_layout(root) if old else _new_layout(file, h5py))
    state: dict[str, Tensor] = {}
    inputs: dict[str, Any] = {}
    for layer, array, numbers in entries:
        if array in ARRAYS:
            state[f"{layer}.{ARRAYS[array]}"] = _as_torch(layer, array, numbers)
        elif layer.startswith(NORMALISATION):
            inputs[array] = numbers
    if not state:
        raise LayoutError("an HDF5 file without layers that Keras wrote")
    return state, KerasFacts(_normalisation(inputs), old)


def _old_layout(root: Any) -> Iterator[_Entry]:
    for layer in _texts(root, "layer_names"):
        group = root[layer]
        for path in _texts(group, "weight_names"):
            *above, array = path.split("/")
            yield above[-1] if above else layer, array.partition(":")[0], np.asarray(group[path])


def _texts(group: Any, name: str) -> list[str]:
    """A list of texts among a group's attributes, put together where it lies in pieces."""
    pieces = [name] if name in group.attrs else []
    while f"{name}{len(pieces)}" in group.attrs and name not in group.attrs:
        pieces.append(f"{name}{len(pieces)}")
    texts = [text for piece in pieces for text in group.attrs[piece]]
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]


def _new_layout(file: Any, h5py: Any) -> Iterator[_Entry]:
    groups: list[Any] = []
    file.visititems(lambda path, item: groups.append(item) if path.endswith("vars") else None)
    for group in groups:
        if not isinstance(group, h5py.Group) or not len(group):
            continue
        if "name" not in group.attrs:
            raise LayoutError("its layers have no names: it is of an early Keras 3")
        layer = str(group.attrs["name"])
        arrays = [np.asarray(group[str(index)]) for index in range(len(group))]
        yield from ((layer, name, numbers) for name, numbers in zip(_parts(layer, arrays), arrays, strict=True))


def _parts(layer: str, arrays: list[Any]) -> tuple[str, ...]:
    """Keras' names of a layer's arrays, which the new layout only counts."""
    if layer.startswith(NORMALISATION):
        return _INPUT[: len(arrays)]
    if len(arrays) == len(_BATCH_NORM) and all(array.ndim == 1 for array in arrays):
        return _BATCH_NORM
    if len(arrays) <= 2 and arrays[0].ndim > 1:
        return ("kernel", "bias")[: len(arrays)]
    return tuple(f"array {index}" for index in range(len(arrays)))


def _as_torch(layer: str, array: str, numbers: Any) -> Tensor:
    """Numbers in torch's layout."""
    if not np.issubdtype(numbers.dtype, np.floating):
        raise LayoutError(f"{layer}/{array} holds {numbers.dtype}, no real numbers")
    tensor = torch.from_numpy(np.array(numbers, np.float32))
    if "kernel" not in array or tensor.ndim == 1:
        return tensor
    if tensor.ndim == 2:
        return tensor.T.contiguous()
    if tensor.ndim != 4:
        raise LayoutError(f"{layer}/{array} has {tensor.ndim} dimensions, expected 1, 2 or 4")
    depthwise = array == "depthwise_kernel" or (tensor.shape[3] == 1 and tensor.shape[:2] != (1, 1))
    return tensor.permute(2, 3, 0, 1).contiguous() if depthwise else tensor.permute(3, 2, 0, 1).contiguous()


def _normalisation(arrays: dict[str, Any]) -> tuple[RGB3, RGB3] | None:
    """Mean and deviation of EfficientNet's first layers.

    Keras' own files have the deviation where the variance belongs; the network that they are made for then divides by
    the root a second time (`keras/src/applications/efficientnet.py`, tensorflow issue 49930).
    """
    if "mean" not in arrays or "variance" not in arrays:
        return None
    mean, variance = (np.ravel(arrays[name]).astype(float) for name in ("mean", "variance"))
    if len(mean) != 3 or len(variance) != 3 or (variance <= 0).any():
        return None
    deviation = variance if np.allclose(variance, IMAGENET[1], atol=_NEAR) else np.sqrt(variance)
    return _rgb(mean), _rgb(deviation)


def _rgb(values: Any) -> RGB3:
    red, green, blue = (round(float(value), 6) for value in values)
    return red, green, blue
