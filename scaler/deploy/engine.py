"""Builds the TensorRT engine of an ONNX file here, on the computer that is to run it: engines do not travel.

In process where the packages `tensorrt` and `pycuda` are and CUDA finds a GPU, else by trtexec. Either way the engine
is loaded once, which proves that it can be, and tells what it takes of memory.

Not run on a GPU yet: written against NVIDIA's sources and recorded logs, tested with fakes of both.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

from scaler.devices import PRECISIONS, Precision
from scaler.errors import UnsupportedError, UsageError, UserError, unknown_name
from scaler.evaluation.onnx_metadata import KEY
from scaler.files import write_atomic
from scaler.runtimes.engine_facts import SUFFIX, EngineFacts, digest, facts_path, write_engine_facts
from scaler.runtimes.onnx_facts import OnnxFacts, load_model, read_facts
from scaler.runtimes.power_memory import parse_engine_memory
from scaler.runtimes.tensorrt_dla import fallback_layers, parse_placement
from scaler.runtimes.tensorrt_version import STRONGLY_TYPED, Version, has_dla

__all__ = ["BuiltEngine", "EngineOrder", "Tool", "build_engine", "why_not_here"]

_UNTOLD = "unknown"
"""GPU of which TensorRT did not say the name."""

Tool: TypeAlias = Literal["auto", "tensorrt", "trtexec"]


@dataclass(frozen=True, slots=True)
class EngineOrder:
    """Which engine is to be built, and how."""

    model: Path
    """ONNX file of `scaler export` or `scaler train`."""
    out: Path | None = None
    """The engine; beside the ONNX file by default, `best.engine` of `best.onnx`."""
    precision: Precision = "fp16"
    """`fp32`, `tf32` or `fp16`; a file with quantisation nodes gives `int8` whatever is said here."""
    workspace_mib: int = 512
    """Scratch memory for kernels in MiB."""
    dla: int | None = None
    """DLA core that computes what it can, the GPU the rest; None: the GPU computes everything."""
    batch: int = 1
    """Most pictures at a time, and those for which it is made fast, where the file leaves the batch open."""
    timing_cache: Path | None = None
    """File in which TensorRT remembers how fast kernels are; later builds are shorter and choose alike."""
    runtime: Tool = "auto"
    """What builds: the package in process, or trtexec."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            UsageError: A value is outside what is allowed.
        """
        if self.precision not in PRECISIONS:
            raise UsageError(unknown_name("precision", self.precision, PRECISIONS))
        if self.runtime not in get_args(Tool):
            raise UsageError(unknown_name("runtime", self.runtime, get_args(Tool)))
        for name, least in (("workspace_mib", 1), ("batch", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} = {getattr(self, name)}: allowed is {least} or more")
        if self.dla is not None and self.dla < 0:
            raise UsageError(f"dla = {self.dla}: DLA cores are 0, 1, …")

    @property
    def place(self) -> Path:
        """Where the engine goes."""
        return self.out or self.model.with_suffix(SUFFIX)


class BuiltEngine(NamedTuple):
    """An engine that was built and loaded here."""

    path: Path
    facts: EngineFacts


class _Made(NamedTuple):
    """What a tool made."""

    plan: bytes
    log: str
    fallback: tuple[str, ...]
    """Layers that the DLA does not take; none where only the log tells."""
    gpu: str
    seconds: float


def build_engine(order: EngineOrder) -> BuiltEngine:
    """Build the engine of an ONNX file, load it once, and write it and what is known of it.

    Args:
        order: What is wanted; two files come of it, `<name>.engine` and `<name>.engine.json`.

    Raises:
        UserError: No TensorRT here, or it does not take the file; out of memory; a wish that cannot be granted (INT8 of
            a file without quantisation nodes, a DLA core that is not there, another batch than the file's).
        MissingExtraError: The package `onnx` is not installed.
    """
    model = _read(order.model)
    facts = read_facts(order.model, "building engines")
    _check_place(order)
    batch = _batch(order, model)
    tool = _chosen(order.runtime)
    version = _TOOLS[tool].version()
    order = replace(order, precision=_precision(order, facts, version))
    _check_dla(order, facts, version)
    made = _TOOLS[tool].build(order)
    known = _known(order, model, batch, made, version, tool)
    write_atomic(order.place, made.plan)
    write_engine_facts(order.place, known)
    return BuiltEngine(order.place, known)


def why_not_here() -> str:
    """Why no engine can be built on this computer, in one line; empty where one can."""
    try:
        _chosen("auto")
    except UserError as error:
        return str(error)
    return ""


def _known(order: EngineOrder, model: _Model, batch: int, made: _Made, version: Version, tool: str) -> EngineFacts:
    placement = parse_placement(made.log) if order.dla is not None else None
    return EngineFacts(
        model=order.model.name,
        model_sha256=model.sha256,
        engine_sha256=digest(made.plan),
        metadata=model.metadata,
        tensorrt=str(version),
        gpu=made.gpu,
        precision=order.precision,
        input=model.input,
        picture=model.picture,
        batch=batch,
        open_batch=not model.batch,
        dla=order.dla,
        dla_layers=placement.dla_layers if placement else None,
        gpu_layers=placement.gpu_layers if placement else None,
        fallback=() if order.dla is None else made.fallback or fallback_layers(made.log),
        memory=parse_engine_memory(made.log),
        build_seconds=made.seconds,
        built_by=tool,
    )


class _Model(NamedTuple):
    """What is said of an ONNX file beside its nodes."""

    sha256: str
    metadata: str
    input: str
    picture: tuple[int, ...]
    batch: int
    """0: open."""


def _read(path: Path) -> _Model:
    from scaler.export.int8 import target_of  # noqa: PLC0415  (it needs the package onnx)

    loaded = load_model(path, "building engines")
    constants = {item.name for item in loaded.graph.initializer}
    inputs = [value for value in loaded.graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise UnsupportedError(f"{path}: it has {len(inputs)} inputs; engines are built of detectors, which have one")
    shape = tuple(size.dim_value for size in inputs[0].type.tensor_type.shape.dim)
    if len(shape) < 2 or not math.prod(shape[1:]):
        raise UnsupportedError(f"{path}: the size of its pictures is open; export it with one size")
    properties = {entry.key: entry.value for entry in loaded.metadata_props}
    if target_of(properties) == "onnxruntime":
        raise UnsupportedError(
            f"{path}: its 8 bits are written for ONNX Runtime, which TensorRT refuses; export the checkpoint with "
            "--precision int8 --target tensorrt"
        )
    metadata = properties.get(KEY, "")
    return _Model(digest(path.read_bytes()), metadata, inputs[0].name, shape[1:], shape[0])


def _check_place(order: EngineOrder) -> None:
    if order.place.suffix.lower() != SUFFIX:
        raise UsageError(f"{order.place}: engines are {SUFFIX} files; name for instance {order.model.stem}{SUFFIX}")
    if order.place.is_dir() or facts_path(order.place).is_dir():
        raise UsageError(f"{order.place}: is a folder; name a file in it")


def _batch(order: EngineOrder, model: _Model) -> int:
    """Pictures at a time; the most of them where the file leaves it open."""
    if model.batch and order.batch not in (1, model.batch):
        raise UsageError(
            f"{order.model}: it is made for {model.batch} pictures at a time, not for {order.batch}; "
            "export it with --dynamic-batch"
        )
    return model.batch or order.batch


def _precision(order: EngineOrder, facts: OnnxFacts, version: Version) -> Precision:
    """Of the engine: quantisation nodes mean INT8, and from 11 on TensorRT takes the number format from the file."""
    if facts.quantised:
        return "int8"
    if order.precision == "int8":  # TensorRT would make ranges up
        raise UnsupportedError(
            f"{order.model}: it is not quantised, and an INT8 engine of it would find nothing; "
            "write an INT8 file first: scaler export --precision int8"
        )
    if version < STRONGLY_TYPED:
        return order.precision
    if facts.formats == {"fp16"}:
        return "fp16"
    return "tf32" if order.precision == "tf32" else "fp32"


def _check_dla(order: EngineOrder, facts: OnnxFacts, version: Version) -> None:
    """What a DLA does not do, before an hour is spent on it.

    Source: NVIDIA, "TensorRT Documentation", "Working with DLA" and "DLA Supported Layers and Restrictions".
    """
    if order.dla is None:
        return
    if not has_dla(version):
        raise UnsupportedError(f"TensorRT {version} does not support DLA cores; build it for the GPU, without --dla")
    if facts.quantised:
        raise UnsupportedError(
            f"{order.model}: a DLA core takes no quantisation nodes; build the FP16 or FP32 file with --dla, "
            "or the INT8 file for the GPU"
        )
    if facts.open_input is not None:
        raise UnsupportedError(
            f"{order.model}: its batch is open, but a DLA core takes one number of pictures; export it without "
            "--dynamic-batch"
        )
    if order.precision != "fp16":
        raise UnsupportedError(f"a DLA core computes in fp16, not in {order.precision}; use --precision fp16")


def _chosen(wanted: Tool) -> Literal["tensorrt", "trtexec"]:
    """What builds here.

    Raises:
        UnsupportedError: Nothing does.
    """
    if wanted != "auto":
        return wanted
    from scaler.runtimes.tensorrt_api import load_api  # noqa: PLC0415
    from scaler.runtimes.tensorrt_cuda import load_cuda  # noqa: PLC0415
    from scaler.runtimes.trtexec import find_trtexec  # noqa: PLC0415

    try:
        load_api()
        load_cuda()
    except UserError as in_process:
        try:
            find_trtexec()
        except UserError:
            raise UnsupportedError(f"no TensorRT here: there is no trtexec, and {in_process}") from None
        return "trtexec"
    return "tensorrt"


def _version_in_process() -> Version:
    from scaler.runtimes.tensorrt_api import load_api  # noqa: PLC0415

    return load_api().version


def _build_in_process(order: EngineOrder) -> _Made:
    from scaler.runtimes.tensorrt_cuda import gpu_name  # noqa: PLC0415
    from scaler.runtimes.tensorrt_engine import TensorRtEngine  # noqa: PLC0415

    runtime = TensorRtEngine(
        precision=order.precision,
        workspace_mib=order.workspace_mib,
        dla=order.dla,
        batch=order.batch,
        timing_cache=order.timing_cache,
    )
    built = runtime.build(order.model)
    return _Made(built.plan, built.log, built.fallback, gpu_name(runtime.cuda), built.seconds)


def _version_of_trtexec() -> Version:
    from scaler.runtimes.trtexec import Trtexec  # noqa: PLC0415

    return Trtexec().version


def _build_by_trtexec(order: EngineOrder) -> _Made:
    from scaler.runtimes.trtexec import Trtexec  # noqa: PLC0415

    runtime = Trtexec(
        precision=order.precision,
        workspace_mib=order.workspace_mib,
        dla=order.dla,
        batch=order.batch,
        timing_cache=order.timing_cache,
    )
    with tempfile.TemporaryDirectory(prefix="scaler-engine-") as folder:
        engine = Path(folder) / f"{order.model.stem}{SUFFIX}"
        log, seconds = runtime.build(order.model, engine)
        return _Made(engine.read_bytes(), log, (), runtime.gpu or _UNTOLD, seconds)


class _Builder(NamedTuple):
    """A tool that builds engines."""

    version: Callable[[], Version]
    build: Callable[[EngineOrder], _Made]


_TOOLS: Mapping[str, _Builder] = {
    "tensorrt": _Builder(_version_in_process, _build_in_process),
    "trtexec": _Builder(_version_of_trtexec, _build_by_trtexec),
}
