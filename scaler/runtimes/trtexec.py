"""TensorRT through its program `trtexec`: a process builds an engine, one times it, another times its layers.

Works with TensorRT 8.0 to 11.x on any machine that has trtexec; see `scaler.runtimes.trtexec_flags` for what differs.
Times are trtexec's GPU compute times: CUDA events around an inference while the next one is being queued, without
copies. The layers are timed by a process of their own, since the profiler slows what it watches. Every time is read
from a fresh file of a process that says that it passed; whatever else it leaves is thrown away.

Written against NVIDIA's sources and recorded outputs, and tested with a fake trtexec; it has not run on a GPU yet.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Literal, Self

from scaler.devices import Precision
from scaler.errors import FileError, MissingExtraError, UnsupportedError, UserError
from scaler.runtimes.engine_facts import SUFFIX, check_here, read_engine
from scaler.runtimes.jetson import Jetson
from scaler.runtimes.onnx_facts import OnnxFacts, OpenInput, read_facts, require_file
from scaler.runtimes.power_memory import EngineMemory, parse_engine_memory
from scaler.runtimes.protocol import Conditions, FloatArray, LayerTime, ModelRejectedError, RuntimeFailedError
from scaler.runtimes.tensorrt_errors import failure
from scaler.runtimes.tensorrt_version import STRONGLY_TYPED, Version, check_precision, check_version
from scaler.runtimes.trtexec_files import LayerInfo, join, read_layer_info, read_profile, read_times
from scaler.runtimes.trtexec_flags import (
    TrtexecSettings,
    batch_options,
    build_options,
    has_option,
    open_batch_options,
    profile_options,
    time_options,
)
from scaler.runtimes.trtexec_process import ended_by, run_program
from scaler.runtimes.trtexec_text import error_messages, parse_gpu, parse_outcome, parse_version

__all__ = ["NAME", "Trtexec", "TrtexecSession", "find_trtexec"]

NAME = "tensorrt"
JETPACK_PLACE = Path("/usr/src/tensorrt/bin/trtexec")
_SPARE_RUNS = 2
"""Runs beyond those asked for: trtexec's own count of the first inference after the warm-up is off by one."""
_PROBE_SECONDS = 120.0

_Stage = Literal["building the engine", "timing", "timing the layers"]


def find_trtexec(given: Path | str | None = None) -> Path:
    """The program: as given, from PATH, or from where JetPack puts it.

    Raises:
        UnsupportedError: There is none, or the given one cannot be run.
    """
    if given is not None:
        found = shutil.which(str(given))
        if found is None:
            raise UnsupportedError(f"{given}: no program that can be run; give the path of trtexec")
        return Path(found)
    found = shutil.which("trtexec") or shutil.which(str(JETPACK_PLACE))
    if found is None:
        raise UnsupportedError(
            f"no trtexec in PATH and none at {JETPACK_PLACE}; it comes with TensorRT (JetPack on a Jetson); "
            "give its path if it lies elsewhere"
        )
    return Path(found)


class Trtexec:
    """Runs models with trtexec; an implementation of `scaler.runtimes.protocol.Runtime`.

    Args:
        executable: The program; by default the one in PATH or JetPack's.
        precision: Of the engines; INT8 is timed with made-up ranges, unless the model has its own, and falls back to
            FP16 layer by layer.
        workspace_mib: Scratch memory for kernels, low since a Jetson's memory is shared.
        dla: DLA core that computes what it can, the GPU the rest.
        warm_up_ms: Before every timed run; trtexec's own 200 ms are short for clocks that rise under load.
        cuda_graph: Launch the network as one CUDA graph.
        batch: Pictures at a time of the models to come; those with a fixed batch have their own.
        timing_cache: File in which TensorRT remembers how fast kernels are, so that later builds are shorter and
            choose alike; by default one that lasts as long as this object.
        timeout: Longest time of one process in seconds; engines for a Nano take many minutes.
        system: Tells power mode, clocks and temperature.

    Raises:
        UnsupportedError: There is no trtexec, or it is older than TensorRT 8.0.
        RuntimeFailedError: It cannot be run.
    """

    def __init__(
        self,
        executable: Path | str | None = None,
        *,
        precision: Precision = "fp16",
        workspace_mib: int = 512,
        dla: int | None = None,
        warm_up_ms: int = 500,
        cuda_graph: bool = False,
        batch: int = 1,
        timing_cache: Path | None = None,
        timeout: float = 3600.0,
        system: Jetson | None = None,
    ) -> None:
        self.executable = find_trtexec(executable)
        self.settings = TrtexecSettings(
            precision=precision, workspace_mib=workspace_mib, warm_up_ms=warm_up_ms, cuda_graph=cuda_graph, dla=dla
        )
        self._batch = batch
        self._timeout = timeout
        self._system = system or Jetson()
        self._gpu: str | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="scaler-trtexec-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self.timing_cache = timing_cache or self._folder / "timing.cache"
        self.version = self._probe()

    @property
    def name(self) -> str:
        """`tensorrt`."""
        return NAME

    def conditions(self) -> Conditions:
        """Conditions now; the GPU's name is known after the first model."""
        notes = [f"trtexec, workspace {self.settings.workspace_mib} MiB"]
        notes += ["CUDA graph"] if self.settings.cuda_graph else []
        notes += ["no auxiliary streams"] if has_option("maxAuxStreams", self.version) else []
        notes += [] if self.settings.dla is None else [f"DLA core {self.settings.dla}"]
        return self._system.state().conditions(
            runtime=NAME,
            version=str(self.version),
            precision=self.settings.precision,
            batch=self._batch,
            gpu=self._gpu,
            notes=notes,
        )

    @property
    def gpu(self) -> str | None:
        """Name of the GPU; None before the first model."""
        return self._gpu

    def prepare(self, model: Path) -> TrtexecSession:
        """Build the engine of a model, or take one that was built; see `Runtime.prepare`. Every run warms up by itself.

        Args:
            model: An ONNX file, or an engine with what is known of it beside it (`scaler.runtimes.engine_facts`).

        Raises:
            ModelRejectedError: TensorRT does not take the model.
            RuntimeFailedError: trtexec crashed, ran out of memory or time.
            UnsupportedError: TensorRT 11 or later, and the model has another number format; or an engine of another
                TensorRT.
            MissingExtraError: The package `onnx` is not installed, which could tell the format in TensorRT 11.
            FileError: The engine or what is known of it is damaged.
        """
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            if model.suffix.lower() == SUFFIX:
                return self._finished(model, folder)
            engine = folder / "model.engine"
            facts = self._facts(model)
            log = self._build(model, engine, facts)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        opened = facts.open_input if facts else None
        memory = parse_engine_memory(log)
        return TrtexecSession(self, self.settings, model.name, engine, folder, facts, self._running(opened), memory)

    def build(self, model: Path, engine: Path) -> tuple[str, float]:
        """Build the engine of a model into a file, and run it once, which proves that it can be loaded.

        Returns:
            What trtexec said, and the seconds that building took.

        Raises:
            UserError: As `prepare`.
        """
        facts = self._facts(model)
        start = perf_counter()
        log = self._build(model, engine, facts)
        seconds = perf_counter() - start
        times = engine.with_name("times.json")
        options = time_options(self.settings, self.version, engine, 1, times)
        opened = facts.open_input if facts else None
        return log + self.run("timing", model.name, [*options, *self._running(opened)], (times,)), seconds

    def _build(self, model: Path, engine: Path, facts: OnnxFacts | None) -> str:
        if facts:
            check_precision(self.settings.precision, self.version, facts, model)
        options = build_options(self.settings, self.version, model, engine, self.timing_cache)
        if facts and facts.open_input:
            options += open_batch_options(*facts.open_input, self._batch)
        return self.run("building the engine", model.name, options, (engine,))

    def _finished(self, engine: Path, folder: Path) -> TrtexecSession:
        _, known = read_engine(engine)
        check_here(engine, known, str(self.version), self._gpu)
        opened = OpenInput(known.input, known.picture) if known.open_batch else None
        settings, place = replace(self.settings, dla=known.dla), engine.resolve()
        return TrtexecSession(self, settings, engine.name, place, folder, None, self._running(opened), known.memory)

    def _running(self, opened: OpenInput | None) -> list[str]:
        return batch_options(*opened, self._batch) if opened else []

    def run(self, stage: _Stage, subject: str, options: Sequence[str], makes: Sequence[Path]) -> str:
        """Run trtexec once; returns what it said.

        Args:
            stage: What it does, for messages and for the kind of error.
            subject: The model, for messages.
            options: Its arguments.
            makes: The files that it must have made at the end.

        Raises:
            ModelRejectedError: TensorRT does not take the model.
            RuntimeFailedError: Whatever else went wrong.
        """
        what = f"{subject}: {stage}"
        code, output = run_program(self.executable, what, options, self._timeout)
        self._gpu = parse_gpu(output) or self._gpu
        if code < 0:
            raise RuntimeFailedError(f"{what} failed: trtexec {ended_by(-code)}")
        if code != 0 or not parse_outcome(output):
            otherwise: type[UserError] = ModelRejectedError if stage == "building the engine" else RuntimeFailedError
            messages = error_messages(output) or (f"trtexec ended with code {code} and said no more",)
            raise failure(messages, what, otherwise)
        missing = [path.name for path in makes if not path.is_file() or not path.stat().st_size]
        if missing:
            raise RuntimeFailedError(
                f"{what} failed: trtexec says that it passed but wrote no {missing[0]}; is the disk full?"
            )
        return output

    def _probe(self) -> Version:
        """The version, from the banner, which every call prints first."""
        _, output = run_program(self.executable, f"{self.executable}", ["--help"], _PROBE_SECONDS)
        version = parse_version(output)
        if version is None:
            said = next((line.strip() for line in output.splitlines() if line.strip()), "nothing")
            raise RuntimeFailedError(f"{self.executable} does not answer like trtexec; it said: {said[:200]}")
        check_version(version)
        return version

    def _facts(self, model: Path) -> OnnxFacts | None:
        """What the model is made of; None where that can be done without and `onnx` is not installed."""
        try:
            return read_facts(model, "telling a model's number format")
        except MissingExtraError:
            require_file(model)
            if self.version >= STRONGLY_TYPED:
                raise
            return None


class TrtexecSession:
    """The engine of one model in a file; see `scaler.runtimes.protocol.Session`."""

    def __init__(
        self,
        runtime: Trtexec,
        settings: TrtexecSettings,
        model: str,
        engine: Path,
        folder: Path,
        facts: OnnxFacts | None,
        batch: Sequence[str],
        memory: EngineMemory,
    ) -> None:
        self._runtime = runtime
        self._settings = settings
        self._model = model
        self._engine = engine
        self._folder = folder
        self._facts = facts
        self._batch = batch
        self._memory = memory
        self._calls = 0

    @property
    def memory(self) -> EngineMemory:
        """What TensorRT said of the engine when it was built and loaded; loads it where nothing did yet.

        Raises:
            RuntimeFailedError: It cannot be loaded.
        """
        if self._memory.running is None:
            self.time(1)
        return self._memory

    def time(self, runs: int) -> FloatArray:
        """GPU compute times in ms of `runs` inferences; see `Session.time`.

        Raises:
            RuntimeFailedError: trtexec failed, or what it wrote cannot be used.
        """
        settings, version = self._settings, self._runtime.version
        (file,) = self._fresh("times")
        options = [*time_options(settings, version, self._engine, runs + _SPARE_RUNS, file), *self._batch]
        said = self._runtime.run("timing", self._model, options, (file,))
        self._memory = self._memory.updated(parse_engine_memory(said))
        try:
            times = read_times(file, warm_up_ms=settings.warm_up_ms)
        except FileError as error:
            raise RuntimeFailedError(f"{self._model}: timing failed: what trtexec wrote is damaged: {error}") from None
        finally:
            file.unlink(missing_ok=True)
        if len(times) < runs:
            raise RuntimeFailedError(f"{self._model}: timing failed: trtexec wrote {len(times)} times of {runs}")
        return times[:runs]

    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Time of every layer in a process of its own; see `Session.profile`.

        Raises:
            RuntimeFailedError: trtexec failed, or what it wrote cannot be used.
        """
        settings, version = self._settings, self._runtime.version
        times, info = self._fresh("profile", "layers")
        options = [*profile_options(settings, version, self._engine, runs, times, info), *self._batch]
        self._runtime.run("timing the layers", self._model, options, (times,))
        try:
            profile, infos = read_profile(times), _layer_infos(info)
        except FileError as error:
            raise RuntimeFailedError(
                f"{self._model}: timing the layers failed: what trtexec wrote is damaged: {error}"
            ) from None
        finally:
            times.unlink(missing_ok=True)
            info.unlink(missing_ok=True)
        if self._facts:
            return join(profile, infos, nodes=self._facts.nodes, makers=self._facts.makers)
        return join(profile, infos)

    def close(self) -> None:
        """Remove what was made here; closing twice does no harm."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Close at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _fresh(self, *kinds: str) -> tuple[Path, ...]:
        """Names of files that no earlier call has written."""
        self._calls += 1
        return tuple(self._folder / f"{kind}{self._calls}.json" for kind in kinds)


def _layer_infos(path: Path) -> tuple[LayerInfo, ...]:
    """Layer information; none where trtexec has no option for it, and where its JSON is broken: names do without."""
    try:
        return read_layer_info(path)
    except FileError:
        return ()
