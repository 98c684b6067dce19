"""Records runs and measurements in `pareto.json`, and draws the reports beside it anew; several processes may."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from scaler.accuracy.runs import Run
from scaler.errors import UserError
from scaler.locks import locked
from scaler.report.files import write_json
from scaler.report.writing import write_reports
from scaler.search.result import SearchResult, Verified
from scaler.search.result_file import read_result
from scaler.search.trained import with_run, with_trained_of
from scaler.search.verified import with_verified, with_verified_of

__all__ = ["keep_measured", "record", "record_verified", "run_name"]


def record(path: Path | str, run: Run, folder: Path | str) -> SearchResult:
    """Record a finished run beside the prediction of its candidate, and write the reports beside the file again.

    Reading, changing and writing happen under a lock, so that runs that end at the same time are all recorded. The
    same run recorded twice stands there once.

    Args:
        path: The `pareto.json` of the search.
        run: The run.
        folder: Its folder; named relative to that of `path`.

    Raises:
        UserError: The run is not finished or of no candidate of the result, or the files cannot be read or written.
    """
    place = Path(path)
    return _rewritten(place, lambda old: with_run(old, run, run_name(place, folder)))


def record_verified(path: Path | str, device: str, measured: Mapping[str, Verified]) -> SearchResult:
    """Record measurements beside the predictions of their candidates, and write the reports beside the file again.

    As `record`, safe when several processes do.

    Args:
        path: The `pareto.json` of the search.
        device: On which they were made, by its name in the result.
        measured: The measurements by the id of their candidate; `run_name` names the model file as a result does, and
            `promise` is filled in from the target of the result.

    Raises:
        UserError: The result has no such device or candidate, or the files cannot be read or written.
    """

    def added(old: SearchResult) -> SearchResult:
        for identity, one in measured.items():
            old = with_verified(old, device, identity, one)
        return old

    return _rewritten(Path(path), added)


def _rewritten(place: Path, change: Callable[[SearchResult], SearchResult]) -> SearchResult:
    """Read, change and write under the lock; files are left alone where nothing changes."""
    with locked(place):
        old = read_result(place)
        new = change(old)
        if new != old:
            write_json(new, place)
            write_reports(new, place.parent)
    return new


def run_name(path: Path, folder: Path | str) -> str:
    """How a result names a run's folder or a file: relative to its own folder, so that equal names stay apart."""
    there, here = Path(folder).resolve(), path.resolve().parent
    try:
        return Path(os.path.relpath(there, here)).as_posix()
    except ValueError:  # another drive of Windows
        return there.as_posix()


def keep_measured(result: SearchResult, path: Path) -> SearchResult:
    """A new result with the runs and measurements that the file of its predecessor has recorded.

    Itself where there is no such file.
    """
    if not path.is_file():
        return result
    try:
        old = read_result(path)
    except UserError:  # a damaged file is about to be replaced
        return result
    return with_verified_of(with_trained_of(result, old), old)
