"""`scaler export`: what it writes, says and refuses."""

import io
import json
import shlex
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import onnx
import pytest
import typer
from test_onnx_detector import CLASSES, TINY, checkpoint, network

from scaler.cli import export
from scaler.data.shapes import make_shapes
from scaler.errors import FileError, UsageError, UserError
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.evaluation.onnx_metadata import read_metadata
from scaler.training.network.checkpoint import write_checkpoint

APP = typer.Typer()
APP.command()(export.command)


class Said(NamedTuple):
    """Streams of one call."""

    out: str
    err: str


def said(*arguments: object) -> Said:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        APP(args=[str(part) for part in arguments], standalone_mode=False)
    return Said(out.getvalue(), err.getvalue())


def refused(kind: type[UserError], *arguments: object) -> str:
    with pytest.raises(kind) as error:
        said(*arguments)
    assert type(error.value) is kind
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("shapes"), train=2, val=3, size=96)


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this computer has: no TensorRT."""
    monkeypatch.setattr("scaler.deploy.engine.why_not_here", lambda: "no TensorRT on this computer")


@pytest.fixture
def best(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "best.pt", checkpoint(TINY, network()))
    return tmp_path / "best.pt"


def test_it_says_how_far_the_file_is_from_torch_and_how_an_engine_is_made_of_it(best: Path, data: Path):
    told = said(best, "--data", data)
    lines = told.out.splitlines()
    assert lines[0].startswith(f"{best.with_suffix('.onnx')}: scaled-yolov4, 160 px, 3 classes, ")
    assert lines[0].endswith("; opset 13, fp32, batch 1, NMS left to whoever runs it")
    assert "largest difference from torch by ONNX Runtime, on 3 pictures (shapes val): " in lines[1]
    assert "in a score, allowed 0.001; " in lines[1]
    assert lines[2].startswith("engine, built on a target with TensorRT 10.3: trtexec --onnx=best.onnx ")
    assert "--fp16" in lines[2]
    assert told.err == ""
    assert OnnxDetector(best.with_suffix(".onnx"), "cpu").classes == CLASSES


def test_json_says_the_same(best: Path, data: Path):
    options = ("--nms", "onnx", "--confidence", "0.1", "--dynamic-batch", "--batch", "2", "--tensorrt", "8.2")
    told = json.loads(said(best, "--check", data.parent / "val", "--json", "--opset", 12, *options).out)
    assert (told["opset"], told["precision"], told["nms"], told["batch"]) == (12, "fp32", "onnx", None)
    assert told["file"] == str(best.parent / "best-nms-onnx-dynamic-opset12.onnx")
    assert told["bytes"] == Path(told["file"]).stat().st_size
    compared = told["comparison"]
    assert (compared["pictures"], compared["generated"], compared["skipped"]) == (3, False, [])
    assert compared["score"] <= compared["tolerance"]["score"] == 0.001
    assert compared["detections"]["file"] == compared["detections"]["torch"] > 0
    assert told["tensorrt"]["version"] == "8.2.0"
    assert "--maxShapes=image:2x3x160x160" in told["tensorrt"]["command"]
    inside = OnnxDetector(told["file"], "cpu").metadata.nms
    assert inside is not None
    assert inside == ("onnx", 0.1, 0.5, 100)


def test_the_plugin_and_16_bits_go_together_and_say_what_they_are_for(best: Path, tmp_path: Path):
    told = said(best, "--precision", "fp16", "--nms", "efficient-nms", "--out", tmp_path / "net.onnx")
    assert "fp16, batch 1, TensorRT's NMS inside" in told.out
    assert "before its NMS, on 4 pictures (generated noise)" in told.out
    assert "compared on generated noise; give --check FOLDER or --data data.toml" in told.err
    assert "TensorRT before 11 builds FP16 from fp32 too" in told.err
    assert onnx.load(tmp_path / "net.onnx").graph.node[-1].op_type == "EfficientNMS_TRT"


def test_unchecked_is_told(best: Path):
    told = said(best, "--unchecked")
    assert "not compared with torch" in told.out
    assert json.loads(said(best, "--unchecked", "--json").out)["comparison"] is None


def test_broken_pictures_are_named(best: Path, tmp_path: Path, data: Path):
    (data.parent / "val" / "broken.png").write_bytes(b"nothing")
    try:
        told = said(best, "--check", data.parent / "val")
    finally:
        (data.parent / "val" / "broken.png").unlink()
    assert "on 3 pictures" in told.out
    assert "broken.png: no picture, or cut off" in told.err


@pytest.mark.parametrize(
    ("wanted", "phrase"),
    [
        (("--batch", 64), ", any batch, tried with up to 4, NMS"),
        (("--batch", 3), ", any batch, tried with up to 3, NMS"),
        (("--batch", 64, "--unchecked"), ", any batch, NMS"),
    ],
)
def test_no_batch_is_said_to_be_tried_that_was_not(wanted: tuple[object, ...], phrase: str, best: Path):
    assert phrase in said(best, "--dynamic-batch", *wanted).out


def test_an_engine_is_not_built_here_and_the_steps_to_one_are_told(best: Path):
    told = said(best, "--format", "tensorrt", "--dynamic-batch", "--batch", 8)
    assert "built on its target and does not travel, so that none is built here: no TensorRT on this comp" in told.err
    first, second, third = told.out.splitlines()
    file = best.parent / "best-dynamic.onnx"
    assert first == f"1. here: scaler export {best} --batch 8 --dynamic-batch"
    assert second == f"2. copy {file} to the target"
    assert third.startswith("3. there, in its folder, with TensorRT 10.3: trtexec --onnx=best-dynamic.onnx ")
    assert "--saveEngine=best-dynamic.engine" in third
    assert "--fp16 --minShapes=image:1x3x160x160 --optShapes=image:8x3x160x160" in third
    assert not list(best.parent.glob("*.onnx"))
    fp32 = said(best, "--format", "tensorrt", "--precision", "fp32", "--tensorrt", "8.2").out
    assert "--fp16" not in fp32
    assert "--noTF32" in fp32
    assert "--buildOnly" in fp32


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--precision", "fp16", "--batch", "2", "--opset", "12"),
        ("--tensorrt", "11.0", "--dynamic-batch", "--batch", "4"),
        ("--nms", "onnx", "--confidence", "0.1", "--iou", "0.4", "--max-detections", "7", "--out", "my net.onnx"),
        ("--dla", "1", "--tensorrt", "8.2"),
        ("--score-tolerance", "0.5", "--box-tolerance", "50", "--nms", "efficient-nms"),
    ],
)
def test_whoever_follows_the_steps_gets_the_file_that_they_name(
    options: tuple[str, ...], best: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(best.parent)
    unchecked = () if "--score-tolerance" in options else ("--unchecked",)
    told = json.loads(said(best, "--format", "tensorrt", "--json", *options, *unchecked).out)
    program, command, *words = shlex.split(told["export"])
    assert (program, command) == ("scaler", "export")
    written = json.loads(said(*words, "--json").out)
    assert written["file"] == told["file"]
    assert written["tensorrt"] == told["tensorrt"]
    assert [Path(told["file"]).name] == [path.name for path in best.parent.glob("*.onnx")]
    metadata = read_metadata({p.key: p.value for p in onnx.load(told["file"]).metadata_props}, told["file"])
    if "--confidence" in options:
        assert metadata.nms == ("onnx", 0.1, 0.4, 7)


def test_of_an_onnx_file_the_command_alone_is_on_standard_output(best: Path):
    said(best, "--unchecked", "--dynamic-batch")
    file = best.parent / "best-dynamic.onnx"
    told = said(file, "--format", "tensorrt", "--batch", 8, "--precision", "fp32", "--tensorrt", "8.2")
    (command,) = told.out.splitlines()
    assert command.startswith("trtexec --onnx=best-dynamic.onnx --saveEngine=best-dynamic.engine")
    assert "--maxShapes=image:8x3x160x160" in command
    assert "--fp16" not in command
    assert f"copy {file} to the target; there, in its folder, with TensorRT 8.2" in told.err
    options = ("--format", "tensorrt", "--batch", 8, "--precision", "fp32", "--tensorrt", "8.2", "--json")
    assert json.loads(said(file, *options).out) == {
        "file": str(file),
        "export": None,
        "tensorrt": {"version": "8.2.0", "command": command},
    }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--nms", "onnx", "--confidence", 0.3), "ONNX file already: --nms, --confidence would change nothing; name"),
        (("--unchecked",), "ONNX file already: --unchecked would change nothing"),
        (("--opset", 13), "ONNX file already: --opset would change nothing"),
        (("--out", "other.onnx"), "ONNX file already: --out would change nothing"),
        (("--dynamic-batch",), "ONNX file already: --dynamic-batch would change nothing"),
        (("--batch", 1), "--batch 1: the batch of best.onnx is fixed; leave it out, or export the checkpoint with it"),
        (
            ("--precision", "int8"),
            "--precision int8: an engine of best.onnx is fp32 with TensorRT 10; leave it out, or export the checkpoint",
        ),
        (("--data", "data.toml"), "ONNX file already: --data would change nothing"),
        (
            ("--precision", "fp16", "--tensorrt", "11.0"),
            "--precision fp16: an engine of best.onnx is fp32 with TensorRT 11; leave it out, or export the checkpoint",
        ),
    ],
)
def test_what_would_change_nothing_of_an_onnx_file_is_refused(options: tuple[object, ...], expected: str, best: Path):
    said(best, "--unchecked")
    assert expected in refused(UsageError, best.with_suffix(".onnx"), "--format", "tensorrt", *options)


def test_tensorrt_from_11_on_takes_the_types_of_the_file(best: Path):
    text = said(best, "--format", "tensorrt", "--tensorrt", "11.0").out
    assert f"scaler export {best} --tensorrt 11.0 --precision fp16" in text
    assert "--onnx=best-fp16.onnx" in text
    assert "--fp16" not in text
    said(best, "--unchecked")
    of_file = said(best.with_suffix(".onnx"), "--format", "tensorrt", "--tensorrt", "11.0").out
    assert of_file.startswith("trtexec --onnx=best.onnx ")
    assert "--noTF32" in of_file


def test_an_onnx_file_is_not_exported_again(best: Path):
    said(best, "--unchecked")
    assert "is an ONNX file already" in refused(UsageError, best.with_suffix(".onnx"))


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (UsageError, ("--format", "engine"), "--format: unknown format 'engine'; "),
        (UsageError, ("--precision", "int9"), "--precision: unknown precision 'int9'; did you mean 'int8'? "),
        (UsageError, ("--nms", "efficient"), "--nms: unknown nms 'efficient'; did you mean 'efficient-nms'? "),
        (UsageError, ("--check", ".", "--data", "data.toml"), "exclude each other"),
        (UsageError, ("--check", ".", "--unchecked"), "exclude each other"),
        (UsageError, ("--out", "net.engine"), "--out net.engine: an ONNX file is called .onnx"),
        (UsageError, ("--confidence", "0.3"), "--confidence is of the NMS inside the file"),
        (UsageError, ("--max-detections", "3"), "--max-detections is of the NMS inside the file"),
        (UsageError, ("--opset", "9"), "opset = 9: allowed is 11 to "),
        (UsageError, ("--tensorrt", "new"), "--tensorrt new: expected a version"),
        (UsageError, ("--dla", "0", "--tensorrt", "11.0"), "--dla 0: TensorRT 11.0 knows no DLA"),
        (
            UsageError,
            ("--dla", "1", "--format", "tensorrt", "--precision", "fp32"),
            "--dla 1: a DLA does not compute in fp32; ask for --precision fp16",
        ),
        (UsageError, ("--result", "pareto.json"), "--result would change nothing without --bundle FILE"),
        (UsageError, ("--bundle", "b.tar.gz", "--candidate", "a"), "name its pareto.json too: --result"),
        (
            UsageError,
            ("--bundle", "b.tar.gz", "--bundle-pictures", "3"),
            "--bundle-pictures would change nothing without --data data.toml",
        ),
        (UsageError, ("--dla", "0", "--dynamic-batch"), "a DLA takes one number of pictures, not an open batch"),
        (UsageError, ("--dla", "0", "--tensorrt", "10.9"), "--dla 0: TensorRT 10.9 knows no DLA"),
        (UsageError, ("--dla", "0", "--tensorrt", "11.4"), "--dla 0: a DLA does not compute in fp32"),
        (UsageError, ("--bundle", "b.zip"), "--bundle b.zip: a bundle is called .tar.gz"),
        (UsageError, ("--bundle", "b.tar.gz", "--batch", "2"), "--bundle measures one picture at a time"),
        (UsageError, ("--bundle", "b.tar.gz", "--nms", "onnx"), "--bundle: how many boxes ONNX' NMS leaves"),
        (UserError, ("--check", "nowhere"), "--check nowhere: no such folder or picture"),
        (FileError, ("--data", "nowhere.toml"), "nowhere.toml: no such file"),
        (UserError, ("--box-tolerance", "0"), "not written: on 4 pictures (generated noise)"),
    ],
)
def test_wrong_wishes_are_one_line_and_leave_nothing(kind, options, expected: str, best: Path):
    assert expected in refused(kind, best, *options)
    assert not list(best.parent.glob("*.onnx"))


def test_a_folder_without_pictures_is_told(best: Path):
    assert "no picture there; known: .bmp" in refused(UserError, best, "--check", best.parent)


def test_missing_and_damaged_checkpoints_are_told(tmp_path: Path):
    assert "gone.pt: no such file" in refused(FileError, tmp_path / "gone.pt")
    (tmp_path / "bad.pt").write_bytes(b"nothing")
    assert "no checkpoint, or cut off" in refused(FileError, tmp_path / "bad.pt", "--format", "tensorrt")
