"""ONNX Runtime on a CPU: the runtime of the computer at hand.

The number of threads belongs to the identity of what is measured. Layer times come from ONNX Runtime's own profile,
of a second session, so that profiling never slows what is timed; the names of its fused layers lead back to the model
through the optimised graph, which that session writes beside the profile. Layout changes (`ReorderInput`,
`ReorderOutput`) are counted to the layer on whose account they are made: the one that works in plain NCHW. In INT8
files transpositions, quantisation and its undoing are counted to the layer that reads their result, at an output of the
network to the layer that made it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from scaler.devices import Precision, thread_mode
from scaler.errors import MissingExtraError, UsageError
from scaler.host import processor_name
from scaler.runtimes.protocol import Conditions, FloatArray, LayerTime, ModelRejectedError, RuntimeFailedError

if TYPE_CHECKING:
    from onnx import ModelProto

NAME = "onnxruntime"
WARM_UP_RUNS = 2
_SUFFIX = "_kernel_time"
_SEVERITY_ERROR = 3
_TO_PLAIN, _FROM_PLAIN = "ReorderOutput", "ReorderInput"
_NUMBERS = ("QuantizeLinear", "DequantizeLinear")
_CARRIERS = ("Transpose", *_NUMBERS)
"""Compute nothing of the network's own, but change layout or number format on another's account."""


class OnnxRuntimeCpu:
    """Runs models with ONNX Runtime's CPU provider.

    Args:
        threads: Threads within an operator; operators run one after the other.
        precision: Of the models to come, fp32 or int8; only recorded: in what numbers a model computes, its file says.
        batch: Pictures at a time of the models to come; only recorded.
        blocked_layout: Whether ONNX Runtime may use its blocked NCHWc layout; without it the computer behaves like
            another, slower device.

    Raises:
        MissingExtraError: The package `onnxruntime` or `onnx` is not installed.
        UsageError: Fewer than one thread.
    """

    def __init__(
        self, threads: int = 1, *, precision: Precision = "fp32", batch: int = 1, blocked_layout: bool = True
    ) -> None:
        if threads < 1:
            raise UsageError(f"threads = {threads}: allowed is 1 or more")
        try:
            import onnx  # noqa: F401, PLC0415
            import onnxruntime  # noqa: PLC0415
        except ImportError:
            raise MissingExtraError("measuring on this computer", "onnxruntime", "onnxruntime") from None
        self.threads = threads
        self._precision = precision
        self._batch = batch
        self._blocked = blocked_layout
        self._package: Any = onnxruntime

    @property
    def name(self) -> str:
        """`onnxruntime`."""
        return NAME

    def conditions(self) -> Conditions:
        """Version, processor and threads; a CPU's clock is not pinned by us."""
        return Conditions(
            runtime=NAME,
            runtime_version=self._package.__version__,
            precision=self._precision,
            batch=self._batch,
            processor=processor_name(),
            power_mode=thread_mode(self.threads).name,
            notes=() if self._blocked else ("blocked layout off",),
        )

    def prepare(self, model: Path) -> OnnxRuntimeSession:
        """Load a model and warm it up; see `Runtime.prepare`."""
        session = OnnxRuntimeSession(self, model)
        session.time(WARM_UP_RUNS)
        return session

    def load(self, model: Path, *, profile_in: Path | None = None) -> Any:
        """An `InferenceSession`, profiling into a folder where one is given."""
        options = self._package.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._package.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = _SEVERITY_ERROR
        levels = self._package.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_ENABLE_ALL if self._blocked else levels.ORT_ENABLE_EXTENDED
        if profile_in is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile_in / "profile")
            options.optimized_model_filepath = str(profile_in / "optimised.onnx")
        try:
            return self._package.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except MemoryError:
            raise RuntimeFailedError(f"{model.name}: not enough memory to load it") from None
        except Exception as error:  # ONNX Runtime's own errors share no base class with a name
            raise ModelRejectedError(f"{model.name}: ONNX Runtime refuses it: {_first_line(error)}") from None


class OnnxRuntimeSession:
    """One model, loaded; see `Session`."""

    def __init__(self, runtime: OnnxRuntimeCpu, model: Path) -> None:
        self._runtime = runtime
        self._model = model
        self._session: Any = runtime.load(model)
        for value in self._session.get_inputs():
            if not all(isinstance(size, int) for size in value.shape):
                raise ModelRejectedError(f"{model.name}: the input {value.name} has no fixed shape; export it with one")
        self._inputs = {
            value.name: np.random.default_rng(0).random(value.shape, dtype=np.float32)
            for value in self._session.get_inputs()
        }

    def time(self, runs: int) -> FloatArray:
        """Milliseconds of `runs` inferences; see `Session.time`."""
        return self._time(self._session, runs)

    def profile(self, runs: int) -> tuple[LayerTime, ...]:
        """Median time of every layer; see `Session.profile`."""
        import onnx  # noqa: PLC0415

        with TemporaryDirectory(prefix="scaler-") as folder:
            session = self._runtime.load(self._model, profile_in=Path(folder))
            self._time(session, WARM_UP_RUNS + runs)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            optimised = onnx.load(str(Path(folder) / "optimised.onnx"), load_external_data=False)
        original = onnx.load(str(self._model), load_external_data=False)
        owners = _owners(optimised, _names(original))
        layers = []
        for name, event in _timed(events, WARM_UP_RUNS).items():
            layers.append(LayerTime(name, event.ms, owners.get(name, ()), event.kind))
        return tuple(layers)

    def _time(self, session: Any, runs: int) -> FloatArray:
        samples = np.empty(runs)
        try:
            for index in range(runs):
                start = perf_counter()
                session.run(None, self._inputs)
                samples[index] = perf_counter() - start
        except MemoryError:
            raise RuntimeFailedError(f"{self._model.name}: not enough memory to run it") from None
        except Exception as error:  # see `load`
            raise RuntimeFailedError(f"{self._model.name}: ONNX Runtime failed: {_first_line(error)}") from None
        return samples * 1e3

    def close(self) -> None:
        """Release the model."""
        self._session = None

    def __enter__(self) -> Self:
        """Close at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class _Event(NamedTuple):
    kind: str
    ms: float


def _timed(events: Iterable[dict[str, Any]], skipped: int) -> dict[str, _Event]:
    """Time of each node in ms, in execution order: the lower quartile over the inferences.

    What disturbs a node slows it; the lower quartile is that of a quiet machine even where it is busy half of the time.

    Args:
        events: Of the profile.
        skipped: Inferences at the beginning that only warm up.
    """
    times: dict[str, list[float]] = defaultdict(list)
    kinds: dict[str, str] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith(_SUFFIX):
            name = name.removesuffix(_SUFFIX)
            times[name].append(float(event["dur"]) * 1e-3)
            kinds[name] = str(event["args"]["op_name"])
    quiet = {name: float(np.percentile(samples[skipped:], 25)) for name, samples in times.items()}
    return {name: _Event(kinds[name], ms) for name, ms in quiet.items()}


def _names(model: ModelProto) -> set[str]:
    """Names of all nodes and of the tensors that they make, but for those around 8-bit integers."""
    nodes = [node for node in model.graph.node if node.op_type not in _NUMBERS]
    return {name for node in nodes for name in (node.name, *node.output) if name}


def _owners(optimised: ModelProto, known: set[str]) -> dict[str, tuple[str, ...]]:
    """For each node of the optimised graph the nodes and tensors of the original that it works for."""
    nodes = optimised.graph.node
    makes = {output: node.name for node in nodes for output in node.output}
    reads: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        for value in node.input:
            reads[value].append(node.name)
    kinds = {node.name: node.op_type for node in nodes}
    sources = {node.name: [makes[value] for value in node.input if value in makes] for node in nodes}
    targets = {node.name: [name for value in node.output for name in reads[value]] for node in nodes}
    owners: dict[str, tuple[str, ...]] = {}
    for node in nodes:
        plain = [name for name in (*node.output, _known_part(node.name, known)) if name in known]
        if node.op_type == _TO_PLAIN:
            plain = [_known_part(reader, known) for reader in reads[node.output[0]][:1]] or plain
        elif node.op_type == _FROM_PLAIN:
            plain = [_known_part(makes.get(node.input[0], ""), known)]
        elif node.op_type in _CARRIERS and not plain:
            client = _beyond(node.name, targets, kinds) or _beyond(node.name, sources, kinds)
            plain = [_known_part(client, known)]
        owners[node.name] = tuple(dict.fromkeys(name for name in plain if name in known))
    return owners


def _beyond(name: str, steps: Mapping[str, Sequence[str]], kinds: Mapping[str, str]) -> str:
    """The nearest node that is no carrier, the first wherever there are several; blank where the graph ends."""
    while steps[name]:
        name = steps[name][0]
        if kinds[name] not in _CARRIERS:
            return name
    return ""


def _known_part(name: str, known: set[str]) -> str:
    """The longest beginning of a node's name that names something in the original; fusions append to names."""
    for end in range(len(name), 0, -1):
        if name[:end] in known:
            return name[:end]
    return ""


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
