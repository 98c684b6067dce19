"""A search result as files for machines: `pareto.csv` and `pareto.json`."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

from scaler.files import write_atomic
from scaler.report.verification import comparison
from scaler.report.wording import find, frame_ms, latest, merged_keys
from scaler.search.result import (
    SCHEMA_VERSION,
    Candidate,
    DeviceResult,
    Interval,
    ParameterValue,
    SearchResult,
)
from scaler.search.result_file import KIND

Cell = ParameterValue | None

_EXPLORED = re.compile(r'"explored": \[\]')
"""No text in JSON can look like this key and its empty list: quotes in texts are escaped."""


def write_json(result: SearchResult, path: Path) -> None:
    """Write the whole result as `json_text`."""
    write_atomic(path, json_text(result))


def json_text(result: SearchResult) -> str:
    """The whole result as strict JSON, which `scaler.search.result_file.read_result` reads back.

    Raises:
        ValueError: A figure is not finite: a fault of the search, named by its path.
    """
    bare = dataclasses.replace(
        result, devices=tuple(dataclasses.replace(device, explored=()) for device in result.devices)
    )
    tree = {"kind": KIND, "schema_version": SCHEMA_VERSION, **dataclasses.asdict(bare)}
    for name, value in _numbers(tree, ""):
        if not math.isfinite(value):
            raise ValueError(f"{name.removeprefix('.')} is {value}: a search result has only finite figures")
    points = iter([_points(device) for device in result.devices])
    text = json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False)
    return _EXPLORED.sub(lambda _: f'"explored": {next(points)}', text) + "\n"


def _points(device: DeviceResult) -> str:
    """The explored points on a line each; tens of thousands, which the indenting encoder is too slow for."""
    try:
        text = json.dumps(device.explored, allow_nan=False)
    except ValueError:
        raise ValueError(f"{device.device}: an explored point is not finite") from None
    return text.replace("], [", "],\n        [")


def write_csv(result: SearchResult, path: Path) -> None:
    """Write one row per candidate and device; units are part of the column names.

    Parameters of the search space carry the prefix `param_`; a cell is empty where a parameter is inactive.
    """
    import pandas  # noqa: PLC0415 (0.2 s)

    rows = [row for device in result.devices for row in _rows(result, device)]
    table = pandas.DataFrame(rows, columns=merged_keys(rows) or ("device", "rank", "id"), dtype=object)
    write_atomic(path, table.to_csv(index=False, lineterminator="\n"))


def _rows(result: SearchResult, device: DeviceResult) -> Iterator[dict[str, Cell]]:
    for rank, candidate in enumerate(device.front, start=1):
        yield _row(result, device, candidate, rank)
    if device.nearest is not None and find(device, device.nearest.id) is None:
        yield _row(result, device, device.nearest, None)


def _row(result: SearchResult, device: DeviceResult, candidate: Candidate, rank: int | None) -> dict[str, Cell]:
    return {
        "device": device.device,
        "power_mode": device.power_mode,
        "runtime": device.runtime,
        "precision": candidate.precision or device.precision,
        "target_fps": device.target_fps,
        "rank": rank,
        "id": candidate.id,
        "pick": candidate.id == device.pick,
        "knee": candidate.id == device.knee,
        "nearest": device.nearest is not None and candidate.id == device.nearest.id,
        **{f"param_{key}": value for key, value in candidate.params.items()},
        "metric": result.metric,
        **_spread("ap", candidate.ap),
        "ap_inside_support": candidate.ap_inside_support,
        "ap_outside": "; ".join(candidate.ap_outside),
        "ap_provenance": candidate.ap_provenance,
        **_optional("ap_loss", candidate.ap_loss),
        **_trained(candidate, result.metric),
        **_verified(result, device, candidate),
        **_spread("frame_ms", frame_ms(candidate)),
        **_spread("engine_ms", candidate.engine_ms),
        "overhead_ms": candidate.overhead_ms,
        **_spread("fps", candidate.fps),
        "reach_probability": candidate.reach_probability,
        **_optional("energy_mj", candidate.energy_mj),
        "parameters": candidate.parameters,
        "macs": candidate.macs,
        "memory_access_bytes": candidate.memory_access_bytes,
        "peak_activation_mib": candidate.peak_activation_mib,
        "weights_mib": candidate.weights_mib,
        "latency_provenance": candidate.provenance,
        "coverage_table": candidate.coverage.table,
        "coverage_model": candidate.coverage.model,
        "coverage_roofline": candidate.coverage.roofline,
    }


def _trained(candidate: Candidate, metric: str) -> dict[str, Cell]:
    """The measured accuracy; empty where it was not trained."""
    run = latest(candidate, metric)
    return {
        "trained_ap": None if run is None else run.ap,
        "trained_ap50": None if run is None else run.ap50,
        "trained_on": None if run is None else run.dataset,
        "trained_recipe": None if run is None else run.recipe,
        "trained_epochs": None if run is None else run.epochs,
        "trained_run": None if run is None else run.run,
    }


def _verified(result: SearchResult, device: DeviceResult, candidate: Candidate) -> dict[str, Cell]:
    """What the device showed; empty where it was not measured."""
    seen = comparison(candidate, device, result)
    names = (
        "precision", "engine_ms", "engine_p99_ms", "level_ms", "frame_ms", "ap", "ap50", "dataset", "energy_mj",
        "memory_mib", "model", "runtime", "created",
    )  # fmt: skip
    return {
        **{f"verified_{name}": None if seen is None else getattr(seen.measured, name) for name in names},
        "verified_fps": None if seen is None else seen.measured_fps,
        "verified_holds": None if seen is None else seen.holds,
        "verified_broken": None if seen is None else seen.broken,
    }


def _spread(name: str, interval: Interval) -> dict[str, Cell]:
    ends = {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return {key: float(f"{value:.10g}") for key, value in ends.items()}


def _optional(name: str, interval: Interval | None) -> dict[str, Cell]:
    """As `_spread`; empty where nothing is known, or nothing is lost."""
    return dict.fromkeys((name, f"{name}_low", f"{name}_high")) if interval is None else _spread(name, interval)


def _numbers(value: object, path: str) -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _numbers(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _numbers(item, f"{path}[{index}]")
