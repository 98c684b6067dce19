"""Small training runs for tests: a network, pictures in memory, a recipe of a few steps, a listener that remembers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scaler.data.augmentation import Augmentation
from scaler.data.dataset import Boxes, Dataset, Picture
from scaler.data.preprocessing import Preprocessing
from scaler.evaluation.detections import Detections, Detector, Selection
from scaler.evaluation.metrics import Metrics, score
from scaler.graph.graph import Graph, GraphBuilder
from scaler.models.blocks import conv_block
from scaler.models.detectors.families import FAMILIES, Family
from scaler.models.heads import yolov3
from scaler.training.loop.batches import Batch
from scaler.training.loop.events import Epoch, Outcome, Start, Step
from scaler.training.loop.plan import TrainingPlan
from scaler.training.loop.train import train
from scaler.training.losses.targets import Targets
from scaler.training.network.spec import NetworkSpec
from scaler.training.recipe import Recipe, Stage, read_recipe

SIZE = 64
CLASSES = ("blue", "red")


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    """Five convolutions of which three scales are read."""

    channels: int = 8
    resolution: int = SIZE
    classes: int = 2
    name: str = "toy"


def toy(config: ToyConfig) -> Graph:
    """A backbone of one tap a stride, and YOLOv3's head."""
    graph = GraphBuilder((3, config.resolution, config.resolution))
    value, levels = graph.input, {}
    for stride in (2, 4, 8, 16, 32):
        block = conv_block(value.shape, config.channels, kernel=3, stride=2, activation="relu6")
        value = levels[stride] = graph.add(f"backbone.stage{stride}", block, value)
    read = {stride: levels[stride] for stride in (8, 16, 32)}
    outputs = yolov3.add_head(graph, read, config.classes)
    return graph.build("toy", outputs, yolov3.box_count(read), yolov3.box_coding(tuple(read)))


@contextmanager
def toy_family() -> Iterator[None]:
    """The family `toy` is known."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "toy", Family("toy", ToyConfig, toy, "voc"))
        yield


@pytest.fixture(scope="module", autouse=True)
def with_toy_family() -> Iterator[None]:
    with toy_family():
        yield


SPEC = NetworkSpec(family="toy", parameters={}, classes=CLASSES, preprocessing=Preprocessing(size=SIZE))


def boxes_of(index: int) -> Boxes:
    """One or two squares a picture."""
    rng = np.random.default_rng(index)
    places = rng.integers(0, SIZE - 40, (1 + index % 2, 2))
    corners = np.concatenate([places, places + rng.integers(16, 40, places.shape)], 1)
    return Boxes.of(corners, rng.integers(0, len(CLASSES), len(places)))


def image_of(index: int) -> np.ndarray:
    """What the boxes say, in colours, on noise."""
    image = np.random.default_rng(index).integers(0, 60, (SIZE, SIZE, 3), np.uint8)
    found = boxes_of(index)
    for (x1, y1, x2, y2), label in zip(found.corners.astype(int), found.labels, strict=True):
        image[y1:y2, x1:x2] = (255, 0, 0) if label else (0, 0, 255)
    return image


def dataset(pictures: int, split: str = "train") -> Dataset:
    """Pictures that lie in memory alone."""
    rows = tuple(Picture(Path(f"{split}/{index}.png"), boxes_of(index), SIZE, SIZE) for index in range(pictures))
    return Dataset("squares", split, CLASSES, rows)  # type: ignore[arg-type]


def batch_of(indices: list[int]) -> Batch:
    """These pictures."""
    images = torch.from_numpy(np.stack([image_of(index) for index in indices])).permute(0, 3, 1, 2)
    found = [boxes_of(index) for index in indices]
    owner = [place for place, boxes in enumerate(found) for _ in range(len(boxes))]
    targets = Targets(
        torch.from_numpy(np.concatenate([boxes.corners for boxes in found])),
        torch.from_numpy(np.concatenate([boxes.labels for boxes in found])),
        torch.tensor(owner),
    )
    return Batch(images, targets, torch.tensor(indices), tuple(f"train/{index}.png" for index in indices))


class MemorySource:
    """Batches of pictures in memory, in an order of each epoch's own."""

    def __init__(self, pictures: int, batch: int, change: Callable[[Batch], Batch] = lambda batch: batch) -> None:
        self.pictures, self.batch, self.change, self.closed = pictures, batch, change, False

    def __len__(self) -> int:
        return max(1, self.pictures // self.batch)

    def at(self, epoch: int, step: int = 0) -> Iterator[Batch]:
        order = np.random.default_rng(epoch).permutation(self.pictures).tolist()
        for current in range(step, len(self)):
            yield self.change(batch_of(order[current * self.batch : (current + 1) * self.batch]))

    def close(self) -> None:
        self.closed = True


def recipe(*stages: Stage, batch: int = 4, ema: float = 0.0, **changes: object) -> Recipe:
    """The recipe `quick`, made smaller and without augmentation."""
    base = read_recipe("quick")
    return replace(
        base,
        batch=batch,
        stages=stages or (Stage(epochs=2, lr=1e-3, warmup_epochs=1.0),),
        augmentation=Augmentation(),
        optimiser=replace(base.optimiser, ema=ema),
        evaluate_every=1,
        **changes,  # type: ignore[arg-type]
    )


def plan(folder: Path, own: Recipe | None = None, *, pictures: int = 12, **options: object) -> TrainingPlan:
    """A plan of three steps an epoch, without a validation set."""
    settings: dict[str, object] = {"val": None, "threads": 1} | options
    return TrainingPlan(spec=SPEC, recipe=own or recipe(), train=dataset(pictures), folder=folder, **settings)  # type: ignore[arg-type]


class Listener:
    """Remembers what it is told; may act after a step."""

    def __init__(self, after_step: Callable[[Step], None] = lambda _: None) -> None:
        self.after_step = after_step
        self.starts: list[Start] = []
        self.steps: list[Step] = []
        self.epochs: list[Epoch] = []
        self.messages: list[str] = []
        self.ends: list[Outcome] = []

    def on_start(self, event: Start) -> None:
        self.starts.append(event)

    def on_step(self, event: Step) -> None:
        self.steps.append(event)
        self.after_step(event)

    def on_epoch(self, event: Epoch) -> None:
        self.epochs.append(event)

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_end(self, event: Outcome) -> None:
        self.ends.append(event)


def metrics_of(data: Dataset, right: bool = True) -> Metrics:
    """Of a detector that finds everything, or nothing."""
    truth = [picture.boxes for picture in data.pictures]
    found = [
        Detections.of(boxes.corners, np.ones(len(boxes)), boxes.labels) if right else Detections.of([], [], [])
        for boxes in truth
    ]
    return score(truth, found, data.classes, dataset=data.name, split=data.split)


def run(own: TrainingPlan, listener: Listener | None = None, **options: object) -> Outcome:
    """Train on pictures in memory."""
    source = MemorySource(len(own.train.pictures), own.recipe.batch)
    return train(own, listener or Listener(), **{"source": source, **options})  # type: ignore[arg-type]


def unused(detector: Detector, data: Dataset, selection: Selection) -> Metrics:
    """An evaluation that must not happen."""
    raise AssertionError("evaluated")


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether all numbers are equal bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())
