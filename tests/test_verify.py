"""`scaler verify` on a made-up computer: real files and detections, times that are those of its table."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx
import pytest
from sample_runs import metrics, sample_run
from synthetic_device import TINY_EFFORT, TINY_SPACE

from scaler.accuracy.runs import write_run
from scaler.cli import run as scaler
from scaler.data.data_file import read_splits
from scaler.data.preprocessing import Preprocessing
from scaler.data.shapes import CLASSES, make_shapes
from scaler.deploy import verify as deploying
from scaler.deploy.verify_files import metadata_of
from scaler.deploy.verify_frame import FrameSession
from scaler.errors import UserError
from scaler.evaluation.evaluate import evaluate
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.evaluation.onnx_metadata import KEY
from scaler.export.weights import random_weights
from scaler.graph.graph import Graph
from scaler.latency.estimator import load_uncorrected
from scaler.latency.observed import observed_path, read_observed
from scaler.models.detectors.families import FAMILIES, build, parameters_of
from scaler.profiling import machine as machines
from scaler.profiling import verify as timing
from scaler.profiling.machine import Machine
from scaler.report import recording
from scaler.report.files import write_json
from scaler.report.recording import record
from scaler.runtimes.fake import FakeRuntime
from scaler.runtimes.protocol import LayerTime
from scaler.search.result import Candidate, SearchResult
from scaler.search.result_file import read_result
from scaler.search.run import SearchOptions, search
from scaler.space_file import read_space
from scaler.training.network.onnx_file import detector_model
from scaler.training.network.spec import NetworkSpec

FPS = 330.0


DEVICE = "xeon-vm"
"""Its table is shipped; what measures is made up, so that it need not be here."""
TABLE = load_uncorrected(DEVICE)


class Computer(FakeRuntime):
    """Takes of a network what its table predicts, times `factor` unless it is the reference."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__(self.of_file, noise=0.0)

    def of_file(self, path: Path) -> tuple[LayerTime, ...]:
        ms = TABLE.info.model.reference_ms if path.name == "reference.onnx" else self.factor * ms_of(path)
        return (LayerTime("all", ms, ("all",)),)


def ms_of(path: Path) -> float:
    """Of a file that `as_text` or `trained_file` wrote."""
    try:
        return float(path.read_text())
    except ValueError:
        metadata = metadata_of(path)
    config = FAMILIES[metadata.family].configure(**metadata.parameters, classes=len(metadata.classes))
    return table_ms(build(config))


def table_ms(graph: Graph) -> float:
    return float(TABLE.estimate(graph).engine[0])


def as_text(graph: Graph, _: object, path: Path) -> None:
    path.write_text(str(table_ms(graph)))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search, pictures, and the file of a network that was as good as trained."""
    folder = tmp_path_factory.mktemp("verify")
    (folder / "tiny.toml").write_text(TINY_SPACE)
    make_shapes(folder / "shapes", train=1, val=6, size=64)
    write_json(search(asked(folder)).result, folder / "pareto.json")
    trained_file(folder / "best.onnx", pick_of(folder), read_result(folder / "pareto.json"))
    return folder


def asked(folder: Path) -> SearchOptions:
    return SearchOptions(devices=(DEVICE,), target_fps=FPS, space=str(folder / "tiny.toml"))


def trained_file(path: Path, candidate: Candidate, result: SearchResult) -> None:
    """The detector of a candidate, for the shapes."""
    config = read_space(result.space).configure(candidate.params, len(CLASSES))
    spec = NetworkSpec(
        family="yolo-ret",
        parameters=parameters_of(config),
        classes=CLASSES,
        preprocessing=Preprocessing(size=config.resolution),
    )
    path.write_bytes(detector_model(spec, random_weights(3)).SerializeToString())


@pytest.fixture
def home(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder, in it the result."""
    (tmp_path / "pareto.json").write_bytes((kept / "pareto.json").read_bytes())
    monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(timing, "write_network", as_text)
    monkeypatch.setattr(deploying, "bench", partial(timing.bench, settle_seconds=0.0))
    monkeypatch.setattr(deploying, "load_uncorrected", lambda *_, **__: TABLE)  # conditioning it takes its time
    monkeypatch.setattr(deploying, "FRAME_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders whose reports would have been drawn anew, which takes longer than all else."""
    folders: list[Path] = []
    monkeypatch.setattr(recording, "write_reports", lambda _, folder: folders.append(folder))
    return folders


@pytest.fixture
def computer(home: Path, monkeypatch: pytest.MonkeyPatch) -> Computer:
    found = Computer()
    monkeypatch.setattr(machines, "machine_for", lambda *_: Machine(found, TINY_EFFORT, ()))
    return found


def pick_of(folder: Path) -> Candidate:
    device = read_result(folder / "pareto.json").devices[0]
    return next(one for one in device.front if one.id == device.pick)


def verified(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> dict:
    assert scaler(["verify", "pareto.json", "--json", *map(str, arguments)]) == code
    return json.loads(capsys.readouterr().out)


def one(data: dict) -> dict:
    (row,) = data["candidates"]
    return row


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert scaler(["verify", "pareto.json", *map(str, arguments)]) in (1, 2)
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


# what was not trained


def test_a_pick_without_a_file_is_timed_with_made_up_weights(home, computer, drawn, capsys):
    pick = pick_of(home)

    row = one(verified(capsys))

    truth = pick.engine_ms.mean
    assert row["id"] == pick.id
    assert row["predicted"]["engine_ms"]["mean"] == pick.engine_ms.mean
    assert row["measured"]["level_ms"] == pytest.approx(truth)
    assert row["deviation"]["engine_ms"] == pytest.approx(0, abs=1e-9)
    assert (row["judged_on"], row["holds"], row["broken"]) == ("engine", True, False)
    assert row["measured"]["frame_ms"] is row["measured"]["ap"] is None
    assert "made-up weights" in row["measured"]["warnings"][0]


def test_all_of_the_front_is_recorded_and_the_latency_table_learns_from_it(home, kept, computer, drawn, capsys):
    computer.factor = 1.2

    rows = verified(capsys, "--pick", "front")["candidates"]

    assert drawn == [Path()]
    device = read_result("pareto.json").devices[0]
    assert [row["id"] for row in rows] == [candidate.id for candidate in device.front]
    assert all(len(candidate.verified) == 1 for candidate in device.front)
    observed = read_observed(observed_path(DEVICE, "onnxruntime", "fp32", "1-thread"))
    assert {row.network for row in observed} == {candidate.id for candidate in device.front}
    assert {(row.how, row.classes) for row in observed} == {("verify", 20)}
    again = search(asked(kept)).result
    same = {candidate.id: candidate for candidate in again.devices[0].front}
    for row in rows:
        if row["id"] in same:  # the next search predicts what was measured
            assert same[row["id"]].engine_ms.mean == pytest.approx(row["measured"]["level_ms"], rel=0.03)


def test_nothing_is_written_where_nothing_is_to_be_recorded(home, computer, capsys):
    before = (home / "pareto.json").read_bytes()

    verified(capsys, "--no-record")

    assert (home / "pareto.json").read_bytes() == before
    assert not observed_path(DEVICE, "onnxruntime", "fp32", "1-thread").exists()
    assert not (home / "report.html").exists()


def test_what_cannot_be_measured_is_told_and_the_others_are_recorded(home, computer, drawn, capsys, monkeypatch):
    first = read_result("pareto.json").devices[0].front[0]
    prepare = computer.prepare

    def failing(path: Path):
        is_first = path.name == "network.onnx" and float(path.read_text()) == pytest.approx(first.engine_ms.mean)
        computer.failures = {"network.onnx": "out of memory"} if is_first else {}
        return prepare(path)

    monkeypatch.setattr(computer, "prepare", failing)

    rows = {row["id"]: row for row in verified(capsys, "--pick", "front", code=1)["candidates"]}

    assert "not enough memory" in rows[first.id]["failure"]
    assert [found.id for found in read_result("pareto.json").devices[0].front if not found.verified] == [first.id]


def test_an_interruption_keeps_what_was_measured(home, computer, drawn, capsys, monkeypatch):
    prepare, seen = computer.prepare, []

    def interrupted(path: Path):
        seen.append(path.name)
        if len(seen) == 4:  # the reference, two candidates, and no more
            raise KeyboardInterrupt
        return prepare(path)

    monkeypatch.setattr(computer, "prepare", interrupted)

    assert scaler(["verify", "pareto.json", "--pick", "front"]) == 1

    assert "interrupted; what was measured is recorded" in capsys.readouterr().err
    assert [len(found.verified) for found in read_result("pareto.json").devices[0].front][:3] == [1, 1, 0]


# what was trained


def test_a_trained_pick_is_measured_whole_from_one_file(home, kept, computer, drawn, capsys):
    data = kept / "shapes" / "data.toml"

    row = one(verified(capsys, "--model", kept / "best.onnx", "--data", data))

    measured = row["measured"]
    expected = evaluate(OnnxDetector(kept / "best.onnx", "cpu"), read_splits(data, ["val"]).splits["val"])
    assert (measured["ap"], measured["ap50"]) == (100 * expected.ap, 100 * expected.ap50)
    assert measured["dataset"] == "shapes"
    assert list(measured["parts_ms"]) == ["decoding", "letterbox", "network", "nms"]
    assert min(measured["parts_ms"].values()) > 0
    assert measured["frame_ms"] > max(measured["parts_ms"].values())
    assert row["judged_on"] == "frame"
    assert row["deviation"]["ap"] is None, "the search predicts another data set"
    assert (home / measured["model"]).resolve() == (kept / "best.onnx").resolve()
    assert pick_of(home).verified[0].ap50 == measured["ap50"]
    assert "trained for 3 classes, predicted for 20" in measured["warnings"]
    assert [found.classes for found in read_observed(observed_path(DEVICE, "onnxruntime", "fp32", "1-thread"))] == [3]


@pytest.mark.slow
def test_part_of_the_pictures_is_told(home, kept, computer, drawn, capsys):
    found = verified(capsys, "--model", kept / "best.onnx", "--data", kept / "shapes" / "data.toml", "--pictures", "4")

    assert "accuracy of the first 4 of 6 pictures of val" in one(found)["measured"]["warnings"]


def test_without_data_the_frame_is_of_generated_pictures_and_says_so(home, kept, computer, drawn, capsys):
    measured = one(verified(capsys, "--model", kept / "best.onnx"))["measured"]

    assert measured["frame_ms"] > 0
    assert measured["ap"] is None
    assert any("generated pictures of 640 x 480" in warning for warning in measured["warnings"])


def test_data_of_other_classes_leaves_the_times_and_says_why_there_is_no_accuracy(home, kept, computer, drawn, capsys):
    text = (kept / "shapes" / "data.toml").read_text().replace('"triangle"', '"hexagon"')
    other = kept / "shapes" / "other.toml"
    other.write_text(text)
    for split in ("train", "val"):
        labels = kept / "shapes" / f"{split}.json"
        (kept / "shapes" / f"other-{split}.json").write_text(labels.read_text().replace("triangle", "hexagon"))
        other.write_text(other.read_text().replace(f'"{split}.json"', f'"other-{split}.json"'))

    measured = one(verified(capsys, "--model", kept / "best.onnx", "--data", other))["measured"]

    assert measured["frame_ms"] > 0
    assert measured["ap"] is None
    assert any("evaluate it on data with its classes" in warning for warning in measured["warnings"])


def with_run(home: Path, kept: Path, *files: str, folder: str = "runs/a", recorded: bool = True) -> Path:
    """A finished run of the pick with these files, in the result where it is recorded."""
    pick, place = pick_of(home), home / folder
    run = sample_run(candidate=pick.id if recorded else "", parameters=pick.params, metrics=metrics(80.0))
    write_run(place, run)
    for name in files:
        (place / name).write_bytes((kept / "best.onnx").read_bytes())
    if recorded:
        record(home / "pareto.json", run, place)
    return place


def test_the_file_of_the_recorded_run_is_taken(home, kept, computer, drawn, capsys):
    with_run(home, kept, "best.onnx")

    assert one(verified(capsys))["measured"]["model"] == "runs/a/best.onnx"


def test_a_run_that_lacks_its_file_is_timed_with_made_up_weights_and_says_what_is_missing(
    home, kept, computer, drawn, capsys
):
    with_run(home, kept)

    measured = one(verified(capsys))["measured"]

    assert measured["model"] == ""
    assert "no runs/a/best.onnx, see scaler export: made-up weights" in measured["warnings"][0]


def test_what_was_measured_is_kept_where_another_precision_fails(home, kept, computer, drawn, capsys, monkeypatch):
    result = read_result("pareto.json")
    first, *others = result.devices[0].front
    both = (first, replace(first, id=f"{first.id}-int8", precision="int8"), *others)
    write_json(replace(result, devices=(replace(result.devices[0], front=both),)), home / "pareto.json")
    verify, wanted = deploying.verify, machines.setting

    def failing(question, subjects, wanted, *rest, **more):
        if subjects[0].candidate.precision:
            raise UserError("the reference network fails")
        return verify(question, subjects, wanted, *rest, **more)

    monkeypatch.setattr(deploying, "verify", failing)
    monkeypatch.setattr(machines, "setting", lambda device, _, mode: wanted(device, None, mode))

    rows = {row["id"]: row for row in verified(capsys, "--pick", "front", code=1)["candidates"]}

    assert rows[f"{first.id}-int8"]["failure"] == "the reference network fails"
    assert all("measured" in row for name, row in rows.items() if not name.endswith("-int8"))
    assert [len(found.verified) for found in read_result("pareto.json").devices[0].front][:3] == [1, 0, 1]


def test_another_computer_is_refused_and_the_way_there_is_named(kept, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    result = read_result(kept / "pareto.json")
    front = (replace(result.devices[0], device="nano", precision="fp16", power_mode="MAXN"),)
    write_json(replace(result, devices=front), tmp_path / "pareto.json")

    line = refused(capsys)

    assert "no Jetson Nano" in line
    assert "scaler export --bundle" in line
    assert "scaler profile bundle" not in line
    assert "did you mean" in refused(capsys, "--runtime", "tensorr")


def test_a_folder_of_runs_is_searched_for_the_same_network(home, kept, computer, drawn, capsys):
    with_run(home, kept, "best.onnx", folder="elsewhere/b", recorded=False)

    rows = verified(capsys, "--pick", "front", "--runs", "elsewhere")["candidates"]

    files = {row["id"]: row["measured"]["model"] for row in rows}
    assert files.pop(pick_of(home).id) == "elsewhere/b/best.onnx"
    assert set(files.values()) == {""}


def test_a_file_in_8_bit_integers_is_shown_as_such_and_teaches_the_table_nothing(home, kept, computer, drawn, capsys):
    path = home / "best-int8.onnx"
    model = onnx.load(str(kept / "best.onnx"))
    (entry,) = [entry for entry in model.metadata_props if entry.key == KEY]
    entry.value = entry.value.replace('"schema_version": 1,', '"schema_version": 1, "precision": "int8",', 1)
    entry.value = json.dumps({**json.loads(entry.value), "precision": "int8"})
    onnx.save(model, str(path))

    measured = one(verified(capsys, "--model", path))["measured"]

    assert (measured["precision"], measured["model"]) == ("int8", "best-int8.onnx")
    assert not observed_path(DEVICE, "onnxruntime", "fp32", "1-thread").exists()


# promises


def test_a_promise_that_breaks_is_marked_everywhere(home, computer, capsys):
    computer.factor = 2.0

    assert scaler(["verify", "pareto.json"]) == 0

    pick = pick_of(home)
    out = " ".join(capsys.readouterr().out.split())
    assert f"{pick.id}: {FPS:g} FPS broken:" in out
    assert "engine alone" in out
    assert "0 of 1 that promised 330 FPS hold" in out
    assert pick.verified[0].holds is False
    assert scaler(["plot", "pareto.json", "--out", "front.svg"]) == 0
    assert "promise broken on the device" in (home / "front.svg").read_text()
    assert "the promise breaks" in (home / "report.html").read_text(encoding="utf-8")
    with (home / "pareto.csv").open(newline="") as stream:
        assert {row["id"] for row in csv.DictReader(stream) if row["verified_broken"] == "True"} == {pick.id}


def test_a_frame_that_breaks_what_its_engine_holds_says_what_helps(home, kept, computer, drawn, capsys, monkeypatch):
    monkeypatch.setattr(FrameSession, "_frame", lambda *_: (4.0, 1.0, 3.0, 2.0))
    monkeypatch.setattr(Computer, "factor", 0.9)

    assert scaler(["verify", "pareto.json", "--model", str(kept / "best.onnx")]) == 0

    out = " ".join(capsys.readouterr().out.split())
    assert "the engine alone would hold it" in out
    assert "whole frame 10.0 ms: decoding 4.0, letterbox 1.0, network 3.0, NMS 2.0 ms" in out
    assert "--overhead-ms 7.0" in out


def test_a_machine_that_has_slowed_down_is_told_and_does_not_count(home, computer, capsys):
    usual = one(verified(capsys, "--no-record"))["measured"]
    computer._slowdown = lambda _: 1.3

    slow = one(verified(capsys, "--no-record"))["measured"]

    assert slow["engine_ms"] == pytest.approx(1.3 * usual["engine_ms"])
    assert slow["level_ms"] == pytest.approx(usual["level_ms"])
    assert "the machine is about 30 % slower than when its table was made" in slow["warnings"]


# mistakes


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--device", "nano"), "no device 'nano'"),
        (("--pick", "kneee"), "no candidate 'kneee'"),
        (("--model", "none.onnx"), "none.onnx: no such file"),
        (("--model", "best.pt"), ".onnx and .engine files are verified"),
        (("--model", "best.onnx", "--pick", "front"), "give one id, or --runs"),
        (("--model", "a.onnx", "--runs", "b"), "give one of them"),
        (("--model", "damaged.onnx"), "damaged.onnx"),
        (("--runs", "nowhere"), "nowhere: no such folder"),
        (("--pictures", "3"), "--data data.toml"),
        (("--data", "none.toml"), "none.toml"),
    ],
)
def test_a_mistake_is_told_in_one_line(home, computer, capsys, arguments, word):
    (home / "damaged.onnx").write_bytes(b"no network")

    assert word in refused(capsys, *arguments)


def test_a_file_of_another_network_is_refused_before_anything_is_measured(home, kept, computer, capsys):
    other = next(one for one in read_result("pareto.json").devices[0].front if one.id != pick_of(home).id)

    line = refused(capsys, "--pick", other.id, "--model", kept / "best.onnx")

    assert f"another network than {other.id}: its " in line
    assert computer.calls == []


def test_a_result_without_devices_is_refused(home, computer, capsys):
    write_json(replace(read_result("pareto.json"), devices=()), home / "pareto.json")

    assert "no device" in refused(capsys)
