"""The options of trtexec: only those that a version has, and the commands that they make."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from fake_trtexec import options_of
from runtime_conformance import small_model

from scaler.devices import PRECISIONS, Precision
from scaler.errors import UnsupportedError
from scaler.runtimes.onnx_facts import read_facts
from scaler.runtimes.tensorrt_version import Version, check_precision
from scaler.runtimes.trtexec_flags import (
    TrtexecSettings,
    batch_options,
    build_options,
    has_option,
    open_batch_options,
    profile_options,
    time_options,
)

VERSIONS = [
    (8, 0),
    (8, 2),
    (8, 4),
    (8, 5),
    (8, 6),
    (9, 3),
    (10, 0),
    (10, 3),
    (10, 7),
    (10, 13),
    (10, 16),
    (11, 0),
    (11, 1),
]
OLD_INT8 = ["--int8", "--fp16"]


def settings(precision: Precision = "fp16", cuda_graph: bool = False) -> TrtexecSettings:
    return TrtexecSettings(precision=precision, workspace_mib=512, warm_up_ms=500, cuda_graph=cuda_graph)


def build(version: tuple[int, int], precision: Precision = "fp16") -> list[str]:
    return build_options(settings(precision), Version(*version, 0), Path("m.onnx"), Path("m.eng"), Path("t.cache"))


def time(version: tuple[int, int], cuda_graph: bool = False) -> list[str]:
    return time_options(settings(cuda_graph=cuda_graph), Version(*version, 0), Path("m.eng"), 20, Path("t.json"))


def profile(version: tuple[int, int]) -> list[str]:
    return profile_options(settings(), Version(*version, 0), Path("m.eng"), 20, Path("p.json"), Path("l.json"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("cuda_graph", [False, True])
def test_no_version_gets_an_option_that_it_does_not_know(version, precision: Precision, cuda_graph: bool):
    known = options_of(version)
    for options in (build(version, precision), time(version, cuda_graph), profile(version)):
        names = [option.removeprefix("--").partition("=")[0] for option in options]
        assert set(names) <= known
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_dla_core_is_named_in_every_command_and_the_gpu_may_help(version: tuple[int, int]):
    with_dla, known = replace(settings(), dla=1), Version(*version, 0)
    paths = Path("a"), Path("b"), Path("c")
    for options in (
        build_options(with_dla, known, *paths),
        time_options(with_dla, known, Path("m.eng"), 20, Path("t.json")),
        profile_options(with_dla, known, Path("m.eng"), 20, Path("p.json"), Path("l.json")),
    ):
        assert {"--useDLACore=1", "--allowGPUFallback"} <= set(options)
        assert {option.removeprefix("--").partition("=")[0] for option in options} <= options_of(version)
    assert not any("DLA" in option for option in build(version))


@pytest.mark.parametrize("version", VERSIONS)
def test_an_open_batch_has_its_limits_and_a_run_its_pictures(version: tuple[int, int]):
    built, run = open_batch_options("image", (3, 160, 320), 4), batch_options("image", (3, 160, 320), 2)
    assert built == [f"--{key}Shapes=image:{n}x3x160x320" for key, n in (("min", 1), ("opt", 4), ("max", 4))]
    assert run == ["--shapes=image:2x3x160x320"]
    assert {option.removeprefix("--").partition("=")[0] for option in built + run} <= options_of(version)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((8, 0), ["--buildOnly", "--timingCacheFile=t.cache", "--workspace=512", "--nvtxMode=verbose", "--fp16"]),
        (
            (8, 2),
            ["--buildOnly", "--timingCacheFile=t.cache", "--workspace=512", "--profilingVerbosity=detailed", "--fp16"],
        ),
        ((8, 4), ["--buildOnly", "--memPoolSize=workspace:512", "--profilingVerbosity=detailed", "--fp16"]),
        ((8, 5), ["--buildOnly", "--memPoolSize=workspace:512", "--profilingVerbosity=detailed", "--fp16"]),
        ((8, 6), ["--skipInference", "--memPoolSize=workspace:512", "--maxAuxStreams=0", "--fp16"]),
        ((10, 3), ["--skipInference", "--memPoolSize=workspace:512", "--maxAuxStreams=0", "--fp16"]),
        ((10, 13), ["--skipInference", "--memPoolSize=workspace:512", "--maxAuxStreams=0", "--fp16"]),
        ((11, 1), ["--skipInference", "--memPoolSize=workspace:512", "--maxAuxStreams=0"]),
    ],
)
def test_every_version_builds_with_what_it_has(version, expected: list[str]):
    options = build(version)
    assert set(expected) <= set(options)
    assert ("--fp16" in options) is (version < (11, 0))
    assert len({"--buildOnly", "--skipInference"} & set(options)) == 1
    assert len([o for o in options if o.startswith(("--workspace", "--memPoolSize"))]) == 1


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", ["--noTF32"]), ("tf32", []), ("fp16", ["--fp16"]), ("int8", OLD_INT8)]
)
@pytest.mark.parametrize("version", [(8, 2), (10, 3)])
def test_precisions_are_flags(version, precision: Precision, expected: list[str]):
    assert [o for o in build(version, precision) if o in ("--noTF32", *OLD_INT8)] == expected


def test_from_11_on_only_tf32_is_a_flag():
    assert "--noTF32" in build((11, 0), "fp32")
    for precision in ("fp16", "int8"):
        assert not {"--noTF32", *OLD_INT8} & set(build((11, 0), precision))


@pytest.mark.parametrize("version", VERSIONS)
def test_timing_asks_for_runs_and_no_time_and_no_profile(version):
    options = time(version)
    assert {"--loadEngine=m.eng", "--iterations=20", "--duration=0", "--warmUp=500", "--exportTimes=t.json"} <= set(
        options
    )
    assert not any("rofile" in option for option in options)


@pytest.mark.parametrize("version", VERSIONS)
def test_profiling_writes_layer_information_where_it_can_and_no_times(version):
    options = profile(version)
    assert {"--dumpProfile", "--exportProfile=p.json"} <= set(options)
    assert ("--exportLayerInfo=l.json" in options) is (version >= (8, 2))
    assert not any("exportTimes" in option for option in options)


@pytest.mark.parametrize(
    ("version", "without", "with_graph"),
    [((8, 2), set(), {"--useCudaGraph"}), ((10, 3), set(), {"--useCudaGraph"}), ((11, 1), {"--noCudaGraph"}, set())],
)
def test_a_cuda_graph_is_used_only_if_asked_for(version, without: set[str], with_graph: set[str]):
    graph = {"--useCudaGraph", "--noCudaGraph"}
    assert graph & set(time(version)) == without
    assert graph & set(time(version, cuda_graph=True)) == with_graph


def test_an_option_that_the_table_lacks_is_our_mistake():
    with pytest.raises(KeyError):
        has_option("explicitBatch", Version(8, 2, 1))


# --- number formats ---


@pytest.mark.parametrize("version", [(8, 0, 1), (10, 13, 0)])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_before_11_any_model_can_be_built_in_any_precision(tmp_path: Path, version, precision: Precision):
    model = small_model(tmp_path / "m.onnx")
    check_precision(precision, Version(*version), read_facts(model, "a test"), model)


@pytest.mark.parametrize(("dtype", "precision"), [(np.float32, "fp32"), (np.float32, "tf32"), (np.float16, "fp16")])
def test_from_11_on_a_model_is_built_as_it_is(tmp_path: Path, dtype: type, precision: Precision):
    model = small_model(tmp_path / "m.onnx", dtype=dtype)
    check_precision(precision, Version(11, 0, 0), read_facts(model, "a test"), model)


@pytest.mark.parametrize(
    ("dtype", "precision", "way_out"),
    [
        (np.float32, "fp16", "export it with fp16 weights, measure in another precision, or use TensorRT 10"),
        (np.float16, "fp32", "export it with fp32 weights"),
        (np.float32, "int8", "export it with quantisation nodes"),
    ],
)
def test_from_11_on_another_precision_is_refused_with_the_way_out(tmp_path: Path, dtype, precision, way_out: str):
    model = small_model(tmp_path / "m.onnx", dtype=dtype)
    with pytest.raises(UnsupportedError, match=way_out) as refused:
        check_precision(precision, Version(11, 1, 0), read_facts(model, "a test"), model)
    assert str(refused.value).startswith("m.onnx: TensorRT 11.1.0 takes the number format from the model")


def test_constants_that_are_always_fp32_do_not_make_a_model_fp32(tmp_path: Path):
    model = small_model(tmp_path / "m.onnx", dtype=np.float16)
    loaded = onnx.load(str(model))
    scales = onnx.numpy_helper.from_array(np.ones(4, np.float32), "scales")
    loaded.graph.initializer.append(scales)
    loaded.graph.node.append(onnx.helper.make_node("Resize", ["head.conv", "", "scales"], ["up"], name="up"))
    onnx.save(loaded, str(model))
    check_precision("fp16", Version(11, 0, 0), read_facts(model, "a test"), model)


def test_a_model_with_quantisation_nodes_is_int8_from_11_on(tmp_path: Path):
    model = small_model(tmp_path / "m.onnx", kinds={"stem.act": "QuantizeLinear"})
    check_precision("int8", Version(11, 0, 0), read_facts(model, "a test"), model)
