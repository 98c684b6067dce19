"""What the page shows, worded: the data that is embedded in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from scaler.report.steps import next_steps
from scaler.report.thinning import thinned
from scaler.report.verification import verified_facts, verified_view
from scaler.report.wording import (
    Column,
    columns,
    comparable,
    count,
    find,
    frame_ms,
    label,
    label_parts,
    latest,
    number,
    parameters,
    percent,
    reaches,
    trained_on,
)
from scaler.search.result import (
    Candidate,
    Coverage,
    DeviceResult,
    Interval,
    ModelCard,
    Reference,
    SearchResult,
    Share,
)

View = dict[str, object]

_LIMITS = {"params": "parameters", "parameters": "parameters", "macs": "MACs"}


def page_view(result: SearchResult, folder: Path | None = None) -> View:
    """The whole page as plain data; every text stands in it as it is shown."""
    return {
        "metric": result.metric,
        "noise": f"{result.noise_ap:g}",
        "version": result.scaler_version,
        "created": result.created,
        "minimize": result.minimize,
        "command": result.command,
        "space": result.space,
        "space_size": f"{result.space_size:,}",
        "devices": [_device(result, device) for device in result.devices],
        "accuracy_model": _card("Accuracy", result.accuracy_model),
        "search": _search_facts(result),
        "steps": [{"command": step.command, "purpose": step.purpose} for step in next_steps(result, folder)],
    }


def _device(result: SearchResult, device: DeviceResult) -> View:
    shown = list(enumerate(device.front, start=1))
    nearest = device.nearest
    beside = [] if nearest is None or find(device, nearest.id) is not None else [nearest]
    candidates = [*beside, *device.front]
    found = columns(parameters(candidate) for candidate in candidates)
    rows = [(None, candidate) for candidate in beside] + [(rank, candidate) for rank, candidate in shown]
    return {
        "name": device.device,
        "title": device.title,
        "facts": f"{device.power_mode}, {device.runtime}, {_precisions(device, candidates)}",
        "provenance": device.latency_model.provenance,
        "target": device.target_fps,
        "target_text": "" if device.target_fps is None else f"{device.target_fps:g} FPS",
        "pick": device.pick,
        "nearest": None if nearest is None else nearest.id,
        "message": device.message,
        "columns": [_column(column, candidates) for column in found],
        "candidates": [_candidate(result, device, rank, candidate, found) for rank, candidate in rows],
        "references": [_reference(reference) for reference in device.references],
        "explored": [[round(x, 3), round(y, 3)] for x, y in thinned(device.explored)],
        "latency_model": _card("Latency", device.latency_model),
    }


def _precisions(device: DeviceResult, candidates: Sequence[Candidate]) -> str:
    """Those of the candidates, the device's first."""
    return ", ".join(dict.fromkeys([device.precision, *(c.precision for c in candidates if c.precision)]))


def _column(column: Column, candidates: Sequence[Candidate]) -> View:
    numeric = all(isinstance(column.order(parameters(candidate)), float | None) for candidate in candidates)
    return {"title": column.title, "short": column.short, "numeric": numeric}


def _candidate(
    result: SearchResult,
    device: DeviceResult,
    rank: int | None,
    candidate: Candidate,
    found: Sequence[Column],
) -> View:
    shown = parameters(candidate)
    head, tail = label_parts(shown)
    return {
        "id": candidate.id,
        "rank": rank,
        "label": label(shown),
        "head": " ".join(head),
        "tail": " · ".join(tail),
        "cells": [{"text": column.text(shown), "order": column.order(shown)} for column in found],
        "roles": _roles(device, candidate),
        "reaches": reaches(candidate, device),
        "provenance": candidate.provenance,
        "outside": _doubts(candidate),
        "ap": _figure(candidate.ap, "{:.1f}".format),
        "loss": None if candidate.ap_loss is None else _figure(candidate.ap_loss, "{:.1f}".format),
        "trained": _trained(candidate, result.metric),
        "frame": _figure(frame_ms(candidate), number),
        "engine": _figure(candidate.engine_ms, number),
        "overhead": number(candidate.overhead_ms),
        "fps": _figure(candidate.fps, number),
        "energy": None if candidate.energy_mj is None else _figure(candidate.energy_mj, number),
        "verified": verified_view(candidate, device, result),
        "reach": {"value": candidate.reach_probability, "text": percent(candidate.reach_probability)},
        "params": {"value": candidate.parameters, "text": count(candidate.parameters)},
        "facts": _facts(result, device, candidate),
        "device_facts": _labelled(verified_facts(candidate, device, result)),
        "coverage": _coverage(candidate.coverage),
        "stages": [_share(share) for share in candidate.stages],
        "kinds": [_share(share) for share in candidate.kinds],
    }


def _doubts(candidate: Candidate) -> list[str]:
    if candidate.ap_inside_support:
        return []
    return list(candidate.ap_outside) or ["outside the data of the predictor"]


def _trained(candidate: Candidate, metric: str) -> View | None:
    """The measured accuracy as table, marker and hover show it; None where it was not trained."""
    run = latest(candidate, metric)
    if run is None:
        return None
    return {
        "value": run.value,
        "text": f"{run.value:.1f}",
        "metric": run.metric,
        "on": trained_on([run]) + (" in float" if candidate.ap_loss is not None else ""),
        "how": f"{run.recipe}, {run.epochs} epochs",
        "comparable": comparable(run, candidate, metric),
    }


def _roles(device: DeviceResult, candidate: Candidate) -> list[str]:
    nearest = None if device.nearest is None else device.nearest.id
    marks = (("pick", device.pick), ("nearest", nearest), ("knee", device.knee))
    return [role for role, identity in marks if identity == candidate.id]


def _facts(result: SearchResult, device: DeviceResult, candidate: Candidate) -> list[View]:
    frame, engine = frame_ms(candidate), candidate.engine_ms
    facts = [
        (
            result.metric,
            f"{candidate.ap.mean:.1f}",
            f"{_ends(candidate.ap, '{:.1f}'.format)}, {candidate.ap_provenance}",
        ),
        ("Frame rate", f"{number(candidate.fps.mean)} FPS", _ends(candidate.fps, number)),
        ("Frame time", f"{number(frame.mean)} ms", _ends(frame, number)),
        ("Engine alone", f"{number(engine.mean)} ms", f"+ {number(candidate.overhead_ms)} overhead"),
        ("Parameters", count(candidate.parameters), f"{candidate.weights_mib:.2f} MiB of weights"),
        ("MACs", count(candidate.macs), f"{count(2 * candidate.macs)} FLOPs"),
        ("Memory access", _bytes(candidate.memory_access_bytes), "per frame"),
        ("Peak activations", f"{candidate.peak_activation_mib:.2f} MiB", ""),
    ]
    facts[1:1] = [
        (
            f"{run.metric}, measured",
            f"{run.value:.1f}",
            f"{trained_on([run])}: {run.recipe}, {run.epochs} epochs; AP {run.ap:.1f}, AP50 {run.ap50:.1f}",
        )
        for run in reversed(candidate.trained)
    ]
    if candidate.energy_mj is not None:
        energy = candidate.energy_mj
        facts.append(("Energy of a frame", f"{number(energy.mean)} mJ", _ends(energy, number)))
    if (loss := candidate.ap_loss) is not None:
        note = f"{_ends(loss, '{:.1f}'.format)}, contained in the {result.metric}"
        facts.append(("INT8 loss", f"{loss.mean:.1f}", note))
    if device.target_fps is not None and candidate.reach_probability is not None:
        probability = percent(candidate.reach_probability)
        facts.insert(4 + len(candidate.trained), (f"Reaches {device.target_fps:g} FPS", probability, "probability"))
    return _labelled(facts)


def _labelled(facts: Sequence[tuple[str, str, str]]) -> list[View]:
    return [{"label": name, "value": value, "note": note} for name, value, note in facts]


def _coverage(coverage: Coverage) -> list[View]:
    parts = (
        ("latency table", coverage.table),
        ("fitted kernel model", coverage.model),
        ("roofline", coverage.roofline),
    )
    return [{"name": name, "share": share, "text": f"{100 * share:.0f} %"} for name, share in parts if share > 5e-4]


def _share(share: Share) -> View:
    return {
        "name": share.name,
        "kernels": share.kernels,
        "time": {"value": share.ms, "text": f"{share.ms:.2f} ms"},
        "macs": {"value": share.macs, "text": count(share.macs)},
        "memory": {"value": share.memory_access_bytes, "text": _bytes(share.memory_access_bytes)},
        "params": {"value": share.params, "text": count(share.params)},
    }


def _reference(reference: Reference) -> View:
    ap, fps, published = reference.predicted_ap, reference.predicted_fps, reference.published_fps
    return {
        "name": reference.name,
        "source": reference.source,
        "ap": {"value": reference.published_ap, "text": f"{reference.published_ap:.2f}"},
        "fps": {"value": published, "text": "–" if published is None else f"{published:.2f}"},
        "predicted_ap": _figure(ap, "{:.1f}".format),
        "predicted_fps": _figure(fps, number),
        "ap_deviation": f"{ap.mean - reference.published_ap:+.2f}",
        "fps_deviation": "–" if published is None else f"{100 * (fps.mean / published - 1):+.1f} %",
        "ap_covered": ap.low <= reference.published_ap <= ap.high,
        "fps_covered": published is None or fps.low <= published <= fps.high,
    }


def _card(subject: str, card: ModelCard) -> View:
    return {
        "subject": subject,
        "name": card.name,
        "provenance": card.provenance,
        "fitted_on": card.fitted_on,
        "errors": [{"name": name, "text": text} for name, text in card.errors.items()],
        "notes": list(card.notes),
    }


def _search_facts(result: SearchResult) -> list[View]:
    limits = ", ".join(f"{_LIMITS.get(k, k.replace('_', ' '))} ≤ {count(v)}" for k, v in result.limits.items())
    facts = (
        ("Space", f"{result.space}, {result.space_size:,} candidates"),
        ("Trials", f"{result.trials:,}, of them {result.distinct:,} distinct"),
        ("Sampler", f"{result.sampler}, seed {result.seed}"),
        ("Limits", limits),
        ("Dataset", result.dataset),
        ("Study", result.study),
    )
    return [{"name": name, "text": text} for name, text in facts if text]


def _figure(interval: Interval, digits: Callable[[float], str]) -> View:
    return {
        "mean": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "text": digits(interval.mean),
        "ends": _ends(interval, digits),
    }


def _ends(interval: Interval, digits: Callable[[float], str]) -> str:
    return f"{digits(interval.low)}–{digits(interval.high)}"


def _bytes(value: int) -> str:
    return f"{value / 2**20:.1f} MiB" if value >= 2**20 else f"{value / 2**10:.1f} KiB"
