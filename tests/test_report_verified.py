"""Measured beside predicted in console, CSV, pictures, page and next steps; nothing where nothing was measured."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from sample_result import nano, sample_result
from verified_sample import hostile_measurements, measured_of, verified_device, verified_result

from scaler.report.console import print_result
from scaler.report.files import write_csv
from scaler.report.html import page
from scaler.report.plot import write_plot
from scaler.report.steps import next_steps
from scaler.report.verification import comparison, device_points, promise, summary, verified_facts, verified_view
from scaler.report.view import page_view
from scaler.search.result import SearchResult, Trained

RESULT = verified_result()
DEVICE = RESULT.devices[0]
PICK = DEVICE.front[6]


def printed(result: SearchResult, width: int, encoding: str = "utf-8") -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_result(result, Console(width=width, file=stream, legacy_windows=False))
    stream.seek(0)
    return stream.read()


@pytest.mark.parametrize("width", [80, 110, 160, 200])
def test_console_shows_the_measured_rate_and_marks_the_broken_promise(width):
    out = printed(RESULT, width)

    assert "verified" in out
    assert "✗29.3" in out
    assert "✗ promise broken when measured on the device" in " ".join(out.split())
    assert "3 of 4 that promised 30 FPS hold" in " ".join(out.split())
    assert out.count("✗") == 2, "the row and the legend"


def test_console_without_unicode_marks_it_by_a_letter():
    assert "x29.3" in printed(RESULT, 160, "ascii")


def test_a_mixed_front_says_what_each_rate_is_of():
    out = printed(RESULT, 160)

    assert "(engine)" in out
    assert "(frame)" in out
    only = replace(DEVICE, front=tuple(replace(one, verified=()) if one is not PICK else one for one in DEVICE.front))
    assert "(frame)" not in printed(replace(RESULT, devices=(only,)), 160)


def test_nothing_is_said_where_nothing_was_measured():
    for width in (80, 160):
        assert "verified" not in printed(sample_result(), width)
    assert '"verified": null' in page(sample_result())
    assert comparison(nano().front[0], nano(), sample_result()) is None
    assert verified_facts(nano().front[0], nano(), sample_result()) == []
    assert summary([], 30.0) == ""


def test_csv_has_the_measurement_beside_the_prediction(tmp_path: Path):
    write_csv(RESULT, tmp_path / "pareto.csv")

    with (tmp_path / "pareto.csv").open(newline="") as stream:
        rows = {(row["device"], row["id"]): row for row in csv.DictReader(stream)}
    row, measured = rows["nano", PICK.id], PICK.verified[0]
    assert float(row["verified_level_ms"]) == pytest.approx(measured.level_ms)
    assert float(row["verified_fps"]) == pytest.approx(1000 / measured.whole_ms)
    assert (row["verified_holds"], row["verified_broken"]) == ("False", "True")
    assert (row["verified_model"], row["verified_dataset"]) == (measured.model, "voc")
    empty = rows["nano", DEVICE.front[0].id]
    assert {value for name, value in empty.items() if name.startswith("verified_")} == {""}


def test_the_page_has_figures_deviation_and_verdict_of_the_measurement():
    view = verified_view(PICK, DEVICE, RESULT)

    assert view is not None
    assert (view["state"], view["of"], view["deviation"], view["difference"]) == (
        "broken",
        "whole frame",
        "-8.9 %",
        "-0.6",
    )
    assert view["promise"] == "30 FPS broken: 29.3 FPS, whole frame; the engine alone would hold it"
    labels = [name for name, _, _ in verified_facts(PICK, DEVICE, RESULT)]
    assert labels == ["Frame rate", "Engine alone", "Frame time", "AP50", "Energy of a frame", "Memory", "File"]
    assert "promise breaks" in page(RESULT)


def test_a_slow_candidate_that_never_promised_is_told_as_predicted():
    slow = DEVICE.front[8]
    seen = comparison(slow, DEVICE, RESULT)

    assert seen is not None
    assert promise(seen, 30.0).startswith("30 FPS missed, as predicted:")
    assert not any(point.broken and point.ap == slow.ap.mean for point in device_points(RESULT, DEVICE))


def test_pictures_show_the_device_and_stretch_to_it(tmp_path: Path):
    far = replace(PICK, verified=(measured_of(PICK, 20.0),))
    device = replace(DEVICE, front=(*DEVICE.front[:6], far, *DEVICE.front[7:]))

    write_plot([RESULT], tmp_path / "a.svg")
    write_plot([replace(RESULT, devices=(device,))], tmp_path / "b.svg")

    for name in ("a.svg", "b.svg"):
        text = (tmp_path / name).read_text()
        assert "promise broken on the device" in text
        assert "measured on the device" in text


def test_the_energy_is_the_measured_point_where_the_search_minimised_it():
    told = replace(RESULT, minimize="energy")

    assert {point.x for point in device_points(told, DEVICE)} == {
        one.verified[0].energy_mj for one in DEVICE.front if one.verified
    }


def test_hostile_texts_of_measurements_stay_texts(tmp_path: Path):
    result = hostile_measurements()

    assert "alert(1)" in printed(result, 160)
    assert page(result).count("<script") == 3
    write_csv(result, tmp_path / "pareto.csv")
    write_plot([result], tmp_path / "front.svg")
    page_view(result)


# next steps


def trained() -> Trained:
    return Trained(
        dataset="shapes", metric="shapes AP50", ap=55.0, ap50=84.1, recipe="quick", epochs=60, run="runs/a",
        created="2026-11-22T10:00:00+00:00",
    )  # fmt: skip


def steps(front: tuple, **changes: object) -> list[str]:
    result = replace(sample_result(), devices=(replace(nano(), front=front, **changes),))
    return [step.command for step in next_steps(result, Path("out")) if "verify" in step.command]


def test_the_step_after_a_search_measures_and_the_one_after_training_proves():
    front = nano().front
    chosen = front[6].id

    assert steps(front) == [f"scaler verify out/pareto.json --pick {chosen} --device nano"]
    other = tuple(replace(one, trained=(trained(),)) if one is front[4] else one for one in front)
    assert steps(other) == [f"scaler verify out/pareto.json --pick {front[4].id} --device nano --data data.toml"]


def test_what_was_verified_is_not_offered_again():
    assert steps(verified_device().front) == []
    alone = measured_of(PICK, 0.0, model="")
    timed = tuple(
        replace(one, trained=(trained(),), verified=(alone,)) if one.id == PICK.id else one for one in nano().front
    )
    assert steps(timed) == [f"scaler verify out/pareto.json --pick {PICK.id} --device nano --data data.toml"]
