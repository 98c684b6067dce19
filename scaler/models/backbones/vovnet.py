"""VoVNet and VoVNetV2: few large convolutions whose outputs are concatenated once, at the end of each module.

Sources: Lee et al., "An Energy and GPU-Computation Efficient Backbone Network for Real-Time Object Detection" (CVPRW
2019), Table 1, and Lee and Park, "CenterMask" (CVPR 2020), Figure 3 and Table 4, for V2; their released code for what
these leave open: the depthwise variants, eSE in *every* module (as the parameters of Table 4 confirm), the ceil-mode
pools. V1 has no identity, as in the paper and in the released VoVNet-RefineDet.
"""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple, TypeAlias, get_args

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Block, BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Gate,
    GlobalAveragePool,
    MaxPool,
    Padding,
    Shape,
    pad_for,
)
from scaler.models.backbones.trunk import Trunk
from scaler.models.blocks import classifier_block, conv_bn

__all__ = ["ESE_KINDS", "MODELS", "STEM_KINDS", "EseKind", "StemKind", "Variant", "classifier", "label", "trunk"]

EseKind: TypeAlias = Literal["all", "last"]
"""V2's effective squeeze-and-excitation in all modules (the authors) or the last of each stage only (timm)."""

StemKind: TypeAlias = Literal["stride4", "pool"]
"""The third convolution is strided (the authors' PyTorch code), or stage 2 starts with a pool (the paper's figures)."""

ESE_KINDS: tuple[EseKind, ...] = get_args(EseKind)
STEM_KINDS: tuple[StemKind, ...] = get_args(StemKind)
NORM = BatchNorm(epsilon=1e-5, momentum=0.9)
STEM_CHANNELS = 64
FIRST_STAGE = 2
"""The modules' stages are called 2 to 5, of strides 4 to 32."""

LARGE = ((128, 256), (160, 512), (192, 768), (224, 1024))
SLIM = ((64, 128), (80, 256), (96, 384), (112, 512))
SLIM_19 = ((64, 112), *SLIM[1:])
"""Channels of the 3x3 convolutions and of the output, per stage. The 112 is the released code's."""


class Variant(NamedTuple):
    """What one model is made of."""

    convs: int
    """3x3 convolutions of a module."""
    modules: tuple[int, int, int, int]
    """Modules of stages 2 to 5."""
    widths: tuple[tuple[int, int], ...]
    """Channels of the 3x3 convolutions and of the output, per stage."""
    v2: bool = False
    """Whether modules have eSE, and an identity where they keep the shape."""
    depthwise: bool = False
    """Whether the 3x3 convolutions are depthwise with a 1x1 convolution behind."""

    @property
    def ese_matters(self) -> bool:
        """Whether eSE in all modules and in the last of each stage are two networks."""
        return self.v2 and max(self.modules) > 1

    @property
    def pyramid_width(self) -> int:
        """Channels of the feature pyramids that the authors put on it: FPNLite's on 19 layers; ours for 27-slim."""
        return 128 if self.convs == 3 or self.widths is SLIM else 256


MODELS = {
    "vovnet-27-slim": Variant(5, (1, 1, 1, 1), SLIM),
    "vovnet-39": Variant(5, (1, 1, 2, 2), LARGE),
    "vovnet-57": Variant(5, (1, 1, 4, 3), LARGE),
    "vovnet-75": Variant(5, (1, 2, 6, 3), LARGE),
    "vovnet-93": Variant(5, (1, 3, 8, 3), LARGE),
    "vovnet-99": Variant(5, (1, 3, 9, 3), LARGE),
    "vovnet2-19-slim-dw": Variant(3, (1, 1, 1, 1), SLIM_19, v2=True, depthwise=True),
    "vovnet2-19-dw": Variant(3, (1, 1, 1, 1), LARGE, v2=True, depthwise=True),
    "vovnet2-19-slim": Variant(3, (1, 1, 1, 1), SLIM_19, v2=True),
    "vovnet2-19": Variant(3, (1, 1, 1, 1), LARGE, v2=True),
    "vovnet2-39": Variant(5, (1, 1, 2, 2), LARGE, v2=True),
    "vovnet2-57": Variant(5, (1, 1, 4, 3), LARGE, v2=True),
    "vovnet2-93": Variant(5, (1, 3, 8, 3), LARGE, v2=True),
    "vovnet2-99": Variant(5, (1, 3, 9, 3), LARGE, v2=True),
}
"""By name: the generation, then the number of convolutions, 3 + modules x (convs + 1)."""


def _unit(block: BlockBuilder, name: str, value: int, channels: int, *, stride: int = 1, depthwise: bool) -> int:
    """Append 3x3 convolution, batch normalisation, ReLU; depthwise: 3x3 and 1x1 with nothing between them."""
    kernel = 3
    if depthwise:
        source = block.shape(value)
        pad = pad_for("symmetric", source[1], kernel, stride)
        value = block.add(f"{name}.depthwise", Conv(source[0], kernel, stride, source[0], pad), value)
        kernel, stride = 1, 1
    return conv_bn(
        block, name, value, channels, kernel=kernel, stride=stride, activation="relu", norm=NORM, padding="symmetric"
    )


def _ceil_pool(size: int) -> MaxPool:
    """3x3 max-pool of stride 2 in ceil mode without padding: its last window hangs over the edge of an even map."""
    over = 1 - size % 2
    return MaxPool(3, 2, Padding(0, 0, over, over))


def _ese(block: BlockBuilder, value: int) -> int:
    """Append effective squeeze-and-excitation: one 1x1 convolution, unreduced, and a hard sigmoid gate."""
    gate = block.add("ese.squeeze", GlobalAveragePool(), value)
    gate = block.add("ese.conv", Conv(block.shape(value)[0], bias=True), gate)
    gate = block.add("ese.hard_sigmoid", Activation("hard_sigmoid"), gate)
    return block.add("ese.gate", Gate(), value, gate)


@cache
def stem_block(shape: Shape, *, stride: int, depthwise: bool) -> Block:
    """Three 3x3 convolutions, the first strided, the third too for a total stride of 4."""
    block = BlockBuilder("stem", shape)
    out = STEM_CHANNELS if depthwise else 2 * STEM_CHANNELS
    value = _unit(block, "conv0", 0, STEM_CHANNELS, stride=2, depthwise=False)
    value = _unit(block, "conv1", value, STEM_CHANNELS, depthwise=depthwise)
    _unit(block, "conv2", value, out, stride=stride // 2, depthwise=depthwise)
    return block.build()


@cache
def osa_block(
    shape: Shape, width: int, out_channels: int, *, convs: int, depthwise: bool, pool: bool, ese: bool, identity: bool
) -> Block:
    """One-shot aggregation: a chain of 3x3 convolutions, all of them and the input concatenated, one 1x1 convolution.

    Args:
        shape: Of the input.
        width: Channels of the 3x3 convolutions.
        out_channels: Of the output.
        convs: Length of the chain.
        depthwise: Whether the 3x3 convolutions are depthwise; the input then comes to `width` by a 1x1 convolution of
            its own, which is not concatenated.
        pool: Whether the module starts with the stage's pool, which then writes into the concatenation.
        ese: Whether the output is gated.
        identity: Whether the input is added to the output.
    """
    block = BlockBuilder("OSA", shape)
    source = block.add("pool", _ceil_pool(shape[1]), 0) if pool else 0
    value = source
    if depthwise and block.shape(source)[0] != width:
        value = conv_bn(block, "reduce", source, width, activation="relu", norm=NORM)
    collected = [source]
    for index in range(convs):
        value = _unit(block, f"conv{index}", value, width, depthwise=depthwise)
        collected.append(value)
    value = block.add("concat", Concat(), *collected)
    value = conv_bn(block, "fuse", value, out_channels, activation="relu", norm=NORM)
    if ese:
        value = _ese(block, value)
    if identity:
        block.add("identity", Add(), value, source)
    return block.build()


@cache
def trunk(model: str, resolution: int, ese: EseKind = "all", stem: StemKind = "stride4") -> Trunk:
    """The convolutional part: the stem and one block for each one-shot aggregation module.

    Args:
        model: A key of `MODELS`.
        resolution: Side of the square input in pixels.
        ese: Where eSE sits; without a meaning for V1, which has none.
        stem: How the stem comes to stride 4.

    Raises:
        UsageError: An unknown name.
    """
    for what, name, known in (("VoVNet", model, MODELS), ("eSE", ese, ESE_KINDS), ("stem", stem, STEM_KINDS)):
        if name not in known:
            raise UsageError(unknown_name(what, name, known))
    variant, pooled = MODELS[model], stem == "pool"
    graph = GraphBuilder((3, resolution, resolution))
    start = stem_block(graph.input.shape, stride=2 if pooled else 4, depthwise=variant.depthwise)
    x = graph.add("backbone.stem", start, graph.input)
    for stage, (count, (width, out_channels)) in enumerate(zip(variant.modules, variant.widths, strict=True)):
        for index in range(count):
            block = osa_block(
                x.shape,
                width,
                out_channels,
                convs=variant.convs,
                depthwise=variant.depthwise,
                pool=index == 0 and (stage > 0 or pooled),
                ese=variant.v2 and (ese == "all" or index == count - 1),
                identity=variant.v2 and index > 0,
            )
            x = graph.add(f"backbone.stage{stage + FIRST_STAGE}.block{index}", block, x)
    built = graph.build("", [("features", x)])
    return Trunk(label(model, ese, stem), built.input_shape, built.placements)


def classifier(
    model: str, resolution: int = 224, classes: int = 1000, ese: EseKind = "all", stem: StemKind = "stride4"
) -> Graph:
    """The image classifier, for comparison with published counts and latencies."""
    body = trunk(model, resolution, ese, stem)
    graph = GraphBuilder(body.input_shape, body.placements)
    _, taps = body.truncated(0)
    logits = graph.add("classifier", classifier_block(taps[32].shape, classes), taps[32])
    return graph.build(f"{label(model, ese, stem)}-{resolution}", [("logits", logits)])


def label(model: str, ese: EseKind, stem: StemKind) -> str:
    """The model with what differs from the authors' code: `vovnet2-39-lastese-poolstem`."""
    return model + ("-lastese" if ese == "last" else "") + ("-poolstem" if stem == "pool" else "")
