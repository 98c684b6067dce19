"""The start of a detector's last layers: most boxes are background, and the head should say so from the first step.

Without it the background of thousands of boxes drowns the few objects at first (Lin et al., "Focal Loss", section 3.3).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scaler.graph.boxes import BoxCoding, Scale
from scaler.graph.graph import Graph, Layer
from scaler.graph.ops import Conv
from scaler.training.network.module import module_name

PRIOR = 0.01
"""Chance of an object that RetinaNet starts from (Detectron: PRIOR_PROB)."""
HEAD_DEVIATION = 0.01
"""Of the weights of RetinaNet's head (Detectron), and of a YOLO's output convolutions."""
OBJECTS, SIDE = 8, 640
"""Scaled-YOLOv4's code expects 8 objects in a picture of 640 pixels, at any size."""


def initialise_heads(module: nn.Module, graph: Graph, classes: int, *, seed: int = 0) -> None:
    """Set what training starts from in the heads of a fresh module, in place; call before loading weights.

    `retinanet` (Detectron): every convolution of the head normal with deviation 0.01, class biases at a chance of 0.01.
    `yolov3`, `yolov4`: the output convolutions normal with deviation 0.01 too, since He's rule, meant for what a ReLU
    follows, gives so few channels answers far from 0, whose gradients are a hundred times those that teach. Biases of
    objectness and classes low (Scaled-YOLOv4's code); YOLO-ReT's head has none.

    Args:
        module: What `scaler.training.network.module.to_torch` made of the graph.
        graph: The network; nothing is done where it is no detector.
        classes: Number of classes.
        seed: Of the random numbers.
    """
    if graph.coding is None:
        return
    layers = {layer.name: layer for layer in graph.layers()}
    ends = {
        label: layers[f"{graph.placements[place].name}.{graph.placements[place].block.nodes[-1].name}"]
        for label, place in graph.outputs
    }
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        if graph.coding.kind == "retinanet":
            _retinanet(module, graph.coding, layers, ends, generator)
        else:
            for scale in graph.coding.scales:
                _yolo(module, scale, ends[scale.outputs[0]], classes, generator)


def _yolo(module: nn.Module, scale: Scale, layer: Layer, classes: int, generator: torch.Generator) -> None:
    convolution = module.get_submodule(module_name(layer))
    assert isinstance(convolution, nn.Conv2d)
    nn.init.normal_(convolution.weight, 0, HEAD_DEVIATION, generator)
    if convolution.bias is not None:
        bias = convolution.bias.view(len(scale.anchors), -1)
        bias[:, 4] = math.log(OBJECTS / (SIDE / scale.stride) ** 2)
        bias[:, 5:] = math.log(0.6 / (classes - 0.99))


def _retinanet(
    module: nn.Module,
    coding: BoxCoding,
    layers: dict[str, Layer],
    ends: dict[str, Layer],
    generator: torch.Generator,
) -> None:
    for layer in layers.values():
        if layer.name.startswith("head.") and layer.name == layer.weights and isinstance(layer.op, Conv):
            weight = module.get_submodule(module_name(layer)).weight
            assert isinstance(weight, Tensor)
            nn.init.normal_(weight, 0, HEAD_DEVIATION, generator)
    for scale in coding.scales:
        bias = module.get_submodule(module_name(ends[scale.outputs[0]])).bias
        assert isinstance(bias, Tensor)
        nn.init.constant_(bias, -math.log((1 - PRIOR) / PRIOR))
