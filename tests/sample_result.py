"""A rich sample of a search result: a Nano that reaches its target and a slower mode that does not.

The figures are invented, shaped like the real thing; every report is tested on them without a search.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from dataclasses import dataclass

from scaler.search.result import (
    Candidate,
    Coverage,
    DeviceResult,
    Interval,
    ModelCard,
    ParameterValue,
    Reference,
    SearchResult,
    Share,
)

Params = dict[str, ParameterValue]

TARGET_FPS = 30.0

STAGES = (
    ("stem", 0.09, 0.08, 0.10, 0.001),
    ("backbone.stage1", 0.15, 0.13, 0.20, 0.02),
    ("backbone.stage2", 0.17, 0.17, 0.17, 0.07),
    ("backbone.stage3", 0.19, 0.24, 0.16, 0.33),
    ("backbone.stage4", 0.11, 0.12, 0.08, 0.27),
    ("rfcr", 0.10, 0.09, 0.11, 0.05),
    ("neck", 0.14, 0.12, 0.14, 0.17),
    ("head", 0.05, 0.05, 0.04, 0.089),
)
KINDS = (
    ("conv 1×1", 0.46, 0.78, 0.42, 0.86),
    ("conv 3×3 depthwise", 0.27, 0.08, 0.31, 0.05),
    ("squeeze and excite", 0.09, 0.01, 0.04, 0.05),
    ("conv 3×3", 0.07, 0.09, 0.06, 0.01),
    ("resize and concat", 0.06, 0.0, 0.12, 0.0),
    ("conv 5×5 depthwise", 0.05, 0.04, 0.05, 0.03),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What tells one sample candidate from another."""

    params: Params
    ap: float
    engine_ms: float
    parameters: int
    macs: int


def _mobilenet(width: float, drop: int, neck: str, resolution: int, *, rfcr: int = 5, repeats: int = 0) -> Params:
    params: Params = {"backbone": "mobilenetv2", "width": width, "drop": drop, "neck": neck}
    if repeats:
        params["repeats"] = repeats
    params["rfcr"] = rfcr
    if rfcr:
        params["shortcut"] = True
    params["resolution"] = resolution
    return params


def _efficientnet(backbone: str, drop: int, neck: str, resolution: int, *, rfcr: int = 5) -> Params:
    params: Params = {"backbone": backbone, "drop": drop, "neck": neck, "rfcr": rfcr}
    if rfcr:
        params["shortcut"] = rfcr == 5
    params["resolution"] = resolution
    return params


ROWS = (
    Row(_mobilenet(0.35, 3, "none", 160, rfcr=0), 43.9, 7.4, 289_540, 41_000_000),
    Row(_mobilenet(0.5, 2, "none", 192, rfcr=3), 52.8, 10.3, 411_200, 88_000_000),
    Row(_mobilenet(0.5, 2, "fpn", 224), 57.6, 13.1, 498_730, 131_000_000),
    Row(_mobilenet(0.75, 2, "panet", 224), 61.1, 16.4, 1_120_410, 258_000_000),
    Row(_mobilenet(0.75, 1, "panet", 256), 64.9, 20.6, 1_334_800, 341_000_000),
    Row(_mobilenet(0.75, 1, "panet", 288), 67.3, 24.9, 1_334_800, 432_000_000),
    Row(_mobilenet(0.75, 1, "panet", 320), 69.0, 29.2, 1_334_800, 533_000_000),
    Row(_mobilenet(0.75, 1, "bifpn", 320, repeats=2), 69.3, 32.6, 1_402_660, 561_000_000),
    Row(_mobilenet(1.0, 1, "panet", 352), 70.6, 39.5, 2_189_040, 871_000_000),
    Row(_mobilenet(1.4, 0, "panet", 384), 72.7, 60.8, 3_981_220, 1_702_000_000),
    Row(_efficientnet("efficientnet-b0", 1, "panet", 416), 74.1, 88.4, 4_607_190, 1_960_000_000),
    Row(_efficientnet("efficientnet-b3", 0, "panet", 416, rfcr=7), 76.3, 151.7, 11_880_340, 4_210_000_000),
)


def identity(params: Params) -> str:
    """The stand-in of the real digest."""
    return hashlib.sha256(repr(sorted(params.items())).encode()).hexdigest()[:8]


def _shares(table: tuple[tuple[str, float, float, float, float], ...], row: Row, ms: float) -> tuple[Share, ...]:
    return tuple(
        Share(
            name=name,
            ms=ms * time,
            macs=round(row.macs * macs),
            memory_access_bytes=round(row.macs * 0.31 * memory),
            params=round(row.parameters * params),
            kernels=max(1, round(90 * time)),
        )
        for name, time, macs, memory, params in table
    )


def _reach(fps: Interval, target: float) -> float:
    sigma = max((fps.high - fps.low) / 3.29, 1e-6)
    return 0.5 * (1 + math.erf((fps.mean - target) / sigma / math.sqrt(2)))


def _candidate(row: Row, slowdown: float, spread: float, provenance: str, overhead_ms: float) -> Candidate:
    mean = row.engine_ms * slowdown
    engine = Interval(mean, mean * (1 - spread), mean * (1 + spread))
    fps = Interval(*(1000 / (ms + overhead_ms) for ms in (engine.mean, engine.high, engine.low)))
    outside = () if row.ap > 50 else ("width 0.35 lies below the published 0.5", "resolution 160 below 224")
    half = 0.8 if not outside else 2.6
    calibrated = provenance == "calibrated"
    return Candidate(
        id=identity(row.params),
        params=dict(row.params),
        ap=Interval(row.ap, row.ap - half, row.ap + half),
        ap_inside_support=not outside,
        ap_outside=outside,
        engine_ms=engine,
        overhead_ms=overhead_ms,
        fps=fps,
        reach_probability=_reach(fps, TARGET_FPS),
        parameters=row.parameters,
        macs=row.macs,
        memory_access_bytes=round(row.macs * 0.31),
        peak_activation_mib=3.4 * float(row.params["resolution"]) ** 2 / 320**2,
        weights_mib=row.parameters * 2 / 2**20,
        provenance=provenance,
        coverage=Coverage(table=0.0, model=0.94, roofline=0.06)
        if calibrated
        else Coverage(table=0.0, model=0.0, roofline=1.0),
        stages=_shares(STAGES, row, mean),
        kinds=_shares(KINDS, row, mean),
    )


def _reference(name: str, ap: float, fps: float | None, predicted_ap: float, predicted_fps: float) -> Reference:
    return Reference(
        name=name,
        source="YOLO-ReT (WACV 2022), Table 5",
        published_ap=ap,
        published_fps=fps,
        predicted_ap=Interval(predicted_ap, predicted_ap - 0.8, predicted_ap + 0.8),
        predicted_fps=Interval(predicted_fps, predicted_fps * 0.93, predicted_fps * 1.075),
    )


NANO_REFERENCES = (
    _reference("YOLO-ReT-M0.75@224", 60.77, 55.16, 61.0, 56.9),
    _reference("YOLO-ReT-M0.75@320", 68.75, 33.19, 69.0, 32.1),
    _reference("YOLO-ReT-M0.75@416", 72.39, 19.87, 72.1, 20.4),
    _reference("YOLO-ReT-M1.4@224", 62.91, 43.16, 63.1, 42.0),
    _reference("YOLO-ReT-M1.4@320", 70.35, 23.01, 70.4, 23.3),
    _reference("YOLO-ReT-M1.4@416", 73.32, 13.17, 73.6, 14.4),
    _reference("YOLO-ReT-EB3@224", 65.52, 18.57, 65.3, 19.2),
    _reference("YOLO-ReT-EB3@320", 72.96, 10.96, 73.0, 10.7),
    _reference("YOLO-ReT-EB3@416", 76.49, 6.35, 76.2, 6.5),
)


def _explored(front: tuple[Candidate, ...]) -> tuple[tuple[float, float], ...]:
    points = []
    for number, candidate in enumerate(front):
        frame = candidate.engine_ms.mean + candidate.overhead_ms
        for step in range(1, 26):
            wobble = (step * 37 + number * 11) % 23 / 23
            points.append((frame * (1 + 0.05 * step * wobble), candidate.ap.mean - 0.35 * step * (1.1 - wobble)))
    return tuple(points)


def _latency_card(device: str, provenance: str) -> ModelCard:
    if provenance == "estimated":
        return ModelCard(
            name=f"{device} roofline",
            provenance=provenance,
            fitted_on="data sheet only: 0.328 TFLOPS FP16, 25.6 GB/s",
            errors={},
            notes=("no public measurement of this power mode: take the interval seriously",),
        )
    return ModelCard(
        name=f"{device} kernel model",
        provenance=provenance,
        fitted_on="57 published frame rates of the YOLO-ReT paper (Tables 2 to 5)",
        errors={
            "leave-one-out mean error": "3.6 %",
            "leave-one-backbone-out mean error": "5.1 %",
            "90 % interval covers": "91 %",
        },
        notes=(
            "BiFPN rows are reported apart: that design is not published",
            "published FPS include post-processing",
        ),
    )


def nano() -> DeviceResult:
    """The device that reaches its target."""
    front = tuple(_candidate(row, 1.0, 0.055, "calibrated", 1.9) for row in ROWS)
    return DeviceResult(
        device="nano",
        title="Jetson Nano (MAXN, TensorRT FP16)",
        power_mode="MAXN",
        runtime="TensorRT 8.2",
        precision="fp16",
        target_fps=TARGET_FPS,
        front=front,
        pick=front[6].id,
        knee=front[5].id,
        message="mobilenetv2 ×0.75 with PANet at 320 px reaches 30 FPS with probability 98 % at 69.0 AP50.",
        nearest=None,
        references=NANO_REFERENCES,
        explored=_explored(front),
        latency_model=_latency_card("nano", "calibrated"),
    )


def nano_5w() -> DeviceResult:
    """The device on which nothing of the front reaches the target."""
    front = tuple(_candidate(row, 2.9, 0.25, "estimated", 14.0) for row in ROWS)
    return DeviceResult(
        device="nano-5w",
        title="Jetson Nano (5W, TensorRT FP16)",
        power_mode="5W",
        runtime="TensorRT 8.2",
        precision="fp16",
        target_fps=TARGET_FPS,
        front=front[1:],
        pick=None,
        knee=front[5].id,
        message=(
            "No candidate reaches 30 FPS: the nearest runs at 28.2 FPS, since 14.0 ms of the 33.3 ms "
            "per frame are spent outside the network; lower --overhead-ms or add smaller resolutions."
        ),
        nearest=front[0],
        references=(_reference("YOLO-ReT-M0.75@320", 68.75, None, 69.0, 10.1),),
        explored=_explored(front),
        latency_model=_latency_card("nano-5w", "estimated"),
    )


def sample_result() -> SearchResult:
    """Two devices, about a dozen candidates each."""
    return SearchResult(
        scaler_version="0.1.0",
        created="2026-11-22T09:14:05+00:00",
        command="scaler search --device nano --device nano-5w --fps 30 --seed 7 --out results",
        space="yolo-ret",
        space_size=36_288,
        dataset="voc",
        metric="VOC AP50",
        sampler="nsga2",
        seed=7,
        trials=2000,
        distinct=1871,
        study="journal:results/study.log, study yolo-ret-nano",
        limits={"params": 12e6},
        noise_ap=0.3,
        accuracy_model=ModelCard(
            name="VOC AP50 predictor",
            provenance="calibrated",
            fitted_on="68 published results of the YOLO-ReT paper (Tables 1 to 5)",
            errors={
                "leave-one-out mean error": "0.38 AP",
                "leave-one-backbone-out mean error": "0.71 AP",
                "Kendall tau": "0.94",
            },
            notes=("trained by the recipe of the paper; another recipe shifts all candidates alike",),
        ),
        devices=(nano(), nano_5w()),
    )


HOSTILE = "</script><script>alert(1)</script><!-- [bold]\"'& ${x} {{ data }} \\1"
EMPTY = '"explored": []'


def hostile_result() -> SearchResult:
    """Every text that a user or a file can choose is an attack."""
    result = sample_result()
    device = nano()
    front = tuple(
        dataclasses.replace(c, params={**c.params, "backbone": HOSTILE, HOSTILE: HOSTILE}, ap_outside=(HOSTILE,))
        for c in device.front
    )
    references = tuple(dataclasses.replace(r, name=HOSTILE, source=HOSTILE) for r in device.references)
    device = dataclasses.replace(
        device, device=HOSTILE, title=HOSTILE, message=HOSTILE, front=front, references=references
    )
    return dataclasses.replace(result, command=HOSTILE + EMPTY, metric=HOSTILE, space=HOSTILE, devices=(device,))


def bare_result() -> SearchResult:
    """No target, one candidate, no references; a second device without any candidate."""
    full = nano()
    one = dataclasses.replace(
        full,
        target_fps=None,
        front=(dataclasses.replace(full.front[3], reach_probability=None),),
        pick=None,
        knee=None,
        references=(),
        explored=(),
        message="one candidate",
    )
    none = dataclasses.replace(one, device="empty", front=(), message="nothing fits the limits")
    return dataclasses.replace(sample_result(), devices=(one, none), limits={})


RESULTS = {"sample": sample_result, "hostile": hostile_result, "bare": bare_result}
