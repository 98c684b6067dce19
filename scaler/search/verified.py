"""Measurements on the device flow back: what a candidate really did beside what was predicted for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scaler.errors import UserError
from scaler.search.candidates import candidates_of, changed
from scaler.search.result import Candidate, DeviceResult, SearchResult, Verified

__all__ = ["Comparison", "compared", "promise_of", "shown", "with_verified", "with_verified_of"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measurement beside what was predicted for its candidate."""

    measured: Verified
    engine: float
    """How much longer the engine took than predicted, as a share of the prediction."""
    engine_inside: bool
    """Whether it lies in the predicted 90 % interval."""
    measured_fps: float
    """Of the whole frame where it was measured, else of the engine alone."""
    fps: float
    """How much higher the frame rate was than predicted, as a share."""
    value: float | None
    """The measured accuracy, AP or AP50 as the search predicts it, in points; None where it was not measured."""
    accuracy: float | None
    """How much higher it was than predicted, in points; None where the two are of different data sets."""
    energy: float | None
    """How much more energy a frame took than predicted, as a share; None where one of them is not known."""
    promised: bool
    """Whether it was predicted to reach the target; always without a target."""
    holds: bool | None
    """Whether the target frame rate was reached; None without a target."""
    engine_holds: bool | None
    """Whether the engine alone would reach it."""

    @property
    def broken(self) -> bool:
        """Whether a promise was broken: it was predicted to reach the target, and did not."""
        return self.promised and self.holds is False

    @property
    def whole(self) -> bool:
        """Whether the whole frame was measured, so that `holds` is of it."""
        return self.measured.frame_ms is not None


def compared(candidate: Candidate, measured: Verified, metric: str) -> Comparison:
    """Put a measurement beside the predictions of its candidate.

    Args:
        candidate: What was predicted.
        measured: What was measured.
        metric: Of the search: `VOC AP50`, `shapes AP`.
    """
    engine, promise = candidate.engine_ms, measured.promise
    kind = metric.rpartition(" ")[2]
    value = measured.ap50 if kind == "AP50" else measured.ap
    of_it = candidate.precision in ("", measured.precision)
    same = of_it and f"{measured.dataset} {kind}".casefold() == metric.casefold()
    energy, predicted_mj = measured.energy_mj, candidate.energy_mj
    fps = 1000 / measured.whole_ms
    return Comparison(
        measured=measured,
        engine=measured.level_ms / engine.mean - 1,
        engine_inside=engine.low <= measured.level_ms <= engine.high,
        measured_fps=fps,
        fps=fps / candidate.fps.mean - 1,
        value=value,
        accuracy=value - candidate.ap.mean if same and value is not None else None,
        energy=energy / predicted_mj.mean - 1 if energy and predicted_mj and predicted_mj.mean else None,
        promised=promise is None or candidate.fps.mean >= 1000 / promise,
        holds=measured.holds,
        engine_holds=None if promise is None else measured.level_ms <= promise,
    )


def shown(candidate: Candidate, device: DeviceResult) -> Verified | None:
    """The measurement to show beside a candidate, None where there is none.

    The last of its own precision and of a trained file where there is such a one; an accuracy that it lacks is that of
    an earlier measurement of the same file.
    """
    precision = candidate.precision or device.precision
    best = max(
        reversed(candidate.verified), key=lambda one: (one.precision == precision, bool(one.model)), default=None
    )
    if best is None:
        return None
    alike = [
        one
        for one in candidate.verified
        if (one.model, one.precision, one.runtime) == (best.model, best.precision, best.runtime)
    ]
    last = alike[-1]
    judged = next((one for one in reversed(alike) if one.ap is not None), last)
    return replace(last, dataset=judged.dataset, ap=judged.ap, ap50=judged.ap50)


def promise_of(device: DeviceResult) -> float | None:
    """Milliseconds a frame that the target of a search leaves; None without a target."""
    return None if device.target_fps is None else 1000 / device.target_fps


def with_verified(result: SearchResult, device: str, candidate_id: str, measured: Verified) -> SearchResult:
    """The result with one more measurement of a candidate; the same one recorded twice stands there once.

    What is promised is the result's affair: `measured.promise` is replaced by that of the device's target.

    Args:
        result: Of a search.
        device: On which it was measured, by its name in the result.
        candidate_id: Which candidate.
        measured: What was measured.

    Raises:
        UserError: The result has no such device or candidate.
    """
    known = {found.device: {candidate.id for candidate in candidates_of(found)} for found in result.devices}
    if candidate_id not in known.get(device, ()):
        raise UserError(
            f"this result has no candidate {candidate_id!r} for {device}: its measurement is not recorded; "
            "name the pareto.json that it was picked from"
        )

    def added(found: DeviceResult) -> DeviceResult:
        if found.device != device:
            return found
        new = replace(measured, promise=promise_of(found))
        return changed(found, lambda one: _with(one, (*one.verified, new)) if one.id == candidate_id else one)

    return replace(result, devices=tuple(added(found) for found in result.devices))


def with_verified_of(result: SearchResult, old: SearchResult) -> SearchResult:
    """The result with what an older one has measured of the same candidates, judged by the targets of the new one.

    Measurements in another power mode are of another device, those of a candidate at another precision of another
    engine: they are left behind.
    """
    recorded = {
        (device.device, candidate.id, candidate.precision or device.precision): candidate.verified
        for device in old.devices
        for candidate in candidates_of(device)
        if candidate.verified
    }
    if not recorded:
        return result

    def kept(device: DeviceResult) -> DeviceResult:
        promise = promise_of(device)

        def with_old(candidate: Candidate) -> Candidate:
            earlier = [
                replace(one, promise=promise)
                for one in recorded.get((device.device, candidate.id, candidate.precision or device.precision), ())
                if one.power_mode == device.power_mode
            ]
            return _with(candidate, (*earlier, *candidate.verified)) if earlier else candidate

        return changed(device, with_old)

    return replace(result, devices=tuple(kept(device) for device in result.devices))


def _with(candidate: Candidate, measurements: tuple[Verified, ...]) -> Candidate:
    """The candidate with these measurements, oldest first; of equal ones the last stays."""
    distinct = {_same(one): one for one in measurements}
    return replace(candidate, verified=tuple(sorted(distinct.values(), key=lambda one: (one.created, one.model))))


def _same(one: Verified) -> tuple[str | float, ...]:
    """What tells measurements apart, wherever their files lie."""
    return one.created, one.runtime, one.precision, one.engine_ms
