"""One of the processes that tests/test_distributed.py starts: computes its part and writes it to a file.

Run as `python distributed_worker.py gradients|train FOLDER` with the variables that torchrun sets.
"""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from scaler.data.preprocessing import Preprocessing
from scaler.data.shapes import make_shapes
from scaler.training.loop import train as loop
from scaler.training.loop.distributed import World, join
from scaler.training.loop.session import Session
from scaler.training.losses import detection_loss
from scaler.training.losses.targets import Targets
from scaler.training.network.module import to_torch
from scaler.training.network.spec import NetworkSpec
from scaler.training.recipe import read_recipe
from scaler.training.runs.candidates import Named
from scaler.training.runs.order import Order, prepare

PICTURES, SIDE = 2, 160
NETWORKS = {
    "yolo-ret": {"backbone": "mobilenetv2", "width": 0.35, "drop": 4, "neck": "none", "resolution": SIDE},
    "scaled-yolov4": {"variant": "tiny", "width": 0.25, "resolution": SIDE},
    "retinanet": {"backbone": "resnet-18", "width": 16, "towers": 1, "resolution": SIDE},
}
RECIPES = {"yolo-ret": "yolo-ret", "scaled-yolov4": "scaled-yolov4", "retinanet": "lw-retinanet"}


def images() -> Tensor:
    return torch.rand(PICTURES, 3, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def targets(first: int = 0, end: int = PICTURES) -> Targets:
    """Five objects, all in the first half: the second process has none."""
    boxes = torch.tensor([[10, 20, 60, 90], [80, 30, 150, 70], [5, 5, 40, 40], [60, 60, 140, 150], [90, 10, 120, 50]])
    pictures, labels = torch.tensor([0, 0, 0, 0, 0]), torch.tensor([0, 1, 1, 0, 1])
    own = (pictures >= first) & (pictures < end)
    return Targets(boxes[own].float(), labels[own], pictures[own] - first)


def gradients(family: str, world: World, *, frozen: bool = False) -> dict[str, Tensor]:
    """Gradients and running statistics after one pass over this process' share of the pictures."""
    size = Preprocessing(size=SIDE)
    spec = NetworkSpec(family=family, parameters=NETWORKS[family], classes=("a", "b"), preprocessing=size)
    graph = spec.graph()
    module = to_torch(graph, seed=5).double()  # deep random networks blow up the rounding of single precision
    loss = detection_loss(graph.coding, 2, read_recipe(RECIPES[family]).loss, batch=PICTURES)
    wrapped = world.wrap(module)
    wrapped.train(not frozen)
    share = PICTURES // world.size
    first = share * world.rank
    loss(wrapped(images()[first : first + share]), targets(first, first + share)).total.backward()
    assert isinstance(module, nn.Module)
    found = {name: parameter.grad for name, parameter in module.named_parameters()}
    return found | {f"{name} buffer": value for name, value in module.named_buffers()}


def agreed(world: World) -> dict[str, Any]:
    found: dict[str, Any] = {family: gradients(family, world) for family in NETWORKS}
    return found | {
        "frozen": gradients("yolo-ret", world, frozen=True),
        "mean": world.mean(10.0 * world.rank),
        "any": world.broadcast_flag(world.rank == 1),
        "none": world.broadcast_flag(False),
        "leads": world.leads,
    }


def trained(world: World, folder: Path) -> dict[str, Any]:
    """A short run; its session, which it keeps to itself, is looked at from outside."""
    sessions: list[Session] = []
    before: dict[str, Tensor] = {}

    class Seen(Session):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            sessions.append(self)
            before.update({name: value.clone() for name, value in self.module.state_dict().items()})

    if world.leads:
        make_shapes(folder / "data", train=8, val=2, size=96)
    world.barrier()
    order = Order(data=folder / "data" / "data.toml", recipe="quick", epochs=2, batch=4, workers=0, on="cpu")
    named = Named(name="tiny", family="scaled-yolov4", parameters=NETWORKS["scaled-yolov4"])
    plan = prepare(order, named, folder / "run", lambda _: None, processes=world.size).plan
    with patch.object(loop, "Session", Seen):
        outcome = loop.train(plan, world=world)
    state = sessions[0].module.state_dict()
    return {"finished": outcome.finished, "steps": outcome.steps, "state": state, "before": before}


def main(what: str, folder: Path) -> None:
    torch.set_num_threads(1)
    with join("cpu", sync_batch_norm=True) as world:
        world.barrier()
        found = trained(world, folder) if what == "train" else agreed(world)
        torch.save(found, folder / f"{world.rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
