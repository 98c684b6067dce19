"""Engines built by both tools, on fakes of them: what is written beside them, DLA, memory, and what is refused."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from fake_tensorrt import World, install
from runtime_conformance import is_one_line, small_model
from test_trtexec import make_program

from scaler.deploy.engine import EngineOrder, build_engine, why_not_here
from scaler.errors import FileError, UnsupportedError, UsageError, UserError
from scaler.evaluation.onnx_metadata import KEY
from scaler.runtimes import trtexec
from scaler.runtimes.engine_facts import digest, facts_path, read_engine, read_engine_facts, write_engine_facts
from scaler.runtimes.jetson import Jetson
from scaler.runtimes.power_memory import EngineMemory
from scaler.runtimes.tensorrt_dla import Placement, fallback_layers, parse_placement
from scaler.runtimes.tensorrt_engine import TensorRtEngine
from scaler.runtimes.trtexec import Trtexec

TOOLS = ("tensorrt", "trtexec")
BUILT = EngineMemory(running=266, building=125, activations=2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "best.onnx")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A computer without TensorRT."""
    for name in ("tensorrt", "pycuda", "pycuda.driver", "pycuda.autoinit"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(trtexec, "JETPACK_PLACE", tmp_path / "absent")
    for name in ("FAIL", "ONLY", "FIRST", "FACTOR", "NOISE", "DLA"):
        monkeypatch.delenv(f"FAKE_TRTEXEC_{name}", raising=False)


def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, version: str, *, dla: int = 0) -> World | None:
    """Install a fake."""
    if name == "tensorrt":
        world = install(monkeypatch, version)
        world.dla_cores = dla
        return world
    monkeypatch.setenv("FAKE_TRTEXEC_VERSION", version)
    monkeypatch.setenv("FAKE_TRTEXEC_CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("FAKE_TRTEXEC_DLA", str(dla))
    program = make_program(tmp_path)
    monkeypatch.setattr(trtexec, "JETPACK_PLACE", program)
    return None


def opened(model: Path) -> Path:
    """With an open batch."""
    loaded = onnx.load(str(model))
    for value in (*loaded.graph.input, *loaded.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.save(loaded, str(model))
    return model


def calls(tmp_path: Path) -> list[list[str]]:
    lines = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    return [arguments for line in lines if (arguments := json.loads(line)["arguments"]) != ["--help"]]


# --- what is written ---


@pytest.mark.parametrize(("name", "version"), [("tensorrt", "8.2.1"), ("tensorrt", "10.3.0"), ("trtexec", "10.3.0")])
def test_an_engine_is_written_with_what_is_known_of_it(monkeypatch, tmp_path: Path, model: Path, name, version):
    tool(monkeypatch, tmp_path, name, version)
    loaded = onnx.load(str(model))
    onnx.helper.set_model_props(loaded, {KEY: '{"classes": []}'})
    onnx.save(loaded, str(model))
    path, facts = build_engine(EngineOrder(model))
    assert path == tmp_path / "best.engine"
    assert read_engine(path) == (path.read_bytes(), facts)
    assert (facts.model, facts.model_sha256) == ("best.onnx", digest(model.read_bytes()))
    assert (facts.tensorrt, facts.precision, facts.built_by) == (version, "fp16", name)
    assert facts.gpu == {"tensorrt": "Orin", "trtexec": "NVIDIA Tegra X1"}[name]
    assert (facts.input, facts.picture, facts.batch, facts.open_batch) == ("image", (3, 32, 32), 1, False)
    assert (facts.dla, facts.dla_layers, facts.gpu_layers, facts.fallback) == (None, None, None, ())
    assert facts.memory == BUILT
    assert facts.build_seconds > 0
    assert facts.metadata == '{"classes": []}'


@pytest.mark.parametrize("name", TOOLS)
def test_an_open_batch_is_built_for_as_many_pictures_as_asked_for(monkeypatch, tmp_path: Path, model: Path, name):
    world = tool(monkeypatch, tmp_path, name, "10.3.0")
    facts = build_engine(EngineOrder(opened(model), batch=4, out=tmp_path / "four.engine")).facts
    assert (facts.batch, facts.open_batch) == (4, True)
    if world:
        assert world.builds[0].shapes["image"][2] == (4, 3, 32, 32)
    else:
        build, once = calls(tmp_path)
        assert {f"--{key}Shapes=image:{n}x3x32x32" for key, n in (("min", 1), ("opt", 4), ("max", 4))} <= {*build}
        assert "--shapes=image:4x3x32x32" in once


@pytest.mark.parametrize(
    ("name", "version"), [("tensorrt", "8.2.1"), ("tensorrt", "10.3.0"), ("trtexec", "8.0.1"), ("trtexec", "10.3.0")]
)
def test_a_dla_computes_what_it_can_and_the_rest_is_counted(monkeypatch, tmp_path: Path, name, version):
    world = tool(monkeypatch, tmp_path, name, version, dla=2)
    model = small_model(tmp_path / "best.onnx", kinds={"stem.act": "Clip", "body.pool": "AveragePool"})
    facts = build_engine(EngineOrder(model, dla=1)).facts
    assert (facts.dla, facts.fallback) == (1, ("stem.act", "body.pool"))
    assert (facts.dla_layers, facts.gpu_layers) == (1, 2)
    if world is None:
        with Trtexec(warm_up_ms=1, system=Jetson(tmp_path, lambda _: "")).prepare(tmp_path / "best.engine") as session:
            session.time(1)
        assert len(calls(tmp_path)) == 3
        assert all({"--useDLACore=1", "--allowGPUFallback"} <= {*options} for options in calls(tmp_path))


@pytest.mark.parametrize("name", TOOLS)
def test_the_timing_cache_is_kept_where_asked_for(monkeypatch, tmp_path: Path, model: Path, name):
    tool(monkeypatch, tmp_path, name, "10.3.0")
    build_engine(EngineOrder(model, timing_cache=tmp_path / "kept.cache"))
    assert (tmp_path / "kept.cache").stat().st_size


def test_quantisation_nodes_mean_int8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    world = tool(monkeypatch, tmp_path, "tensorrt", "10.3.0")
    model = small_model(tmp_path / "q.onnx", kinds={"body.add": "QuantizeLinear"})
    assert build_engine(EngineOrder(model, precision="fp16")).facts.precision == "int8"
    assert (world.builds[0].flags, world.builds[0].ranges) == ({"TF32", "FP16", "INT8"}, 0)


@pytest.mark.parametrize("name", TOOLS)
def test_from_11_on_the_file_says_the_precision(monkeypatch, tmp_path: Path, model: Path, name):
    tool(monkeypatch, tmp_path, name, "11.1.0")
    assert build_engine(EngineOrder(model, precision="fp16")).facts.precision == "fp32"


# --- the same engine, timed ---


def test_trtexec_times_an_engine_that_was_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path):
    tool(monkeypatch, tmp_path, "trtexec", "10.3.0")
    path = build_engine(EngineOrder(opened(model), batch=2)).path
    runtime = Trtexec(warm_up_ms=1, batch=2, system=Jetson(tmp_path, lambda _: ""))
    before = len(calls(tmp_path))
    with runtime.prepare(path) as session:
        assert (session.time(3) > 0).all()
        assert session.profile(2)
        assert session.memory == BUILT
    later = calls(tmp_path)[before:]
    assert all({f"--loadEngine={path}", "--shapes=image:2x3x32x32"} <= {*options} for options in later)
    assert path.exists(), "closing removes what was made for the session alone"
    monkeypatch.setenv("FAKE_TRTEXEC_VERSION", "10.7.0")
    with pytest.raises(UnsupportedError, match=r"built by TensorRT 10\.3\.0, here is TensorRT 10\.7\.0"):
        Trtexec(system=Jetson(tmp_path, lambda _: "")).prepare(path)


@pytest.mark.parametrize("name", TOOLS)
def test_a_session_tells_the_memory_of_its_engine(monkeypatch, tmp_path: Path, model: Path, name):
    tool(monkeypatch, tmp_path, name, "10.3.0")
    system = Jetson(tmp_path, lambda _: "")
    runtime = {"tensorrt": TensorRtEngine, "trtexec": Trtexec}[name](warm_up_ms=0, system=system)
    with runtime.prepare(model) as session:
        assert session.memory == BUILT


# --- which tool ---


def test_without_tensorrt_it_is_said_why(model: Path):
    reason = why_not_here()
    assert reason.startswith("no TensorRT here: there is no trtexec, and TensorRT in process needs tensorrt")
    assert "\n" not in reason
    with pytest.raises(UnsupportedError, match="no TensorRT here"):
        build_engine(EngineOrder(model))


@pytest.mark.parametrize("name", TOOLS)
def test_with_either_tool_an_engine_can_be_built_here(monkeypatch, tmp_path: Path, model: Path, name):
    tool(monkeypatch, tmp_path, name, "10.3.0")
    assert why_not_here() == ""
    assert build_engine(EngineOrder(model)).facts.built_by == name
    other = next(iter({*TOOLS} - {name}))
    with pytest.raises(UserError):
        build_engine(EngineOrder(model, runtime=other))


# --- refusals ---


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"runtime": "onnxruntime"}, "unknown runtime"),
        ({"batch": 0}, "batch = 0: allowed is 1 or more"),
        ({"workspace_mib": 0}, "workspace_mib = 0"),
        ({"dla": -1}, "dla = -1: DLA cores are 0, 1"),
    ],
)
def test_orders_are_checked(model: Path, wrong: dict[str, object], said: str):
    with pytest.raises(UsageError, match=said):
        EngineOrder(model, **wrong)


@pytest.mark.parametrize(
    ("order", "error", "said"),
    [
        ({"precision": "int8"}, UnsupportedError, "not quantised, and an INT8 engine of it would find nothing"),
        ({"batch": 4}, UsageError, "made for 1 pictures at a time, not for 4"),
        ({"dla": 0}, UnsupportedError, "no DLA core 0 here"),
        ({"dla": 2, "precision": "fp32"}, UnsupportedError, "a DLA core computes in fp16, not in fp32"),
        ({"out": Path("best.trt")}, UsageError, "engines are .engine files"),
    ],
)
def test_wishes_that_cannot_be_granted_are_told_in_one_line(monkeypatch, tmp_path, model, order, error, said):
    tool(monkeypatch, tmp_path, "tensorrt", "10.3.0")
    with pytest.raises(error, match=said) as refused:
        build_engine(EngineOrder(model, **order))
    assert is_one_line(refused.value)
    assert [*tmp_path.glob("*.engine*")] == []


def test_a_dla_takes_neither_quantisation_nodes_nor_an_open_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    tool(monkeypatch, tmp_path, "tensorrt", "10.3.0", dla=2)
    model = small_model(tmp_path / "q.onnx", kinds={"body.add": "QuantizeLinear"})
    with pytest.raises(UnsupportedError, match="a DLA core takes no quantisation nodes"):
        build_engine(EngineOrder(model, dla=0))
    with pytest.raises(UnsupportedError, match="its batch is open, but a DLA core takes one number of pictures"):
        build_engine(EngineOrder(opened(small_model(tmp_path / "open.onnx")), dla=0))


@pytest.mark.parametrize("version", ["10.13.0", "11.1.0"])
def test_versions_without_dla_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path, version: str):
    tool(monkeypatch, tmp_path, "tensorrt", version, dla=2)
    with pytest.raises(UnsupportedError, match=f"TensorRT {version} does not support DLA cores"):
        build_engine(EngineOrder(model, dla=0))


def test_where_the_file_says_the_precision_a_dla_takes_one_of_16_bits(monkeypatch, tmp_path: Path, model: Path):
    world = tool(monkeypatch, tmp_path, "tensorrt", "11.4.1", dla=1)
    half = small_model(tmp_path / "half.onnx", dtype=np.float16)
    assert build_engine(EngineOrder(half, dla=0)).facts.precision == "fp16"
    assert (world.builds[0].dla, world.builds[0].flags) == (0, {"TF32", "GPU_FALLBACK"})
    with pytest.raises(UnsupportedError, match="a DLA core computes in fp16, not in fp32"):
        build_engine(EngineOrder(model, dla=0))


@pytest.mark.parametrize(
    ("damage", "said"),
    [("scalar", "the size of its pictures is open"), ("open", "the size of its pictures is open"), ("two", "2 inputs")],
)
def test_what_is_no_detector_with_pictures_of_one_size_is_refused(monkeypatch, tmp_path, model, damage: str, said: str):
    tool(monkeypatch, tmp_path, "tensorrt", "10.3.0")
    loaded = onnx.load(str(model))
    entry = loaded.graph.input[0]
    if damage == "scalar":
        del entry.type.tensor_type.shape.dim[:]
    elif damage == "open":
        entry.type.tensor_type.shape.dim[3].dim_param = "width"
    else:
        loaded.graph.input.add().CopyFrom(entry)
        loaded.graph.input[1].name = "other"
    onnx.save(loaded, str(model))
    with pytest.raises(UnsupportedError, match=said) as refused:
        build_engine(EngineOrder(model))
    assert is_one_line(refused.value)


def test_a_file_quantised_for_onnx_runtime_is_refused(monkeypatch, tmp_path: Path, model: Path):
    from scaler.export.int8 import METADATA_KEY

    tool(monkeypatch, tmp_path, "tensorrt", "10.3.0")
    loaded = onnx.load(str(model))
    onnx.helper.set_model_props(loaded, {METADATA_KEY: json.dumps({"target": "onnxruntime"})})
    onnx.save(loaded, str(model))
    with pytest.raises(UnsupportedError, match="written for ONNX Runtime, which TensorRT refuses"):
        build_engine(EngineOrder(model))


def test_trtexec_says_that_a_dla_core_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path):
    tool(monkeypatch, tmp_path, "trtexec", "10.3.0", dla=1)
    with pytest.raises(
        UserError, match=r"best\.onnx: building the engine failed: Cannot create DLA engine, 1 not avail"
    ):
        build_engine(EngineOrder(model, dla=1))


def test_a_build_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path):
    tool(monkeypatch, tmp_path, "trtexec", "10.3.0")
    monkeypatch.setenv("FAKE_TRTEXEC_FAIL", "oom@time")
    with pytest.raises(UserError, match=r"best\.onnx: timing failed, out of memory"):
        build_engine(EngineOrder(model))
    assert [*tmp_path.glob("*.engine*")] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "schema_version: found 2"),
        ({"precision": "fp8"}, "precision"),
        ({"batch": 0}, "batch"),
        ({"picture": []}, "picture"),
        ({"dla": "none"}, "dla"),
        ({"memory": None}, "memory"),
    ],
)
def test_facts_that_are_wrong_are_refused(monkeypatch, tmp_path: Path, model: Path, change: dict[str, object], said):
    tool(monkeypatch, tmp_path, "tensorrt", "10.3.0")
    path, facts = build_engine(EngineOrder(model))
    file = facts_path(path)
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(FileError, match=rf"best\.engine\.json: {said}") as refused:
        read_engine_facts(path)
    assert is_one_line(refused.value)
    write_engine_facts(path, facts)
    assert read_engine_facts(path) == facts


# --- what TensorRT says of the DLA ---

NEW = """\
[08/31/2023-07:07:40] [W] [TRT] Layer 'pool' (POOLING): Unsupported on DLA. Switching this layer's device type to GPU.
[08/31/2023-07:07:40] [W] [TRT] Validation failed for DLA layer: big. Switching to GPU fallback.
[08/31/2023-07:07:49] [I] [TRT] ---------- Layers Running on DLA ----------
[08/31/2023-07:07:49] [I] [TRT] [DlaLayer] {ForeignNode[/cnn/cnn.0/Conv.../cnn/cnn.11/Relu]}
[08/31/2023-07:07:49] [I] [TRT] [DlaLayer] {ForeignNode[/linear/Gemm]}
[08/31/2023-07:07:49] [I] [TRT] ---------- Layers Running on GPU ----------
[08/31/2023-07:07:49] [I] [TRT] [GpuLayer] POOLING: /pool/GlobalAveragePool
[08/31/2023-07:07:49] [I] [TRT] [GpuLayer] SHUFFLE: reshape_after_/linear/Gemm
[08/31/2023-07:07:55] [I] Throughput: 1663.19 qps
"""
OLD = """\
[06/10/2021-13:03:46] [W] [TRT] Default DLA is enabled but layer prob is not supported on DLA, falling back to GPU.
[06/10/2021-13:03:46] [W] [TRT] DLA supports only 8 subgraphs per DLA core. Switching to GPU for layer conv_6
[06/10/2021-13:03:48] [I] [TRT]
[06/10/2021-13:03:48] [I] [TRT] --------------- Layers running on DLA:
[06/10/2021-13:03:48] [I] [TRT] {conv_1,batch_norm_1}, {conv_2},
[06/10/2021-13:03:48] [I] [TRT] --------------- Layers running on GPU:
[06/10/2021-13:03:48] [I] [TRT] conv_6 + relu_6, prob, conv_7,
[06/10/2021-13:03:59] [I] [TRT] Detected 1 inputs and 1 output network tensors.
"""


@pytest.mark.parametrize(
    ("log", "placement", "fallback"),
    [(NEW, Placement(2, 2), ("pool", "big")), (OLD, Placement(2, 3), ("prob", "conv_6")), ("", None, ())],
    ids=["8.4", "7.1", "silent"],
)
def test_what_public_logs_say_of_the_dla(log: str, placement: Placement | None, fallback: tuple[str, ...]):
    assert parse_placement(log) == placement
    assert fallback_layers(log) == fallback


def test_of_several_engines_the_last_counts():
    assert parse_placement(NEW + OLD) == Placement(2, 3)
    assert parse_placement(OLD + NEW) == Placement(2, 2)


def test_an_engine_without_a_layer_on_the_dla():
    text = (
        "[TRT] [I] ---------- Layers Running on DLA ----------\n[TRT] [I] ---------- Layers Running on GPU ----------\n"
    )
    assert parse_placement(text + "[TRT] [I] [GpuLayer] Conv_0\n[TRT] [I] [GpuLayer] PWN(PWN(S), M)\n") == (0, 2)
