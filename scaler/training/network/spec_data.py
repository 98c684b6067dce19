"""A `NetworkSpec` as plain data and back, for checkpoints and run folders. Needs no torch."""

from __future__ import annotations

from typing import Any

from scaler.data.preprocessing import RGB3, Preprocessing
from scaler.errors import UserError, unknown_name
from scaler.models.detectors.families import FAMILIES
from scaler.reader import Reader
from scaler.training.network.spec import Anchors, NetworkSpec, Value


def spec_data(spec: NetworkSpec) -> dict[str, Any]:
    """Dictionaries, lists, texts and numbers only."""
    fitting = spec.preprocessing
    return {
        "family": spec.family,
        "parameters": dict(spec.parameters),
        "classes": list(spec.classes),
        "preprocessing": {
            "size": fitting.size,
            "fill": fitting.fill,
            "mean": list(fitting.mean),
            "std": list(fitting.std),
        },
        "anchors": spec.anchors and [[list(anchor) for anchor in scale] for scale in spec.anchors],
        "symmetric_padding": spec.symmetric_padding,
    }


def read_spec(reader: Reader) -> NetworkSpec:
    """Read what `spec_data` wrote.

    Raises:
        FileError: Something is missing or wrong; one line with the place.
    """
    family = reader.string("family")
    if family not in FAMILIES:
        raise reader.error("family", unknown_name("family", family, FAMILIES))
    spec = NetworkSpec(
        family=family,
        parameters=_parameters(reader.table("parameters")),
        classes=reader.strings("classes", at_least=1),
        preprocessing=_preprocessing(reader.table("preprocessing")),
        anchors=_anchors(reader),
        symmetric_padding=reader.boolean("symmetric_padding", False),
    )
    try:
        spec.graph()
    except (UserError, TypeError, ValueError) as error:
        raise reader.error("", f"no network of scaler's: {error}", todo="update scaler") from None
    return spec


def _parameters(reader: Reader) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key in reader.keys:
        value = reader.raw(key)
        if not isinstance(value, str | int | float | bool):
            raise reader.error(key, "not a text, number or yes/no")
        found[key] = value
    return found


def _preprocessing(reader: Reader) -> Preprocessing:
    return Preprocessing(
        size=reader.integer("size", minimum=1),
        fill=reader.integer("fill", minimum=0, maximum=255),
        mean=_rgb(reader, "mean"),
        std=_rgb(reader, "std"),
    )


def _rgb(reader: Reader, key: str) -> RGB3:
    found = reader.numbers(key)
    if len(found) != 3:
        raise reader.error(key, f"{len(found)} numbers", "expected red, green and blue")
    return found[0], found[1], found[2]


def _anchors(reader: Reader) -> Anchors | None:
    found = reader.raw("anchors", None)
    if found is None:
        return None
    try:
        return tuple(tuple((float(w), float(h)) for w, h in scale) for scale in found)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise reader.error("anchors", "not lists of width and height for every scale") from None
