"""What a detector's ONNX file says of itself: classes, anchors, how it wants pictures, as JSON under the key `scaler`.

ONNX calls this `metadata_props`. `scaler.training.network.onnx_file` writes it; whoever runs the file elsewhere
reads it with any ONNX tool.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from scaler import __version__
from scaler.data.preprocessing import RGB3, Preprocessing
from scaler.errors import FileError
from scaler.evaluation.detections import Selection
from scaler.reader import Reader

KEY = "scaler"
SCHEMA_VERSION = 1
NmsKind: TypeAlias = Literal["efficient", "onnx"]
NumberFormat: TypeAlias = Literal["fp32", "fp16", "int8"]
_NO_NMS: Literal["none"] = "none"


class ScaleAnchors(NamedTuple):
    """Anchor boxes of one scale."""

    stride: int
    """Input pixels per cell."""
    sizes: tuple[tuple[float, float], ...]
    """Width and height in input pixels, in the order of the boxes of a cell."""


class NmsInside(NamedTuple):
    """The non-maximum suppression that a file does itself; `scaler.export.decode.Decode` explains it."""

    kind: NmsKind
    confidence: float
    """Least score of a detection."""
    iou: float
    """Overlap with a better box of its class above which a box is dropped."""
    max_detections: int
    """Of a picture (`efficient`), or of a class in a picture (`onnx`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxMetadata:
    """Everything that a file needs beside its nodes and numbers."""

    classes: tuple[str, ...]
    """Names, in the order of the scores."""
    preprocessing: Preprocessing
    family: str
    """Of the network, to be told."""
    parameters: Mapping[str, str | int | float | bool]
    """Of the network, to be told."""
    selection: Selection | None = None
    """Which boxes counted when the network's AP was computed; files of earlier versions do not tell."""
    anchors: tuple[ScaleAnchors, ...] | None = None
    """Scale by scale in the order of the boxes, to be told; files of earlier versions do not tell."""
    precision: NumberFormat = "fp32"
    """Of the network; input and outputs are of 32 bits."""
    nms: NmsInside | None = None
    """None where it is left to whoever runs the file."""
    scaler_version: str = __version__
    """Of the scaler that wrote the file."""

    def as_text(self) -> str:
        """The JSON."""
        fitting = self.preprocessing
        selection = {} if self.selection is None else {"selection": asdict(self.selection)}
        anchors = {} if self.anchors is None else {"anchors": [scale._asdict() for scale in self.anchors]}
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "scaler_version": self.scaler_version,
                "family": self.family,
                "parameters": dict(self.parameters),
                "classes": list(self.classes),
                "preprocessing": {
                    "size": fitting.size,
                    "fill": fitting.fill,
                    "mean": list(fitting.mean),
                    "std": list(fitting.std),
                },
                "precision": self.precision,
                "nms": {"kind": _NO_NMS} if self.nms is None else self.nms._asdict(),
                **anchors,
                **selection,
            },
            allow_nan=False,
        )


def read_metadata(properties: Mapping[str, str], file: Path | str) -> OnnxMetadata:
    """Read what a file says of itself.

    Args:
        properties: The file's `metadata_props`.
        file: For messages.

    Raises:
        FileError: There is nothing from scaler, or it is of another version or wrong.
    """
    text = properties.get(KEY)
    if text is None:
        raise FileError(
            file,
            f"metadata_props.{KEY}",
            "missing, so that classes, input size and normalisation are not known",
            "expected an ONNX file that scaler train or scaler export wrote",
            "name its best.onnx or best.pt",
        )
    reader = Reader(_object(text, file), file, f"metadata_props.{KEY}")
    if (version := reader.integer("schema_version")) != SCHEMA_VERSION:
        todo = "update scaler" if version > SCHEMA_VERSION else "write the file again with this scaler"
        raise reader.error("schema_version", f"found {version}", f"this scaler reads {SCHEMA_VERSION}", todo)
    fitting = reader.table("preprocessing")
    preprocessing = Preprocessing(
        size=fitting.integer("size", minimum=1, maximum=16384),
        fill=fitting.integer("fill", minimum=0, maximum=255),
        mean=_rgb(fitting, "mean"),
        std=_rgb(fitting, "std", above=1e-6),
    )
    parameters, selection = reader.table("parameters"), reader.table("selection", None)
    return OnnxMetadata(
        classes=reader.strings("classes", at_least=1),
        preprocessing=preprocessing,
        family=reader.string("family"),
        parameters={key: _value(parameters, key) for key in parameters.keys},
        selection=None if selection is None else Selection.read(selection),
        anchors=_anchors(reader),
        precision=reader.choice("precision", get_args(NumberFormat), "fp32"),
        nms=_nms(reader),
        scaler_version=reader.string("scaler_version"),
    )


def _object(text: str, file: Path | str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        raise FileError(file, f"metadata_props.{KEY}", "no JSON object", todo="write the file again with this scaler")
    return data


def _anchors(reader: Reader) -> tuple[ScaleAnchors, ...] | None:
    scales = reader.tables("anchors", None)
    if scales is None:
        return None
    return tuple(ScaleAnchors(scale.integer("stride", minimum=1), _sizes(scale)) for scale in scales)


def _sizes(scale: Reader) -> tuple[tuple[float, float], ...]:
    found = scale.raw("sizes")
    pairs = found if isinstance(found, list) else []
    sizes = tuple((float(pair[0]), float(pair[1])) for pair in pairs if _is_size(pair))
    if not sizes or len(sizes) != len(pairs):
        raise scale.error("sizes", "no list of widths and heights", "expected [[10, 14], …]", "correct it")
    return sizes


def _is_size(pair: object) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(side, int | float) and not isinstance(side, bool) and 0 < side < math.inf for side in pair)
    )


def _nms(reader: Reader) -> NmsInside | None:
    table = reader.table("nms", None)
    if table is None:
        return None
    kind = table.choice("kind", (_NO_NMS, *get_args(NmsKind)))
    if kind == _NO_NMS:
        return None
    return NmsInside(
        kind=kind,
        confidence=table.number("confidence", minimum=0, maximum=1),
        iou=table.number("iou", minimum=0, maximum=1),
        max_detections=table.integer("max_detections", minimum=1),
    )


def _rgb(reader: Reader, key: str, above: float = -1e6) -> RGB3:
    found = reader.numbers(key, minimum=above, maximum=1e6)
    if len(found) != 3:
        raise reader.error(key, f"found {len(found)} numbers", "expected those of red, green and blue", "correct them")
    return found[0], found[1], found[2]


def _value(reader: Reader, key: str) -> str | int | float | bool:
    value = reader.raw(key)
    if not isinstance(value, str | int | float | bool):
        raise reader.error(key, "found a table or list", "expected a text, a number, true or false", "remove it")
    return value
