"""Attack the heaviest block: which part of a network takes most time on a device, and what would make it lighter.

The idea is Light-Weight RetinaNet's (Li and Ren, arXiv 1905.10011), for any family and by time instead of FLOPs: rank
the blocks that can be rewritten alone, take the one with the largest share s, and change only that. No rewrite of it
can make the network faster than 1 / (1 - s) times. The menu is the search space: every candidate one step away in
which the block's share falls. A smaller input, the common way to save time, is what each is compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from scaler.accuracy import NOISE_AP, AccuracyPrediction
from scaler.graph.graph import Graph
from scaler.latency.estimator import Estimator
from scaler.latency.kernels import Kernel
from scaler.models.detectors.retinanet import RetinaNetConfig
from scaler.published.retinanet import LIGHTER_GAINS, LighterGain
from scaler.search.describe import timed_kernels
from scaler.search.evaluation import Evaluator
from scaler.search.result import Interval
from scaler.space import Params

__all__ = ["BlockShare", "Lightening", "Rewrite", "change", "lighten"]

INPUT_SIZE = "resolution"
"""The parameter that every family has for the side of its input."""


@dataclass(frozen=True, slots=True)
class BlockShare:
    """A part of the network that can be rewritten alone: a backbone stage, a level of the neck or of the head."""

    name: str
    """For instance `head.p3`."""
    ms: float
    """Engine time."""
    share: float
    """Of the frame time, 0 to 1."""
    engine_share: float
    """Of the engine time."""
    macs: int
    macs_share: float
    from_table: float
    """Share of its time that stands in the latency table; the rest comes from the model."""
    parts: dict[str, float]
    """Milliseconds by stage, for instance of the class and of the box branch; empty where there is only one."""

    @property
    def ceiling(self) -> float:
        """How much faster the frame gets if the block takes no time at all."""
        return 1 / (1 - self.share)

    @property
    def engine_ceiling(self) -> float:
        """The same of the engine alone, which a pipeline that hides what lies outside it comes close to."""
        return 1 / (1 - self.engine_share)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A faster candidate one step away."""

    change: str
    """For instance `lighten none -> released`."""
    params: Params
    changes: tuple[str, ...]
    """The blocks that it changes, adds or removes, whether they get faster or not."""
    blocks: tuple[str, ...]
    """The blocks that it makes faster, most saved first."""
    lightens: tuple[str, ...]
    """Those of them whose share of the frame falls, in the same order."""
    saved_ms: float
    """Of the frame."""
    speedup: float
    """Of the frame."""
    ceiling: float | None
    """The speedup if the blocks that it changes took no time at all; None where nothing else takes any."""
    macs: int
    ap: Interval
    """Predicted accuracy."""
    ap_change: Interval
    """Against the candidate, as if the two were independent training runs."""
    ap_change_by_input_size: float | None
    """The same of the candidate with a smaller input and this frame time; None below the space's smallest input."""
    heaviest_after: str
    """The block that takes most time then."""

    @property
    def rate(self) -> float:
        """Milliseconds saved per AP lost; losses below the noise count as the noise."""
        return self.saved_ms / max(-self.ap_change.mean, NOISE_AP)

    @property
    def better_than_input_size(self) -> float | None:
        """AP over a smaller input at the same frame time."""
        if self.ap_change_by_input_size is None:
            return None
        return self.ap_change.mean - self.ap_change_by_input_size


class Point(NamedTuple):
    """A network as a point of a trade-off."""

    label: str
    frame_ms: float
    macs: int
    ap: float


@dataclass(frozen=True, slots=True)
class Lightening:
    """The blocks of a network by their time, and lighter versions of one of them."""

    frame_ms: float
    overhead_ms: float
    """The part of the frame outside the engine, which no block can save."""
    blocks: tuple[BlockShare, ...]
    """Heaviest first."""
    steps: tuple[Rewrite, ...]
    """Every faster candidate one step away that makes some block lighter: most time saved per AP lost first."""
    here: Point
    input_sizes: tuple[Point, ...]
    """The candidate with every input of the space that is not larger, fastest first."""
    published: tuple[LighterGain, ...] = ()
    """Gains of a lighter head over a smaller input at equal FLOPs, as a paper on this family claims them."""

    def rewrites_of(self, block: str) -> tuple[Rewrite, ...]:
        """The steps that make a block lighter: those that change it alone, then the others, each best first."""
        lighter = (step for step in self.steps if block in step.lightens)
        return tuple(sorted(lighter, key=lambda step: step.changes != (block,)))

    @property
    def target(self) -> BlockShare | None:
        """The heaviest block that the space can make lighter; None where it has nothing lighter at all."""
        return next((block for block in self.blocks if self.rewrites_of(block.name)), None)

    @property
    def rewrites(self) -> tuple[Rewrite, ...]:
        """Those of the target."""
        return self.rewrites_of(self.target.name) if self.target else ()

    @property
    def better_by_input_size(self) -> tuple[Rewrite, ...]:
        """The target's rewrites that a smaller input of the same frame time beats by more than the noise."""
        return tuple(step for step in self.rewrites if (step.better_than_input_size or 0.0) < -NOISE_AP)

    @property
    def passed_over(self) -> tuple[BlockShare, ...]:
        """The blocks that are heavier than the target and have nothing lighter in the space."""
        names = [block.name for block in self.blocks]
        return self.blocks[: names.index(self.target.name)] if self.target else self.blocks

    def as_plain(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {
            "frame_ms": self.frame_ms,
            "overhead_ms": self.overhead_ms,
            "blocks": [
                {**asdict(block), "ceiling": block.ceiling, "engine_ceiling": block.engine_ceiling}
                for block in self.blocks
            ],
            "target": self.target.name if self.target else None,
            "steps": [{**asdict(s), "better_than_input_size": s.better_than_input_size} for s in self.steps],
            "input_sizes": [point._asdict() for point in self.input_sizes],
            "published": [gain._asdict() for gain in self.published],
        }


def change(before: Params, after: Params) -> str:
    """What differs between two candidates: `width 0.75 -> 0.5, drop 2 -> 3`."""
    changed = [
        f"{name} {before.get(name, '-')} -> {after.get(name, '-')}"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]
    return ", ".join(changed)


def lighten(evaluator: Evaluator, estimator: Estimator, params: Params) -> Lightening:
    """Rank a candidate's blocks by time and find lighter versions of the heaviest.

    Args:
        evaluator: Builds and scores candidates of the space that is the menu.
        estimator: Of the device.
        params: The candidate, in the space's canonical form.
    """
    here = _timed(evaluator, estimator, params)
    sizes = _input_sizes(evaluator, estimator, params)
    others = [
        _timed(evaluator, estimator, other)
        for other in evaluator.space.neighbours(params)
        if other.get(INPUT_SIZE) == params.get(INPUT_SIZE)
    ]
    steps = [_rewrite(here, other, sizes) for other in others if other.frame_ms < here.frame_ms]
    return Lightening(
        frame_ms=here.frame_ms,
        overhead_ms=here.overhead_ms,
        blocks=here.ranked,
        steps=tuple(sorted((step for step in steps if step.lightens), key=lambda step: -step.rate)),
        here=Point("", here.frame_ms, here.macs, here.ap.mean),
        input_sizes=sizes,
        published=LIGHTER_GAINS if isinstance(evaluator.network(params).config, RetinaNetConfig) else (),
    )


@dataclass(frozen=True, slots=True)
class _Timed:
    """A candidate with its blocks, heaviest first."""

    params: Params
    frame_ms: float
    overhead_ms: float
    macs: int
    ap: AccuracyPrediction
    ranked: tuple[BlockShare, ...]
    kernels: dict[str, list[Kernel]]
    """By block."""

    @property
    def blocks(self) -> dict[str, BlockShare]:
        return {block.name: block for block in self.ranked}


def _timed(evaluator: Evaluator, estimator: Estimator, params: Params) -> _Timed:
    network = evaluator.network(params)
    prediction = estimator.estimate(network.graph)
    frame = float(prediction.frame[0])
    ranked, kernels = _partition(network.graph, estimator, float(prediction.engine[0]), frame)
    overhead = float(prediction.overhead[0])
    return _Timed(
        params, frame, overhead, network.cost.macs, evaluator.ap(params, estimator.precision), ranked, kernels
    )


def _block_of(placement: str) -> str:
    """The first two parts of a hierarchical name: `head.p3` of `head.p3.class.tower0`."""
    return ".".join(placement.split(".")[:2])


def _partition(
    graph: Graph, estimator: Estimator, engine_ms: float, frame_ms: float
) -> tuple[tuple[BlockShare, ...], dict[str, list[Kernel]]]:
    placed, times, found = timed_kernels(graph, estimator, engine_ms)
    kernels: dict[str, list[Kernel]] = {}
    parts: dict[str, dict[str, float]] = {}
    tabled: dict[str, float] = {}
    for (placement, kernel), ms, in_table in zip(placed, times.tolist(), found.tolist(), strict=True):
        name = _block_of(placement.name)
        kernels.setdefault(name, []).append(kernel)
        stages = parts.setdefault(name, {})
        stages[placement.stage] = stages.get(placement.stage, 0.0) + ms
        tabled[name] = tabled.get(name, 0.0) + ms * in_table
    macs = {name: sum(kernel.macs for kernel in of_block) for name, of_block in kernels.items()}
    whole = sum(macs.values())
    blocks = [
        BlockShare(
            name=name,
            ms=(ms := sum(stages.values())),
            share=ms / frame_ms,
            engine_share=ms / engine_ms,
            macs=macs[name],
            macs_share=macs[name] / whole,
            from_table=tabled[name] / ms,
            parts=stages if len(stages) > 1 else {},
        )
        for name, stages in parts.items()
    ]
    return tuple(sorted(blocks, key=lambda block: -block.ms)), kernels


def _rewrite(here: _Timed, other: _Timed, sizes: Sequence[Point]) -> Rewrite:
    after = other.blocks
    names = dict.fromkeys((*here.kernels, *other.kernels))
    changed = tuple(name for name in names if here.kernels.get(name) != other.kernels.get(name))
    saved = {
        block.name: block.ms - (after[block.name].ms if block.name in after else 0.0)
        for block in here.ranked
        if block.name in changed
    }
    faster = sorted((name for name, ms in saved.items() if ms > 0), key=lambda name: -saved[name])
    lighter = (name for name in faster if name not in after or after[name].share < here.blocks[name].share)
    same = [block.ms for block in other.ranked if block.name not in changed]
    rest = other.overhead_ms + sum(same)
    ap, change_of_ap = other.ap, other.ap.mean - here.ap.mean
    half = float(np.hypot(here.ap.high - here.ap.low, ap.high - ap.low)) / 2
    alternative = _interpolated(sizes, other.frame_ms)
    return Rewrite(
        change=change(here.params, other.params),
        params=other.params,
        changes=changed,
        blocks=tuple(faster),
        lightens=tuple(lighter),
        saved_ms=here.frame_ms - other.frame_ms,
        speedup=here.frame_ms / other.frame_ms,
        ceiling=here.frame_ms / rest if rest else None,
        macs=other.macs,
        ap=Interval(ap.mean, ap.low, ap.high),
        ap_change=Interval(change_of_ap, change_of_ap - half, change_of_ap + half),
        ap_change_by_input_size=None if alternative is None else alternative - here.ap.mean,
        heaviest_after=other.ranked[0].name,
    )


def _input_sizes(evaluator: Evaluator, estimator: Estimator, params: Params) -> tuple[Point, ...]:
    """The candidate with every smaller input of the space, and itself, fastest first."""
    options = [p.active(params) for p in evaluator.space.parameters if p.name == INPUT_SIZE]
    side = params.get(INPUT_SIZE)
    points = []
    for option in options:
        for value in option.values if option else ():
            if isinstance(value, int) and isinstance(side, int) and value <= side:
                smaller = {**params, INPUT_SIZE: value}
                score, network = evaluator.scorer(estimator)(smaller), evaluator.network(smaller)
                points.append(Point(f"{value} px", score.frame_ms, network.cost.macs, score.ap))
    return tuple(sorted(points, key=lambda point: point.frame_ms))


def _interpolated(sizes: Sequence[Point], frame_ms: float) -> float | None:
    """AP at a frame time on the way down in input size."""
    if not sizes or frame_ms < sizes[0].frame_ms:
        return None
    return float(np.interp(frame_ms, [point.frame_ms for point in sizes], [point.ap for point in sizes]))
