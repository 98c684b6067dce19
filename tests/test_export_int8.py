"""`scaler export --precision int8`: on which pictures, what it costs, which layers stay in float, who runs the file."""

import io
import json
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import typer
from onnx import ModelProto
from test_onnx_detector import TINY, checkpoint, network

from scaler.cli import export as export_command
from scaler.data.data_file import read_splits
from scaler.data.images import write_image
from scaler.data.shapes import make_shapes
from scaler.errors import FileError, UnsupportedError, UsageError, UserError
from scaler.evaluation.evaluate import evaluate
from scaler.evaluation.metrics import Metrics
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.export.decode import Decode
from scaler.export.int8 import METADATA_KEY, target_of
from scaler.export.int8_calibration import read_calibration
from scaler.export.int8_graph import layers
from scaler.training.network.checkpoint import write_checkpoint
from scaler.training.runs.engine_command import read_engine_file
from scaler.training.runs.export import ExportOrder, export
from scaler.training.runs.export_int8 import Int8Order
from scaler.training.runs.export_pictures import Inputs, Pictures, read_pictures

APP = typer.Typer()
APP.command()(export_command.command)
TRAIN, VAL = 5, 2
LAYERS = 21


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("shapes"), train=TRAIN, val=VAL, size=96)


@pytest.fixture
def best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("scaler.deploy.engine.why_not_here", lambda: "no TensorRT on this computer")
    write_checkpoint(tmp_path / "best.pt", checkpoint(TINY, network()))
    return tmp_path / "best.pt"


def said(*arguments: object) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    words = [str(part) for part in arguments]
    fast = [] if "--calibration" in words else ["--calibration", "min-max"]
    with redirect_stdout(out), redirect_stderr(err):
        APP(args=[*words, "--precision", "int8", *fast], standalone_mode=False)
    return out.getvalue(), err.getvalue()


def told(*arguments: object) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(said(*arguments, "--json")[0])
    return data


def refused(kind: type[UserError], *arguments: object) -> str:
    with pytest.raises(kind) as error:
        said(*arguments)
    assert type(error.value) is kind
    assert "\n" not in str(error.value)
    return str(error.value)


def facts_of(path: Path | str) -> dict[str, Any]:
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    facts: dict[str, Any] = json.loads(properties[METADATA_KEY])
    return facts


def quantising(model: ModelProto) -> int:
    return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)


# ------------------------------------------------------------------------------------------ what it costs, and on what


def test_it_is_calibrated_on_train_and_judged_on_val_by_the_very_bytes_of_both_files(
    best: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    judged: list[tuple[bytes, Metrics]] = []

    def watched(detector: OnnxDetector, *arguments: Any, **named: Any) -> Metrics:
        metrics = evaluate(detector, *arguments, **named)
        judged.append((Path(detector._path).read_bytes(), metrics))
        return metrics

    monkeypatch.setattr("scaler.training.runs.export_int8.evaluate", watched)
    found = told(best, "--data", data)
    file = best.parent / "best-int8.onnx"
    assert found["file"] == str(file)
    float_file = export(ExportOrder(checkpoint=best, check=False)).path
    (before, of_float), (after, of_int8) = judged
    assert before == float_file.read_bytes()
    assert after == file.read_bytes()
    ap = found["int8"]["ap"]
    assert (ap["dataset"], ap["split"], ap["pictures"]) == ("shapes", "val", VAL)
    assert ap["float"] == {"ap": of_float.ap, "ap50": of_float.ap50}
    assert ap["int8"] == {"ap": of_int8.ap, "ap50": of_int8.ap50}
    assert of_float.detections > 0
    calibration = found["int8"]["calibration"]
    assert (calibration["pictures"], calibration["source"]) == (TRAIN, "shapes train")
    assert read_calibration(Path(calibration["cache"])).count == TRAIN
    assert (found["comparison"]["source"], found["comparison"]["pictures"]) == ("shapes val", VAL)
    assert 0 < found["int8"]["loss"] < 0.5
    assert OnnxDetector(file, "cpu").metadata.precision == "int8"


def test_it_says_so(best: Path, data: Path):
    out, err = said(best, "--data", data)
    first, compared, int8, loss, ap, engine = out.splitlines()
    assert first.startswith(f"{best.parent / 'best-int8.onnx'}: scaled-yolov4, 160 px, 3 classes, ")
    assert "; opset 13, int8, batch 1, NMS left" in first
    assert "by ONNX Runtime, of the float network before INT8, on 2 pictures (shapes val): " in compared
    assert int8.startswith(f"INT8 for TensorRT: 0 of {LAYERS} layers in float; calibrated by min-max on 5 pictures (sh")
    assert int8.endswith(str(best.parent / "best-int8.calibration.json"))
    assert loss.startswith("loss of detections against the float network on 2 pictures (shapes val): 0.")
    assert ap.startswith("by ONNX Runtime, both from the bytes of the files, on shapes val (2 pictures): AP ")
    assert " in INT8, " in ap
    assert "--onnx=best-int8.onnx" in engine
    assert "--int8 --fp16" in engine
    assert "calibrating INT8 5/5: ranges" in err
    assert "AP of the INT8 file 2/2" in err


def test_pictures_that_judge_are_left_out_of_a_calibration_folder(best: Path, data: Path):
    both = data.parent
    assert told(best, "--calibrate", both, "--check", both / "val")["int8"]["calibration"]["pictures"] == TRAIN
    found = told(best, "--calibrate", both, "--unchecked")["int8"]
    assert found["calibration"]["pictures"] == TRAIN + VAL
    assert found["loss"] is found["ap"] is None
    assert "INT8 is judged on all of these pictures" in refused(
        UserError, best, "--calibrate", both / "val", "--check", both / "val"
    )


def test_a_folder_alone_keeps_some_pictures_back_to_judge_by(best: Path, data: Path, tmp_path: Path):
    found = told(best, "--calibrate", data.parent / "train")
    assert found["int8"]["calibration"]["pictures"] == TRAIN - 1
    assert found["comparison"]["pictures"] == 1
    assert found["comparison"]["source"] == f"{data.parent / 'train'}, not calibrated on"
    assert found["int8"]["ap"] is None
    (tmp_path / "few").mkdir()
    write_image(tmp_path / "few" / "one.png", np.zeros((8, 8, 3), np.uint8))
    few = refused(UserError, best, "--calibrate", tmp_path / "few")
    assert "1 pictures are too few to keep some back to judge by; name 5 or more, give others by --check" in few


def test_broken_pictures_of_the_calibration_are_named(best: Path, data: Path, tmp_path: Path):
    for path in sorted((data.parent / "train").glob("*"))[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"nothing")
    out, err = said(best, "--calibrate", tmp_path, "--unchecked")
    assert "on 2 pictures" in out
    assert "broken.png: no picture, or cut off" in err


# ----------------------------------------------------------------------------------------------------- the cache


def test_the_cache_is_used_and_one_beside_the_file_made_anew_when_it_does_not_fit(
    best: Path, data: Path, monkeypatch: pytest.MonkeyPatch
):
    options = ("--calibrate", data.parent / "train", "--unchecked")
    cache = Path(told(best, *options)["int8"]["calibration"]["cache"])
    assert cache == best.parent / "best-int8.calibration.json"
    said(best, *options, "--calibration-pictures", 2)
    assert read_calibration(cache).count == 2
    monkeypatch.setattr("scaler.export.int8_calibration.calibrate", None)
    said(best, *options, "--calibration-pictures", 2)


def test_a_cache_that_was_named_is_refused_when_it_does_not_fit(best: Path, data: Path, tmp_path: Path):
    options = ("--calibrate", data.parent / "train", "--unchecked", "--calibration-cache", tmp_path / "cache.json")
    said(best, *options)
    before = (tmp_path / "cache.json").read_bytes()
    message = refused(FileError, best, *options, "--calibration-pictures", 2)
    assert message.endswith("cache.json: made with another set of pictures; delete it, or name another cache")
    assert (tmp_path / "cache.json").read_bytes() == before


# ------------------------------------------------------------------------------------------------- layers in float


def test_layers_that_are_kept_stay_in_float(best: Path, data: Path):
    names = layers(onnx.load(export(ExportOrder(checkpoint=best, check=False)).path))
    assert len(names) == LAYERS
    options = ("--calibrate", data.parent / "train", "--unchecked")
    whole = quantising(onnx.load(told(best, *options)["file"]))
    found = told(best, *options, "--keep", names[3], "--keep", names[0])
    assert found["int8"]["float_layers"] == [names[3], names[0]]
    assert facts_of(found["file"])["float_layers"] == [names[3], names[0]]
    assert quantising(onnx.load(found["file"])) < whole
    assert "did you mean" in refused(UsageError, best, *options, "--keep", names[3].upper())


@pytest.mark.slow
def test_by_sensitivity_the_layers_stay_in_float_that_cost_most(best: Path, data: Path):
    names = layers(onnx.load(export(ExportOrder(checkpoint=best, check=False)).path))
    kept_by_wish, tried = names[4:], set(names[:4])
    wishes = [word for name in kept_by_wish for word in ("--keep", name)]
    options = ("--calibrate", data.parent / "train", "--unchecked", *wishes, "--sensitivity")
    found = told(best, *options, 2)
    free, file = found["int8"], found["file"]
    measured = free["sensitivity"]
    assert free["float_layers"] == [*kept_by_wish]
    assert {entry["layer"] for entry in measured["alone"]} == tried
    bound = measured["loss_of_all"] / 2
    out, err = said(best, *options, bound)
    worst, kept = [entry["layer"] for entry in measured["alone"]], facts_of(file)["float_layers"]
    chosen = kept[len(kept_by_wish) :]
    assert chosen == worst[: len(chosen)]
    assert 0 < len(chosen) < len(tried)
    assert [line.split()[0] for line in out.splitlines() if line.endswith("  float")] == chosen
    assert f"{len(kept)} of {LAYERS} layers in float: " in out
    assert "sensitivity of layers 4/4: " in err
    assert "every layer stayed in float" not in err


@pytest.mark.slow
def test_a_bound_of_0_keeps_every_layer_that_costs_and_says_so(best: Path, data: Path):
    out, err = said(best, "--calibrate", data.parent / "train", "--unchecked", "--sensitivity", 0)
    assert out.count("  float\n") == LAYERS
    assert "every layer stayed in float" in err
    assert quantising(onnx.load(best.parent / "best-int8.onnx")) == 0


# ------------------------------------------------------------------------------------------------- targets and forms


def test_a_file_for_onnx_runtime_has_another_name_and_no_engine(best: Path, data: Path):
    options = ("--target", "onnxruntime", "--calibrate", data.parent / "train")
    out, err = said(best, *options)
    file = best.parent / "best-int8-onnxruntime.onnx"
    assert "INT8 for ONNX Runtime: " in out
    assert "trtexec" not in out + err
    properties = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert target_of(properties) == "onnxruntime"
    assert {value.data_type for value in onnx.load(file).graph.initializer} >= {onnx.TensorProto.UINT8}
    assert told(best, *options, "--unchecked")["tensorrt"] is None
    assert "no engine is made of such a file" in refused(UsageError, best, *options, "--format", "tensorrt")
    with pytest.raises(UserError, match="which TensorRT refuses; export the checkpoint with --precision int8 --target"):
        read_engine_file(file)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param({"batch": 3}, id="batch", marks=pytest.mark.slow),
        pytest.param({"batch": 2, "dynamic_batch": True}, id="dynamic", marks=pytest.mark.slow),
        pytest.param({"decode": Decode(nms="onnx", confidence=0.2)}, id="onnx-nms", marks=pytest.mark.slow),
        pytest.param({"decode": Decode(nms="efficient")}, id="plugin", marks=pytest.mark.slow),
    ],
)
def test_every_form_of_a_file_loses_the_same(form: dict[str, Any], best: Path, data: Path):
    wanted = ExportOrder(checkpoint=best, precision="int8", data=data, int8=Int8Order(method="min-max"))
    usual, other = (export(order).int8 for order in (wanted, replace(wanted, **form)))
    assert usual is not None and other is not None
    assert usual.loss is not None and other.loss == pytest.approx(usual.loss, rel=0.2)  # pictures fill up batches
    for name, found in other.calibration.ranges.items():
        assert found == pytest.approx(usual.calibration.ranges[name], rel=1e-4, abs=1e-5)
    assert other.after is not None
    assert other.after.pictures == VAL


def test_a_network_that_differs_from_torch_is_not_quantised(best: Path, data: Path):
    message = refused(UserError, best, "--data", data, "--box-tolerance", 0)
    assert "best-int8.onnx: not written: on 2 pictures (shapes val) it differs from torch" in message
    assert not list(best.parent.glob("best-int8*"))


def test_whoever_follows_the_steps_to_an_engine_gets_the_file_that_they_name(best: Path, data: Path):
    steps = told(best, "--format", "tensorrt", "--calibrate", data.parent / "train", "--keep", "backbone.stem.conv")
    program, name, *words = shlex.split(steps["export"])
    assert (program, name) == ("scaler", "export")
    assert words.count("int8") == words.count("--keep") == 1
    assert "--int8 --fp16" in steps["tensorrt"]["command"]
    assert steps["file"] == str(best.parent / "best-int8.onnx")
    assert not list(best.parent.glob("*.onnx"))


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (UsageError, (), "on which pictures is it calibrated? give --calibrate FOLDER, or --data data.toml"),
        (UsageError, ("--calibration", "max"), "--calibration: unknown calibration 'max'; "),
        (UsageError, ("--target", "tpu"), "--target: unknown target 'tpu'; known: tensorrt, onnxruntime"),
        (UserError, ("--calibrate", "nowhere"), "--calibrate nowhere: no such folder or picture"),
        (UsageError, ("--dla", "0"), "--dla 0: a DLA takes no quantisation nodes; ask for --precision fp16"),
        (
            UnsupportedError,
            ("--opset", "12", "--unchecked"),
            "INT8 needs opset 13 or newer; this network is in opset 12",
        ),
        (UsageError, ("--keep", "nowhere", "--unchecked"), "no such layers to keep: nowhere; known: "),
    ],
)
def test_wrong_wishes_are_one_line_and_leave_nothing(kind, options: tuple[str, ...], expected: str, best: Path):
    assert expected in refused(kind, best, *options)
    assert [path.name for path in best.parent.iterdir()] == ["best.pt"]


@pytest.mark.parametrize(
    "options",
    [
        ("--calibrate", "x"),
        ("--keep", "a"),
        ("--sensitivity", "1"),
        ("--target", "tensorrt"),
        ("--calibration", "entropy"),
    ],
)
def test_options_of_int8_are_refused_without_it(options: tuple[str, str], best: Path):
    with pytest.raises(UsageError) as error:
        APP(args=[str(best), *options], standalone_mode=False)
    assert str(error.value) == (
        f"{options[0]} would change nothing without --precision int8; give that too, or leave it out"
    )


# ------------------------------------------------------------------------------------------------------ pictures


def test_inputs_fill_up_the_last_batch_with_the_first_pictures_and_can_be_gone_through_again(data: Path):
    split = read_splits(data, ["val"]).splits["val"]
    pictures = read_pictures([Path(picture.path) for picture in split.pictures], "val", TINY.preprocessing)
    one_by_one = [values[0] for values in Inputs(pictures, TINY.preprocessing)]
    inputs = Inputs(pictures, TINY.preprocessing, 3)
    for _ in range(2):
        (found,) = inputs
        np.testing.assert_array_equal(found, [one_by_one[place] for place in (0, 1, 0)])


def test_some_inputs_are_evenly_spread():
    images = np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 160, 160, 3), np.uint8)
    inputs = Inputs(Pictures(images, "eight", generated=True), TINY.preprocessing)
    assert [round(float(values.max()) * 255) for values in inputs.some(4)] == [0, 2, 4, 6]
    assert len(list(inputs.some(99))) == 8
