"""Files of weights in other implementations' names, made from a module of ours."""

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from scaler.export.weights import shapes
from scaler.graph.graph import Graph
from scaler.graph.ops import BatchNorm, Conv, Linear
from scaler.training.network.mapping import Naming
from scaler.training.network.module import module_name, state_names
from scaler.training.pretrained.namings import owners

KERAS_ARRAYS = {"weight": "kernel", "bias": "bias", "gamma": "gamma", "beta": "beta", "mean": "moving_mean",
                "variance": "moving_variance"}  # fmt: skip


def renamed(state: Mapping[str, Tensor], graph: Graph, naming: Naming) -> dict[str, Tensor]:
    """Our numbers under their names."""
    return {
        naming[layer.name] + key.removeprefix(module_name(layer)): state[key]
        for layer in owners(graph)
        if layer.name in naming
        for key in state_names(layer).values()
    }


def shapes_only(graph: Graph, naming: Naming) -> dict[str, Tensor]:
    """Arrays without numbers under their names."""
    return {
        naming[layer.name] + state_names(layer)[part].removeprefix(module_name(layer)): torch.empty(
            shape, device="meta"
        )
        for layer in owners(graph)
        if layer.name in naming
        for part, shape in shapes(layer).items()
    }


def keras_arrays(graph: Graph, module: nn.Module, naming: Naming) -> dict[str, dict[str, np.ndarray]]:
    """Arrays of each of Keras' layers, in Keras' layouts and order."""
    state, found = module.state_dict(), {}
    for layer in owners(graph):
        if layer.name not in naming:
            continue
        arrays = {}
        for part, key in state_names(layer).items():
            values, name = state[key].numpy(), KERAS_ARRAYS[part]
            if part == "weight" and isinstance(layer.op, Conv):
                depthwise = layer.op.groups > 1
                name = "depthwise_kernel" if depthwise else name
                values = values.transpose(2, 3, 0, 1) if depthwise else values.transpose(2, 3, 1, 0)
            elif part == "weight":
                assert isinstance(layer.op, Linear)
                values = values.T
            else:
                assert isinstance(layer.op, BatchNorm) or part == "bias"
            arrays[name] = values
        found[naming[layer.name]] = arrays
    return found


def write_keras(
    path: Path, layers: Mapping[str, Mapping[str, np.ndarray]], *, group: str = "", pieces: int = 0, nested: str = ""
) -> None:
    """Write Keras' old layout: `layer_names`, a group a layer, `weight_names`, arrays.

    Args:
        path: The file.
        layers: What `keras_arrays` returned, in the order of execution.
        group: In which the layers lie; `model_weights` in a file of a whole model.
        pieces: In how many attributes the long list of names is cut; 0 is not.
        nested: Name of the one layer that holds all others, as where a model is used within a model.
    """
    with h5py.File(path, "w") as file:
        root = file.create_group(group) if group else file
        names = [name.encode() for name in ("input_1", *layers, "out_relu")]
        if nested:
            outer = root.create_group(nested)
            root.attrs["layer_names"] = [nested.encode()]
            flat = {f"{layer}/{name}:0": values for layer, arrays in layers.items() for name, values in arrays.items()}
            _put(outer, flat)
            return
        if pieces:
            for index, piece in enumerate(np.array_split(names, pieces)):
                root.attrs[f"layer_names{index}"] = list(piece)
        else:
            root.attrs["layer_names"] = names
        for name in map(bytes.decode, names):
            arrays = layers.get(name, {})
            _put(root.create_group(name), {f"{name}/{array}:0": values for array, values in arrays.items()})


def _put(group: h5py.Group, arrays: Mapping[str, np.ndarray]) -> None:
    group.attrs["weight_names"] = [path.encode() for path in arrays]
    for path, values in arrays.items():
        group.create_dataset(path, data=values)
