"""The commands as a user types them: what they print, what they write, and one clear line for every mistake."""

import errno
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaler.catalog import find
from scaler.cli import run

QUICK = ["search", "--device", "nano", "--fps", "30", "--trials", "40"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fails(capsys, *arguments: str, code: int) -> str:
    """Run a command that must fail; returns its one line on standard error."""
    assert run(arguments) == code
    error = capsys.readouterr().err.strip()
    assert "Traceback" not in error
    assert len(error.splitlines()) == 1, error
    return error


def test_search_writes_all_reports_and_names_the_pick(here, capsys):
    assert run([*QUICK, "--out", "r"]) == 0

    shown = capsys.readouterr()
    assert {p.name for p in (here / "r").iterdir()} == {
        "pareto.csv", "pareto.json", "pareto.png", "pareto.svg", "report.html", "study.journal",
    }  # fmt: skip
    pick = json.loads((here / "r" / "pareto.json").read_text())["devices"][0]["pick"]
    assert pick in shown.out
    assert "reports: r/" in shown.err


def test_search_without_out_names_the_folder_after_the_question(here):
    assert run(QUICK) == 0

    assert (here / "results" / "yolo-ret-voc-nano-30fps" / "pareto.json").is_file()


def test_json_goes_to_standard_output_alone(here, capsys):
    assert run([*QUICK, "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["kind"] == "scaler-pareto"


def test_every_candidate_on_the_front_reaches_the_target(here, capsys):
    run([*QUICK, "--json"])

    front = json.loads(capsys.readouterr().out)["devices"][0]["front"]
    assert front
    assert all(candidate["fps"]["mean"] >= 30 for candidate in front)


@pytest.mark.slow
def test_the_same_command_goes_on_from_its_study_and_finds_the_same(here, capsys):
    run([*QUICK, "--json"])
    first = json.loads(capsys.readouterr().out)
    run([*QUICK, "--json"])
    second = json.loads(capsys.readouterr().out)

    assert first["devices"] == second["devices"]
    assert second["trials"] == first["trials"]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_front_in_another_folder(here, capsys):
    fronts = []
    for folder in ("a", "b"):
        run([*QUICK, "--seed", "3", "--out", folder, "--json"])
        fronts.append(json.loads(capsys.readouterr().out)["devices"])

    assert fronts[0] == fronts[1]


@pytest.mark.slow
def test_another_question_in_the_same_folder_gets_a_study_of_its_own(here, capsys):
    for more in ([], ["--overhead-ms", "3"], ["--max-params", "2e6"], ["--power-mode", "5W"]):
        assert run([*QUICK, *more, "--out", "r", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["trials"] == 40


def test_a_study_that_the_user_names_is_refused_for_another_question(here, capsys):
    assert run([*QUICK, "--study", "mine", "--out", "r"]) == 0
    capsys.readouterr()

    said = fails(capsys, *QUICK, "--study", "mine", "--overhead-ms", "3", "--out", "r", code=1)
    assert "mine-nano" in said
    assert "overhead_ms" in said


@pytest.mark.slow
def test_several_devices_get_a_front_each_with_the_same_accuracies(here, capsys):
    assert run(["search", "-d", "nano", "-d", "agx", "-d", "orin-nx", "--fps", "25", "--trials", "40", "--json"]) == 0

    devices = json.loads(capsys.readouterr().out)["devices"]
    assert [device["device"] for device in devices] == ["nano", "agx", "orin-nx"]
    assert [device["latency_model"]["provenance"] for device in devices] == ["calibrated"] * 3
    ap = {c["id"]: c["ap"] for device in devices for c in device["front"]}
    assert all(ap[c["id"]] == c["ap"] for device in devices for c in device["front"])


def test_two_names_of_one_device_are_one_device(here, capsys):
    assert run(["search", "-d", "nano", "-d", "jetson-nano", "--fps", "30", "--trials", "30", "--json"]) == 0

    assert [device["device"] for device in json.loads(capsys.readouterr().out)["devices"]] == ["nano"]


def test_a_device_of_ones_own_is_estimated_from_its_profile(here, capsys):
    profile = find("profiles", "orin-nx").read_text().replace('id = "orin-nx"', 'id = "mine"')
    (here / "mine.toml").write_text(profile)
    assert run(["search", "--device", "mine.toml", "--fps", "30", "--trials", "30"]) == 0

    result = json.loads((here / "results" / "yolo-ret-voc-mine-30fps" / "pareto.json").read_text())
    assert result["devices"][0]["latency_model"]["provenance"] == "estimated"


def test_an_unreachable_target_says_what_stands_in_the_way_and_which_comes_nearest(here, capsys):
    assert run(["search", "--device", "nano", "--fps", "1000", "--trials", "40", "--json"]) == 0

    device = json.loads(capsys.readouterr().out)["devices"][0]
    assert device["pick"] is None
    assert device["front"] == []
    assert device["nearest"]["id"] in device["message"]
    assert "post-processing take" in device["message"]


def test_limits_hold_on_the_whole_front(here, capsys):
    assert run([*QUICK, "--trials", "200", "--max-params", "1e6", "--max-macs", "3e8", "--json"]) == 0

    front = json.loads(capsys.readouterr().out)["devices"][0]["front"]
    assert front
    assert all(c["parameters"] <= 1e6 and c["macs"] <= 3e8 for c in front)


@pytest.mark.slow
def test_coco_has_80_classes_and_its_own_accuracy(here, capsys):
    assert run([*QUICK, "--dataset", "coco", "--json"]) == 0

    result = json.loads(capsys.readouterr().out)
    assert result["metric"] == "COCO AP50"
    assert max(c["ap"]["mean"] for c in result["devices"][0]["front"]) < 45


def test_overhead_of_ones_own_replaces_the_published_one(here, capsys):
    assert run([*QUICK, "--overhead-ms", "1.5", "--json"]) == 0

    front = json.loads(capsys.readouterr().out)["devices"][0]["front"]
    assert {c["overhead_ms"] for c in front} == {1.5}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["search", "--device", "nanoo"], 2, r"nanoo.*did you mean 'nano'"),
        (["search", "--device", "nano", "--space", "yolo-rat"], 2, r"yolo-rat.*did you mean 'yolo-ret'"),
        (["search", "--device", "nano", "--sampler", "nsga"], 2, r"nsga.*nsga2"),
        (["search", "--device", "nano", "--dataset", "kitti"], 2, r"kitti.*voc"),
        (["search", "--device", "nano", "--precision", "int8"], 1, r"Nano.*INT8.*fp16"),
        (["search", "--device", "nano", "--precision", "fp8"], 2, r"fp8.*fp16"),
        (["search", "--device", "nano", "--power-mode", "50W"], 2, r"50W.*MAXN"),
        (["search", "--device", "nano", "--fps", "-30"], 2, r"frame rate must be above 0.*-30"),
        (["search", "--device", "nano", "--fps", "nan"], 2, r"frame rate"),
        (["search", "--device", "nano", "--fps", "inf"], 2, r"frame rate"),
        (["search", "--device", "nano", "--fps", "fast"], 2, r"--fps"),
        (["search", "--device", "nano", "--overhead-ms", "-1"], 2, r"overhead must be 0 ms or more"),
        (["search", "--device", "nano", "--max-params", "-5"], 2, r"params.*above 0"),
        (["search", "--device", "nano", "--trials", "0"], 2, r"trials"),
        (["search", "--device", "nano", "--seed", "-1"], 2, r"seed"),
        (["search"], 2, r"--device"),
        (["serch"], 2, r"serch"),
        (["search", "--devise", "nano"], 2, r"--devise"),
        (["search", "--device", "nano", "--space", "missing.toml"], 1, r"missing.toml.*no such file"),
        (["show", "YOLO-ReT-M0.80@320", "--device", "nano"], 2, r"did you mean YOLO-ReT-M0"),
        (["show", "YOLO-ReT-M0.75@320"], 2, r"--device"),
        (["show", "backbone=mobilenetv3,resolution=320", "--device", "nano"], 2, r"mobilenetv3.*mobilenetv2"),
        (["show", "backbone", "--device", "nano"], 2, r"key=value"),
        (["show", "none.json"], 1, r"none.json.*no such file"),
        (["plot", "none.json"], 1, r"none.json.*no such file"),
        (["devices", "nanoo"], 2, r"did you mean 'nano'"),
        (["spaces", "nothing"], 2, r"nothing.*yolo-ret"),
        (["tables", "validate", "--device", "xeon-vm"], 2, r"xeon-vm.*nano"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_line_with_the_way_out(here, capsys, arguments, code, said):
    assert re.search(said, fails(capsys, *arguments, code=code), re.I)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"kind": "scaler-pareto"', b"\xff\xfe", b'{"kind": "scaler-pareto", "schema_version": 99}', b"[]"],
)
def test_a_malformed_result_file_is_told_in_one_line(here, capsys, content):
    (here / "p.json").write_bytes(content)

    assert "p.json" in fails(capsys, "show", "p.json", code=1)
    assert "p.json" in fails(capsys, "plot", "p.json", code=1)


def test_a_half_written_result_file_is_told_in_one_line(here, capsys):
    run([*QUICK, "--out", "r"])
    capsys.readouterr()
    whole = (here / "r" / "pareto.json").read_text()
    (here / "half.json").write_text(whole[: len(whole) // 2])

    assert "half.json" in fails(capsys, "show", "half.json", code=1)


def test_a_wrong_space_file_names_file_and_dotted_path(here, capsys):
    (here / "my.toml").write_text(
        'schema_version = 1\nname = "my"\nfamily = "yolo-ret"\ndescription = "x"\n'
        '[parameters.backbone]\nchoices = ["mobilenetv2"]\n[parameters.widht]\nchoices = [0.5]\n'
    )

    said = fails(capsys, "search", "--device", "nano", "--space", "my.toml", code=1)
    assert "my.toml" in said
    assert "parameters.widht" in said
    assert "width" in said


def test_an_unwritable_folder_is_told_in_one_line_before_the_search(here, capsys, monkeypatch):
    monkeypatch.setattr("scaler.files.os.access", lambda *_: False)  # what root never sees

    assert "cannot write into locked: permission denied" in fails(capsys, *QUICK, "--out", "locked", code=1)
    assert list((here / "locked").iterdir()) == []


def test_a_file_in_the_place_of_the_folder_is_told_in_one_line(here, capsys):
    (here / "r").write_text("mine")

    assert "cannot make the folder r" in fails(capsys, *QUICK, "--out", "r", code=1)
    assert (here / "r").read_text() == "mine"


def test_a_full_disk_is_told_in_one_line_and_leaves_the_old_reports_whole(here, capsys, monkeypatch):
    run([*QUICK, "--out", "r"])
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in (here / "r").iterdir() if path.suffix != ".journal"}

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("scaler.files._write_through", full)
    said = fails(capsys, *QUICK, "--trials", "45", "--out", "r", code=1)

    assert "no space left" in said.lower()
    assert {path.name: path.read_bytes() for path in (here / "r").iterdir() if path.suffix != ".journal"} == before


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_found_and_the_same_command_goes_on(here):
    command = [
        sys.executable,
        "-m",
        "scaler",
        "search",
        "--device",
        "nano",
        "--fps",
        "30",
        "--trials",
        "3000",
        "--out",
        "r",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    journal = Path("r/study.journal")
    for _ in range(6000):
        if journal.exists() and journal.stat().st_size > 100_000:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=600)

    assert process.returncode == 1
    assert "interrupted" in error
    assert "Traceback" not in error
    seen = json.loads(Path("r/pareto.json").read_text())["trials"]
    assert 0 < seen < 3000
    assert run(["search", "--device", "nano", "--fps", "30", "--trials", str(seen + 5), "--out", "r"]) == 0
    assert json.loads(Path("r/pareto.json").read_text())["trials"] == seen + 5


def test_show_explains_a_published_model(here, capsys):
    assert run(["show", "YOLO-ReT-M0.75@320", "--device", "nano", "--json"]) == 0

    shown = json.loads(capsys.readouterr().out)
    engine = shown["candidate"]["engine_ms"]["mean"]
    assert sum(stage["ms"] for stage in shown["candidate"]["stages"]) == pytest.approx(engine)
    assert sum(kind["ms"] for kind in shown["candidate"]["kinds"]) == pytest.approx(engine)
    assert sum(kernel["ms"] for kernel in shown["kernels"]) == pytest.approx(engine)
    assert shown["cost"]["params"] == 1887687
    assert all(step["saved_ms"] > 0 for step in shown["steps"])


def test_show_takes_parameters_with_named_values(here, capsys):
    text = "backbone=mobilenetv2,width=0.75,drop=published,rfcr=5,shortcut=true,neck=panet,resolution=320"
    assert run(["show", text, "--device", "nx", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["candidate"]
    run(["show", "YOLO-ReT-M0.75@320", "--device", "nx", "--json"])

    assert json.loads(capsys.readouterr().out)["candidate"] == written


@pytest.mark.parametrize(
    "name",
    ["front.png", "front.html", *(pytest.param(slow, marks=pytest.mark.slow) for slow in ("front.svg", "front.pdf"))],
)
def test_plot_draws_each_format(here, name):
    run([*QUICK, "--out", "r"])

    assert run(["plot", "r/pareto.json", "--out", name]) == 0
    assert (here / name).stat().st_size > 5_000


@pytest.mark.parametrize(
    "command", [["devices"], ["devices", "nano"], ["spaces"], ["spaces", "yolo-ret"], ["tables", "list"], ["doctor"]]
)
def test_listings_speak_json_too(here, capsys, command):
    assert run(command) == 0
    assert capsys.readouterr().out.strip()
    assert run([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_completion_can_be_shown():
    shown = subprocess.run(
        [sys.executable, "-m", "scaler", "--show-completion", "bash"], capture_output=True, text=True, check=False
    )

    assert "complete" in shown.stdout + shown.stderr
