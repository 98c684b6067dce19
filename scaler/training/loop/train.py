"""Training from a plan to an outcome: epochs of steps, evaluated and saved, interrupted and resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from scaler.data.augment import Augmenter
from scaler.data.dataset import Dataset
from scaler.errors import UserError
from scaler.evaluation.detections import Detector, Selection
from scaler.evaluation.evaluate import evaluate as evaluate_detector
from scaler.evaluation.metrics import Metrics
from scaler.files import make_folder
from scaler.training.loop.batches import Batch, batches, killed_workers_told
from scaler.training.loop.distributed import World
from scaler.training.loop.events import Epoch, Outcome, Report, Silent, Start, Step
from scaler.training.loop.freezing import training_mode
from scaler.training.loop.health import diverged
from scaler.training.loop.interrupts import Interrupts
from scaler.training.loop.multi_scale import drawn_size
from scaler.training.loop.optimiser import rate_of
from scaler.training.loop.pace import Pace
from scaler.training.loop.plan import TrainingPlan, check
from scaler.training.loop.resume import resume
from scaler.training.loop.rng import seeded
from scaler.training.loop.saving import save_best, save_last
from scaler.training.loop.schedule import rates, stage_of
from scaler.training.loop.session import Session
from scaler.training.loop.settings import settings
from scaler.training.loop.steps import LOSSES, Stepper, StepSettings
from scaler.training.losses import detection_loss
from scaler.training.network.detector import TorchDetector
from scaler.training.network.memory import full_memory_told, halved, is_out_of_memory, release, used_mib

STEPS_BETWEEN_READINGS = 10
"""On a GPU, whose numbers are waited for only so often; on a CPU every step is read."""


class Evaluate(Protocol):
    """`scaler.evaluation.evaluate.evaluate`, or what stands in for it."""

    def __call__(self, detector: Detector, dataset: Dataset, selection: Selection, /) -> Metrics:
        """Judge a detector."""


class Source(Protocol):
    """Where batches come from; `scaler.training.loop.batches.Batches`."""

    def __len__(self) -> int:
        """Steps of an epoch."""

    def at(self, epoch: int, step: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from a step on."""

    def close(self) -> None:
        """Stop."""


class _Interrupted(Exception):  # noqa: N818  (no error)
    """The run shall stop here, between two steps."""


def train(
    plan: TrainingPlan,
    report: Report | None = None,
    *,
    evaluate: Evaluate = evaluate_detector,
    world: World | None = None,
    source: Source | None = None,
) -> Outcome:
    """Train a network, or go on with it.

    Args:
        plan: What, on what, how.
        report: Who is told.
        evaluate: How AP is computed.
        world: The processes that train together; this one alone where None.
        source: The batches; the plan's pictures, augmented as its recipe says, where None.

    Raises:
        UserError: The plan cannot be carried out, the folder not written, the memory is too small even for one
            picture at a time.
        FileError: The checkpoint to go on from is damaged or of another run.
        DivergedError: The loss is no number any more, or has left every bound.
    """
    world = world or World()
    check(plan, world.size)
    device = world.device if world.size > 1 else plan.device
    told = report if report is not None and world.leads else Silent()
    if world.leads:
        make_folder(plan.folder)
    if plan.last.exists() and not plan.resume:
        raise UserError(f"{plan.last} is there already: resume that run, or name another folder")
    with settings(device, plan.threads), seeded(plan.seed), Interrupts(plan.minutes) as interrupts:
        own = source or _pictures(plan, world, told, device)
        try:
            with killed_workers_told(), full_memory_told(device):
                return _Loop(plan, told, evaluate, world, own, interrupts, device).run()
        finally:
            own.close()


def _pictures(plan: TrainingPlan, world: World, report: Report, device: str) -> Source:
    """The plan's training pictures."""
    return batches(
        plan.train,
        Augmenter(plan.recipe.augmentation, plan.spec.preprocessing),
        batch=plan.recipe.batch // world.size,
        seed=plan.seed,
        workers=plan.workers,
        rank=world.rank,
        world=world.size,
        pin=device.startswith("cuda"),
        cache="memory" if plan.cache else "none",
        warn=report.on_message,
    )


class _Loop:
    """One call of `train`."""

    def __init__(
        self,
        plan: TrainingPlan,
        report: Report,
        evaluate: Evaluate,
        world: World,
        source: Source,
        interrupts: Interrupts,
        device: str,
    ) -> None:
        self.plan, self.report, self.evaluate, self.world = plan, report, evaluate, world
        self.source, self.interrupts, self.device = source, interrupts, device
        self.graph = plan.spec.graph()
        if self.graph.coding is None:
            raise UserError(f"{self.graph.name}: it is no detector, there are no boxes to learn")
        self.session = Session(plan, self.graph, device)
        self.stride = max(scale.stride for scale in self.graph.coding.scales)
        loss = detection_loss(self.graph.coding, len(plan.spec.classes), plan.recipe.loss, batch=plan.recipe.batch)
        self.loss = loss.to(device)
        self.metrics: Metrics | None = None
        if plan.resume:
            resume(self.session, plan, world)
        self.pace, self.before = Pace(), self.session.counts.seconds
        self.reads_every = 1 if torch.device(device).type == "cpu" else STEPS_BETWEEN_READINGS

    def run(self) -> Outcome:
        """Train until the end or an interruption."""
        self._start()
        finished = False
        try:
            while self.session.counts.epoch < self.plan.recipe.epochs:
                self._epoch()
            finished = True
        except _Interrupted:
            self._save()
        except KeyboardInterrupt:  # in an evaluation, before which all was saved, or for the second time
            self.interrupts.reason = self.interrupts.reason or "Ctrl-C"
        outcome = self._outcome(finished)
        self.report.on_end(outcome)
        return outcome

    def _start(self) -> None:
        plan, counts = self.plan, self.session.counts
        self.report.on_start(
            Start(
                plan=plan,
                parameters=sum(parameter.numel() for parameter in self.session.module.parameters()),
                steps_per_epoch=len(self.source),
                epoch=counts.epoch,
                step=counts.step,
                world=self.world.size,
            )
        )
        if plan.val is None:
            self.report.on_message(f"no validation set: no AP; {plan.best.name} will hold the last weights")
        if len(plan.train.pictures) < plan.recipe.batch:
            pictures = len(plan.train.pictures)
            self.report.on_message(f"{pictures} pictures, fewer than a batch of {plan.recipe.batch}: one step an epoch")

    def _epoch(self) -> None:
        """The rest of the epoch under way: steps, evaluation, checkpoint."""
        session, counts, begun = self.session, self.session.counts, time.perf_counter()
        if session.stage != session.place.number:
            self._begin_stage()
        training_mode(session.module)
        stepper, pictures = self._stepper(), 0
        for batch in self.source.at(counts.epoch, counts.step):
            self._step(stepper, batch)
            pictures += len(batch.images) * self.world.size
            if counts.steps % self.reads_every == 0 and self.world.broadcast_flag(self.interrupts.wanted):
                raise _Interrupted
        losses = self._mean_losses()
        seconds = time.perf_counter() - begun
        metrics = self._evaluated() if self._evaluates(counts.epoch) else None
        evaluation = time.perf_counter() - begun - seconds
        self._finish_epoch(losses, metrics, seconds, evaluation, pictures / max(seconds, 1e-9))

    def _begin_stage(self) -> None:
        frozen, stage = self.session.begin_stage(self.world), self.session.place.stage
        if frozen:
            self.report.on_message(f"stage {self.session.stage + 1}: {frozen:,} parameters stay as they are")
        elif stage.freeze != "none":
            name = f"stage {self.session.stage + 1}"
            self.report.on_message(f"{name} would keep transferred weights, but there are none: all weights learn")

    def _stepper(self) -> Stepper:
        plan, session = self.plan, self.session
        fixed = StepSettings(
            device=self.device,
            precision=plan.precision,
            preprocessing=plan.spec.preprocessing,
            channels_last=plan.channels_last,
            clip=plan.recipe.optimiser.clip,
            adversarial=plan.recipe.adversarial,
            adversarial_step=plan.recipe.adversarial_step,
        )
        return Stepper(session.network, self.loss, session.optimiser, session.scaler, fixed)

    def _step(self, stepper: Stepper, batch: Batch) -> None:
        session, counts, place = self.session, self.session.counts, self.session.place
        done = (counts.epoch - place.first) * len(self.source) + counts.step
        step = rates(place.stage, self.plan.recipe.optimiser.momentum, done, len(self.source))
        size = self._size(counts.steps)
        losses = self._fitting_gradients(stepper, batch, size)
        gradient = stepper.update(step)
        session.losses += losses
        if session.average:
            session.average.update()
        counts.step += 1
        counts.steps += 1
        self.pace.step(len(batch.images) * self.world.size)
        if counts.steps % self.reads_every == 0:
            self._read(losses, gradient, step.weights, size)

    def _size(self, step: int) -> int:
        plan = self.plan
        return drawn_size(plan.spec.preprocessing.size, plan.recipe.multi_scale, self.stride, plan.seed, step)

    def _fitting_gradients(self, stepper: Stepper, batch: Batch, size: int) -> Tensor:
        """Gradients of a batch, in smaller parts where the memory is too small."""
        counts = self.session.counts
        while True:
            most = counts.micro_batch or self.plan.micro_batch or len(batch.images)
            try:
                return stepper.gradients(batch.images, batch.targets, most, size)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # outside of the handler, whose traceback keeps the maps alive
            stepper.optimiser.zero_grad(set_to_none=True)
            release(self.device)
            counts.micro_batch = halved(min(most, len(batch.images)), size, self.world.size)
            self.report.on_message(
                f"out of memory: going on with {counts.micro_batch} pictures at a time, added up to the same batch"
            )

    def _read(self, losses: Tensor, gradient: Tensor, lr: float, size: int) -> None:
        """Look at the numbers of the step just done, and tell them."""
        counts = self.session.counts
        *values, norm = torch.cat([losses, gradient.to(losses)[None]]).tolist()
        named = self._named(values)
        self._check(named, norm, lr)
        self.report.on_step(
            Step(
                epoch=counts.epoch,
                step=counts.step,
                of=len(self.source),
                stage=self.session.stage,
                lr=lr,
                losses=named,
                gradient=norm,
                size=size,
                pictures_per_s=self.pace.recent(),
                memory_mib=used_mib(self.device),
                eta_s=self._left(),
            )
        )

    def _named(self, values: Sequence[float]) -> dict[str, float]:
        """Losses by name with their sum; the adversarial one where there is any."""
        named = dict(zip(LOSSES, values, strict=True))
        if self.plan.recipe.adversarial == 0:
            del named["adversarial"]
        return named | {"total": sum(values)}

    def _check(self, losses: dict[str, float], gradient: float, lr: float) -> None:
        wrong = self.session.health.check(losses, gradient, rescaled=self.session.scaler.is_enabled())
        if not wrong:
            return
        counts = self.session.counts
        where = f"epoch {counts.epoch + 1}, step {counts.step} of {len(self.source)}, learning rate {lr:.3g}"
        raise diverged(wrong, where, self.plan)

    def _mean_losses(self) -> dict[str, float]:
        """Means over the epoch's steps and all processes; refuses an epoch that has gone wrong unseen."""
        session = self.session
        means = (session.losses / max(1, session.counts.step)).tolist()
        named = self._named([self.world.mean(value) for value in means])
        if not math.isfinite(named["total"]):
            self._check(named, 0.0, rate_of(session.optimiser))
        return named

    def _evaluates(self, epoch: int) -> bool:
        """Every so many epochs, and at the end of each stage."""
        recipe, done = self.plan.recipe, epoch + 1
        ends = done == recipe.epochs or stage_of(recipe, done).first == done
        return self.plan.val is not None and (ends or done % recipe.evaluate_every == 0)

    def _evaluated(self) -> Metrics | None:
        """Judge the weights, after saving them: whoever stops an evaluation resumes with it."""
        metrics, val, plan = None, self.plan.val, self.plan
        if self.world.leads and val is not None:
            self._save()
            begun = time.perf_counter()
            with self.interrupts.at_once():
                most = self.session.counts.micro_batch or plan.micro_batch
                detector = TorchDetector(plan.spec, self.session.result, self.device, most=most)
                metrics = self.evaluate(detector, val, plan.selection)
            self.pace.evaluated(time.perf_counter() - begun)
        self.world.barrier()
        return metrics

    def _finish_epoch(
        self, losses: dict[str, float], metrics: Metrics | None, seconds: float, evaluation: float, speed: float
    ) -> None:
        """Count the epoch, keep the best weights, save and tell."""
        plan, counts, place = self.plan, self.session.counts, self.session.place
        epoch = counts.epoch
        counts.epoch, counts.step = epoch + 1, 0
        self.session.losses.zero_()
        best = self._is_best(metrics)
        if best:
            counts.best_epoch, counts.best_ap = epoch, self._ap(metrics)
            self.metrics = metrics
        if self.world.leads and best:
            save_best(self.session, plan, metrics)
        self._save()
        self.report.on_epoch(
            Epoch(
                epoch=epoch,
                of=plan.recipe.epochs,
                stage=place.number,
                lr=rate_of(self.session.optimiser),
                losses=losses,
                metrics=metrics,
                best=best,
                seconds=seconds,
                evaluation_s=evaluation,
                pictures_per_s=speed,
                eta_s=self._left(),
            )
        )

    def _is_best(self, metrics: Metrics | None) -> bool:
        """Whether these are the weights to keep; without a validation set the latest are."""
        counts = self.session.counts
        if self.plan.val is None:
            return True
        if metrics is None:
            return False
        return counts.best_ap is None or (self._ap(metrics) or 0.0) > counts.best_ap

    def _ap(self, metrics: Metrics | None) -> float | None:
        """What the best weights are chosen by; 0 where there is nothing to find."""
        if metrics is None:
            return None
        return (metrics.ap if self.plan.best_by == "ap" else metrics.ap50) or 0.0

    def _left(self) -> float:
        """Seconds until the end."""
        counts, total = self.session.counts, self.plan.recipe.epochs
        steps = (total - counts.epoch) * len(self.source) - counts.step
        return self.pace.left(steps, sum(map(self._evaluates, range(counts.epoch, total))))

    def _save(self) -> None:
        self.session.counts.seconds = self.before + self.pace.seconds
        if self.world.leads:
            save_last(self.session, self.plan)

    def _outcome(self, finished: bool) -> Outcome:
        counts, plan = self.session.counts, self.plan
        return Outcome(
            finished=finished,
            reason="" if finished else self.interrupts.reason or "another process was interrupted",
            epochs=counts.epoch,
            steps=counts.steps,
            seconds=self.before + self.pace.seconds,
            last=plan.last if plan.last.exists() else None,
            best=plan.best if counts.best_epoch is not None else None,
            metrics=self.metrics,
            best_epoch=counts.best_epoch,
            best_ap=counts.best_ap,
        )
