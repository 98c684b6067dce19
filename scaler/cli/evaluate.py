"""`scaler evaluate`: a trained network on labelled pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaler.cli.options import Json, console, measuring, print_json, say
from scaler.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from scaler.data.dataset import Dataset
    from scaler.evaluation.evaluate import Progress
    from scaler.evaluation.metrics import Metrics, Skipped

Model = Annotated[Path, typer.Argument(help="The best.pt or best.onnx of a training run, or a TensorRT .engine.")]
Device = Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda or cuda:<number>.")]
Half = Annotated[bool, typer.Option("--half", help="Compute in 16 bits, on a GPU.")]
_SHOWN = 5
"""Broken files that are named one by one."""


def command(
    model: Model,
    data: Annotated[Path | None, typer.Option("--data", help="The data.toml.")] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    confidence: Annotated[
        float | None,
        typer.Option(
            "--confidence",
            min=0,
            max=1,
            help="Least score of a detection; as in its training by default, or 0.001: low, to compute AP.",
        ),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(
            "--iou",
            min=0,
            max=1,
            help="Overlap above which the worse of two boxes is dropped; as in its training by default, or 0.65.",
        ),
    ] = None,
    max_detections: Annotated[
        int | None,
        typer.Option("--max-detections", min=1, help="Most of a picture; as in its training by default, or 300."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures at a time.")] = 16,
    device: Device = "auto",
    half: Half = False,
    json_output: Json = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write everything as a JSON file, curves too.")] = None,
) -> None:
    """Judge a trained network by average precision: COCO's twelve numbers, VOC's AP50 by both conventions, by class.

    Example: scaler evaluate runs/best/best.pt --data data.toml --split test
    """
    if data is None:
        raise UsageError("on which pictures? give for instance --data data.toml")
    from scaler.evaluation.detections import Selection  # noqa: PLC0415
    from scaler.evaluation.evaluate import evaluate  # noqa: PLC0415  (the help needs no numpy)
    from scaler.training.network.loading import load_detector  # noqa: PLC0415

    dataset = _split(data, split)
    _tell_findings(dataset)
    detector = load_detector(model, device, half=half)
    trained = detector.selection or Selection()
    selection = Selection(
        confidence=trained.confidence if confidence is None else confidence,
        iou=trained.iou if iou is None else iou,
        most=max_detections or trained.most,
    )
    with in_tenths("evaluating") as progress:
        metrics = evaluate(detector, dataset, selection, batch=batch, progress=progress)
    tell_broken(metrics.skipped, len(dataset.pictures))
    if json_output:
        print_json(metrics.as_data())
    else:
        _print(metrics)
    if out is not None:
        _write(metrics, out)


def _split(data: Path, name: str) -> Dataset:
    from scaler.data.data_file import read_splits  # noqa: PLC0415
    from scaler.data.dataset import SPLITS  # noqa: PLC0415

    for split in SPLITS:
        if split == name:
            return read_splits(data, [split]).splits[split]
    raise UsageError(f"--split: {unknown_name('split', name, SPLITS)}")


def _tell_findings(dataset: Dataset) -> None:
    """Say what reading the labels left out, on standard error."""
    for finding in dataset.findings:
        if finding.meaning.severity != "note":
            title, consequence = finding.meaning.title, finding.meaning.consequence
            say(f"scaler: {dataset.split}: {len(finding.places)} {title}: {consequence}; see `scaler data check`")


@contextmanager
def in_tenths(what: str) -> Iterator[Progress | None]:
    """A progress bar; ten lines or fewer where standard error is no terminal."""
    with measuring(what) as progress:
        if sys.stderr.isatty():
            yield progress
            return
        told = 0

        def update(done: int, total: int, word: str) -> None:
            nonlocal told
            tenths = 10 * done // max(total, 1)
            if progress and tenths > told:
                told = tenths
                progress(done, total, word)

        yield update


def tell_broken(broken: Iterable[Skipped], total: int) -> None:
    """Name files that could not be read on standard error."""
    rows = list(broken)
    for row in rows[:_SHOWN]:
        say(f"scaler: skipped {row.picture}: {row.reason}")
    if len(rows) > _SHOWN:
        say(f"scaler: skipped {len(rows)} of {total} in all; `scaler data check` lists them")


def _write(metrics: Metrics, path: Path) -> None:
    from scaler.files import write_atomic  # noqa: PLC0415

    write_atomic(path, json.dumps(metrics.as_data(), indent=2, allow_nan=False) + "\n")
    say(f"metrics: {path}")


def _print(metrics: Metrics) -> None:
    screen = console()
    rows = [
        (row.name, f"{row.objects:,}", *map(points, (row.ap, row.ap50, row.voc_ap50_area, row.voc_ap50_11)))
        for row in metrics.by_class
    ]
    voc = metrics.voc_ap50_area, metrics.voc_ap50_11
    total = ("all", f"{metrics.objects:,}", *map(points, (metrics.ap, metrics.ap50, *voc)))
    headings = ("class", "objects", "AP", "AP50", "VOC AP50", "VOC2007 AP50")
    _table(screen, headings, [*rows, total] if len(rows) > 1 else rows)
    screen.print()
    coco = metrics.coco
    sizes = ("all", "IoU 0.50", "IoU 0.75", "small", "medium", "large")
    _table(screen, ("average precision", *sizes), [("AP", *map(points, coco[:6]))])
    screen.print()
    counts = ("1 a class", "10 a class", "100 a class", "small", "medium", "large")
    _table(screen, ("average recall", *counts), [("AR", *map(points, coco[6:]))])
    screen.print()
    seconds = metrics.seconds
    share = " %, ".join(
        f"{name} {100 * part / (seconds.total or 1):.0f}"
        for name, part in zip(("reading", "network", "NMS"), seconds, strict=True)
    )
    screen.print(
        f"{metrics.dataset} {metrics.split}: {metrics.pictures:,} pictures, {metrics.detections:,} detections, "
        f"{metrics.pictures_per_second:.1f} pictures/s ({share} %)",
        markup=False,
    )


def points(fraction: float | None) -> str:
    """A fraction in percentage points; a dash where there is nothing to find."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def _table(screen: object, headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    assert isinstance(screen, Console)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == headings[0] else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    screen.print(table)
