"""Scales a published network to a budget or a frame rate: in the published order, and by each factor alone."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from scaler.accuracy import load as load_accuracy
from scaler.errors import UnsupportedError, UsageError, UserError
from scaler.latency.estimator import load_estimator
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config as Config
from scaler.models.detectors.scaled_yolov4 import is_tiny
from scaler.scaling.judge import Judge, Scaled
from scaler.scaling.ladder import FACTORS, Factor, Step, alone, base_config, compound, stages_of
from scaler.scaling.order import Move, moves
from scaler.scaling.rules import STAGE_SIZES

How = Literal["compound"] | Factor
Figure = Callable[[Config], float]

NEAR = 0.15
"""A network whose MACs miss the wanted ones by more than this share gets a remark."""

SHOWN_SPAN = 4.0
"""Curves go so many times below the smaller and above the larger of the base's and the chosen network's MACs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to scale to what; exactly one of `factor` and `fps` is given."""

    model: str
    """A key of `scaler.scaling.ladder.BASES`."""
    device: str
    factor: float | None = None
    """Multiple of the base's MACs."""
    fps: float | None = None
    """Frames per second to reach, overhead included."""
    resolution: int | None = None
    """The base's input size; its published one where None."""
    metric: str | None = None
    """`ap` or `ap50` on COCO; the family's default where None."""
    recipe: str | None = None
    """Training recipe of the predicted accuracy; the paper's where None."""
    precision: str | None = None
    power_mode: str | None = None
    overhead_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What one way of scaling came to, if to anything, and a remark where it missed."""

    how: How
    scaled: Scaled | None
    remark: str = ""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Plan:
    """The answer to a question."""

    question: Question
    judge: Judge
    order: tuple[Step, ...]
    """The published order, the base in it."""
    base: Scaled
    chosen: Scaled
    """The compound-scaled network."""
    alone: tuple[Row, ...]
    """Each factor alone."""
    remarks: tuple[str, ...]

    def moves(self) -> tuple[Move, ...]:
        """How the published order leads from the base to the chosen network."""
        return moves(self.order, self.base.config, self.chosen.config)

    def rows(self) -> tuple[Row, ...]:
        """The compound first, then each factor alone."""
        return (Row("compound", self.chosen), *self.alone)

    def curves(self) -> dict[How, tuple[Scaled, ...]]:
        """Every step of every way around the base and the chosen network, from cheap to dear."""
        macs = self.base.cost.macs
        low, high = sorted([macs, self.chosen.cost.macs])
        lines: dict[How, Sequence[Config]] = {"compound": [step.config for step in self.order]}
        lines |= {factor: alone(self.base.config, factor) for factor in FACTORS}
        return {
            how: tuple(self.judge.scaled(config, macs) for config in self._shown(line, low, high))
            for how, line in lines.items()
            if len(line) > 1
        }

    def _shown(self, line: Sequence[Config], low: float, high: float) -> Sequence[Config]:
        first = bisect_left(line, low / SHOWN_SPAN, key=self.judge.macs)
        return line[first : bisect_right(line, high * SHOWN_SPAN, key=self.judge.macs)]


def scale(question: Question) -> Plan:
    """Answer a question.

    Raises:
        UsageError: Unknown model or device, or a factor, rate or size out of range.
        UnsupportedError: The device's memory does not hold the network that was asked for.
        UserError: No network of the order reaches the frame rate.
    """
    if (question.factor is None) == (question.fps is None):
        raise UsageError("scale to what? give either --factor or --fps")
    for name, value in (("factor", question.factor), ("fps", question.fps)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise UsageError(f"{name} = {value:g}: allowed is a finite number above 0")
    base = base_config(question.model, question.resolution)
    estimator = load_estimator(
        question.device,
        precision=question.precision,
        power_mode=question.power_mode,
        overhead_ms=question.overhead_ms,
    )
    judge = Judge(estimator, load_accuracy("scaled-yolov4", "coco", question.metric, question.recipe))
    order = _with(base, compound(base), judge.macs)
    choose = _by_rate if question.factor is None else _by_cost
    chosen, rows, remarks = choose(question, judge, base, [step.config for step in order])
    macs = judge.macs(base)
    scaled = judge.scaled(chosen, macs)
    limit = scaled.frame_ms.mean if question.fps is None else 1000 / question.fps
    remarks = [judge.misfit(base), *remarks, _better(scaled, rows, limit, judge)]
    return Plan(
        question=question,
        judge=judge,
        order=order,
        base=judge.scaled(base, macs),
        chosen=scaled,
        alone=rows,
        remarks=tuple(remark for remark in remarks if remark),
    )


def _better(chosen: Scaled, rows: Sequence[Row], limit_ms: float, judge: Judge) -> str | None:
    """Say so where a single factor is predicted to do better within the time, beyond the noise of the accuracies."""
    others = [
        (row.scaled, row.how)
        for row in rows
        if row.scaled is not None and row.scaled.frame_ms.mean <= limit_ms and judge.misfit(row.scaled.config) is None
    ]
    if not others:
        return None
    best, how = max(others, key=lambda other: other[0].ap.mean)
    if best.ap.mean <= chosen.ap.mean + judge.accuracy.noise_ap:
        return None
    overlap = "overlap" if best.ap.low <= chosen.ap.high else "do not overlap"
    return (
        f"{how} alone is predicted to do better here: {best.ap.mean:.1f} against {chosen.ap.mean:.1f} AP at "
        f"{best.fps.mean:.1f} FPS; the intervals {overlap}"
    )


_Choice = tuple[Config, tuple[Row, ...], Sequence[str | None]]


def _with(base: Config, order: tuple[Step, ...], macs: Figure) -> tuple[Step, ...]:
    """The order with a base at a size of its own put in by its MACs."""
    if any(step.config == base for step in order):
        return order
    place = bisect_left(order, macs(base), key=lambda step: macs(step.config))
    return (*order[:place], Step(base, "size and stages"), *order[place:])


def _by_cost(question: Question, judge: Judge, base: Config, line: list[Config]) -> _Choice:
    assert question.factor is not None
    macs = judge.macs(base)
    low, high = judge.macs(line[0]) / macs, judge.macs(line[-1]) / macs
    if not low <= question.factor <= high:
        raise UsageError(
            f"factor = {question.factor:g}: allowed is {_three_digits(low, math.ceil):g} to "
            f"{_three_digits(high, math.floor):g} times the MACs of {base.name}, which end at {line[0].name} and "
            f"{line[-1].name}"
        )
    wanted = question.factor * macs
    chosen = nearest(line, wanted, judge.macs)
    if problem := judge.misfit(chosen):
        raise UnsupportedError(f"{problem}: give a smaller factor, a larger device or a lower precision")
    rows = []
    for factor in FACTORS:
        found = nearest(alone(base, factor), wanted, judge.macs)
        miss = _miss(judge.macs(found) / macs, question.factor)
        if found == base and miss:
            rows.append(Row(factor, None, _stuck(base, factor, larger=wanted > macs)))
        else:
            rows.append(_row(judge, factor, found, macs, miss))
    miss = _miss(judge.macs(chosen) / macs, question.factor)
    return chosen, tuple(rows), [f"in order: {miss}" if miss else None]


def _miss(found: float, wanted: float) -> str:
    return "" if abs(math.log(found / wanted)) <= math.log1p(NEAR) else f"nothing nearer than ×{found:.3g}"


def _by_rate(question: Question, judge: Judge, base: Config, line: list[Config]) -> _Choice:
    assert question.fps is not None
    budget, macs = 1000 / question.fps, judge.macs(base)
    within = within_limit(line, budget, judge.frame_ms)
    if not within:
        raise UserError(
            f"nothing in the published order from {base.name} reaches {question.fps:g} FPS on "
            f"{judge.estimator.device.name}; "
            f"the nearest is {line[0].name} with {judge.fps(line[0]):.1f} FPS"
        )
    fitting = [config for config in within if judge.misfit(config) is None]
    if not fitting:
        raise UnsupportedError(f"{judge.misfit(within[0])}: nothing that reaches {question.fps:g} FPS fits")
    chosen, remarks = fitting[-1], list[str | None]()
    if chosen == line[-1]:
        remarks.append(f"{chosen.name} is the largest network of the published order")
    if left_out := len(within) - len(fitting):
        remarks.append(f"{left_out} larger networks are fast enough but do not fit the memory")
    rows = []
    for factor in FACTORS:
        steps = alone(base, factor)
        reaching = within_limit(steps, budget, judge.frame_ms)
        if len(steps) == 1:
            rows.append(Row(factor, None, _stuck(base, factor)))
        elif reaching:
            rows.append(_row(judge, factor, reaching[-1], macs, _last(judge, steps, len(reaching), base)))
        else:
            rows.append(Row(factor, None, f"at most {judge.fps(steps[0]):.1f} FPS"))
    return chosen, tuple(rows), remarks


def _last(judge: Judge, steps: Sequence[Config], reaching: int, base: Config) -> str:
    """A remark on a factor whose last step reaches the rate, or whose first step away from the base misses it."""
    if reaching == len(steps):
        return f"ends at {judge.fps(steps[-1]):.1f} FPS"
    return f"its next step reaches {judge.fps(steps[reaching]):.1f} FPS" if steps[reaching - 1] == base else ""


def nearest(line: Sequence[Config], wanted: float, figure: Figure) -> Config:
    """The network whose figure is nearest to the wanted one as a ratio, by bisection: figures rise along the line."""
    place = bisect_left(line, wanted, key=figure)
    return min(line[max(place - 1, 0) : place + 1], key=lambda config: abs(math.log(figure(config) / wanted)))


def within_limit(line: Sequence[Config], limit: float, figure: Figure) -> Sequence[Config]:
    """The networks up to the last whose figure keeps the limit, by bisection: figures rise along the line."""
    return line[: bisect_right(line, limit, key=figure)]


def _row(judge: Judge, factor: Factor, config: Config, base_macs: int, remark: str = "") -> Row:
    return Row(factor, judge.scaled(config, base_macs), judge.misfit(config) or remark)


def _stuck(base: Config, factor: Factor, *, larger: bool = False) -> str:
    """Why a factor has no step that way."""
    fewest, most = min(STAGE_SIZES), max(STAGE_SIZES)
    match factor:
        case "depth" if is_tiny(base.variant):
            return "the layers of tiny's block follow from its channels: b/2 + kg = 2b"
        case "stages" if is_tiny(base.variant):
            return "no published YOLOv4-tiny has a stage more or less"
        case "stages" if not larger and stages_of(base) == fewest:
            return f"{fewest} are the fewest: the coarsest detection level has stride {2**fewest}"
        case "stages" if larger and stages_of(base) == most:
            return f"{most} are the most that was published"
        case _:
            return "no step is nearer than the base itself"


def _three_digits(value: float, rounding: Callable[[float], int]) -> float:
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return rounding(value / unit) * unit
