"""`scaler train`: a short run from the command line, what it leaves, how it is resumed, and what it refuses."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from sample_result import sample_result

from scaler.accuracy.runs import read_run
from scaler.cli import run
from scaler.data.shapes import make_shapes
from scaler.errors import UserError
from scaler.evaluation.coco_ap import CocoAp
from scaler.evaluation.detections import Selection
from scaler.evaluation.metrics import Metrics, Seconds
from scaler.report.files import write_json
from scaler.training.loop.events import Outcome
from scaler.training.loop.plan import TrainingPlan
from scaler.training.network.checkpoint import read_checkpoint
from scaler.training.network.loading import load_detector
from scaler.training.recipe import read_recipe, recipe_text
from scaler.training.runs import run as runs
from scaler.training.runs.candidates import Named, one
from scaler.training.runs.folder import CONFIG, ENVIRONMENT, METRICS, PICTURES
from scaler.training.runs.logs import read_metrics
from scaler.training.runs.order import Order, prepare, recipe_label, recipe_of

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


@pytest.mark.slow
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
        ([NETWORK, "--data", "DATA", "--minutes", "0"], 2, "--minutes 0: give a number above 0"),
        ([NETWORK, "--data", "DATA", "--minutes", "-1"], 2, "--minutes -1: give a number above 0"),
        ([NETWORK, "--data", "DATA", "--seed", "-1"], 2, "'--seed'"),
        ([NETWORK, "--data", "DATA", "--workers", "-1"], 2, "'--workers'"),
        ([NETWORK, "--data", "DATA", "--micro-batch", "0"], 2, "'--micro-batch'"),
        (["pareto.json", "--data", "DATA", "--pick", "front", "--count", "0"], 2, "'--count'"),
        ([NETWORK, "--data", "DATA", "--on", "mps"], 1, "--on mps: no such device; use auto, cpu, cuda"),
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
    result = sample_result()
    write_json(result, tmp_path / "pareto.json")
    found = one(str(tmp_path / "pareto.json"), pick="best")
    assert found.candidate == result.devices[0].pick == found.name
    assert found.predicted is not None
    assert (found.predicted.dataset, found.predicted.metric) == (result.dataset, result.metric)


def test_a_pick_at_another_resolution_is_no_candidate_of_the_search_any_more(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
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


def test_a_front_is_not_for_torchrun(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(["train", str(tmp_path / "pareto.json"), "--data", str(data), "--pick", "front"]) == 2
    assert "one network per process: start workers with --storage, not torchrun" in capsys.readouterr().err


def test_a_recipe_is_recorded_by_a_shipped_name_only_where_it_does_the_same(data: Path, tmp_path: Path):
    named = one(NETWORK)

    def label(**changes: Any) -> str:
        order = Order(data=data, **{"recipe": "quick", **changes})
        return recipe_label(order, recipe_of(order, named))

    def edited(*edits: tuple[str, str]) -> str:
        text = recipe_text("quick")
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "mine.toml").write_text(text)
        return label(recipe=str(tmp_path / "mine.toml"))

    shipped = read_recipe("quick")
    same = label(lr=shipped.stages[0].lr, batch=shipped.batch, anchors=shipped.anchors)
    assert label() == label(epochs=7) == same == "quick"
    assert edited() == edited(("Short and robust", "Mine")) == "quick"
    assert edited(("epochs = 30", "epochs = 60"), ("warmup_epochs = 1.0", "warmup_epochs = 2.0")) == "quick"
    others = [label(lr=1e-3), label(batch=shipped.batch + 1), label(anchors="published"), label(transfer_blocks=3),
              edited(("flip = 0.5", "flip = 0.0")), edited(("epochs = 30", "epochs = 60"))]  # fmt: skip
    assert all(re.fullmatch(r"quick\+[0-9a-f]{4}", other) for other in others)
    assert len({*others}) == len(others)
    assert label(lr=1e-3) == label(lr=1e-3, epochs=5)
    assert edited(('name = "quick"', 'name = "mine"')).startswith("mine+")


def test_a_run_names_its_weights_with_their_digest_and_passes_on_the_micro_batch(trained: Path, data: Path):
    order = Order(data=data, recipe="quick", on="cpu", micro_batch=2, pretrained=str(trained / "best.pt"))
    found = prepare(order, one(NETWORK), trained, lambda _: None)
    digest = sha256((trained / "best.pt").read_bytes()).hexdigest()
    assert (found.pretrained, found.recipe, found.plan.micro_batch) == (f"best@{digest[:8]}", "quick", 2)


def ending(
    monkeypatch: pytest.MonkeyPatch, *, finished: bool = True, saved: bool = True, best: Path | None = None
) -> None:
    """Have training end at once in this way."""
    coco = CocoAp(*([0.25, 0.5] + [0.1] * 10))
    metrics = Metrics(
        dataset="shapes", split="val", selection=Selection(), coco=coco, voc_ap50_area=0.5, voc_ap50_11=0.5,
        by_class=(), pictures=4, skipped=(), detections=9, seconds=Seconds(0.1, 0.1, 0.1),
    )  # fmt: skip

    def train(plan: TrainingPlan, *_: object, **__: object) -> Outcome:
        return Outcome(
            finished=finished, reason="" if finished else "Ctrl-C", epochs=1, steps=2, seconds=1.0,
            last=plan.last if saved else None, best=best, metrics=metrics if saved else None, best_epoch=0,
            best_ap=0.25,
        )  # fmt: skip

    monkeypatch.setattr(runs, "train", train)


def test_a_run_that_is_stopped_before_anything_was_saved_begins_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command = (NETWORK, "--data", str(data), "--out", str(tmp_path / "run"), *SHORT)
    ending(monkeypatch, finished=False, saved=False)
    stopped = said(*command)
    assert stopped.code == 1
    assert stopped.err.endswith("scaler: stopped (Ctrl-C); nothing was saved yet: begin anew\n")
    assert not (tmp_path / "run" / "result.json").exists()
    ending(monkeypatch)
    assert said(*command).code == 0


def test_a_finished_run_has_its_result_whatever_happens_to_its_pictures(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise ValueError("no room\nfor pictures")

    def refuse() -> None:
        raise UserError("no onnx here")

    ending(monkeypatch, best=trained / "best.pt")
    monkeypatch.setattr(runs, "draw_predictions", fail)
    monkeypatch.setattr(runs, "require_onnx", refuse)
    told = said(NETWORK, "--data", str(data), "--out", str(tmp_path / "run"), *SHORT, "--lr", "1e-3")
    assert told.code == 0
    assert "no predictions.png: ValueError: no room\n" in told.err
    assert "no best.onnx: no onnx here\n" in told.err
    found = read_run(tmp_path / "run")
    assert found.finished and found.recipe.startswith("quick+")


def test_a_run_that_cannot_be_recorded_is_told_and_its_result_printed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: object) -> None:
        raise UserError("pareto.json: cannot be written")

    ending(monkeypatch)
    monkeypatch.setattr(runs, "record", refuse)
    write_json(sample_result(), tmp_path / "pareto.json")
    told = said(str(tmp_path / "pareto.json"), "--data", str(data), "--out", str(tmp_path / "run"), *SHORT, "--json")
    assert told.code == 0
    assert "scaler: not recorded: pareto.json: cannot be written\n" in told.err
    assert json.loads(told.out)["metrics"]["ap50"] == 50.0


def test_a_front_is_trained_once_and_never_takes_the_runs_of_another_order(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("scaler.report.recording.write_reports", lambda *_: None)
    ending(monkeypatch)
    write_json(sample_result(), tmp_path / "pareto.json")
    command = (str(tmp_path / "pareto.json"), "--pick", "front", "--count", "1", "--data", str(data))
    command = (*command, "--out", str(tmp_path / "runs"), *SHORT)
    first, again = said(*command), said(*command)
    assert (first.code, again.code) == (0, 0)
    assert ": trained, AP 25.0" in first.err and ": was trained before, AP 25.0" in again.err
    other = said(*command, "--epochs", "3")
    assert other.code == 1
    assert "another configuration: recipe.stages[0].epochs is 2 there, 3 here; --out another folder" in other.err
    assert "AP 25.0" not in other.err


def test_what_workers_gave_up_is_trained_again_when_asked(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scaler.report.recording.write_reports", lambda *_: None)
    write_json(sample_result(), tmp_path / "pareto.json")
    command = (str(tmp_path / "pareto.json"), "--pick", "front", "--count", "1", "--data", str(data))
    command = (*command, "--out", str(tmp_path / "runs"), *SHORT, "--storage", str(tmp_path / "study.journal"))

    def diverge(*_: object, **__: object) -> None:
        raise UserError("diverged")

    monkeypatch.setattr(runs, "train", diverge)
    assert ": failed: diverged\n" in said(*command).err
    ending(monkeypatch)
    assert ": failed: diverged (worker" in said(*command).err
    assert ": trained, AP 25.0" in said(*command, "--retry").err
    assert ": trained by" in said(*command).err, "another call of the same order takes it from the storage"
    assert ": trained by" not in said(*command, "--lr", "1e-3").err, "another order is other work"


@pytest.mark.slow
def test_winners_of_a_front_are_trained_and_recorded(data: Path, tmp_path: Path):
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
