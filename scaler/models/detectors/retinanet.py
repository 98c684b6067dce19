"""The RetinaNet family: ResNet or VoVNet, feature pyramid P3 to P7, shared head, lighter heads at the finest levels.

Source: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), as Detectron builds it; Li and Ren,
"Light-Weight RetinaNet" (arXiv 1905.10011) and its released code for the lighter heads. Parameters and the MACs of
every block agree with Detectron's network (tests/test_retinanet_counts.py); docs/adr/014-heaviest-block.md says more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Graph, GraphBuilder
from scaler.models.backbones import resnet, vovnet
from scaler.models.backbones.resnet import StrideIn
from scaler.models.backbones.trunk import Trunk
from scaler.models.detectors.checks import require, require_text, require_whole
from scaler.models.heads import retinanet as head
from scaler.models.necks.fpn import add_fpn

RESNETS = tuple(f"resnet-{depth}" for depth in resnet.DEPTHS)
VOVNETS = tuple(vovnet.MODELS)
BACKBONES = RESNETS + VOVNETS
RESOLUTIONS = (128, 1344)
WIDTHS = (16, 512)
MAX_TOWERS = 8
PUBLISHED_TOWERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class RetinaNetConfig:
    """One detector of the family; the defaults are the published RetinaNet.

    Raises:
        UsageError: A value outside its range; the message names field, value and range.
    """

    backbone: str = "resnet-50"
    """One of `BACKBONES`."""
    stride_in: StrideIn = "1x1"
    """Convolution with the stride in ResNet 50 to 152: `1x1` in Detectron's weights, `3x3` in torchvision's; `1x1` for
    the other backbones, which have no such choice."""
    width: int = 256
    """Channels of the pyramid and of the head's towers, a multiple of 8 from 16 to 512."""
    towers: int = PUBLISHED_TOWERS
    """Convolutions of the class and of the box branch before the one that predicts, 1 to 8."""
    lighten: str = "none"
    """Which levels have a lighter head, and how: a key of `scaler.models.heads.retinanet.LIGHTER`. Those that mix
    kernels within a tower are for towers of 4."""
    resolution: int = 800
    """Side of the square input in pixels, a multiple of 32 from 128 to 1344: the maps up to stride 32 must be twice
    each other, while P6 and P7 round up."""
    classes: int = 80

    def __post_init__(self) -> None:
        """Check every field."""
        require_text(self, "backbone", "stride_in", "lighten")
        if self.backbone not in BACKBONES:
            raise UsageError(unknown_name("backbone", self.backbone, BACKBONES))
        if self.lighten not in head.LIGHTER:
            raise UsageError(unknown_name("lighten", self.lighten, head.LIGHTER))
        require_whole(self, "width", "towers", "resolution", "classes")
        strides = get_args(StrideIn) if has_bottlenecks(self.backbone) else ("1x1",)
        require("stride_in", self.stride_in, self.stride_in in strides, f"{' or '.join(strides)} for {self.backbone}")
        low, high = WIDTHS
        require("width", self.width, self.width % 8 == 0 and low <= self.width <= high,
                f"a multiple of 8 from {low} to {high}")  # fmt: skip
        require("towers", self.towers, 1 <= self.towers <= MAX_TOWERS, f"1 to {MAX_TOWERS}")
        if mixes_kernels(self.lighten):
            require("towers", self.towers, self.towers == PUBLISHED_TOWERS,
                    f"{PUBLISHED_TOWERS} where lighten is {self.lighten}")  # fmt: skip
        low, high = RESOLUTIONS
        require("resolution", self.resolution, self.resolution % 32 == 0 and low <= self.resolution <= high,
                f"a multiple of 32 from {low} to {high}")  # fmt: skip
        require("classes", self.classes, self.classes >= 1, "1 or more")

    @property
    def name(self) -> str:
        """Short readable name, for instance `retinanet-resnet-50-256x4-released-800`."""
        stride = "-s3x3" if self.stride_in == "3x3" else ""
        lighten = "" if self.lighten == "none" else f"-{self.lighten}"
        return f"retinanet-{self.backbone}{stride}-{self.width}x{self.towers}{lighten}-{self.resolution}"


def has_bottlenecks(backbone: str) -> bool:
    """Whether a backbone is a ResNet of bottlenecks, whose stride has two possible places."""
    return backbone in RESNETS and resnet.DEPTHS[backbone.removeprefix("resnet-")][0]


def mixes_kernels(lighten: str) -> bool:
    """Whether a lighter head has towers of 1x1 and 3x3 convolutions, a pattern of four."""
    return any(len(head.TOWERS[layout.tower]) > 1 for layout in head.LIGHTER[lighten].values())


def trunk(config: RetinaNetConfig) -> Trunk:
    """The backbone of a configuration."""
    if config.backbone in VOVNETS:
        return vovnet.trunk(config.backbone, config.resolution)
    return resnet.trunk(config.backbone.removeprefix("resnet-"), config.resolution, config.stride_in)


def build(config: RetinaNetConfig) -> Graph:
    """Lower a configuration into its graph."""
    return assembled(config, trunk(config))


def assembled(config: RetinaNetConfig, body: Trunk) -> Graph:
    """The detector on a given backbone, whose picture need not be the configuration's."""
    kept, taps = body.truncated(0)
    graph = GraphBuilder(body.input_shape, kept)
    pyramid = add_fpn(graph, taps, config.width)
    outputs = head.add_head(graph, pyramid, classes=config.classes, towers=config.towers, lighten=config.lighten)
    return graph.build(config.name, outputs, head.box_count(pyramid), head.box_coding(tuple(pyramid)))
