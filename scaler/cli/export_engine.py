"""`scaler export`: the engine of a network, built here, told, or packed for a device that has trtexec alone."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scaler.cli.evaluate import in_tenths
from scaler.cli.export_options import OF_A_BUNDLE, OF_A_FILE, Given
from scaler.cli.export_report import Told, as_data, print_exported, show
from scaler.cli.options import print_json, say
from scaler.errors import UsageError, listed

if TYPE_CHECKING:
    from scaler.devices import Precision
    from scaler.runtimes.engine_facts import EngineFacts
    from scaler.runtimes.tensorrt_version import Version
    from scaler.training.runs.engine_command import EngineFile
    from scaler.training.runs.export import ExportOrder

_NOT_OF_THE_FILE = ("format_", "precision", "json_output")
"""Parameters that the ONNX file does not depend on, or that are told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineWish:
    """What a user wants of an engine."""

    version: Version
    """TensorRT of the target."""
    elsewhere: bool
    """Whether the user named that version: then nothing is built here."""
    precision: Precision
    dla: int | None
    bundle: Path | None
    bundle_pictures: int
    data: Path | None
    """Whose val pictures go into the bundle."""
    result: Path | None
    candidate: str | None


def told_command(order: ExportOrder, size: int, wish: EngineWish) -> Told | None:
    """How an engine is made of the file of an order; None of a file that TensorRT does not take."""
    from scaler.training.runs.engine_command import EngineFile  # noqa: PLC0415  (the help needs no numpy)

    if order.precision == "int8" and order.int8.target != "tensorrt":
        return None
    file = EngineFile(order.path, size, order.dynamic_batch, order.precision)
    return _told(file, wish, order.batch)


def of_file(path: Path, wish: EngineWish, batch: int, given: Given, json_output: bool) -> None:
    """The engine of an ONNX file that is there; refuses options that would change nothing."""
    from scaler.training.runs.engine_command import engine_precision, read_engine_file  # noqa: PLC0415

    allowed = (*OF_A_FILE, *(OF_A_BUNDLE if wish.bundle else ()))
    if strange := [words[0] for name, words in given.items() if name not in allowed]:
        raise UsageError(
            f"{path}: is an ONNX file already: {listed(strange)} would change nothing; name the best.pt of a "
            "training run, or leave that out"
        )
    file = read_engine_file(path)
    wish = replace(wish, version=_version(wish))
    built = engine_precision(file, wish.version, wish.precision)
    if "precision" in given and (wish.precision != built or (built == "int8") != (file.precision == "int8")):
        what = file.precision if built == "int8" else built
        raise UsageError(
            f"--precision {wish.precision}: an engine of {path.name} is {what} with TensorRT {wish.version.major}; "
            f"leave it out, or export the checkpoint with --precision {wish.precision}"
        )
    if "batch" in given and not file.dynamic:
        raise UsageError(
            f"--batch {batch}: the batch of {path.name} is fixed; leave it out, or export the checkpoint with it"
        )
    wish = replace(wish, precision=built)
    told = _told(file, wish, batch)
    if not _finished(path, wish, batch, {}, json_output):
        _tell(path, told, None, json_output)


def of_checkpoint(order: ExportOrder, wish: EngineWish, given: Given, json_output: bool) -> None:
    """The engine of a checkpoint: its ONNX file and what is made of that, or the steps to both."""
    from scaler.runtimes.tensorrt_version import STRONGLY_TYPED  # noqa: PLC0415
    from scaler.training.network.checkpoint import read_checkpoint  # noqa: PLC0415
    from scaler.training.runs.export import export  # noqa: PLC0415

    wish = replace(wish, version=_version(wish))
    typed = order.precision == "int8" or (wish.version >= STRONGLY_TYPED and order.precision == "fp16")
    file = order if typed else replace(order, precision="fp32")
    told = told_command(file, read_checkpoint(order.checkpoint).spec.preprocessing.size, wish)
    assert told is not None, "files for ONNX Runtime are refused before"
    if wish.bundle is None and not _builds_here(wish):
        options = {name: words for name, words in given.items() if name not in _NOT_OF_THE_FILE}
        if typed:
            options["precision"] = ["--precision", order.precision]
        words = [word for option in options.values() for word in option]
        _tell(file.path, told, shlex.join(["scaler", "export", str(order.checkpoint), *words]), json_output)
        return
    exported = export(file, in_tenths)
    if not json_output:
        print_exported(file, exported, None)
    _finished(file.path, wish, order.batch, as_data(file, exported), json_output)


def _version(wish: EngineWish) -> Version:
    """That the user named, or that is here; else the usual one."""
    from scaler.training.runs.engine_command import version_here  # noqa: PLC0415

    return version_here() if wish.bundle is None and _builds_here(wish) else wish.version


def _builds_here(wish: EngineWish) -> bool:
    from scaler.deploy.engine import why_not_here  # noqa: PLC0415

    return not wish.elsewhere and not why_not_here()


def _told(file: EngineFile, wish: EngineWish, batch: int) -> Told:
    from scaler.training.runs.engine_command import engine_command  # noqa: PLC0415

    command = engine_command(file, wish.version, precision=wish.precision, batch=batch, dla=wish.dla)
    return Told(wish.version, command)


def _finished(path: Path, wish: EngineWish, batch: int, data: dict[str, Any], json_output: bool) -> bool:
    """Pack or build where that is to be done; False where nothing is.

    Args:
        path: The ONNX file.
        wish: What is wanted.
        batch: The most pictures at a time.
        data: What is known of the file, for JSON.
        json_output: Whether that is wanted.
    """
    if wish.bundle is None and not _builds_here(wish):
        return False
    made = _packed(path, wish, wish.bundle) if wish.bundle is not None else _built(path, wish, batch)
    if json_output:
        print_json({"file": str(path), **data, **made.data})
    for line in () if json_output else made.lines:
        show(line)
    return True


class _Made(NamedTuple):
    """What became of an ONNX file."""

    data: dict[str, Any]
    lines: tuple[str, ...]


def _packed(path: Path, wish: EngineWish, out: Path) -> _Made:
    from scaler.deploy.bundle import write_bundle  # noqa: PLC0415

    summary = write_bundle(
        path,
        out,
        data=wish.data,
        pictures=wish.bundle_pictures,
        result=wish.result,
        candidate=wish.candidate,
        precision=wish.precision,
        dla=wish.dla,
        tensorrt=str(wish.version) if wish.elsewhere else None,
    )
    judged = f"{summary.pictures} pictures to judge it by" if summary.pictures else "no pictures: it is only timed"
    return _Made(
        {"bundle": {**summary._asdict(), "path": str(summary.path)}},
        (
            f"{summary.path}: {summary.packed_bytes / 1e6:.1f} MB, an engine in {summary.precision}, {judged}",
            f"unpack it on the device ({summary.unpacked_bytes / 1e6:.0f} MB, results up to about "
            f"{summary.result_bytes / 1e6:.0f} MB) and run ./measure.sh there; then here: {_back(path, wish)}",
        ),
    )


def _back(path: Path, wish: EngineWish) -> str:
    """The command for what the bundle brings back."""
    of_data = ["--data", str(wish.data), "--model", str(path)] if wish.data is not None else []
    of_result = ["--result", str(wish.result)] if wish.result is not None else []
    return shlex.join(["scaler", "import", "results.tar.gz", *of_result, *of_data])


def _built(path: Path, wish: EngineWish, batch: int) -> _Made:
    from scaler.deploy.engine import EngineOrder, build_engine  # noqa: PLC0415
    from scaler.runtimes.engine_facts import facts_path  # noqa: PLC0415

    say(f"scaler: building the engine of {path.name}; TensorRT tries many kernels, which takes minutes")
    made = build_engine(EngineOrder(model=path, precision=wish.precision, dla=wish.dla, batch=batch))
    facts = made.facts
    return _Made(
        {"engine": str(made.path), "facts": asdict(facts)},
        (
            f"{made.path}: TensorRT {facts.tensorrt} on {facts.gpu}, {facts.precision}, batch {facts.batch}, built in "
            f"{facts.build_seconds:.0f} s by {facts.built_by}; it runs with this TensorRT on this GPU alone, see "
            f"{facts_path(made.path).name}",
            *_placement(facts),
        ),
    )


def _placement(facts: EngineFacts) -> tuple[str, ...]:
    """Where the layers of an engine with a DLA run."""
    if facts.dla is None:
        return ()
    counts = (("on the DLA", facts.dla_layers), ("on the GPU", facts.gpu_layers))
    told = ", ".join(f"{count} layers {where}" for where, count in counts if count is not None)
    fallback = f"; the DLA does not take {listed(facts.fallback)}" if facts.fallback else ""
    return (f"DLA core {facts.dla}: {told or 'TensorRT did not tell which layers it computes'}{fallback}",)


def _tell(file: Path, told: Told, write: str | None, json_output: bool) -> None:
    """What is to be done for an engine: on standard output the steps, or the one command where the file is there."""
    from scaler.deploy.engine import why_not_here  # noqa: PLC0415

    if json_output:
        print_json({"file": str(file), "export": write, "tensorrt": told.as_data()})
        return
    version = f"{told.version.major}.{told.version.minor}"
    reason = f": {why}" if (why := why_not_here()) else ""
    say(f"scaler: an engine is built on its target and does not travel, so that none is built here{reason}")
    if write is None:
        say(f"scaler: copy {file} to the target; there, in its folder, with TensorRT {version}:")
        show(told.command)
        return
    show(f"1. here: {write}")
    show(f"2. copy {file} to the target")
    show(f"3. there, in its folder, with TensorRT {version}: {told.command}")
