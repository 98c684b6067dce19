"""`scaler train`: trains a network, or the winners of a search, on the user's data."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaler.cli.options import Json, console, print_json, say
from scaler.errors import UsageError

if TYPE_CHECKING:
    from scaler.training.loop.events import Report
    from scaler.training.runs.order import Order
    from scaler.training.runs.run import Trained
    from scaler.training.runs.winners import FrontOutcome

Network = Annotated[
    str | None,
    typer.Argument(
        help="A pareto.json (with --pick), a published model (YOLO-ReT-M0.75@320, yolov4-tiny@416) or parameters "
        "(backbone=mobilenetv2,width=0.5,resolution=160).",
        show_default=False,
    ),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="data.toml of your data set, with train and val.", show_default=False)
]
Pick = Annotated[
    str, typer.Option("--pick", help="Of a pareto.json: best, knee, an id, or front (several, see --count).")
]
Device = Annotated[
    str | None, typer.Option("--device", "-d", help="Device whose front is meant; the first of the pareto.json else.")
]
Count = Annotated[
    int | None,
    typer.Option("--count", min=1, help="With --pick front: how many, spread over the front; all otherwise."),
]
Storage = Annotated[
    str | None,
    typer.Option("--storage", help="With --pick front: journal file or database through which workers share them."),
]
Retry = Annotated[bool, typer.Option("--retry", help="With --storage: train again what failed before.")]
Space = Annotated[
    str | None, typer.Option("--space", help="Search space of the parameters; the shipped one that has them otherwise.")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe", help="yolo-ret, scaled-yolov4, lw-retinanet, quick or a TOML file; that of the network otherwise."
    ),
]
ShowRecipe = Annotated[
    str | None, typer.Option("--show-recipe", help="Print a shipped recipe, to copy and change, and do nothing else.")
]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Scales all stages of the recipe to so many together.")]
Batch = Annotated[
    int | None, typer.Option("--batch", help="Pictures of a step, all GPUs together; what does not fit is accumulated.")
]
MicroBatch = Annotated[
    int | None,
    typer.Option(
        "--micro-batch", min=1, help="Most pictures at a time on one device; the rest of the batch is accumulated."
    ),
]
LearningRate = Annotated[
    float | None, typer.Option("--lr", help="Learning rate of the first stage; the others keep their ratio to it.")
]
Resolution = Annotated[
    int | None, typer.Option("--resolution", help="Side of the input in pixels, in place of the network's.")
]
Anchors = Annotated[
    str | None, typer.Option("--anchors", help="published, or k-means for your data; the recipe's choice otherwise.")
]
Pretrained = Annotated[
    str | None,
    typer.Option("--pretrained", help="Weights to start from: a name of `scaler weights list`, or a file."),
]
TransferBlocks = Annotated[
    int | None,
    typer.Option("--transfer-blocks", min=0, help="How many backbone blocks start from them; all otherwise."),
]
On = Annotated[str, typer.Option("--on", help="What computes: auto, cpu, cuda or cuda:<number>.")]
Precision = Annotated[
    str, typer.Option("--precision", help="auto, fp32, bf16 or fp16; auto is 16 bits on a GPU, fp32 on a CPU.")
]
Workers = Annotated[int | None, typer.Option("--workers", min=0, help="Processes that read pictures.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of everything random.")]
Minutes = Annotated[float | None, typer.Option("--minutes", help="Stop after this time, to be resumed.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of the run; runs/<network>-<data set> otherwise.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the unfinished run in the folder.")]

Cache = Annotated[bool, typer.Option("--cache", help="Keep decoded pictures in memory.")]
Compile = Annotated[bool, typer.Option("--compile", help="Translate the network by torch.compile.")]
SyncBatchNorm = Annotated[
    bool, typer.Option("--sync-batch-norm", help="With torchrun: normalise over the pictures of all processes.")
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard's event files.")]


def command(
    network: Network = None,
    data: Data = None,
    pick: Pick = "best",
    device: Device = None,
    count: Count = None,
    storage: Storage = None,
    retry: Retry = False,
    space: Space = None,
    recipe: Recipe = None,
    show_recipe: ShowRecipe = None,
    epochs: Epochs = None,
    batch: Batch = None,
    micro_batch: MicroBatch = None,
    lr: LearningRate = None,
    resolution: Resolution = None,
    anchors: Anchors = None,
    pretrained: Pretrained = None,
    transfer_blocks: TransferBlocks = None,
    on: On = "auto",
    precision: Precision = "auto",
    workers: Workers = None,
    cache: Cache = False,
    compile_network: Compile = False,
    sync_batch_norm: SyncBatchNorm = False,
    seed: Seed = 0,
    minutes: Minutes = None,
    out: Out = None,
    resume: Resume = False,
    tensorboard: TensorBoard = False,
    json_output: Json = False,
) -> None:
    """Train a network on your data, with the recipe of its paper.

    Several GPUs: torchrun --nproc-per-node 4 -m scaler train ...

    Example: scaler train results/nano/pareto.json --pick best --data data.toml --recipe quick
    """
    if show_recipe is not None:
        _show_recipe(show_recipe)
        return
    network, data = _required(network, data)
    from scaler.training.runs.order import Order  # noqa: PLC0415

    order = Order(
        data=data,
        recipe=recipe,
        epochs=epochs,
        batch=batch,
        micro_batch=micro_batch,
        lr=lr,
        resolution=resolution,
        anchors=anchors,
        pretrained=pretrained,
        transfer_blocks=transfer_blocks,
        on=on,
        precision=precision,
        workers=workers,
        cache=cache,
        compile=compile_network,
        sync_batch_norm=sync_batch_norm,
        seed=seed,
        minutes=minutes,
        tensorboard=tensorboard,
        command=shlex.join(["scaler", *sys.argv[1:]]),
    )
    if pick == "front":
        _front(order, network, out, device, count, storage, retry=retry, json_output=json_output)
        return
    _one(order, network, pick, device, space, out, resume=resume, json_output=json_output)


def _show_recipe(name: str) -> None:
    from scaler.training.recipe import recipe_text  # noqa: PLC0415

    sys.stdout.write(recipe_text(name))


def _required(network: str | None, data: Path | None) -> tuple[str, Path]:
    """What cannot be left out; torch neither."""
    if network is None or data is None:
        missing = "what? name a pareto.json or a model" if network is None else "on what? give --data data.toml"
        raise UsageError(f"train {missing}; scaler train --help")
    from scaler.training import require_torch  # noqa: PLC0415

    require_torch()
    return network, data


def _one(
    order: Order, network: str, pick: str, device: str | None, space: str | None, out: Path | None,
    *, resume: bool, json_output: bool,
) -> None:  # fmt: skip
    from scaler.training.runs.run import Naming, train_named  # noqa: PLC0415

    naming = Naming(network, pick=pick, device=device, space=space)
    trained = train_named(order, naming, out, _screen, say, resume=resume)
    if trained is not None:  # else process 0 speaks
        _report(trained, network, json_output=json_output)


def _front(
    order: Order, network: str, out: Path | None, device: str | None, count: int | None, storage: str | None,
    *, retry: bool, json_output: bool,
) -> None:  # fmt: skip
    from scaler.training.runs.run import default_folder, train_front  # noqa: PLC0415

    if not network.endswith(".json"):
        raise UsageError(f"--pick front is for the pareto.json of a search, not for {network}")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("--pick front trains one network per process: start workers with --storage, not torchrun")
    folder = out or default_folder("front", order.data)
    outcome = train_front(
        order, Path(network), folder, _screen, say, device=device, count=count, storage=storage, retry=retry
    )
    if json_output:
        print_json({"runs": [row.run.as_data() for row in outcome.rows if row.run is not None]})
    else:
        _print_front(outcome)
        say(f"runs: {folder}/, recorded in {network}")
    if outcome.interrupted:
        say("scaler: interrupted; the same command goes on where it stopped")
    if outcome.interrupted or any(row.state == "failed" for row in outcome.rows):
        raise typer.Exit(1)


@contextmanager
def _screen() -> Iterator[Report]:
    """A bar on a terminal, otherwise a line an epoch."""
    from scaler.training.runs.progress import Bar, Lines  # noqa: PLC0415

    if not sys.stderr.isatty():
        yield Lines()
        return
    with Bar(console(stderr=True)) as bar:
        yield bar


def _report(trained: Trained, network: str, *, json_output: bool) -> None:
    run = trained.run
    if json_output:
        print_json({**run.as_data(), "folder": str(trained.folder)})
    elif run.metrics is not None:
        _print_run(trained)
    if not run.finished:
        way = "go on with the same command and --resume" if trained.saved else "nothing was saved yet: begin anew"
        say(f"scaler: stopped ({trained.reason}); {way}")
        raise typer.Exit(1)
    if not json_output:
        best = shlex.quote(str(trained.folder / run.checkpoint))
        say(f"run: {trained.folder}/")
        say(f"next: scaler evaluate {best} --data DATA_TOML")
        say(f"      scaler predict {best} PICTURES")
        if run.candidate:
            result = shlex.quote(network)
            say(f"      scaler verify {result} --pick {shlex.quote(run.candidate)} --data DATA_TOML  # on the device")


def _print_run(trained: Trained) -> None:
    """Measured accuracy beside the predicted one, and by class."""
    from rich.table import Table  # noqa: PLC0415

    run, screen = trained.run, console()
    assert run.metrics is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("accuracy")
    table.add_column("AP50", justify="right")
    table.add_column("AP", justify="right")
    table.add_column("on")
    if (told := run.predicted) is not None:
        value = f"{told.mean:.1f} ({told.low:.1f} to {told.high:.1f})"
        cells = ("", value) if told.metric.endswith(" AP") else (value, "")
        table.add_row("predicted", *cells, f"{told.dataset}, {told.metric}")
    table.add_row("measured", f"{run.metrics.ap50:.1f}", f"{run.metrics.ap:.1f}", f"{run.dataset}, validation pictures")
    screen.print(table)
    if told is not None and told.dataset != run.dataset:
        screen.print(f"The prediction is for {told.dataset}: compare the order of networks, not the numbers.")
    if len(run.class_ap50) > 1:
        classes = sorted(run.class_ap50.items(), key=lambda item: -item[1])
        shown = [f"{name} {ap:.1f}" for name, ap in classes]
        middle = ["…"] if len(shown) > 8 else []
        screen.print("AP50 by class: " + ", ".join(shown if not middle else [*shown[:4], *middle, *shown[-4:]]),
                     markup=False)  # fmt: skip


def _print_front(outcome: FrontOutcome) -> None:
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("candidate", "fps", "predicted", "measured AP50", "measured AP", "state"):
        table.add_column(heading, justify="left" if heading in ("candidate", "state") else "right")
    for row in outcome.rows:
        metrics: Any = row.run.metrics if row.run else None
        measured = (f"{metrics.ap50:.1f}", f"{metrics.ap:.1f}") if metrics else ("", "")
        state = f"{row.state}: {row.reason}" if row.reason else row.state
        table.add_row(row.candidate.id, f"{row.candidate.fps.mean:.1f}", f"{row.candidate.ap.mean:.1f}", *measured,
                      state)  # fmt: skip
    console().print(table)
