"""How measurements on the device read beside their predictions: one wording for console, CSV and page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from scaler.report.wording import ABSENT, minimized, number
from scaler.search.candidates import candidates_of
from scaler.search.result import Candidate, DeviceResult, SearchResult
from scaler.search.verified import Comparison, compared, shown

__all__ = [
    "BROKEN",
    "HOLDS",
    "SLOW",
    "DevicePoint",
    "comparison",
    "deviation",
    "device_points",
    "kind",
    "parts",
    "points",
    "promise",
    "state",
    "summary",
    "verified_facts",
    "verified_view",
    "what",
]

HOLDS, BROKEN, SLOW = "holds", "broken", "slow"

_WORDS = {HOLDS: "held", BROKEN: "broken", SLOW: "missed, as predicted"}
_PARTS = {"nms": "NMS", "network": "network", "letterbox": "letterbox", "decoding": "decoding"}


def comparison(candidate: Candidate, device: DeviceResult, result: SearchResult) -> Comparison | None:
    """The measurement to show beside a candidate; None where it was not verified."""
    measured = shown(candidate, device)
    return None if measured is None else compared(candidate, measured, result.metric)


class DevicePoint(NamedTuple):
    """A measurement in the plane of the pictures."""

    predicted: float
    """Frame time in ms, or energy of a frame in mJ where the search minimised that."""
    x: float
    """The same, measured."""
    ap: float
    """Predicted."""
    broken: bool


def device_points(result: SearchResult, device: DeviceResult) -> tuple[DevicePoint, ...]:
    """The measured candidates of a device, to draw a second marker for."""
    points = []
    for candidate in candidates_of(device):
        seen = comparison(candidate, device, result)
        if seen is not None:
            x = seen.measured.energy_mj if result.minimize == "energy" else seen.measured.whole_ms
            if x is not None:
                points.append(DevicePoint(minimized(result, candidate).mean, x, candidate.ap.mean, seen.broken))
    return tuple(points)


def state(comparison: Comparison) -> str:
    """`holds`, `broken`, `slow` where it was predicted to miss the target and does, or blank without a target."""
    if comparison.holds is None:
        return ""
    return HOLDS if comparison.holds else BROKEN if comparison.broken else SLOW


def deviation(share: float | None) -> str:
    """A relative deviation: `+3.1 %`."""
    return ABSENT if share is None else f"{100 * share:+.1f} %"


def points(difference: float | None) -> str:
    """A deviation in points of accuracy: `-1.2`."""
    return ABSENT if difference is None else f"{difference:+.1f}"


def what(comparison: Comparison) -> str:
    """What a measured frame rate is of."""
    return "whole frame" if comparison.whole else "engine alone"


def kind(comparison: Comparison) -> str:
    """The same in a word."""
    return "frame" if comparison.whole else "engine"


def parts(comparison: Comparison) -> str:
    """Where the time of the whole frame goes: `decoding 1.2, letterbox 0.4, network 9.8, NMS 0.3 ms`."""
    found = [f"{_PARTS.get(name, name)} {number(ms)}" for name, ms in comparison.measured.parts_ms.items()]
    return f"{', '.join(found)} ms" if found else ""


def promise(comparison: Comparison, target_fps: float | None) -> str:
    """The target in one line: `30 FPS broken: 27.4 FPS, whole frame; the engine alone would hold it`."""
    if comparison.holds is None or target_fps is None:
        return ""
    word = _WORDS[state(comparison)]
    line = f"{target_fps:g} FPS {word}: {number(comparison.measured_fps)} FPS, {what(comparison)}"
    if not comparison.whole:
        return f"{line}; decoding, letterbox and NMS come on top"
    if comparison.holds == comparison.engine_holds:
        return line
    alone = "would hold" if comparison.engine_holds else "at the speed of its table would break"
    return f"{line}; the engine alone {alone} it"


def summary(comparisons: Sequence[Comparison], target_fps: float | None) -> str:
    """How well the predictions of what was measured did, in one sentence; blank where nothing was."""
    if not comparisons:
        return ""
    count = len(comparisons)
    off = 100 * sum(abs(one.engine) for one in comparisons) / count
    inside = sum(one.engine_inside for one in comparisons)
    line = (
        f"{count} measured on the device ({' and '.join(dict.fromkeys(map(what, comparisons)))}); engine times miss by "
        f"{off:.1f} % on average, {inside} of {count} inside the 90 % interval"
    )
    promised = [one for one in comparisons if one.promised and one.holds is not None]
    if target_fps is None or not promised:
        return line
    return (
        f"{line}; {sum(one.holds is True for one in promised)} of {len(promised)} that promised {target_fps:g} FPS hold"
    )


def verified_view(candidate: Candidate, device: DeviceResult, result: SearchResult) -> dict[str, object] | None:
    """The measurement as plot, table and verdict of the page show it; None where it was not verified."""
    seen = comparison(candidate, device, result)
    if seen is None:
        return None
    measured = seen.measured
    return {
        "frame": {"mean": measured.whole_ms, "text": number(measured.whole_ms)},
        "fps": {"mean": seen.measured_fps, "text": number(seen.measured_fps)},
        "energy": None
        if measured.energy_mj is None
        else {"mean": measured.energy_mj, "text": number(measured.energy_mj)},
        "deviation": deviation(seen.fps),
        "of": what(seen),
        "kind": kind(seen),
        "state": state(seen),
        "engine": {"text": number(measured.level_ms), "deviation": deviation(seen.engine)},
        "value": None if seen.value is None else f"{seen.value:.1f}",
        "difference": points(seen.accuracy),
        "on": measured.dataset,
        "promise": promise(seen, device.target_fps),
        "warnings": list(measured.warnings),
    }


def verified_facts(candidate: Candidate, device: DeviceResult, result: SearchResult) -> list[tuple[str, str, str]]:
    """What was measured on the device: label, figure and note; nothing where it was not verified."""
    seen = comparison(candidate, device, result)
    if seen is None:
        return []
    one = seen.measured
    metric = result.metric.rpartition(" ")[2]
    whole = f"{number(one.whole_ms)} ms"
    facts = [
        ("Frame rate", f"{number(seen.measured_fps)} FPS", f"{deviation(seen.fps)}, {what(seen)}"),
        (
            "Engine alone",
            f"{number(one.level_ms)} ms",
            f"{deviation(seen.engine)}; as timed {number(one.engine_ms)}, 99 % below {number(one.engine_p99_ms)}",
        ),
    ]
    facts += [("Frame time", whole, parts(seen))] if seen.whole else []
    if seen.value is not None:
        beside = "" if seen.accuracy is None else f"{points(seen.accuracy)}, "
        facts.append((metric, f"{seen.value:.1f}", f"{beside}{one.dataset}, {one.precision} file"))
    if one.energy_mj is not None:
        against = "" if seen.energy is None else deviation(seen.energy)
        facts.append(("Energy of a frame", f"{number(one.energy_mj)} mJ", against))
    if one.memory_mib is not None:
        facts.append(("Memory", f"{one.memory_mib:.0f} MiB", "while it runs"))
    origin = f"{one.runtime} {one.runtime_version}, {one.precision}, {one.power_mode}"
    when = one.created.replace("T", " ").removesuffix("+00:00")
    facts.append(("File", one.model.rpartition("/")[2] or "made-up weights", f"{origin}; {when}"))
    return facts
