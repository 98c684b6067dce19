"""The Scaled-YOLOv4 family: YOLOv4-tiny and tiny-3l, YOLOv4-CSP and its scalings, YOLOv4-P5, P6 and P7.

Source: Wang, Bochkovskiy, Liao, "Scaled-YOLOv4: Scaling Cross Stage Partial Network" (CVPR 2021) and the
configurations and code that its authors released. Parameters and FLOPs agree with those for every published
configuration (tests/test_scaled_yolov4_counts.py); choices are explained in docs/adr/013-scaled-yolov4.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias, get_args

from scaler.errors import UsageError, unknown_name
from scaler.graph.boxes import BoxCoding
from scaler.graph.graph import Graph, GraphBuilder
from scaler.graph.ops import ActivationKind, BatchNorm
from scaler.models.backbones import csp_darknet, tiny_cspdarknet
from scaler.models.backbones.csp_darknet import Stage, csp_stage, dark_stage
from scaler.models.blocks_csp import Style
from scaler.models.detectors.checks import require, require_number, require_text, require_whole
from scaler.models.heads import yolov4
from scaler.models.necks.csp_pan import add_csp_pan
from scaler.models.necks.rfcr import add_rfcr
from scaler.models.necks.tiny_fpn import add_tiny_fpn

Variant: TypeAlias = Literal["tiny", "tiny-3l", "csp", "p5", "p6", "p7", "pacsp-s", "pacsp-x"]
ConcatNorm: TypeAlias = Literal["cfg", "yaml"]
ActivationName: TypeAlias = Literal["native", "leaky", "mish", "swish", "relu"]

VARIANTS = get_args(Variant)
CONCAT_NORMS = get_args(ConcatNorm)
ACTIVATIONS = get_args(ActivationName)
WIDTHS = (0.25, 2.0)
DEPTHS = (0.2, 2.0)
RFCR_KERNELS = (0, 3, 5, 7)
RESOLUTIONS = (160, 2048)
NORMS = {"cfg": BatchNorm(epsilon=1e-5, momentum=0.97), "yaml": BatchNorm(epsilon=1e-3, momentum=0.97)}
"""Of darknet and of the authors' PyTorch code."""


class Plan(NamedTuple):
    """A variant of the CSP networks at width and depth 1."""

    stem: int
    stages: tuple[Stage, ...]
    neck_units: int
    anchors: yolov4.Anchors
    resolution: int
    """The published one."""
    scales: bool = True
    """Whether the multipliers apply."""
    spp_pairs: tuple[int, int] = (1, 1)

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the outputs."""
        return tuple(2**number for number in range(3, len(self.stages) + 1))


_CSP_STAGES = (dark_stage(64, 1), csp_stage(128, 2), csp_stage(256, 8), csp_stage(512, 8), csp_stage(1024, 4))
_LARGE_STAGES = (csp_stage(64, 1), csp_stage(128, 3), csp_stage(256, 15), csp_stage(512, 15),
                 csp_stage(1024, 7), csp_stage(1024, 7), csp_stage(1024, 7))  # fmt: skip
_S_STAGES = (Stage(32, 1, 0, 32), csp_stage(64, 1), csp_stage(128, 1), csp_stage(256, 1), csp_stage(512, 1))
_X_STAGES = (dark_stage(80, 1), csp_stage(160, 3), csp_stage(320, 10), csp_stage(640, 10), csp_stage(1280, 5))

PLANS = {
    "csp": Plan(32, _CSP_STAGES, 2, yolov4.ANCHORS, 640),
    "p5": Plan(32, _LARGE_STAGES[:5], 3, yolov4.P5_ANCHORS, 896),
    "p6": Plan(32, _LARGE_STAGES[:6], 3, yolov4.P6_ANCHORS, 1280),
    "p7": Plan(32, _LARGE_STAGES, 3, yolov4.P7_ANCHORS, 1536),
    "pacsp-s": Plan(32, _S_STAGES, 1, yolov4.ANCHORS, 640, scales=False, spp_pairs=(0, 1)),
    "pacsp-x": Plan(32, _X_STAGES, 3, yolov4.ANCHORS, 640, scales=False, spp_pairs=(1, 2)),
}
TINY_STRIDES = {"tiny": (32, 16), "tiny-3l": (32, 16, 8)}
TINY_ANCHORS = {"tiny": yolov4.TINY_ANCHORS, "tiny-3l": yolov4.ANCHORS}
TINY_STEM, TINY_GROWTHS, TINY_LAST = 32, (32, 64, 128), 512
TINY_NECK = {32: 256, 16: 256, 8: 128}
TINY_LINKS = {16: 128, 8: 64}
TINY_HEAD = {32: 512}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledYoloV4Config:
    """One detector of the family.

    Raises:
        UsageError: A value outside its range; the message names field, value and range.
    """

    variant: Variant
    """Which network: the number of stages and their depths; one of `VARIANTS`.

    `tiny-3l` is the configuration of AlexeyAB's repository, not the unreleased network of the paper's Table 13;
    `pacsp-s` and `pacsp-x` are hand-written configurations that no multiplier gives."""
    width: float = 1.0
    """Multiplier of all channels, rounded up to multiples of 8; the published P7 has 1.25. 1.0 for `pacsp-*`."""
    depth: float = 1.0
    """Multiplier of the repeats; 1.0 for `tiny*` and `pacsp-*`."""
    rfcr: int = 0
    """Kernel of RFCR's depthwise convolution for `tiny` and `tiny-3l`, 5 in YOLO-ReT; 0 is without RFCR."""
    activation: ActivationName = "native"
    """`native` is leaky ReLU for `tiny*` and Mish else; there is no published accuracy with ReLU."""
    concat_norm: ConcatNorm = "cfg"
    """Normalisation around concatenations: `cfg` as in darknet's files, once a path; `yaml` as in the authors'
    PyTorch code, where the main path of a neck block is normalised and activated twice."""
    resolution: int = 640
    """Side of the square input in pixels, from 160 to 2048, a multiple of the coarsest stride."""
    classes: int = 80

    def __post_init__(self) -> None:
        """Check every field."""
        require_text(self, "variant", "activation", "concat_norm")
        for field, known in (("variant", VARIANTS), ("activation", ACTIVATIONS), ("concat_norm", CONCAT_NORMS)):
            if getattr(self, field) not in known:
                raise UsageError(unknown_name(field, getattr(self, field), known))
        require_number(self, "width", "depth")
        require_whole(self, "rfcr", "resolution", "classes")
        variant, tiny = self.variant, is_tiny(self.variant)
        hand_written = not tiny and not PLANS[variant].scales
        low, high = (1.0, 1.0) if hand_written else WIDTHS
        require("width", self.width, low <= self.width <= high,
                f"{WIDTHS[0]} to {WIDTHS[1]}, and 1.0 for pacsp-s and pacsp-x")  # fmt: skip
        low, high = (1.0, 1.0) if hand_written or tiny else DEPTHS
        require("depth", self.depth, low <= self.depth <= high,
                f"{DEPTHS[0]} to {DEPTHS[1]}, and 1.0 for tiny, tiny-3l, pacsp-s and pacsp-x")  # fmt: skip
        require("rfcr", self.rfcr, self.rfcr in (RFCR_KERNELS if tiny else (0,)),
                "0 (off), 3, 5 or 7, and 0 for all but tiny and tiny-3l")  # fmt: skip
        require("concat_norm", self.concat_norm, self.concat_norm == "cfg" or not (tiny or hand_written),
                "cfg for tiny, tiny-3l, pacsp-s and pacsp-x")  # fmt: skip
        stride = max_stride(variant)
        low, high = RESOLUTIONS
        require("resolution", self.resolution, self.resolution % stride == 0 and low <= self.resolution <= high,
                f"a multiple of {stride}, the coarsest stride of {variant}, from {low} to {high}")  # fmt: skip
        require("classes", self.classes, self.classes >= 1, "1 or more")

    @property
    def name(self) -> str:
        """Short readable name, for instance `yolov4-tiny-rfcr5-416` or `yolov4-csp-w0.5-d0.33-640`."""
        parts = [f"yolov4-{self.variant}"]
        parts += [f"w{self.width:g}"] if self.width != 1 else []
        parts += [f"d{self.depth:g}"] if self.depth != 1 else []
        parts += [f"rfcr{self.rfcr}"] if self.rfcr else []
        parts += [self.resolved_activation] if self.resolved_activation != native_activation(self.variant) else []
        parts += ["yaml"] if self.concat_norm == "yaml" else []
        return "-".join([*parts, str(self.resolution)])

    @property
    def resolved_activation(self) -> ActivationKind:
        """The activation, also where it is the variant's own."""
        return native_activation(self.variant) if self.activation == "native" else self.activation


def is_tiny(variant: str) -> bool:
    """Whether a variant is one of the low-end networks, which have their own structure."""
    return variant in TINY_STRIDES


def native_activation(variant: str) -> ActivationKind:
    """The activation of the released network."""
    return "leaky" if is_tiny(variant) else "mish"


def max_stride(variant: str) -> int:
    """Input pixels per cell of the coarsest map, of which the resolution must be a multiple."""
    return max(TINY_STRIDES[variant] if is_tiny(variant) else PLANS[variant].strides)


def scaled_channels(channels: int, width: float) -> int:
    """Channels times `width`, rounded up to a multiple of 8 as in the authors' code."""
    return math.ceil(channels * width / 8) * 8


def scaled_units(units: int, depth: float) -> int:
    """Repeats times `depth`, rounded, at least 1; what occurs once stays so, as in the authors' code."""
    return max(round(units * depth), 1) if units > 1 else units


def build(config: ScaledYoloV4Config) -> Graph:
    """Lower a configuration into its graph."""
    style = Style(config.resolved_activation, NORMS[config.concat_norm], config.concat_norm == "yaml")
    return _build_tiny(config, style) if is_tiny(config.variant) else _build_csp(config, style)


class _Scaled(NamedTuple):
    """A plan with the multipliers applied."""

    stem: int
    stages: tuple[Stage, ...]
    neck_units: int
    neck_widths: Mapping[int, int]
    head_widths: Mapping[int, int]


@cache
def _scaled(plan_name: str, width: float, depth: float) -> _Scaled:
    plan = PLANS[plan_name]
    tapped = {stride: plan.stages[number].channels for number, stride in enumerate(plan.strides, start=2)}
    return _Scaled(
        stem=scaled_channels(plan.stem, width) if plan.scales else plan.stem,
        stages=tuple(_scaled_stage(stage, width, depth) for stage in plan.stages) if plan.scales else plan.stages,
        neck_units=scaled_units(plan.neck_units, depth),
        neck_widths=MappingProxyType({s: scaled_channels(channels // 2, width) for s, channels in tapped.items()}),
        head_widths=MappingProxyType({s: scaled_channels(channels, width) for s, channels in tapped.items()}),
    )


def _scaled_stage(stage: Stage, width: float, depth: float) -> Stage:
    make = csp_stage if stage.path else dark_stage
    return make(scaled_channels(stage.channels, width), scaled_units(stage.units, depth))


def _build_csp(config: ScaledYoloV4Config, style: Style) -> Graph:
    plan, scaled = PLANS[config.variant], _scaled(config.variant, config.width, config.depth)
    body = csp_darknet.trunk("CSP-Darknet", scaled.stem, scaled.stages, config.resolution, style)
    kept, taps = body.truncated(0)
    graph = GraphBuilder(body.input_shape, kept)
    maps = add_csp_pan(graph, taps, scaled.neck_widths, units=scaled.neck_units, style=style, spp_pairs=plan.spp_pairs)
    outputs = yolov4.add_head(graph, maps, scaled.head_widths, plan.anchors, config.classes, style)
    return graph.build(config.name, outputs, yolov4.box_count(maps, plan.anchors), _coding(config.variant))


def _build_tiny(config: ScaledYoloV4Config, style: Style) -> Graph:
    def wide(channels: int) -> int:
        return scaled_channels(channels, config.width)

    growths = tuple(wide(growth) for growth in TINY_GROWTHS)
    body = tiny_cspdarknet.trunk(wide(TINY_STEM), growths, wide(TINY_LAST), config.resolution, style)
    kept, taps = body.truncated(0)
    graph = GraphBuilder(body.input_shape, kept)
    strides = TINY_STRIDES[config.variant]
    levels = taps
    if config.rfcr:
        levels = add_rfcr(graph, taps, (32, 16, 8), kernel=config.rfcr, shortcut=True, targets=strides)
    maps = add_tiny_fpn(
        graph,
        levels,
        widths={stride: wide(TINY_NECK[stride]) for stride in strides},
        links={stride: wide(TINY_LINKS[stride]) for stride in strides[1:]},
        style=style,
    )
    anchors = TINY_ANCHORS[config.variant]
    head_widths = {stride: wide(channels) for stride, channels in TINY_HEAD.items()}
    outputs = yolov4.add_head(graph, maps, head_widths, anchors, config.classes, style)
    return graph.build(config.name, outputs, yolov4.box_count(maps, anchors), _coding(config.variant))


@cache
def _coding(variant: str) -> BoxCoding:
    if is_tiny(variant):
        return yolov4.box_coding("yolov3", TINY_STRIDES[variant], TINY_ANCHORS[variant])
    plan = PLANS[variant]
    return yolov4.box_coding("yolov4", plan.strides, plan.anchors)
