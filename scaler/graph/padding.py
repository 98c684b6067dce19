"""A graph with the other convention of padding.

TensorFlow's `same` puts the odd pixel at the end of a strided window, torch's layers pad both sides alike. Weights
trained with one lose accuracy with the other.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from scaler.errors import UnsupportedError
from scaler.graph.graph import Block, Graph
from scaler.graph.ops import Conv, Padding, output_shape


def symmetric(graph: Graph) -> Graph:
    """The graph whose backbone's convolutions pad both sides alike, as torch's layers do; poolings stay.

    Raises:
        UnsupportedError: A map would change its size.
    """
    placements = tuple(
        place._replace(block=_symmetric_block(place.block)) if place.name.startswith("backbone.") else place
        for place in graph.placements
    )
    return replace(graph, placements=placements)


@cache
def _symmetric_block(block: Block) -> Block:
    shapes = list(block.input_shapes)
    nodes = []
    for node in block.nodes:
        op = node.op
        if isinstance(op, Conv) and (op.padding.top, op.padding.left) != (op.padding.bottom, op.padding.right):
            op = replace(op, padding=Padding(*[(op.kernel - 1) // 2] * 4))
            if output_shape(op, [shapes[value] for value in node.inputs]) != node.shape:
                raise UnsupportedError(f"{block.kind}: padding both sides of {node.name} alike changes the map's size")
        nodes.append(node._replace(op=op))
        shapes.append(node.shape)
    return replace(block, nodes=tuple(nodes))
