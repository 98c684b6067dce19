"""The page in a real browser, as a reader uses it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_result import bare_result, sample_result
from verified_sample import hostile_measurements, verified_result

from scaler.report.html import write_html

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 30.0


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    service = pytest.importorskip("selenium.webdriver.chrome.service").Service
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=service(DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Iterator[Any]:
    write_html(sample_result(), tmp_path / "report.html")
    opened(browser, tmp_path / "report.html", 1280)
    yield browser
    assert browser.get_log("browser") == []


def opened(browser: Any, path: Path, width: int, height: int = 900) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(path.as_uri())
    until(lambda: browser.execute_script("return document.querySelectorAll('#plot .scatterlayer .trace').length"))


def until(check: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := check()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
    return found


def column(page: Any, key: str) -> list[str]:
    script = (
        "const place = [...document.querySelectorAll('#front thead tr > *')]"
        ".findIndex((cell) => cell.dataset.key === arguments[0]);"
        "return [...document.querySelectorAll('#front tbody tr')]"
        ".map((row) => row.children[place].firstChild.textContent);"
    )
    return list(page.execute_script(script, key))


def text(page: Any, css: str) -> str:
    return str(page.execute_script("return document.querySelector(arguments[0]).innerText", css))


def click(page: Any, css: str) -> None:
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", page.find_element("css selector", css))
    page.find_element("css selector", css).click()


def test_page_loads_and_asks_for_nothing_else(page: Any) -> None:
    requested = [
        entry["message"]
        for entry in page.get_log("performance")
        if '"Network.requestWillBeSent"' in entry["message"] and '"url":"http' in entry["message"]
    ]
    assert requested == []
    assert text(page, "h1") == "Detectors for 2 devices at 30 FPS"
    names = page.execute_script("return document.getElementById('plot').data.map((trace) => trace.name)")
    assert {"explored", "Pareto front", "published", "knee", "pick"} <= set(names)
    assert len(column(page, "id")) == 12
    assert "69.0" in text(page, "#verdict")
    assert "29.2 engine + 1.9" in text(page, "#verdict")


def test_hover_shows_the_candidate(page: Any) -> None:
    actions = pytest.importorskip("selenium.webdriver").ActionChains
    points = page.find_elements("css selector", "#plot .scatterlayer .trace:nth-child(3) .point")
    actions(page).move_to_element(points[4]).perform()
    label = until(lambda: page.execute_script("return document.querySelector('.hoverlayer .hovertext')?.textContent"))
    assert "PANet · RFCR 5+s4 · 256 px" in label
    assert "44.4 FPS" in label


def test_click_on_a_point_selects_it(page: Any) -> None:
    actions = pytest.importorskip("selenium.webdriver").ActionChains
    points = page.find_elements("css selector", "#plot .scatterlayer .trace:nth-child(3) .point")
    actions(page).move_to_element(points[9]).click().perform()
    until(lambda: "×1.4" in text(page, "#details h2"))
    assert page.execute_script("return document.querySelector('#front [aria-selected=true] td.rank').innerText") == "10"


def test_switching_the_device_changes_table_and_plot(page: Any) -> None:
    before = page.execute_script("return document.getElementById('plot').data[2].x[0]")
    click(page, "#tab-1")
    assert len(column(page, "id")) == 12
    assert column(page, "rank")[0] == "–"
    assert page.execute_script("return document.getElementById('plot').data[2].x[0]") != before
    assert "not reached" in text(page, "#verdict")
    assert "estimated" in text(page, "#models")
    assert "extrapolated" in text(page, "#details")
    page.switch_to.active_element.send_keys("\ue012")  # arrow left
    assert page.execute_script("return document.activeElement.id") == "tab-0"
    assert "calibrated" in text(page, "#details")


def test_sorting_orders_the_rows(page: Any) -> None:
    assert column(page, "rank") == [str(n) for n in range(1, 13)]
    click(page, "th[data-key=fps] button")
    rates = [float(value) for value in column(page, "fps")]
    assert rates == sorted(rates)
    header = page.find_element("css selector", "th[data-key=fps]")
    assert header.get_attribute("aria-sort") == "ascending"
    page.switch_to.active_element.send_keys("\n")
    rates = [float(value) for value in column(page, "fps")]
    assert rates == sorted(rates, reverse=True)
    assert page.find_element("css selector", "th[data-key=fps]").get_attribute("aria-sort") == "descending"
    click(page, "th[data-key=param-1] button")
    assert column(page, "param-1")[-2:] == ["–", "–"], "what has no value stands last"


def test_selecting_a_row_shows_its_breakdown(page: Any) -> None:
    click(page, "#front tbody tr:nth-child(9) td.rank")
    assert text(page, "#details h2").startswith("MobileNetV2 ×1 cut -1")
    stages = page.find_elements("css selector", "#breakdown .bars:first-child .bar-line")
    assert len(stages) == 8
    assert "backbone.stage3" in text(page, "#breakdown")
    assert "conv 3×3 depthwise" in text(page, "#breakdown")
    assert " ms" in text(page, "#breakdown")
    click(page, ".breakdown .switch button:nth-child(2)")
    assert " ms" not in text(page, "#breakdown")
    assert "209 M" in text(page, "#breakdown")
    row = page.find_element("css selector", "#front tbody tr:nth-child(3)")
    page.execute_script("arguments[0].focus()", row)
    page.switch_to.active_element.send_keys("\ue015")  # arrow down
    page.switch_to.active_element.send_keys("\n")
    assert "224 px" in text(page, "#details .rest")
    assert page.execute_script("return document.activeElement.dataset.id") == sample_result().devices[0].front[3].id


def test_axis_can_be_frames_per_second(page: Any) -> None:
    click(page, "#axis-switch button:nth-child(2)")
    front = sample_result().devices[0].front
    shown = page.execute_script("return document.getElementById('plot').data[2].x")
    assert shown == pytest.approx([candidate.fps.mean for candidate in front])


@pytest.mark.parametrize("width", [320, 390, 768, 1024, 1280, 1920])
def test_no_width_scrolls_the_page_sideways(browser: Any, width: int, tmp_path: Path) -> None:
    results = {"sample": sample_result(), "hostile": hostile_measurements(), "verified": verified_result()}
    for name, result in results.items():
        write_html(result, tmp_path / f"{name}.html")
        opened(browser, tmp_path / f"{name}.html", width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script("return document.body.scrollWidth") <= width


def test_dark_scheme_recolours_page_and_plot(page: Any) -> None:
    colour = "return document.getElementById('plot').data[2].marker.color"
    light = page.execute_script(colour)
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        until(lambda: page.execute_script(colour) != light)
        assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(14, 20, 26)"
    finally:
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_broken_promise_is_seen_at_once_and_where_it_was_measured(browser: Any, tmp_path: Path) -> None:
    write_html(verified_result(), tmp_path / "report.html")
    opened(browser, tmp_path / "report.html", 1280)
    verdict = text(browser, "#verdict")
    assert "Measured on the device, the promise breaks" in verdict
    assert "30 FPS broken: 29.3 FPS, whole frame; the engine alone would hold it" in verdict
    assert "✗ promise broken on the device" in text(browser, "#details")
    assert "Measured on the device" in text(browser, "#details")
    assert "decoding 1.4, letterbox 0.30, network 31.9, NMS 0.60 ms" in text(browser, "#details")
    rates = column(browser, "verified")
    assert rates[0] == "–", "what was not measured has an empty cell"
    assert rates[6] == "✗ 29.3"
    assert [rate for rate in rates if "✗" in rate] == ["✗ 29.3"], "who never promised breaks nothing"
    names = browser.execute_script("return document.getElementById('plot').data.map((trace) => trace.name)")
    assert {"measured on the device", "promise broken on the device"} <= set(names)
    click(browser, "#front tbody tr:nth-child(5) td.rank")
    assert "held on the device" in text(browser, "#details")
    click(browser, "#tab-1")
    assert "Measured on the device" not in text(browser, "#details")
    assert browser.find_elements("css selector", "th[data-key=verified]") == []
    assert browser.get_log("browser") == []


def test_hostile_texts_stay_texts(browser: Any, tmp_path: Path) -> None:
    write_html(hostile_measurements(), tmp_path / "report.html")
    opened(browser, tmp_path / "report.html", 1280)
    assert "</script><script>alert(1)</script>" in text(browser, "h1")
    assert browser.execute_script("return document.scripts.length") == 3
    assert browser.get_log("browser") == []


def test_a_result_with_almost_nothing_in_it(browser: Any, tmp_path: Path) -> None:
    write_html(bare_result(), tmp_path / "report.html")
    opened(browser, tmp_path / "report.html", 1280)
    assert "1.12 M" in text(browser, "#verdict")
    click(browser, "#tab-1")
    assert "nothing fits the limits" in text(browser, "#verdict")
    assert "No candidate" in text(browser, "#details")
    assert browser.get_log("browser") == []
