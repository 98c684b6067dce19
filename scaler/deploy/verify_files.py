"""Which file stands for a candidate: the one that is named, that of its training run, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from scaler.accuracy.runs import Run, read_runs
from scaler.errors import FileError, UsageError
from scaler.evaluation.onnx_metadata import KEY, OnnxMetadata, read_metadata
from scaler.models.detectors.families import Config, family_of, parameters_of
from scaler.runtimes.engine_facts import SUFFIX, read_engine_facts
from scaler.runtimes.onnx_facts import load_model
from scaler.search.precision import network_params
from scaler.search.result import Candidate, SearchResult
from scaler.space_file import read_space

__all__ = ["Subject", "check_network", "configurations", "metadata_of", "subjects"]

_ANY_CLASSES = 1
_PLAIN = "best.onnx"
_SUFFIXES = (".onnx", SUFFIX)


class Subject(NamedTuple):
    """A candidate and the file that stands for it."""

    candidate: Candidate
    model: Path | None
    """None: made-up weights, which have a time but find nothing."""
    missing: Path | None = None
    """The file that its latest run lacks; None where it has it, or was not trained."""


def configurations(result: SearchResult, candidates: Sequence[Candidate]) -> dict[str, Config]:
    """Configuration of each candidate of a result by its id, for any number of classes.

    Raises:
        UserError: The search space has gone, or is another one by now.
    """
    space = read_space(result.space)
    return {one.id: space.configure(space.canonical(network_params(one.params)), _ANY_CLASSES) for one in candidates}


def subjects(
    candidates: Sequence[Candidate],
    precision: str,
    configs: Mapping[str, Config],
    home: Path,
    *,
    model: Path | None = None,
    runs: Path | None = None,
) -> tuple[Subject, ...]:
    """The file of every candidate: `model`, else of its latest run in `runs`, else of those that the result names.

    Args:
        candidates: Of a search.
        precision: Of the device's result.
        configs: Configuration of each candidate by its id; the number of classes does not matter.
        home: Folder of the `pareto.json`, to which the runs that it names are relative.
        model: Of the only candidate.
        runs: Folder of runs.

    Raises:
        UsageError: A model for several candidates, of another network, or neither an ONNX file nor an engine.
        FileError: A file or folder that is named is missing or damaged.
    """
    if model is not None:
        if len(candidates) != 1:
            raise UsageError(f"--model {model} is one network, --pick names {len(candidates)}: give one id, or --runs")
        if model.suffix.lower() not in _SUFFIXES:
            todo = f"; name the {_PLAIN} beside it, or write one with scaler export {model}"
            raise UsageError(f"--model {model}: .onnx and .engine files are verified{todo}")
        if not model.is_file():
            raise FileError(model, "", "is a folder" if model.is_dir() else "no such file", todo="check the path")
        check_network(model, metadata_of(model), candidates[0], configs[candidates[0].id])
        return (Subject(candidates[0], model),)
    known = {} if runs is None else read_runs(runs)
    return tuple(
        _subject(one, _folders(one, configs[one.id], home, known, runs), one.precision or precision)
        for one in candidates
    )


def _folders(
    candidate: Candidate, config: Config, home: Path, known: Mapping[Path, Run], runs: Path | None
) -> list[Path]:
    """Folders of the finished runs of a candidate, the latest first."""
    if runs is None:
        return [home / run.run for run in reversed(candidate.trained)]
    wanted = family_of(config).name, parameters_of(config)
    mine = [
        (run.created, folder)
        for folder, run in known.items()
        if run.finished and (run.family, parameters_of(run.config)) == wanted
    ]
    return [folder for _, folder in sorted(mine, reverse=True)]


def _subject(candidate: Candidate, folders: Sequence[Path], precision: str) -> Subject:
    """The exported file of the precision, else the plain one, which INT8 cannot be made of without calibration."""
    names = [f"best-{precision}.onnx", *([_PLAIN] if precision != "int8" else [])]
    wanted = [folder / name for folder in folders for name in names]
    found = next((path for path in wanted if path.is_file()), None)
    missing = folders[0] / names[-1] if folders and found is None else None
    return Subject(candidate, found, missing)


def metadata_of(model: Path) -> OnnxMetadata:
    """What a file says of itself, without running it.

    Raises:
        UserError: It is missing or damaged, or no detector of scaler's.
        MissingExtraError: The package `onnx` is not installed.
    """
    if model.suffix.lower() == SUFFIX:
        text = read_engine_facts(model).metadata
        return read_metadata({KEY: text} if text else {}, model)
    loaded = load_model(model, "reading ONNX files")
    return read_metadata({entry.key: entry.value for entry in loaded.metadata_props}, model)


def check_network(model: Path, metadata: OnnxMetadata, candidate: Candidate, config: Config) -> None:
    """Refuse a file of another network than the candidate.

    Raises:
        UsageError: It is of another one; the message names the first difference.
    """
    wanted: dict[str, object] = {"family": family_of(config).name, **parameters_of(config)}
    found: dict[str, object] = {"family": metadata.family, **metadata.parameters}
    for name, value in wanted.items():
        if name in found and found[name] != value:
            raise UsageError(
                f"{model} is another network than {candidate.id}: its {name} is {found[name]}, not {value}; "
                "name the file that was trained from this candidate"
            )
