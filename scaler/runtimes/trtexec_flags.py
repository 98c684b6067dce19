"""Which options trtexec has in which version, and the three commands that are made of them: build, time, profile.

The table is the only place that knows versions. It lists the options that scaler uses; source:
samples/common/sampleOptions.cpp of github.com/NVIDIA/TensorRT, branches release/8.0 to release/11.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scaler.devices import Precision
from scaler.runtimes.tensorrt_version import Span, Version

_OPTIONS = {
    "onnx": Span(),
    "saveEngine": Span(),
    "loadEngine": Span(),
    "timingCacheFile": Span(),
    "buildOnly": Span(until=(8, 6)),  # deprecated in 8.6, gone in 10.0
    "skipInference": Span(since=(8, 6)),
    "workspace": Span(until=(8, 4)),  # deprecated in 8.4, gone in 10.0
    "memPoolSize": Span(since=(8, 4)),
    "nvtxMode": Span(until=(8, 2)),  # renamed in 8.2, gone in 10.0
    "profilingVerbosity": Span(since=(8, 2)),
    "maxAuxStreams": Span(since=(8, 6)),
    "noTF32": Span(),
    "fp16": Span(until=(11, 0)),
    "int8": Span(until=(11, 0)),
    "useDLACore": Span(),
    "allowGPUFallback": Span(),
    "minShapes": Span(),
    "optShapes": Span(),
    "maxShapes": Span(),
    "shapes": Span(),
    "iterations": Span(),
    "duration": Span(),
    "warmUp": Span(),
    "avgRuns": Span(),
    "noDataTransfers": Span(until=(11, 0)),  # the default from 11.0 on
    "useSpinWait": Span(until=(11, 0)),  # the default from 11.0 on
    "useCudaGraph": Span(until=(11, 0)),  # the default from 11.0 on
    "noCudaGraph": Span(since=(11, 0)),
    "dumpProfile": Span(),
    "exportTimes": Span(),
    "exportProfile": Span(),
    "exportLayerInfo": Span(since=(8, 2)),
}
"""The options that scaler gives to trtexec, and to which versions."""

_PRECISION = {
    "fp32": (("noTF32", ""),),
    "tf32": (),
    "fp16": (("fp16", ""),),
    "int8": (("int8", ""), ("fp16", "")),  # layers without an INT8 kernel compute in FP16
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrtexecSettings:
    """How engines are built and timed; `scaler.runtimes.trtexec.Trtexec` explains it."""

    precision: Precision
    workspace_mib: int
    warm_up_ms: int
    cuda_graph: bool
    dla: int | None = None
    """DLA core that computes what it can, the GPU the rest; None: the GPU computes everything."""


def has_option(name: str, version: Version) -> bool:
    """Whether scaler gives this option to trtexec of this version.

    Raises:
        KeyError: The table lacks the option.
    """
    return _OPTIONS[name].includes(version)


def build_options(settings: TrtexecSettings, version: Version, model: Path, engine: Path, cache: Path) -> list[str]:
    """Options that build an engine and leave it in a file."""
    return _options(
        version,
        ("onnx", model),
        ("saveEngine", engine),
        ("buildOnly", ""),
        ("skipInference", ""),
        ("timingCacheFile", cache),
        ("workspace", settings.workspace_mib),
        ("memPoolSize", f"workspace:{settings.workspace_mib}"),
        ("nvtxMode", "verbose"),
        ("profilingVerbosity", "detailed"),
        ("maxAuxStreams", 0),  # else layers overlap and their times add up to more than the network's
        *_PRECISION[settings.precision],
        *_placement(settings),
    )


def open_batch_options(name: str, picture: Sequence[int], batch: int) -> list[str]:
    """Options for building an engine of a model with an open batch: 1 to `batch` pictures, made fast for `batch`.

    Args:
        name: The input.
        picture: Its shape without the batch.
        batch: The most pictures at a time.
    """
    limits = (("minShapes", 1), ("optShapes", batch), ("maxShapes", batch))
    return [f"--{option}={_shape(name, count, picture)}" for option, count in limits]


def batch_options(name: str, picture: Sequence[int], batch: int) -> list[str]:
    """Options for running an engine with an open batch with so many pictures at a time."""
    return [f"--shapes={_shape(name, batch, picture)}"]


def time_options(settings: TrtexecSettings, version: Version, engine: Path, runs: int, times: Path) -> list[str]:
    """Options that time `runs` inferences after the warm-up and write them to a file."""
    return _options(version, *_run(settings, engine, runs), ("exportTimes", times))


def profile_options(
    settings: TrtexecSettings, version: Version, engine: Path, runs: int, profile: Path, layers: Path
) -> list[str]:
    """Options that time the layers; the second file appears only where trtexec can write it."""
    return _options(
        version,
        *_run(settings, engine, runs),
        ("nvtxMode", "verbose"),
        ("profilingVerbosity", "detailed"),
        ("dumpProfile", ""),
        ("exportProfile", profile),
        ("exportLayerInfo", layers),
    )


def _run(settings: TrtexecSettings, engine: Path, runs: int) -> tuple[tuple[str, object], ...]:
    return (
        ("loadEngine", engine),
        ("iterations", runs),
        ("duration", 0),
        ("warmUp", settings.warm_up_ms),
        ("avgRuns", max(1, min(runs, 100))),
        ("noDataTransfers", ""),
        ("useSpinWait", ""),
        ("useCudaGraph" if settings.cuda_graph else "noCudaGraph", ""),
        *_placement(settings),
    )


def _placement(settings: TrtexecSettings) -> tuple[tuple[str, object], ...]:
    return () if settings.dla is None else (("useDLACore", settings.dla), ("allowGPUFallback", ""))


def _shape(name: str, batch: int, picture: Sequence[int]) -> str:
    return f"{name}:{'x'.join(map(str, (batch, *picture)))}"


def _options(version: Version, *wanted: tuple[str, object]) -> list[str]:
    """The options that this version has, as arguments."""
    return [f"--{name}={value}" if value != "" else f"--{name}" for name, value in wanted if has_option(name, version)]
