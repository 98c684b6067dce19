"""How a network is trained, as a file: `recipes/*.toml`, whose comments cite where each number comes from.

Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, get_args

from scaler.data.augmentation import Augmentation
from scaler.errors import UsageError, unknown_name
from scaler.files import read_toml
from scaler.reader import Reader

__all__ = [
    "AnchorChoice",
    "Augmentation",
    "CurveKind",
    "Frozen",
    "Loss",
    "LossKind",
    "Optimiser",
    "OptimiserKind",
    "Recipe",
    "Stage",
    "read_recipe",
    "recipe_names",
    "recipe_text",
]

SCHEMA_VERSION = 1

LossKind: TypeAlias = Literal["yolov3", "scaled-yolov4", "retinanet"]
OptimiserKind: TypeAlias = Literal["sgd", "adam", "adamw"]
CurveKind: TypeAlias = Literal["cosine", "steps", "constant"]
Frozen: TypeAlias = Literal["none", "transferred", "backbone"]
AnchorChoice: TypeAlias = Literal["published", "k-means"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Assignment of objects to cells and weights of the parts."""

    kind: LossKind
    box: float = 1.0
    objectness: float = 1.0
    classes: float = 1.0
    ignore_iou: float = 0.5
    """`yolov3`: a prediction that overlaps an object by this or more is not taught to be background."""
    anchor_ratio: float = 4.0
    """`scaled-yolov4`: an object goes to every anchor with sides within this factor."""
    gamma: float = 2.0
    """`retinanet`: of the focal loss."""
    alpha: float = 0.25
    """`retinanet`: weight of the object's class in the focal loss."""
    beta: float = 1 / 9
    """`retinanet`: where the smooth L1 turns from a square into a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimiser:
    """What moves the weights."""

    kind: OptimiserKind
    momentum: float = 0.9
    """SGD's; beta 1 of Adam."""
    beta2: float = 0.999
    """Of Adam: decay of the mean square of the gradient."""
    nesterov: bool = False
    """Whether SGD looks ahead along its momentum."""
    weight_decay: float = 0.0
    """Of convolution weights; biases and normalisations have none."""
    clip: float = 0.0
    """Largest norm of the gradient; 0 is none."""
    ema: float = 0.0
    """Decay of the moving average of the weights, which is evaluated and kept; 0 is none."""
    transferred_lr: float = 1.0
    """Learning rate of weights that came from pretrained ones, as a share of that of the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of the training with one schedule."""

    epochs: int
    lr: float
    """Highest learning rate."""
    curve: CurveKind = "cosine"
    final: float = 0.0
    """Learning rate at the end as a share of `lr` (cosine)."""
    steps: tuple[float, ...] = ()
    """Where the learning rate falls tenfold, as shares of the stage (steps)."""
    warmup_epochs: float = 0.0
    """In which the learning rate rises from 0."""
    warmup_bias_lr: float = 0.0
    """From which the learning rate of biases goes to that of the others meanwhile."""
    warmup_momentum: float | None = None
    """From which SGD's momentum goes to its own value meanwhile; constant where None."""
    freeze: Frozen = "none"
    """Whose weights stay: those that came from pretrained weights, or the whole backbone; nothing where nothing was
    transferred."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that a training run needs beside network and data."""

    name: str
    description: str
    batch: int
    """Pictures of one step of the optimiser, all processes and accumulated parts together."""
    fill: int
    """Grey of the letterbox' border, 0 to 255."""
    anchors: AnchorChoice
    multi_scale: float
    """Largest change of the input size, as a share; a new multiple of the coarsest stride every ten steps; 0 is off."""
    adversarial: float
    """Weight of the loss on pictures changed against the network (self-adversarial training); 0 is off."""
    adversarial_step: float
    """Change of every pixel there, for pictures from 0 to 1."""
    extend_by_flops: bool
    """Whether the stages are lengthened by the FLOPs that a lighter head saves (Light-Weight RetinaNet)."""
    augmentation: Augmentation
    loss: Loss
    optimiser: Optimiser
    stages: tuple[Stage, ...]
    evaluate_every: int
    """Epochs."""
    confidence: float
    """Least score when AP is computed."""
    nms_iou: float
    max_detections: int

    @property
    def epochs(self) -> int:
        """Of all stages."""
        return sum(stage.epochs for stage in self.stages)

    def lasting(self, epochs: int) -> Recipe:
        """The recipe with all stages scaled to this many epochs together, at least one each.

        Raises:
            UsageError: Fewer epochs than stages.
        """
        if epochs < len(self.stages):
            raise UsageError(
                f"--epochs {epochs}: the recipe {self.name!r} has {len(self.stages)} stages; give {len(self.stages)} "
                "or more"
            )
        ends: list[int] = []
        total = 0
        for number, stage in enumerate(self.stages, 1):
            total += stage.epochs
            end = round(epochs * total / self.epochs)
            left = len(self.stages) - number
            ends.append(min(max(end, (ends[-1] if ends else 0) + 1), epochs - left))
        starts = [0, *ends[:-1]]
        scaled = [
            replace(stage, epochs=end - start, warmup_epochs=stage.warmup_epochs * (end - start) / stage.epochs)
            for stage, start, end in zip(self.stages, starts, ends, strict=True)
        ]
        return replace(self, stages=tuple(scaled))


def recipe_names() -> tuple[str, ...]:
    """The recipes that scaler ships."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def read_recipe(name: str | Path) -> Recipe:
    """Return a shipped recipe by name, or the one in a TOML file.

    Raises:
        FileError: The file is missing or malformed; one line with the place.
        UsageError: No recipe of this name.
    """
    path = Path(name)
    reader = read_toml(path if path.suffix.lower() == ".toml" else _shipped(str(name)), schema_version=SCHEMA_VERSION)
    recipe = _recipe(reader)
    reader.finish()
    return recipe


def recipe_text(name: str) -> str:
    """The file of a shipped recipe, to copy and change.

    Raises:
        UsageError: No recipe of this name.
    """
    return _shipped(name).read_text(encoding="utf-8")


def _shipped(name: str) -> Path:
    if name not in recipe_names():
        raise UsageError(unknown_name("recipe", name, recipe_names()))
    return _FOLDER / f"{name}.toml"


_FOLDER = Path(__file__).parent / "recipes"


def _recipe(reader: Reader) -> Recipe:
    data, evaluation = reader.table("data"), reader.table("evaluation")
    return Recipe(
        name=reader.string("name"),
        description=reader.string("description"),
        batch=data.integer("batch", minimum=1),
        fill=data.integer("fill", minimum=0, maximum=255),
        anchors=data.choice("anchors", get_args(AnchorChoice)),
        multi_scale=data.number("multi_scale", minimum=0, maximum=0.9),
        adversarial=data.number("adversarial", minimum=0),
        adversarial_step=data.number("adversarial_step", minimum=0, maximum=1),
        extend_by_flops=reader.boolean("extend_by_flops"),
        augmentation=_augmentation(reader.table("augmentation")),
        loss=_loss(reader.table("loss")),
        optimiser=_optimiser(reader.table("optimiser")),
        stages=tuple(_stage(stage) for stage in reader.tables("stages", at_least=1)),
        evaluate_every=evaluation.integer("every", minimum=1),
        confidence=evaluation.number("confidence", minimum=0, maximum=1),
        nms_iou=evaluation.number("nms_iou", minimum=0, maximum=1),
        max_detections=evaluation.integer("max_detections", minimum=1),
    )


def _augmentation(reader: Reader) -> Augmentation:
    plain = Augmentation()

    def chance(key: str) -> float:
        return reader.number(key, 0.0, minimum=0, maximum=1)

    def span(key: str, low: float, high: float) -> tuple[float, float]:
        return _range(reader, key, low, high) or (1.0, 1.0)

    quality = _range(reader, "jpeg_quality", 1, 100)
    return Augmentation(
        scale=span("scale", 0.01, 10),
        aspect=reader.number("aspect", 0.0, minimum=0, maximum=0.9),
        translate=chance("translate"),
        random_place=reader.boolean("random_place", False),
        rotation_degrees=reader.number("rotation_degrees", 0.0, minimum=0, maximum=180),
        flip=chance("flip"),
        hue=reader.number("hue", 0.0, minimum=0, maximum=0.5),
        saturation=span("saturation", 0, 10),
        value=span("value", 0, 10),
        gamma=span("gamma", 0.1, 10),
        contrast=span("contrast", 0, 10),
        jpeg_quality=(int(quality[0]), int(quality[1])) if quality else None,
        mosaic=chance("mosaic"),
        mixup=chance("mixup"),
        cutout=chance("cutout"),
        least_visible=reader.number("least_visible", plain.least_visible, minimum=0, maximum=1),
    )


def _range(reader: Reader, key: str, low: float, high: float) -> tuple[float, float] | None:
    found: Sequence[float] | None = reader.numbers(key, None, minimum=low, maximum=high)
    if found is None:
        return None
    if len(found) != 2 or found[0] > found[1]:
        raise reader.error(key, f"found {list(found)}", "expected [low, high]", "write two numbers, the lower first")
    return found[0], found[1]


def _loss(reader: Reader) -> Loss:
    return Loss(
        kind=reader.choice("kind", get_args(LossKind)),
        box=reader.number("box", 1.0, minimum=0),
        objectness=reader.number("objectness", 1.0, minimum=0),
        classes=reader.number("classes", 1.0, minimum=0),
        ignore_iou=reader.number("ignore_iou", 0.5, minimum=0, maximum=1),
        anchor_ratio=reader.number("anchor_ratio", 4.0, minimum=1),
        gamma=reader.number("gamma", 2.0, minimum=0),
        alpha=reader.number("alpha", 0.25, minimum=0, maximum=1),
        beta=reader.number("beta", 1 / 9, minimum=1e-6),
    )


def _optimiser(reader: Reader) -> Optimiser:
    return Optimiser(
        kind=reader.choice("kind", get_args(OptimiserKind)),
        momentum=reader.number("momentum", 0.9, minimum=0, maximum=0.9999),
        beta2=reader.number("beta2", 0.999, minimum=0, maximum=0.99999),
        nesterov=reader.boolean("nesterov", False),
        weight_decay=reader.number("weight_decay", 0.0, minimum=0, maximum=1),
        clip=reader.number("clip", 0.0, minimum=0),
        ema=reader.number("ema", 0.0, minimum=0, maximum=0.99999),
        transferred_lr=reader.number("transferred_lr", 1.0, minimum=0, maximum=1),
    )


def _stage(reader: Reader) -> Stage:
    return Stage(
        epochs=reader.integer("epochs", minimum=1),
        lr=reader.number("lr", minimum=1e-9, maximum=10),
        curve=reader.choice("curve", get_args(CurveKind), "cosine"),
        final=reader.number("final", 0.0, minimum=0, maximum=1),
        steps=reader.numbers("steps", (), minimum=0, maximum=1),
        warmup_epochs=reader.number("warmup_epochs", 0.0, minimum=0),
        warmup_bias_lr=reader.number("warmup_bias_lr", 0.0, minimum=0, maximum=10),
        warmup_momentum=reader.number("warmup_momentum", None, minimum=0, maximum=0.9999),
        freeze=reader.choice("freeze", get_args(Frozen), "none"),
    )
