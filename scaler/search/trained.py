"""Measured accuracy flows back: finished runs beside the predictions of the search that they came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from scaler.accuracy.runs import Run
from scaler.errors import UserError
from scaler.search.candidates import candidates_of, changed
from scaler.search.result import Candidate, SearchResult, Trained

__all__ = ["trained_of", "with_run", "with_trained_of"]

_Key: TypeAlias = tuple[str | int | float, ...]


def trained_of(run: Run, name: str, metric: str) -> Trained:
    """A finished run as a result shows it.

    Args:
        run: The run.
        name: Of its folder, as the reader of the result finds it.
        metric: Of the result, `VOC AP50` or `shapes AP`: says which figure to show.
    """
    assert run.metrics is not None
    kind = metric.rpartition(" ")[2]
    is_voc = f"{run.dataset} {kind}".casefold() == "voc ap50" == metric.casefold()
    return Trained(
        dataset=run.dataset,
        metric=f"{run.dataset} {kind}",
        ap=run.metrics.ap,
        ap50=run.metrics.voc_ap50_area if is_voc else run.metrics.ap50,
        recipe=run.recipe,
        epochs=run.epochs,
        run=name,
        created=run.created,
    )


def with_run(result: SearchResult, run: Run, name: str) -> SearchResult:
    """The result with a finished run beside its candidate, on every device that has it, at every precision.

    It replaces what it repeats: the run of the same folder, data set, recipe and length, and itself under another name.

    Raises:
        UserError: The run is not finished, names no candidate, or one that the result does not have.
    """
    if not run.finished or run.metrics is None:
        raise UserError(f"the run {name} is not finished: its accuracy is not recorded")
    known = {candidate.network for device in result.devices for candidate in candidates_of(device)}
    if run.candidate not in known:
        what = f"of the candidate {run.candidate!r}" if run.candidate else "of no candidate of a search"
        raise UserError(f"the run {name} is {what}, which this result does not have: its accuracy is not recorded")
    new = trained_of(run, name, result.metric)

    def added(candidate: Candidate) -> Candidate:
        if candidate.network != run.candidate:
            return candidate
        kept = [one for one in candidate.trained if _place(one) != _place(new) and _same(one) != _same(new)]
        return replace(candidate, trained=tuple(sorted([*kept, new], key=lambda one: (one.created, one.run))))

    return _changed(result, added)


def with_trained_of(result: SearchResult, old: SearchResult) -> SearchResult:
    """The result with the runs that an older one has recorded for the same candidates."""
    recorded: dict[str, dict[_Key, Trained]] = {}
    for source in (old, result):
        for device in source.devices:
            for candidate in candidates_of(device):
                recorded.setdefault(candidate.network, {}).update({_same(one): one for one in candidate.trained})
    if not any(recorded.values()):
        return result

    def kept(candidate: Candidate) -> Candidate:
        runs = sorted(recorded[candidate.network].values(), key=lambda one: (one.created, one.run))
        return replace(candidate, trained=tuple(runs))

    return _changed(result, kept)


def _place(one: Trained) -> _Key:
    """What a run that is trained anew has in common with the one that it replaces."""
    return one.dataset, one.recipe, one.epochs, one.run


def _same(one: Trained) -> _Key:
    """What tells runs apart, wherever their folders lie."""
    return one.dataset, one.recipe, one.epochs, one.created, one.ap, one.ap50


def _changed(result: SearchResult, change: Callable[[Candidate], Candidate]) -> SearchResult:
    return replace(result, devices=tuple(changed(device, change) for device in result.devices))
