"""Bundles: what lies in them, that they are whole, small and equal for equal plans; that an old Python runs them."""

import ast
import hashlib
import importlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from bundle_device import AGENT, tiny_plan
from onnx import TensorProto

from scaler.errors import UnsupportedError, UsageError, UserError
from scaler.profiling.bundle import strongly_typed, write_bundle
from scaler.profiling.bundle_archive import FOLDER as RESULTS_FOLDER
from scaler.profiling.measurement import LARGEST_SPREAD
from scaler.profiling.plan_file import Planned, read_plan
from scaler.runtimes.tensorrt_version import Version
from scaler.runtimes.trtexec_flags import TrtexecSettings, build_options, profile_options, time_options

FIXED = {"backbone": "mobilenetv2", "width": 0.35, "drop": 4, "neck": "none"}
VERSIONS = [(8, 0, 1), (8, 2, 1), (8, 4, 1), (8, 5, 2), (8, 6, 2), (10, 3, 0), (10, 13, 0), (11, 1, 0)]


def unpacked(bundle: Path) -> dict[str, bytes]:
    """The files of a bundle by their path in it."""
    with tarfile.open(bundle) as archive:
        return {
            member.name.removeprefix("scaler-bundle/"): archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
        }


def test_a_bundle_holds_the_plan_its_networks_and_what_measures_them(tmp_path):
    plan = tiny_plan(tmp_path)
    told: list[tuple[int, int]] = []

    summary = write_bundle(plan, tmp_path / "b.tar.gz", progress=lambda *step: told.append(step))

    files = unpacked(summary.path)
    models = {f"models/{name}.onnx" for name in ("reference", *(planned.network for planned in plan.networks))}
    programs = {"measure.sh", "measure.py", "bench.py", "device.py"}
    assert set(files) == models | programs | {"README.txt", "plan.json", "bundle.json", "SHA256SUMS"}
    (tmp_path / "plan.json").write_bytes(files["plan.json"])
    assert read_plan(tmp_path / "plan.json") == plan
    assert summary.networks == 2
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert summary.packed_bytes == summary.path.stat().st_size
    assert summary.unpacked_bytes == sum(map(len, files.values())) - len(files["SHA256SUMS"])


def test_the_checksums_are_those_of_all_other_files(tmp_path):
    files = unpacked(write_bundle(tiny_plan(tmp_path), tmp_path / "b.tar.gz").path)

    sums = dict(line.split("  ")[::-1] for line in files.pop("SHA256SUMS").decode().splitlines())

    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def test_equal_plans_give_equal_bytes_and_other_plans_do_not(tmp_path):
    first = write_bundle(tiny_plan(tmp_path), tmp_path / "first.tar.gz").path.read_bytes()
    second = write_bundle(tiny_plan(tmp_path), tmp_path / "second.tar.gz").path.read_bytes()
    other = write_bundle(tiny_plan(tmp_path, precision="fp32"), tmp_path / "other.tar.gz").path.read_bytes()

    assert first == second
    assert first != other


def test_the_models_are_those_of_the_plan_and_compress(tmp_path):
    plan = tiny_plan(tmp_path, batch=2, opset=11)

    summary = write_bundle(plan, tmp_path / "b.tar.gz")

    files = unpacked(summary.path)
    for planned in plan.networks:
        model = onnx.load_from_string(files[f"models/{planned.network}.onnx"])
        onnx.checker.check_model(model, full_check=True)
        side = planned.params["resolution"]
        assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [2, 3, side, side]
        assert model.opset_import[0].version == 11
        weights = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
        assert all(np.isfinite(array).all() for array in weights)
        filters = max(weights, key=np.size)
        assert len(np.unique(filters.reshape(len(filters), -1), axis=0)) == len(filters)
    assert summary.packed_bytes < summary.unpacked_bytes / 10


def test_a_strongly_typed_bundle_computes_in_half_precision_between_single_ends(tmp_path):
    files = unpacked(write_bundle(tiny_plan(tmp_path), tmp_path / "b.tar.gz", typed=True).path)

    model = onnx.load_from_string(files["models/reference.onnx"])

    onnx.checker.check_model(model, full_check=True)
    ends = [*model.graph.input, *model.graph.output]
    assert {value.type.tensor_type.elem_type for value in ends} == {TensorProto.FLOAT}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    inner = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    convolutions = {name for node in model.graph.node if node.op_type == "Conv" for name in node.output}
    assert {inner[name] for name in convolutions & set(inner)} == {TensorProto.FLOAT16}
    assert json.loads(files["bundle.json"])["strongly_typed"] is True


def test_a_strongly_typed_model_computes_the_same_up_to_rounding():
    from onnx_sessions import picture, run

    from scaler.export.onnx_model import to_onnx
    from scaler.export.weights import random_weights
    from scaler.models.detectors.yolo_ret import YoloRetConfig, build

    graph = build(
        YoloRetConfig(backbone="mobilenetv2", width=0.35, drop=2, neck="panet", rfcr=3, resolution=160, classes=20)
    )
    model = to_onnx(graph, weights=random_weights())
    image = picture(1, 3, 160, 160)

    exact, half = run(model, image), run(strongly_typed(model), image)

    assert exact.keys() == half.keys()
    for name in exact:
        assert np.abs(exact[name] - half[name]).mean() < 0.03 * np.abs(exact[name]).mean()


def test_single_precision_needs_no_typing(tmp_path):
    plan = tiny_plan(tmp_path, precision="fp32")

    assert write_bundle(plan, tmp_path / "a.tar.gz", typed=True).path.read_bytes() == (
        write_bundle(plan, tmp_path / "b.tar.gz").path.read_bytes()
    )


@pytest.mark.parametrize(
    ("changes", "typed", "error", "message"),
    [
        ({"runtime": "onnxruntime"}, False, UsageError, "the plan is for onnxruntime"),
        ({"precision": "int8"}, True, UnsupportedError, "quantisation nodes"),
        ({"digest": "0123456789abcdef"}, False, UserError, "has changed since the plan was made"),
        ({"dataset": "vox"}, False, UsageError, "unknown data set 'vox'; did you mean 'voc'?"),
        ({"reference": {**FIXED, "resolution": 161}}, False, UsageError, "resolution = 161"),
        ({"networks": (Planned(network="../a", params={}),)}, False, UsageError, "'../a' cannot be a file"),
        ({"networks": (Planned(network="reference", params={}),)}, False, UsageError, "not 'reference'"),
        ({"opset": 99}, False, UsageError, "opset = 99"),
    ],
)
def test_a_plan_that_cannot_be_bundled_is_refused_in_one_line(tmp_path, changes, typed, error, message):
    plan = tiny_plan(tmp_path, **changes)

    with pytest.raises(error, match=re.escape(message)) as caught:
        write_bundle(plan, tmp_path / "b.tar.gz", typed=typed)

    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "b.tar.gz").exists()


def test_a_place_that_is_not_there_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        write_bundle(tiny_plan(tmp_path), tmp_path / "nowhere" / "b.tar.gz")

    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]


# --- the programs that go along ---


@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_the_script_is_correct_for_a_plain_shell(shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")

    done = subprocess.run([shell, "-n", str(AGENT / "measure.sh")], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


NEWER_THAN_3_6 = re.compile(
    r"capture_output|text=|missing_ok|dirs_exist_ok|removeprefix|removesuffix|fmean|\.prod\(|_ns\(|unlink\(True|"
    r"from __future__|dataclass|@cache\b|breakpoint\(|fromisoformat|is_relative_to|readlink|with_stem|nullcontext|"
    r"\| None|isascii|shlex\.join|perf_counter_ns|\|=|: (list|dict|tuple|set)\[|-> (list|dict|tuple|set)\["
)
MODULES_OF_3_6 = frozenset(
    "argparse contextlib ctypes fcntl hashlib json os pathlib re shutil signal statistics subprocess".split()  # noqa: SIM905
) | {"sys", "tarfile", "time", "typing"}


@pytest.mark.parametrize("name", ["measure.py", "bench.py", "device.py"])
def test_the_programs_are_python_3_6_with_nothing_but_its_library(name):
    source = (AGENT / name).read_text(encoding="ascii")

    tree = ast.parse(source, feature_version=(3, 6))

    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    assert imported - {"bench", "device"} <= MODULES_OF_3_6
    assert NEWER_THAN_3_6.findall(source) == []
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.NamedExpr | ast.Match)]
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr)] or (
        name == "measure.py"  # the flags of the lock
    )


@pytest.fixture
def agent(monkeypatch) -> Iterator[dict[str, ModuleType]]:
    """The programs as modules."""
    monkeypatch.syspath_prepend(AGENT)
    names = ("device", "bench", "measure")
    try:
        yield {name: importlib.import_module(name) for name in names}
    finally:
        for name in names:
            sys.modules.pop(name, None)


def test_the_programs_agree_with_what_reads_their_results(agent):
    assert agent["bench"].LARGEST_SPREAD == LARGEST_SPREAD
    assert agent["measure"].ARCHIVE_FOLDER == RESULTS_FOLDER
    assert agent["bench"].spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx((4 - 2) / 3)


def names_of(options: list[str]) -> set[str]:
    """Options without the files and numbers that may differ between the two programs."""
    return {re.sub(r"=.*[/.].*|(?<=warmUp)=.*", "", option) for option in options} - {"--iterations", "--avgRuns"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "int8"])
def test_the_device_gives_trtexec_the_options_that_scaler_gives_it(agent, version, precision):
    if version >= (11,) and precision in ("fp16", "int8"):
        with pytest.raises(agent["device"].StopError, match="strongly typed"):
            agent["device"].build_flags(version, precision, False)
        return
    flags = agent["device"].build_flags(version, precision, False)
    trtexec = agent["device"].Trtexec("trtexec", version, flags)
    values = dict.fromkeys(("model", "engine", "cache", "times", "profile", "layers"), "/a.b")
    settings = TrtexecSettings(precision=precision, workspace_mib=512, warm_up_ms=1000, cuda_graph=False)
    file, known = Path("/a.b"), Version(*version)

    ours = {
        stage: names_of([re.sub(r"duration=\d+", "duration=0", option) for option in command[1:]])
        for stage in ("build", "time", "profile")
        for command in [trtexec.command(stage, workspace=512, warm_up=1000, duration=3, **values)]
    }

    without = {"--iterations=9", "--avgRuns=9"}
    assert ours["build"] == names_of(build_options(settings, known, file, file, file))
    assert ours["time"] == names_of(time_options(settings, known, file, 9, file)) - without
    theirs = names_of(profile_options(settings, known, file, 9, file, file)) - without
    assert ours["profile"] | {"--nvtxMode=verbose"} == theirs | {"--nvtxMode=verbose"}


def test_a_full_disk_is_noticed_before_anything_is_measured(agent, tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    for name in ("a", "reference"):
        (tmp_path / "models" / f"{name}.onnx").write_bytes(b"0" * 2**20)
    bundle = agent["bench"].Bundle(tmp_path, {"networks": [{"network": "a"}]}, False)
    usage = shutil.disk_usage(tmp_path)._replace(free=10 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    with pytest.raises(agent["device"].StopError, match=r"10 MiB are free, \d+ are needed"):
        agent["measure"].check_disk(bundle, tmp_path)
