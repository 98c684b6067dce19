"""Searching and explaining candidates of every family, alone and in one front."""

import json
import re
from pathlib import Path

import pytest

from scaler.cli import run
from scaler.search.predictors import load_predictor
from scaler.search.published_models import published_models
from scaler.search.run import SearchOptions, search
from scaler.space_file import list_spaces, read_space


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shown(capsys, *arguments: str) -> dict:
    assert run(["show", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments: str) -> str:
    assert run(["show", *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


@pytest.mark.parametrize(
    "sampler", ["auto", "nsga2", "nsga3", "tpe", "random", pytest.param("gp", marks=pytest.mark.slow)]
)
def test_every_sampler_searches_a_space_whose_largest_networks_do_not_fit(sampler):
    found = search(SearchOptions(devices=("nano",), space="scaled-yolov4", sampler=sampler, trials=30)).result
    assert found.distinct >= 30
    assert found.metric == "COCO AP"
    assert all(candidate.ap.mean > 5 for candidate in found.devices[0].front)


def test_one_front_holds_every_family_by_coco_ap(here):
    found = search(SearchOptions(devices=("nx",), space="all", trials=150, target_fps=20)).result
    device = found.devices[0]
    assert (found.metric, found.dataset) == ("COCO AP", "coco")
    assert {candidate.params["space"] for candidate in device.front} >= {"scaled-yolov4"}
    assert {candidate.ap_provenance for candidate in device.front} <= {"calibrated", "estimated"}
    names = {reference.name.split("@")[0] for reference in device.references}
    assert {"YOLO-ReT-M0.75", "yolov4-csp", "retinanet-resnet-50"} <= names


def test_every_shipped_space_has_a_predictor_and_says_what_it_is_made_of():
    cards = {space.name: load_predictor(space).card for space in list_spaces()}
    assert cards["vovnet-ret"].provenance == "estimated"
    assert not cards["vovnet-ret"].errors
    assert "nobody" not in cards["yolo-ret"].fitted_on
    for name in ("yolo-ret", "scaled-yolov4", "lw-retinanet"):
        assert cards[name].provenance == "calibrated"
        assert any("left-out" in error or "leave-one" in error for error in cards[name].errors)
    assert any("no detector of vovnet-ret was published" in note for note in cards["all"].notes)


@pytest.mark.parametrize("name", [name for name in published_models() if not name.startswith("YOLO-ReT")])
def test_a_published_model_is_found_in_the_space_of_its_family(here, capsys, name):
    model, plain = published_models()[name], shown(capsys, name, "--device", "agx-orin")
    ap = plain["candidate"]["ap"]
    assert plain["metric"] == "COCO AP"
    assert abs(ap["mean"] - model.ap["COCO AP"]) < 1.0


def test_the_parameters_say_which_space_is_meant(here, capsys):
    assert shown(capsys, "variant=csp,resolution=512", "--device", "nx")["candidate"]["params"]["variant"] == "csp"
    assert shown(capsys, "backbone=vovnet-39,neck=fpn,resolution=320", "--device", "nx")["metric"] == "VOC AP50"
    assert shown(capsys, "lighten=released,backbone=resnet-50,resolution=640", "--device", "nx")["metric"] == "COCO AP"


def test_named_values_are_understood_in_any_order(here, capsys):
    written = "resolution=1536,width=published,variant=p7"
    for text in (written, ",".join(reversed(written.split(",")))):
        assert shown(capsys, text, "--device", "agx")["candidate"]["params"]["width"] == 1.25
    joined = "width=published,variant=p7,resolution=1536,space=scaled-yolov4"
    assert shown(capsys, joined, "--space", "all", "--device", "agx")["candidate"]["params"]["width"] == 1.25


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("variant=csp,rfcr=5,resolution=512", r"rfcr = 5: does not apply to variant = csp"),
        ("variant=csp,variant=p5,resolution=512", r"variant is given twice, as csp and p5"),
        ("variant=csp,resolution=500", r"resolution = 500: the space 'scaled-yolov4' allows 320"),
        ("variant=p7,width=1.25,resolution=1500", r"resolution = 1500"),
        ("backbone=vovnet-40,neck=fpn,resolution=320", r"vovnet-40.*yolo-ret"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(here, capsys, text, said):
    assert re.search(said, refused(capsys, text, "--device", "nx"))


@pytest.mark.parametrize("overhead", ["-1", "nan", "inf"])
def test_an_impossible_overhead_is_refused_everywhere(here, capsys, overhead):
    for arguments in (
        ["show", "yolov4-tiny@416", "--device", "nx", "--overhead-ms", overhead],
        ["search", "--device", "nx", "--overhead-ms", overhead],
        ["scale", "yolov4-csp", "--factor", "0.5", "--device", "nx", "--overhead-ms", overhead],
    ):
        assert run(arguments) == 2
        assert "overhead must be 0 ms or more" in capsys.readouterr().err


def test_what_does_not_fit_and_what_is_beyond_the_data_is_said(here, capsys):
    plain = shown(capsys, "yolov4-p7@1536", "--device", "nano")
    assert plain["candidate"]["provenance"] == "estimated"
    assert re.search(r"does not fit: .* Jetson Nano has 4", plain["warnings"][0])
    assert "larger than any network with a published time" in plain["warnings"][1]
    assert not shown(capsys, "yolov4-tiny@416", "--device", "nano")["warnings"]


def test_a_family_without_results_on_a_data_set_is_named(here, capsys):
    for space in ("all", "scaled-yolov4"):
        assert run(["search", "--device", "nx", "--space", space, "--dataset", "voc"]) == 2
        assert "nobody published scaled-yolov4 on voc" in capsys.readouterr().err


def test_the_published_full_sizes_are_in_the_spaces():
    space = read_space("all")
    assert all(space.find(model.config) is not None for model in published_models().values())
