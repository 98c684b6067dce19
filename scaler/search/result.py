"""What a search found: the contract between the search, the reports and every later command.

`pareto.json` is this tree, written by `scaler.report.files` and read back by `scaler.search.result_file`.
Latencies are in milliseconds, memory in MiB, accuracy in AP50 percentage points.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SCHEMA_VERSION = 1

ParameterValue = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Interval:
    """A predicted number with its 90 % interval, both ends in the unit of the mean."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one part of a network (a stage, a block or a kernel kind) costs."""

    name: str
    ms: float
    """Milliseconds of the engine time."""
    macs: int
    memory_access_bytes: int
    params: int
    kernels: int
    """Number of kernel launches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """From where the engine time of a candidate comes: shares of the time that sum to 1."""

    table: float
    """Kernels found in the device's latency table."""
    model: float
    """Kernels predicted by the kernel model fitted on that device's measurements."""
    roofline: float
    """Kernels estimated from the data sheet only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What training a candidate brought: one finished run."""

    dataset: str
    """Name of the user's data set."""
    metric: str
    """Data set and figure to show beside the prediction: `shapes AP50`, `shapes AP`."""
    ap: float
    """Mean over IoU 0.50 to 0.95, in points."""
    ap50: float
    """At IoU 0.5, in points; by VOC's convention where the prediction is of VOC AP50, else by COCO's."""
    recipe: str
    epochs: int
    run: str
    """The run's folder, relative to that of `pareto.json` where it lies below it, else its name."""
    created: str
    """ISO 8601, UTC."""

    @property
    def value(self) -> float:
        """The figure that `metric` names."""
        return self.ap50 if self.metric.endswith("AP50") else self.ap

    def of(self, metric: str) -> bool:
        """Whether it is the figure that a search predicts: the same data set and metric, capitals apart."""
        return self.metric.casefold() == metric.casefold()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a candidate did on the device itself: one measurement of one file."""

    model: str
    """The file that was measured, relative to the folder of `pareto.json` where it lies below it; blank for the
    network with made-up weights, which has its time but no accuracy."""
    runtime: str
    """`onnxruntime` or `tensorrt`."""
    runtime_version: str
    precision: str
    power_mode: str
    engine_ms: float
    """Median of the raw samples of the engine alone, batch 1."""
    engine_p99_ms: float
    level_ms: float
    """The same at the speed that the machine had when the latency table was made; equal to `engine_ms` without one."""
    frame_ms: float | None = None
    """Median of the whole frame at that speed: decoding, letterbox, network, NMS; None where it was not measured."""
    parts_ms: dict[str, float] = field(default_factory=dict)
    """Medians of the frame's parts by name, in order: `decoding`, `letterbox`, `network`, `nms`."""
    dataset: str = ""
    """Of the pictures on which the accuracy was measured, with the same file and runtime; blank where it was not."""
    ap: float | None = None
    """Mean over IoU 0.50 to 0.95, in points."""
    ap50: float | None = None
    """At IoU 0.5, in points; by the convention of the search's metric."""
    energy_mj: float | None = None
    """Energy of a frame in millijoules, where the device tells."""
    memory_mib: float | None = None
    """Memory of the engine while it runs, where the runtime tells."""
    promise: float | None = None
    """Milliseconds that the target frame rate leaves; None where the search had no target."""
    warnings: tuple[str, ...] = ()
    created: str = ""
    """ISO 8601, UTC."""

    @property
    def whole_ms(self) -> float:
        """What is compared with the promise: the whole frame where it was measured, else the engine."""
        return self.level_ms if self.frame_ms is None else self.frame_ms

    @property
    def holds(self) -> bool | None:
        """Whether the promised frame rate was reached; None where none was promised."""
        return None if self.promise is None else self.whole_ms <= self.promise


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One network, scored for one device."""

    id: str
    """Short stable digest of the parameters (the same network has the same id on every device)."""
    params: dict[str, ParameterValue]
    """The active parameters of the search space, in the space's order."""
    ap: Interval
    ap_inside_support: bool
    ap_outside: tuple[str, ...]
    """Why the accuracy prediction is an extrapolation; empty where it is not."""
    ap_provenance: str = "calibrated"
    """Of the accuracy: `calibrated`, `estimated` where nobody published such a detector, or `measured` where the
    predictor was corrected by a run of this very network."""
    engine_ms: Interval
    """The network on the accelerator."""
    overhead_ms: float
    """Pre- and post-processing and host time, kept apart from the engine."""
    fps: Interval
    """1000 / (engine_ms + overhead_ms); `low` is the slow end."""
    reach_probability: float | None
    """Probability that the target frame rate is reached; None without a target."""
    parameters: int
    """Trainable and non-trainable parameters, batch normalisation included."""
    macs: int
    memory_access_bytes: int
    peak_activation_mib: float
    weights_mib: float
    provenance: str
    """Of the latency: `measured`, `calibrated` or `estimated`."""
    coverage: Coverage
    stages: tuple[Share, ...]
    """Cost by stage, in execution order."""
    kinds: tuple[Share, ...]
    """Cost by kernel kind, dearest first."""
    trained: tuple[Trained, ...] = ()
    """Its finished training runs, oldest first; they never replace `ap`, which stays the prediction."""
    precision: str = ""
    """Of its engine, where the search chose among several; blank for that of the device's result."""
    ap_loss: Interval | None = None
    """Points of accuracy that 8-bit integers are predicted to cost; contained in `ap`; None for FP32 and FP16."""
    energy_mj: Interval | None = None
    """Predicted energy of a frame in millijoules; None where the device's table tells none."""
    verified: tuple[Verified, ...] = ()
    """Its measurements on the device, oldest first; they never replace the predictions above."""

    @property
    def network(self) -> str:
        """Id of its network, whatever the precision: what a training run is of."""
        return self.id.removesuffix(f"-{self.precision}") if self.precision else self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A published model beside what scaler predicts for it."""

    name: str
    """For instance `YOLO-ReT-M0.75@320`."""
    source: str
    published_ap: float
    published_fps: float | None
    """None where the paper has no figure for this device."""
    predicted_ap: Interval
    predicted_fps: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Where a predictor comes from and how wrong it is, in words and figures for the reader."""

    name: str
    provenance: str
    fitted_on: str
    errors: dict[str, str]
    """Figure by name, ready to print: {"leave-one-out mean error": "3.7 %"}."""
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceResult:
    """The front of one device."""

    device: str
    """Short name: `nano`."""
    title: str
    """Full name: `Jetson Nano (MAXN, TensorRT FP16)`."""
    power_mode: str
    runtime: str
    precision: str
    """Of the engines; of those that say none of their own, where several were searched."""
    target_fps: float | None
    front: tuple[Candidate, ...]
    """Pareto-optimal feasible candidates, fastest first; thriftiest first where the energy was minimised."""
    pick: str | None
    """Id of the most accurate candidate of the front that reaches the target; None where none does."""
    knee: str | None
    """Id of the candidate with the best trade-off (largest distance to the chord of the front)."""
    message: str
    """One sentence: the pick, or what stands in the way and which candidate comes nearest."""
    nearest: Candidate | None
    """Where the target cannot be reached: the candidate that comes nearest to it."""
    references: tuple[Reference, ...]
    explored: tuple[tuple[float, float], ...]
    """Every evaluated candidate as (frame time in ms, AP), for the background of the plot; as (energy of a frame in mJ,
    AP) where the search minimised that."""
    latency_model: ModelCard


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Everything that `scaler search` found and how."""

    scaler_version: str
    created: str
    """ISO 8601, UTC."""
    command: str
    space: str
    space_size: int
    dataset: str
    metric: str
    """For instance `VOC AP50`."""
    sampler: str
    seed: int
    trials: int
    distinct: int
    """Distinct candidates among the trials."""
    study: str
    """Storage and name of the Optuna study."""
    limits: dict[str, float]
    """Constraints beside the frame rate: {"params": 5e6}."""
    noise_ap: float
    """AP differences below this are noise in the source data."""
    accuracy_model: ModelCard
    devices: tuple[DeviceResult, ...]
    classes: int = 0
    """Number of classes of the networks; 0 is that of the published data set."""
    accuracy_file: str = ""
    """The fit to the user's own runs that predicted the accuracy; blank for the published laws."""
    minimize: str = "latency"
    """The objective beside the accuracy: `latency` or `energy`."""
