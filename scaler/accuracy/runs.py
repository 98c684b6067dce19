"""A training run as its `result.json` tells it: the measured accuracy of a network on the user's own data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scaler.accuracy.prediction import METRIC_NAMES, Metric
from scaler.errors import FileError
from scaler.files import Reader, make_folder, read_json, write_atomic
from scaler.models.detectors.families import FAMILIES, Config

__all__ = ["KIND", "RESULT", "SCHEMA_VERSION", "Metrics", "Predicted", "Run", "read_run", "read_runs", "write_run"]

KIND = "scaler-run"
SCHEMA_VERSION = 1
RESULT = "result.json"
"""Name of the file in the run's folder."""
SPLITS = ("train", "val", "test")

Value = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Accuracy of the kept weights on the split that was evaluated, in points (0 to 100)."""

    ap: float
    """COCO's: mean over IoU 0.50 to 0.95."""
    ap50: float
    ap75: float
    voc_ap50_area: float
    """VOC's AP at IoU 0.5, area under the curve (2010 and later; YOLO-ReT's)."""
    voc_ap50_11: float
    """VOC's AP at IoU 0.5, mean of eleven points (2007)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What was predicted before training, in points, with its 90 % interval."""

    mean: float
    low: float
    high: float
    dataset: str
    """Which the prediction was for, not always the one trained on."""
    metric: str
    """As in the search's result: `VOC AP50`, `shapes AP50`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run. A run that did not finish may have no metrics yet."""

    candidate: str = ""
    """Id in the search's result; blank where the network is of no search."""
    family: str
    """Key of `scaler.models.detectors.families.FAMILIES`."""
    parameters: Mapping[str, Value]
    """Of the family's configuration, the number of classes apart."""
    classes: tuple[str, ...]
    dataset: str
    """Name of the data set, from `data.toml`."""
    split_sizes: Mapping[str, int] = field(default_factory=dict)
    """Pictures by split."""
    metrics: Metrics | None
    class_ap50: Mapping[str, float] = field(default_factory=dict)
    """AP50 in points by class; a class without an object in the split is not among them."""
    predicted: Predicted | None = None
    recipe: str
    """Its name; where it is no shipped one as it stands, with a digest of what it does: `quick+3f2a`."""
    epochs: int
    """That the schedule was made for."""
    seed: int
    pretrained: str = ""
    """Name and digest of the weights that the backbone started from, `best@1f3a9c0d`; blank for random ones."""
    seconds: float
    """Time of training, all sittings together."""
    created: str
    """When it ended: ISO 8601, UTC."""
    scaler_version: str
    checkpoint: str = "best.pt"
    """Name of the file with the kept weights, in the run's folder."""
    finished: bool = True
    """Whether it reached its last epoch."""

    @property
    def config(self) -> Config:
        """The family's configuration, for the classes of the run.

        Raises:
            UserError: A parameter is unknown or outside its range.
        """
        return FAMILIES[self.family].configure(**self.parameters, classes=len(self.classes))

    def figure(self, metric: Metric) -> float:
        """Measured AP or AP50 (COCO's) in points; only a run with metrics has one."""
        assert self.metrics is not None
        return self.metrics.ap if metric == "ap" else self.metrics.ap50

    def as_data(self) -> dict[str, Any]:
        """The run as its file has it, for `json`."""
        return {"kind": KIND, "schema_version": SCHEMA_VERSION, **asdict(self)}


def write_run(folder: Path | str, run: Run) -> Path:
    """Write `result.json` into a run's folder, whole or not at all, and return its path.

    Raises:
        UserError: The folder cannot be written to.
    """
    make_folder(folder)
    path = Path(folder) / RESULT
    write_atomic(path, json.dumps(run.as_data(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def read_run(path: Path | str) -> Run:
    """Read a run from its `result.json`, or from the folder that holds it.

    Raises:
        FileError: The file is missing, cut off or of another kind, or a figure lies outside its range; one line.
    """
    place = Path(path)
    reader = read_json(place / RESULT if place.is_dir() else place, schema_version=SCHEMA_VERSION)
    return run_from(reader)


def run_from(reader: Reader) -> Run:
    """Read a run from what `Run.as_data` gave.

    Raises:
        FileError: As `read_run`.
    """
    reader.choice("kind", (KIND,))
    reader.integer("schema_version", minimum=SCHEMA_VERSION, maximum=SCHEMA_VERSION)
    run = Run(
        candidate=_blank(reader, "candidate"),
        family=reader.choice("family", tuple(FAMILIES)),
        parameters=_parameters(reader.table("parameters")),
        classes=reader.strings("classes", at_least=1),
        dataset=reader.string("dataset"),
        split_sizes={split: _count(reader.table("split_sizes"), split) for split in _splits(reader)},
        metrics=None if reader.raw("metrics") is None else _metrics(reader.table("metrics")),
        class_ap50=_by_class(reader.table("class_ap50")),
        predicted=None if reader.raw("predicted") is None else _predicted(reader.table("predicted")),
        recipe=reader.string("recipe"),
        epochs=reader.integer("epochs", minimum=0),
        seed=reader.integer("seed"),
        pretrained=_blank(reader, "pretrained"),
        seconds=reader.number("seconds", minimum=0),
        created=_blank(reader, "created"),
        scaler_version=_blank(reader, "scaler_version"),
        checkpoint=_blank(reader, "checkpoint"),
        finished=reader.boolean("finished"),
    )
    reader.finish()
    if run.finished and run.metrics is None:
        raise reader.error("metrics", "a finished run without metrics", todo="evaluate it or train it again")
    return run


def read_runs(folder: Path | str) -> dict[Path, Run]:
    """Every run below a folder by its own folder, in the order of their paths.

    Raises:
        FileError: The folder is missing, or one of the files is malformed; one line that names it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileError(folder, "", "no such folder", "expected a folder of runs", "check the path")
    return dict(_found(root))


def _found(root: Path) -> Iterator[tuple[Path, Run]]:
    for path in sorted(root.rglob(RESULT)):
        yield path.parent, read_run(path)


def _metrics(reader: Reader) -> Metrics:
    names = ("ap", "ap50", "ap75", "voc_ap50_area", "voc_ap50_11")
    return Metrics(**{name: reader.number(name, minimum=0, maximum=100) for name in names})


def _predicted(reader: Reader) -> Predicted:
    mean, low, high = (reader.number(name, minimum=0, maximum=100) for name in ("mean", "low", "high"))
    if not low <= mean <= high:
        found, todo = f"found {low:g}, {mean:g}, {high:g}", "write the run again"
        raise reader.error("", found, "expected low <= mean <= high", todo)
    return Predicted(mean=mean, low=low, high=high, dataset=_blank(reader, "dataset"), metric=reader.string("metric"))


def _parameters(reader: Reader) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for key in reader.keys:
        value = reader.raw(key)
        if not isinstance(value, str | int | float):
            raise reader.error(key, "found no parameter value", "expected a text, a number, true or false")
        found[key] = value if isinstance(value, str | bool) else _finite(reader, key)
    return found


def _finite(reader: Reader, key: str) -> int | float:
    value = reader.number(key)
    return reader.integer(key) if isinstance(reader.raw(key), int) else value


def _splits(reader: Reader) -> tuple[str, ...]:
    table = reader.table("split_sizes")
    return tuple(split for split in SPLITS if split in table.keys)


def _count(reader: Reader, key: str) -> int:
    return reader.integer(key, minimum=0)


def _by_class(reader: Reader) -> dict[str, float]:
    return {key: reader.number(key, minimum=0, maximum=100) for key in reader.keys}


def _blank(reader: Reader, key: str) -> str:
    """A text that may be blank."""
    value = reader.raw(key)
    return value if isinstance(value, str) and not value.strip() else reader.string(key)


def metric_name(dataset: str, metric: Metric) -> str:
    """A figure as results name it: `shapes AP50`."""
    return f"{dataset} {METRIC_NAMES[metric]}"
