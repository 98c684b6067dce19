"""Whose names a file of weights has, and which network it holds: told by its keys and shapes alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from scaler.errors import listed
from scaler.export.weights import shapes
from scaler.graph.graph import Graph
from scaler.graph.ops import PaddingStyle
from scaler.models.backbones import efficientnet, mobilenetv2, resnet, vgg
from scaler.training.network.mapping import (
    Naming,
    State,
    timm_efficientnet,
    torchvision_mobilenetv2,
    torchvision_resnet,
    torchvision_vgg,
)
from scaler.training.network.module import module_name, state_names
from scaler.training.pretrained.catalogue import Network, NormalisationName
from scaler.training.pretrained.files import Arrays, Content
from scaler.training.pretrained.namings import (
    BACKBONE,
    by_order,
    efficientnet_pytorch,
    keras_efficientnet,
    keras_mobilenetv2,
    owners,
)

MOBILENETS = tuple(Network("mobilenetv2", width) for width in (1.0, 0.75, 1.4, 0.5, 0.35, 1.3))
EFFICIENTNETS = tuple(Network(f"efficientnet-{variant}") for variant in efficientnet.SCALING)
RESNETS = tuple(Network(f"resnet-{depth}") for depth in resnet.DEPTHS)
VGGS = tuple(Network(f"vgg-{depth}{norm}") for norm in ("", "-bn") for depth in vgg.CONVOLUTIONS)
NETWORKS = MOBILENETS + EFFICIENTNETS + RESNETS + VGGS
"""That public weights exist for."""

_KIND = re.compile(r"[^A-Za-z_].*")
"""What follows the word that tells blocks from heads: `layer`, `blocks`, `features`."""

_SIDE = 224
"""Of the picture; only VGG's fully connected layers depend on it."""


@cache
def classifier(network: Network) -> Graph:
    """The whole classifier that public weights are of."""
    kind, _, variant = network.backbone.partition("-")
    match kind:
        case "mobilenetv2":
            return mobilenetv2.classifier(network.width, _SIDE)
        case "efficientnet":
            return efficientnet.classifier(variant, _SIDE)
        case "resnet":
            return resnet.classifier(variant, _SIDE)
        case _:
            depth, _, normalised = variant.partition("-")
            return vgg.classifier(depth, _SIDE, normalised=bool(normalised))


@dataclass(frozen=True, slots=True)
class Format:
    """An implementation whose files are read."""

    name: str
    """`torchvision`, `timm`, `efficientnet-pytorch` or `keras`."""
    signs: tuple[str, ...]
    """Keys that every file of it has."""
    networks: tuple[Network, ...]
    naming: Callable[[Graph, State], Naming]
    """Their layer by ours, for the whole classifier."""
    normalisation: NormalisationName
    padding: PaddingStyle
    epsilon: float
    """Of its batch normalisation."""


def _named(naming: Callable[[Graph], Naming]) -> Callable[[Graph, State], Naming]:
    return lambda graph, _: naming(graph)


FORMATS = (
    Format("torchvision", ("features.0.0.weight", "features.1.conv.0.0.weight"), MOBILENETS,
           _named(torchvision_mobilenetv2), "imagenet", "symmetric", 1e-5),
    Format("torchvision", ("features.0.0.weight", "features.1.0.block.0.0.weight"), EFFICIENTNETS,
           by_order, "imagenet", "symmetric", 1e-5),
    Format("torchvision", ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight"), RESNETS,
           _named(torchvision_resnet), "imagenet", "symmetric", 1e-5),
    Format("torchvision", ("features.0.weight", "features.0.bias"), VGGS,
           _named(torchvision_vgg), "imagenet", "symmetric", 1e-5),
    Format("timm", ("conv_stem.weight", "blocks.0.0.conv_dw.weight"), MOBILENETS + EFFICIENTNETS,
           _named(timm_efficientnet), "imagenet", "symmetric", 1e-5),
    Format("efficientnet-pytorch", ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight"), EFFICIENTNETS,
           efficientnet_pytorch, "imagenet", "same", 1e-3),
    Format("keras", ("Conv1.weight", "expanded_conv_depthwise.weight"), MOBILENETS,
           keras_mobilenetv2, "symmetric", "same", 1e-3),
    Format("keras", ("stem_conv.weight", "block1a_dwconv.weight"), EFFICIENTNETS,
           keras_efficientnet, "imagenet", "same", 1e-3),
)  # fmt: skip

_KERAS_BY_ORDER = (
    Format("keras", (), MOBILENETS, by_order, "symmetric", "same", 1e-3),
    Format("keras", (), EFFICIENTNETS, by_order, "imagenet", "same", 1e-3),
)
"""Keras' files whose layers have names of other versions (`conv2d_1`), which Keras itself loads by their order."""


class Recognised(NamedTuple):
    """What a file turned out to be."""

    format: Format
    network: Network
    naming: Naming


class _Fit(NamedTuple):
    """How well a file fits a network."""

    found: int
    of: int
    difference: str
    """The first; empty where all fits."""


def recognise(content: Content, arrays: Arrays) -> Recognised:
    """Tell whose file it is and of which network; all arrays of the backbone must be there with the right shapes.

    Raises:
        FileError: Nobody's that is known, another network's, or incomplete.
    """
    formats = [known for known in FORMATS if all(sign in arrays.state for sign in known.signs)]
    if not formats and arrays.keras is not None and arrays.keras.in_order:
        formats = list(_KERAS_BY_ORDER)
    fits = [
        (_fit(network, naming, arrays.state), Recognised(known, network, naming))
        for known in formats
        for network in known.networks
        for naming in [known.naming(classifier(network), arrays.state)]
    ]
    if whole := [pair for pair in fits if not pair[0].difference]:
        _, found = max(whole, key=lambda pair: pair[0].of)  # a deep network holds all layers of a shallow one
        if further := _further_kernels(found.naming, arrays.state):
            raise content.error(f"like {found.network} in {found.format.name}'s names, but with {len(further)} further "
                                f"kernels ({further[0]!r})", "", "name another file")  # fmt: skip
        return found
    if not fits or not all(known.signs for known in formats):
        keys = listed(repr(key) for key in list(arrays.state)[:3])
        allowed = listed(dict.fromkeys(known.name for known in FORMATS))
        raise content.error(f"{len(arrays.state)} arrays ({keys}, …) of no network that is known",
                            f"known are files of {allowed} and scaler's checkpoints", "name another file")  # fmt: skip
    nearest, (known, network, _) = max(fits, key=lambda pair: pair[0].found / pair[0].of)
    raise content.error(
        f"has {known.name}'s names, but is no network that scaler has; the nearest is {network}, of which "
        f"{nearest.found} of {nearest.of} arrays fit ({nearest.difference})",
        f"of {known.name} are known: {listed(dict.fromkeys(str(found.network) for _, found in fits))}",
        "name another file",
    )


def _further_kernels(naming: Naming, state: State) -> list[str]:
    """Kernels of a file that are called like those of a network, but are none of them."""
    taken = {f"{theirs}.weight" for theirs in naming.values()}
    kinds = {_KIND.sub("", key) for key in taken}
    return [key for key, value in state.items() if value.ndim == 4 and key not in taken and _KIND.sub("", key) in kinds]


def backbone_shapes(graph: Graph) -> dict[tuple[str, str], tuple[int, ...]]:
    """Shapes of a backbone's arrays in execution order, by the layer and what follows its name in torch's key."""
    return {
        (layer.name, key.removeprefix(module_name(layer))): shapes(layer)[part]
        for layer in owners(graph)
        if layer.name.startswith(BACKBONE)
        for part, key in state_names(layer).items()
    }


@cache
def _shapes_of(network: Network) -> Mapping[tuple[str, str], tuple[int, ...]]:
    return backbone_shapes(classifier(network))


def same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether shapes agree but for sides of one, as those of dense layers and 1x1 convolutions do."""
    return [side for side in one if side != 1] == [side for side in other if side != 1]


def _fit(network: Network, naming: Naming, state: State) -> _Fit:
    expected, found, difference = _shapes_of(network), 0, ""
    for (layer, suffix), shape in expected.items():
        key = f"{naming.get(layer, layer)}{suffix}"
        if key in state and same_shape(shape, tuple(state[key].shape)):
            found += 1
        elif key in state:
            difference = difference or f"{key!r} has the shape {list(state[key].shape)}, not {list(shape)}"
        else:
            difference = difference or f"{key!r} is missing"
    return _Fit(found, len(expected), difference)


def network_of(graph: Graph) -> Network | None:
    """The public network whose backbone a graph has, whole or cut; None where no public weights exist for it."""
    ours = list(backbone_shapes(graph).items())
    return next(
        (network for network in NETWORKS if ours and ours == list(_shapes_of(network).items())[: len(ours)]), None
    )
