"""Where the numbers of a written network come from.

A weight source is a function from a layer to the arrays that its operator needs, by name; `SHAPES` says which.
Two are here: random weights for comparing results, and timing weights, which cost nothing to make and compress
to almost nothing, for networks that are written only to be timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TypeAlias
from zlib import crc32

import numpy as np
import numpy.typing as npt

from scaler.graph.graph import Layer
from scaler.graph.ops import BatchNorm, Conv, Linear, WeightedSum

Array: TypeAlias = npt.NDArray[np.float32]
WeightSource: TypeAlias = Callable[[Layer], dict[str, Array]]

_PERIOD = 4093
"""Length of the pattern of timing weights: prime, so that no two filters are equal, and short for a compressor."""


def shapes(layer: Layer) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays that a layer needs, by name; empty for operators without weights.

    `weight` is `[out, in / groups, k, k]` for convolutions and `[out, in]` for fully connected layers; batch
    normalisation has `gamma`, `beta`, `mean`, `variance`, a weighted sum has `scale`, one number an input.
    """
    channels = layer.input_shapes[0][0]
    match layer.op:
        case Conv(out_channels=out, kernel=k, groups=groups, bias=bias):
            return {"weight": (out, channels // groups, k, k)} | ({"bias": (out,)} if bias else {})
        case Linear(out_features=out, bias=bias):
            return {"weight": (out, channels)} | ({"bias": (out,)} if bias else {})
        case BatchNorm():
            return dict.fromkeys(("gamma", "beta", "mean", "variance"), (channels,))
        case WeightedSum():
            return {"scale": (len(layer.inputs),)}
        case _:
            return {}


def random_weights(seed: int = 0) -> WeightSource:
    """Weights that keep activations near unit size (He et al., ICCV 2015); from `seed` and their owner's name."""

    def source(layer: Layer) -> dict[str, Array]:
        generator = np.random.default_rng((seed, crc32(layer.weights.encode())))
        return _filled(layer, lambda size: generator.standard_normal(size, dtype=np.float32))

    return source


def timing_weights(layer: Layer) -> dict[str, Array]:
    """Weights for a network that is only timed: one short random pattern, repeated."""
    return _filled(layer, lambda size: np.resize(_pattern(), size))


@cache
def _pattern() -> Array:
    return np.random.default_rng(0).standard_normal(_PERIOD, dtype=np.float32)


def _filled(layer: Layer, normal: Callable[[int], Array]) -> dict[str, Array]:
    """Fill a layer's arrays from a source of standard normal numbers."""
    filled: dict[str, Array] = {}
    for name, shape in shapes(layer).items():
        values = normal(math.prod(shape)).reshape(shape)
        match name:
            case "weight":
                values *= np.float32(math.sqrt(2 / math.prod(shape[1:])))
            case "gamma" | "variance" | "scale":
                values = np.float32(1) + np.float32(0.1) * np.tanh(values)
            case _:
                values *= np.float32(0.1)
        filled[name] = values
    return filled
