"""Trains what a user orders: one network or several winners of a search, each into a folder of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple, TypeAlias

from torch import nn

import scaler
from scaler.accuracy.runs import Metrics as Points
from scaler.accuracy.runs import Run, write_run
from scaler.data.augment import Augmenter
from scaler.errors import UsageError, UserError
from scaler.evaluation.evaluate import evaluate
from scaler.evaluation.metrics import Metrics
from scaler.export import require_onnx
from scaler.files import read_json, read_toml, write_atomic
from scaler.report.recording import record
from scaler.search.result import Candidate
from scaler.training.loop.batches import batches
from scaler.training.loop.distributed import World, join
from scaler.training.loop.events import Outcome, Report, Silent
from scaler.training.loop.plan import LAST, TrainingPlan, check
from scaler.training.loop.train import train
from scaler.training.network.checkpoint import load_into, read_checkpoint
from scaler.training.network.detector import TorchDetector, checked_device
from scaler.training.network.module import to_torch, weights_of
from scaler.training.pretrained.weights import read_weights
from scaler.training.runs import winners
from scaler.training.runs.candidates import Named, of_search, one, picks
from scaler.training.runs.environment import differences, environment
from scaler.training.runs.folder import (
    ENVIRONMENT,
    ONNX,
    SCHEMA_VERSION,
    Configuration,
    RunFolder,
    as_json,
    claim,
    same_configuration,
)
from scaler.training.runs.logs import require_tensorboard
from scaler.training.runs.order import Order, Prepared, prepare, recipe_of, weights_label
from scaler.training.runs.progress import Several
from scaler.training.runs.recorder import Recorder, draw_batch, draw_precision_recall, draw_predictions

Screen: TypeAlias = Callable[[], AbstractContextManager[Report]]
"""Opens what shows a run to the user."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A run that ended, finished or interrupted."""

    run: Run
    folder: Path
    reason: str
    """Why it was interrupted; blank where it finished."""
    saved: bool = True
    """Whether there is a checkpoint; an interrupted run without one begins anew."""


def default_folder(name: str, data: Path) -> Path:
    """`runs/c4170b45-shapes`: of a network and a data set."""
    return Path("runs") / re.sub(r"[^A-Za-z0-9._@=+-]+", "-", f"{name}-{_data_name(data)}")


def _data_name(data: Path) -> str:
    return read_toml(data, schema_version=1).string("name", data.resolve().parent.name or "data")


class Naming(NamedTuple):
    """How a command line names a network, see `scaler.training.runs.candidates.one`."""

    network: str
    pick: str = "best"
    device: str | None = None
    space: str | None = None


def train_named(
    order: Order,
    naming: Naming,
    folder: Path | None,
    screen: Screen,
    tell: Callable[[str], None],
    *,
    resume: bool = False,
) -> Trained | None:
    """Train the network that a command line names, with the processes that torchrun has started.

    What a finished run reaches is recorded in the `pareto.json` that the network comes from.

    Args:
        order: How.
        naming: What.
        folder: Of the run; named after network and data set in `runs/` where None.
        screen: Shows the run to the user.
        tell: Told where the run cannot be recorded.
        resume: Whether to go on with the unfinished run in the folder.

    Returns:
        What process 0 has written; None in the others.

    Raises:
        UserError: It cannot be done.
    """
    device = str(checked_device(order.on, "--on"))
    with join(device, sync_batch_norm=order.sync_batch_norm) as world:
        named = one(naming.network, pick=naming.pick, device=naming.device, space=naming.space)
        if order.resolution not in (None, named.parameters["resolution"]):
            named = replace(named, name=f"{named.name}-{order.resolution}px", candidate="", predicted=None)
        place = folder or default_folder(named.name, order.data)
        trained = train_network(order, named, place, screen, world, resume=resume)
    if trained is not None and trained.run.finished and named.candidate:
        try:
            record(naming.network, trained.run, trained.folder)
        except UserError as error:  # the run itself is safe
            tell(f"scaler: not recorded: {error}")
    return trained


def train_network(
    order: Order, named: Named, folder: Path, screen: Screen, world: World | None = None, *, resume: bool = False
) -> Trained | None:
    """Train one network, or go on with it.

    Args:
        order: How.
        named: The network.
        folder: Of the run.
        screen: Shows the run to the user.
        world: The processes that train together; this one alone where None.
        resume: Whether to go on with the unfinished run in the folder.

    Returns:
        What the leading process has written; None in the others.

    Raises:
        UserError: It cannot be done; where the run had begun, its last checkpoint is kept.
    """
    world = world or World()
    with ExitStack() as held, screen() if world.leads else nullcontext(Silent()) as show:
        try:
            if order.tensorboard:
                require_tensorboard()
            prepared = prepare(order, named, folder, show.on_message, processes=world.size)
            check(prepared.plan, world.size)
            place = RunFolder(folder, resumes=False)
            if world.leads:
                place = held.enter_context(claim(folder, _configuration(order, named, prepared, world), resume=resume))
        except UserError as error:
            _give_up(world, error)
            return None
        if not _all_ready(world):
            return None
        plan = replace(prepared.plan, resume=world.broadcast_flag(place.resumes))
        if not world.leads:
            train(plan, world=world)
            return None
        title = f"{named.name} on {prepared.data.name}"
        _keep_environment(place, world, show)
        if not place.resumes:
            _show_batch(plan, title, place)
        with Recorder(place, title, tensorboard=order.tensorboard) as recorder:
            outcome = train(plan, Several(recorder, show), world=world)
            return _conclude(named, prepared, outcome, title, place, show)  # before the curves are drawn again


def _give_up(world: World, error: UserError) -> None:
    """Tell the other processes that this one cannot begin; of an error that all have, process 0 speaks."""
    _, leader_fails = world.broadcast_flag(True), world.broadcast_flag(world.leads)
    if world.leads or not leader_fails:
        raise error


def _all_ready(world: World) -> bool:
    """Whether all processes can begin; process 0 says where others cannot."""
    fails, leader_fails = world.broadcast_flag(False), world.broadcast_flag(False)
    if fails and world.leads and not leader_fails:
        raise UserError("another process could not begin; its own message tells why")
    return not fails


def train_front(
    order: Order,
    result: Path,
    folder: Path,
    screen: Screen,
    tell: Callable[[str], None],
    *,
    device: str | None = None,
    count: int | None = None,
    storage: str | None = None,
    retry: bool = False,
) -> winners.FrontOutcome:
    """Train winners of a search, one after the other, each in a folder of its own; what they reach is recorded.

    Args:
        order: How, for all of them.
        result: The `pareto.json`.
        folder: Of the runs; unfinished ones are gone on with.
        screen: Shows each run to the user.
        tell: Told what becomes of each.
        device: Whose front; the first where None.
        count: How many, spread over the front; all where None.
        storage: Journal file or database through which several workers share them.
        retry: Whether to try again what failed before; without a storage that is always done.

    Raises:
        UserError: The result has no such device, the order cannot be carried out with any candidate, or the storage
            cannot be used.
    """
    if order.resolution is not None:
        raise UsageError("--resolution makes other networks than those of the front: leave it away, or --pick one")
    search, found, _ = picks(result, "front", device)
    chosen = winners.winners(found, count)

    def check_same(candidate: Candidate, place: Path) -> None:
        named = of_search(search, candidate)
        prepared = prepare(order, named, place, lambda _: None)
        same_configuration(place, _configuration(order, named, prepared, World()))

    def train_one(candidate: Candidate, place: Path) -> Run:
        trained = train_network(order, of_search(search, candidate), place, screen, resume=(place / LAST).exists())
        assert trained is not None  # this process is alone
        return trained.run

    return winners.train_front(
        result,
        chosen,
        train_one,
        folder,
        check_same=check_same,
        storage=storage,
        study=_jobs(order, of_search(search, chosen[0]), folder),
        report=tell,
        retry=retry,
    )


def _jobs(order: Order, named: Named, folder: Path) -> str:
    """Name under which workers share the training: equal orders meet; another recipe or data set is other work.

    Args:
        order: How.
        named: Any network of the front, for the recipe of its family.
        folder: Of the runs.
    """
    what = (
        _data_name(order.data),
        recipe_of(order, named),
        order.epochs,
        weights_label(read_weights(order.pretrained)) if order.pretrained else "",
        order.transfer_blocks,
        order.precision,
        order.sync_batch_norm,
        order.best_by,
        order.seed,
    )
    return f"training-{folder.name}-{sha256(repr(what).encode()).hexdigest()[:8]}"


def _configuration(order: Order, named: Named, prepared: Prepared, world: World) -> Configuration:
    plan = prepared.plan
    return Configuration(
        network=plan.spec,
        recipe=plan.recipe,
        data=prepared.data,
        seed=plan.seed,
        precision=plan.precision,
        sync_batch_norm=order.sync_batch_norm,
        pretrained=prepared.pretrained,
        transfer_blocks=order.transfer_blocks,
        device=plan.device,
        processes=world.size,
        micro_batch=order.micro_batch,
        candidate=named.name,
        command=order.command,
    )


def _keep_environment(folder: RunFolder, world: World, show: Report) -> None:
    """Write `environment.json`; say what is different where a run goes on."""
    path, now = folder.file(ENVIRONMENT), environment(world.size)
    if folder.resumes and path.exists():
        reader = read_json(path, schema_version=SCHEMA_VERSION)
        before = {key: reader.raw(key) for key in reader.keys if key != "schema_version"}
        if changed := differences(before, now):
            show.on_message(f"not what the run began with, so its numbers may differ: {'; '.join(changed[:4])}")
    write_atomic(path, as_json({"schema_version": SCHEMA_VERSION, **now}))


def _show_batch(plan: TrainingPlan, title: str, folder: RunFolder) -> None:
    """Draw the first batch, made as the training makes it."""
    augmenter = Augmenter(plan.recipe.augmentation, plan.spec.preprocessing)
    source = batches(plan.train, augmenter, batch=min(12, plan.recipe.batch), seed=plan.seed)
    try:
        draw_batch(next(source.at(0)), plan.train.classes, title, folder)
    finally:
        source.close()


def _conclude(
    named: Named, prepared: Prepared, outcome: Outcome, title: str, folder: RunFolder, show: Report
) -> Trained:
    """Write what is known at the end of a run, finished or interrupted: the result first, then what shows it."""
    plan, best, metrics = prepared.plan, outcome.best, outcome.metrics
    if metrics is None and best is not None and plan.val is not None:  # evaluated before the run was resumed
        metrics = evaluate(_detector(plan, best), plan.val, plan.selection)
    run, saved = _run(named, prepared, outcome, metrics), outcome.last is not None
    if saved:
        write_run(folder.path, run)
    if best is not None and plan.val is not None:
        if metrics is not None and outcome.metrics is None:
            with _told("pr.png", show):
                draw_precision_recall(metrics, title, folder)
        with _told("predictions.png", show):
            draw_predictions(_detector(plan, best), plan.val, plan.selection, title, folder)
        with _told(ONNX, show):
            require_onnx()
            from scaler.training.network.onnx_file import write_onnx  # noqa: PLC0415

            write_onnx(plan.spec, weights_of(_loaded(best)), folder.file(ONNX), selection=plan.selection)
    return Trained(run, folder.path, outcome.reason, saved)


def _detector(plan: TrainingPlan, best: Path) -> TorchDetector:
    return TorchDetector(plan.spec, _loaded(best), plan.device)


def _loaded(best: Path) -> nn.Module:
    """The network of a checkpoint, with its numbers."""
    checkpoint = read_checkpoint(best)
    module = to_torch(checkpoint.spec.graph())
    load_into(module, checkpoint, best)
    return module


@contextmanager
def _told(file: str, show: Report) -> Iterator[None]:
    """Tell what keeps a file from being made: a run is not lost for a picture of it."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        show.on_message(f"no {file}: {kind}{str(error).partition(chr(10))[0]}")


def _run(named: Named, prepared: Prepared, outcome: Outcome, metrics: Metrics | None) -> Run:
    plan = prepared.plan
    by_class = metrics.by_class if metrics else ()
    return Run(
        candidate=named.candidate,
        family=plan.spec.family,
        parameters=plan.spec.parameters,
        classes=plan.spec.classes,
        dataset=prepared.data.name,
        split_sizes={split: len(found.pictures) for split, found in prepared.data.splits.items()},
        metrics=None if metrics is None else _points(metrics),
        class_ap50={row.name: 100 * row.ap50 for row in by_class if row.ap50 is not None},
        predicted=named.predicted,
        recipe=prepared.recipe,
        epochs=plan.recipe.epochs,
        seed=plan.seed,
        pretrained=prepared.pretrained,
        seconds=outcome.seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        scaler_version=scaler.__version__,
        finished=outcome.finished,
    )


def _points(metrics: Metrics) -> Points:
    """AP in points; 0 where a number is none, which a validation set with objects has not."""
    shares = (metrics.ap, metrics.ap50, metrics.ap75, metrics.voc_ap50_area, metrics.voc_ap50_11)
    ap, ap50, ap75, area, eleven = (100 * (share or 0.0) for share in shares)
    return Points(ap=ap, ap50=ap50, ap75=ap75, voc_ap50_area=area, voc_ap50_11=eleven)
