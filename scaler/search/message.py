"""What a search says of a device in words: the pick or what stands in the way, what was left out, what is a guess."""

from __future__ import annotations

from collections.abc import Sequence

from scaler.accuracy import NOISE_AP
from scaler.search.evaluation import DEVICE_MEMORY, ENERGY, UNMEASURED, Evaluated, Evaluator
from scaler.search.memory import law_of
from scaler.search.precision import Engines
from scaler.search.result import Candidate

__all__ = ["message"]


def message(
    evaluator: Evaluator,
    engines: Engines,
    front: tuple[Candidate, ...],
    nearest: Candidate | None,
    seen: Sequence[Evaluated],
) -> str:
    """The pick in one sentence, or what stands in the way; then what was left out, and what is a guess.

    Args:
        evaluator: Of the search.
        engines: Of the device.
        front: Of the device.
        nearest: Where the front is empty, the candidate that misses the demands least.
        seen: The scores of all candidates.
    """
    device = engines.usual.device
    if not front:
        found = "No candidate was evaluated." if nearest is None else _unreachable(evaluator, engines, nearest)
    elif evaluator.target_fps is None:
        found = f"{len(front)} Pareto-optimal detectors, {_ends(evaluator, front)} on {device.name}."
    else:
        found = _picked(evaluator, front, device.name)
    return found + _memory(evaluator, engines) + _left_out(engines, seen) + _guesses(engines, front)


def _ends(evaluator: Evaluator, front: tuple[Candidate, ...]) -> str:
    first, last = front[0], front[-1]
    if evaluator.minimize == ENERGY:
        return f"{_energy(first)} to {_energy(last)} a frame"
    return f"{first.fps.mean:.0f} to {last.fps.mean:.1f} FPS"


def _energy(candidate: Candidate) -> str:
    assert candidate.energy_mj is not None
    return f"{candidate.energy_mj.mean:.3g} mJ"


def _picked(evaluator: Evaluator, front: tuple[Candidate, ...], device: str) -> str:
    pick = front[-1]
    loss = "" if pick.ap_loss is None else f" (INT8 takes {pick.ap_loss.mean:.1f} of it)"
    energy = "" if pick.energy_mj is None else f" and {_energy(pick)} a frame"
    text = (
        f"{pick.id} is the most accurate that reaches the target on {device}: AP {pick.ap.mean:.1f}{loss} at "
        f"{pick.fps.mean:.1f} FPS{energy}; it holds with probability {100 * (pick.reach_probability or 0):.0f} %."
    )
    close = [c for c in front[:-1] if pick.ap.mean - c.ap.mean < NOISE_AP]
    if close:
        rate = f"runs at {close[0].fps.mean:.1f} FPS" if evaluator.minimize != ENERGY else f"takes {_energy(close[0])}"
        text += f" Within the noise of {NOISE_AP:g} AP, {close[0].id} {rate}."
    return text


def _memory(evaluator: Evaluator, engines: Engines) -> str:
    """What a limit on the memory was compared with, in a sentence."""
    if evaluator.limits.memory_mib is None:
        return ""
    measured = [one.precision.upper() for one in engines.estimators if law_of(one) is not None]
    if len(measured) == len(engines.estimators):
        return " The limit on memory is on running engines, as the table's measurements predict them."
    where = f" but for {', '.join(measured)}, which was measured" if measured else ": the table has no measured memory"
    return f" The limit on memory is on weights and peak activations, the least that an engine takes{where}."


def _left_out(engines: Engines, seen: Sequence[Evaluated]) -> str:
    """How many candidates the device's memory or the table's reach excluded, a sentence each; empty where none."""
    device = engines.usual.device
    reasons = {
        DEVICE_MEMORY: f"building their engines would take more than the {device.memory_gib or 0:g} GiB of the device",
        UNMEASURED: "the table has no kernels like theirs; measure this space with scaler profile run "
        f"--device {device.id} --space SPACE",
    }
    counts = {name: sum(scored.violations.get(name, 0) > 0 for scored in seen) for name in reasons}
    return "".join(
        f" {count} of the {len(seen)} candidates evaluated were left out: {reasons[name]}."
        for name, count in counts.items()
        if count
    )


def _guesses(engines: Engines, front: tuple[Candidate, ...]) -> str:
    """How many times on the front are estimates though the device is calibrated, in a sentence each reason."""
    text, usual = "", engines.usual
    for other in engines.estimators[1:]:
        if other.provenance != usual.provenance and any(one.precision == other.precision for one in front):
            text += f" Latencies in {other.precision.upper()} are {other.provenance}, in {usual.precision.upper()} "
            text += f"{usual.provenance}: verify before you rely on the difference."
    provenance = {other.precision: other.provenance for other in engines.estimators}
    count = sum(one.provenance != provenance.get(one.precision, usual.provenance) for one in front)  # type: ignore[call-overload]
    if not count:
        return text
    return text + (
        f" {count} of the {len(front)} on the front are larger than any network with a published time on this device: "
        "their latency is estimated."
    )


def _unreachable(evaluator: Evaluator, engines: Engines, nearest: Candidate) -> str:
    """What stands in the way: the overhead, the dearest stage, or another limit."""
    network, device = evaluator.network(nearest.params), engines.usual.device
    estimator = next((one for one in engines.estimators if one.precision == nearest.precision), engines.usual)
    frame = nearest.engine_ms.mean + nearest.overhead_ms
    target = evaluator.target_fps
    reasons = []
    if target is not None and frame > 1000 / target:
        dearest = max(nearest.stages, key=lambda share: share.ms)
        budget = 1000 / target
        reasons.append(
            f"{target:g} FPS leave {budget:.1f} ms a frame, of which pre- and post-processing take "
            f"{nearest.overhead_ms:.1f} ms and the network {nearest.engine_ms.mean:.1f} ms "
            f"(most in {dearest.name}: {dearest.ms:.1f} ms)"
        )
    elif target is not None and evaluator.sure and nearest.fps.low < target:
        slow = 1000 / nearest.fps.low
        reasons.append(f"{target:g} FPS leave {1000 / target:.1f} ms a frame, its 90 % interval ends at {slow:.1f} ms")
    for name, excess in evaluator.violations(network, frame, estimator).items():
        if name == UNMEASURED and excess > 0:
            reasons.append(f"{excess:.0f} of its kernels are of a kind or size that the table knows nothing about")
        elif name != "fps" and excess > 0:
            what = f"the {device.memory_gib:g} GiB of the device" if name == DEVICE_MEMORY else f"the limit on {name}"
            reasons.append(f"it exceeds {what} by {100 * excess:.0f} %")
    return (
        f"None of the candidates evaluated meets the demands on {device.name}. {nearest.id} comes nearest "
        f"with {nearest.fps.mean:.1f} FPS and AP {nearest.ap.mean:.1f}; {'; '.join(reasons)}."
    )
