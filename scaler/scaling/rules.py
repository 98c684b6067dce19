"""The scaling rules of Scaled-YOLOv4 as pure functions; sections and tables are those of arXiv:2011.08036v2.

The paper's "FLOPs" of layers and stages are multiply-accumulates, and that is what these functions return, for maps
of `w` x `h` pixels. They are for reasoning: which factor to move, which design to take. What a network costs is
counted on its graph (`scaler.cost`), which knows strides, widening, necks and heads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Literal, NamedTuple

LayerKind = Literal["res", "resx", "dark"]
"""ResNet's bottleneck (b/4), ResNeXt's (b/2, 32 groups), Darknet's residual (b/2)."""

Design = Literal["osa", "csp-osa", "csp-osa-pcb"]
"""OSANet; the same with a CSP connection around the block; with the cut inside the block (YOLOv4-tiny)."""

# --- What a group of layers costs, and what CSP saves (Tables 1 and 2) ---------------------------------------------


class GroupRule(NamedTuple):
    """Multiply-accumulates of a group of k layers in units of w h b^2: `k * layer`, or `split + k * half` with CSP."""

    layer: Fraction
    """One layer on all b channels."""
    split: Fraction
    """What the cross-stage connection adds once: a 1x1 on one half and the transition."""
    half: Fraction
    """One layer when only half of the channels go through it; the bottleneck's width stays."""


GROUPS: dict[LayerKind, GroupRule] = {
    "res": GroupRule(Fraction(17, 16), Fraction(3, 4), Fraction(13, 16)),
    "resx": GroupRule(Fraction(137, 128), Fraction(3, 4), Fraction(73, 128)),
    "dark": GroupRule(Fraction(5), Fraction(3, 4), Fraction(5, 2)),
}
"""Tables 1 and 2."""


def group_macs(kind: LayerKind, w: int, h: int, k: int, b: int) -> Fraction:
    """Multiply-accumulates of k layers with b channels on a map of w x h (Table 1, "original")."""
    return w * h * b**2 * k * GROUPS[kind].layer


def csp_group_macs(kind: LayerKind, w: int, h: int, k: int, b: int) -> Fraction:
    """The same with a cross-stage partial connection around the group (Table 2)."""
    rule = GROUPS[kind]
    return w * h * b**2 * (rule.split + k * rule.half)


def scaled_cost(*, size: float = 1.0, depth: float = 1.0, width: float = 1.0) -> float:
    """Factor on the cost of a group whose size, depth and width grow: `size^2 depth width^2` (Table 1)."""
    return size**2 * depth * width**2


def csp_saving(kind: LayerKind, k: int | None = None) -> Fraction:
    """Share of the cost that CSP saves with k layers; its limit for many layers where k is None.

    The limits are 23.5, 46.7 and 50.0 % (section 3.1).
    """
    rule = GROUPS[kind]
    return 1 - ((rule.half / rule.layer) if k is None else (rule.split + k * rule.half) / (k * rule.layer))


def csp_pays(k: int) -> bool:
    """Whether a CSPDarknet stage of k layers is cheaper than a Darknet stage: for k > 1 (section 4.1).

    The CSP stage counts `9/4 + 3/4 + 5k/2`, where 9/4 is the convolution that halves the map, the Darknet stage `5k`,
    without it. Counted alike, on the released blocks (`csp_block_macs` against `dark_residual_macs`), CSP is 5 %
    cheaper for k = 1 too. CSPDarknet53 keeps its first stage as a Darknet residual; P5 to P7 are CSP throughout.
    """
    return Fraction(9, 4) + GROUPS["dark"].split + k * GROUPS["dark"].half < k * GROUPS["dark"].layer


# --- The released blocks, exactly: c output channels, s pixels of the map ------------------------------------------


def dark_residual_macs(c: int, s: int) -> int:
    """Darknet's residual: 1x1 to c/2, 3x3 back to c."""
    return 5 * c**2 * s


def csp_block_macs(c: int, s: int, n: int) -> Fraction:
    """The backbone's CSP block of n residual units: `(9/4 + 5n/2) c^2 s`."""
    return (Fraction(9, 4) + n * Fraction(5, 2)) * c**2 * s


# --- Order of the factors, receptive field (section 3.3, Tables 6 and 7) -------------------------------------------

SCALE_ORDER = ("structure", "depth and width", "size and depth", "size and stages", "width")
"""From cheap to dear: tiny's structure or the CSP network's; s and m of the released files, depth and width together;
from YOLOv4-CSP to P5 size and depth; to P6 and P7 size and stages; width last, under the frame rate.

{input size, #stage} is the paper's best compound (section 3.3). Between CSP and P5, which both have five stages, the
receptive field can only follow the size by depth. Scaling down reads the order backwards: what was added last goes
first, and below s another structure is taken (section 3.2), not less of this one.
"""

STAGE_SIZES = {5: 896, 6: 1280, 7: 1536}
"""Largest input size of each number of stages: P5, P6 and P7 (Table 11)."""


def stages_for(size: int) -> int:
    """Stages that an input size asks for: as many as the smallest published network of that size or more has."""
    return next((stages for stages, largest in STAGE_SIZES.items() if size <= largest), max(STAGE_SIZES))


def receptive_field(layers: Iterable[tuple[int, int]]) -> int:
    """Side in input pixels that one output cell sees, of `(kernel, stride)` layers in order.

    Table 7 follows: input size and width do not enter, a k x k convolution adds k - 1 cells of its map, and a stage
    doubles what all layers after it add.
    """
    side, cell = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * cell
        cell *= stride
    return side


def darknet_receptive_field(repeats: Iterable[int]) -> int:
    """Receptive field of a (CSP)Darknet backbone with so many residual units in each stage."""
    layers = [(3, 1)]
    for n in repeats:
        layers += [(3, 2), *[(3, 1)] * n]
    return receptive_field(layers)


# --- Width and depth multipliers of the released files; `scaled_channels` and `scaled_units` apply them -----------


def depth_for(width: float) -> float:
    """Depth multiplier that the released s, m, l and x take with a width: `(4 width - 1) / 3`.

    0.50, 0.75, 1.00 and 1.25 give 0.33, 0.67, 1.00 and 1.33, in hundredths as in the files; never below 0.33.
    """
    return round(max((4 * width - 1) / 3, 1 / 3), 2)


# --- Low end (section 3.2, Tables 3 to 5): b channels enter, k layers of growth rate g -----------------------------


def dense_macs(w: int, h: int, b: int, g: int, k: int) -> int:
    """A dense block, kernel areas left out: `whgbk + whg^2 k(k-1)/2`."""
    return w * h * (g * b * k + g**2 * k * (k - 1) // 2)


def osa_macs(w: int, h: int, b: int, g: int, k: int) -> int:
    """A one-shot aggregation block, kernel areas left out: `whbg + whg^2 (k-1)`."""
    return w * h * (b * g + g**2 * (k - 1))


def channel_product(design: Design, b: int, g: int, k: int) -> Fraction:
    """Sum of `c_in c_out` over the layers of a block and its transition, kernel areas left out (Tables 4 and 5).

    The paper heads Table 5 "CIO", but these are weights, or multiply-accumulates a pixel. HarDNet's CIO, which adds
    up the maps that are read and written, is `Cost.conv_io`.
    """
    match design:
        case "osa":
            return b * g + (k - 1) * g**2 + Fraction((b + k * g) ** 2, 2)
        case "csp-osa":
            return Fraction(k * g**2 + (k * g) ** 2)
        case "csp-osa-pcb":
            return k * g**2 + Fraction((b + k * g) ** 2, 4)


def cut_inside_block_pays(b: int, g: int, k: int) -> bool:
    """Whether the CSP cut inside the block has the least channel product: where `k g > b`.

    Follows from Table 5; the paper's text says `k g > b/2`, which is not enough. YOLOv4-tiny has `k g = 1.5 b`.
    """
    return k * g > b


def growth_rate(b: int) -> int:
    """YOLOv4-tiny's growth rate: half of the channels that enter (section 4.2)."""
    return b // 2


def layers_for(b: int, g: int) -> int:
    """How many layers take `b/2 + k g` channels to 2b (section 4.2): 3 at the growth rate b/2."""
    return (2 * b - b // 2) // g


def split_channels(b: int, g: int, k: int, tau: int) -> int:
    """Channels of each of the two equal paths, up to a multiple of the hardware's granularity tau (section 3.2)."""
    return math.ceil(Fraction(b + k * g, 2 * tau)) * tau


def memory_access(h: int, w: int, c_in: int, c_out: int, kernel: int) -> int:
    """Elements that a convolution moves: `hw (c_in + c_out) + kernel^2 c_in c_out` (equation 1, ShuffleNetV2's G1)."""
    return h * w * (c_in + c_out) + kernel**2 * c_in * c_out


def least_memory_access(h: int, w: int, macs: int, kernel: int) -> float:
    """The least that a convolution of so many MACs can move: `2 sqrt(hw macs) / kernel + macs / (hw)`.

    Reached by equal input and output channels.
    """
    return 2 * math.sqrt(h * w * macs) / kernel + macs / (h * w)
