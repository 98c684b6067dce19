"""What the tests against independent implementations share: a source of plausible numbers, and the comparison."""

import torch
from torch import Tensor, nn

from scaler.graph.graph import Graph
from scaler.training.network.mapping import Loaded, Naming, load_state
from scaler.training.network.module import to_torch


def pictures(side: int, count: int = 2, seed: int = 0) -> Tensor:
    """Normal numbers `[count, 3, side, side]`, the first picture with half the last one's contrast."""
    contrast = torch.linspace(1, 2, count)[:, None, None, None]
    return contrast * torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def settled(module: nn.Module, side: int) -> nn.Module:
    """Give a module numbers that tell errors: no layer is small, and no batch normalisation does nothing.

    Convolutions after He et al., random scales and biases; statistics are those of one batch of noise.
    """
    generator = torch.Generator().manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, 0, (2 / part.weight[0].numel()) ** 0.5, generator)
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5, generator)
            part.momentum = None  # the mean of all batches seen, here one
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and part.bias is not None:
            nn.init.normal_(part.bias, 0, 0.2, generator)
    module.train()
    with torch.no_grad():
        module(pictures(side, count=4, seed=2))
    return module.eval()


def compare(graph: Graph, other: nn.Module, naming: Naming, *, epsilon: float | None = None) -> Loaded:
    """Our module with the other's numbers computes what the other does; returns what was loaded.

    Both in double precision, which the other stays in, so that rounding hides nothing.
    """
    ours = to_torch(graph, seed=5).eval()
    loaded = load_state(ours, graph, other.state_dict(), naming, epsilon=epsilon)
    source = pictures(graph.input_shape[1]).double()
    with torch.no_grad():
        found, expected = list(ours.double()(source).values()), other.double()(source)
    for mine, theirs in zip(found, expected if isinstance(expected, list) else [expected], strict=True):
        agree(mine, theirs, 1e-5)
    return loaded


def agree(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Both are the same within a share of the largest number, and differ from picture to picture."""
    expected = expected.reshape(found.shape)
    scale = expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 0.02 * scale
    assert (found - expected).abs().max() < tolerance * scale
