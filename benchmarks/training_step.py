"""What the training loop costs beside the network: pictures/s of a whole step against bare forward and backward.

    OMP_NUM_THREADS=1 python benchmarks/training_step.py [--steps 500]

The network is YOLO-ReT with MobileNetV2 x0.5 at 160 px, the batch 16, one thread. A whole step is everything between
two batches: to floating point, forward, loss, backward, clipping, Adam, moving average, reading and telling the
numbers. Bare is forward and backward of the same network on the same pictures in the same layout, the gradient of the
outputs given; how inputs and weights lie in memory is looked at in both and printed. The two take turns, so that a
change of the computer's speed hits both; medians are compared. Then the growth of the process' memory over many steps:
the median of the last fifth of the steps against that of the second.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from scaler.data.dataset import Boxes, Dataset, Picture
from scaler.data.preprocessing import Preprocessing
from scaler.training.loop.batches import Batch
from scaler.training.loop.events import Silent, Step
from scaler.training.loop.plan import TrainingPlan
from scaler.training.loop.train import train
from scaler.training.losses.targets import Targets
from scaler.training.network.module import to_torch
from scaler.training.network.spec import NetworkSpec
from scaler.training.recipe import Stage, read_recipe

SIZE, BATCH, CLASSES = 160, 16, ("circle", "square", "triangle")
LEAST_SHARE, MOST_GROWTH_MIB = 0.85, 8.0
SPEC = NetworkSpec(
    family="yolo-ret",
    parameters={"backbone": "mobilenetv2", "width": 0.5, "drop": 2, "rfcr": 5, "shortcut": True, "resolution": SIZE},
    classes=CLASSES,
    preprocessing=Preprocessing(size=SIZE),
)


def batch_of(seed: int) -> Batch:
    """Noise with three boxes a picture."""
    rng = np.random.default_rng(seed)
    images = torch.from_numpy(rng.integers(0, 256, (BATCH, SIZE, SIZE, 3), np.uint8)).permute(0, 3, 1, 2)
    places = rng.uniform(0, SIZE - 60, (3 * BATCH, 2))
    corners = np.concatenate([places, places + rng.uniform(10, 60, places.shape)], 1).astype(np.float32)
    labels = torch.from_numpy(rng.integers(0, len(CLASSES), 3 * BATCH))
    targets = Targets(torch.from_numpy(corners), labels, torch.arange(BATCH).repeat_interleave(3))
    return Batch(images, targets, torch.arange(BATCH), ("",) * BATCH)


def note_layouts(module: nn.Module, seen: set[str]) -> None:
    """Note how the inputs of a network and its weights lie in memory whenever it runs."""

    def look(network: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        kernel = next(weight for weight in network.parameters() if weight.dim() == 4 and weight.shape[2] > 1)
        seen.add(f"inputs {layout_of(arguments[0])}, weights {layout_of(kernel)}")

    module.register_forward_pre_hook(look)


def layout_of(values: torch.Tensor) -> str:
    return "channels last" if values.is_contiguous(memory_format=torch.channels_last) else "channels first"


class Bare:
    """Forward and backward of the network alone."""

    def __init__(self) -> None:
        self.module = to_torch(SPEC.graph()).train()
        self.inputs = batch_of(0).images.float() / 255  # the channels come last in memory, as in training
        self.layouts: set[str] = set()
        note_layouts(self.module, self.layouts)
        self.gradients = [torch.randn_like(value) for value in self.module(self.inputs).values()]

    def seconds(self) -> float:
        """Of one pass."""
        begun = time.perf_counter()
        self.module.zero_grad(set_to_none=True)
        torch.autograd.backward(list(self.module(self.inputs).values()), self.gradients)
        return time.perf_counter() - begun


class Source:
    """The same few batches again and again; between two of them the bare network has its turn."""

    def __init__(self, steps: int, bare: Bare | None) -> None:
        self.steps, self.bare = steps, bare
        self.batches = [batch_of(seed) for seed in range(8)]
        self.whole: list[float] = []
        self.alone: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def at(self, epoch: int, step: int = 0) -> Iterator[Batch]:  # noqa: ARG002
        """Batches; whoever asks for the next has finished the step."""
        for current in range(step, self.steps):
            if self.bare is not None:
                self.alone.append(self.bare.seconds())
            begun = time.perf_counter()
            yield self.batches[current % len(self.batches)]
            self.whole.append(time.perf_counter() - begun)

    def close(self) -> None:
        """Nothing is open."""


class Memory(Silent):
    """Notes the process' memory after every step."""

    def __init__(self) -> None:
        self.mib: list[float] = []

    def on_step(self, event: Step) -> None:  # noqa: ARG002
        """Note it."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.mib.append(pages * 4096 / 2**20)


def run(steps: int, bare: Bare | None, recipe_name: str) -> tuple[Source, Memory, set[str]]:
    """Train; returns the source with its times, the memory, and how inputs and weights lay in memory."""
    base = read_recipe(recipe_name)
    recipe = replace(
        base, batch=BATCH, stages=(Stage(epochs=1, lr=1e-3),), optimiser=replace(base.optimiser, ema=0.999)
    )
    pictures = tuple(Picture(Path(f"{index}.png"), Boxes.of([[0, 0, 9, 9]], [0])) for index in range(BATCH * steps))
    data = Dataset("noise", "train", CLASSES, pictures)
    source, memory, layouts = Source(steps, bare), Memory(), set[str]()

    def initial(module: nn.Module, _: object) -> tuple[str, ...]:
        note_layouts(module, layouts)
        return ()

    with TemporaryDirectory() as folder:
        plan = TrainingPlan(
            spec=SPEC, recipe=recipe, train=data, val=None, folder=Path(folder), threads=1, initial=initial
        )
        train(plan, memory, source=source)
    return source, memory, layouts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="of the memory test")
    parser.add_argument("--turns", type=int, default=60, help="of the speed test")
    options = parser.parse_args()
    torch.set_num_threads(1)
    good = True
    for name in ("quick", "yolo-ret"):
        bare = Bare()
        source, _, layouts = run(options.turns, bare, name)
        good &= layouts == bare.layouts
        print(f"{name}: in training {' and '.join(sorted(layouts))}; bare {' and '.join(sorted(bare.layouts))}")
        whole, alone = (BATCH / median(values[5:]) for values in (source.whole, source.alone))
        good &= whole >= LEAST_SHARE * alone
        verdict = "as it should be" if whole >= LEAST_SHARE * alone else "TOO LITTLE"
        print(
            f"{name}: {whole:.1f} pictures/s in training, {alone:.1f} bare: {whole / alone:.1%}, "
            f"at least {LEAST_SHARE:.0%} wanted: {verdict}"
        )
    _, memory, _ = run(options.steps, None, "quick")
    fifth = len(memory.mib) // 5
    growth = median(memory.mib[-fifth:]) - median(memory.mib[fifth : 2 * fifth])
    good &= growth <= MOST_GROWTH_MIB
    verdict = "none" if growth <= MOST_GROWTH_MIB else "GROWS"
    print(f"memory over {options.steps} steps: {memory.mib[-1]:.0f} MiB, growth {growth:+.1f} MiB: {verdict}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
