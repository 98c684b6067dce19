"""Pretrained weights in the module of a detector: the transfer learning that YOLO-ReT is about.

Its Figure 2 draws accuracy over the share of the backbone that starts from ImageNet's weights: the first blocks do, the
rest and the head start random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from scaler.errors import UnsupportedError, UsageError
from scaler.export.weights import shapes
from scaler.graph.graph import Graph, Layer
from scaler.graph.ops import Conv
from scaler.training.network.mapping import Naming, load_state
from scaler.training.network.module import module_name, state_names
from scaler.training.network.spec import NetworkSpec
from scaler.training.pretrained.formats import network_of, same_shape
from scaler.training.pretrained.namings import BACKBONE, owners
from scaler.training.pretrained.weights import Weights


@dataclass(frozen=True, slots=True)
class Transferred:
    """What a module got from pretrained weights."""

    source: str
    """The weights, in words."""
    loaded: tuple[str, ...]
    """Keys of the module's `state_dict` that were filled."""
    missing: tuple[str, ...]
    """Keys that keep their random start."""
    unused: tuple[str, ...]
    """Keys of the weights that nothing wanted: blocks that are cut off, the classifier."""
    skipped: tuple[str, ...]
    """Layers that both have, in different shapes: heads for other classes."""
    blocks: tuple[str, ...]
    """Blocks of the backbone that were filled, whole."""
    of_blocks: int
    """All blocks of the backbone."""
    filled: tuple[str, ...]
    """Parts of the module (`backbone.stem.unit.conv`) that hold these weights now."""
    frozen: tuple[str, ...]
    """Those of them that a stage which freezes transferred weights keeps: those of the backbone."""
    notes: tuple[str, ...]
    """Where the network differs from the one that the weights are of, so that they are worth less."""

    def lines(self) -> tuple[str, ...]:
        """What was and was not loaded, for the user."""
        told = [f"{self.source}: {len(self.loaded)} arrays in {len(self.blocks)} of {self.of_blocks} backbone blocks"]
        if self.blocks:
            told[0] += f", up to {self.blocks[-1]}"
        for what, names in (("starting random", self.missing), ("in the file, not used", self.unused)):
            if names:
                told.append(f"{what}: {len(names)} arrays ({_places(names)})")
        if self.skipped:
            told.append(f"of other shapes, not loaded: {_places(self.skipped)}")
        return (*told, *self.notes)


def prepared(spec: NetworkSpec, weights: Weights) -> NetworkSpec:
    """The network with the normalisation and the padding that the weights were trained with."""
    facts = weights.facts
    preprocessing = replace(spec.preprocessing, mean=facts.mean, std=facts.std)
    return replace(spec, preprocessing=preprocessing, symmetric_padding=facts.padding == "symmetric")


def transfer(module: nn.Module, graph: Graph, weights: Weights, blocks: int | None = None) -> Transferred:
    """Fill the module of a graph with pretrained weights, as far as they fit; all of that or, after an error, nothing.

    The weights must fit the first blocks of the backbone; it may be cut, and the weights may end before it does.
    Outside the backbone, what has the same name and shape is filled too.

    Args:
        module: What `to_torch` made of the graph.
        graph: The network.
        weights: What `read_weights` returned.
        blocks: How many blocks of the backbone to fill, from the picture on, and nothing else; None for all that fits.

    Raises:
        UnsupportedError: The weights are another network's or width's.
        UsageError: The backbone has fewer blocks.
    """
    names = [placement.name for placement in graph.placements if placement.name.startswith(BACKBONE)]
    if blocks is not None and not 0 <= blocks <= len(names):
        raise UsageError(f"{blocks} blocks to transfer: the backbone of {graph.name} has 0 to {len(names)}")
    layers = list(owners(graph))
    block_of = {layer.name: name for name in names for layer in layers if layer.name.startswith(f"{name}.")}
    wanted = [layer for layer in layers if blocks is None or block_of.get(layer.name) in names[:blocks]]
    naming = weights.naming(graph)
    problems = {layer.name: _problem(layer, naming, weights) for layer in wanted}
    if wanted:
        _check_backbone([layer for layer in wanted if layer.name in block_of], problems, graph, weights)
    fitting = {layer.name: naming[layer.name] for layer in wanted if problems[layer.name] is None}
    if fitting:
        found = load_state(module, graph, weights.state, fitting, epsilon=weights.facts.epsilon)
        loaded, missing, unused = found.loaded, found.missing, found.unused
    else:
        loaded, missing, unused = (), tuple(module.state_dict()), tuple(weights.state)
    incomplete = {block_of[layer.name] for layer in layers if layer.name in block_of and layer.name not in fitting}
    facts = weights.facts
    return Transferred(
        source=f"{facts.network} ({facts.format}, {weights.name}, sha256 {weights.sha256[:8]})",
        loaded=loaded,
        missing=missing,
        unused=unused,
        skipped=tuple(name for name, problem in problems.items() if problem),
        blocks=tuple(name for name in names if name not in incomplete and fitting),
        of_blocks=len(names),
        filled=tuple(module_name(layer) for layer in layers if layer.name in fitting),
        frozen=tuple(module_name(layer) for layer in layers if layer.name in fitting and layer.name in block_of),
        notes=tuple(_notes(graph, weights)) if fitting else (),
    )


def _problem(layer: Layer, naming: Naming, weights: Weights) -> str | None:
    """Why a layer's arrays cannot be filled: the shapes that differ, an empty text where they are missing, or None."""
    if layer.name not in naming:
        return ""
    for part, shape in shapes(layer).items():
        ours = state_names(layer)[part]
        theirs = naming[layer.name] + ours.removeprefix(module_name(layer))
        if theirs not in weights.state:
            return ""
        given = tuple(weights.state[theirs].shape)
        if not same_shape(shape, given):
            return f"{ours} has the shape {list(given)} there and {list(shape)} here"
    return None


def _check_backbone(layers: list[Layer], problems: Mapping[str, str | None], graph: Graph, weights: Weights) -> None:
    """Make sure that weights fit the backbone from its beginning on, or end before it does."""
    fits = [problems[layer.name] is None for layer in layers]
    first = fits.index(False) if False in fits else len(fits)
    if first and not any(fits[first:]) and not any(problems[layer.name] for layer in layers):
        return
    network = network_of(graph)
    ours = f"the network has {network}" if network else f"the backbone of {graph.name} is another"
    layer = layers[first].name if layers else f"{BACKBONE}*"
    why = next((problems[layer.name] for layer in layers if problems[layer.name]), "") or f"{layer} is not among them"
    raise UnsupportedError(
        f"these weights are {weights.facts.network} ({weights.facts.format}), {ours}: {why}; `scaler weights list` "
        "names files of other networks and widths"
    )


def _notes(graph: Graph, weights: Weights) -> list[str]:
    """Differences that shapes do not tell."""
    theirs = _convolutions(weights.graph)
    ours = {name: op for name, op in _convolutions(graph).items() if name in theirs}
    notes = []
    if any(op.stride != theirs[name].stride for name, op in ours.items()):
        notes.append("the weights were trained with strides in other convolutions of the same blocks (see stride_in)")
    pads_as_tensorflow = any(map(_is_uneven, ours.values()))
    wants_tensorflow = weights.facts.padding == "same" and any(_is_uneven(theirs[name]) for name in ours)
    if pads_as_tensorflow != wants_tensorflow:
        notes.append(f"the weights were trained with padding {weights.facts.padding!r}, which this network has not")
    return notes


def _convolutions(graph: Graph) -> dict[str, Conv]:
    return {
        layer.name: layer.op
        for layer in owners(graph)
        if layer.name.startswith(BACKBONE) and isinstance(layer.op, Conv)
    }


def _is_uneven(op: Conv) -> bool:
    return (op.padding.top, op.padding.left) != (op.padding.bottom, op.padding.right)


def _places(names: tuple[str, ...]) -> str:
    """Where layers lie: the parts of a network before the first difference that matters, each once."""
    places = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
    shown = list(places)[:6]
    return ", ".join(shown) + (f", … {len(places)} places" if len(places) > len(shown) else "")
