from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from sample_result import RESULTS, bare_result, hostile_result, nano, sample_result

from scaler.errors import FileError, UsageError, UserError
from scaler.report.console import print_result
from scaler.report.files import write_csv, write_json
from scaler.report.plot import write_plot
from scaler.report.thinning import thinned
from scaler.report.wording import columns, count, label, number, percent
from scaler.search.result import Interval, SearchResult
from scaler.search.result_file import read_result


def printed(result: SearchResult, width: int, **options: object) -> str:
    console = Console(record=True, width=width, file=io.StringIO(), legacy_windows=False)
    print_result(result, console, **options)  # type: ignore[arg-type]
    return console.export_text()


# wording


def test_params_read_like_the_field_writes_them() -> None:
    params = {"backbone": "mobilenetv2", "width": 0.75, "drop": 1, "neck": "bifpn", "repeats": 2}
    params |= {"rfcr": 5, "shortcut": True, "resolution": 320}
    assert label(params) == "MobileNetV2 ×0.75 cut -1 · BiFPN ×2 · RFCR 5+s4 · 320 px"
    assert [column.title for column in columns([params])] == [
        "backbone", "width", "truncation", "neck", "RFCR", "resolution",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"rfcr": 0}, ["off"]),
        ({"rfcr": 3, "shortcut": False}, ["3"]),
        ({"drop": 0}, ["none"]),
        ({"drop": "published"}, ["published"]),
        ({"depth_multiple": 0.33, "spp": True, "stem": "focus"}, ["0.33", "yes", "focus"]),
        ({"shortcut": True}, ["yes"]),
    ],
)
def test_parameters_of_any_space_have_columns(params: dict[str, float | str], expected: list[str]) -> None:
    assert [column.text(params) for column in columns([params])] == expected


def test_columns_of_many_candidates_keep_the_order_of_the_space() -> None:
    many = [{"a": 1, "d": 4}, {"a": 1, "b": 2, "d": 4}, {"a": 1, "b": 2, "c": 3, "d": 4}]
    assert [column.key for column in columns(many)] == ["a", "b", "c", "d"]
    assert columns(many)[2].text(many[0]) == "–"


def test_figures_have_as_many_digits_as_they_are_worth() -> None:
    assert [number(v) for v in (0.0, 0.123, 9.52, 31.14, 2000.4)] == ["0.0", "0.12", "9.5", "31.1", "2000"]
    assert [count(v) for v in (0, 999, 1_334_800, 53_300_000, 999_900_000, 4.21e9)] == [
        "0", "999", "1.33 M", "53.3 M", "1.00 G", "4.21 G",
    ]  # fmt: skip
    assert [percent(v) for v in (None, 0.0, 0.5, 1.0)] == ["–", "<1 %", "50 %", ">99 %"]


# console


@pytest.mark.parametrize("width", [80, 120, 160])
def test_console_shows_the_essentials_at_every_width(width: int) -> None:
    text = printed(sample_result(), width, folder=Path("results"))
    for piece in (
        "Jetson Nano (MAXN, TensorRT FP16)", "★", "◆", "▸", "†", "69.0", "32.2", "31.1", "29.2", "98 %",
        "1.33 M", "5+s4", "MobileNetV2", "PANet", "d9f1db16", "YOLO-ReT-M0.75@320", "68.75", "33.19",
        "-3.3 %", "calibrated", "estimated", "leave-one-out mean error 3.6 %",
        "scaler show results/pareto.json",
    ):  # fmt: skip
        assert piece in text, piece
    assert max(len(line) for line in text.splitlines()) <= width


def test_wide_console_has_a_column_per_parameter_and_intervals() -> None:
    lines = printed(sample_result(), 160).splitlines()
    header = next(line for line in lines if "truncation" in line)
    assert header.split()[:9] == [
        "#",
        "id",
        "backbone",
        "width",
        "truncation",
        "neck",
        "RFCR",
        "resolution",
        "AP50",
    ]
    pick = next(line for line in lines if "★" in line)
    assert "69.0 (68.2–69.8)" in pick
    assert "32.2 (30.6–33.9)" in pick


def test_console_without_unicode_prints_plain_letters() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    print_result(sample_result(), Console(file=stream, width=100))
    stream.flush()
    text = raw.getvalue().decode("ascii")
    assert "69.0 +-0.8" in text or "+-0.8" in text
    assert "* pick for the target" in text


@pytest.mark.parametrize("name", RESULTS)
def test_console_prints_any_result_without_reading_markup(name: str) -> None:
    text = printed(RESULTS[name](), 80)
    assert ("[bold]" in text) == (name == "hostile")


def test_console_keeps_a_long_front_short_and_says_so() -> None:
    device = nano()
    front = tuple(
        dataclasses.replace(device.front[0], id=f"id{n:03d}", ap=Interval(40 + n / 4, 39, 70)) for n in range(100)
    )
    device = dataclasses.replace(device, front=front, pick="id060", knee="id030")
    text = printed(dataclasses.replace(sample_result(), devices=(device,)), 120)
    for shown in ("id000", "id030", "id059", "id060", "id061", "id099", "… and 76 more"):
        assert shown in text
    assert len(set(re.findall(r"id\d{3}", text))) == 24
    everything = printed(dataclasses.replace(sample_result(), devices=(device,)), 120, rows=None)
    assert len(set(re.findall(r"id\d{3}", everything))) == 100


# CSV and JSON


def test_csv_has_a_row_per_candidate_and_device_and_names_its_units(tmp_path: Path) -> None:
    result = sample_result()
    write_csv(result, tmp_path / "pareto.csv")
    with (tmp_path / "pareto.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 12 + 11 + 1, "the nearest candidate of the second device stands beside its front"
    assert {"engine_ms", "engine_ms_low", "overhead_ms", "frame_ms", "fps_high", "weights_mib", "ap"} <= set(rows[0])
    pick = next(row for row in rows if row["pick"] == "True")
    candidate = result.devices[0].front[6]
    assert (pick["id"], pick["rank"], pick["param_width"]) == (candidate.id, "7", "0.75")
    assert float(pick["engine_ms_low"]) == pytest.approx(candidate.engine_ms.low)
    assert [name for name in rows[0] if name.startswith("param_")] == [
        "param_backbone", "param_width", "param_drop", "param_neck", "param_repeats", "param_rfcr",
        "param_shortcut", "param_resolution",
    ]  # fmt: skip
    nearest = next(row for row in rows if row["nearest"] == "True")
    assert (nearest["rank"], nearest["param_repeats"]) == ("", "")


@pytest.mark.parametrize("name", RESULTS)
def test_json_round_trip_keeps_everything(name: str, tmp_path: Path) -> None:
    result = RESULTS[name]()
    write_json(result, tmp_path / "pareto.json")
    assert read_result(tmp_path / "pareto.json") == result
    tree = json.loads((tmp_path / "pareto.json").read_text("utf-8"))
    assert (tree["kind"], tree["schema_version"]) == ("scaler-pareto", 1)


def test_json_refuses_to_write_what_is_no_number(tmp_path: Path) -> None:
    result = dataclasses.replace(sample_result(), noise_ap=float("nan"))
    with pytest.raises(ValueError, match="noise_ap is nan"):
        write_json(result, tmp_path / "pareto.json")
    assert not (tmp_path / "pareto.json").exists()


def _edited(path: Path, edit: Callable[[dict[str, object]], object]) -> Path:
    write_json(sample_result(), path)
    tree = json.loads(path.read_text("utf-8"))
    edit(tree)
    path.write_text(json.dumps(tree), "utf-8")
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.update(kind="other"), "kind"),
        (lambda t: t.update(schema_version=99), "schema_version"),
        (lambda t: t.update(sead=1), "sead: unknown key.*did you mean 'seed'"),
        (lambda t: t.pop("metric"), "metric: missing"),
        (lambda t: t["devices"][0].update(pick="nobody"), r"devices\[0\].pick"),
        (lambda t: t["devices"][0]["front"][1].update(macs=1.5), r"devices\[0\].front\[1\].macs"),
        (lambda t: t["devices"][0]["front"][1]["ap"].update(low=99), r"front\[1\].ap: low 99 is above high"),
        (lambda t: t["devices"][0]["front"].append(t["devices"][0]["front"][0]), "share an id"),
        (lambda t: t["devices"][0].update(explored=[[1, True]]), r"explored\[0\]"),
        (lambda t: t["devices"][0].update(target_fps=0), "target_fps"),
        (lambda t: t["devices"][0]["front"][0].update(params={"a": None}), r"params.a"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    edit: Callable[[dict[str, object]], object], message: str, tmp_path: Path
) -> None:
    path = _edited(tmp_path / "pareto.json", edit)
    with pytest.raises(FileError, match=message) as caught:
        read_result(path)
    assert "\n" not in str(caught.value)


def test_a_half_written_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "pareto.json"
    write_json(sample_result(), path)
    text = path.read_text("utf-8").rstrip()
    for end in itertools.chain(range(0, len(text), 4999), [len(text) - 1]):
        path.write_text(text[:end], "utf-8")
        with pytest.raises(FileError):
            read_result(path)


# pictures


def test_svg_is_well_formed_and_labelled(tmp_path: Path) -> None:
    write_plot([sample_result()], tmp_path / "pareto.svg")
    root = ElementTree.parse(tmp_path / "pareto.svg").getroot()
    text = " ".join("".join(node.itertext()).strip() for node in root.iter("{http://www.w3.org/2000/svg}text"))
    for piece in (
        "VOC AP50", "frame time in ms", "frames per second", "30 FPS or more",
        "Jetson Nano (5W, TensorRT FP16)",
        "MobileNetV2 ×0.75 cut -1", "69.0 AP · 32.2 FPS", "nearest: 43.9 AP", "YOLO-ReT-M0.75@320",
    ):  # fmt: skip
        assert piece in text, piece


@pytest.mark.parametrize(("suffix", "magic"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_pictures_are_the_same_every_time(suffix: str, magic: bytes, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        write_plot([bare_result(), sample_result()], path)
    first, second = (path.read_bytes() for path in paths)
    assert first.startswith(magic)
    assert first == second


def test_plot_of_hostile_texts_does_not_read_them_as_formulas(tmp_path: Path) -> None:
    result = dataclasses.replace(hostile_result(), metric=r"$\bad{$ AP")
    write_plot([result], tmp_path / "pareto.svg")
    assert r"$\bad{$ AP" in "".join(ElementTree.parse(tmp_path / "pareto.svg").getroot().itertext())


def test_plot_says_what_it_cannot_draw(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.svg, \.pdf"):
        write_plot([sample_result()], tmp_path / "pareto.bmp")
    with pytest.raises(UserError, match="nothing to draw"):
        write_plot([dataclasses.replace(sample_result(), devices=())], tmp_path / "pareto.png")


def test_thinning_keeps_the_picture_and_bounds_the_ink() -> None:
    points = [(1 + n % 977, (n * 31) % 1009 / 10) for n in range(50_000)]
    kept = thinned(points)
    assert 1000 < len(kept) <= 121 * 81
    assert set(kept) <= set(points)
    assert thinned([]) == []


def test_importing_reports_stays_light() -> None:
    code = (
        "import sys, scaler.report.console, scaler.report.files, scaler.report.html, scaler.report.plot\n"
        "print([name for name in ('matplotlib', 'pandas', 'rich', 'plotly', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
