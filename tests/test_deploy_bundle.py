"""Bundles for deployment: what they hold, what they refuse, and the programs that go along."""

import ast
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from bundle_device import unpacked
from onnx import TensorProto, helper, numpy_helper
from sample_result import sample_result
from test_bundle import MODULES_OF_3_6, NEWER_THAN_3_6
from toy_detector import PREPROCESSING, SIDE, toy_model, write_quarters, write_toy

from scaler.data.data_file import read_splits
from scaler.data.images import read_image
from scaler.data.preprocessing import letterbox, normalised
from scaler.deploy.bundle import Summary, write_bundle
from scaler.deploy.bundle_pictures import spread
from scaler.errors import FileError, UnsupportedError, UsageError, UserError
from scaler.evaluation.onnx_metadata import NmsInside
from scaler.export.int8 import METADATA_KEY
from scaler.report.files import write_json

ROOT = Path(__file__).parent.parent
AGENT = ROOT / "scaler" / "deploy" / "agent"
SHARED = ROOT / "scaler" / "profiling" / "agent"
CANDIDATE = sample_result().devices[0].front[0]
PARAMETERS = dict(CANDIDATE.params)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A file, a search of which it is, and pictures; nothing changes them."""
    folder = tmp_path_factory.mktemp("home")
    write_toy(folder / "best.onnx", PARAMETERS)
    write_json(sample_result(), folder / "pareto.json")
    write_quarters(folder / "data", 5)
    return folder


def written(home: Path, out: Path, **options: object) -> Summary:
    return write_bundle(home / "best.onnx", out / "bundle.tar.gz", **options)  # type: ignore[arg-type]


def plan_of(folder: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((folder / "plan.json").read_text())
    return content


# --- what is in it ---


def test_a_bundle_holds_the_file_itself_its_pictures_and_the_programs(home, tmp_path):
    options = {"data": home / "data" / "data.toml", "result": home / "pareto.json", "candidate": CANDIDATE.id}
    summary = written(home, tmp_path, **options)
    folder = unpacked(summary.path, tmp_path) / "scaler-bundle"

    assert (summary.pictures, summary.precision, summary.candidate) == (5, "fp16", CANDIDATE.id)
    assert summary.packed_bytes == summary.path.stat().st_size
    assert (folder / "models" / "network.onnx").read_bytes() == (home / "best.onnx").read_bytes()
    for name, place in (("measure.sh", AGENT), ("deploy.py", AGENT), ("bench.py", SHARED), ("device.py", SHARED)):
        assert (folder / name).read_bytes() == (place / name).read_bytes()
    assert (folder / "measure.sh").stat().st_mode & 0o111
    plan = plan_of(folder)
    assert (plan["device"], plan["power_mode"], plan["candidate"]) == ("nano", "MAXN", CANDIDATE.id)
    assert [picture["name"] for picture in plan["pictures"]] == [f"{number}.png" for number in range(5)]
    assert "Jetson Nano (MAXN, TensorRT FP16), mode MAXN, judged by 5 pictures" in (folder / "README.txt").read_text()
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
    assert done.returncode == 0


def test_equal_inputs_give_equal_bytes(home, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written(home, tmp_path / name, data=home / "data" / "data.toml")
    assert (tmp_path / "one" / "bundle.tar.gz").read_bytes() == (tmp_path / "two" / "bundle.tar.gz").read_bytes()


def test_without_data_the_engine_is_timed_alone(home, tmp_path):
    summary = written(home, tmp_path)
    folder = unpacked(summary.path, tmp_path) / "scaler-bundle"
    assert (summary.pictures, summary.candidate, summary.result_bytes) == (0, "", 0)
    assert plan_of(folder)["networks"] == [{"network": "engine"}]
    assert not (folder / "pictures").exists()


def test_a_part_of_the_pictures_is_spread_over_all_of_them(home, tmp_path):
    summary = written(home, tmp_path, data=home / "data" / "data.toml", pictures=2)
    names = [picture["name"] for picture in plan_of(unpacked(summary.path, tmp_path) / "scaler-bundle")["pictures"]]
    assert names == ["0.png", "2.png"]
    pictures = read_splits(home / "data" / "data.toml", ["val"]).splits["val"].pictures
    assert spread(pictures, 9) == pictures


def test_pictures_that_cannot_be_read_are_left_out(home, tmp_path):
    shutil.copytree(home / "data", tmp_path / "data")
    (tmp_path / "data" / "val" / "1.png").write_bytes(b"no picture")
    summary = written(home, tmp_path, data=tmp_path / "data" / "data.toml")
    assert summary.pictures == 4
    for path in (tmp_path / "data" / "val").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"no picture of the split 'val' can be read; the last: .*4\.png"):
        written(home, tmp_path, data=tmp_path / "data" / "data.toml")


def test_a_quantised_file_gives_an_int8_engine_whatever_is_asked(home, tmp_path):
    model = toy_model(PARAMETERS, precision="int8")
    scale, zero = np.array(0.1, np.float32), np.array(0, np.int8)
    for name, values in (("scale", scale), ("zero_point", zero)):
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.node[0].input[0] = "image/back"
    model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["image", "scale", "zero_point"], ["image/int8"]))
    back = helper.make_node("DequantizeLinear", ["image/int8", "scale", "zero_point"], ["image/back"])
    model.graph.node.insert(1, back)
    onnx.save(model, str(tmp_path / "best-int8.onnx"))
    summary = write_bundle(tmp_path / "best-int8.onnx", tmp_path / "b.tar.gz")
    assert summary.precision == "int8"
    with pytest.raises(UsageError, match="a DLA takes no quantisation nodes"):
        write_bundle(tmp_path / "best-int8.onnx", tmp_path / "b.tar.gz", dla=0)
    typed = write_bundle(tmp_path / "best-int8.onnx", tmp_path / "typed.tar.gz", tensorrt="11.0")
    header = json.loads((unpacked(typed.path, tmp_path) / "scaler-bundle" / "bundle.json").read_text())
    assert header["strongly_typed"] is True


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"precision": "int8"}, "no quantisation nodes"),
        ({"pictures": 0}, "0 pictures"),
        ({"candidate": "abc"}, "name its pareto.json too"),
        ({"precision": "fp32", "dla": 0}, "a DLA does not compute in fp32"),
        ({"dla": -1}, "they are 0 and 1"),
        ({"dla": 0, "tensorrt": "11.1", "precision": "fp32"}, "TensorRT 11.1 knows no DLA"),
        ({"tensorrt": "soon"}, "expected a version"),
        ({"tensorrt": "11.1"}, "takes the precision from the file, which is fp32"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(home, tmp_path, options, said):
    with pytest.raises(UsageError, match=said):
        written(home, tmp_path, **options)
    assert not (tmp_path / "bundle.tar.gz").exists()


def test_an_old_tensorrt_is_refused(home, tmp_path):
    with pytest.raises(UnsupportedError, match="older than"):
        written(home, tmp_path, tensorrt="7.1")


def test_an_archive_has_its_ending(home, tmp_path):
    with pytest.raises(UsageError, match=r"called \.tar\.gz"):
        write_bundle(home / "best.onnx", tmp_path / "bundle.zip")


def test_a_candidate_that_the_search_does_not_have_is_refused(home, tmp_path):
    with pytest.raises(UsageError, match=f"no candidate '{CANDIDATE.id}x'; did you mean {CANDIDATE.id}"):
        written(home, tmp_path, result=home / "pareto.json", candidate=f"{CANDIDATE.id}x")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"batch": 4}, "a batch of 4"),
        ({"nms": NmsInside("onnx", 0.25, 0.5, 100)}, "--nms none or --nms efficient-nms"),
    ],
)
def test_files_that_cannot_be_judged_are_refused(tmp_path, changes, said):
    write_toy(tmp_path / "best.onnx", PARAMETERS, **changes)
    with pytest.raises(UsageError, match=said):
        write_bundle(tmp_path / "best.onnx", tmp_path / "b.tar.gz")


def test_an_open_batch_is_refused(tmp_path):
    model = toy_model(PARAMETERS)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE]))
    onnx.save(model, str(tmp_path / "best.onnx"))
    with pytest.raises(UsageError, match="an open batch"):
        write_bundle(tmp_path / "best.onnx", tmp_path / "b.tar.gz")


def test_8_bits_for_onnx_runtime_are_refused(tmp_path):
    model = toy_model(PARAMETERS, precision="int8")
    told = model.metadata_props.add()
    told.key, told.value = METADATA_KEY, json.dumps({"target": "onnxruntime"})
    onnx.save(model, str(tmp_path / "best.onnx"))
    with pytest.raises(UsageError, match="--precision int8 --target tensorrt"):
        write_bundle(tmp_path / "best.onnx", tmp_path / "b.tar.gz")


def test_data_with_other_classes_are_refused(home, tmp_path):
    shutil.copytree(home / "data", tmp_path / "data")
    for name in ("data.toml", "val.json"):
        path = tmp_path / "data" / name
        path.write_text(path.read_text().replace("green", "blue"))
    with pytest.raises(UnsupportedError, match="evaluate it on data with its classes"):
        written(home, tmp_path, data=tmp_path / "data" / "data.toml")


def test_a_file_that_is_none_of_ours_is_refused(tmp_path):
    model = toy_model(PARAMETERS)
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "best.onnx"))
    with pytest.raises(FileError, match="expected an ONNX file that scaler"):
        write_bundle(tmp_path / "best.onnx", tmp_path / "b.tar.gz")


# --- the programs that go along ---


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_the_script_is_correct_for_a_plain_shell(shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(AGENT / "measure.sh")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_program_is_python_3_6_with_nothing_but_its_library():
    source = (AGENT / "deploy.py").read_text(encoding="ascii")
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert imported - {"bench", "device", "measure"} <= MODULES_OF_3_6 | {"gzip"}
    assert NEWER_THAN_3_6.findall(source) == []
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr | ast.Match)]


@pytest.fixture
def agent(monkeypatch) -> Iterator[ModuleType]:
    """The program as a module."""
    for place in (SHARED, AGENT):
        monkeypatch.syspath_prepend(place)
    names = ("deploy", "measure", "bench", "device")
    try:
        yield importlib.import_module("deploy")
    finally:
        for name in names:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("preprocessing", [PREPROCESSING, replace(PREPROCESSING, mean=(0, 0, 0), std=(1, 1, 1))])
def test_the_device_computes_the_very_numbers_of_home(agent, home, tmp_path, preprocessing):
    write_toy(tmp_path / "best.onnx", PARAMETERS, preprocessing=preprocessing)
    data = home / "data" / "data.toml"
    folder = (
        unpacked(write_bundle(tmp_path / "best.onnx", tmp_path / "b.tar.gz", data=data).path, tmp_path)
        / "scaler-bundle"
    )
    tables = agent.Tables((folder / "pictures" / "table.f32").read_bytes())
    fitted, _ = letterbox(read_image(home / "data" / "val" / "3.png"), preprocessing)

    found = tables.floats((folder / "pictures" / "00003.u8").read_bytes())

    assert found == normalised(fitted[None], preprocessing).astype("<f4").tobytes()
