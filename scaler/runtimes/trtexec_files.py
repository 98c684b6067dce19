"""The files that trtexec writes, of TensorRT 8.0 to 11.x, as typed records.

Source of the formats: samples/common/sampleReporting.cpp of github.com/NVIDIA/TensorRT, branches release/8.0 to
release/11.1; the layer information is written by TensorRT itself. What differs between versions:

- times: 8.0, 8.2 and 8.4 write the rows of the warm-up too; 8.0 and 8.2 have one key more (`endToEndMs`);
- layer times: 8.0 and 8.2 have no median; all write the names raw, without escaping anything;
- layer information: none before 8.2; plain names unless the engine was built with detailed verbosity.

All readers are total: whatever a file holds, they return or raise a `FileError` of one line.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scaler.errors import FileError
from scaler.files import read_text
from scaler.runtimes.protocol import FloatArray, LayerTime
from scaler.runtimes.tensorrt_names import attributed, is_reformat, layer_nodes, metadata_nodes, without_profile

__all__ = [
    "LayerInfo",
    "Profile",
    "ProfiledLayer",
    "join",
    "parse_layer_info",
    "parse_profile",
    "parse_times",
    "read_layer_info",
    "read_profile",
    "read_times",
]

_AGAIN = "measure again"
_SHOWN = 60
_OPENS = re.compile(r'[,\[]? ?\{ "name" : "')
_AFTER_NAME = '", "timeMs" :'
_VALUE = re.compile(r'"([A-Za-z]+)" : ([^\s,}]+)')
_HEADER = re.compile(r'[,\[]?\s*\{ ?"count" ?: ?(\d{1,18}) ?\},?')
_FRAME = frozenset(("", "[", "]"))


class ProfiledLayer(NamedTuple):
    """Time of one layer by its raw name."""

    name: str
    ms: float
    """Median over the iterations; the mean before TensorRT 8.4."""


class Profile(NamedTuple):
    """What `--exportProfile` writes."""

    iterations: int | None
    """Profiled iterations, warm-up included; None if the file does not say."""
    layers: tuple[ProfiledLayer, ...]
    """In execution order; names may repeat."""


class LayerInfo(NamedTuple):
    """What `--exportLayerInfo` says of one layer."""

    name: str
    kind: str = ""
    """Its `LayerType`; empty where only names were written."""
    metadata: str = ""
    """The ONNX nodes that it computes, as TensorRT writes them; see `scaler.runtimes.tensorrt_names`."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the ONNX nodes: those of the metadata, else those in the name."""
        return metadata_nodes(self.metadata) or layer_nodes(self.name)


def read_times(path: Path | str, *, warm_up_ms: float) -> FloatArray:
    """Read a file of `--exportTimes`; see `parse_times`."""
    return parse_times(read_text(path), path, warm_up_ms=warm_up_ms)


def read_profile(path: Path | str) -> Profile:
    """Read a file of `--exportProfile`; see `parse_profile`."""
    return parse_profile(read_text(path), path)


def read_layer_info(path: Path | str) -> tuple[LayerInfo, ...]:
    """Read a file of `--exportLayerInfo`; see `parse_layer_info`."""
    return parse_layer_info(read_text(path), path)


def parse_times(text: str, file: Path | str, *, warm_up_ms: float) -> FloatArray:
    """GPU compute times in ms of all queries after the warm-up, in order.

    Args:
        text: The file's content.
        file: Its name, for messages.
        warm_up_ms: Length of the warm-up as trtexec was told; queries that started earlier are dropped, as trtexec
            drops them for its summary. Versions that leave them out write only later ones.

    Raises:
        FileError: The text is no such file, it is cut off, a time is not a positive number, or no query is left.
    """
    rows = _objects(_json(text, file), file)
    started = [_number(file, row, i, "startComputeMs", minimum=-math.inf) for i, row in enumerate(rows)]
    times = [_number(file, row, i, "computeMs", minimum=0.0) for i, row in enumerate(rows)]
    kept = [ms for start, ms in zip(started, times, strict=True) if start >= warm_up_ms]
    if not kept:
        what = f"none of the {len(rows)} queries started after the warm-up of {warm_up_ms:g} ms"
        raise FileError(file, "", what, todo="give --iterations or --duration a larger value")
    if min(kept) <= 0:
        raise FileError(file, f"[{times.index(min(kept))}].computeMs", "found 0", "expected a number > 0", _AGAIN)
    return np.array(kept, dtype=np.float64)


def parse_profile(text: str, file: Path | str) -> Profile:
    """Layer times in execution order.

    trtexec writes one layer a line and escapes nothing in names, so lines are read first: a name may hold quotes,
    backslashes and control characters. A file that some program has written anew is read as JSON.

    Raises:
        FileError: The text is no such file, it is cut off, holds no layer, or a time is not a number from 0 on.
    """
    lines = [line.strip(" \t\r") for line in text.split("\n")]  # splitlines() would split at \x1e too
    if not any(map(_OPENS.match, lines)):
        return _profile_of_json(text, file)
    iterations, layers = None, []
    for number, line in enumerate(lines, start=1):
        if layer := _layer_of_line(line, file, number):
            layers.append(layer)
        elif header := _HEADER.fullmatch(line):
            iterations = int(header[1])
        elif line not in _FRAME:
            raise FileError(file, f"line {number}", f"found {_cut(line)!r}", "expected a layer", _AGAIN)
    if not text.rstrip().endswith("]"):
        raise FileError(file, f"line {len(lines)}", "the file ends within the list", "expected ]", _AGAIN)
    return Profile(iterations, tuple(layers))


def parse_layer_info(text: str, file: Path | str) -> tuple[LayerInfo, ...]:
    """Layers of an engine in execution order, from names only or from detailed objects.

    Raises:
        FileError: The text is no such file, it is cut off, or holds no layer.
    """
    content = _json(text, file)
    layers = content.get("Layers") if isinstance(content, dict) else None
    if not isinstance(layers, list) or not layers:
        raise FileError(file, "Layers", "missing or empty", 'expected {"Layers": [...]}', "write it again")
    return tuple(_info(file, item, place) for place, item in enumerate(layers))


def join(
    profile: Profile,
    infos: Sequence[LayerInfo] = (),
    *,
    nodes: Sequence[str] = (),
    makers: Mapping[str, str] | None = None,
) -> tuple[LayerTime, ...]:
    """Put layer times and layer information together.

    Layers are matched by name, equal ones in their order; where that fails and there are as many of both, by place.

    Args:
        profile: The times.
        infos: What is known of the layers; may be empty.
        nodes: Names of the model's nodes in execution order; without them the names stay as TensorRT writes them.
        makers: The node that makes a tensor, by the tensor.
    """
    matched = _matched(profile.layers, infos)
    owners = (
        attributed([(info.name, info.metadata) for info in matched], nodes, makers or {})
        if nodes
        else tuple(info.nodes for info in matched)
    )
    return tuple(
        LayerTime(layer.name, layer.ms, names, info.kind or ("Reformat" if is_reformat(layer.name) else ""))
        for layer, info, names in zip(profile.layers, matched, owners, strict=True)
    )


def _matched(layers: Sequence[ProfiledLayer], infos: Sequence[LayerInfo]) -> list[LayerInfo]:
    """What is known of each layer, under the name that it has in the profile."""
    by_name: dict[str, deque[LayerInfo]] = defaultdict(deque)
    for info in infos:
        by_name[without_profile(info.name)].append(info)
    matched = []
    for place, layer in enumerate(layers):
        same_name = by_name[without_profile(layer.name)]
        if same_name:
            info = same_name.popleft()
        else:
            info = infos[place] if len(infos) == len(layers) else LayerInfo(layer.name)
        matched.append(info._replace(name=layer.name))
    return matched


def _layer_of_line(line: str, file: Path | str, number: int) -> ProfiledLayer | None:
    """The layer of a line as trtexec writes it; None if the line is another."""
    opens = _OPENS.match(line)
    if not opens:
        return None
    name, after, values = line[opens.end() :].rpartition(_AFTER_NAME)
    if not after or not values.rstrip(",").endswith("}"):
        raise FileError(file, f"line {number}", "a layer that is cut off", "expected its name and times", _AGAIN)
    return ProfiledLayer(name, _layer_ms(file, dict(_VALUE.findall(f'"timeMs" :{values}')), f"line {number}"))


def _profile_of_json(text: str, file: Path | str) -> Profile:
    rows = _objects(_json(text, file), file)
    counts = [row["count"] for row in rows if type(row.get("count")) is int]
    layers = tuple(
        ProfiledLayer(row["name"], _layer_ms(file, row, f"[{place}]"))
        for place, row in enumerate(rows)
        if isinstance(row.get("name"), str)
    )
    if not layers:
        raise FileError(file, "", "no layer", "expected the file of --exportProfile", _AGAIN)
    return Profile(counts[0] if counts else None, layers)


def _layer_ms(file: Path | str, values: Mapping[str, Any], where: str) -> float:
    """The median of a layer, or its mean where there is none."""
    key = "medianMs" if "medianMs" in values else "averageMs"
    return _checked(file, values.get(key), f"{where}.{key}", minimum=0.0)


def _info(file: Path | str, item: object, place: int) -> LayerInfo:
    if isinstance(item, str):
        return LayerInfo(item)
    name = item.get("Name") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(name, str):
        raise FileError(file, f"Layers[{place}]", "no name", 'expected a text or {"Name": ...}', "write it again")
    kind, metadata = item.get("LayerType", ""), item.get("Metadata", "")
    return LayerInfo(name, kind if isinstance(kind, str) else "", metadata if isinstance(metadata, str) else "")


def _json(text: str, file: Path | str) -> Any:
    try:
        return json.loads(text, strict=False)  # names may hold control characters
    except RecursionError:
        raise FileError(file, "", "nested too deep", todo="name another file") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        cut = ", and the file ends" if error.pos >= len(text.rstrip()) else ""
        raise FileError(file, where, f"{error.msg}{cut}", "expected JSON of trtexec", _AGAIN) from None
    except ValueError:
        raise FileError(file, "", "a whole number of thousands of digits", "expected JSON of trtexec") from None


def _objects(content: Any, file: Path | str) -> list[dict[str, Any]]:
    if not isinstance(content, list) or not content or not all(isinstance(row, dict) for row in content):
        raise FileError(file, "", "no list of objects", "expected a file that trtexec wrote", _AGAIN)
    return content


def _number(file: Path | str, row: Mapping[str, Any], place: int, key: str, *, minimum: float) -> float:
    return _checked(file, row.get(key), f"[{place}].{key}", minimum=minimum)


def _checked(file: Path | str, value: object, where: str, *, minimum: float) -> float:
    """A finite number from a JSON value or, in lines, from a text."""
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
    if not math.isfinite(number) or number < minimum:
        found = "missing" if value is None else f"found {_cut(str(value))}"
        expected = "a finite number" if minimum == -math.inf else f"a number >= {minimum:g}"
        raise FileError(file, where, found, f"expected {expected}", _AGAIN)
    return number


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
