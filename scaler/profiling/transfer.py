"""A latency table for a device from another device's table and the end-to-end times of a few networks.

What differs between two devices differs by kind of kernel: one has the faster dense convolutions, another the faster
memory. So kernels are scaled by kind, map size and channels (`scaler.profiling.transfer_fit`); what a few timings do
not tell of that stays at a factor common to all.

The rows of the new table are those of the source times their factors, where the source was measured and both runtimes
merge operators alike. Else they are what the source's regression or device model says of the kernels that the new
runtime launches in the timed networks and in a sample of the space, times their factors. Either way no kernel was
measured on the new device: rows and table are "calibrated".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from scaler.devices import Precision, load_device
from scaler.errors import UsageError, UserError
from scaler.graph.graph import Graph
from scaler.latency.estimator import load_estimator
from scaler.latency.fusion import RULES, FusionRules, graph_kernels
from scaler.latency.kernel_fit import fit_hypers
from scaler.latency.kernel_regression import FloatArray
from scaler.latency.kernels import Kernel
from scaler.latency.measured import KernelTimes
from scaler.latency.measured_model import MeasuredModel
from scaler.latency.prediction import Z_90
from scaler.latency.table import Entry, LatencyTable, TableInfo, list_tables, read_table
from scaler.profiling.measurement import Measurement, quiet_reference_ms
from scaler.profiling.networks import graph_of, reference_of, space_of
from scaler.profiling.plan import draw, take_census
from scaler.profiling.plan_file import Plan
from scaler.profiling.tabulate import Tabulated, predicted_sums, samples, table_info
from scaler.profiling.tabulate_laws import Laws, laws_of
from scaler.profiling.transfer_fit import OF_CONSTANT, Posterior, Terms, basis, fit, left_out, prior_sd
from scaler.space import Params, Space

Times: TypeAlias = Callable[[Sequence[Kernel]], FloatArray]
"""Milliseconds of kernels."""

LEAST_NETWORKS = 3
"""Timed networks below which no table is adapted."""
POOL = 1500
"""Candidates to choose among."""
ROW_NETWORKS = 100
"""Candidates whose kernels become rows, where the source's own rows do not serve."""

STANDARD_ERROR = 0.4
"""Of the median of six rounds over their spread (the range of the middle half), were they normal."""
LEAST_CONSTANT = 0.02
"""Share of the networks' median time that the constant is before its factor, at least."""
_EXPECTED = (0.03, 0.3, 0.1)
"""Noise and prior deviations (see `prior_sd`) that the choice of networks assumes."""

METHOD = (
    "the table of another device, its kernel times scaled by kind, map size and channels to networks timed end to end "
    "(scaler/profiling/transfer.py); no kernel was measured on this device"
)


def find_source(name: str, runtime: str, precision: Precision) -> LatencyTable:
    """The table to start from.

    Args:
        name: Of a device, whose table of most alike precision and runtime is taken, a measured one first; or of a
            table (`nano/tensorrt-fp16`), or the path of its TOML file.
        runtime: Of the device to be.
        precision: The same.

    Raises:
        UsageError: No such device or table, or the device has none.
        FileError: The table is malformed.
    """
    if "/" in name or name.endswith(".toml"):
        return read_table(name)
    tables = list_tables()
    devices = {info.device for info in tables}
    device = name if name in devices else load_device(name).id
    if device not in devices:
        raise UsageError(
            f"no latency table of {device} to start from; there are tables of {', '.join(sorted(devices))}"
        )
    own = [info for info in tables if info.device == device]
    return read_table(
        min(
            own, key=lambda i: (i.precision != precision, i.runtime != runtime, i.provenance != "measured", i.name)
        ).name
    )


def differences(source: LatencyTable, plan: Plan) -> tuple[str, ...]:
    """What the source's kernels differ in beside the device; each makes the result less certain, none forbids it."""
    found = []
    for what, theirs, ours in (
        ("precision", source.info.precision, plan.precision),
        ("runtime", source.info.runtime, plan.runtime),
        ("batch", source.info.batch, plan.batch),
    ):
        if theirs != ours:
            found.append(f"{what} {theirs} in the source, {ours} here")
    return tuple(found)


def kernel_times(source: LatencyTable) -> Times:
    """Engine milliseconds of any kernel by a table and what stands behind it."""
    info = source.info
    if isinstance(info.model, MeasuredModel):  # on whatever computer: it need not be the one at hand
        times, factor = KernelTimes(source.entries, info.model.hypers), info.model.factor
        return lambda kernels: factor * times.ms(kernels)[0]
    estimator = load_estimator(info.device, precision=info.precision, power_mode=info.power_mode, table=source)
    return lambda kernels: estimator.kernel_times(kernels)[0]


def choose_for_transfer(
    space: Space, dataset: str, source: LatencyTable, rules: FusionRules, count: int, seed: int = 0
) -> list[Params]:
    """Choose the networks whose times tell most about the whole space, the most telling first.

    Each next one is that after which the predictions of all candidates are least uncertain together, given what the
    source says they consist of (sequential I-optimal design).

    Args:
        space: The search space.
        dataset: `voc` or `coco`.
        source: Where the adaptation will start.
        rules: What the new device's runtime fuses.
        count: How many networks.
        seed: Of the candidates drawn.

    Raises:
        UsageError: The space has fewer networks, or there is no such data set.
    """
    if not LEAST_NETWORKS <= count <= space.size:
        raise UsageError(f"{count} networks to transfer from: ask for {LEAST_NETWORKS} to {space.size}")
    pool = draw(space, max(POOL, count), np.random.default_rng(seed))
    census = take_census(space, dataset, rules, pool)
    terms = kernel_times(source)(census.kernels)[:, None] * basis(census.kernels)
    columns = [np.bincount(census.owner, column[census.occurrences], minlength=len(pool)) for column in terms.T]
    sums = np.stack(columns, axis=1).astype(np.float64)
    constant = _constant(source, sums[:, 0])
    design = (sums + constant * OF_CONSTANT) / (sums[:, :1] + constant)
    noise, kind_sd, slope_sd = _EXPECTED
    covariance = np.diag(prior_sd(kind_sd, slope_sd) ** 2)
    chosen: list[int] = []
    for _ in range(count):
        between = design @ covariance @ design.T
        gain = (between**2).sum(axis=0) / (np.diag(between) + noise**2)
        gain[chosen] = -np.inf
        best = int(np.argmax(gain))
        chosen.append(best)
        towards = covariance @ design[best]
        covariance = covariance - np.outer(towards, towards) / (design[best] @ towards + noise**2)
    return [pool[index] for index in chosen]


def adapt(source: LatencyTable, plan: Plan, measurements: Sequence[Measurement], graphs: Sequence[Graph]) -> Tabulated:
    """Make the table of a plan's device from the source's.

    Args:
        source: Another device's table; of any runtime, precision and batch, see `differences`.
        plan: What was timed.
        measurements: Of some or all of the plan's networks; layer times are not needed and not used.
        graphs: The network of each.

    Raises:
        UserError: Fewer than `LEAST_NETWORKS` networks were timed, or the space has changed since the plan was made.
    """
    usable = [(m, g) for m, g in zip(measurements, graphs, strict=True) if m.rounds]
    failed = tuple(m for m in measurements if m.error)
    if len(usable) < LEAST_NETWORKS:
        reason = f"; the first failed with: {failed[0].error}" if failed else ""
        raise UserError(f"{len(usable)} networks were timed, a transfer needs {LEAST_NETWORKS}{reason}")
    timed, networks = [m for m, _ in usable], [g for _, g in usable]
    quiet_ms = quiet_reference_ms(timed)
    ms = np.array([m.ratio(quiet_ms) * quiet_ms for m in timed])
    times = kernel_times(source)
    terms = terms_of(source, networks, RULES[plan.runtime], times)
    doubts = STANDARD_ERROR * np.array([m.spread(quiet_ms) for m in timed])
    posterior = fit(terms, ms, doubts)
    errors, deviations = left_out(terms, ms, doubts)
    relative = np.abs(np.expm1(errors))
    figures = {
        "error": 100 * float(relative.mean()),
        "within_10": 100 * float((relative <= 0.10).mean()),
        "coverage": 100 * float((np.abs(errors) <= Z_90 * deviations).mean()),
        "noise": 100 * float(doubts.mean()) / STANDARD_ERROR,
    }
    rows = _rows(source, plan, networks, times, posterior)
    model = _model(source, plan, networks, rows, terms, posterior, _scatter(errors, deviations), quiet_ms)
    laws = laws_of(plan, timed, networks, ms * np.exp(errors), deviations)
    info = _info(source, plan, timed, model, figures, laws)
    doubtful = tuple(m for m in timed if m.warnings)
    return Tabulated(LatencyTable(info=info, entries=rows), (), 0.0, failed, doubtful)


def terms_of(source: LatencyTable, networks: Sequence[Graph], rules: FusionRules, times: Times) -> Terms:
    """Networks as sums over their kernels' times on the source.

    Args:
        source: Gives the constant.
        networks: At least one.
        rules: Of the new device's runtime.
        times: Of the source.
    """
    kernels = [graph_kernels(network, rules) for network in networks]
    places = {kernel: place for place, kernel in enumerate(dict.fromkeys(k for own in kernels for k in own))}
    counts = np.zeros((len(networks), len(places) + 1))
    for row, own in zip(counts, kernels, strict=True):
        np.add.at(row, [places[kernel] for kernel in own], 1.0)
    counts[:, -1] = 1.0
    ms = times(list(places))
    model = source.info.model
    if isinstance(model, MeasuredModel):  # the source's exponent of the sum, as a weight of each network's kernels
        counts[:, :-1] *= ((counts[:, :-1] @ ms) / model.factor)[:, None] ** (model.exponent - 1)
    constant = _constant(source, counts[:, :-1] @ ms)
    return Terms(np.append(ms, constant), np.vstack([basis(list(places)), OF_CONSTANT]), counts)


def _constant(source: LatencyTable, sums: FloatArray) -> float:
    """Milliseconds a network beside its kernels, on the source."""
    model = source.info.model
    own = model.constant_ms if isinstance(model, MeasuredModel) else 0.0
    return max(own, LEAST_CONSTANT * float(np.median(sums)))


def _keeps_rows(source: LatencyTable, plan: Plan) -> bool:
    return isinstance(source.info.model, MeasuredModel) and RULES[source.info.runtime] == RULES[plan.runtime]


def _rows(
    source: LatencyTable, plan: Plan, networks: Sequence[Graph], times: Times, posterior: Posterior
) -> dict[Kernel, Entry]:
    """The new table's rows; `networks` of a row counts the source's, of a calculated one it is 1."""
    model = source.info.model
    if isinstance(model, MeasuredModel) and _keeps_rows(source, plan):
        known = {k: _scaled(row, model.factor) for k, row in source.entries.items()}
    else:
        space, rng = space_of(plan), np.random.default_rng(0)
        others = [graph_of(space, params, plan.dataset) for params in draw(space, ROW_NETWORKS, rng)]
        rules = RULES[plan.runtime]
        kernels = sorted({kernel for graph in (*networks, *others) for kernel in graph_kernels(graph, rules)})
        known = {
            k: Entry(1e3 * ms, 0.0, 1, "calibrated") for k, ms in zip(kernels, times(kernels).tolist(), strict=True)
        }
    factors, doubts = posterior.factors(list(known))
    rows = {}
    for (kernel, row), factor, doubt in zip(known.items(), factors.tolist(), doubts.tolist(), strict=True):
        scaled = _scaled(row, factor)
        spread = float(np.hypot(scaled.spread_us, Z_90 * doubt * scaled.latency_us))
        rows[kernel] = Entry(max(scaled.latency_us, 1e-3), spread, max(row.networks, 1), "calibrated")
    return rows


def _scaled(row: Entry, factor: float) -> Entry:
    return row._replace(latency_us=factor * row.latency_us, spread_us=factor * row.spread_us)


def _model(
    source: LatencyTable,
    plan: Plan,
    networks: Sequence[Graph],
    rows: dict[Kernel, Entry],
    terms: Terms,
    posterior: Posterior,
    scatter: float,
    quiet_ms: float,
) -> MeasuredModel:
    """What stands beside the rows."""
    model = source.info.model
    if isinstance(model, MeasuredModel) and _keeps_rows(source, plan):
        hypers, share = model.hypers, model.kernel_share
    else:
        hypers, share = fit_hypers(samples(rows)), 0.0
    exponent = model.exponent if isinstance(model, MeasuredModel) else 1.0
    constant_ms = float(terms.ms[-1] * np.exp(OF_CONSTANT @ posterior.theta))
    sums, _ = predicted_sums(rows, dict(hypers), networks, RULES[plan.runtime])
    kernels_ms = terms.predict(posterior.theta)[0] - constant_ms
    return MeasuredModel(
        hypers=hypers,
        factor=float(np.exp(np.median(np.log(kernels_ms) - exponent * np.log(sums)))),
        exponent=exponent,
        constant_ms=constant_ms,
        residual_log_sd=scatter,
        kernel_share=share,
        reference=reference_of(plan, space_of(plan)),
        reference_ms=quiet_ms,
    )


def _scatter(errors: FloatArray, deviations: FloatArray) -> float:
    """Standard deviation of the logarithm of a network's time: of the errors left out, widened for their number.

    A few errors may be small or large by luck; what the fits expected of them counts as much.
    """
    return float(np.sqrt(np.mean(np.concatenate([errors, deviations]) ** 2))) * (1 + 1.5 / len(errors))


def _info(
    source: LatencyTable,
    plan: Plan,
    timed: Sequence[Measurement],
    model: MeasuredModel,
    figures: dict[str, float],
    laws: Laws,
) -> TableInfo:
    theirs = source.info
    return table_info(
        plan,
        timed,
        provenance="calibrated",
        method=METHOD,
        sources=(
            f"the table {theirs.name} ({theirs.provenance}, {theirs.power_mode}, {theirs.networks} networks)",
            f"{len(timed)} networks of the space {plan.space} timed end to end by scaler profile",
        ),
        model=model,
        validation=figures,
        conditions=(*differences(source, plan), *timed[-1].conditions.notes, *laws.notes),
        energy=laws.energy,
        memory=laws.memory,
    )
