"""A scaling plan for machines: plain data for JSON, and every step of every factor as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scaler.files import write_atomic
from scaler.models.detectors.families import parameters_of
from scaler.scaling.judge import Scaled
from scaler.scaling.ladder import stages_of
from scaler.scaling.plan import Plan
from scaler.search.cards import latency_card

KIND, SCHEMA_VERSION = "scaler-scaling", 1


def as_plain(plan: Plan) -> dict[str, Any]:
    """The whole plan; the curves too."""
    estimator, accuracy = plan.judge.estimator, plan.judge.accuracy
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "question": asdict(plan.question),
        "device": estimator.device.id,
        "power_mode": estimator.mode.name,
        "precision": estimator.precision,
        "metric": f"{accuracy.dataset.upper()} {accuracy.metric}",
        "recipe": accuracy.recipe,
        "evaluation": accuracy.evaluation,
        "base": network(plan.base),
        "compound": network(plan.chosen),
        "moves": [move._asdict() for move in plan.moves()],
        "alone": {
            row.how: {"remark": row.remark, "network": None if row.scaled is None else network(row.scaled)}
            for row in plan.alone
        },
        "remarks": list(plan.remarks),
        "curves": {how: [network(scaled) for scaled in line] for how, line in plan.curves().items()},
        "latency_model": asdict(latency_card(estimator)),
        "accuracy_model": asdict(accuracy.facts),
    }


def network(scaled: Scaled) -> dict[str, Any]:
    """One network; units are part of the names, memory access and CIO are in elements."""
    return {
        "name": scaled.config.name,
        **parameters_of(scaled.config),
        "stages": stages_of(scaled.config),
        "macs_factor": scaled.factor,
        "macs": scaled.cost.macs,
        "flops": scaled.cost.flops,
        "params": scaled.cost.params,
        "memory_access": scaled.cost.memory_access,
        "cio": scaled.cost.conv_io,
        "memory_mib": scaled.memory_mib,
        "frame_ms": asdict(scaled.frame_ms),
        "engine_ms": asdict(scaled.engine_ms),
        "overhead_ms": scaled.overhead_ms,
        "fps": asdict(scaled.fps),
        "ap": asdict(scaled.ap),
        "ap_outside": list(scaled.ap_outside),
        "latency_doubt": scaled.latency_doubt,
    }


def write_csv(plan: Plan, path: Path) -> None:
    """Write a row for every step of every curve; intervals take three columns.

    Raises:
        UserError: The file cannot be written; what was there before is unchanged.
    """
    base, chosen = plan.base.config, {plan.chosen.config, *(row.scaled.config for row in plan.alone if row.scaled)}
    rows = [
        {
            "factor_moved": how,
            "base": scaled.config == base,
            "chosen": scaled.config in chosen,
            **_flat(network(scaled)),
            "latency_provenance": "estimated" if scaled.latency_doubt else plan.judge.estimator.provenance,
        }
        for how, line in plan.curves().items()
        for scaled in line
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def _flat(data: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in data.items():
        if isinstance(value, dict):
            flat |= {name if end == "mean" else f"{name}_{end}": float(f"{v:.10g}") for end, v in value.items()}
        else:
            flat[name] = "; ".join(value) if isinstance(value, list) else value
    return flat
