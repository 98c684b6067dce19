"""`scaler export --format tensorrt` where TensorRT is, `--dla`, `--bundle`: what is built and packed of which file."""

import io
import json
import sys
import tarfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import fake_tensorrt
import onnx
import pytest
import typer
from test_onnx_detector import TINY, checkpoint, network
from test_trtexec import make_program

from scaler.cli import export as export_command
from scaler.data.shapes import make_shapes
from scaler.deploy.engine import BuiltEngine, EngineOrder
from scaler.errors import UnsupportedError, UsageError
from scaler.evaluation.onnx_metadata import read_metadata
from scaler.runtimes import trtexec
from scaler.runtimes.engine_facts import EngineFacts, read_engine_facts
from scaler.runtimes.tensorrt_version import Version
from scaler.training.network.checkpoint import write_checkpoint
from scaler.training.runs import engine_command
from scaler.training.runs.engine_command import EngineFile

APP = typer.Typer()
APP.command()(export_command.command)


@pytest.fixture
def best(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "best.pt", checkpoint(TINY, network()))
    return tmp_path / "best.pt"


def said(*arguments: object) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        APP(args=[str(part) for part in arguments], standalone_mode=False)
    return out.getvalue(), err.getvalue()


def refused(kind: type[Exception], *arguments: object) -> str:
    with pytest.raises(kind) as error:
        said(*arguments)
    return str(error.value)


def facts(order: EngineOrder, **more: Any) -> EngineFacts:
    return EngineFacts(
        model=order.model.name, model_sha256="0", engine_sha256="1", metadata="", tensorrt="10.3.0", gpu="Orin",
        precision=order.precision, input="image", picture=(3, 160, 160), batch=order.batch, dla=order.dla,
        build_seconds=61.4, built_by="trtexec", **more,
    )  # fmt: skip


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[EngineOrder]:
    """What would be built by a TensorRT 10.3 of this computer."""
    return pretend(monkeypatch, Version(10, 3, 0))


def pretend(
    monkeypatch: pytest.MonkeyPatch, version: Version, placed: Callable[[EngineOrder], EngineFacts] = facts
) -> list[EngineOrder]:
    orders: list[EngineOrder] = []

    def build(order: EngineOrder) -> BuiltEngine:
        assert order.model.is_file(), "the engine is built of a file"
        orders.append(order)
        return BuiltEngine(order.place, placed(order))

    monkeypatch.setattr("scaler.deploy.engine.why_not_here", lambda: "")
    monkeypatch.setattr("scaler.deploy.engine.build_engine", build)
    monkeypatch.setattr("scaler.training.runs.engine_command.version_here", lambda: version)
    return orders


def precision_of(path: Path) -> str:
    return read_metadata({p.key: p.value for p in onnx.load(path).metadata_props}, path).precision


# ------------------------------------------------------------------------------------------------ an engine built here


def test_where_tensorrt_is_the_file_is_written_and_its_engine_built(best: Path, built: list[EngineOrder]):
    out, err = said(best, "--format", "tensorrt", "--unchecked")
    (order,) = built
    assert (order.model, order.precision, order.batch, order.dla) == (best.with_suffix(".onnx"), "fp16", 1, None)
    assert precision_of(order.model) == "fp32", "TensorRT before 11 makes FP16 of it"
    assert out.splitlines()[0].startswith(f"{order.model}: scaled-yolov4")
    assert out.splitlines()[-1] == (
        f"{best.with_suffix('.engine')}: TensorRT 10.3.0 on Orin, fp16, batch 1, built in 61 s by trtexec; it runs "
        "with this TensorRT on this GPU alone, see best.engine.json"
    )
    assert "building the engine of best.onnx" in err


def test_tensorrt_from_11_on_gets_a_file_of_16_bits(best: Path, monkeypatch: pytest.MonkeyPatch):
    (order,) = pretend_and_build(best, monkeypatch, Version(11, 0, 0))
    assert order.model == best.with_name("best-fp16.onnx")
    assert precision_of(order.model) == "fp16"


def pretend_and_build(best: Path, monkeypatch: pytest.MonkeyPatch, version: Version) -> list[EngineOrder]:
    orders = pretend(monkeypatch, version)
    said(best, "--format", "tensorrt", "--unchecked")
    return orders


def test_an_open_batch_and_int8_reach_the_engine(best: Path, built: list[EngineOrder], tmp_path: Path):
    data = make_shapes(tmp_path / "shapes", train=3, val=1, size=96)
    options = ("--precision", "int8", "--calibrate", data.parent / "train", "--calibration", "min-max", "--unchecked")
    found = json.loads(said(best, "--format", "tensorrt", "--dynamic-batch", "--batch", 2, *options, "--json")[0])
    (order,) = built
    assert (order.model.name, order.precision, order.batch) == ("best-int8-dynamic.onnx", "int8", 2)
    assert precision_of(order.model) == "int8"
    assert found["engine"] == str(best.parent / "best-int8-dynamic.engine")
    assert found["facts"]["tensorrt"] == "10.3.0"
    assert found["int8"]["calibration"]["pictures"] == 3


def test_what_a_dla_computes_and_what_it_does_not_take_is_told(best: Path, monkeypatch: pytest.MonkeyPatch):
    pretend(
        monkeypatch,
        Version(10, 3, 0),
        lambda order: facts(order, dla_layers=12, gpu_layers=3, fallback=("neck.resize", "decode/exp")),
    )
    out, _ = said(best, "--format", "tensorrt", "--unchecked", "--dla", 1)
    assert out.splitlines()[-1] == (
        "DLA core 1: 12 layers on the DLA, 3 layers on the GPU; the DLA does not take neck.resize, decode/exp"
    )
    pretend(monkeypatch, Version(10, 3, 0))
    assert "DLA core 0: TensorRT did not tell which" in said(best, "--format", "tensorrt", "--unchecked", "--dla", 0)[0]


def test_an_onnx_file_is_enough(best: Path, built: list[EngineOrder]):
    said(best, "--unchecked")
    out, _ = said(best.with_suffix(".onnx"), "--format", "tensorrt", "--precision", "fp32")
    (order,) = built
    assert (order.model, order.precision) == (best.with_suffix(".onnx"), "fp32")
    assert len(out.splitlines()) == 1


def test_a_version_that_is_named_is_another_targets(best: Path, built: list[EngineOrder]):
    out, err = said(best, "--format", "tensorrt", "--tensorrt", "8.2")
    assert built == []
    assert "there, in its folder, with TensorRT 8.2: trtexec" in out
    assert "does not travel, so that none is built here\n" in err


def test_what_tensorrt_refuses_is_told_and_the_file_stays(best: Path, built: list[EngineOrder], monkeypatch):
    def fail(order: EngineOrder) -> BuiltEngine:
        raise UnsupportedError("this GPU has no DLA core 1")

    monkeypatch.setattr("scaler.deploy.engine.build_engine", fail)
    message = refused(UnsupportedError, best, "--format", "tensorrt", "--unchecked", "--dla", 1)
    assert message == "this GPU has no DLA core 1"
    assert best.with_suffix(".onnx").exists()


@pytest.mark.parametrize("tool", ["tensorrt", "trtexec"])
def test_with_a_fake_of_either_tool_the_engine_and_what_is_known_of_it_lie_beside_the_file(
    tool: str, best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("tensorrt", "pycuda", "pycuda.driver", "pycuda.autoinit"):
        monkeypatch.setitem(sys.modules, name, None)
    if tool == "tensorrt":
        fake_tensorrt.install(monkeypatch, "8.5.2")
    else:
        monkeypatch.setenv("FAKE_TRTEXEC_VERSION", "8.5.2")
        monkeypatch.setenv("FAKE_TRTEXEC_CALLS", str(tmp_path / "calls"))
        monkeypatch.setattr(trtexec, "JETPACK_PLACE", make_program(tmp_path))
    out, _ = said(best, "--format", "tensorrt", "--unchecked")
    found = read_engine_facts(best.with_suffix(".engine"))
    assert (found.model, found.precision, found.built_by) == ("best.onnx", "fp16", tool)
    assert found.tensorrt.startswith("8.5")
    assert f"best.engine: TensorRT {found.tensorrt} on {found.gpu}, fp16, batch 1, built in" in out


# --------------------------------------------------------------------------------------------------- the told command


def test_the_command_of_a_dla_lets_the_gpu_do_the_rest(best: Path):
    command = json.loads(said(best, "--unchecked", "--dla", 1, "--json")[0])["tensorrt"]["command"]
    assert "--useDLACore=1 --allowGPUFallback" in command
    assert "--fp16" in command


def test_a_dla_of_a_quantised_file_is_refused():
    with pytest.raises(UsageError, match="--dla 0: a DLA takes no quantisation nodes; ask for --precision fp16"):
        engine_command.engine_command(EngineFile(Path("net.onnx"), 9, False, "int8"), Version(8, 5, 0), dla=0)


# ------------------------------------------------------------------------------------------------------------ a bundle


def test_a_bundle_holds_the_float_file_and_val_pictures(best: Path, tmp_path: Path):
    data, out = make_shapes(tmp_path / "shapes", train=1, val=3, size=96), tmp_path / "net.tar.gz"
    text, _ = said(best, "--bundle", out, "--data", data, "--bundle-pictures", 2)
    assert f"{out}: " in text
    assert "an engine in fp16, 2 pictures to judge it by" in text
    assert f"then here: scaler import results.tar.gz --data {data} --model {best.with_suffix('.onnx')}\n" in text
    with tarfile.open(out) as archive:
        files = [packed for entry in archive if (packed := archive.extractfile(entry)) is not None]
        assert best.with_suffix(".onnx").read_bytes() in [packed.read() for packed in files]


def test_what_a_bundle_is_told_of(best: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    orders: list[tuple[tuple[Path, Path], dict[str, Any]]] = []

    def write(model: Path, out: Path, **wanted: Any) -> Any:
        from scaler.deploy.bundle import Summary

        orders.append(((model, out), wanted))
        return Summary(out, 0, str(wanted["precision"]), "a-1", 1_000_000, 2_000_000, 0)

    monkeypatch.setattr("scaler.deploy.bundle.write_bundle", write)
    out = tmp_path / "net.tar.gz"
    text, _ = said(
        best, "--unchecked", "--bundle", out, "--tensorrt", "11.0", "--result", "pareto.json", "--candidate", "a-1"
    )
    ((paths, wanted),) = orders
    assert paths == (best.with_name("best-fp16.onnx"), out)
    assert wanted == {
        "data": None, "pictures": 200, "result": Path("pareto.json"), "candidate": "a-1", "precision": "fp16",
        "dla": None, "tensorrt": "11.0.0",
    }  # fmt: skip
    assert "no pictures: it is only timed" in text
    assert "then here: scaler import results.tar.gz --result pareto.json\n" in text
    said(paths[0], "--bundle", out, "--json", "--dla", 0)
    assert orders[1][0] == paths
    assert (orders[1][1]["dla"], orders[1][1]["tensorrt"]) == (0, None)
