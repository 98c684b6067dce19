"""Verified on the fakes of TensorRT: one engine, built once, gives times, whole frame and accuracy."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
from fake_tensorrt import World, install
from synthetic_device import TINY_EFFORT, TINY_SPACE
from test_trtexec import make_program
from test_verify import trained_file

from scaler.data.data_file import read_splits
from scaler.data.dataset import Dataset
from scaler.data.shapes import make_shapes
from scaler.deploy import verify as deploying
from scaler.deploy.verify import Question, Row, verify
from scaler.deploy.verify_engine import deployed
from scaler.deploy.verify_files import Subject, metadata_of
from scaler.errors import UserError
from scaler.evaluation.evaluate import evaluate
from scaler.evaluation.onnx_detector import OnnxDetector
from scaler.profiling import verify as timing
from scaler.profiling.machine import Machine, setting
from scaler.runtimes import trtexec
from scaler.runtimes.engine_facts import read_engine_facts
from scaler.runtimes.protocol import Runtime
from scaler.runtimes.tensorrt_engine import TensorRtEngine
from scaler.runtimes.trtexec import Trtexec
from scaler.search.result import SearchResult
from scaler.search.run import SearchOptions, search


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    folder = tmp_path_factory.mktemp("nano")
    (folder / "tiny.toml").write_text(TINY_SPACE)
    return search(SearchOptions(devices=("nano",), target_fps=60, space=str(folder / "tiny.toml"))).result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    made = make_shapes(tmp_path_factory.mktemp("shapes"), train=1, val=4, size=64)
    return read_splits(made, ["val"]).splits["val"]


@pytest.fixture
def model(result: SearchResult, tmp_path: Path) -> Path:
    trained_file(tmp_path / "best.onnx", result.devices[0].front[-1], result)
    return tmp_path / "best.onnx"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = install(monkeypatch, "10.3.0")
    found.computes = True
    return found


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deploying, "bench", partial(timing.bench, settle_seconds=0.0))
    monkeypatch.setattr(deploying, "FRAME_SECONDS", 0.0)


def row_of(result: SearchResult, model: Path, runtime: Runtime, data: Dataset | None) -> Row:
    found = result.devices[0]
    question = Question(result=result, home=model.with_name("pareto.json"), found=found, data=data)
    (row,) = verify(question, [Subject(found.front[-1], model)], setting("nano"), Machine(runtime, TINY_EFFORT, ()))
    return row


def test_times_frame_and_accuracy_are_of_one_engine(result, data, model, world):
    row = row_of(result, model, TensorRtEngine(warm_up_ms=0), data)

    measured = row.measured
    assert measured is not None, row.failure
    expected = evaluate(OnnxDetector(model, "cpu"), data)
    assert (measured.model, measured.runtime, measured.precision) == ("best-fp16.engine", "tensorrt", "fp16")
    assert (measured.ap, measured.ap50) == (pytest.approx(100 * expected.ap), pytest.approx(100 * expected.ap50))
    assert measured.engine_ms > 0
    assert measured.frame_ms is not None
    assert list(measured.parts_ms) == ["decoding", "letterbox", "network", "nms"]
    assert row.observed is not None
    assert (row.observed.classes, row.observed.reference_ms) == (3, None)
    assert read_engine_facts(model.with_name("best-fp16.engine")).precision == "fp16"


def test_an_engine_of_this_very_file_is_used_again_and_another_is_built_anew(result, model, world):
    wanted, conditions = setting("nano"), TensorRtEngine(warm_up_ms=0).conditions()
    engine = deployed(model, metadata_of(model), wanted, conditions).file
    first = read_engine_facts(engine)
    assert len(world.builds) == 1

    assert deployed(model, metadata_of(model), wanted, conditions).file == engine
    assert len(world.builds) == 1

    trained_file(model, result.devices[0].front[0], result)
    deployed(model, metadata_of(model), wanted, conditions)
    assert read_engine_facts(engine).model_sha256 != first.model_sha256


@pytest.mark.slow
def test_an_engine_file_stands_for_itself(result, data, model, world):
    engine = deployed(model, metadata_of(model), setting("nano"), TensorRtEngine(warm_up_ms=0).conditions()).file
    model.unlink()

    row = row_of(result, engine, TensorRtEngine(warm_up_ms=0), None)

    assert row.measured is not None, row.failure
    assert row.measured.model == "best-fp16.engine"


@pytest.mark.slow
def test_with_trtexec_alone_the_engine_is_timed_and_says_what_frame_and_accuracy_need(
    result, data, model, monkeypatch, tmp_path
):
    for name in ("tensorrt", "pycuda", "pycuda.driver", "pycuda.autoinit"):
        monkeypatch.setitem(sys.modules, name, None)
    program = make_program(tmp_path)
    monkeypatch.setattr(trtexec, "JETPACK_PLACE", program)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    row = row_of(result, model, Trtexec(program, warm_up_ms=0), data)

    assert row.measured is not None, row.failure
    assert (row.measured.model, row.measured.frame_ms, row.measured.ap) == ("best-fp16.engine", None, None)
    assert row.measured.engine_ms > 0
    assert any("tensorrt" in note for note in row.measured.warnings)


def test_without_tensorrt_there_is_no_engine(model, monkeypatch, tmp_path, world):
    conditions = TensorRtEngine(warm_up_ms=0).conditions()
    for name in ("tensorrt", "pycuda", "pycuda.driver", "pycuda.autoinit"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(trtexec, "JETPACK_PLACE", tmp_path / "absent")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    with pytest.raises(UserError, match="no TensorRT here"):
        deployed(model, metadata_of(model), setting("nano"), conditions)
