"""Everything that `scaler.training.loop.train` needs to know, in one frozen object. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from scaler.data.dataset import Dataset
from scaler.errors import UserError
from scaler.evaluation.detections import Selection
from scaler.training.network.spec import NetworkSpec
from scaler.training.recipe import Recipe

Precision: TypeAlias = Literal["fp32", "bf16", "fp16"]
"""Of the convolutions; the loss, the weights and the optimiser stay at 32 bits."""
BestBy: TypeAlias = Literal["ap", "ap50"]

InitialWeights: TypeAlias = Callable[[Any, Any], Collection[str]]
"""Fills the module of a graph (first, an `nn.Module`; second, the `Graph`) in place; returns the keys of its
`state_dict`, or the names of its layers, that were transferred. Those of the backbone are what a stage with `freeze`
keeps."""

LAST, BEST = "last.pt", "best.pt"
"""Names in the run's folder: what a run resumes from, and the weights of the best evaluation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """One training run."""

    spec: NetworkSpec
    recipe: Recipe
    """With the stages as long as they shall be."""
    train: Dataset
    val: Dataset | None
    """None: no AP is computed, and the last weights count as the best."""
    folder: Path
    """Where `last.pt` and `best.pt` go; made where it is missing."""
    seed: int = 0
    """Of the initial weights, the order of the pictures, their augmentation."""
    device: str = "cpu"
    """torch's name: `cpu`, `cuda`, `cuda:1`."""
    precision: Precision = "fp32"
    workers: int = 0
    """Processes that read pictures, for each process that trains."""
    threads: int | None = None
    """Of this process on the CPU; torch's choice where None."""
    micro_batch: int | None = None
    """Most pictures at a time on one device; the gradients of a batch are accumulated. The whole batch where None."""
    channels_last: bool = False
    """Whether weights, and with them all maps, lie in memory as height, width, channels: faster on GPUs with tensor
    cores. Pictures come like that anyway, so that without this only the weights do not; torch's CPU convolutions then
    choose the layout of their maps themselves."""
    compile: bool = False
    """Whether `torch.compile` translates the network first."""
    cache: bool = False
    """Whether decoded pictures stay in memory."""
    initial: InitialWeights | None = None
    """Pretrained weights; random ones where None."""
    resume: bool = False
    """Whether to go on from the folder's `last.pt`."""
    best_by: BestBy = "ap"
    minutes: float | None = None
    """After which the run stops as if interrupted, so that it can be resumed."""

    @property
    def last(self) -> Path:
        """The checkpoint that a run resumes from."""
        return self.folder / LAST

    @property
    def best(self) -> Path:
        """The weights of the best evaluation."""
        return self.folder / BEST

    @property
    def selection(self) -> Selection:
        """Which boxes count when AP is computed."""
        recipe = self.recipe
        return Selection(confidence=recipe.confidence, iou=recipe.nms_iou, most=recipe.max_detections)


def check(plan: TrainingPlan, processes: int = 1) -> None:
    """Refuse what cannot be trained.

    Raises:
        UserError: The training set is empty, its classes are not the network's, the batch does not divide by the
            processes, or the precision is not the device's.
    """
    for data in filter(None, (plan.train, plan.val)):
        if not data.pictures:
            raise UserError(f"{data.name}: no pictures in {data.split!r}; check the data set with scaler data check")
        if data.classes != plan.spec.classes:
            raise UserError(_class_mismatch(data, plan.spec.classes))
    if not plan.train.objects:
        raise UserError(f"{plan.train.name}: no boxes in {plan.train.split!r}, so there is nothing to learn")
    if plan.recipe.batch % processes:
        raise UserError(f"a batch of {plan.recipe.batch} does not divide by {processes} processes; change --batch")
    if plan.micro_batch is not None and plan.micro_batch < 1:
        raise UserError(f"a micro-batch of {plan.micro_batch} pictures is none; give 1 or more")
    if plan.precision == "fp16" and not plan.device.startswith("cuda"):
        raise UserError(f"fp16 needs a CUDA GPU, the device is {plan.device}; take bf16 or fp32")


def _class_mismatch(data: Dataset, classes: tuple[str, ...]) -> str:
    if len(data.classes) != len(classes):
        return f"{data.name} has {len(data.classes)} classes, the network {len(classes)}; they must be the same"
    ours, theirs = next(pair for pair in zip(classes, data.classes, strict=True) if pair[0] != pair[1])
    return f"{data.name} has the class {theirs!r} where the network has {ours!r}; they must be the same, in one order"
