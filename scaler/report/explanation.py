"""Prints what `scaler show` explains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaler.report.lightening import print_lightening
from scaler.report.tables import plain_table
from scaler.search.explain import Explanation

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SHOWN_KERNELS = 8
SHOWN_STEPS = 6


def print_explanation(explanation: Explanation, console: Console) -> None:
    """Print the candidate's figures, where its cost lies, and what to shrink first."""
    candidate, cost = explanation.candidate, explanation.cost
    params = ", ".join(f"{name}={value}" for name, value in candidate.params.items())
    console.print(f"[bold]{candidate.id}[/bold] on {explanation.device}\n{params}")
    engine, fps, ap = candidate.engine_ms, candidate.fps, candidate.ap
    console.print(
        f"{explanation.metric} {ap.mean:.1f} ({ap.low:.1f} to {ap.high:.1f}), {candidate.ap_provenance}; "
        f"{fps.mean:.1f} FPS ({fps.low:.1f} to {fps.high:.1f}); "
        f"engine {engine.mean:.1f} ms + overhead {candidate.overhead_ms:.1f} ms; latency {candidate.provenance}"
    )
    if (loss := candidate.ap_loss) is not None:
        console.print(
            f"8-bit integers take {loss.mean:.1f} ({loss.low:.1f} to {loss.high:.1f}) of the {explanation.metric}: "
            "a prediction; scaler export --precision int8 measures it"
        )
    if (energy := candidate.energy_mj) is not None:
        console.print(f"{energy.mean:.3g} mJ a frame ({energy.low:.3g} to {energy.high:.3g})")
    for warning in explanation.warnings:
        console.print(f"[red]{warning}[/red]")
    for reason in candidate.ap_outside:
        console.print(f"[yellow]accuracy extrapolates: {reason}[/yellow]")
    console.print(
        f"{cost.params / 1e6:.2f} M parameters, {cost.macs / 1e6:.0f} M MACs ({cost.flops / 1e6:.0f} M FLOPs), "
        f"memory access {cost.memory_access / 1e6:.1f} M elements ({cost.memory_access_ratio:.2f} times the least "
        f"at these MACs), CIO {cost.conv_io / 1e6:.1f} M, weights {candidate.weights_mib:.1f} MiB, "
        f"peak activations {candidate.peak_activation_mib:.1f} MiB"
    )
    console.print(_stages(explanation))
    console.print(_kinds(explanation))
    console.print(_kernels(explanation))
    console.print(_steps(explanation))
    if explanation.lightening is not None:
        print_lightening(explanation.lightening, explanation.metric, console)
    coverage, card = candidate.coverage, explanation.latency_model
    errors = ", ".join(f"{name} {figure}" for name, figure in card.errors.items())
    console.print(
        f"engine time: {100 * coverage.table:.0f} % from the {card.provenance} table, "
        f"{100 * coverage.model:.0f} % from the kernel model, {100 * coverage.roofline:.0f} % from the data sheet; "
        f"{errors}",
        style="dim",
    )


def _stages(explanation: Explanation) -> Table:
    engine = explanation.candidate.engine_ms.mean
    table = plain_table(
        "\nby stage", "stage", "ms", "share", "M MACs", "moved MiB", "MACs/element", "to bound", "kernels"
    )
    for share in explanation.candidate.stages:
        cost = explanation.stages[share.name]
        table.add_row(
            share.name,
            f"{share.ms:.2f}",
            f"{100 * share.ms / engine:.0f} %",
            f"{share.macs / 1e6:.1f}",
            f"{share.memory_access_bytes / 2**20:.2f}",
            f"{cost.arithmetic_intensity:.1f}",
            f"x{cost.memory_access_ratio:.2f}",
            str(share.kernels),
        )
    return table


def _kinds(explanation: Explanation) -> Table:
    engine = explanation.candidate.engine_ms.mean
    table = plain_table("\nby kernel kind", "kind", "ms", "share", "M MACs", "moved MiB", "kernels")
    for share in explanation.candidate.kinds:
        table.add_row(
            share.name,
            f"{share.ms:.2f}",
            f"{100 * share.ms / engine:.0f} %",
            f"{share.macs / 1e6:.1f}",
            f"{share.memory_access_bytes / 2**20:.2f}",
            str(share.kernels),
        )
    return table


def _kernels(explanation: Explanation) -> Table:
    table = plain_table("\ndearest kernels", "block", "kind", "shape", "ms", "from")
    for kernel in explanation.kernels[:SHOWN_KERNELS]:
        origin = "table" if kernel.in_table else "model"
        table.add_row(kernel.block, kernel.kind, kernel.shape, f"{kernel.ms:.2f}", origin)
    return table


def _steps(explanation: Explanation) -> Table:
    table = plain_table("\nwhat to shrink first (one step in the space)", "change", "saves ms", "costs AP", "ms per AP")
    for step in explanation.steps[:SHOWN_STEPS]:
        table.add_row(step.change, f"{step.saved_ms:.2f}", f"{step.lost_ap:.2f}", f"{step.rate:.1f}")
    return table


def print_layers(explanation: Explanation, console: Console) -> None:
    """Print the cost of every layer."""
    table = plain_table("\nlayers", "layer", "shape", "params", "M MACs", "M elements moved", "to bound")
    for layer, cost in explanation.layers():
        table.add_row(
            layer.name,
            "x".join(map(str, layer.shape)),
            f"{cost.params:,}",
            f"{cost.macs / 1e6:.2f}",
            f"{cost.memory_access / 1e6:.3f}",
            f"x{cost.memory_access_ratio:.2f}" if cost.memory_access else "",
        )
    console.print(table)
