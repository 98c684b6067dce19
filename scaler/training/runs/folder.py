"""The folder of one training run: what it was told, on what it ran, what it made.

::

    config.json        network, recipe, data set, seed, command
    environment.json   versions, processors, threads
    metrics.csv        a row an epoch
    last.pt, best.pt   checkpoints
    best.onnx          the best weights for any runtime
    result.json        measured accuracy beside the predicted one (`scaler.accuracy.runs`)
    batch.png          an augmented training batch
    loss.png, ap.png, pr.png, predictions.png

A folder belongs to one configuration, and to one process at a time. A run that was interrupted is resumed or left
alone, never overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scaler.accuracy.runs import RESULT, read_run
from scaler.data.dataset import Splits
from scaler.errors import UserError
from scaler.files import make_folder, read_json, write_atomic
from scaler.locks import locked
from scaler.training.loop.differences import differences
from scaler.training.loop.plan import BEST, LAST
from scaler.training.network.spec import NetworkSpec
from scaler.training.network.spec_data import spec_data
from scaler.training.recipe import Recipe

CONFIG, ENVIRONMENT, METRICS = "config.json", "environment.json", "metrics.csv"
ONNX = "best.onnx"
PICTURES = ("batch.png", "loss.png", "ap.png", "pr.png", "predictions.png")
FILES = (CONFIG, ENVIRONMENT, METRICS, LAST, BEST, ONNX, RESULT, *PICTURES)
SCHEMA_VERSION = 1

IDENTITY = ("seed", "precision", "sync_batch_norm", "pretrained", "transfer_blocks", "dataset", "recipe", "network")
"""Sections of `config.json` that make the run what it is, causes before effects: the seed before the anchors, which are
clustered with it. The others may change when the run is resumed."""
_MOVABLE = ("dataset.file",)
_SHOWN = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """What a run is told."""

    network: NetworkSpec
    recipe: Recipe
    """With the stages as long as they shall be."""
    data: Splits
    seed: int
    precision: str
    sync_batch_norm: bool = False
    """Whether normalisations look at all processes' pictures."""
    pretrained: str = ""
    """Name and digest of the weights; blank for random ones."""
    transfer_blocks: int | None = None
    """Blocks of the backbone that are initialised from it; all where None."""
    device: str = "cpu"
    processes: int = 1
    micro_batch: int | None = None
    """Most pictures at a time on one device, as it was asked for."""
    candidate: str = ""
    """Id in a search's result, or the name of a published model."""
    command: str = ""

    def as_data(self) -> dict[str, Any]:
        """The content of `config.json`."""
        sizes = {split: len(found.pictures) for split, found in self.data.splits.items()}
        objects = {split: found.objects for split, found in self.data.splits.items()}
        data = {
            "schema_version": SCHEMA_VERSION,
            "command": self.command,
            "candidate": self.candidate,
            "network": spec_data(self.network),
            "recipe": asdict(self.recipe),
            "dataset": {
                "name": self.data.name,
                "file": str(self.data.file),
                "classes": self.data.classes,
                "pictures": sizes,
                "objects": objects,
            },
            "seed": self.seed,
            "precision": self.precision,
            "sync_batch_norm": self.sync_batch_norm,
            "pretrained": self.pretrained,
            "transfer_blocks": self.transfer_blocks,
            "device": self.device,
            "processes": self.processes,
            "micro_batch": self.micro_batch,
        }
        found: dict[str, Any] = json.loads(json.dumps(data))  # as it will be read back: lists for tuples
        return found


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A folder that this run may write into."""

    path: Path
    resumes: bool
    """Whether there is a checkpoint to go on from."""

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        return self.path / name


@contextmanager
def claim(path: Path, configuration: Configuration, *, resume: bool = False) -> Iterator[RunFolder]:
    """Make sure, before any work, that a run may use a folder; makes the folder and writes `config.json`.

    As long as the context lasts, the folder is this process' alone.

    Args:
        path: The folder.
        configuration: Of the run.
        resume: Whether to go on with the unfinished run that is there.

    Raises:
        UserError: The folder is read-only, or holds a run of another configuration, a finished or an unfinished one
            that is not to be resumed, or files of something else; or there is nothing to resume, or another process
            trains there.
    """
    _resumes(path, configuration, resume)  # before anything is made
    make_folder(path)
    with locked(path / LAST, patience_s=0, busy=f"another process is training in {path}; --out another folder"):
        resumes = _resumes(path, configuration, resume)  # again: another process may just have been here
        write_atomic(path / CONFIG, as_json(configuration.as_data()))
        yield RunFolder(path, resumes)


def same_configuration(path: Path, configuration: Configuration) -> None:
    """Make sure that the run in a folder is of this configuration, what may change when it is resumed apart.

    Raises:
        UserError: It is of another one, or of none that can be read; one line with what differs.
    """
    reader = read_json(path / CONFIG, schema_version=SCHEMA_VERSION)
    before, now = (_identity(get) for get in (reader.raw, configuration.as_data().get))
    for where, there, here in differences(before, now):
        if where not in _MOVABLE:
            found = f"{where} is {_shown(there)} there, {_shown(here)} here"
            raise UserError(f"{path} holds a run of another configuration: {found}; --out another folder")


def _resumes(path: Path, configuration: Configuration, resume: bool) -> bool:
    """Whether the folder's run is gone on with; otherwise it begins. Refuses what `claim` refuses."""
    begun = any((path / name).exists() for name in (LAST, BEST, RESULT))
    if not (begun and (path / CONFIG).exists()):
        if resume:
            raise UserError(f"{path} holds no run to resume; leave --resume away")
        if not (path / CONFIG).exists():  # a run of which nothing was saved may begin anew
            _check_free(path)
        return False
    same_configuration(path, configuration)
    if _finished(path):
        raise UserError(f"{path} holds this run, finished: scaler evaluate {path / BEST}, or --out another folder")
    if not (path / LAST).exists():
        raise UserError(f"{path} holds this run, unfinished and without its {LAST} to go on from; --out another folder")
    if not resume:
        raise UserError(f"{path} holds this run, unfinished: go on with --resume, or --out another folder")
    return True


def as_json(data: Mapping[str, Any]) -> str:
    """Plain data as the text of a file."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _check_free(path: Path) -> None:
    """Refuse a folder in which somebody else's files have our names."""
    taken = [name for name in FILES if (path / name).exists()]
    if taken:
        raise UserError(f"{path} has a {taken[0]} but no {CONFIG}, so it is no run's folder; --out another folder")


def _identity(get: Any) -> dict[str, Any]:
    return {section: get(section, None) for section in IDENTITY}


def _shown(value: Any) -> str:
    text = "absent" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _finished(path: Path) -> bool:
    return (path / RESULT).exists() and read_run(path).finished
