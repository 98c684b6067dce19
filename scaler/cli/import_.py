"""`scaler import`: what a bundle for deployment brought back from a device."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from scaler.cli.options import Json, console, print_json, say

if TYPE_CHECKING:
    from scaler.deploy.bundle_import import Imported
    from scaler.search.result import Interval

Results = Annotated[Path, typer.Argument(help="results.tar.gz of the device, or its folder of results.")]
Result = Annotated[
    Path | None,
    typer.Option("--result", help="The pareto.json of the search: measured stands beside predicted, and is recorded."),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="The data.toml of the bundle: the engine's accuracy on its pictures.")
]
Model = Annotated[
    Path | None,
    typer.Option("--model", help="The ONNX file of the bundle, to be judged by ONNX Runtime on the same pictures."),
]
Device = Annotated[
    str | None, typer.Option("--device", "-d", help="Device of the result; the one that measured otherwise.")
]
CandidateId = Annotated[
    str | None, typer.Option("--candidate", help="Id of the candidate; what the bundle says otherwise.")
]
NoRecord = Annotated[
    bool, typer.Option("--no-record", help="Change neither pareto.json nor what the latency table learns.")
]


class Line(NamedTuple):
    """A figure, predicted and measured."""

    name: str
    unit: str
    digits: int
    predicted: Interval | None
    measured: float | None


def command(
    results: Results,
    result: Result = None,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    candidate: CandidateId = None,
    no_record: NoRecord = False,
    json_output: Json = False,
) -> None:
    """Read what the bundle of a trained network measured on its device, and put it beside what was predicted.

    Time, power and accuracy are of the one engine that was built there. With --result they are recorded in pareto.json,
    and the latency table of the device learns from them. `scaler export --bundle` writes such a bundle.

    Example: scaler import results.tar.gz --result results/nano/pareto.json --data data.toml
    """
    from scaler.deploy.bundle_import import ImportOrder, import_results  # noqa: PLC0415  (the help needs no numpy)

    imported = import_results(
        ImportOrder(
            results=results,
            result=result,
            device=device,
            candidate=candidate,
            data=data,
            model=model,
            record=not no_record,
        )
    )
    if json_output:
        print_json(_as_data(imported))
    else:
        _print(imported)
    for path in imported.recorded:
        say(f"scaler: recorded in {path}")
    for problem in imported.problems:
        say(f"scaler: left out: {problem}")


def _lines(imported: Imported) -> Iterator[Line]:
    """The figures that are known."""
    measured, place = imported.measured, imported.place
    candidate = None if place is None else place.candidate
    yield Line("engine", "ms", 2, candidate.engine_ms if candidate else None, measured.level_ms)
    yield Line("  as timed, median", "ms", 2, None, measured.engine_ms)
    yield Line("  99th percentile", "ms", 2, None, measured.engine_p99_ms)
    if measured.energy_mj is not None or (candidate and candidate.energy_mj):
        yield Line("energy a frame", "mJ", 1, candidate.energy_mj if candidate else None, measured.energy_mj)
    if measured.memory_mib is not None:
        yield Line("memory of the engine", "MiB", 0, None, measured.memory_mib)
    if imported.judged is None:
        return
    metric = "" if place is None else place.result.metric.casefold()
    same = metric.rpartition(" ")[0] == measured.dataset.casefold()
    for kind, value in (("AP", measured.ap), ("AP50", measured.ap50)):
        predicted = candidate.ap if candidate and same and metric.rpartition(" ")[2] == kind.casefold() else None
        yield Line(f"{measured.dataset} {kind}", "", 1, predicted, value)


def _print(imported: Imported) -> None:
    from rich.table import Table  # noqa: PLC0415

    measured, facts, screen = imported.measured, imported.facts, console()
    dla = ""
    if facts.dla is not None:
        told = facts.dla_layers is not None
        counts = f": {facts.dla_layers} layers there, {facts.gpu_layers} on the GPU" if told else ""
        dla = f", DLA core {facts.dla}{counts}, {len(facts.fallback)} of the network fell back"
    screen.print(
        f"{facts.model} on {facts.gpu}: TensorRT {facts.tensorrt}, {facts.precision}{dla}, mode {measured.power_mode}, "
        f"built in {facts.build_seconds:.0f} s",
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("", "measured", "predicted", "90 % interval", "deviation"):
        table.add_column(heading, justify="left" if not heading else "right")
    for line in _lines(imported):
        table.add_row(*_cells(line))
    screen.print(table)
    for text in _remarks(imported):
        screen.print(text, markup=False, soft_wrap=True)


def _cells(line: Line) -> tuple[str, ...]:
    unit = f" {line.unit}" if line.unit else ""
    value = "" if line.measured is None else f"{line.measured:.{line.digits}f}{unit}"
    if line.predicted is None:
        return line.name, value
    mean, low, high = line.predicted.mean, line.predicted.low, line.predicted.high
    interval = f"{low:.{line.digits}f} to {high:.{line.digits}f}"
    return line.name, value, f"{mean:.{line.digits}f}{unit}", interval, _deviation(line)


def _deviation(line: Line) -> str:
    """How far the measurement is from the prediction: points of accuracy, percent of all else."""
    if line.predicted is None or line.measured is None:
        return ""
    inside = "" if line.predicted.low <= line.measured <= line.predicted.high else ", outside"
    if not line.unit:
        return f"{line.measured - line.predicted.mean:+.1f} points{inside}"
    return f"{100 * (line.measured / line.predicted.mean - 1):+.1f} %{inside}"


def _remarks(imported: Imported) -> Iterator[str]:
    """Sentences below the table."""
    measured, judged = imported.measured, imported.judged
    if imported.here is not None and judged is not None and imported.here.ap is not None and measured.ap is not None:
        here = 100 * imported.here.ap
        yield (
            f"the same file by ONNX Runtime here, on the same {judged.metrics.pictures} pictures: AP {here:.1f}; the "
            f"engine loses {here - measured.ap:+.2f} points"
        )
    if measured.promise is not None:
        word = "holds" if measured.holds else "BREAKS"
        yield (
            f"the promise of {1000 / measured.promise:g} FPS, {measured.promise:.1f} ms a frame, {word} for the engine "
            f"alone ({measured.whole_ms:.1f} ms); the whole frame was not measured"
        )
    if judged is None and imported.pictures:
        yield f"the bundle held {imported.pictures} pictures: --data data.toml tells the accuracy on them"
    if imported.place is None:
        yield "--result pareto.json puts it beside the prediction and records it"
    if imported.place is not None and imported.observed is None:
        yield "the latency table does not learn from it: another precision, a DLA or an NMS inside than it speaks of"
    for doubt in measured.warnings:
        if doubt not in imported.problems:
            yield f"note: {doubt}"


def _as_data(imported: Imported) -> dict[str, Any]:
    from dataclasses import asdict  # noqa: PLC0415

    place, here = imported.place, imported.here
    return {
        "device": None if place is None else place.device.device,
        "candidate": None if place is None else place.candidate.id,
        "measured": {**asdict(imported.measured), "holds": imported.measured.holds},
        "predicted": None
        if place is None
        else {
            "engine_ms": asdict(place.candidate.engine_ms),
            "ap": asdict(place.candidate.ap),
            "metric": place.result.metric,
            "energy_mj": place.candidate.energy_mj and asdict(place.candidate.energy_mj),
        },
        "engine": {**asdict(imported.facts), "memory": imported.facts.memory._asdict()},
        "layers": [layer._asdict() for layer in imported.measurement.layers],
        "accuracy": None if imported.judged is None else imported.judged.metrics.as_data(),
        "accuracy_by_onnxruntime": None if here is None else here.as_data(),
        "recorded": [str(path) for path in imported.recorded],
        "left_out": list(imported.problems),
    }
