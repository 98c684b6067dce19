"""The sample of a search result with measurements on its device: promises that hold, and some that break."""

from __future__ import annotations

from dataclasses import replace

from sample_result import HOSTILE, hostile_result, nano, nano_5w, sample_result

from scaler.search.result import Candidate, DeviceResult, SearchResult, Verified

PARTS = {"decoding": 1.4, "letterbox": 0.3, "network": 0.0, "nms": 0.6}


def measured_of(candidate: Candidate, slower: float, **changes: object) -> Verified:
    """A measurement of a trained file whose engine takes so much longer than predicted, as a share."""
    engine = candidate.engine_ms.mean * (1 + slower)
    parts = {**PARTS, "network": engine + 0.9}
    given = Verified(
        model=f"runs/{candidate.id}/best.onnx",
        runtime="tensorrt",
        runtime_version="8.2.1",
        precision="fp16",
        power_mode="MAXN",
        engine_ms=engine,
        engine_p99_ms=1.07 * engine,
        level_ms=engine,
        frame_ms=sum(parts.values()),
        parts_ms=parts,
        dataset="voc",
        ap=0.62 * candidate.ap.mean,
        ap50=candidate.ap.mean - 0.6,
        energy_mj=9.5 * engine,
        memory_mib=188.0,
        promise=1000 / 30,
        created="2026-11-22T19:14:05+00:00",
    )
    return replace(given, **changes)  # type: ignore[arg-type]


def verified_device() -> DeviceResult:
    """The pick breaks its promise as a whole frame though its engine holds; others hold; one was timed alone."""
    device = nano()
    front = list(device.front)
    for place, slower in ((2, -0.03), (4, 0.02), (5, 0.045), (6, 0.06), (8, 0.01)):
        front[place] = replace(front[place], verified=(measured_of(front[place], slower),))
    alone = measured_of(front[7], 0.04, frame_ms=None, parts_ms={}, model="", dataset="", ap=None, ap50=None)
    front[7] = replace(front[7], verified=(replace(alone, warnings=("not trained: made-up weights",)),))
    return replace(device, front=tuple(front))


def verified_result() -> SearchResult:
    """Measurements on the first device, none on the second."""
    return replace(sample_result(), devices=(verified_device(), nano_5w()))


def hostile_measurements() -> SearchResult:
    """Every text of a measurement is an attack."""
    result = hostile_result()
    (device,) = result.devices
    texts = {
        "model": HOSTILE,
        "runtime": HOSTILE,
        "runtime_version": HOSTILE,
        "dataset": HOSTILE,
        "warnings": (HOSTILE,),
    }
    front = tuple(replace(one, verified=(measured_of(one, 0.1, **texts),)) for one in device.front)
    return replace(result, devices=(replace(device, front=front),))
