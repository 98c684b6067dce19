"""TensorRT in process, on fakes of every API generation; building also with NVIDIA's own builder, where installed."""

import gc
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from fake_tensorrt import LAYER_MS, OVERHEAD_MS, TIMING_CACHE, World, install, rtx_available
from runtime_conformance import RuntimeConformance, is_one_line, names_of, small_model

from scaler.errors import MissingExtraError, UnsupportedError, UserError
from scaler.runtimes.jetson import Jetson
from scaler.runtimes.power_memory import EngineMemory, parse_engine_memory
from scaler.runtimes.protocol import ModelRejectedError, Runtime, RuntimeFailedError
from scaler.runtimes.tensorrt_api import EngineSettings, TensorRtApi, load_api, package_version
from scaler.runtimes.tensorrt_dla import parse_placement
from scaler.runtimes.tensorrt_engine import TensorRtEngine
from scaler.runtimes.tensorrt_version import Version

VERSIONS = ["8.0.1", "8.2.1", "8.4.1", "8.5.2", "8.6.2", "10.3.0", "10.13.0", "11.1.0"]
NODES = 8
"""Of the small model."""


def engine(tmp_path: Path, **options: object) -> TensorRtEngine:
    options = {"precision": "fp32", "warm_up_ms": 0} | options
    return TensorRtEngine(system=Jetson(tmp_path, lambda _: ""), **options)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return install(monkeypatch, "10.3.0")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "small.onnx")


class TestTensorRtEngine(RuntimeConformance):
    @pytest.fixture(params=["8.2.1", "8.5.2", "10.3.0", "11.1.0"])
    def runtime(self, request, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Runtime:
        install(monkeypatch, request.param)
        return engine(tmp_path)


# --- versions ---


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_times_and_profiles(monkeypatch, tmp_path: Path, model: Path, version: str):
    world = install(monkeypatch, version)
    runtime = engine(tmp_path, workspace_mib=256)
    with runtime.prepare(model) as session:
        samples, layers = session.time(5), session.profile(3)
    assert samples == pytest.approx([NODES * LAYER_MS + OVERHEAD_MS] * 5)
    assert [name for layer in layers[1:] for name in layer.nodes] == names_of(model)
    assert [layer.ms for layer in layers] == pytest.approx([0.01] + [2 * LAYER_MS] * 4)
    assert layers[0].kind == "Reformat"
    assert runtime.conditions().runtime_version == version
    (build,) = world.builds
    assert (build.flags, build.workspace, build.verbosity) == (set(), 256 * 2**20, 2)


@pytest.mark.parametrize("version", VERSIONS)
def test_auxiliary_streams_are_switched_off_where_there_are_any(monkeypatch, tmp_path: Path, model: Path, version: str):
    world = install(monkeypatch, version)
    runtime = engine(tmp_path)
    runtime.prepare(model).close()
    has_them = tuple(map(int, version.split("."))) >= (8, 6)
    assert world.builds[0].streams == (0 if has_them else None)
    assert ("no auxiliary streams" in runtime.conditions().notes) is has_them


@pytest.mark.parametrize(
    ("precision", "flags", "ranges"),
    [("fp32", set(), 0), ("tf32", {"TF32"}, 0), ("fp16", {"TF32", "FP16"}, 0), ("int8", {"TF32", "FP16", "INT8"}, 9)],
)
@pytest.mark.parametrize("version", ["8.2.1", "10.3.0"])
def test_precisions_are_flags_until_11(monkeypatch, tmp_path, model, version, precision, flags, ranges):
    world = install(monkeypatch, version)
    engine(tmp_path, precision=precision).prepare(model).close()
    assert (world.builds[0].flags, world.builds[0].ranges) == (flags, ranges)


def test_from_11_on_the_model_has_its_format_itself(monkeypatch, tmp_path: Path, model: Path):
    world = install(monkeypatch, "11.1.0")
    runtime = engine(tmp_path, precision="fp16")
    with pytest.raises(UnsupportedError, match="takes the number format from the model, which is not fp16"):
        runtime.prepare(model)
    runtime.prepare(small_model(tmp_path / "half.onnx", dtype=np.float16)).close()
    assert [build.flags for build in world.builds] == [{"TF32"}]


def test_without_onnx_only_11_needs_it(monkeypatch, tmp_path: Path, model: Path):
    monkeypatch.setattr("scaler.runtimes.tensorrt_engine.read_facts", missing_onnx)
    install(monkeypatch, "11.1.0")
    with pytest.raises(MissingExtraError):
        engine(tmp_path).prepare(model)
    install(monkeypatch, "8.2.1")
    with engine(tmp_path).prepare(model) as session:
        assert session.profile(1)[1].nodes == ("stem.conv", "stem.act")


def missing_onnx(model: Path, purpose: str) -> None:
    raise MissingExtraError(purpose, "onnx", "export")


@pytest.mark.parametrize(
    ("text", "version"),
    [("8.2.1.9", (8, 2, 1)), ("10.3.0", (10, 3, 0)), ("11.1.0.post12", (11, 1, 0)), ("8", (8, 0, 0))],
)
def test_package_versions(text: str, version: tuple[int, int, int]):
    assert package_version(text) == version


def test_versions_before_8_are_refused(monkeypatch: pytest.MonkeyPatch):
    old = ModuleType("tensorrt")
    old.__version__ = "7.1.3.0"
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(UnsupportedError, match=r"older than 8\.0"):
        load_api()


def test_a_tensorrt_that_does_not_start_is_told(world: World, monkeypatch: pytest.MonkeyPatch):
    def null_pointer(logger: object) -> None:
        logger.log(0, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    api = load_api()
    monkeypatch.setattr(sys.modules["tensorrt"], "Builder", null_pointer)
    with pytest.raises(RuntimeFailedError, match="starting TensorRT failed: CUDA initialization failure"):
        api.builder()


# --- memory ---


def test_one_engine_is_resident_at_a_time(world: World, tmp_path: Path, model: Path):
    runtime = engine(tmp_path)
    sessions = [runtime.prepare(model) for _ in range(3)]
    for session in sessions * 2:
        session.time(1)
        session.profile(1)
    gc.collect()
    assert (world.engines, world.most_engines) == (1, 1)
    assert len(world.allocated) == 2, "one input and one output"


def test_closing_gives_everything_back(world: World, tmp_path: Path, model: Path):
    runtime = engine(tmp_path)
    one, other = runtime.prepare(model), runtime.prepare(model)
    one.close()
    assert len(world.allocated) == 2, "the other one is still there"
    other.close()
    gc.collect()
    assert (world.allocated, world.engines) == ({}, 0)


def test_memory_that_does_not_suffice_is_told(world: World, tmp_path: Path, model: Path):
    world.memory = 100
    with pytest.raises(RuntimeFailedError, match=r"small\.onnx: loading the engine failed, out of memory") as raised:
        engine(tmp_path).prepare(model)
    assert is_one_line(raised.value)


def test_the_warm_up_runs_before_every_block_and_is_not_counted(world: World, tmp_path: Path, model: Path):
    with engine(tmp_path).prepare(model) as session:
        session.time(3)
        assert world.enqueued == 2 + 3
        session.time(1)
        assert world.enqueued == 2 + 3 + 2 + 1


def test_the_warm_up_takes_as_long_as_asked_for(world: World, tmp_path: Path, model: Path):
    with engine(tmp_path, warm_up_ms=30).prepare(model) as session:
        session.time(1)
    assert world.enqueued > 3


# --- timing cache ---


def test_the_timing_cache_grows_from_model_to_model(world: World, tmp_path: Path, model: Path):
    runtime = engine(tmp_path)
    for _ in range(2):
        runtime.prepare(model).close()
    assert [build.cache for build in world.builds] == [b"", TIMING_CACHE]


def test_the_timing_cache_is_kept_in_a_file(world: World, tmp_path: Path, model: Path):
    file = tmp_path / "timing.cache"
    for _ in range(2):
        engine(tmp_path, timing_cache=file).prepare(model).close()
    assert [build.cache for build in world.builds] == [b"", TIMING_CACHE]
    assert file.read_bytes() == TIMING_CACHE + b"+"


def test_a_timing_cache_of_another_version_counts_as_none(world: World, tmp_path: Path, model: Path):
    (tmp_path / "timing.cache").write_bytes(b"of another version")
    engine(tmp_path, timing_cache=tmp_path / "timing.cache").prepare(model).close()
    assert [build.cache for build in world.builds] == [b""]


def test_a_timing_cache_that_cannot_be_read_is_told(world: World, tmp_path: Path):
    with pytest.raises(UserError, match="the timing cache cannot be read"):
        engine(tmp_path, timing_cache=tmp_path)


# --- failures ---


@pytest.mark.parametrize(
    ("fails", "error", "said"),
    [
        ("parse", ModelRejectedError, "TensorRT lacks an operator"),
        ("build", ModelRejectedError, "TensorRT has no kernel for a layer"),
        ("build-memory", RuntimeFailedError, "out of memory"),
        ("load", RuntimeFailedError, "the engine cannot be loaded"),
    ],
)
def test_a_model_that_fails_is_told_in_one_line(world: World, tmp_path: Path, model: Path, fails, error, said):
    world.fails = fails
    runtime = engine(tmp_path)
    with pytest.raises(error) as raised:
        runtime.prepare(model)
    assert type(raised.value) is error
    assert said in str(raised.value)
    assert is_one_line(raised.value)
    world.fails = ""
    assert len(runtime.prepare(model).time(1)) == 1


@pytest.mark.parametrize(
    ("fails", "stage", "said"),
    [
        ("context", "time", "making room for the activations failed"),
        ("enqueue", "time", "timing failed, CUDA failed: 1: [genericReformat.cu"),
        ("cuda", "time", "timing failed, CUDA failed: CUDA error: cuStreamSynchronize failed"),
        ("execute", "profile", "timing the layers failed"),
        ("silent-profiler", "profile", "TensorRT's profiler reported no layer"),
    ],
)
def test_a_run_that_fails_is_told_in_one_line(world: World, tmp_path: Path, model: Path, fails, stage, said):
    with engine(tmp_path).prepare(model) as session:
        world.fails = fails
        with pytest.raises(RuntimeFailedError) as raised:
            session.time(2) if stage == "time" else session.profile(2)
        assert said in str(raised.value)
        assert is_one_line(raised.value)
        world.fails = ""
        assert len(session.time(2)) == 2


def test_the_operator_that_is_lacking_is_named(world: World, tmp_path: Path):
    model = small_model(tmp_path / "odd.onnx", kinds={"body.swish": "GridSample"})
    with pytest.raises(ModelRejectedError, match="No importer registered for op: GridSample"):
        engine(tmp_path).prepare(model)


def opened(model: Path, *axes: int) -> Path:
    """A model whose input is open along these axes."""
    loaded = onnx.load(str(model))
    for axis in axes:
        for value in (*loaded.graph.input, *loaded.graph.output):
            value.type.tensor_type.shape.dim[axis].dim_param = f"axis{axis}"
    onnx.save(loaded, str(model))
    return model


@pytest.mark.parametrize("version", ["8.2.1", "10.3.0"])
def test_an_open_batch_is_built_and_timed_for_as_many_pictures_as_asked_for(monkeypatch, tmp_path, model, version):
    world = install(monkeypatch, version)
    with engine(tmp_path, batch=4).prepare(opened(model, 0)) as session:
        assert len(session.time(2)) == 2
        assert session.profile(1)
        assert max(world.allocated.values()) == 4 * 3 * 32 * 32 * 4
    assert world.builds[0].shapes == {"image": ((1, 3, 32, 32), (4, 3, 32, 32), (4, 3, 32, 32))}


def test_a_size_of_pictures_that_is_open_is_refused(world: World, tmp_path: Path, model: Path):
    with pytest.raises(ModelRejectedError, match="more than the batch of its input image is open"):
        engine(tmp_path).prepare(opened(model, 0, 2))


# --- INT8 with the model's own ranges ---


@pytest.mark.parametrize("version", ["8.2.1", "10.3.0"])
def test_a_model_with_quantisation_nodes_gets_no_ranges_of_ours(monkeypatch, tmp_path: Path, version: str):
    world = install(monkeypatch, version)
    model = small_model(tmp_path / "q.onnx", kinds={"body.add": "QuantizeLinear"})
    engine(tmp_path, precision="int8").prepare(model).close()
    assert (world.builds[0].flags, world.builds[0].ranges) == ({"TF32", "FP16", "INT8"}, 0)


# --- DLA ---


@pytest.mark.parametrize("version", ["8.2.1", "10.3.0"])
def test_a_dla_core_gets_what_it_takes(monkeypatch, tmp_path: Path, model: Path, version: str):
    world = install(monkeypatch, version)
    world.dla_cores = 2
    runtime = engine(tmp_path, precision="fp16", dla=1)
    assert runtime.build(model).fallback == ()
    assert (world.builds[0].dla, world.builds[0].flags) == (1, {"TF32", "FP16", "GPU_FALLBACK"})
    odd = small_model(tmp_path / "odd.onnx", kinds={"stem.act": "HardSwish"})
    built = runtime.build(odd)
    assert built.fallback == ("stem.act",)
    assert built.seconds > 0
    assert parse_placement(built.log) == (1, 1)
    with runtime.prepare(odd) as session:
        session.time(1)
    assert "DLA core 1" in runtime.conditions().notes


def test_a_dla_core_that_is_not_there_is_told(world: World, tmp_path: Path, model: Path):
    with pytest.raises(UnsupportedError, match="no DLA core 0 here: this GPU has none"):
        engine(tmp_path, dla=0).prepare(model)


# --- what TensorRT says ---


def test_there_is_one_logger_in_a_process(world: World, tmp_path: Path):
    """TensorRT keeps to the first that it was given, and errors of a later one would go there."""
    assert engine(tmp_path).api is engine(tmp_path).api is load_api()


def test_memory_is_read_from_what_tensorrt_says(world: World, tmp_path: Path, model: Path):
    memory = parse_engine_memory(engine(tmp_path).build(model).log)
    assert memory == EngineMemory(running=266, building=125, activations=2)
    assert world.allocated == {}, "the engine was loaded and given back"


def test_an_inspector_that_writes_nonsense_costs_no_times(world: World, tmp_path: Path, model: Path):
    with engine(tmp_path).prepare(model) as session:
        world.fails = "inspector"
        layers = session.profile(2)
    assert layers[1].nodes == ("stem.conv", "stem.act")
    assert layers[1].kind == ""


# --- packages ---


@pytest.mark.parametrize("package", ["tensorrt", "pycuda.driver"])
def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, package: str):
    install(monkeypatch, "10.3.0")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=package.partition(".")[0]):
        TensorRtEngine()


def test_libraries_that_cannot_be_loaded_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.8: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnsupportedError, match=r"cannot be loaded: libnvinfer\.so\.8"):
        load_api()


def test_without_a_gpu_there_is_nothing_to_run_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    install(monkeypatch, "10.3.0")
    monkeypatch.delitem(sys.modules, "pycuda.autoinit")
    monkeypatch.setattr(sys.modules["pycuda"], "__path__", [str(tmp_path)])
    (tmp_path / "autoinit.py").write_text("from pycuda.driver import Error\nraise Error('no CUDA-capable device')\n")
    with pytest.raises(UnsupportedError, match="no GPU that CUDA can use: no CUDA-capable device"):
        TensorRtEngine()


def test_conditions_name_the_gpu(world: World, tmp_path: Path):
    conditions = engine(tmp_path, precision="fp16", batch=2).conditions()
    assert (conditions.processor, conditions.precision, conditions.batch) == ("Orin", "fp16", 2)
    assert "in process, workspace 512 MiB" in conditions.notes


# --- NVIDIA's own builder ---

WITHOUT_RTX = pytest.mark.skipif(not rtx_available(), reason="needs tensorrt_rtx, whose builder runs without a GPU")


def needs_rtx(test):
    """.ci/run installs it for the slow tests only."""
    return pytest.mark.slow(WITHOUT_RTX(test))


@pytest.fixture(scope="module")
def rtx() -> TensorRtApi:
    return TensorRtApi(pytest.importorskip("tensorrt_rtx"), Version(11, 0, 0))


@needs_rtx
@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_nvidias_builder_builds_a_model_of_ours(rtx: TensorRtApi, model: Path):
    built = rtx.build(model, EngineSettings(precision="fp32", workspace_mib=64))
    assert len(built.plan) > 10_000
    assert built.timing_cache


@needs_rtx
def test_nvidias_builder_takes_our_settings(rtx: TensorRtApi, model: Path):
    trt = pytest.importorskip("tensorrt_rtx")
    builder = rtx.builder()
    network = rtx.parse(model, builder)
    config = rtx.configure(builder, network, EngineSettings(precision="fp32", workspace_mib=64))
    assert network.num_layers >= NODES
    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 64 * 2**20
    assert config.profiling_verbosity == trt.ProfilingVerbosity.DETAILED
    assert config.max_aux_streams == 0
    assert not config.get_flag(trt.BuilderFlag.TF32)


@needs_rtx
@pytest.mark.parametrize("damage", ["cut off", "missing"])
def test_nvidias_parser_refuses_damage_in_one_line(rtx: TensorRtApi, model: Path, damage: str):
    content = model.read_bytes()
    model.unlink()
    if damage == "cut off":
        model.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelRejectedError, match=r"small\.onnx: reading it failed") as refused:
        rtx.build(model, EngineSettings(precision="fp32", workspace_mib=64))
    assert is_one_line(refused.value)


@needs_rtx
def test_nvidias_parser_names_an_operator_that_it_lacks(rtx: TensorRtApi, tmp_path: Path):
    model = small_model(tmp_path / "odd.onnx", kinds={"body.swish/sigmoid": "Det"})
    with pytest.raises(ModelRejectedError, match="Det"):
        rtx.build(model, EngineSettings(precision="fp32", workspace_mib=64))


@needs_rtx
def test_nvidias_runtime_tells_that_there_is_no_driver(rtx: TensorRtApi):
    try:
        loaded = rtx.load(b"no engine", "small.onnx")
    except RuntimeFailedError as error:
        assert str(error).startswith("small.onnx: loading the engine failed")
        assert is_one_line(error)
    else:
        pytest.fail(f"loaded {loaded} from nothing")
