"""RetinaNet's head: a class and a box branch that all levels share, and lighter ones at the finest levels.

Source: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), section 4. The lighter heads follow the idea
of Li and Ren, "Light-Weight RetinaNet" (arXiv 1905.10011): P3's head takes 44 % of the MACs (48 % with the
pyramid's 3x3 convolution before it), so rewrite that block alone. `released` is the head of the authors' published
code. What the paper calls D-block v1, v2 and v3 is not established, and no name here claims to be one of them.

A level with a layout of its own has weights of its own, since a convolution cannot be 1x1 at P3 and 3x3 at P4; the
other levels share theirs. There is no normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Literal, NamedTuple, TypeAlias

from scaler.graph.boxes import BoxCoding, Scale
from scaler.graph.graph import Block, BlockBuilder, GraphBuilder, Tensor
from scaler.graph.ops import Activation, Shape
from scaler.models.necks.fpn import Pyramid, bare_conv, conv_block

ANCHOR_SCALE = 4
"""Side of the smallest square anchor in cells: 32 pixels at P3."""
OCTAVE_SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
RATIOS = (0.5, 1.0, 2.0)
"""Height over width."""
ANCHORS_PER_CELL = len(OCTAVE_SCALES) * len(RATIOS)

TowerConv: TypeAlias = Literal["1x1", "3x3", "separable"]
"""A convolution of a tower; `separable` is depthwise 3x3 and 1x1, each with a ReLU."""
Branch: TypeAlias = Literal["class", "box"]


class Layout(NamedTuple):
    """The head of one level."""

    tower: str = "3x3"
    """Key of `TOWERS`."""
    class_kernel: int = 3
    """Of the convolution that predicts the classes."""
    box_kernel: int = 3
    """Of the convolution that predicts the boxes."""


TOWERS: Mapping[str, tuple[TowerConv, ...]] = {
    "3x3": ("3x3",),
    "1x1": ("1x1",),
    "separable": ("separable",),
    "one 1x1": ("1x1", "3x3", "3x3", "3x3"),
    "alternate": ("1x1", "3x3", "1x1", "3x3"),
    "three 1x1": ("1x1", "1x1", "1x1", "3x3"),
}
"""The convolutions of both towers of a level, repeated up to the tower's length."""

FULL = Layout()
RELEASED = Layout("1x1", 1)
ALL_1X1 = Layout("1x1", 1, 1)
LIGHTER: Mapping[str, Mapping[int, Layout]] = {
    "none": {},
    "p3-one-1x1": {3: Layout("one 1x1")},
    "p3-alternate": {3: Layout("alternate")},
    "p3-three-1x1": {3: Layout("three 1x1")},
    "p3-depthwise": {3: Layout("separable")},
    "p3-towers-1x1": {3: Layout("1x1")},
    "p3-three-1x1-class-1x1": {3: Layout("three 1x1", 1)},
    "released": {3: RELEASED},
    "released-code": {3: RELEASED},
    "p3-1x1": {3: ALL_1X1},
    "released-p3-p4": {3: RELEASED, 4: RELEASED},
    "p3-p4-1x1": {3: ALL_1X1, 4: ALL_1X1},
}
"""Levels that differ from the full head, by the name of the rewrite, dearest first.

`p3-three-1x1-class-1x1` is how a reader of the paper describes its head (the released code's issue 2).
"""

OWN_FIRST = {"released-code": (5, 6, 7)}
"""Levels whose towers begin with a convolution of their own: a side effect of a condition in the released code, which
costs 3.5 M parameters and no MACs; `released` is without it."""


def output_channels(classes: int) -> dict[Branch, int]:
    """Nine anchors, each with a score per class and four numbers of a box."""
    return {"class": ANCHORS_PER_CELL * classes, "box": ANCHORS_PER_CELL * 4}


def box_count(pyramid: Pyramid) -> int:
    """Candidate boxes of all levels: nine a cell."""
    return sum(ANCHORS_PER_CELL * x.shape[1] * x.shape[2] for x in pyramid.values())


@cache
def anchors(stride: int) -> tuple[tuple[float, float], ...]:
    """Width and height in input pixels of the anchors of a level, scale by scale, ratio by ratio."""
    sides = [ANCHOR_SCALE * stride * octave for octave in OCTAVE_SCALES]
    return tuple((side / ratio**0.5, side * ratio**0.5) for side in sides for ratio in RATIOS)


@cache
def box_coding(levels: tuple[int, ...]) -> BoxCoding:
    """How the outputs of `add_head` stand for boxes."""
    return BoxCoding(
        "retinanet",
        tuple(Scale((f"p{level}_class", f"p{level}_box"), 2**level, anchors(2**level)) for level in levels),
    )


@cache
def tower_block(shape: Shape, width: int, kind: TowerConv) -> Block:
    """One convolution of a tower, with its ReLU."""
    block = BlockBuilder("head tower", shape)
    value = 0
    if kind == "separable":
        value = bare_conv(block, "depthwise", value, shape[0], 3, groups=shape[0])
        value = block.add("depthwise_relu", Activation("relu"), value)
    value = bare_conv(block, "conv", value, width, 3 if kind == "3x3" else 1)
    block.add("relu", Activation("relu"), value)
    return block.build()


class _Shared:
    """Places blocks; the first placement of a role owns the weights, the later ones share them."""

    def __init__(self, graph: GraphBuilder) -> None:
        self._graph = graph
        self._owners: dict[tuple[object, ...], str] = {}

    def add(self, name: str, block: Block, x: Tensor, *role: object) -> Tensor:
        owner = self._owners.setdefault(role, name)
        return self._graph.add(name, block, x, weights="" if owner == name else owner)


def add_head(
    graph: GraphBuilder, pyramid: Pyramid, *, classes: int, towers: int, lighten: str
) -> list[tuple[str, Tensor]]:
    """Place the head; returns name and raw map of the class and of the box branch, level by level, finest first.

    Args:
        graph: Where to place it.
        pyramid: Feature maps of equal width by level.
        classes: Number of classes.
        towers: Convolutions of each branch before the one that predicts.
        lighten: Key of `LIGHTER`.
    """
    shared = _Shared(graph)
    outputs = []
    for level, source in sorted(pyramid.items()):
        layout = LIGHTER[lighten].get(level, FULL)
        own_first = level if level in OWN_FIRST.get(lighten, ()) else 0
        kinds = TOWERS[layout.tower]
        tower_role = level if layout.tower != FULL.tower else 0
        for branch, channels in output_channels(classes).items():
            x, name = source, f"head.p{level}.{branch}"
            for index in range(towers):
                kind = kinds[index % len(kinds)]
                block = tower_block(x.shape, source.channels, kind)
                role = own_first if index == 0 and own_first else tower_role
                x = shared.add(f"{name}.tower{index}", block, x, branch, index, role)
            kernel = layout.class_kernel if branch == "class" else layout.box_kernel
            predictor = conv_block(x.shape, channels, kernel)
            role = level if kernel != 3 else 0
            x = shared.add(f"{name}.predictor", predictor, x, branch, "predictor", role)
            outputs.append((f"p{level}_{branch}", x))
    return outputs
