"""TensorRT in this process, through its Python package and pycuda: no engine files and no process a block of runs.

An inference is timed by CUDA events around it, while the next one is being queued, so that the times mean what
trtexec's GPU compute time means. One engine is resident at a time: when another model's turn comes, the one before
gives its memory back and is loaded again later. Layers are timed by TensorRT's own profiler in a context of its own.

Written against NVIDIA's documentation and sources; it has not run on a GPU yet. Where `trtexec` is at hand,
`scaler.runtimes.trtexec` does the same without Python packages.
"""

from __future__ import annotations

import atexit
import weakref
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np

from scaler.devices import Precision
from scaler.errors import FileError, MissingExtraError, UserError
from scaler.files import write_atomic
from scaler.runtimes.engine_facts import SUFFIX, check_here, read_engine
from scaler.runtimes.jetson import Jetson
from scaler.runtimes.onnx_facts import OnnxFacts, read_facts, require_file
from scaler.runtimes.power_memory import EngineMemory, parse_engine_memory
from scaler.runtimes.protocol import Conditions, FloatArray, LayerTime, RuntimeFailedError
from scaler.runtimes.tensorrt_api import Built, EngineSettings, TensorRtApi, load_api
from scaler.runtimes.tensorrt_callbacks import LayerReport
from scaler.runtimes.tensorrt_cuda import Resident, gpu_name, guarded, load_cuda
from scaler.runtimes.tensorrt_errors import failure
from scaler.runtimes.tensorrt_version import STRONGLY_TYPED, check_precision
from scaler.runtimes.trtexec_files import LayerInfo, Profile, ProfiledLayer, join, parse_layer_info

__all__ = ["NAME", "TensorRtEngine", "TensorRtSession"]

NAME = "tensorrt"
_LEAST_WARM_UP_RUNS = 2


class TensorRtEngine:
    """Runs models with TensorRT in process; an implementation of `scaler.runtimes.protocol.Runtime`.

    Args:
        precision: Of the engines; INT8 is timed with made-up ranges, unless the model has its own, and falls back to
            FP16 layer by layer.
        workspace_mib: Scratch memory for kernels, low since a Jetson's memory is shared.
        dla: DLA core that computes what it can, the GPU the rest.
        timing_cache: File in which TensorRT remembers how fast kernels are, so that later builds are shorter and
            choose alike; by default only this object remembers it.
        warm_up_ms: Before every block of timed runs.
        batch: Pictures at a time of the models to come; those with a fixed batch have their own.
        system: Tells power mode, clocks and temperature.

    Raises:
        MissingExtraError: `tensorrt` or `pycuda` is not installed.
        UnsupportedError: TensorRT is older than 8.0, or there is no GPU.
    """

    def __init__(
        self,
        *,
        precision: Precision = "fp16",
        workspace_mib: int = 512,
        dla: int | None = None,
        timing_cache: Path | None = None,
        warm_up_ms: int = 500,
        batch: int = 1,
        system: Jetson | None = None,
    ) -> None:
        self.api = load_api()
        self.cuda = load_cuda()
        self.warm_up_seconds = warm_up_ms * 1e-3
        self._settings = EngineSettings(precision=precision, workspace_mib=workspace_mib, batch=batch, dla=dla)
        self._cache_file = timing_cache
        self._cache = _read_bytes(timing_cache)
        self._system = system or Jetson()
        self._resident: TensorRtSession | None = None
        atexit.register(_release, weakref.ref(self))  # before pycuda's own, which ends the CUDA context

    @property
    def name(self) -> str:
        """`tensorrt`."""
        return NAME

    def conditions(self) -> Conditions:
        """Conditions now."""
        notes = [f"in process, workspace {self._settings.workspace_mib} MiB"]
        notes += ["no auxiliary streams"] if self.api.has_auxiliary_streams() else []
        notes += [] if self._settings.dla is None else [f"DLA core {self._settings.dla}"]
        return self._system.state().conditions(
            runtime=NAME,
            version=str(self.api.version),
            precision=self._settings.precision,
            batch=self._settings.batch,
            gpu=gpu_name(self.cuda),
            notes=notes,
        )

    def prepare(self, model: Path) -> TensorRtSession:
        """Build the engine of a model, or take one that was built; see `Runtime.prepare`. Blocks of runs warm up.

        Args:
            model: An ONNX file, or an engine with what is known of it beside it (`scaler.runtimes.engine_facts`).

        Raises:
            ModelRejectedError: TensorRT does not take it.
            RuntimeFailedError: Out of memory, or CUDA failed.
            UnsupportedError: TensorRT 11 or later, and the model has another number format; no such DLA core; or an
                engine of another TensorRT or GPU.
            MissingExtraError: The package `onnx` is not installed, which could tell the format in TensorRT 11.
            FileError: The engine or what is known of it is damaged.
        """
        if model.suffix.lower() == SUFFIX:
            plan, known = read_engine(model)
            check_here(model, known, str(self.api.version), gpu_name(self.cuda))
            settings = replace(self._settings, dla=known.dla)
            session = TensorRtSession(self, model.name, plan, None, settings, known.memory)
        else:
            facts = self._facts(model)
            built = self._build(model, facts)
            memory = parse_engine_memory(built.log)
            session = TensorRtSession(self, model.name, built.plan, facts, self._settings, memory)
        self.make_resident(session)
        return session

    def build(self, model: Path) -> Built:
        """Build the engine of a model, and load it once, which proves that it can be.

        Raises:
            UserError: As `prepare`.
        """
        facts = self._facts(model)
        start = perf_counter()
        built = self._build(model, facts)
        seconds = perf_counter() - start
        resident = Resident(
            self.api, self.cuda, built.plan, model.name, batch=self._settings.batch, dla=self._settings.dla
        )
        resident.context()
        resident.free()
        return built._replace(log=f"{built.log}\n{self.api.take_log()}", seconds=seconds)

    def _build(self, model: Path, facts: OnnxFacts | None) -> Built:
        if facts:
            check_precision(self._settings.precision, self.api.version, facts, model)
        self.release()
        with self.guarded(f"{model.name}: building the engine"):
            built = self.api.build(model, self._settings, self._cache)
        self._cache = built.timing_cache
        if self._cache_file is not None:
            write_atomic(self._cache_file, self._cache)
        return built

    def make_resident(self, session: TensorRtSession) -> None:
        """Give the GPU's memory to one session."""
        if self._resident is not session:
            self.release()
            session.load()
            self._resident = session

    def release(self, session: TensorRtSession | None = None) -> None:
        """Take the memory back from the resident session, or from this one if it is."""
        if self._resident is not None and session in (None, self._resident):
            self._resident.unload()
            self._resident = None

    def guarded(self, what: str) -> AbstractContextManager[None]:
        """Turn errors of CUDA into one of ours, with what TensorRT says about it."""
        return guarded(self.cuda, self.api, what)

    def _facts(self, model: Path) -> OnnxFacts | None:
        """What the model is made of; None where that can be done without and `onnx` is not installed."""
        try:
            return read_facts(model, "telling a model's number format")
        except MissingExtraError:
            require_file(model)
            if self.api.version >= STRONGLY_TYPED:
                raise
            return None


class TensorRtSession:
    """The engine of one model; see `scaler.runtimes.protocol.Session`."""

    def __init__(
        self,
        runtime: TensorRtEngine,
        model: str,
        plan: bytes,
        facts: OnnxFacts | None,
        settings: EngineSettings,
        memory: EngineMemory,
    ) -> None:
        self._runtime = runtime
        self._model = model
        self._plan = plan
        self._facts = facts
        self._settings = settings
        self._memory = memory
        self._resident: Resident | None = None

    @property
    def memory(self) -> EngineMemory:
        """What TensorRT said of the engine when it was built and loaded; loads it where nothing did yet.

        Raises:
            RuntimeFailedError: It cannot be loaded.
        """
        if self._memory.running is None:
            api = self._runtime.api
            with self._runtime.guarded(f"{self._model}: loading the engine"):
                api.take_log()
                self._on_gpu().context()
                self._memory = self._memory.updated(parse_engine_memory(api.take_log()))
        return self._memory

    def time(self, runs: int) -> FloatArray:
        """GPU times in ms of `runs` inferences after a warm-up; see `Session.time`.

        Raises:
            RuntimeFailedError: CUDA or TensorRT failed.
        """
        what = f"{self._model}: timing"
        with self._runtime.guarded(what):
            resident = self._on_gpu()
            context = resident.context()
            stream = self._runtime.cuda.Stream()
            self._warm_up(context, resident, stream, what)
            return self._timed(context, resident, stream, runs, what)

    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Median time of every layer, in a context of its own; see `Session.profile`.

        Raises:
            RuntimeFailedError: CUDA or TensorRT failed.
        """
        what = f"{self._model}: timing the layers"
        api = self._runtime.api
        with self._runtime.guarded(what):
            resident = self._on_gpu()
            infos = self._infos(api, resident.engine)
            context = resident.context()
            reports = api.watch(context)
            inferences = []
            for _ in range(_LEAST_WARM_UP_RUNS + runs):
                if not api.execute(context, resident.addresses):
                    raise failure(api.take_messages(), what, RuntimeFailedError)
                inferences.append(tuple(reports))
                reports.clear()
        profile = Profile(runs, _medians(inferences[_LEAST_WARM_UP_RUNS:]))
        if not profile.layers:
            raise RuntimeFailedError(f"{what} failed: TensorRT's profiler reported no layer")
        if self._facts:
            return join(profile, infos, nodes=self._facts.nodes, makers=self._facts.makers)
        return join(profile, infos)

    def load(self) -> None:
        """Bring the engine and its inputs and outputs onto the GPU; the runtime decides when.

        Raises:
            RuntimeFailedError: It cannot be loaded, or the memory does not suffice.
        """
        api, cuda, settings = self._runtime.api, self._runtime.cuda, self._settings
        self._resident = Resident(api, cuda, self._plan, self._model, batch=settings.batch, dla=settings.dla)

    def unload(self) -> None:
        """Give the GPU's memory back; the runtime decides when."""
        if self._resident is not None:
            self._resident.free()
            self._resident = None

    def close(self) -> None:
        """Release the model; closing twice does no harm."""
        self._runtime.release(self)
        self._plan = b""

    def __enter__(self) -> Self:
        """Close at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _on_gpu(self) -> Resident:
        self._runtime.make_resident(self)
        assert self._resident is not None
        return self._resident

    def _warm_up(self, context: Any, resident: Resident, stream: Any, what: str) -> None:
        end = perf_counter() + self._runtime.warm_up_seconds
        done = 0
        while done < _LEAST_WARM_UP_RUNS or perf_counter() < end:
            self._enqueue(context, resident, stream, what)
            stream.synchronize()
            done += 1

    def _timed(self, context: Any, resident: Resident, stream: Any, runs: int, what: str) -> FloatArray:
        """Events around every inference; the next one is queued before the end of one is waited for, like trtexec."""
        event = self._runtime.cuda.Event
        pairs = [(event(), event()) for _ in range(runs)]
        for place, (start, end) in enumerate(pairs):
            start.record(stream)
            self._enqueue(context, resident, stream, what)
            end.record(stream)
            if place:
                pairs[place - 1][1].synchronize()
        stream.synchronize()
        return np.array([start.time_till(end) for start, end in pairs], dtype=np.float64)

    def _enqueue(self, context: Any, resident: Resident, stream: Any, what: str) -> None:
        api = self._runtime.api
        if not api.enqueue(context, resident.addresses, int(stream.handle)):
            raise failure(api.take_messages(), what, RuntimeFailedError)

    def _infos(self, api: TensorRtApi, engine: Any) -> tuple[LayerInfo, ...]:
        """What the inspector says of the layers; nothing where there is none or its JSON is broken: names do."""
        text = api.layer_information(engine)
        try:
            return parse_layer_info(text, "engine inspector") if text else ()
        except FileError:
            return ()


def _medians(inferences: Sequence[Sequence[LayerReport]]) -> tuple[ProfiledLayer, ...]:
    """Median of each layer, equal names apart by their order within an inference."""
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    for reports in inferences:
        seen: Counter[str] = Counter()
        for report in reports:
            times[report.name, seen[report.name]].append(report.ms)
            seen[report.name] += 1
    return tuple(ProfiledLayer(name, float(np.median(samples))) for (name, _), samples in times.items())


def _read_bytes(path: Path | None) -> bytes:
    """A timing cache; none where the file is not there yet.

    Raises:
        UserError: It is there but cannot be read.
    """
    if path is None or not path.exists():
        return b""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the timing cache cannot be read: {error.strerror or error}; name another") from None


def _release(runtime: weakref.ref[TensorRtEngine]) -> None:
    alive = runtime()
    if alive is not None:
        alive.release()
