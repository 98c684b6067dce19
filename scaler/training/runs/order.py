"""What a user orders with `scaler train`, and the training plan that it comes to."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import ceil
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, get_args

import torch

from scaler.cost import graph_cost
from scaler.data.anchors import cluster_anchors
from scaler.data.data_file import read_splits
from scaler.data.dataset import Splits
from scaler.data.preprocessing import Preprocessing
from scaler.errors import UnsupportedError, UsageError, unknown_name
from scaler.graph.graph import Graph
from scaler.host import host_cpu
from scaler.training.loop.plan import BestBy, InitialWeights, Precision, TrainingPlan
from scaler.training.losses import detection_loss
from scaler.training.network.detector import checked_device
from scaler.training.network.module import to_torch
from scaler.training.network.spec import NetworkSpec
from scaler.training.pretrained.transfer import prepared, transfer
from scaler.training.pretrained.weights import Weights, read_weights
from scaler.training.recipe import AnchorChoice, Recipe, read_recipe, recipe_names
from scaler.training.runs.candidates import Named

Tell: TypeAlias = Callable[[str], None]

RECIPES = MappingProxyType({"yolo-ret": "yolo-ret", "scaled-yolov4": "scaled-yolov4", "retinanet": "lw-retinanet"})
"""Recipe of each family where the user names none: the one of its paper."""
ANCHORS = get_args(AnchorChoice)
PRECISIONS = ("auto", *get_args(Precision))


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How a network is to be trained; None leaves it to the recipe, the network or the computer."""

    data: Path
    """A `data.toml` with the splits train and val."""
    recipe: str | None = None
    """A shipped one by name, or a file."""
    epochs: int | None = None
    """Of all stages together."""
    batch: int | None = None
    lr: float | None = None
    """Of the first stage; the others keep their ratio to it."""
    resolution: int | None = None
    """Side of the input in pixels."""
    anchors: str | None = None
    pretrained: str | None = None
    """Imported weights by name, or a file."""
    transfer_blocks: int | None = None
    """How many blocks of the backbone are initialised from them."""
    on: str = "auto"
    """`cpu`, `cuda`, `cuda:1`; `auto` is a GPU where there is one."""
    precision: str = "auto"
    micro_batch: int | None = None
    """Most pictures at a time on one device; the rest of a batch is accumulated."""
    workers: int | None = None
    cache: bool = False
    compile: bool = False
    sync_batch_norm: bool = False
    seed: int = 0
    minutes: float | None = None
    """After which the run stops, to be resumed."""
    best_by: BestBy = "ap"
    tensorboard: bool = False
    command: str = ""
    """As it is recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A plan, and what it was made from."""

    plan: TrainingPlan
    data: Splits
    recipe: str
    """Name under which the run's recipe is recorded, see `recipe_label`."""
    pretrained: str = ""
    """Name and digest of the weights, see `weights_label`; blank for random ones."""


def prepare(order: Order, named: Named, folder: Path, tell: Tell, *, processes: int = 1) -> Prepared:
    """Read the data, the recipe and the weights, and put the plan together. Writes nothing.

    Args:
        order: How to train.
        named: What.
        folder: Of the run.
        tell: Told, a line each, what the user should know of the choices that were made.
        processes: That train together.

    Raises:
        UserError: Something is missing, malformed, or does not fit together; one line.
    """
    if order.minutes is not None and not order.minutes > 0:
        raise UsageError(f"--minutes {order.minutes:g}: give a number above 0")
    recipe = recipe_of(order, named)
    label = recipe_label(order, recipe)
    device = str(checked_device(order.on, "--on"))
    precision = _precision(order.precision, device)
    data = read_splits(order.data, ("train", "val"))
    parameters = dict(named.parameters)
    if order.resolution is not None:
        parameters["resolution"] = order.resolution
    spec = NetworkSpec(
        family=named.family,
        parameters=parameters,
        classes=data.classes,
        preprocessing=Preprocessing(size=int(parameters["resolution"]), fill=recipe.fill),
    )
    recipe = _extended(recipe, spec, tell) if order.epochs is None else recipe.lasting(order.epochs)
    if (coding := spec.graph().coding) is not None:
        detection_loss(coding, len(spec.classes), recipe.loss, batch=recipe.batch)  # refuses what does not fit
    spec, initial, weights = _with_weights(order, spec, tell)
    spec = _with_anchors(spec, recipe, data, order.seed, tell)
    plan = TrainingPlan(
        spec=spec,
        recipe=recipe,
        train=data.splits["train"],
        val=data.splits["val"],
        folder=folder,
        seed=order.seed,
        device=device,
        precision=precision,
        workers=_workers(device, processes) if order.workers is None else order.workers,
        micro_batch=order.micro_batch,
        channels_last=device.startswith("cuda"),
        compile=order.compile,
        cache=order.cache,
        initial=initial,
        best_by=order.best_by,
        minutes=order.minutes,
    )
    return Prepared(plan=plan, data=data, recipe=label, pretrained=weights)


def recipe_of(order: Order, named: Named) -> Recipe:
    """The recipe with the user's changes, its stages as long as it says.

    Raises:
        UserError: There is no such recipe, or a number is outside its range.
    """
    recipe = read_recipe(order.recipe or RECIPES[named.family])
    if order.batch is not None:
        if order.batch < 1:
            raise UsageError(f"--batch {order.batch}: give 1 or more")
        recipe = replace(recipe, batch=order.batch)
    if order.lr is not None:
        if not 0 < order.lr <= 10:
            raise UsageError(f"--lr {order.lr:g}: give a number above 0, at most 10")
        factor = order.lr / recipe.stages[0].lr
        recipe = replace(recipe, stages=tuple(replace(stage, lr=stage.lr * factor) for stage in recipe.stages))
    if order.anchors is not None:
        if order.anchors not in ANCHORS:
            raise UsageError(unknown_name("--anchors", order.anchors, ANCHORS))
        recipe = replace(recipe, anchors="k-means" if order.anchors == "k-means" else "published")
    return recipe


def recipe_label(order: Order, recipe: Recipe) -> str:
    """Name under which the recipe of a run is recorded, so that runs by one name were trained alike.

    It is the recipe's own where it does what the shipped one does, the number of epochs apart; otherwise a digest of
    what it does follows: `quick+3f2a`.

    Args:
        order: Of the run.
        recipe: What `recipe_of` gave.
    """
    content = _content(recipe), order.transfer_blocks
    if recipe.name in recipe_names() and content == (_content(read_recipe(recipe.name)), None):
        return recipe.name
    return f"{recipe.name}+{sha256(json.dumps(content).encode()).hexdigest()[:4]}"


def _content(recipe: Recipe) -> dict[str, Any]:
    """What a recipe does, however long: its stages in shares of the whole."""
    data = asdict(recipe)
    del data["name"], data["description"]
    for stage in data["stages"]:
        stage["warmup_epochs"] = round(stage["warmup_epochs"] / stage["epochs"], 6)
        stage["epochs"] = round(stage["epochs"] / recipe.epochs, 6)
    return data


def _extended(recipe: Recipe, spec: NetworkSpec, tell: Tell) -> Recipe:
    """The recipe lengthened by the FLOPs that the network's lighter head saves (Light-Weight RetinaNet)."""
    if not recipe.extend_by_flops or spec.parameters.get("lighten", "none") == "none":
        return recipe
    whole = replace(spec, parameters={**spec.parameters, "lighten": "none"})
    factor = graph_cost(whole.graph()).macs / graph_cost(spec.graph()).macs
    epochs = ceil(recipe.epochs * factor)
    tell(f"{epochs} epochs in place of {recipe.epochs}, since the lighter head saves {factor:.2f} times the FLOPs")
    return recipe.lasting(epochs)


def _with_anchors(spec: NetworkSpec, recipe: Recipe, data: Splits, seed: int, tell: Tell) -> NetworkSpec:
    """The network with anchors for the data, where the recipe wants them."""
    coding = spec.graph().coding
    if recipe.anchors != "k-means" or coding is None:
        return spec
    if coding.kind == "retinanet":
        tell("the published anchors are kept: RetinaNet's nine of each level cover all sizes")
        return spec
    found = cluster_anchors(data.splits["train"], coding.scales, spec.preprocessing.size, seed)
    tell(f"anchors by k-means: mean IoU with the objects {found.mean_iou:.2f}, published {found.mean_iou_before:.2f}")
    return replace(spec, anchors=found.anchors)


def _with_weights(order: Order, spec: NetworkSpec, tell: Tell) -> tuple[NetworkSpec, InitialWeights | None, str]:
    """The network as the pretrained weights want it, what fills it, and their label."""
    if order.pretrained is None:
        if order.transfer_blocks is not None:
            raise UsageError("--transfer-blocks needs --pretrained, the weights whose blocks are transferred")
        return spec, None, ""
    weights = read_weights(order.pretrained)
    wanted = prepared(spec, weights)
    transfer(to_torch(wanted.graph()), wanted.graph(), weights, order.transfer_blocks)  # refuses before any work

    def fill(module: Any, graph: Graph) -> Collection[str]:
        found = transfer(module, graph, weights, order.transfer_blocks)
        for line in found.lines():
            tell(line)
        return found.filled

    return wanted, fill, weights_label(weights)


def weights_label(weights: Weights) -> str:
    """How a run names the weights that it started from, such as `best@1f3a9c0d`: files of one name are many."""
    return f"{weights.name}@{weights.sha256[:8]}"


def _precision(wanted: str, device: str) -> Precision:
    """`auto` is fp32 on a CPU; on a GPU bf16 where it has that in hardware, or fp16."""
    match wanted:
        case "fp32" | "bf16":
            return wanted
        case "fp16":
            if not device.startswith("cuda"):
                raise UnsupportedError(
                    f"--precision fp16 needs a CUDA GPU, and this runs on {device}: give bf16 or fp32"
                )
            return wanted
        case "auto":
            if not device.startswith("cuda"):
                return "fp32"
            return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
        case _:
            raise UsageError(unknown_name("--precision", wanted, PRECISIONS))


def _workers(device: str, processes: int) -> int:
    """Readers of pictures for each process that trains: on a CPU half of the cores, since the others compute."""
    cores = host_cpu().cores // processes
    return min(8, cores) if device.startswith("cuda") else min(4, cores // 2)
