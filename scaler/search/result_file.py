"""Reading `pareto.json` back: the way from a search to every later command."""

from __future__ import annotations

import math
from pathlib import Path

from scaler.files import read_json
from scaler.reader import Reader
from scaler.search.result import (
    SCHEMA_VERSION,
    Candidate,
    Coverage,
    DeviceResult,
    Interval,
    ModelCard,
    ParameterValue,
    Reference,
    SearchResult,
    Share,
    Trained,
    Verified,
)

KIND = "scaler-pareto"
"""What `pareto.json` calls itself."""

PROVENANCES = ("measured", "calibrated", "estimated")


def read_result(path: Path | str) -> SearchResult:
    """Return the search result of a file that `scaler.report.files.write_json` wrote.

    Raises:
        FileError: The file is missing, cut off, of another kind or schema version, or its content does not
            fit together; one line with the place in the file.
    """
    reader = read_json(path, schema_version=SCHEMA_VERSION)
    reader.choice("kind", (KIND,))
    result = SearchResult(
        scaler_version=_text(reader, "scaler_version"),
        created=_text(reader, "created"),
        command=_text(reader, "command"),
        space=_text(reader, "space"),
        space_size=reader.integer("space_size", minimum=0),
        dataset=_text(reader, "dataset"),
        metric=_text(reader, "metric"),
        sampler=_text(reader, "sampler"),
        seed=reader.integer("seed"),
        trials=reader.integer("trials", minimum=0),
        distinct=reader.integer("distinct", minimum=0),
        study=_text(reader, "study"),
        limits=_limits(reader.table("limits")),
        noise_ap=reader.number("noise_ap", minimum=0),
        accuracy_model=_card(reader.table("accuracy_model")),
        devices=tuple(_device(device) for device in reader.tables("devices")),
        classes=reader.integer("classes", 0, minimum=0),
        accuracy_file=_text(reader, "accuracy_file", ""),
        minimize=reader.choice("minimize", ("latency", "energy"), "latency"),
    )
    reader.finish()
    return result


def _device(reader: Reader) -> DeviceResult:
    front = tuple(_candidate(candidate) for candidate in reader.tables("front"))
    identities = {candidate.id for candidate in front}
    if len(identities) < len(front):
        raise reader.error("front", "two candidates share an id", todo="write the file again")
    return DeviceResult(
        device=_text(reader, "device"),
        title=_text(reader, "title"),
        power_mode=_text(reader, "power_mode"),
        runtime=_text(reader, "runtime"),
        precision=_text(reader, "precision"),
        target_fps=_optional_number(reader, "target_fps", above=0),
        front=front,
        pick=_identity(reader, "pick", identities),
        knee=_identity(reader, "knee", identities),
        message=_text(reader, "message"),
        nearest=None if reader.raw("nearest") is None else _candidate(reader.table("nearest")),
        references=tuple(_reference(reference) for reference in reader.tables("references")),
        explored=_points(reader, "explored"),
        latency_model=_card(reader.table("latency_model")),
    )


def _candidate(reader: Reader) -> Candidate:
    return Candidate(
        id=reader.string("id"),
        params=_parameters(reader.table("params")),
        ap=_interval(reader.table("ap")),
        ap_inside_support=reader.boolean("ap_inside_support"),
        ap_outside=reader.strings("ap_outside"),
        ap_provenance=reader.choice("ap_provenance", PROVENANCES, "calibrated"),
        engine_ms=_interval(reader.table("engine_ms"), minimum=0),
        overhead_ms=reader.number("overhead_ms", minimum=0),
        fps=_interval(reader.table("fps"), minimum=0),
        reach_probability=_optional_number(reader, "reach_probability", above=-1e-9, at_most=1),
        parameters=reader.integer("parameters", minimum=0),
        macs=reader.integer("macs", minimum=0),
        memory_access_bytes=reader.integer("memory_access_bytes", minimum=0),
        peak_activation_mib=reader.number("peak_activation_mib", minimum=0),
        weights_mib=reader.number("weights_mib", minimum=0),
        provenance=reader.choice("provenance", PROVENANCES),
        coverage=_coverage(reader.table("coverage")),
        stages=tuple(_share(share) for share in reader.tables("stages")),
        kinds=tuple(_share(share) for share in reader.tables("kinds")),
        trained=tuple(_trained(trained) for trained in reader.tables("trained", ())),
        precision=_text(reader, "precision", ""),
        ap_loss=_optional_interval(reader, "ap_loss"),
        energy_mj=_optional_interval(reader, "energy_mj"),
        verified=tuple(_verified(verified) for verified in reader.tables("verified", ())),
    )


def _verified(reader: Reader) -> Verified:
    parts = reader.table("parts_ms")
    return Verified(
        model=_text(reader, "model"),
        runtime=_text(reader, "runtime"),
        runtime_version=_text(reader, "runtime_version"),
        precision=_text(reader, "precision"),
        power_mode=_text(reader, "power_mode"),
        engine_ms=reader.number("engine_ms", minimum=0),
        engine_p99_ms=reader.number("engine_p99_ms", minimum=0),
        level_ms=reader.number("level_ms", minimum=0),
        frame_ms=_optional_number(reader, "frame_ms", above=0),
        parts_ms={name: parts.number(name, minimum=0) for name in parts.keys},
        dataset=_text(reader, "dataset"),
        ap=_optional_number(reader, "ap", above=-1e-9, at_most=100),
        ap50=_optional_number(reader, "ap50", above=-1e-9, at_most=100),
        energy_mj=_optional_number(reader, "energy_mj", above=0),
        memory_mib=_optional_number(reader, "memory_mib", above=0),
        promise=_optional_number(reader, "promise", above=0),
        warnings=reader.strings("warnings"),
        created=_text(reader, "created"),
    )


def _trained(reader: Reader) -> Trained:
    return Trained(
        dataset=reader.string("dataset"),
        metric=reader.string("metric"),
        ap=reader.number("ap", minimum=0, maximum=100),
        ap50=reader.number("ap50", minimum=0, maximum=100),
        recipe=_text(reader, "recipe"),
        epochs=reader.integer("epochs", minimum=0),
        run=_text(reader, "run"),
        created=_text(reader, "created"),
    )


def _coverage(reader: Reader) -> Coverage:
    return Coverage(
        table=reader.number("table", minimum=0),
        model=reader.number("model", minimum=0),
        roofline=reader.number("roofline", minimum=0),
    )


def _share(reader: Reader) -> Share:
    return Share(
        name=reader.string("name"),
        ms=reader.number("ms", minimum=0),
        macs=reader.integer("macs", minimum=0),
        memory_access_bytes=reader.integer("memory_access_bytes", minimum=0),
        params=reader.integer("params", minimum=0),
        kernels=reader.integer("kernels", minimum=0),
    )


def _reference(reader: Reader) -> Reference:
    return Reference(
        name=reader.string("name"),
        source=_text(reader, "source"),
        published_ap=reader.number("published_ap"),
        published_fps=_optional_number(reader, "published_fps", above=0),
        predicted_ap=_interval(reader.table("predicted_ap")),
        predicted_fps=_interval(reader.table("predicted_fps"), minimum=0),
    )


def _card(reader: Reader) -> ModelCard:
    errors = reader.table("errors")
    return ModelCard(
        name=_text(reader, "name"),
        provenance=reader.choice("provenance", PROVENANCES),
        fitted_on=_text(reader, "fitted_on"),
        errors={key: _text(errors, key) for key in errors.keys},
        notes=reader.strings("notes"),
    )


def _interval(reader: Reader, minimum: float = -math.inf) -> Interval:
    low, high = reader.number("low", minimum=minimum), reader.number("high", minimum=minimum)
    if low > high:
        raise reader.error("", f"low {low:g} is above high {high:g}", todo="write the file again")
    return Interval(reader.number("mean", minimum=minimum), low, high)


def _optional_interval(reader: Reader, key: str) -> Interval | None:
    """An interval that may be null, or missing in files of earlier versions."""
    return None if reader.raw(key, None) is None else _interval(reader.table(key))


def _parameters(reader: Reader) -> dict[str, ParameterValue]:
    params: dict[str, ParameterValue] = {}
    for key in reader.keys:
        value = reader.raw(key)
        finite = not isinstance(value, float) or math.isfinite(value)
        if not isinstance(value, str | int | float) or not finite:
            raise reader.error(key, "found no parameter value", "expected a text, a number, true or false")
        params[key] = value
    return params


def _limits(reader: Reader) -> dict[str, float]:
    return {key: reader.number(key) for key in reader.keys}


def _identity(reader: Reader, key: str, known: set[str]) -> str | None:
    if reader.raw(key) is None:
        return None
    identity = reader.string(key)
    if identity not in known:
        raise reader.error(key, f"found {identity!r}", "expected the id of a candidate of the front, or null")
    return identity


def _optional_number(reader: Reader, key: str, *, above: float, at_most: float = math.inf) -> float | None:
    if reader.raw(key) is None:
        return None
    value = reader.number(key, maximum=at_most)
    if value <= above:
        raise reader.error(key, f"found {value:g}", f"expected null or a number above {max(above, 0):g}")
    return value


def _points(reader: Reader, key: str) -> tuple[tuple[float, float], ...]:
    value = reader.raw(key)
    if not isinstance(value, list):
        raise reader.error(key, "found no list", "expected a list of [ms, AP]")
    points: list[tuple[float, float]] = []
    for index, item in enumerate(value):
        match item:
            case [int() | float() as x, int() | float() as y] if _is_finite(x) and _is_finite(y):
                points.append((float(x), float(y)))
            case _:
                place, expected = f"{key}[{index}]", "expected [ms, AP], two finite numbers"
                raise reader.error(place, "found no point", expected)
    return tuple(points)


def _is_finite(value: float) -> bool:
    return not isinstance(value, bool) and abs(value) <= 1e300


def _text(reader: Reader, key: str, default: str | None = None) -> str:
    """A text that may be blank; one that may be missing has a default."""
    value = reader.raw(key) if default is None else reader.raw(key, default)
    return value if isinstance(value, str) and not value.strip() else reader.string(key)
