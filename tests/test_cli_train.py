"""`scaler train`: a short run from the command line, what it leaves, how it is resumed, and what it refuses."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from sample_result import sample_result

from scaler.accuracy.runs import read_run
from scaler.cli import run
from scaler.data.shapes import make_shapes
from scaler.training.candidates import Named, one
from scaler.training.checkpoint import read_checkpoint
from scaler.training.loading import load_detector
from scaler.training.logs import read_metrics
from scaler.training.run_folder import CONFIG, ENVIRONMENT, METRICS, PICTURES

ROOT = Path(__file__).parent.parent
NETWORK = "backbone=mobilenetv2,width=0.35,drop=published,rfcr=0,neck=fpn,resolution=160"
SHORT = ["--recipe", "quick", "--epochs", "2", "--batch", "4", "--workers", "0", "--on", "cpu"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("shapes"), train=8, val=4, size=96)


class Said(NamedTuple):
    """Exit code and streams of one call."""

    code: int
    out: str
    err: str


def said(*arguments: str) -> Said:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(["train", *arguments])
    return Said(code, out.getvalue(), err.getvalue())


class Story(NamedTuple):
    """A run that was stopped after its first steps, tried again without `--resume`, and resumed."""

    folder: Path
    stopped: Said
    finished_then: bool
    refused: Said
    resumed: Said


@pytest.fixture(scope="module")
def story(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    folder = tmp_path_factory.mktemp("runs") / "one"
    command = (NETWORK, "--data", str(data), "--out", str(folder), *SHORT)
    stopped = said(*command, "--minutes", "0.00001")
    return Story(folder, stopped, read_run(folder).finished, said(*command), said(*command, "--resume", "--json"))


@pytest.fixture(scope="module")
def trained(story: Story) -> Path:
    return story.folder


def test_a_run_that_is_stopped_by_the_clock_is_resumed_to_its_end(story: Story):
    assert story.stopped.code == 1 and not story.finished_then
    assert story.stopped.err.endswith("scaler: stopped (time limit); go on with the same command and --resume\n")
    assert story.refused.code == 1
    assert "holds this run, unfinished: go on with --resume" in story.refused.err
    assert story.resumed.code == 0
    assert "going on after" in story.resumed.err
    told = json.loads(story.resumed.out)
    assert told["finished"] and told["folder"] == str(story.folder) and told["metrics"]["ap50"] >= 0


def test_a_run_leaves_everything_that_an_engineer_looks_for(trained: Path, data: Path):
    assert {*PICTURES, CONFIG, ENVIRONMENT, METRICS, "last.pt", "best.pt", "best.onnx", "result.json"} == {
        path.name for path in trained.iterdir()
    }
    found = read_run(trained)
    assert found.finished and found.metrics is not None and found.predicted is None
    assert (found.dataset, found.classes, found.epochs) == ("shapes", ("circle", "square", "triangle"), 2)
    assert found.split_sizes == {"train": 8, "val": 4}
    rows = read_metrics(trained / METRICS)
    assert [row.epoch for row in rows] == [1, 2]
    assert rows[-1].ap == pytest.approx(found.metrics.ap, abs=1e-5)
    config = json.loads((trained / CONFIG).read_text())
    assert config["recipe"]["name"] == "quick" and config["dataset"]["file"] == str(data)
    assert config["network"]["anchors"], "the recipe clusters anchors"
    assert read_checkpoint(trained / "best.pt").facts.dataset == "shapes"


def test_both_files_of_the_best_weights_are_detectors_of_the_same_classes(trained: Path):
    first, second = (load_detector(trained / name, "cpu") for name in ("best.pt", "best.onnx"))
    assert first.classes == second.classes == ("circle", "square", "triangle")
    assert first.preprocessing == second.preprocessing


def test_a_finished_run_is_neither_overwritten_nor_resumed(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str]
):
    before = (trained / "best.pt").read_bytes()
    for more in ([], ["--resume"]):
        assert run(["train", NETWORK, "--data", str(data), "--out", str(trained), *SHORT, *more]) == 1
        assert "finished: scaler evaluate" in capsys.readouterr().err
    assert (trained / "best.pt").read_bytes() == before


def test_a_run_of_another_seed_is_refused_in_one_line(trained: Path, data: Path, capsys: pytest.CaptureFixture[str]):
    assert run(["train", NETWORK, "--data", str(data), "--out", str(trained), *SHORT, "--seed", "3"]) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last.endswith("another configuration: seed is 0 there, 3 here; --out another folder")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ([], 2, "train what? name a pareto.json or a model"),
        ([NETWORK], 2, "train on what? give --data data.toml"),
        ([NETWORK, "--data", "none.toml"], 1, "none.toml: no such file"),
        (["nonsense", "--data", "DATA"], 2, "unknown candidate 'nonsense'"),
        ([NETWORK, "--data", "DATA", "--recipe", "quik"], 2, "did you mean 'quick'?"),
        ([NETWORK, "--data", "DATA", "--epochs", "1"], 2, "has 2 stages; give 2 or more"),
        ([NETWORK, "--data", "DATA", "--batch", "0"], 2, "--batch 0: give 1 or more"),
        ([NETWORK, "--data", "DATA", "--lr", "-1"], 2, "--lr -1: give a number above 0"),
        ([NETWORK, "--data", "DATA", "--anchors", "kmeans"], 2, "did you mean 'k-means'?"),
        ([NETWORK, "--data", "DATA", "--precision", "fp16", "--on", "cpu"], 1, "fp16 needs a CUDA GPU"),
        ([NETWORK, "--data", "DATA", "--precision", "int8"], 2, "unknown --precision 'int8'"),
        ([NETWORK, "--data", "DATA", "--resolution", "100"], 2, "resolution"),
        ([NETWORK, "--data", "DATA", "--resume"], 1, "holds no run to resume"),
        ([NETWORK, "--data", "DATA", "--transfer-blocks", "3"], 2, "--transfer-blocks needs --pretrained"),
        ([NETWORK, "--data", "DATA", "--pretrained", "none"], 2, "unknown weights 'none'"),
        ([NETWORK, "--data", "DATA", "--recipe", "lw-retinanet"], 1, "cannot train a network whose boxes"),
        ([NETWORK, "--data", "DATA", "--pick", "front"], 2, "--pick front is for the pareto.json of a search"),
        (["none.json", "--data", "DATA"], 1, "none.json: no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_any_work(
    arguments: list[str],
    code: int,
    line: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert run(["train", *[str(data) if part == "DATA" else part for part in arguments]]) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert line in told.err and told.err.splitlines()[-1].startswith("scaler: ")
    assert not list(tmp_path.glob("runs/*/last.pt"))


def test_a_data_set_without_a_validation_split_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    file = data.parent / "only-train.toml"
    file.write_text(data.read_text().partition("[val]")[0])
    assert run(["train", NETWORK, "--data", str(file), "--out", str(tmp_path / "run")]) == 1
    assert "val: missing" in capsys.readouterr().err


def test_a_recipe_is_printed_to_be_copied(capsys: pytest.CaptureFixture[str]):
    assert run(["train", "--show-recipe", "quick"]) == 0
    assert 'name = "quick"' in capsys.readouterr().out


def test_networks_are_named_as_in_show():
    published = one("YOLO-ReT-M0.75@320")
    assert (published.name, published.family) == ("YOLO-ReT-M0.75@320", "yolo-ret")
    written = one(NETWORK)
    assert written.parameters["width"] == 0.35 and len(written.name) == 8
    assert one("yolov4-tiny@416").family == "scaled-yolov4"


def test_a_pick_of_a_search_carries_its_prediction(tmp_path: Path):
    from scaler.report.files import write_json

    result = sample_result()
    write_json(result, tmp_path / "pareto.json")
    found = one(str(tmp_path / "pareto.json"), pick="best")
    assert found.candidate == result.devices[0].pick == found.name
    assert found.predicted is not None
    assert (found.predicted.dataset, found.predicted.metric) == (result.dataset, result.metric)


def test_a_pick_at_another_resolution_is_no_candidate_of_the_search_any_more(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from scaler.report.files import write_json
    from scaler.training import run as runs

    seen: list[Named] = []

    def instead(_: object, named: Named, *__: object, **___: object) -> None:
        seen.append(named)

    monkeypatch.setattr(runs, "train_network", instead)
    write_json(sample_result(), tmp_path / "pareto.json")
    command = ["train", str(tmp_path / "pareto.json"), "--data", str(data), "--resolution", "160"]
    assert run(command) == 0
    assert seen[0].name.endswith("-160px") and not seen[0].candidate and seen[0].predicted is None
    assert run([*command, "--pick", "front"]) == 2
    assert "--resolution makes other networks than those of the front" in capsys.readouterr().err


@pytest.mark.slow
def test_winners_of_a_front_are_trained_and_recorded(data: Path, tmp_path: Path):
    from scaler.report.files import write_json
    from scaler.search.result_file import read_result

    write_json(sample_result(), tmp_path / "pareto.json")
    command = [str(tmp_path / "pareto.json"), "--pick", "front", "--count", "1", "--data", str(data)]
    told = said(*command, "--out", str(tmp_path / "runs"), "--recipe", "quick", "--epochs", "1", "--batch", "8",
                "--workers", "0", "--on", "cpu", "--json")  # fmt: skip
    assert told.code == 0, told.err
    (found,) = json.loads(told.out)["runs"]
    assert read_run(tmp_path / "runs" / found["candidate"]).finished
    front = {one.id: one for one in read_result(tmp_path / "pareto.json").devices[0].front}
    assert front[found["candidate"]].trained, "recorded beside its prediction"


@pytest.mark.slow
def test_torchrun_trains_one_network_with_two_processes_of_which_one_speaks_and_writes(data: Path, tmp_path: Path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "-m", "scaler", "train", NETWORK, "--data", str(data), "--out", str(folder), *SHORT]
    shared = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--sync-batch-norm"], env=shared, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1/2") == 1, "only process 0 speaks"
    assert read_run(folder).finished
    assert json.loads((folder / CONFIG).read_text())["processes"] == 2
    assert torch.isfinite(next(iter(read_checkpoint(folder / "best.pt").state.values()))).all()
