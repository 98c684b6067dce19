"""Networks of one block, for testing operators one by one."""

from collections.abc import Callable

from scaler.graph.graph import BlockBuilder, Graph, GraphBuilder
from scaler.graph.ops import Activation, Conv, Gate, GlobalAveragePool

BuildBlock = Callable[[BlockBuilder], object]


def unit_graph(build_block: BuildBlock, side: int = 8) -> Graph:
    """A network of one block that reads a picture of 6 channels."""
    shape = (6, side, side)
    block, graph = BlockBuilder("unit", shape), GraphBuilder(shape)
    build_block(block)
    return graph.build("unit", [("out", graph.add("net", block.build(), graph.input))])


def chained(*ops: object) -> BuildBlock:
    """Operators one after the other."""

    def add(block: BlockBuilder) -> None:
        value = 0
        for index, op in enumerate(ops):
            value = block.add(f"op{index}", op, value)

    return add


def joined(op: object, count: int) -> BuildBlock:
    """An operator that reads the picture and `count - 1` convolutions of it."""
    return lambda block: block.add("op", op, 0, *[block.add(f"conv{i}", Conv(6), 0) for i in range(1, count)])


def gated(block: BlockBuilder) -> None:
    """The picture times a factor for each of its channels."""
    block.add("gate", Gate(), 0, block.add("sigmoid", Activation("sigmoid"), block.add("mean", GlobalAveragePool(), 0)))
