"""Writes all reports of a search; pictures and CSV in a second process, which loads its libraries meanwhile.

matplotlib and pandas take longer to load and draw than all else that follows a search. Started before the search,
the second process has them ready when the result is there.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from scaler.errors import UserError
from scaler.report.files import write_csv, write_json
from scaler.report.html import write_html
from scaler.report.plot import write_plot
from scaler.search.result import SearchResult

SLOW_LIBRARIES = ("matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "pandas")
REPORTS = ("pareto.csv", "pareto.json", "pareto.png", "pareto.svg", "report.html")


class ReportWriter:
    """Made by `report_writer`; writes the reports of one result."""

    def __init__(self, helper: Connection) -> None:
        self._helper = helper

    @contextmanager
    def writing(self, result: SearchResult, folder: Path) -> Iterator[None]:
        """Write every report into a folder, while the caller does something else.

        Raises:
            UserError: A file cannot be written; what was there before is unchanged.
        """
        with contextlib.suppress(OSError):  # a helper that died is noticed when it should answer
            self._helper.send((result, folder))
        write_json(result, folder / "pareto.json")
        write_html(result, folder / "report.html")
        yield
        try:
            problem = self._helper.recv()
        except (EOFError, OSError):
            _write_rest(result, folder)
            return
        if problem is not None:
            raise UserError(problem)


@contextmanager
def report_writer() -> Iterator[ReportWriter]:
    """Start the second process; it ends with the context, whatever happens."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_help, args=(theirs,), daemon=True)
    with _deaf_to_ctrl_c():  # the process inherits it: Ctrl-C is for the search alone
        process.start()
    theirs.close()
    try:
        yield ReportWriter(ours)
    finally:
        ours.close()
        process.terminate()
        process.join()


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _help(parent: Connection) -> None:
    """The second process: load, wait for the result, write, answer with None or what went wrong."""
    for library in SLOW_LIBRARIES:
        import_module(library)
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        result, folder = parent.recv()
        try:
            _write_rest(result, folder)
        except UserError as error:
            parent.send(str(error))
        else:
            parent.send(None)


def write_reports(result: SearchResult, folder: Path) -> None:
    """Write every report but `pareto.json` into a folder, in this process.

    Raises:
        UserError: A file cannot be written.
    """
    write_html(result, folder / "report.html")
    _write_rest(result, folder)


def _write_rest(result: SearchResult, folder: Path) -> None:
    write_csv(result, folder / "pareto.csv")
    if any(device.front or device.nearest for device in result.devices):
        write_plot([result], folder / "pareto.png", folder / "pareto.svg")
