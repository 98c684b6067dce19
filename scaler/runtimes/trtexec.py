"""TensorRT through its program `trtexec`: a process builds an engine, one times it, another times its layers.

Works with TensorRT 8.0 to 11.x on any machine that has trtexec; see `scaler.runtimes.trtexec_flags` for what differs.
Times are trtexec's GPU compute times: CUDA events around an inference while the next one is being queued, without
copies. The layers are timed by a process of their own, since the profiler slows what it watches. Every time is read
from a fresh file of a process that says that it passed; whatever else it leaves is thrown away.

Written against NVIDIA's sources and recorded outputs, and tested with a fake trtexec; it has not run on a GPU yet.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from scaler.devices import Precision
from scaler.errors import FileError, MissingExtraError, UnsupportedError, UserError
from scaler.runtimes.jetson import Jetson
from scaler.runtimes.onnx_facts import OnnxFacts, read_facts, require_file
from scaler.runtimes.protocol import Conditions, FloatArray, LayerTime, ModelRejectedError, RuntimeFailedError
from scaler.runtimes.tensorrt_errors import failure
from scaler.runtimes.tensorrt_version import STRONGLY_TYPED, Version, check_precision, check_version
from scaler.runtimes.trtexec_files import LayerInfo, join, read_layer_info, read_profile, read_times
from scaler.runtimes.trtexec_flags import TrtexecSettings, build_options, has_option, profile_options, time_options
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
        precision: Of the engines; INT8 is timed with made-up ranges and falls back to FP16 layer by layer.
        workspace_mib: Scratch memory for kernels, low since a Jetson's memory is shared.
        warm_up_ms: Before every timed run; trtexec's own 200 ms are short for clocks that rise under load.
        cuda_graph: Launch the network as one CUDA graph.
        batch: Pictures at a time of the models to come; only recorded.
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
        warm_up_ms: int = 500,
        cuda_graph: bool = False,
        batch: int = 1,
        timing_cache: Path | None = None,
        timeout: float = 3600.0,
        system: Jetson | None = None,
    ) -> None:
        self.executable = find_trtexec(executable)
        self.settings = TrtexecSettings(
            precision=precision, workspace_mib=workspace_mib, warm_up_ms=warm_up_ms, cuda_graph=cuda_graph
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
        return self._system.state().conditions(
            runtime=NAME,
            version=str(self.version),
            precision=self.settings.precision,
            batch=self._batch,
            gpu=self._gpu,
            notes=notes,
        )

    def prepare(self, model: Path) -> TrtexecSession:
        """Build the engine of a model; see `Runtime.prepare`. Every run warms up by itself.

        Raises:
            ModelRejectedError: TensorRT does not take the model.
            RuntimeFailedError: trtexec crashed, ran out of memory or time.
            UnsupportedError: TensorRT 11 or later, and the model has another number format.
            MissingExtraError: The same, and the package `onnx`, which could tell, is not installed.
        """
        facts = self._facts(model)
        if facts:
            check_precision(self.settings.precision, self.version, facts, model)
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        engine = folder / "model.engine"
        try:
            options = build_options(self.settings, self.version, model, engine, self.timing_cache)
            self.run("building the engine", model.name, options, (engine,))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return TrtexecSession(self, model.name, engine, facts)

    def run(self, stage: _Stage, subject: str, options: Sequence[str], makes: Sequence[Path]) -> None:
        """Run trtexec once.

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
        code, output = self._process(what, options, self._timeout)
        self._gpu = parse_gpu(output) or self._gpu
        if code < 0:
            raise RuntimeFailedError(f"{what} failed: trtexec {_ended_by(-code)}")
        if code != 0 or not parse_outcome(output):
            otherwise: type[UserError] = ModelRejectedError if stage == "building the engine" else RuntimeFailedError
            messages = error_messages(output) or (f"trtexec ended with code {code} and said no more",)
            raise failure(messages, what, otherwise)
        missing = [path.name for path in makes if not path.is_file() or not path.stat().st_size]
        if missing:
            raise RuntimeFailedError(
                f"{what} failed: trtexec says that it passed but wrote no {missing[0]}; is the disk full?"
            )

    def _probe(self) -> Version:
        """The version, from the banner, which every call prints first."""
        _, output = self._process(f"{self.executable}", ["--help"], _PROBE_SECONDS)
        version = parse_version(output)
        if version is None:
            said = next((line.strip() for line in output.splitlines() if line.strip()), "nothing")
            raise RuntimeFailedError(f"{self.executable} does not answer like trtexec; it said: {said[:200]}")
        check_version(version)
        return version

    def _process(self, what: str, options: Sequence[str], timeout: float) -> tuple[int, str]:
        """Return code and output, errors among the rest; the child ends with us, whatever interrupts."""
        try:
            child = subprocess.Popen(
                [str(self.executable), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that it can be ended with all that it started
            )
        except OSError as error:
            raise RuntimeFailedError(f"{self.executable} cannot be run: {error.strerror or error}") from None
        with child:
            try:
                output, _ = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                _end(child)
                raise RuntimeFailedError(f"{what} failed: trtexec took longer than {timeout:g} s") from None
            except BaseException:  # Ctrl-C
                _end(child)
                raise
        return child.returncode, output.decode(errors="replace")

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

    def __init__(self, runtime: Trtexec, model: str, engine: Path, facts: OnnxFacts | None) -> None:
        self._runtime = runtime
        self._model = model
        self._engine = engine
        self._facts = facts
        self._calls = 0

    def time(self, runs: int) -> FloatArray:
        """GPU compute times in ms of `runs` inferences; see `Session.time`.

        Raises:
            RuntimeFailedError: trtexec failed, or what it wrote cannot be used.
        """
        settings, version = self._runtime.settings, self._runtime.version
        (file,) = self._fresh("times")
        options = time_options(settings, version, self._engine, runs + _SPARE_RUNS, file)
        self._runtime.run("timing", self._model, options, (file,))
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
        settings, version = self._runtime.settings, self._runtime.version
        times, info = self._fresh("profile", "layers")
        options = profile_options(settings, version, self._engine, runs, times, info)
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
        """Remove the engine; closing twice does no harm."""
        shutil.rmtree(self._engine.parent, ignore_errors=True)

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
        return tuple(self._engine.with_name(f"{kind}{self._calls}.json") for kind in kinds)


def _layer_infos(path: Path) -> tuple[LayerInfo, ...]:
    """Layer information; none where trtexec has no option for it, and where its JSON is broken: names do without."""
    try:
        return read_layer_info(path)
    except FileError:
        return ()


def _ended_by(number: int) -> str:
    """What a signal means."""
    if number == signal.SIGKILL:
        return "was killed, most likely because the memory ran out; close other programs or allow a smaller workspace"
    name = signal.Signals(number).name if number in {*signal.Signals} else f"signal {number}"
    return f"crashed ({name})"


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a child and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
