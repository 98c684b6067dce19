"""Names of layers in implementations that `network.mapping` does not have: Keras', EfficientNet-PyTorch's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from string import ascii_lowercase

from scaler.graph.graph import Graph, Layer
from scaler.training.network.mapping import Naming, State
from scaler.training.network.module import STATE

BACKBONE = "backbone."
"""How the names of a backbone's layers begin."""

_BLOCK = re.compile(r"backbone\.stage(\d+)\.block(\d+)")
_BLOCK_LAYERS = ("expand.conv", "expand.bn", "depthwise.conv", "depthwise.bn", "se.reduce", "se.expand",
                 "project.conv", "project.bn")  # fmt: skip
_ENDS = ("stem.unit.conv", "stem.unit.bn", "head.unit.conv", "head.unit.bn")
"""Of a MobileNetV2 or EfficientNet, within the backbone; `_BLOCK_LAYERS` within a block."""

_MOBILENETV2 = ("expand", "expand_BN", "depthwise", "depthwise_BN", "", "", "project", "project_BN")
_EFFICIENTNET = ("expand_conv", "expand_bn", "dwconv", "bn", "se_reduce", "se_expand", "project_conv", "project_bn")
_PYTORCH = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_reduce", "_se_expand", "_project_conv", "_bn2")
_CLASSIFIERS = ("predictions", "probs", "Logits")


def owners(graph: Graph) -> Iterator[Layer]:
    """Layers with parameters of their own, in execution order."""
    return (layer for layer in graph.layers() if type(layer.op) in STATE and layer.name == layer.weights)


def keras_mobilenetv2(graph: Graph, state: State) -> Naming:
    """The names of `keras.applications`' MobileNetV2."""
    prefixes = {
        block: "expanded_conv_" if number == 0 else f"block_{number}_" for number, block in enumerate(_blocks(graph))
    }
    ends = ("Conv1", "bn_Conv1", "Conv_1", "Conv_1_bn")
    return _composed(prefixes, _MOBILENETV2, ends, _classifier(state, _CLASSIFIERS))


def keras_efficientnet(graph: Graph, state: State) -> Naming:
    """The names of `keras.applications`' EfficientNet, which qubvel's and Callidior's share but for the classifier."""
    prefixes = {}
    for block in _blocks(graph):
        if found := _BLOCK.fullmatch(block):
            prefixes[block] = f"block{found[1]}{ascii_lowercase[int(found[2])]}_"
    ends = ("stem_conv", "stem_bn", "top_conv", "top_bn")
    return _composed(prefixes, _EFFICIENTNET, ends, _classifier(state, _CLASSIFIERS))


def efficientnet_pytorch(graph: Graph, _: State) -> Naming:
    """The names of the package efficientnet-pytorch, which pads as TensorFlow does."""
    prefixes = {block: f"_blocks.{number}." for number, block in enumerate(_blocks(graph))}
    return _composed(prefixes, _PYTORCH, ("_conv_stem", "_bn0", "_conv_head", "_bn1"), "_fc")


def by_order(graph: Graph, state: State) -> Naming:
    """The names of whoever lists the same layers in the graph's order, with or without the classifier; else none."""
    ours = [layer.name for layer in owners(graph)]
    theirs = list(dict.fromkeys(key.rpartition(".")[0] for key in state))
    trunk = [name for name in ours if name.startswith(BACKBONE)]
    return dict(zip(ours if len(theirs) == len(ours) else trunk, theirs, strict=False))


def _blocks(graph: Graph) -> list[str]:
    return [placement.name for placement in graph.placements if _BLOCK.fullmatch(placement.name)]


def _classifier(state: State, candidates: Iterable[str]) -> str:
    return next((name for name in candidates if f"{name}.weight" in state), "")


def _composed(prefixes: Mapping[str, str], layers: Iterable[str], ends: Iterable[str], classifier: str) -> Naming:
    """Their layer by ours, from the prefix of each block and the names within it."""
    names = {f"{BACKBONE}{ours}": theirs for ours, theirs in zip(_ENDS, ends, strict=True)}
    for block, prefix in prefixes.items():
        names |= {
            f"{block}.{ours}": prefix + theirs for ours, theirs in zip(_BLOCK_LAYERS, layers, strict=True) if theirs
        }
    return names | ({"classifier.linear": classifier} if classifier else {})
