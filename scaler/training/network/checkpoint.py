"""The files `last.pt` and `best.pt`: a network, its numbers, and what a run needs to go on.

Plain dictionaries, lists, numbers and tensors only, so that `torch.load` reads them with `weights_only=True` and
nothing in a file from elsewhere is run.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scaler.errors import FileError
from scaler.evaluation.detections import Selection
from scaler.files import write_atomic
from scaler.reader import Reader
from scaler.training.network.spec import NetworkSpec
from scaler.training.network.spec_data import read_spec, spec_data

KIND, SCHEMA_VERSION = "scaler-checkpoint", 1
_ANOTHER = "name a .pt file that scaler train wrote"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Where the weights of a checkpoint come from."""

    epoch: int
    """Finished epochs."""
    step: int
    """Finished steps of the optimiser."""
    ap: float | None
    """On the validation pictures, as `Metrics` tells it; None where these weights were not evaluated."""
    ap50: float | None
    recipe: str
    dataset: str
    seed: int
    scaler_version: str
    created: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """What a file holds."""

    spec: NetworkSpec
    state: Mapping[str, Tensor]
    """`state_dict` for inference: the moving average where there is one."""
    facts: Facts
    selection: Selection | None = None
    """Which boxes counted when `facts.ap` was computed; files of earlier versions do not tell."""
    progress: Mapping[str, Any] | None = None
    """Everything that a run needs to go on; None in `best.pt`."""


def write_checkpoint(path: Path | str, checkpoint: Checkpoint) -> None:
    """Write a whole file or leave the old one.

    Raises:
        UserError: It cannot be written.
    """
    content = io.BytesIO()
    data = {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "spec": spec_data(checkpoint.spec),
        "state": dict(checkpoint.state),
        "facts": asdict(checkpoint.facts),
        "selection": checkpoint.selection and asdict(checkpoint.selection),
        "progress": checkpoint.progress,
    }
    torch.save(data, content)
    write_atomic(path, content.getvalue())


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read a file, onto the CPU.

    Raises:
        FileError: It is missing, cut off, no checkpoint of scaler's, or of another version.
    """
    reader = Reader(_loaded(path), path)
    if reader.raw("kind", None) != KIND:
        raise FileError(path, "", "no checkpoint of scaler's", todo=_ANOTHER)
    if (version := reader.integer("schema_version")) != SCHEMA_VERSION:
        todo = "update scaler" if version > SCHEMA_VERSION else "train again"
        raise reader.error("schema_version", f"found {version}", f"this scaler reads {SCHEMA_VERSION}", todo)
    progress = reader.raw("progress", None)
    if progress is not None and not isinstance(progress, dict):
        raise reader.error("progress", "no table", todo=_ANOTHER)
    spec = read_spec(reader.table("spec"))
    facts = _facts(reader.table("facts"))
    return Checkpoint(spec=spec, state=_state(reader), facts=facts, selection=_selection(reader), progress=progress)


def load_into(module: nn.Module, checkpoint: Checkpoint, path: Path | str) -> None:
    """Fill the module of the checkpoint's graph.

    Raises:
        FileError: An array is missing, too many, or of another shape.
    """
    wanted, found = module.state_dict(), checkpoint.state
    for key in wanted.keys() ^ found.keys():
        what = "is missing" if key in wanted else "is none of the network's arrays"
        raise FileError(path, f"state.{key}", what, todo=_ANOTHER)
    for key, value in wanted.items():
        if value.shape != found[key].shape:
            shapes = f"has the shape {list(found[key].shape)}", f"the network's has {list(value.shape)}"
            raise FileError(path, f"state.{key}", *shapes, _ANOTHER)
    module.load_state_dict(found)


def _loaded(path: Path | str) -> dict[str, Any]:
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise FileError(path, "", "no such file", todo="check the path") from None
    except IsADirectoryError:
        raise FileError(path, "", "is a folder", "expected a checkpoint", "name a .pt file in it") from None
    except OSError as error:
        raise FileError(path, "", f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    except Exception:  # torch raises whatever its readers of zip files and pickles raise
        raise FileError(path, "", "no checkpoint, or cut off", todo=_ANOTHER) from None
    if not isinstance(data, dict):
        raise FileError(path, "", "no checkpoint of scaler's", todo=_ANOTHER)
    return data


def _state(reader: Reader) -> dict[str, Tensor]:
    state = reader.raw("state")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise reader.error("state", "not tensors by name", todo=_ANOTHER)
    return state


def _facts(reader: Reader) -> Facts:
    return Facts(
        epoch=reader.integer("epoch", minimum=0),
        step=reader.integer("step", minimum=0),
        ap=_ap(reader, "ap"),
        ap50=_ap(reader, "ap50"),
        recipe=reader.string("recipe"),
        dataset=reader.string("dataset"),
        seed=reader.integer("seed"),
        scaler_version=reader.string("scaler_version"),
        created=reader.string("created"),
    )


def _selection(reader: Reader) -> Selection | None:
    return None if reader.raw("selection", None) is None else Selection.read(reader.table("selection"))


def _ap(reader: Reader, key: str) -> float | None:
    return None if reader.raw(key, None) is None else reader.number(key)
