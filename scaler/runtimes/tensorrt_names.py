"""From the names that TensorRT gives its layers to the ONNX nodes that they compute.

TensorRT joins the names of what it fuses. Forms seen in logs and profiles of 8.0 to 10.x:

=====================================================  ================================================
``a + b``                                              fused one after the other
``a || b``                                             convolutions of one input, merged side by side
``PWN(PWN(a), b)``                                     a chain of elementwise operators
``{ForeignNode[a...b]}``                               a compiled region, from its first to its last node
``Reformatting CopyNode for Input Tensor 0 to a``      a change of layout on account of ``a``
``a input reformatter 0``                              the same in 8.0
``a copy``                                             copying a tensor to its place in a concatenation
``a_myl3_5``, ``__myl_MulAdd_myl3_5``                  kernels of a compiled region; the latter names nobody
=====================================================  ================================================

From 8.6 on detailed layer information has the nodes in its `Metadata`, which is better than any name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

_REFORMAT = re.compile(
    r"Reformatting CopyNode for (?:(?:Input|Output) Tensor \d+ to|Network (?:Input|Output)) (.+)|"
    r"(.+) (?:input|output) reformatter \d+",
    re.DOTALL,
)
_PROFILE = re.compile(r" \[profile \d+\]$")
_REGION = re.compile(r"\{ForeignNode\[(.+)\]\}", re.DOTALL)
_METADATA = re.compile(r"\[ONNX Layer: (.*?)\](?=[\x1e\x1f\s]|\[|$)", re.DOTALL)
_APPENDED = re.compile(r"(?: copy|_clone_\d+|_(?:de)?quantize_scale_node|_myl\d+_\d+|_output)$")
_OPENING, _CLOSING = "([{", ")]}"
_ANONYMOUS = ("__myl_", "(Unnamed Layer*", "[trainStation", "[HostToDeviceCopy", "[DeviceToShapeHostCopy")


class Region(NamedTuple):
    """A stretch of nodes of which only the ends are named."""

    first: str
    last: str


def is_reformat(name: str) -> bool:
    """Whether a layer only changes the layout of a tensor."""
    return _REFORMAT.fullmatch(name) is not None


def without_profile(name: str) -> str:
    """The name without the number of an optimisation profile, which appears when an engine has several."""
    return _PROFILE.sub("", name)


def metadata_nodes(metadata: str) -> tuple[str, ...]:
    r"""Names in a layer's metadata: ``[ONNX Layer: a]`` again and again, with \x1e, \x1f or nothing between."""
    return tuple(dict.fromkeys(_METADATA.findall(metadata)))


def name_parts(name: str) -> tuple[str | Region, ...]:
    """The names of which a layer's name consists, in its order; a layer that names nobody has none."""
    reformat = _REFORMAT.fullmatch(without_profile(name))
    return tuple(dict.fromkeys(_parts(reformat[1] or reformat[2] if reformat else without_profile(name))))


def layer_nodes(name: str) -> tuple[str, ...]:
    """Names of ONNX nodes or tensors in a layer's name; of a region those of its ends."""
    parts = name_parts(name)
    return tuple(dict.fromkeys(part for item in parts for part in (item if isinstance(item, Region) else (item,))))


def attributed(
    layers: Iterable[tuple[str, str]], nodes: Sequence[str], makers: Mapping[str, str]
) -> tuple[tuple[str, ...], ...]:
    """Attribute layers to the nodes of a known model.

    Args:
        layers: Name and metadata of every layer; the metadata may be empty.
        nodes: The model's nodes in execution order.
        makers: The node that makes a tensor, by the tensor.

    Returns:
        For each layer its nodes. Names that the model does not know are left out; a region gets those between its
        ends that no other layer claims.
    """
    known = _Known(nodes, makers)
    found: list[list[str]] = []
    regions: list[tuple[int, Region]] = []
    for place, (name, metadata) in enumerate(layers):
        told = known.nodes(metadata_nodes(metadata))
        parts = name_parts(name) if not told else ()
        regions += [(place, part) for part in parts if isinstance(part, Region)]
        found.append(told or known.nodes(part for part in parts if isinstance(part, str)))
    claimed = {node for names in found for node in names}
    for place, region in regions:
        found[place] += [node for node in known.between(region) if node not in claimed]
    return tuple(tuple(dict.fromkeys(names)) for names in found)


class _Known:
    """The names of a model, and how to find one in spite of what TensorRT appends or replaces."""

    def __init__(self, nodes: Sequence[str], makers: Mapping[str, str]) -> None:
        self._order = {name: place for place, name in enumerate(nodes)}
        self._names = {**{tensor: node for tensor, node in makers.items() if node}, **{name: name for name in nodes}}
        self._plain = {_plain(name): node for name, node in self._names.items()}

    def nodes(self, names: Iterable[str]) -> list[str]:
        """The nodes of those names that have one."""
        return [node for name in names if (node := self.node(name))]

    def node(self, name: str) -> str | None:
        """The node of a name, or None."""
        while name:
            node = self._names.get(name) or self._plain.get(_plain(name))
            shorter = _APPENDED.sub("", name)
            if node or shorter == name:
                return node
            name = shorter
        return None

    def between(self, region: Region) -> tuple[str, ...]:
        """The nodes from the first to the last one of a region; one end where the other is unknown."""
        places = [self._order[node] for end in region if (node := self.node(end))]
        return tuple(self._order)[min(places) : max(places) + 1] if places else ()


def _plain(name: str) -> str:
    """A name as the compiler of regions writes it: dots and the like become underscores."""
    return re.sub(r"\W", "_", name)


def _parts(name: str) -> list[str | Region]:
    """Take a name apart to the last; a stack, since chains of elementwise operators nest deeply."""
    found: list[str | Region] = []
    waiting = [name]
    while waiting:
        text = waiting.pop().strip()
        region = _REGION.fullmatch(text)
        if pieces := _pieces(text):
            waiting += reversed(pieces)
        elif region:
            first, dots, last = (part.strip() for part in region[1].partition("..."))
            found.append(Region(first, last) if dots and first and last else region[1])
        elif text and not text.startswith(_ANONYMOUS):
            found.append(text)
    return found


def _pieces(text: str) -> list[str]:
    """The names of which a name is made in one step; none if it is a single one."""
    for separator in (" || ", " + "):
        pieces = _split(text, separator)
        if len(pieces) > 1:
            return pieces
    if text.startswith("PWN(") and text.endswith(")"):
        return _split(text[4:-1], ", ")
    return [text.removesuffix(" copy")] if text.endswith(" copy") else []


def _split(text: str, separator: str) -> list[str]:
    """Split where no bracket is open; brackets that do not match count as text."""
    if separator not in text:
        return [text]
    pieces, depth, start, place = [], 0, 0, 0
    while place < len(text):
        if text[place] in _OPENING:
            depth += 1
        elif text[place] in _CLOSING:
            depth -= 1
        elif depth == 0 and text.startswith(separator, place):
            pieces.append(text[start:place])
            place = start = place + len(separator)
            continue
        place += 1
    return [*pieces, text[start:]] if depth == 0 else text.split(separator)
