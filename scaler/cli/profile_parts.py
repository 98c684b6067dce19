"""What the commands of `scaler profile` share: plans, folders, tables."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from scaler.cli.options import console, say

if TYPE_CHECKING:
    from scaler.devices import Precision as PrecisionName
    from scaler.latency.energy import EnergyLaw
    from scaler.latency.running_memory import MemoryLaw
    from scaler.latency.table import LatencyTable
    from scaler.profiling.machine import Setting
    from scaler.profiling.measurement import Measurement
    from scaler.profiling.plan import Choice
    from scaler.profiling.plan_file import Plan
    from scaler.profiling.tabulate import Tabulated
    from scaler.runtimes.power_find import FoundPower

NETWORKS = 40
TRANSFER_NETWORKS = 10
OPSET = 13


def precision(name: str | None) -> PrecisionName | None:
    """A precision by its name, whatever its case."""
    from scaler.devices import PRECISIONS  # noqa: PLC0415
    from scaler.errors import UsageError, unknown_name  # noqa: PLC0415

    if name is None:
        return None
    for known in PRECISIONS:
        if known == name.casefold():
            return known
    raise UsageError(unknown_name("precision", name, PRECISIONS))


def setting(device: str, precision: str | None, power_mode: str | None) -> Setting:
    """Resolve what the user names."""
    from scaler.profiling.machine import setting  # noqa: PLC0415

    return setting(device, precision, power_mode)


def setting_of(path: Path, plan: Plan, device: str, precision: str | None, power_mode: str | None) -> Setting:
    """The setting of a plan, which must be the one that is asked for.

    Raises:
        UsageError: The plan is for something else.
    """
    from scaler.devices import load_device  # noqa: PLC0415
    from scaler.errors import UsageError  # noqa: PLC0415

    if plan.batch != 1:
        raise UsageError(f"{path}: batch = {plan.batch}: tables are of single pictures; allowed is 1")
    planned = setting(plan.device, plan.precision, plan.power_mode)
    same_device = load_device(device).id == plan.device
    if not same_device or setting(device, precision or plan.precision, power_mode or plan.power_mode) != planned:
        raise UsageError(
            f"{path} is for {plan.device}, {plan.precision}, {plan.power_mode}, which is not what is asked for"
        )
    return planned


def new_plan(
    device: str,
    space: str,
    networks: int | None,
    dataset: str | None,
    precision: str | None,
    power_mode: str | None,
    opset: int,
    seed: int,
) -> tuple[Plan, Choice]:
    """Choose networks and make a plan of them."""
    from scaler.latency.fusion import RULES  # noqa: PLC0415
    from scaler.profiling.networks import fitting  # noqa: PLC0415
    from scaler.profiling.plan import choose, make_plan  # noqa: PLC0415
    from scaler.search.predictors import default_dataset  # noqa: PLC0415
    from scaler.space_file import read_space  # noqa: PLC0415

    wanted = setting(device, precision, power_mode)
    count = networks or NETWORKS
    searched = read_space(space)
    dataset = dataset or default_dataset(searched)
    fits = fitting(searched, dataset, wanted.device, wanted.precision)
    choice = choose(searched, dataset, RULES[wanted.runtime], networks=count, seed=seed, fits=fits)
    plan = make_plan(space, dataset, wanted.device.id, wanted.mode.name, wanted.runtime, wanted.precision, 1, opset,
                     count, seed, choice=choice)  # fmt: skip
    return plan, choice


def print_choice(choice: Choice) -> None:
    """Print what plans of growing size cover."""
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("networks = engine builds", "kernel shapes", "at three sizes", "exact kernels", "work"):
        table.add_column(heading, justify="right")
    total = len(choice.coverage)
    for row in choice.coverage:
        if row.networks in (1, 2, 5) or row.networks % 10 == 0 or row.networks == total:
            shares = (f"{100 * share:.0f} %" for share in (row.shapes, row.pairs, row.kernels, row.work))
            table.add_row(str(row.networks), *shares)
    screen = console()
    screen.print(table)
    least = "" if choice.complete else "at least "
    screen.print(
        f"one engine a kernel would be {least}{choice.kernels} builds; the kernel model fills in map sizes between"
    )


def folder(work: Path | None, wanted: Setting) -> Path:
    """Where the measurements of a setting are kept."""
    from scaler.catalog import user_folder  # noqa: PLC0415
    from scaler.latency.table import table_name  # noqa: PLC0415

    base = user_folder() / "measurements" if work is None else work
    return base / table_name(wanted.device.id, wanted.runtime, wanted.precision, wanted.mode.name)


def work_folder(work: Path | None, plan: Plan, kind: str) -> Path:
    """Where the measurements of one kind for a plan are kept."""
    return folder(work, setting(plan.device, plan.precision, plan.power_mode)) / kind


def forget(folder: Path, restart: bool) -> None:
    """Remove earlier measurements where the user says so."""
    if restart and folder.exists():
        shutil.rmtree(folder)


def transfer_plan(
    wanted: Setting, transfer_from: str, space: str, networks: int, dataset: str | None, opset: int, seed: int
) -> tuple[Plan, LatencyTable]:
    """The networks that tell most about how two devices differ, and the table to start from."""
    from scaler.latency.fusion import RULES  # noqa: PLC0415
    from scaler.profiling.plan import reference_network  # noqa: PLC0415
    from scaler.profiling.plan_file import Plan, Planned  # noqa: PLC0415
    from scaler.profiling.transfer import choose_for_transfer, differences, find_source  # noqa: PLC0415
    from scaler.search.predictors import default_dataset  # noqa: PLC0415
    from scaler.space_file import read_space  # noqa: PLC0415

    source = find_source(transfer_from, wanted.runtime, wanted.precision)
    searched, rules = read_space(space), RULES[wanted.runtime]
    dataset = dataset or default_dataset(searched)
    chosen = choose_for_transfer(searched, dataset, source, rules, networks, seed)
    plan = Plan(
        device=wanted.device.id,
        power_mode=wanted.mode.name,
        runtime=wanted.runtime,
        precision=wanted.precision,
        batch=1,
        opset=opset,
        space=space,
        digest=searched.digest,
        dataset=dataset,
        networks=tuple(Planned(network=searched.candidate_id(params), params=params) for params in chosen),
        reference=reference_network(searched, dataset, rules, chosen),
    )
    for difference in differences(source, plan):
        say(f"less certain, since devices differ in more than speed: {difference}")
    return plan, source


def check_transfer(wanted: Setting, plan: Path | None, out: Path | None) -> None:
    """Refuse a plan for a transfer, which chooses its own networks, and to write its table over a measured one."""
    from scaler.errors import UsageError, UserError  # noqa: PLC0415
    from scaler.latency.table import read_table, table_name  # noqa: PLC0415

    if plan is not None:
        raise UsageError("--transfer-from chooses its own networks: leave --plan away")
    name = table_name(wanted.device.id, wanted.runtime, wanted.precision, wanted.mode.name)
    path = tables_folder(out) / f"{name}.toml"
    if path.is_file() and read_table(path).info.provenance == "measured":
        raise UserError(f"{path} is measured, which a transfer would replace: choose another folder with --out")


def meter(wanted: bool) -> FoundPower | None:
    """What measures power here, and what there is to know of it; None where it is not wanted."""
    from scaler.runtimes.power_find import find_power  # noqa: PLC0415

    found = find_power() if wanted else None
    if found is not None and found.note:
        say(found.note)
    return found


def tabulate(plan: Plan, measured: list[Measurement], out: Path | None, source: LatencyTable | None = None) -> None:
    """Make a table of measurements, or adapt another device's where one is given, and write it."""
    from scaler.profiling.networks import graph_of, space_of  # noqa: PLC0415
    from scaler.profiling.tabulate import tabulate  # noqa: PLC0415
    from scaler.profiling.transfer import adapt  # noqa: PLC0415

    space = space_of(plan)
    graphs = [graph_of(space, m.params, plan.dataset) for m in measured]
    say("fitting")
    finish(tabulate(plan, measured, graphs) if source is None else adapt(source, plan, measured, graphs), out)


def finish(made: Tabulated, out: Path | None) -> None:
    """Write a table and say how good it is."""
    from scaler.latency.table import write_table  # noqa: PLC0415

    path = write_table(made.table, tables_folder(out))
    for failed in made.failed:
        say(f"{failed.network} was not measured: {failed.error}")
    for doubtful in made.doubtful:
        say(f"{doubtful.network}: {'; '.join(doubtful.warnings)}")
    if made.unknown:
        names = ", ".join(dict.fromkeys(layer.name for layer in made.unknown))
        share = 100 * made.unknown_share
        say(f"{len(made.unknown)} layers ({share:.1f} % of the time) belong to no kernel: {names[:300]}")
    console().print(summary(made.table, path), markup=False)


def summary(table: LatencyTable, path: Path) -> str:
    """A table in two lines, and one each for energy and memory where it has them."""
    info, errors = table.info, table.info.validation
    times = (
        f"{path}: {len(table.entries)} kernels from {info.networks} networks in {info.seconds:.0f} s on "
        f"{info.processor}\nnetworks left out: mean error {errors['error']:.1f} %, {errors['within_10']:.0f} % within "
        f"10 %, 90 % intervals cover {errors['coverage']:.0f} %; the measurements spread by {errors['noise']:.1f} %"
    )
    laws: list[tuple[str, EnergyLaw | MemoryLaw]] = []
    if info.energy is not None:
        idle = "" if info.energy.idle_w is None else f", idle {info.energy.idle_w:.3g} W"
        laws.append((f"energy ({info.energy.source}, {info.energy.scope}{idle})", info.energy))
    if info.memory is not None:
        laws.append(("memory while running", info.memory))
    lines = [
        f"{what} of {law.networks} networks: left out, their mean error is {law.error:.1f} %, 90 % intervals cover "
        f"{law.coverage:.0f} %"
        for what, law in laws
    ]
    return "\n".join([times, *lines])


def tables_folder(out: Path | None) -> Path:
    """Where tables are written."""
    from scaler.catalog import user_folder  # noqa: PLC0415

    return user_folder() / "latency_tables" if out is None else out
