"""Which networks of a space to measure: the fewest that hold its kernels between them.

An engine a kernel would be exact and costs thousands of builds; a network's profile times some forty kernels at once.
The networks are chosen by greedy cover (Nemhauser, Wolsey, Fisher 1978: at least 63 % of what the best choice of as
many covers). What is covered is a kernel's shape, that is all of it but the size of its map, once each at small, middle
and large maps: between map sizes a kernel model interpolates well, between other things hardly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scaler.devices import Precision
from scaler.errors import UsageError, unknown_name
from scaler.graph.graph import Block
from scaler.latency.fusion import RULES, FusionRules, block_kernels
from scaler.latency.kernels import Kernel
from scaler.models.detectors.families import build
from scaler.models.detectors.yolo_ret import RESOLUTIONS, YoloRetConfig, published_drop
from scaler.profiling.plan_file import Plan, Planned
from scaler.runtimes.protocol import FloatArray
from scaler.search.predictors import classes_of
from scaler.space import Params, Space
from scaler.space_file import read_space

__all__ = ["Choice", "Coverage", "choose", "cover", "held_out", "make_plan", "reference_network"]

IntArray = npt.NDArray[np.intp]

Fits = Callable[[Params], bool]


def whatever(_params: Params) -> bool:
    """Every candidate is wanted."""
    return True


POOL = 8192
"""Candidates to choose among; of a larger space so many are drawn."""
ENUMERABLE = 100_000
"""Size of a space up to which it is listed to draw from, each candidate with the same chance."""
BANDS = 3
"""Ranges of map size, equal on a logarithmic scale, in which a kernel shape is wanted."""
MACS_PER_ELEMENT = 20
"""Multiply-accumulates in the time of one element moved: 18 by the Nano's data sheet (472 GFLOPS, 25.6 GB/s, fp16)."""
_REPORT_EVERY = 256


class Coverage(NamedTuple):
    """What some networks hold of a space; shares from 0 to 1."""

    networks: int
    """How many they are, and so the engines to build."""
    shapes: float
    """Of the kernel shapes, at any map size."""
    pairs: float
    """Of the kernel shapes, each at small, middle and large maps."""
    kernels: float
    """Of the kernels themselves, to the exact map size."""
    work: float
    """Mean share of a candidate's work that lies in kernel shapes held at about that map size; work stands in for
    time: MACs and `MACS_PER_ELEMENT` for each element moved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Networks to measure, the most useful first."""

    params: tuple[Params, ...]
    coverage: tuple[Coverage, ...]
    """Of the first network, the first two, ... all."""
    kernels: int
    """Different kernels in the candidates looked at: the engines to build if each had its own."""
    shapes: int
    """Different kernel shapes in them."""
    looked_at: int
    """Candidates."""
    complete: bool
    """Whether these were all of the space; otherwise the numbers of kernels and shapes are lower bounds."""


@dataclass(frozen=True, slots=True, eq=False)
class Census:
    """The kernels of some candidates; `occurrences` and `owner` run over all kernels of all candidates."""

    kernels: tuple[Kernel, ...]
    """The different ones."""
    shape: IntArray
    """Of each, the number of its shape."""
    pair: IntArray
    """Of each, the number of its shape and band."""
    occurrences: IntArray
    """Numbers of kernels."""
    owner: IntArray
    """To which candidate each belongs."""
    work: FloatArray
    """Of each candidate."""
    share: FloatArray
    """Of each pair: the mean over the candidates of its share of their work."""
    holds: npt.NDArray[np.bool_]
    """(candidates, pairs): whether a candidate has a kernel of this shape and band."""


def choose(
    space: Space,
    dataset: str,
    rules: FusionRules,
    *,
    networks: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    fits: Fits = whatever,
) -> Choice:
    """Choose the networks to measure; the same for the same seed.

    Each next network is the one that adds most, the cheaper of equals. What it adds counts half by the number of new
    kernel shapes and bands, half by the work that the space does in them. When nothing is left to add, the rest is
    drawn at random.

    Args:
        space: The search space.
        dataset: `voc` or `coco`; gives the number of classes.
        rules: What the runtime fuses.
        networks: How many.
        seed: Of the draws.
        progress: Told how many candidates were looked at, and of how many.
        fits: Whether the device can build a network at all; others are not chosen.

    Raises:
        UsageError: No such data set, or the space has fewer networks that fit.
    """
    if not 1 <= networks <= space.size:
        raise UsageError(f"{networks} networks: the space {space.name!r} has {space.size}; ask for 1 to {space.size}")
    rng = np.random.default_rng(seed)
    pool = draw(space, max(POOL, networks), rng)
    census = take_census(space, dataset, rules, pool, progress)
    chosen = _fitting(census, pool, networks, fits, rng.permutation(len(pool)).tolist())
    if len(chosen) < networks:
        raise UsageError(f"{networks} networks: only {len(chosen)} of {space.name!r} fit into the device's memory")
    return Choice(
        params=tuple(pool[index] for index in chosen),
        coverage=cover(census, chosen),
        kernels=len(census.kernels),
        shapes=int(census.shape.max()) + 1,
        looked_at=len(pool),
        complete=len(pool) == space.size,
    )


def make_plan(
    space_name: str,
    dataset: str,
    device_id: str,
    power_mode: str,
    runtime: str,
    precision: Precision,
    batch: int,
    opset: int,
    networks: int,
    seed: int = 0,
    *,
    choice: Choice | None = None,
) -> Plan:
    """Make the plan of a device; the reference network is that of `reference_network`.

    Args:
        space_name: Name or path of the search space.
        dataset: `voc` or `coco`.
        device_id: Of the device.
        power_mode: Its power mode.
        runtime: `onnxruntime` or `tensorrt`.
        precision: Of the engines.
        batch: Pictures an inference.
        opset: Of the ONNX files.
        networks: How many to measure.
        seed: Of the draws.
        choice: What `choose` returned for these arguments, where that has been done already.

    Raises:
        FileError: The space's file is malformed.
        UsageError: An unknown space, data set or runtime, or more networks than there are.
    """
    if runtime not in RULES:
        raise UsageError(unknown_name("runtime", runtime, RULES))
    space = read_space(space_name)
    found = choice or choose(space, dataset, RULES[runtime], networks=networks, seed=seed)
    return Plan(
        device=device_id,
        power_mode=power_mode,
        runtime=runtime,
        precision=precision,
        batch=batch,
        opset=opset,
        space=space_name,
        digest=space.digest,
        dataset=dataset,
        networks=tuple(Planned(network=space.candidate_id(params), params=params) for params in found.params),
        reference=reference_network(space, dataset, RULES[runtime], found.params),
    )


def reference_network(space: Space, dataset: str, rules: FusionRules, chosen: Sequence[Params]) -> Params:
    """The network to time beside each other one.

    MobileNetV2 x0.75 at the published cut with RFCR 5, its shortcut and PANet, at the smallest resolution of the
    space: a published network that takes milliseconds everywhere. Where the space does not have it, the chosen network
    with the least work.
    """
    drop, (low, high) = published_drop("mobilenetv2"), RESOLUTIONS
    for side in range(low, high + 1, 32):
        published = YoloRetConfig(
            backbone="mobilenetv2", width=0.75, drop=drop, rfcr=5, shortcut=True, neck="panet", resolution=side
        )
        if (found := space.find(published)) is not None:
            return found
    work = take_census(space, dataset, rules, chosen).work
    return chosen[int(np.argmin(work))]


def held_out(space: Space, plan: Plan, count: int, seed: int = 0, fits: Fits = whatever) -> tuple[Params, ...]:
    """Random candidates that fit and are neither in a plan nor its reference, to test what was learnt from it.

    Raises:
        UsageError: The space does not have so many others.
    """
    planned = {network.network for network in plan.networks} | {space.candidate_id(plan.reference)}
    found = draw(space, count, np.random.default_rng(seed), planned, fits)
    if len(found) < count:
        raise UsageError(f"{count} networks beside the plan: the space {space.name!r} has only {len(found)}")
    return tuple(found)


def draw(
    space: Space,
    count: int,
    rng: np.random.Generator,
    without: Collection[str] = (),
    fits: Fits = whatever,
) -> list[Params]:
    """Draw different candidates, as many as there are at most.

    Args:
        space: The search space.
        count: How many.
        rng: Source of the draws.
        without: Ids of candidates that are not wanted.
        fits: Whether a candidate is wanted.
    """
    if space.size <= ENUMERABLE:
        everything = list(space.candidates())
        drawn = (everything[index] for index in rng.permutation(len(everything)).tolist())
    else:
        drawn = (space.sample(rng) for _ in range(10 * (count + len(without))))
    found: dict[str, Params] = {}
    for params in drawn:
        if len(found) == count:
            break
        if (name := space.candidate_id(params)) not in without and fits(params):
            found.setdefault(name, params)
    return list(found.values())


def take_census(
    space: Space,
    dataset: str,
    rules: FusionRules,
    candidates: Sequence[Params],
    progress: Callable[[int, int], None] | None = None,
) -> Census:
    """List the kernels of some candidates.

    Raises:
        UsageError: No such data set.
    """
    classes = classes_of(dataset)
    numbers: dict[Kernel, int] = {}
    by_block: dict[Block, list[int]] = {}
    occurrences: list[IntArray] = []
    for done, params in enumerate(candidates, start=1):
        graph = build(space.configure(params, classes))
        found: list[int] = []
        for placement in graph.placements:
            block = placement.block
            if block not in by_block:
                by_block[block] = [numbers.setdefault(k, len(numbers)) for k in block_kernels(block, rules)]
            found += by_block[block]
        occurrences.append(np.array(found, dtype=np.intp))
        if progress and (done % _REPORT_EVERY == 0 or done == len(candidates)):
            progress(done, len(candidates))
    return _counted(tuple(numbers), occurrences)


def _counted(kernels: tuple[Kernel, ...], occurrences: Sequence[IntArray]) -> Census:
    shape, pair = _shapes_and_pairs(kernels)
    flat = np.concatenate(occurrences)
    owner = np.repeat(np.arange(len(occurrences)), [len(part) for part in occurrences])
    work_of_kernel = np.array([k.macs + MACS_PER_ELEMENT * k.moved for k in kernels], dtype=np.float64)
    work = _sums(owner, work_of_kernel[flat])
    share = _sums(pair[flat], work_of_kernel[flat] / work[owner]) / len(occurrences)
    holds = np.zeros((len(occurrences), len(share)), dtype=np.bool_)
    holds[owner, pair[flat]] = True
    return Census(kernels, shape, pair, flat, owner, work, share, holds)


def _sums(places: IntArray, values: FloatArray, length: int = 0) -> FloatArray:
    """Sum of the values at each place."""
    return np.asarray(np.bincount(places, values, minlength=length), dtype=np.float64)


def _shapes_and_pairs(kernels: Sequence[Kernel]) -> tuple[IntArray, IntArray]:
    """Number the kernels' shapes, and the shapes within each band of map size that occurs."""
    numbers: dict[Kernel, int] = {}
    shape = np.array([numbers.setdefault(_shape(kernel), len(numbers)) for kernel in kernels])
    size = np.log([kernel.h_in * kernel.w_in for kernel in kernels])
    low, high = np.full(len(numbers), np.inf), np.full(len(numbers), -np.inf)
    np.minimum.at(low, shape, size)
    np.maximum.at(high, shape, size)
    span = np.where(high > low, high - low, 1.0)
    band = np.minimum((BANDS * (size - low[shape]) / span[shape]).astype(np.intp), BANDS - 1)
    return shape, np.unique(shape * BANDS + band, return_inverse=True)[1]


def _shape(kernel: Kernel) -> Kernel:
    """A kernel without its map size; the window of global pooling is the map."""
    window = 0 if kernel.op == "reduce" else kernel.kernel
    return kernel._replace(kernel=window, h_in=0, w_in=0, h_out=0, w_out=0)


def _greedy(census: Census, networks: int) -> list[int]:
    """Take the candidate that adds most, again and again until nothing is left.

    What a candidate still adds is kept up to date: when a pair is covered, those who hold it lose its weight, once.
    Weights are whole numbers, so that equal is equal.
    """
    weight = np.round(1e9 * (census.share / census.share.sum() + 1 / len(census.share)))
    candidates, pairs = np.nonzero(census.holds)
    gain = _sums(candidates, weight[pairs], len(census.holds))
    open_ = np.ones(len(weight), dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < networks and gain.max() > 0:
        equals = np.flatnonzero(gain == gain.max())
        best = int(equals[np.argmin(census.work[equals])])
        chosen.append(best)
        new = np.flatnonzero(census.holds[best] & open_)
        open_[new] = False
        losers, lost = np.nonzero(census.holds[:, new])
        gain -= _sums(losers, weight[new][lost], len(gain))
    return chosen


def _fitting(census: Census, pool: Sequence[Params], networks: int, fits: Fits, order: Sequence[int]) -> list[int]:
    """Choose anew without those that do not fit until all do; only what is chosen is looked at."""
    unfit: set[int] = set()
    while True:
        chosen = _fill_up(_greedy(census, networks), networks, [index for index in order if index not in unfit])
        found = {index for index in chosen if not fits(pool[index])}
        if not found:
            return chosen
        unfit |= found
        census.holds[list(found)] = False


def _fill_up(chosen: Sequence[int], networks: int, order: Sequence[int]) -> list[int]:
    """Add candidates in a random order until there are enough."""
    taken = set(chosen)
    others = (index for index in order if index not in taken)
    return [*chosen, *islice(others, networks - len(taken))]


def cover(census: Census, chosen: Sequence[int]) -> tuple[Coverage, ...]:
    """What the first of some candidates, the first two, ... all hold of everything in the census."""
    starts = np.searchsorted(census.owner, np.arange(len(census.holds) + 1))
    kernels = np.zeros(len(census.kernels), dtype=np.bool_)
    shapes = np.zeros(int(census.shape.max()) + 1, dtype=np.bool_)
    pairs = np.zeros(len(census.share), dtype=np.bool_)
    found: list[Coverage] = []
    for count, index in enumerate(chosen, start=1):
        held = census.occurrences[starts[index] : starts[index + 1]]
        kernels[held], shapes[census.shape[held]], pairs[census.pair[held]] = True, True, True
        work = float(census.share[pairs].sum())
        found.append(Coverage(count, float(shapes.mean()), float(pairs.mean()), float(kernels.mean()), work))
    return tuple(found)
