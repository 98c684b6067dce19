"""Where the layers of an engine run, GPU or deep-learning accelerator (DLA), by what TensorRT says while it builds.

Lines as in public logs of 7.1 to 10.3: until 8.0 a heading and one line of names, later a line a layer. What falls
back is named in warnings, one a layer of the network, before anything is fused.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Placement", "fallback_layers", "parse_placement"]

_HEADING = re.compile(r"-{5,} Layers running on (DLA|GPU):? ?-*", re.IGNORECASE)
_LAYER = re.compile(r"\[(Dla|Gpu)Layer\] ")
_OLD_NAMES = re.compile(r"\{[^{}]*\}|[^,{}]+")
"""Before 8.2: `{a,b}, {c}, ` are two stretches on the DLA, `a + b, c, ` two layers on the GPU."""
_STAMP = re.compile(r"^(?:\[[^\]]*\] |INFO: |[IWV]: )*(?:\[TRT\]:? ?)?(?:\[I\] ?)?")
_FALLBACK = re.compile(
    r"Layer '(?P<a>.+)' \(\w+\): Unsupported on DLA\. Switching|"
    r"Default DLA is enabled but layer (?P<b>.+?) is not (?:supported|running) on DLA, falling back to GPU|"
    r"Validation failed for DLA layer: (?P<c>.+?)\. Switching to GPU|"
    r"DLA supports only \d+ subgraphs per DLA core\. Switching to GPU for layer (?P<d>\S+)"
)


class Placement(NamedTuple):
    """How an engine is divided between DLA and GPU."""

    dla_layers: int
    """Layers of the finished engine on the DLA: mostly stretches of many layers of the network each."""
    gpu_layers: int
    """Layers of the finished engine on the GPU, changes of layout included."""


def parse_placement(text: str) -> Placement | None:
    """What TensorRT's messages say of the last engine that was built in them; None where they do not tell.

    Args:
        text: A log of trtexec, or messages of a logger in process, warnings and information.
    """
    last = max((match.start() for match in _HEADING.finditer(text) if match[1].upper() == "DLA"), default=None)
    if last is None:
        return None
    counts, where = {"DLA": 0, "GPU": 0}, ""
    for line in text[last:].splitlines():
        heading, layer = _HEADING.search(line), _LAYER.search(line)
        said = _STAMP.sub("", line).strip()
        if heading:
            where = heading[1].upper()
        elif layer:
            counts[layer[1].upper()] += 1
        elif where and said and (said.endswith(",") or said.startswith("{")):
            counts[where] += sum(1 for name in _OLD_NAMES.findall(said) if name.strip())
        elif where == "GPU" and said:
            break  # the list is over
    return Placement(counts["DLA"], counts["GPU"])


def fallback_layers(text: str) -> tuple[str, ...]:
    """Names of the layers of the network that warnings say go to the GPU, since the DLA does not take them."""
    found = (next(name for name in match.groups() if name) for match in _FALLBACK.finditer(text))
    return tuple(dict.fromkeys(found))
