"""Networks by name: what others measured on our devices, for calibration, comparison and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Protocol

from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Graph
from scaler.models.backbones import (
    darknet,
    efficientnet,
    mnasnet,
    mobilenetv1,
    mobilenetv2,
    mobilenetv3,
    resnet,
    resnet_slim,
    squeezenet,
    vgg,
    vovnet,
)
from scaler.models.detectors import retinanet, scaled_yolov4, tiny_yolov3, yolov8, yolox


class Builder(Protocol):
    """From the side of the square input in pixels, and the number of classes, to the network."""

    def __call__(self, *, resolution: int, classes: int = ...) -> Graph:
        """The network; its usual number of classes where none is given."""
        ...


WIDTHS = {
    "mobilenetv1": (0.25, 0.5, 0.75, 1.0),
    "mobilenetv2": (0.35, 0.5, 0.75, 1.0, 1.3, 1.4),
    "mnasnet": (0.5, 0.75, 1.0, 1.3),
}
"""Those with trained weights."""

YOLOV4_WIDTHS = {"p7": 1.25}
"""Of the published variants whose width is not 1."""


def _yolov4(variant: scaled_yolov4.Variant, resolution: int, classes: int = 80) -> Graph:
    width = YOLOV4_WIDTHS.get(variant, 1.0)
    return scaled_yolov4.build(
        scaled_yolov4.ScaledYoloV4Config(variant=variant, width=width, resolution=resolution, classes=classes)
    )


def _retinanet(backbone: str, resolution: int, classes: int = 80) -> Graph:
    return retinanet.build(retinanet.RetinaNetConfig(backbone=backbone, resolution=resolution, classes=classes))


NETWORKS: Mapping[str, Builder] = MappingProxyType(
    {f"resnet-{depth}": partial(resnet.classifier, depth) for depth in resnet.DEPTHS}
    | {f"resnet-{depth}-slim": partial(resnet_slim.classifier, depth) for depth in resnet_slim.BOTTLENECK_DEPTHS}
    | {f"vgg-{depth}": partial(vgg.classifier, depth) for depth in vgg.CONVOLUTIONS}
    | {f"vgg-{depth}-bn": partial(vgg.classifier, depth, normalised=True) for depth in vgg.CONVOLUTIONS}
    | {"alexnet": squeezenet.alexnet}
    | {f"squeezenet-{version}": partial(squeezenet.classifier, version) for version in squeezenet.VARIANTS}
    | {f"mobilenetv1-{width:g}": partial(mobilenetv1.classifier, width) for width in WIDTHS["mobilenetv1"]}
    | {f"mobilenetv2-{width:g}": partial(mobilenetv2.classifier, width) for width in WIDTHS["mobilenetv2"]}
    | {f"mobilenetv3-{variant}": partial(mobilenetv3.classifier, variant) for variant in mobilenetv3.VARIANTS}
    | {f"mnasnet-{width:g}": partial(mnasnet.classifier, width) for width in WIDTHS["mnasnet"]}
    | {f"efficientnet-{variant}": partial(efficientnet.classifier, variant) for variant in efficientnet.SCALING}
    | {model: partial(vovnet.classifier, model) for model in vovnet.MODELS}
    | {variant: partial(darknet.classifier, variant) for variant in darknet.VARIANTS}
    | {"yolov3-tiny": tiny_yolov3.build}
    | {f"yolov4-{variant}": partial(_yolov4, variant) for variant in scaled_yolov4.VARIANTS}
    | {f"yolov8-{variant}": partial(yolov8.build, variant) for variant in yolov8.VARIANTS}
    | {f"yolox-{variant}": partial(yolox.build, variant) for variant in yolox.VARIANTS}
    | {f"retinanet-{backbone}": partial(_retinanet, backbone) for backbone in retinanet.BACKBONES}
)
"""Builder by name, with which the name of its graphs begins; each as it was published."""


@cache
def network(name: str, resolution: int, classes: int | None = None) -> Graph:
    """A published network.

    Args:
        name: One of `NETWORKS`.
        resolution: Side of the square input in pixels.
        classes: Number of classes; where none is given, 1000 of a classifier and the 80 of COCO of a detector.

    Raises:
        UsageError: An unknown name, or a resolution that the network does not take.
    """
    if name not in NETWORKS:
        raise UsageError(unknown_name("network", name, NETWORKS))
    build = NETWORKS[name]
    return build(resolution=resolution) if classes is None else build(resolution=resolution, classes=classes)
