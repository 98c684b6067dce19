"""`scaler profile`: build a latency table on this machine, or for a device elsewhere, and prove it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scaler.cli import profile_parts as parts
from scaler.cli.options import Dataset, Json, PowerMode, Precision, SpaceName, console, measuring, print_json, say

app = typer.Typer(help="Measure a device: plan, run, bundle, import, validate.", no_args_is_help=True)

DeviceName = Annotated[str, typer.Option("--device", "-d", help="Device; host is this computer.")]
Networks = Annotated[int | None, typer.Option("--networks", "-n", min=1, help=f"Networks; {parts.NETWORKS} otherwise.")]
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
    dataset: Dataset = None,
    precision: Precision = None,
    power_mode: PowerMode = None,
    opset: Opset = parts.OPSET,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the plan, plan.json for instance.")] = None,
    json_output: Json = False,
) -> None:
    """Choose the fewest networks that together cover the kernels of a space.

    Example: scaler profile plan --device host --out plan.json
    """
    from scaler.profiling.plan_file import write_plan  # noqa: PLC0415

    plan, choice = parts.new_plan(device, space, networks, dataset, precision, power_mode, opset, seed)
    if out is not None:
        write_plan(plan, out)
        say(f"{out}: {len(plan.networks)} networks of {plan.space} for {plan.device} ({plan.power_mode})")
    if json_output:
        print_json([coverage._asdict() for coverage in choice.coverage])
    else:
        parts.print_choice(choice)


@app.command("run")
def run_command(
    device: DeviceName,
    space: SpaceName = "yolo-ret",
    networks: Networks = None,
    dataset: Dataset = None,
    precision: Precision = None,
    power_mode: PowerMode = None,
    runtime: RuntimeName = "auto",
    opset: Opset = parts.OPSET,
    seed: Seed = 0,
    plan: PlanFile = None,
    transfer_from: Annotated[
        str | None,
        typer.Option("--transfer-from", help="Adapt the table of this device with a few end-to-end timings."),
    ] = None,
    out: Tables = None,
    work: Work = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget earlier measurements of this setting.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Measure again what has failed before.")] = False,
    power: Annotated[
        bool, typer.Option("--power/--no-power", help="Energy of each network too, where a sensor tells power.")
    ] = True,
) -> None:
    """Measure a device and write its latency table. Interrupted, the same command goes on.

    Example: scaler profile run --device host
    """
    from scaler.profiling.machine import machine_for  # noqa: PLC0415
    from scaler.profiling.plan_file import read_plan  # noqa: PLC0415
    from scaler.profiling.run import run  # noqa: PLC0415

    source, kind = None, "profile"
    made = None if plan is None else read_plan(plan)
    if made is None or plan is None:
        wanted = parts.setting(device, precision, power_mode)
    else:
        wanted = parts.setting_of(plan, made, device, precision, power_mode)
    if transfer_from is not None:
        parts.check_transfer(wanted, plan, out)
        count = networks or parts.TRANSFER_NETWORKS
        made, source = parts.transfer_plan(wanted, transfer_from, space, count, dataset, opset, seed)
        kind = f"transfer-from-{source.info.device}"
    machine = machine_for(wanted, runtime)  # refuses before networks are chosen, which takes seconds
    if made is None:
        made, _ = parts.new_plan(device, space, networks, dataset, precision, power_mode, opset, seed)
    folder = parts.work_folder(work, made, kind)
    parts.forget(folder, restart)
    found = parts.meter(power)
    with measuring(f"measuring {made.device}") as progress:
        measured = run(
            made,
            machine.runtime,
            folder,
            effort=machine.effort,
            profile=source is None,
            cores=machine.cores,
            retry_failed=retry_failed,
            power=found,
            progress=progress,
        )
    parts.tabulate(made, measured, out, source)


@app.command("bundle")
def bundle_command(
    device: DeviceName,
    space: SpaceName = "yolo-ret",
    networks: Networks = None,
    dataset: Dataset = None,
    precision: Precision = None,
    power_mode: PowerMode = None,
    opset: Opset = parts.OPSET,
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
        made, _ = parts.new_plan(device, space, networks, dataset, precision, power_mode, opset, seed)
    else:
        made = read_plan(plan)
        parts.setting_of(plan, made, device, precision, power_mode)
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
    from scaler.latency.energy import NO_POWER  # noqa: PLC0415
    from scaler.profiling.bundle_import import read_results  # noqa: PLC0415

    found = read_results(
        results, device=device, precision=parts.precision(precision), power_mode=power_mode, tensorrt=tensorrt
    )
    for refused in found.refused:
        say(f"refused {refused.network}: {refused.reason}")
    for note in dict.fromkeys(note for m in found.measurements for note in m.conditions.notes):
        if note.startswith(NO_POWER):
            say(note)
    parts.tabulate(found.plan, list(found.measurements), out)


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
    from scaler.latency.estimator import load_uncorrected  # noqa: PLC0415
    from scaler.latency.measured import MeasuredEstimator  # noqa: PLC0415
    from scaler.profiling.machine import machine_for  # noqa: PLC0415
    from scaler.profiling.measurement import read_measurement  # noqa: PLC0415
    from scaler.profiling.plan_file import read_plan  # noqa: PLC0415
    from scaler.profiling.proof import as_dict, render  # noqa: PLC0415
    from scaler.profiling.validate import validate  # noqa: PLC0415

    wanted = parts.setting(device, precision, power_mode)
    estimator = load_uncorrected(wanted.device.id, precision=wanted.precision, power_mode=wanted.mode.name)
    if not isinstance(estimator, MeasuredEstimator) or estimator.provenance != "measured":
        raise UserError(f"{wanted.device.id} has no measured table: scaler profile run --device {wanted.device.id}")
    trained = parts.folder(work, wanted) / "profile"
    if not (trained / "plan.json").is_file():
        raise UserError(f"{trained} has no measurements behind the table: scaler profile run --device {device}")
    plan = read_plan(trained / "plan.json")
    known = [read_measurement(path) for p in plan.networks if (path := trained / f"{p.network}.json").is_file()]
    folder = parts.folder(work, wanted) / f"validate-seed{seed}-{networks}"
    machine = machine_for(wanted, runtime)
    parts.forget(folder, restart)
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
