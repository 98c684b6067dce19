"""Numbers of other implementations for our modules.

A naming says where the numbers of a graph's layers lie in another implementation's `state_dict`: our layer by their
module. Where names differ but both list the same layers in the same order, `in_order` makes the naming; it trusts the
order, and `load_state` checks every shape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from scaler.errors import UnsupportedError
from scaler.graph.graph import Graph, Layer, Placement
from scaler.graph.ops import BatchNorm, Conv
from scaler.training.network.module import STATE, module_name, state_names

Naming: TypeAlias = Mapping[str, str]
"""Their module by our layer."""

State: TypeAlias = Mapping[str, Tensor]
"""What `state_dict` returns: tensors by dotted names."""

_COUNTERS = "num_batches_tracked"
"""Of torch's batch normalisation; nobody's weights."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a module got from another implementation."""

    loaded: tuple[str, ...]
    """Keys of the module that were filled."""
    missing: tuple[str, ...]
    """Keys of the module that keep what they had."""
    unused: tuple[str, ...]
    """Keys of the other implementation that nothing wanted."""


def load_state(
    module: nn.Module, graph: Graph, state: State, naming: Naming, *, epsilon: float | None = None
) -> Loaded:
    """Fill the module of a graph with another implementation's numbers; all that fits or, after an error, nothing.

    Args:
        module: What `scaler.training.network.module.to_torch` made of the graph.
        graph: The network.
        state: The other implementation's numbers.
        naming: Where they lie.
        epsilon: Of the other implementation's batch normalisation, where it is not the graph's: the scales are adapted,
            so that the result stays the same.

    Raises:
        UnsupportedError: A shape differs, or nothing fits.
    """
    targets = module.state_dict()
    layers = [layer for layer in _owners(graph) if layer.name in naming]
    plan = {
        key: theirs
        for layer in layers
        for key in state_names(layer).values()
        if (theirs := naming[layer.name] + key.removeprefix(module_name(layer))) in state
    }
    _check(graph, targets, state, plan)
    with torch.no_grad():
        for key, theirs in plan.items():
            targets[key].copy_(state[theirs].reshape(targets[key].shape))
        for layer in layers:
            if epsilon is not None and isinstance(layer.op, BatchNorm) and state_names(layer)["variance"] in plan:
                gamma, variance = (targets[state_names(layer)[part]] for part in ("gamma", "variance"))
                gamma *= ((variance + layer.op.epsilon) / (variance + epsilon)).sqrt()
    taken = set(plan.values())
    return Loaded(
        tuple(plan),
        tuple(key for key in _counted(targets) if key not in plan),
        tuple(key for key in _counted(state) if key not in taken),
    )


def _check(graph: Graph, targets: State, state: State, plan: Mapping[str, str]) -> None:
    name = graph.name or "the network"
    if not plan:
        first = next(iter(state), "nothing")
        raise UnsupportedError(f"{name}: none of the {len(state)} arrays given fits by name; the first is {first!r}")
    for key, theirs in plan.items():
        wanted, given = targets[key], state[theirs]
        if wanted.squeeze().shape != given.squeeze().shape:  # a 1x1 convolution may be a fully connected layer there
            raise UnsupportedError(
                f"{name}: {key} has the shape {list(wanted.shape)}, but {theirs!r} has {list(given.shape)}; "
                "the numbers are another network's, width's or number of classes'"
            )


def _owners(graph: Graph) -> Iterator[Layer]:
    """Layers with parameters of their own, in execution order."""
    return (layer for layer in graph.layers() if type(layer.op) in STATE and layer.name == layer.weights)


def _counted(state: State) -> Iterator[str]:
    return (key for key in state if not key.endswith(_COUNTERS))


def in_order(graph: Graph, state: State) -> Naming:
    """The naming of an implementation that lists the same layers in the graph's order.

    So do torchvision, timm, pytorchcv and others for MobileNetV2, EfficientNet, ResNet, VGG, VoVNet and DarkNet; not
    for networks with branches, where the order in which modules are written down is a matter of taste.

    Raises:
        UnsupportedError: The numbers of layers differ.
    """
    ours = [layer.name for layer in _owners(graph)]
    theirs = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    if len(theirs) != len(ours):
        raise UnsupportedError(
            f"{graph.name or 'the network'} has {len(ours)} layers with parameters, but the arrays given are "
            f"of {len(theirs)}: they are another network's"
        )
    return dict(zip(ours, theirs, strict=True))


def torchvision_mobilenetv2(graph: Graph) -> Naming:
    """The names of torchvision's MobileNetV2, whole or as a detector's backbone; its epsilon is 1e-5."""
    names = {"classifier.linear": "classifier.1"}
    for number, placement in enumerate(_backbone(graph)):
        units = [node.name.rpartition(".")[0] for node in placement.block.nodes if isinstance(node.op, Conv)]
        for index, unit in enumerate(units):
            ours, theirs = f"{placement.name}.{unit}", f"features.{number}"
            match unit:
                case "unit":
                    pair = f"{theirs}.0", f"{theirs}.1"
                case "project":  # without activation, not wrapped
                    pair = f"{theirs}.conv.{index}", f"{theirs}.conv.{index + 1}"
                case _:
                    pair = f"{theirs}.conv.{index}.0", f"{theirs}.conv.{index}.1"
            names[f"{ours}.conv"], names[f"{ours}.bn"] = pair
    return names


def torchvision_resnet(graph: Graph) -> Naming:
    """The names of torchvision's ResNet, whole or as a detector's backbone."""
    names = {"classifier.linear": "fc", "backbone.stem.unit.conv": "conv1", "backbone.stem.unit.bn": "bn1"}
    for layer in _owners(graph):
        if found := re.fullmatch(r"backbone\.stage(\d)\.block(\d+)\.(conv(\d)|shortcut)\.(conv|bn)", layer.name):
            stage, block, _, number, kind = found.groups()
            place = f"{kind}{int(number) + 1}" if number else f"downsample.{int(kind == 'bn')}"
            names[layer.name] = f"layer{stage}.{block}.{place}"
    return names


def torchvision_vgg(graph: Graph) -> Naming:
    """The names of torchvision's VGG, with or without batch normalisation: it numbers all operators."""
    operators = [layer.name for layer in graph.layers() if layer.name.startswith("backbone.")]
    dense = {"hidden0.linear": 0, "hidden1.linear": 3, "linear": 6}
    return {name: f"features.{number}" for number, name in enumerate(operators)} | {
        f"classifier.{name}": f"classifier.{number}" for name, number in dense.items()
    }


_MBCONV = {
    "expand.conv": "conv_pw",
    "expand.bn": "bn1",
    "depthwise.conv": "conv_dw",
    "depthwise.bn": "bn2",
    "se.reduce": "se.conv_reduce",
    "se.expand": "se.conv_expand",
    "project.conv": "conv_pwl",
    "project.bn": "bn3",
}
_MBCONV_WITHOUT_EXPANSION = _MBCONV | {"depthwise.bn": "bn1", "project.conv": "conv_pw", "project.bn": "bn2"}
_ENDS = {"stem.unit.conv": "conv_stem", "stem.unit.bn": "bn1", "head.unit.conv": "conv_head", "head.unit.bn": "bn2"}


def timm_efficientnet(graph: Graph) -> Naming:
    """The names of timm's and geffnet's EfficientNet, whole or as a detector's backbone.

    The epsilon is 1e-3 for the variants called `tf_`, which pad as TensorFlow does, and 1e-5 for the others, which pad
    symmetrically.
    """
    names = {"classifier.linear": "classifier"} | {f"backbone.{ours}": theirs for ours, theirs in _ENDS.items()}
    for placement in _backbone(graph):
        if found := re.fullmatch(r"backbone\.stage(\d)\.block(\d+)", placement.name):
            expands = any(node.name == "expand.conv" for node in placement.block.nodes)
            for ours, theirs in (_MBCONV if expands else _MBCONV_WITHOUT_EXPANSION).items():
                names[f"{placement.name}.{ours}"] = f"blocks.{int(found[1]) - 1}.{found[2]}.{theirs}"
    return names


def _backbone(graph: Graph) -> Iterator[Placement]:
    return (placement for placement in graph.placements if placement.name.startswith("backbone."))
