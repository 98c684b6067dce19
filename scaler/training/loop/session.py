"""The moving parts of a run: what changes from step to step, all that a checkpoint must hold to go on exactly."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from scaler.graph.graph import Graph
from scaler.training.loop.averaging import MovingAverage
from scaler.training.loop.distributed import World
from scaler.training.loop.freezing import freeze
from scaler.training.loop.health import Health
from scaler.training.loop.optimiser import make_optimiser
from scaler.training.loop.plan import TrainingPlan
from scaler.training.loop.precision import make_scaler
from scaler.training.loop.rng import restore_rng, rng_state
from scaler.training.loop.schedule import Place, stage_of
from scaler.training.loop.steps import LOSSES
from scaler.training.network.heads import initialise_heads
from scaler.training.network.module import to_torch
from scaler.training.recipe import Recipe


@dataclass(kw_only=True)
class Counts:
    """How far a run is; plain numbers."""

    epoch: int = 0
    """Of the run, from 0: the one under way."""
    step: int = 0
    """Done in this epoch; all of them where only its evaluation is missing."""
    steps: int = 0
    """Of the optimiser, done in all."""
    micro_batch: int | None = None
    """Most pictures at a time that fit into the memory, since more once did not; None where all have."""
    seconds: float = 0.0
    """Spent, in the runs before a resumption too."""
    best_epoch: int | None = None
    best_ap: float | None = None


class Session:
    """Network, moving average, optimiser and counters of a run."""

    def __init__(self, plan: TrainingPlan, graph: Graph, device: str) -> None:
        """Make the network, with the initial weights on the device."""
        self.plan, self.device = plan, device
        module = to_torch(graph, seed=plan.seed)
        initialise_heads(module, graph, len(plan.spec.classes), seed=plan.seed)
        self.transferred: Collection[str] = ()
        if plan.initial is not None and not plan.resume:
            self.transferred = tuple(plan.initial(module, graph))
        layout = torch.channels_last if plan.channels_last else torch.preserve_format
        self.module: nn.Module = module.to(device, memory_format=layout)  # type: ignore[call-overload]
        decay = plan.recipe.optimiser.ema
        self.average = MovingAverage(self.module, decay) if decay > 0 else None
        self.scaler = make_scaler(device, plan.precision)
        self.health = Health()
        self.counts = Counts()
        self.losses = torch.zeros(len(LOSSES), device=device)
        """Sums over the steps of the epoch."""
        self.network: nn.Module = self.module
        """The module as it is called: wrapped for several processes, compiled."""
        self.optimiser: Optimizer
        self.stage = -1

    @property
    def place(self) -> Place:
        """The stage of the epoch under way."""
        return stage_of(self.plan.recipe, self.counts.epoch)

    def begin_stage(self, world: World) -> int:
        """Freeze what the stage freezes and start its optimiser; returns how many parameters stay as they are."""
        self.stage, stage, _ = self.place
        frozen = freeze(self.module, stage.freeze, self.transferred)
        self.network = world.wrap(self.module)
        if self.plan.compile:
            self.network = torch.compile(self.network)  # type: ignore[assignment]
        self.optimiser = make_optimiser(self.module, self.plan.recipe.optimiser, stage.lr, self.transferred)
        return frozen

    @property
    def result(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average where there is one."""
        return self.average.module if self.average else self.module

    def state(self) -> dict[str, Tensor]:
        """Numbers of `result`, on the CPU."""
        return {key: value.detach().cpu() for key, value in self.result.state_dict().items()}

    def finite(self) -> bool:
        """Whether all weights and statistics are numbers, those of the moving average too."""
        modules = [self.module, self.average.module] if self.average else [self.module]
        values = [value for module in modules for value in module.state_dict().values() if value.is_floating_point()]
        return bool(torch.stack(torch._foreach_norm(values, math.inf)).isfinite().all())

    def progress(self) -> dict[str, Any]:
        """Everything that `restore` needs, as plain data and tensors."""
        return {
            **run_data(self.plan),
            "transferred": list(self.transferred),
            "raw": self.module.state_dict(),
            "average": self.average.state() if self.average else None,
            "stage": self.stage,
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "health": self.health.state(),
            "counts": asdict(self.counts),
            "losses": self.losses,
            "rng": rng_state(),
        }

    def restore(self, progress: Mapping[str, Any], world: World) -> None:
        """Be where another session was when it called `progress`."""
        self.transferred = tuple(progress["transferred"])
        self.module.load_state_dict(progress["raw"])
        if self.average:
            self.average.load(progress["average"])
        self.counts = Counts(**{field.name: progress["counts"][field.name] for field in fields(Counts)})
        self.losses.copy_(progress["losses"])
        self.health.load(progress["health"])
        if self.counts.epoch < self.plan.recipe.epochs and self.place.number == progress["stage"]:
            self.begin_stage(world)
            self.optimiser.load_state_dict(progress["optimiser"])
        self.scaler.load_state_dict(progress["scaler"])
        restore_rng(progress["rng"])


def run_data(plan: TrainingPlan) -> dict[str, Any]:
    """What must be the same when a run goes on, as plain data."""
    data = {
        "recipe": recipe_data(plan.recipe),
        "dataset": {"name": plan.train.name, "pictures": len(plan.train.pictures), "objects": plan.train.objects},
        "seed": plan.seed,
        "precision": plan.precision,
    }
    found: dict[str, Any] = json.loads(json.dumps(data))  # tuples become lists, as in a file
    return found


def recipe_data(recipe: Recipe) -> dict[str, Any]:
    """A recipe as plain data."""
    return asdict(recipe)
