"""One of the processes of `test_training_distributed.py`: trains the toy network on its share of the pictures."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from training_runs import Listener, MemorySource, batch_of, plan, recipe, toy_family

from scaler.training.loop.batches import Batch
from scaler.training.loop.distributed import World, join
from scaler.training.loop.train import train
from scaler.training.recipe import LossKind, Stage


class Share(MemorySource):
    """Every so-manieth picture of each batch."""

    def __init__(self, world: World) -> None:
        super().__init__(12, 4)
        self.world = world

    def at(self, epoch: int, step: int = 0) -> Iterator[Batch]:
        order = np.random.default_rng(epoch).permutation(self.pictures).tolist()
        for current in range(step, len(self)):
            rows = order[current * self.batch : (current + 1) * self.batch]
            yield batch_of(rows[self.world.rank :: self.world.size])


def main(folder: Path, kind: LossKind) -> None:
    """Two epochs with everything that looks at all pictures: clipping, moving average, normalisation."""
    own = recipe(Stage(epochs=2, lr=1e-2), ema=0.9)
    optimiser = replace(own.optimiser, kind="sgd", clip=1.0)
    own = replace(own, loss=replace(own.loss, kind=kind), optimiser=optimiser)
    with toy_family(), join(sync_batch_norm=True) as world:
        outcome = train(plan(folder, own), Listener(), world=world, source=Share(world))
        assert outcome.finished and outcome.steps == 6


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])  # type: ignore[arg-type]
