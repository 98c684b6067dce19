"""The folder of a run: who may write into it, what stands in it, what a kill and a resumption leave."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from scaler.accuracy.runs import RESULT, Run, write_run
from scaler.data.dataset import Boxes, Dataset, Picture, Splits
from scaler.data.preprocessing import Preprocessing
from scaler.errors import FileError, MissingExtraError, UserError
from scaler.evaluation.coco_ap import CocoAp
from scaler.evaluation.detections import Selection
from scaler.evaluation.metrics import Metrics, Seconds
from scaler.training.loop.events import Epoch, Outcome, Start, Step
from scaler.training.loop.plan import BEST, LAST, TrainingPlan
from scaler.training.network.spec import NetworkSpec
from scaler.training.recipe import read_recipe
from scaler.training.runs import logs
from scaler.training.runs.environment import commit, differences, environment
from scaler.training.runs.folder import CONFIG, METRICS, Configuration, RunFolder, claim, same_configuration
from scaler.training.runs.logs import COLUMNS, MetricsFile, Row, read_metrics, require_tensorboard
from scaler.training.runs.pictures import Tile, write_batch, write_predictions
from scaler.training.runs.plots import write_ap, write_loss, write_precision_recall
from scaler.training.runs.progress import Lines, Several, closing, duration, points
from scaler.training.runs.recorder import Recorder, row_of, spread

PNG = b"\x89PNG"
FIGURES = dict.fromkeys(("ap", "ap50", "ap75", "voc_ap50_area", "voc_ap50_11"), 50.0)


def a_dataset(split: str = "train", pictures: int = 3) -> Dataset:
    boxes = Boxes.of([[1, 2, 30, 40]], [0])
    found = tuple(Picture(Path(f"{split}/{index}.png"), boxes, 64, 64) for index in range(pictures))
    return Dataset("shapes", split, ("circle", "square"), found)  # type: ignore[arg-type]


def configuration(**changes: object) -> Configuration:
    spec = NetworkSpec(
        family="yolo-ret",
        parameters={"backbone": "mobilenetv2", "width": 0.5, "drop": 2, "resolution": 160},
        classes=("circle", "square"),
        preprocessing=Preprocessing(size=160),
    )
    data = Splits("shapes", Path("data.toml"), ("circle", "square"), {"train": a_dataset(), "val": a_dataset("val")})
    made = Configuration(network=spec, recipe=read_recipe("quick"), data=data, seed=0, precision="fp32")
    return replace(made, **changes)  # type: ignore[arg-type]


def a_run(*, finished: bool) -> Run:
    return Run(
        family="yolo-ret", parameters={}, classes=("circle",), dataset="shapes", metrics=None, recipe="quick",
        epochs=3, seed=0, seconds=1.0, created="", scaler_version="", finished=finished,
    )  # fmt: skip


def claimed(folder: Path, wanted: Configuration, *, resume: bool = False) -> RunFolder:
    """What a run was given that has ended since."""
    with claim(folder, wanted, resume=resume) as found:
        return found


def unfinished(folder: Path) -> Path:
    claimed(folder, configuration())
    (folder / LAST).write_bytes(b"checkpoint")
    return folder


def test_a_new_folder_is_made_and_says_what_was_asked_for(tmp_path: Path):
    found = claimed(tmp_path / "runs" / "one", configuration(command="scaler train x"))
    assert not found.resumes
    config = json.loads(found.file(CONFIG).read_text())
    assert config["command"] == "scaler train x"
    assert config["network"]["parameters"]["width"] == 0.5
    assert config["dataset"]["pictures"] == {"train": 3, "val": 3}
    assert config["recipe"]["stages"][0]["epochs"] == 30


def test_an_unfinished_run_is_resumed_when_asked_to_and_never_overwritten(tmp_path: Path):
    folder = unfinished(tmp_path)
    with pytest.raises(UserError, match="unfinished: go on with --resume"):
        claimed(folder, configuration())
    assert claimed(folder, configuration(), resume=True).resumes
    assert (folder / LAST).read_bytes() == b"checkpoint"


def test_what_does_not_change_the_result_may_change_at_a_resumption(tmp_path: Path):
    folder = unfinished(tmp_path)
    moved = replace(configuration().data, file=Path("elsewhere/data.toml"))
    assert claimed(folder, configuration(data=moved, device="cuda", command="other"), resume=True).resumes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "seed is 0 there, 1 here"),
        ({"sync_batch_norm": True}, "sync_batch_norm is false there, true here"),
        ({"precision": "bf16"}, 'precision is "fp32" there, "bf16" here'),
        ({"pretrained": "mobilenet"}, 'pretrained is "" there, "mobilenet" here'),
        ({"recipe": read_recipe("quick").lasting(5)}, r"recipe.stages\[0\].epochs is 30 there, 5 here"),
        ({"network": replace(configuration().network, classes=("circle",))}, "network.classes"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_of_another_configuration_is_refused_by_what_differs(
    tmp_path: Path, changes: dict[str, object], said: str, resume: bool
):
    folder = unfinished(tmp_path)
    with pytest.raises(UserError, match=f"another configuration: {said}") as refused:
        claimed(folder, configuration(**changes), resume=resume)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("resume", [False, True])
def test_a_finished_run_is_left_alone(tmp_path: Path, resume: bool):
    folder = unfinished(tmp_path)
    (folder / RESULT).write_text(json.dumps({**a_run(finished=True).as_data(), "metrics": FIGURES}))
    with pytest.raises(UserError, match="finished: scaler evaluate"):
        claimed(folder, configuration(), resume=resume)


def test_an_interrupted_run_with_a_result_so_far_is_not_finished(tmp_path: Path):
    folder = unfinished(tmp_path)
    write_run(folder, a_run(finished=False))
    assert claimed(folder, configuration(), resume=True).resumes


def test_there_must_be_a_run_to_resume(tmp_path: Path):
    with pytest.raises(UserError, match="holds no run to resume; leave --resume away"):
        claimed(tmp_path / "new", configuration(), resume=True)
    assert not (tmp_path / "new").exists()


def test_a_run_that_was_stopped_before_its_first_checkpoint_may_be_begun_otherwise(tmp_path: Path):
    claimed(tmp_path, configuration())
    assert not claimed(tmp_path, configuration(seed=7)).resumes


def test_files_of_somebody_else_are_not_overwritten(tmp_path: Path):
    (tmp_path / "loss.png").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"has a loss\.png but no config\.json"):
        claimed(tmp_path, configuration())
    assert (tmp_path / "loss.png").read_bytes() == b"mine"


def test_a_folder_that_cannot_be_made_is_one_line_before_any_work(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make the folder"):
        claimed(tmp_path / "file" / "run", configuration())


def test_a_folder_belongs_to_one_process_at_a_time(tmp_path: Path):
    folder = unfinished(tmp_path)
    with claim(folder, configuration(), resume=True), pytest.raises(UserError, match="another process is training in"):
        claimed(folder, configuration(), resume=True)
    assert claimed(folder, configuration(), resume=True).resumes
    assert {path.name for path in folder.iterdir()} == {CONFIG, LAST}, "the lock is gone"


def test_two_that_begin_at_once_do_not_share_the_folder(tmp_path: Path):
    with claim(tmp_path, configuration()):
        with pytest.raises(UserError, match="another process is training in") as refused:
            claimed(tmp_path, configuration(seed=7))
        assert "\n" not in str(refused.value)
        assert json.loads((tmp_path / CONFIG).read_text())["seed"] == 0


def test_the_folder_of_a_process_that_was_killed_is_free(tmp_path: Path):
    folder = unfinished(tmp_path)
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom scaler.locks import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(folder / LAST)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another process is training in"):
        claimed(folder, configuration(), resume=True)
    holder.kill()
    holder.communicate()
    assert claimed(folder, configuration(), resume=True).resumes


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize(
    ("left", "said"), [(BEST, "unfinished and without its last.pt"), (RESULT, "finished: scaler evaluate")]
)
def test_a_run_whose_last_checkpoint_was_deleted_is_not_overwritten(tmp_path: Path, resume: bool, left: str, said: str):
    claimed(tmp_path, configuration())
    data = {**a_run(finished=True).as_data(), "metrics": FIGURES}
    (tmp_path / left).write_text(json.dumps(data))
    with pytest.raises(UserError, match=said):
        claimed(tmp_path, configuration(), resume=resume)


def test_a_run_is_compared_with_what_it_would_be_now(tmp_path: Path):
    folder = unfinished(tmp_path)
    same_configuration(folder, configuration(device="cuda", processes=4, micro_batch=2))
    with pytest.raises(UserError, match=r"another configuration: recipe.stages\[0\].epochs is 30 there, 5 here"):
        same_configuration(folder, configuration(recipe=read_recipe("quick").lasting(5)))
    with pytest.raises(UserError, match=r"config\.json: no such file"):
        same_configuration(tmp_path / "none", configuration())


def row(epoch: int, **changes: float | None) -> Row:
    values: dict[str, float | None] = {"adversarial": None, "ap": None, "ap50": None, **changes}
    return Row(
        epoch=epoch, stage=1 + epoch // 4, lr=0.1 / epoch, box=1.0, objectness=2.0, classes=0.5, loss=3.5, seconds=2.5,
        pictures_per_second=100.0, **values,
    )  # type: ignore[arg-type]  # fmt: skip


def test_metrics_are_read_back_as_they_were_written(tmp_path: Path):
    rows = [row(1), row(2, adversarial=0.25, ap=12.345678, ap50=40.0)]
    file = MetricsFile(tmp_path / METRICS)
    for one in rows:
        file.add(one)
    assert list(read_metrics(tmp_path / METRICS)) == rows
    assert (tmp_path / METRICS).read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_resumed_run_cuts_the_rows_after_its_checkpoint_and_what_a_kill_left_of_a_line(tmp_path: Path):
    path = tmp_path / METRICS
    file = MetricsFile(path)
    for epoch in (1, 2, 3):
        file.add(row(epoch))
    with path.open("a") as stream:
        stream.write("4,1,0.0")
    again = MetricsFile(path, after_epoch=2)
    again.add(row(3, ap=1.0, ap50=2.0))
    assert [(one.epoch, one.ap) for one in read_metrics(path)] == [(1, None), (2, None), (3, 1.0)]
    assert [one.epoch for one in again.rows] == [1, 2, 3]


def test_a_new_run_begins_an_empty_file(tmp_path: Path):
    MetricsFile(tmp_path / METRICS).add(row(1))
    assert MetricsFile(tmp_path / METRICS).rows == []


def test_a_metrics_file_that_was_edited_wrongly_is_one_line(tmp_path: Path):
    (tmp_path / METRICS).write_text(",".join(COLUMNS) + "\n" + ",".join(["x"] * len(COLUMNS)) + "\n")
    with pytest.raises(FileError, match=r"metrics\.csv: line 2, column 'epoch'"):
        MetricsFile(tmp_path / METRICS, after_epoch=1)


def test_a_lost_folder_is_one_line(tmp_path: Path):
    file = MetricsFile(tmp_path / METRICS)
    (tmp_path / METRICS).unlink()
    with pytest.raises(UserError, match="cannot write"):
        file.add(row(1))


def test_tensorboard_says_how_to_install_it():
    pytest.importorskip("torch")
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="tensorboard"):
            require_tensorboard()
    else:
        require_tensorboard()


def some_metrics(ap: float = 0.25, ap50: float = 0.5) -> Metrics:
    coco = CocoAp(*([ap, ap50] + [0.1] * 10))
    return Metrics(
        dataset="shapes", split="val", selection=Selection(), coco=coco, voc_ap50_area=0.5, voc_ap50_11=0.5,
        by_class=(), pictures=3, skipped=(), detections=9, seconds=Seconds(0.1, 0.1, 0.1),
    )  # fmt: skip


LOSSES = {"box": 1.0, "objectness": 2.0, "classes": 0.5, "total": 3.5}


def an_epoch(number: int, metrics: Metrics | None = None, *, best: bool = False) -> Epoch:
    return Epoch(epoch=number, of=3, stage=0, lr=0.001, losses=LOSSES, metrics=metrics, best=best, seconds=4.0,
                 evaluation_s=1.0, pictures_per_s=120.0, eta_s=75.0)  # fmt: skip


def a_step(epoch: int) -> Step:
    return Step(epoch=epoch, step=1, of=2, stage=0, lr=0.001, losses=LOSSES, gradient=1.0, size=160,
                pictures_per_s=120.0, memory_mib=100.0, eta_s=80.0)  # fmt: skip


def a_start(folder: Path, epoch: int = 0) -> Start:
    spec = configuration().network
    plan = TrainingPlan(spec=spec, recipe=read_recipe("quick").lasting(3), train=a_dataset(), val=a_dataset("val"),
                        folder=folder)  # fmt: skip
    return Start(plan=plan, parameters=1_234_567, steps_per_epoch=2, epoch=epoch, step=0, world=1)


def test_the_recorder_writes_rows_and_curves_and_a_resumed_one_goes_on(tmp_path: Path):
    folder = RunFolder(tmp_path, resumes=False)
    with Recorder(folder, "net on shapes") as recorder:
        recorder.on_start(a_start(tmp_path))
        for epoch in range(2):
            recorder.on_step(a_step(epoch))
            recorder.on_epoch(an_epoch(epoch, some_metrics() if epoch else None))
    assert [(one.epoch, one.ap50, one.pictures_per_second) for one in read_metrics(tmp_path / METRICS)] == [
        (1, None, 120.0),
        (2, 50.0, 120.0),
    ]
    assert (tmp_path / "loss.png").read_bytes().startswith(PNG)
    assert (tmp_path / "ap.png").read_bytes().startswith(PNG)
    with Recorder(folder, "net on shapes") as recorder:
        recorder.on_start(a_start(tmp_path, epoch=1))
        recorder.on_epoch(an_epoch(1, some_metrics(0.3, 0.6)))
    assert [(one.epoch, one.ap50) for one in read_metrics(tmp_path / METRICS)] == [(1, None), (2, 60.0)]


def test_a_resumed_run_makes_tensorboard_forget_what_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("torch")
    opened: list[dict[str, object]] = []

    class Writer:
        def __init__(self, folder: Path, **options: object) -> None:
            opened.append({"folder": folder, **options})

        def close(self) -> None:
            opened.append({})

    monkeypatch.setattr(logs, "require_tensorboard", lambda: None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    for start in (a_start(tmp_path), replace(a_start(tmp_path, epoch=2), step=1)):
        with Recorder(RunFolder(tmp_path, resumes=False), "net on shapes", tensorboard=True) as recorder:
            recorder.on_start(start)
    begun, resumed = ({"folder": tmp_path, "purge_step": step} for step in (None, 6))
    assert opened == [begun, {}, resumed, {}]


def test_a_run_that_fails_still_leaves_its_curves(tmp_path: Path):
    with pytest.raises(UserError), Recorder(RunFolder(tmp_path, resumes=False), "net") as recorder:
        recorder.on_start(a_start(tmp_path))
        recorder.on_epoch(an_epoch(0))
        raise UserError("diverged")
    assert (tmp_path / "loss.png").exists()


def test_a_row_counts_from_one_and_gives_ap_in_points():
    found = row_of(an_epoch(0, some_metrics()))
    assert (found.epoch, found.stage, found.ap, found.ap50, found.loss) == (1, 1, 25.0, 50.0, 3.5)
    assert found.adversarial is None
    attacked = replace(an_epoch(0), losses=LOSSES | {"adversarial": 0.5, "total": 4.0})
    assert row_of(attacked).adversarial == 0.5


def test_a_line_an_epoch_says_what_an_engineer_wants_to_know(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    lines = Several(Lines())
    lines.on_start(a_start(tmp_path))
    lines.on_step(a_step(0))
    lines.on_epoch(an_epoch(0, some_metrics(), best=True))
    lines.on_message("out of memory: going on with 4 pictures at a time")
    told = capsys.readouterr()
    assert told.out == ""
    opening, epoch, message = told.err.splitlines()
    assert "1.23 M parameters, 3 pictures at 160 px, 3 epochs of 2 steps of 8 pictures, recipe quick" in opening
    assert epoch == (
        "epoch 1/3 (stage 1): loss 3.5 = box 1 + objectness 2 + classes 0.5, lr 0.001, 120 pictures/s, AP 25.0, "
        "AP50 50.0, best so far, 1:15 left"
    )
    assert message.startswith("out of memory")


def test_the_last_epoch_has_no_time_left():
    assert "left" not in closing(an_epoch(2))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1:00"), (754, "12:34"), (11232, "3:07:12"), (-1, "0 s")]
)
def test_durations_are_short(seconds: float, text: str):
    assert duration(seconds) == text


def test_ap_without_objects_is_said():
    assert points(None) == "none (no objects)"
    assert points(0.4567) == "45.7"


def test_all_pictures_can_be_drawn_at_their_extremes(tmp_path: Path):
    image = np.zeros((40, 60, 3), np.uint8)
    none = Tile(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    many = Tile(image, np.tile(np.array([[1, 1, 30, 20]], np.float32), (40, 1)), np.arange(40))
    one = Tile(image, np.array([[-5, -5, 90, 90]], np.float32), np.array([1]), np.array([0.5], np.float32))
    classes = [f"class {index}" for index in range(40)]
    write_batch([none, many, one], classes, "t", tmp_path / "batch.png")
    write_predictions([(one, none)], classes, "t", tmp_path / "predictions.png")
    write_loss([row(1)], "t", tmp_path / "loss.png")
    write_ap([row(1)], "t", tmp_path / "ap.png")
    recall = np.linspace(0, 1, 5, dtype=np.float32)
    curves = dict.fromkeys(classes, (recall, recall))
    write_precision_recall(curves, {}, "t", tmp_path / "pr.png")
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(PNG) for name in ("batch", "loss", "ap", "pr"))


def test_pictures_are_chosen_evenly_and_with_objects():
    empty = Picture(Path("none.png"), Boxes.of([], []))
    full = a_dataset(pictures=20).pictures
    assert [picture.name for picture in spread([empty, *full], 4)] == ["0", "5", "10", "15"]
    assert spread([empty], 4) == [empty]


def test_the_environment_names_versions_and_hardware_but_not_the_computer():
    import socket

    found = environment(2)
    assert found["packages"]["torch"] and found["packages"]["numpy"] and found["python"]
    assert found["cpu"] and found["cores"] >= 1 and found["processes"] == 2
    name = socket.gethostname()
    assert len(name) < 4 or name not in json.dumps(found)


def test_what_changed_between_two_environments_is_named():
    before = {"python": "3.11", "packages": {"torch": "2.6", "numpy": "2.0"}}
    now = {"python": "3.11", "packages": {"torch": "2.7", "onnx": "1.17"}}
    assert differences(before, now) == ("torch 2.6 -> 2.7", "numpy 2.0 -> None", "onnx None -> 1.17")
    assert differences(now, now) == ()


def test_only_a_checkout_has_a_commit(tmp_path: Path):
    assert commit(tmp_path) is None
    (tmp_path / ".git").mkdir()
    assert commit(tmp_path) is None  # no repository in truth


def test_outcome_is_passed_on_to_all():
    heard: list[str] = []

    class Ear(Lines):
        def on_end(self, event: Outcome) -> None:
            heard.append(event.reason)

    end = Outcome(finished=False, reason="Ctrl-C", epochs=1, steps=2, seconds=3.0, last=Path("last.pt"), best=None,
                  metrics=None, best_epoch=None, best_ap=None)  # fmt: skip
    Several(Ear(), Ear()).on_end(end)
    assert heard == ["Ctrl-C", "Ctrl-C"]
