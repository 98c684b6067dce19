"""How well a latency table predicts networks that it was not made from, beside their measured times.

Errors are relative to the measurement and in percent: predicted less measured, over measured. A measurement errs too;
networks that were measured twice, independently, show by how much (`noise_floor`), and nothing can be shown to predict
better than that. The same figures of other predictors stand beside (`scaler.profiling.baselines`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from scaler.runtimes.protocol import FloatArray

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Compared", "NoiseFloor", "Proof", "Score", "as_dict", "kendall", "noise_floor", "prove", "render", "score",
           "spearman"]  # fmt: skip

WITHIN = (5, 10, 15)
"""Percent of error for which the share of networks is told."""
CONFIDENCE = 0.95
"""Of the interval of a mean error."""
WORST_SHOWN = 5
_SEED = 0
_BATCHES, _AT_ONCE = 100, 100
"""Of the bootstrap: 10,000 resamples, so many at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How far predictions lie from measurements; None where there are too few networks to tell."""

    networks: int
    error: float
    """Mean absolute error in percent."""
    error_interval: tuple[float, float] | None
    """95 % bootstrap interval of it: what other networks drawn the same way might have given."""
    rms_error: float
    """Root of the mean squared error in percent."""
    bias: float
    """Mean error in percent; above 0: predicted too slow."""
    within: tuple[float, ...]
    """Percent of the networks whose absolute error is at most 5, 10, 15 %."""
    spearman: float | None
    """Rank correlation; None where all values are equal."""
    kendall: float | None
    """Tau-b: concordant less discordant pairs, corrected for ties."""
    coverage: float | None
    """Percent of measurements inside their 90 % interval; None for a predictor without intervals."""
    half_width: float | None
    """Mean of half the interval's width over the prediction, in percent."""


class NoiseFloor(NamedTuple):
    """How well measurements agree with each other, in percent of the mean of the two."""

    networks: int
    """How many were measured twice."""
    difference: float
    """Mean absolute difference of the two measurements of a network."""
    error: float
    """That over the root of 2: mean absolute error of one measurement, if both err alike, independently and normally;
    what a predictor that knew the true times would show."""
    rms_error: float
    """The same of the root mean square."""
    drift: float
    """Mean of second less first: what changed between them for all networks."""
    largest: float
    """Largest absolute difference."""


class Compared(NamedTuple):
    """One network: milliseconds predicted, with the 90 % interval, and measured."""

    network: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """In percent."""
        return 100 * (self.predicted_ms / self.measured_ms - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """Predictions compared with measurements that had no part in them."""

    networks: tuple[Compared, ...]
    """In the order given."""
    table: Score
    """Of the latency table."""
    baselines: Mapping[str, Score]
    """Of the other predictors, on the same networks."""
    noise: NoiseFloor | None
    """None where no network was measured twice."""

    @property
    def worst(self) -> tuple[Compared, ...]:
        """The networks with the largest errors, largest first."""
        return tuple(sorted(self.networks, key=lambda row: -abs(row.error))[:WORST_SHOWN])


def prove(
    networks: Sequence[str],
    predicted_ms: FloatArray,
    low_ms: FloatArray,
    high_ms: FloatArray,
    measured_ms: FloatArray,
    *,
    baselines: Mapping[str, FloatArray] | None = None,
    repeats_ms: tuple[FloatArray, FloatArray] | None = None,
) -> Proof:
    """Compare predictions with measurements; at least one network.

    Args:
        networks: Their ids.
        predicted_ms: (networks,)
        low_ms: (networks,) Lower ends of the 90 % intervals.
        high_ms: (networks,) Upper ends.
        measured_ms: (networks,)
        baselines: What other predictors say of the same networks, (networks,) each.
        repeats_ms: First and second measurement of the networks that were measured twice, (pairs,) each.
    """
    columns = (a.tolist() for a in (predicted_ms, low_ms, high_ms, measured_ms))
    return Proof(
        networks=tuple(Compared(*row) for row in zip(networks, *columns, strict=True)),
        table=score(predicted_ms, measured_ms, low_ms, high_ms),
        baselines={name: score(theirs, measured_ms) for name, theirs in (baselines or {}).items()},
        noise=noise_floor(*repeats_ms) if repeats_ms and len(repeats_ms[0]) else None,
    )


def score(
    predicted_ms: FloatArray,
    measured_ms: FloatArray,
    low_ms: FloatArray | None = None,
    high_ms: FloatArray | None = None,
) -> Score:
    """The figures of one predictor over networks; arrays (networks,), at least one."""
    errors = 100 * (predicted_ms / measured_ms - 1)
    coverage = half_width = None
    if low_ms is not None and high_ms is not None:
        coverage = _percent((low_ms <= measured_ms) & (measured_ms <= high_ms))
        half_width = 100 * float(np.mean((high_ms - low_ms) / 2 / predicted_ms))
    return Score(
        networks=len(errors),
        error=float(np.mean(np.abs(errors))),
        error_interval=_bootstrap(np.abs(errors)),
        rms_error=float(np.sqrt(np.mean(errors**2))),
        bias=float(np.mean(errors)),
        within=tuple(_percent(np.abs(errors) <= limit) for limit in WITHIN),
        spearman=spearman(predicted_ms, measured_ms),
        kendall=kendall(predicted_ms, measured_ms),
        coverage=coverage,
        half_width=half_width,
    )


def noise_floor(first_ms: FloatArray, second_ms: FloatArray) -> NoiseFloor:
    """How well two independent measurements of the same networks agree; arrays (networks,), at least one.

    The two of a network should lie apart in time as measurements of a plan do, each with its own preparation.
    """
    differences = 100 * (second_ms - first_ms) / ((first_ms + second_ms) / 2)
    difference = float(np.mean(np.abs(differences)))
    return NoiseFloor(
        networks=len(differences),
        difference=difference,
        error=difference / 2**0.5,
        rms_error=float(np.sqrt(np.mean(differences**2) / 2)),
        drift=float(np.mean(differences)),
        largest=float(np.max(np.abs(differences))),
    )


def spearman(first: FloatArray, second: FloatArray) -> float | None:
    """Rank correlation, equal values with their mean rank; None where one side is constant."""
    ranks = np.stack([_ranks(first), _ranks(second)])
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    spread = float(np.sqrt(np.prod(np.sum(centred**2, axis=1))))
    return float(np.clip(centred[0] @ centred[1] / spread, -1.0, 1.0)) if spread else None


def kendall(first: FloatArray, second: FloatArray) -> float | None:
    """Kendall's tau-b; None where one side is constant."""
    orders = [np.sign(values[:, None] - values[None, :]) for values in (first, second)]
    untied = float(np.sqrt(np.count_nonzero(orders[0])) * np.sqrt(np.count_nonzero(orders[1])))
    return float(np.clip(np.sum(orders[0] * orders[1]) / untied, -1.0, 1.0)) if untied else None


def _percent(holds: npt.NDArray[np.bool_]) -> float:
    return 100 * int(np.count_nonzero(holds)) / len(holds)


def _ranks(values: FloatArray) -> FloatArray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], dtype=np.float64)


def _bootstrap(values: FloatArray) -> tuple[float, float] | None:
    """Percentile interval of the mean, from resampled networks; None for a single one."""
    if len(values) < 2:
        return None
    rng = np.random.default_rng(_SEED)
    means = [values[rng.integers(len(values), size=(_AT_ONCE, len(values)))].mean(axis=1) for _ in range(_BATCHES)]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(np.concatenate(means), (tail, 100 - tail))
    return float(low), float(high)


def as_dict(proof: Proof) -> dict[str, Any]:
    """The proof for machines: errors, shares and coverage in percent, times in milliseconds."""
    noise = proof.noise
    return {
        "networks": [{**row._asdict(), "error_percent": row.error} for row in proof.networks],
        "table": _plain(proof.table),
        "baselines": {name: _plain(found) for name, found in proof.baselines.items()},
        "noise_floor": None
        if noise is None
        else {
            "networks": noise.networks,
            "mean_difference_percent": noise.difference,
            "error_percent": noise.error,
            "rms_error_percent": noise.rms_error,
            "drift_percent": noise.drift,
            "largest_difference_percent": noise.largest,
        },
    }


def _plain(found: Score) -> dict[str, Any]:
    return {
        "networks": found.networks,
        "error_percent": found.error,
        "error_95_interval_percent": None if found.error_interval is None else list(found.error_interval),
        "rms_error_percent": found.rms_error,
        "bias_percent": found.bias,
        **{f"within_{limit}_percent": share for limit, share in zip(WITHIN, found.within, strict=True)},
        "spearman": found.spearman,
        "kendall_tau_b": found.kendall,
        "interval_90_coverage_percent": found.coverage,
        "interval_90_half_width_percent": found.half_width,
    }


def render(proof: Proof) -> RenderableType:
    """The proof for rich: a column a predictor, the latency table first; then the noise floor and the worst cases."""
    from rich.console import Group  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    predictors = {"latency table": proof.table, **proof.baselines}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{proof.table.networks} networks")
    for name in predictors:
        table.add_column(Text(name), justify="right")
    for row in zip(_FIGURES, *map(_cells, predictors.values()), strict=True):
        table.add_row(*row)
    lines = [_noise_sentence(proof.noise), "worst:"]
    lines += [
        f"  {row.network}: {row.predicted_ms:.2f} ms predicted ({row.low_ms:.2f} to {row.high_ms:.2f}), "
        f"{row.measured_ms:.2f} measured ({row.error:+.1f} %)"
        for row in proof.worst
    ]
    return Group(table, *map(Text, lines))


_FIGURES = ("mean error", "  its 95 % interval", "RMS error", "bias", *(f"within {limit} %" for limit in WITHIN),
            "Spearman", "Kendall tau-b", "90 % interval covers", "  its half width")  # fmt: skip


def _cells(found: Score) -> tuple[str, ...]:
    interval = found.error_interval
    return (
        f"{found.error:.1f} %",
        "-" if interval is None else f"{interval[0]:.1f} to {interval[1]:.1f} %",
        f"{found.rms_error:.1f} %",
        f"{found.bias:+.1f} %",
        *(f"{share:.0f} %" for share in found.within),
        _or_dash(found.spearman, ".3f"),
        _or_dash(found.kendall, ".3f"),
        _or_dash(found.coverage, ".0f", " %"),
        _or_dash(found.half_width, ".1f", " %"),
    )


def _or_dash(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"


def _noise_sentence(noise: NoiseFloor | None) -> str:
    if noise is None:
        return "noise floor: unknown, no network was measured twice"
    return (
        f"noise floor: {noise.error:.1f} % mean error of a measurement (RMS {noise.rms_error:.1f} %), from "
        f"{noise.networks} networks measured twice: they differ by {noise.difference:.1f} % on average, "
        f"{noise.largest:.1f} % at most, {noise.drift:+.1f} % from first to second"
    )
