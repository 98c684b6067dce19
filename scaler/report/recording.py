"""Records finished runs in `pareto.json` and draws the reports beside it anew; safe when several processes do."""

from __future__ import annotations

import os
from pathlib import Path

from scaler.accuracy.runs import Run
from scaler.errors import UserError
from scaler.locks import locked
from scaler.report.files import write_json
from scaler.report.writing import write_reports
from scaler.search.result import SearchResult
from scaler.search.result_file import read_result
from scaler.search.trained import with_run, with_trained_of

__all__ = ["keep_trained", "record"]


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
    with locked(place):
        old = read_result(place)
        new = with_run(old, run, run_name(place, folder))
        if new != old:
            write_json(new, place)
            write_reports(new, place.parent)
    return new


def run_name(path: Path, folder: Path | str) -> str:
    """How a result names a run's folder: relative to its own, so that runs of equal names stay apart."""
    there, here = Path(folder).resolve(), path.resolve().parent
    try:
        return Path(os.path.relpath(there, here)).as_posix()
    except ValueError:  # another drive of Windows
        return there.as_posix()


def keep_trained(result: SearchResult, path: Path) -> SearchResult:
    """A new result with the runs that the file of its predecessor has recorded; itself where there is none."""
    if not path.is_file():
        return result
    try:
        return with_trained_of(result, read_result(path))
    except UserError:  # a damaged file is about to be replaced
        return result
