"""`scaler profile`: build a latency table on this machine, or for a device elsewhere, and prove it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaler.cli.options import Dataset, Json, PowerMode, Precision, SpaceName, console, measuring, print_json, say

if TYPE_CHECKING:
    from scaler.devices import Precision as PrecisionName
    from scaler.latency.table import LatencyTable
    from scaler.profiling.machine import Setting
    from scaler.profiling.measurement import Measurement
    from scaler.profiling.plan import Choice
    from scaler.profiling.plan_file import Plan
    from scaler.profiling.tabulate import Tabulated

app = typer.Typer(help="Measure a device: plan, run, bundle, import, validate.", no_args_is_help=True)

NETWORKS = 40
OPSET = 13

DeviceName = Annotated[str, typer.Option("--device", "-d", help="Device; host is this computer.")]
Networks = Annotated[int | None, typer.Option("--networks", "-n", min=1, help=f"Networks; {NETWORKS} otherwise.")]
RuntimeName = Annotated[str, typer.Option("--runtime", help="auto, onnxruntime, tensorrt (in process) or trtexec.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the random choices.")]
PlanFile = Annotated[Path | None, typer.Option("--plan", help="A plan of `scaler profile plan`; made anew otherwise.")]
Tables = Annotated[
    Path | None, typer.Option("--out", "-o", help="Folder of the tables; that of your own data otherwise.")
]
Work = Annotated[
    Path | None, typer.Option("--work", help="Folder of the measurements; below that of your own data otherwise.")
]
Opset = Annotated[int, typer.Option("--opset", help="ONNX opset; 13 is the newest that TensorRT 8.2 reads.")]


@app.command("plan")
def plan_command(
    device: DeviceName,
    space: SpaceName = "yolo-ret",
    networks: Networks = None,
    dataset: Dataset = "voc",
    precision: Precision = None,
    power_mode: PowerMode = None,
    opset: Opset = OPSET,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the plan, plan.json for instance.")] = None,
    json_output: Json = False,
) -> None:
    """Choose the fewest networks that together cover the kernels of a space.

    Example: scaler profile plan --device host --out plan.json
    """
    from scaler.profiling.plan_file import write_plan  # noqa: PLC0415

    plan, choice = _new_plan(device, space, networks, dataset, precision, power_mode, opset, seed)
    if out is not None:
        write_plan(plan, out)
        say(f"{out}: {len(plan.networks)} networks of {plan.space} for {plan.device} ({plan.power_mode})")
    if json_output:
        print_json([coverage._asdict() for coverage in choice.coverage])
    else:
        _print_choice(choice)


@app.command("run")
def run_command(
    device: DeviceName,
    space: SpaceName = "yolo-ret",
    networks: Networks = None,
    dataset: Dataset = "voc",
    precision: Precision = None,
    power_mode: PowerMode = None,
    runtime: RuntimeName = "auto",
    opset: Opset = OPSET,
    seed: Seed = 0,
    plan: PlanFile = None,
    transfer_from: Annotated[
        str | None,
        typer.Option("--transfer-from", help="Adapt the table of this device with a few end-to-end timings."),
    ] = None,
    out: Tables = None,
    work: Work = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget earlier measurements of this setting.")] = False,
) -> None:
    """Measure a device and write its latency table. Interrupted, the same command goes on.

    Example: scaler profile run --device host
    """
    from scaler.profiling.machine import machine_for  # noqa: PLC0415
    from scaler.profiling.plan_file import read_plan  # noqa: PLC0415
    from scaler.profiling.run import run  # noqa: PLC0415

    if transfer_from is not None:
        _transfer(device, transfer_from, space, networks or 10, dataset, precision, power_mode, runtime, opset, seed,
                  out, work, restart)  # fmt: skip
        return
    if plan is None:
        wanted = _setting(device, precision, power_mode)
        machine = machine_for(wanted, runtime)  # refuses before anything is planned
        made, _ = _new_plan(device, space, networks, dataset, precision, power_mode, opset, seed)
    else:
        made = read_plan(plan)
        wanted = _setting(made.device, made.precision, made.power_mode)
        if _setting(device, precision, power_mode or made.power_mode) != wanted:
            from scaler.errors import UsageError  # noqa: PLC0415

            raise UsageError(
                f"{plan} is for {made.device}, {made.precision}, {made.power_mode}, which is not what is asked for"
            )
        machine = machine_for(wanted, runtime, batch=made.batch)
    folder = _work_folder(work, made, "profile")
    if restart and folder.exists():
        shutil.rmtree(folder)
    with measuring(f"measuring {made.device}") as progress:
        measured = run(made, machine.runtime, folder, effort=machine.effort, cores=machine.cores, progress=progress)
    _tabulate(made, measured, out)


@app.command("bundle")
def bundle_command(
    device: DeviceName,
    space: SpaceName = "yolo-ret",
    networks: Networks = None,
    dataset: Dataset = "voc",
    precision: Precision = None,
    power_mode: PowerMode = None,
    opset: Opset = OPSET,
    seed: Seed = 0,
    plan: PlanFile = None,
    typed: Annotated[
        bool, typer.Option("--typed", help="Put the precision into the models, for TensorRT 11 and newer.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", "-o", help="The archive.")] = Path("bundle.tar.gz"),
) -> None:
    """Write one archive that measures a device with nothing but trtexec and Python 3.6 (or a plain shell).

    Example: scaler profile bundle --device nano --out nano.tar.gz
    """
    from scaler.profiling.bundle import write_bundle  # noqa: PLC0415
    from scaler.profiling.plan_file import read_plan  # noqa: PLC0415

    if plan is None:
        made, _ = _new_plan(device, space, networks, dataset, precision, power_mode, opset, seed)
    else:
        made = read_plan(plan)
    summary = write_bundle(made, out, typed=typed)
    say(
        f"{out}: {summary.networks} networks, {summary.packed_bytes / 2**20:.1f} MiB, "
        f"{summary.unpacked_bytes / 2**20:.0f} MiB on the device"
    )
    say(f"on the device: tar xzf {out.name}, then in its folder: sh measure.sh; bring results.tar.gz back")
    say(f"here: scaler profile import results.tar.gz --device {made.device}")


@app.command("import")
def import_command(
    results: Annotated[Path, typer.Argument(help="results.tar.gz from the device, or its folder.")],
    device: Annotated[str | None, typer.Option("--device", "-d", help="Refuse results of another device.")] = None,
    precision: Precision = None,
    power_mode: PowerMode = None,
    tensorrt: Annotated[
        str | None, typer.Option("--tensorrt", help="Refuse results of another TensorRT version, 8.2 for instance.")
    ] = None,
    out: Tables = None,
) -> None:
    """Turn what a bundle brought back into a latency table; what is damaged is refused, what is whole kept.

    Example: scaler profile import results.tar.gz --device nano
    """
    from scaler.profiling.bundle_import import read_results  # noqa: PLC0415

    found = read_results(
        results, device=device, precision=_precision(precision), power_mode=power_mode, tensorrt=tensorrt
    )
    for refused in found.refused:
        say(f"refused {refused.network}: {refused.reason}")
    _tabulate(found.plan, list(found.measurements), out)


@app.command("validate")
def validate_command(
    device: DeviceName,
    networks: Annotated[int, typer.Option("--networks", "-n", min=2, help="Held-out networks.")] = 60,
    precision: Precision = None,
    power_mode: PowerMode = None,
    runtime: RuntimeName = "auto",
    seed: Seed = 0,
    work: Work = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget earlier held-out measurements.")] = False,
    json_output: Json = False,
) -> None:
    """Measure random networks that the table never saw, each twice, beside three baselines.

    Example: scaler profile validate --device host
    """
    from scaler.errors import UserError  # noqa: PLC0415
    from scaler.latency.estimator import load_estimator  # noqa: PLC0415
    from scaler.latency.measured import MeasuredEstimator  # noqa: PLC0415
    from scaler.profiling.machine import machine_for  # noqa: PLC0415
    from scaler.profiling.measurement import read_measurement  # noqa: PLC0415
    from scaler.profiling.plan_file import read_plan  # noqa: PLC0415
    from scaler.profiling.proof import as_dict, render  # noqa: PLC0415
    from scaler.profiling.validate import validate  # noqa: PLC0415

    wanted = _setting(device, precision, power_mode)
    estimator = load_estimator(wanted.device.id, precision=wanted.precision, power_mode=wanted.mode.name)
    if not isinstance(estimator, MeasuredEstimator):
        raise UserError(f"{wanted.device.id} has no measured table: scaler profile run --device {wanted.device.id}")
    trained = _folder(work, wanted) / "profile"
    if not (trained / "plan.json").is_file():
        raise UserError(f"{trained} has no measurements behind the table: scaler profile run --device {device}")
    plan = read_plan(trained / "plan.json")
    known = [read_measurement(path) for p in plan.networks if (path := trained / f"{p.network}.json").is_file()]
    folder = _folder(work, wanted) / f"validate-seed{seed}-{networks}"
    if restart and folder.exists():
        shutil.rmtree(folder)
    machine = machine_for(wanted, runtime, batch=plan.batch)
    with measuring("held-out networks") as progress:
        found = validate(plan, known, estimator, machine, folder, networks=networks, seed=seed, progress=progress)
    if json_output:
        print_json({"drift": found.drift, "failed": [m.network for m in found.failed], **as_dict(found.proof)})
        return
    console().print(render(found.proof))
    console().print(
        f"the reference network is {100 * found.drift:+.1f} % slower than when the table was made; taken out above"
    )
    for failed in found.failed:
        say(f"{failed.network}: {failed.error}")


def _precision(name: str | None) -> PrecisionName | None:
    """A precision by its name, whatever its case."""
    from scaler.devices import PRECISIONS  # noqa: PLC0415
    from scaler.errors import UsageError, unknown_name  # noqa: PLC0415

    if name is None:
        return None
    for known in PRECISIONS:
        if known == name.casefold():
            return known
    raise UsageError(unknown_name("precision", name, PRECISIONS))


def _setting(device: str, precision: str | None, power_mode: str | None) -> Setting:
    from scaler.profiling.machine import setting  # noqa: PLC0415

    return setting(device, precision, power_mode)


def _new_plan(
    device: str,
    space: str,
    networks: int | None,
    dataset: str,
    precision: str | None,
    power_mode: str | None,
    opset: int,
    seed: int,
) -> tuple[Plan, Choice]:
    from scaler.latency.fusion import RULES  # noqa: PLC0415
    from scaler.profiling.plan import choose, make_plan  # noqa: PLC0415
    from scaler.space_file import read_space  # noqa: PLC0415

    wanted = _setting(device, precision, power_mode)
    count = networks or NETWORKS
    choice = choose(read_space(space), dataset, RULES[wanted.runtime], networks=count, seed=seed)
    plan = make_plan(space, dataset, wanted.device.id, wanted.mode.name, wanted.runtime, wanted.precision, 1, opset,
                     count, seed, choice=choice)  # fmt: skip
    return plan, choice


def _print_choice(choice: Choice) -> None:
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


def _folder(work: Path | None, wanted: Setting) -> Path:
    from scaler.catalog import user_folder  # noqa: PLC0415
    from scaler.latency.table import table_name  # noqa: PLC0415

    base = user_folder() / "measurements" if work is None else work
    return base / table_name(wanted.device.id, wanted.runtime, wanted.precision, wanted.mode.name)


def _work_folder(work: Path | None, plan: Plan, kind: str) -> Path:
    return _folder(work, _setting(plan.device, plan.precision, plan.power_mode)) / kind


def _tabulate(plan: Plan, measured: list[Measurement], out: Path | None) -> None:
    from scaler.profiling.networks import graph_of, space_of  # noqa: PLC0415
    from scaler.profiling.tabulate import tabulate  # noqa: PLC0415

    space = space_of(plan)
    say("fitting")
    _finish(tabulate(plan, measured, [graph_of(space, m.params, plan.dataset) for m in measured]), out)


def _finish(made: Tabulated, out: Path | None) -> None:
    """Write a table and say how good it is."""
    from scaler.latency.table import write_table  # noqa: PLC0415

    path = write_table(made.table, _tables_folder(out))
    for failed in made.failed:
        say(f"{failed.network} was not measured: {failed.error}")
    for doubtful in made.doubtful:
        say(f"{doubtful.network}: {'; '.join(doubtful.warnings)}")
    if made.unknown:
        names = ", ".join(dict.fromkeys(layer.name for layer in made.unknown))
        share = 100 * made.unknown_share
        say(f"{len(made.unknown)} layers ({share:.1f} % of the time) belong to no kernel: {names[:300]}")
    console().print(_summary(made.table, path))


def _summary(table: LatencyTable, path: Path) -> str:
    info, errors = table.info, table.info.validation
    return (
        f"{path}: {len(table.entries)} kernels from {info.networks} networks in {info.seconds:.0f} s on "
        f"{info.processor}\nnetworks left out: mean error {errors['error']:.1f} %, {errors['within_10']:.0f} % within "
        f"10 %, 90 % intervals cover {errors['coverage']:.0f} %; the measurements spread by {errors['noise']:.1f} %"
    )


def _tables_folder(out: Path | None) -> Path:
    from scaler.catalog import user_folder  # noqa: PLC0415

    return user_folder() / "latency_tables" if out is None else out
