"""`scaler verify`: the picks of a search, measured on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaler.cli.options import Json, measuring, print_json, say
from scaler.errors import UnsupportedError, UsageError, UserError

if TYPE_CHECKING:
    from scaler.data.dataset import Dataset
    from scaler.deploy.verify import Question, Row
    from scaler.deploy.verify_files import Subject
    from scaler.profiling.machine import Machine, Setting


def command(
    result: Annotated[Path, typer.Argument(help="The pareto.json of a search.")],
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Device of the result; the first otherwise.")
    ] = None,
    pick: Annotated[str, typer.Option("--pick", help="best, knee, front (all of it) or a candidate's id.")] = "best",
    model: Annotated[
        Path | None,
        typer.Option(
            "--model", "-m", help="The trained file of the pick, .onnx (INT8 too) or .engine; else that of its run."
        ),
    ] = None,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="Folder of training runs; else those that the result names.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="The data.toml: accuracy on its val split, and real frames.")
    ] = None,
    pictures: Annotated[
        int | None, typer.Option("--pictures", min=1, help="Take the accuracy of so many of its pictures only.")
    ] = None,
    runtime: Annotated[
        str, typer.Option("--runtime", help="auto, onnxruntime, tensorrt (in process) or trtexec.")
    ] = "auto",
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Do not write into pareto.json, its reports and the latency table.")
    ] = False,
    json_output: Json = False,
) -> None:
    """Build the picks of a search, measure them here, and print predicted beside measured: engine, frame, accuracy.

    Run it on the device itself. A pick that was trained is measured whole: decoding, letterbox, network, NMS, and with
    --data its accuracy, from the same file; another one by its engine time, with made-up weights.

    Example: scaler verify results/host/pareto.json --pick front --data data.toml
    """
    if model is not None and runs is not None:
        raise UsageError("--model and --runs both say which file: give one of them")
    if pictures is not None and data is None:
        raise UsageError("--pictures of what? give for instance --data data.toml")
    from scaler.cli.verify_print import as_data, print_rows  # noqa: PLC0415
    from scaler.deploy.verify import Question  # noqa: PLC0415
    from scaler.deploy.verify_files import configurations, subjects  # noqa: PLC0415
    from scaler.profiling.verify import chosen  # noqa: PLC0415
    from scaler.search.result_file import read_result  # noqa: PLC0415

    search = read_result(result)
    found, candidates = chosen(search, device, pick)
    configs = configurations(search, candidates)
    files = subjects(candidates, found.precision, configs, result.parent, model=model, runs=runs)
    question = Question(result=search, home=result, found=found, data=_val(data), pictures=pictures)
    rows, interrupted = _measured(question, files, runtime)
    measured = any(row.measured is not None for row in rows)
    if json_output:
        print_json(as_data(rows, search, found))
    else:
        print_rows(rows, search, found)
    if not no_record:
        _record(result, question, rows)
    if interrupted:
        say("scaler: interrupted" + ("; what was measured is recorded" if measured and not no_record else ""))
    if interrupted or any(row.failure for row in rows):
        raise typer.Exit(1)


def _val(data: Path | None) -> Dataset | None:
    if data is None:
        return None
    from scaler.data.data_file import read_splits  # noqa: PLC0415

    return read_splits(data, ["val"]).splits["val"]


def _measured(question: Question, files: tuple[Subject, ...], runtime: str) -> tuple[list[Row], bool]:
    """Rows of all candidates, those of one precision together, and whether Ctrl-C came before the last.

    A precision that cannot be measured at all is refused before anything is, or else fails beside what was measured.
    """
    from scaler.deploy.verify import Row, verify  # noqa: PLC0415
    from scaler.runtimes.power_find import find_power  # noqa: PLC0415

    groups: dict[str, list[Subject]] = {}
    for file in files:
        groups.setdefault(file.candidate.precision or question.found.precision, []).append(file)
    rows: list[Row] = []
    try:
        settings = [_setting(question, precision) for precision in groups]
        machines = [_machine(wanted, runtime) for wanted in settings]
        for wanted, machine, group in zip(settings, machines, groups.values(), strict=True):
            before = len(rows)
            try:
                with measuring("verifying") as progress:
                    asked = replace(question, power=find_power())
                    verify(asked, group, wanted, machine, done=rows.append, progress=progress)
            except UserError as error:
                if not rows:
                    raise
                rows += [Row(one.candidate, None, None, str(error)) for one in group[len(rows) - before :]]
    except KeyboardInterrupt:
        return rows, True
    return rows, False


def _machine(wanted: Setting, runtime: str) -> Machine:
    """What measures the device here; a device that is elsewhere is reached by a bundle of what was trained."""
    from scaler.profiling.machine import OtherComputerError, machine_for  # noqa: PLC0415

    try:
        return machine_for(wanted, runtime)
    except OtherComputerError as error:
        raise UnsupportedError(
            f"verify measures on the device itself: {error.reason}; run it there, or take what was trained there with "
            "scaler export --bundle and bring its measurements back with scaler import"
        ) from None


def _setting(question: Question, precision: str) -> Setting:
    from scaler.profiling.machine import setting  # noqa: PLC0415

    return setting(question.found.device, precision, question.found.power_mode)


def _record(path: Path, question: Question, rows: list[Row]) -> None:
    """Write what was measured into the result, its reports and the networks of the latency table."""
    from scaler.latency.observed import observed_path, record_observed  # noqa: PLC0415
    from scaler.report.recording import record_verified  # noqa: PLC0415

    measured = {row.candidate.id: row.measured for row in rows if row.measured is not None}
    if not measured:
        return
    record_verified(path, question.found.device, measured)
    say(f"recorded: {path} and the reports beside it")
    for precision in dict.fromkeys(one.candidate.precision or question.found.precision for one in rows):
        seen = [
            row.observed
            for row in rows
            if row.observed is not None and (row.candidate.precision or question.found.precision) == precision
        ]
        wanted = _setting(question, precision)
        try:
            place = observed_path(wanted.device.id, wanted.runtime, wanted.precision, wanted.mode.name)
            if seen:
                record_observed(place, seen)
                say(f"recorded: {place}; searches on {wanted.device.id} are corrected by it")
        except UserError as error:  # the measurements themselves are safe
            say(f"scaler: the latency table does not learn from it: {error}")
