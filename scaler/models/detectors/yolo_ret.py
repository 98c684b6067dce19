"""The YOLO-ReT family: truncated backbone, RFCR, lightweight neck, YOLOv3 head.

Source: Ganesh, Chen, Jain, Qian, Chen, Ben-Yehuda, "YOLO-ReT: Towards High Accuracy Real-time Object Detection on Edge
GPUs" (WACV 2022) and its released code. Parameters and MACs agree with that code for every published
configuration (tests/test_yolo_ret_counts.py). With a VoVNet as backbone it is ours: nobody published one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import get_args

from scaler.errors import UnsupportedError, UsageError, listed, unknown_name
from scaler.graph.graph import Graph, GraphBuilder
from scaler.models.backbones import efficientnet, mobilenetv2, vovnet
from scaler.models.backbones.trunk import Trunk
from scaler.models.blocks import round_channels
from scaler.models.detectors.checks import require, require_number, require_text, require_whole
from scaler.models.heads import yolov3
from scaler.models.necks.light import LEVEL_WIDTHS, NeckKind, add_neck
from scaler.models.necks.rfcr import add_rfcr

BACKBONES = ("mobilenetv2", "efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3")
"""The paper's."""
VOVNETS = tuple(vovnet.MODELS)
"""Ours to combine with its necks: docs/adr/012-families-in-one-graph.md."""
KNOWN_BACKBONES = BACKBONES + VOVNETS
WIDTHS = (0.35, 1.4)
RESOLUTIONS = (160, 640)
RFCR_KERNELS = (0, 3, 5, 7)
MAX_REPEATS = 16
NECKS = get_args(NeckKind)
EFFICIENTDET_WIDTHS = {"b0": 64, "b1": 88, "b2": 112, "b3": 160}
"""BiFPN channels of EfficientDet-D0 to D3 (Tan et al., CVPR 2020, Table 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class YoloRetConfig:
    """One detector of the family.

    Raises:
        UsageError: A value outside its range; the message names field, value and range.
        UnsupportedError: More blocks dropped than the detector's scales allow.
    """

    backbone: str
    """One of `KNOWN_BACKBONES`."""
    width: float = 1.0
    """Width multiplier of MobileNetV2, 0.35 to 1.4; 1.0 for the others."""
    drop: int = 0
    """Trailing backbone blocks cut off: 0 keeps all; `published_drop` is the paper's cut."""
    neck: NeckKind = "panet"
    repeats: int = 1
    """How often the neck aggregates, at most `MAX_REPEATS`."""
    rfcr: int = 0
    """Kernel of RFCR's depthwise convolution, 5 in the paper; 0 is without RFCR."""
    shortcut: bool = False
    """Whether RFCR also collects the map of stride 4."""
    resolution: int = 320
    """Side of the square input in pixels, a multiple of 32 from 160 to 640."""
    ese: vovnet.EseKind = "all"
    """Which modules of a VoVNetV2 have eSE; `all` for the others, and where each stage has one module."""
    stem: vovnet.StemKind = "stride4"
    """How the stem of a VoVNet comes to stride 4; `stride4` for the others."""
    classes: int = 20

    def __post_init__(self) -> None:
        """Check every field."""
        require_text(self, "backbone", "neck")
        if self.backbone not in KNOWN_BACKBONES:
            raise UsageError(unknown_name("backbone", self.backbone, KNOWN_BACKBONES))
        if self.neck not in NECKS:
            raise UsageError(unknown_name("neck", self.neck, NECKS))
        require_number(self, "width")
        require_whole(self, "drop", "repeats", "rfcr", "resolution", "classes")
        mobile = self.backbone == "mobilenetv2"
        require("width", self.width, WIDTHS[0] <= self.width <= WIDTHS[1] if mobile else self.width == 1.0,
                 f"{WIDTHS[0]} to {WIDTHS[1]} for mobilenetv2, 1.0 for {self.backbone}")  # fmt: skip
        most = 1 if self.neck == "none" else MAX_REPEATS
        require("repeats", self.repeats, 1 <= self.repeats <= most, f"1 to {MAX_REPEATS}, and 1 for the neck 'none'")
        require("rfcr", self.rfcr, self.rfcr in RFCR_KERNELS, "0 (off), 3, 5 or 7")
        require("shortcut", self.shortcut, bool(self.rfcr) or not self.shortcut, "false where rfcr is 0")
        low, high = RESOLUTIONS
        require("resolution", self.resolution, self.resolution % 32 == 0 and low <= self.resolution <= high,
                 f"a multiple of 32 from {low} to {high}")  # fmt: skip
        require("classes", self.classes, self.classes >= 1, "1 or more")
        if (self.ese, self.stem) != ("all", "stride4"):
            self._check_vovnet()
        allowed = max_drop(self.backbone)
        if not 0 <= self.drop <= allowed:
            raise UnsupportedError(
                f"drop = {self.drop}: {self.backbone} allows 0 to {allowed}, since a block of stride 32 must "
                "remain for the coarsest scale"
            )

    def _check_vovnet(self) -> None:
        """Refuse an `ese` or `stem` that is unknown or that the backbone does not have."""
        require_text(self, "ese", "stem")
        for kind, value, known in (("ese", self.ese, vovnet.ESE_KINDS), ("stem", self.stem, vovnet.STEM_KINDS)):
            if value not in known:
                raise UsageError(unknown_name(kind, value, known))
        variant = vovnet.MODELS.get(self.backbone)
        if self.ese != "all" and not (variant and variant.ese_matters):
            having = [name for name, other in vovnet.MODELS.items() if other.ese_matters]
            raise UnsupportedError(f"ese = {self.ese}: {self.backbone} allows all; {listed(having)} allow last too")
        if self.stem != "stride4" and not variant:
            raise UnsupportedError(f"stem = {self.stem}: {self.backbone} allows stride4; only a VoVNet has other stems")

    @property
    def name(self) -> str:
        """Short readable name, for instance `mobilenetv2-0.75-d2-rfcr5s-panet-320`."""
        width = f"-{self.width:g}" if self.backbone == "mobilenetv2" else ""
        backbone = vovnet.label(self.backbone, self.ese, self.stem)
        rfcr = f"-rfcr{self.rfcr}{'s' if self.shortcut else ''}" if self.rfcr else ""
        neck = self.neck if self.repeats == 1 else f"{self.neck}x{self.repeats}"
        return f"{backbone}{width}-d{self.drop}{rfcr}-{neck}-{self.resolution}"


def trunk(
    backbone: str,
    width: float,
    resolution: int,
    ese: vovnet.EseKind = "all",
    stem: vovnet.StemKind = "stride4",
) -> Trunk:
    """The complete backbone of a configuration."""
    if backbone in vovnet.MODELS:
        return vovnet.trunk(backbone, resolution, ese, stem)
    if backbone == "mobilenetv2":
        return mobilenetv2.trunk(width, resolution)
    return efficientnet.trunk(backbone.removeprefix("efficientnet-"), resolution)


@cache
def max_drop(backbone: str) -> int:
    """How many trailing blocks may be dropped."""
    return trunk(backbone, 1.0, RESOLUTIONS[0]).max_drop


def published_drop(backbone: str) -> int:
    """The paper's cut: the last two entries of MobileNetV2, head and stage 7 of EfficientNet; nothing of a VoVNet."""
    if backbone in vovnet.MODELS:
        return 0
    if backbone == "mobilenetv2":
        return mobilenetv2.PUBLISHED_DROP
    return efficientnet.PUBLISHED_DROP[backbone.removeprefix("efficientnet-")]


def bifpn_width(backbone: str, width: float) -> int:
    """Channels inside BiFPN: as in EfficientDet, 64 per unit of MobileNetV2's width, as in the pyramids on VoVNets."""
    if backbone in vovnet.MODELS:
        return vovnet.MODELS[backbone].pyramid_width
    if backbone == "mobilenetv2":
        return round_channels(64 * width)
    return EFFICIENTDET_WIDTHS[backbone.removeprefix("efficientnet-")]


def build(config: YoloRetConfig) -> Graph:
    """Lower a configuration into its graph."""
    body = trunk(config.backbone, config.width, config.resolution, config.ese, config.stem)
    kept, taps = body.truncated(config.drop)
    graph = GraphBuilder(body.input_shape, kept)
    levels = {stride: taps[stride] for stride in LEVEL_WIDTHS}
    if config.rfcr:
        levels = add_rfcr(graph, taps, tuple(LEVEL_WIDTHS), kernel=config.rfcr, shortcut=config.shortcut)
    maps = add_neck(
        graph,
        config.neck,
        levels,
        repeats=config.repeats,
        bifpn_width=bifpn_width(config.backbone, config.width),
        out_channels=yolov3.output_channels(config.classes),
    )
    outputs = yolov3.add_head(graph, maps, config.classes)
    return graph.build(config.name, outputs, yolov3.box_count(maps), yolov3.box_coding(tuple(maps)))
