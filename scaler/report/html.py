"""The interactive report: one self-contained page that works offline."""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from scaler.errors import UserError
from scaler.files import write_atomic
from scaler.report.view import View, page_view
from scaler.search.result import SearchResult

_SCRIPTS = ("dom.js", "plot.js", "table.js", "details.js", "main.js")
_SLOT = re.compile(r"\{\{ (\w+) \}\}")


def write_html(result: SearchResult, path: Path) -> None:
    """Write the report of a search: plot, tables, cost breakdowns and provenance on one page of 5 MB.

    The page loads nothing from anywhere: style, scripts, plotly and the data are part of it, and its
    content security policy forbids the browser any request.

    Raises:
        UserError: The file cannot be written, or plotly, whose JavaScript draws the plot, is missing.
    """
    write_atomic(path, page(result, path.parent))


def page(result: SearchResult, folder: Path | None = None) -> str:
    """The page as text; `folder` is where its neighbours (`pareto.json`) stand, for the commands on it."""
    devices = ", ".join(device.title for device in result.devices) or "no device"
    slots = {
        "title": html.escape(f"scaler: {result.metric} detectors for {devices}"),
        "style": _template("style.css"),
        "plotly": _inside_script(_plotly()),
        "data": _inside_data(page_view(result, folder)),
        "script": _inside_script("\n".join(_template(name) for name in _SCRIPTS)),
    }
    return _SLOT.sub(lambda slot: slots[slot[1]], _template("page.html"))


def _template(name: str) -> str:
    return files("scaler.report").joinpath("page", name).read_text("utf-8")


def _plotly() -> str:
    """Plotly's JavaScript, found without importing plotly, which would cost time for nothing."""
    spec = find_spec("plotly")
    for folder in spec.submodule_search_locations or [] if spec else []:
        script = Path(folder) / "package_data" / "plotly.min.js"
        if script.is_file():
            return script.read_text("utf-8")
    raise UserError("the interactive report needs plotly, whose JavaScript was not found: pip install plotly")


def _inside_data(view: View) -> str:
    """Strict JSON in which nothing can end the element it stands in."""
    return json.dumps(view, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def _inside_script(code: str) -> str:
    """Code that cannot end the script element it stands in."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
