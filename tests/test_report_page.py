"""The interactive page as a text: whole, safe, self-contained."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sample_result import HOSTILE, RESULTS, hostile_result, sample_result

from scaler.report.html import page, write_html
from scaler.report.view import page_view


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.texts: dict[str, str] = {}
        self.key = ""
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]
        self.scripts += tag == "script"
        self.key = attributes.get("id") or tag
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """`<path/>` opens nothing."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts[self.key] = self.texts.get(self.key, "") + data


def parsed(text: str) -> _Page:
    parser = _Page()
    parser.feed(text)
    parser.close()
    assert parser.open == []
    return parser


@pytest.mark.parametrize("name", RESULTS)
def test_page_parses_and_loads_nothing(name: str) -> None:
    result = RESULTS[name]()
    parser = parsed(page(result))
    assert parser.references == []
    assert parser.scripts == 3
    assert json.loads(parser.texts["data"]) == json.loads(json.dumps(page_view(result)))
    own = re.sub(r"<script>\s*/\*\*\n\* plotly.*?</script>", "", page(result), flags=re.DOTALL)
    assert len(own) < 500_000
    assert not re.search(r"https?:|//cdn|@import|url\(|eval\(|innerHTML|document\.write", own)
    assert "default-src 'none'" in own


def test_page_cannot_be_broken_by_its_data(tmp_path: Path) -> None:
    write_html(hostile_result(), tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<script>alert(1)" not in text
    parser = parsed(text)
    assert HOSTILE in json.loads(parser.texts["data"])["command"]
    assert HOSTILE in parser.texts["title"]


def test_page_calls_no_prediction_measured() -> None:
    data = json.dumps(page_view(sample_result()))
    assert "measured" not in data
    assert '"provenance": "calibrated"' in data


def test_page_view_has_the_numbers_of_the_result() -> None:
    view = json.loads(json.dumps(page_view(sample_result(), Path("results"))))
    device = view["devices"][0]
    pick = next(c for c in device["candidates"] if c["id"] == device["pick"])
    assert (pick["rank"], pick["roles"], pick["ap"]["text"], pick["fps"]["ends"]) == (
        7,
        ["pick"],
        "69.0",
        "30.6–33.9",
    )
    assert sum(share["time"]["value"] for share in pick["stages"]) == pytest.approx(pick["engine"]["mean"])
    assert [r["fps_covered"] for r in device["references"]].count(False) == 1
    other = view["devices"][1]
    assert (other["pick"], other["candidates"][0]["rank"], other["candidates"][0]["roles"]) == (
        None,
        None,
        ["nearest"],
    )
