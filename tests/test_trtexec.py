"""The trtexec runtime, with a fake trtexec in place of the program: conformance, every version, every failure."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runtime_conformance import RuntimeConformance, is_one_line, names_of, small_model

from scaler.errors import MissingExtraError, UnsupportedError, UserError
from scaler.runtimes import trtexec
from scaler.runtimes.jetson import Jetson
from scaler.runtimes.protocol import ModelRejectedError, Runtime, RuntimeFailedError
from scaler.runtimes.trtexec import Trtexec, find_trtexec

FAKE = Path(__file__).parent / "fake_trtexec.py"
VERSIONS = ["8.0.1", "8.2.1", "8.4.1", "8.5.2", "8.6.2", "10.3.0", "10.13.0", "11.1.0"]


def make_program(folder: Path) -> Path:
    """A `trtexec` that is the fake."""
    path = folder / "bin" / "trtexec"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{FAKE}" "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `trtexec` that notes its calls in a file."""
    monkeypatch.setenv("FAKE_TRTEXEC_CALLS", str(tmp_path / "calls"))
    return make_program(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model(tmp_path / "small.onnx")


def runtime_of(program: Path, version: str = "8.2.1", **options: object) -> Trtexec:
    os.environ["FAKE_TRTEXEC_VERSION"] = version  # `clean_environment` puts it back
    options = {"precision": "fp32" if version.startswith("11") else "fp16", "warm_up_ms": 1} | options
    return Trtexec(program, system=Jetson(program.parent, lambda _: ""), **options)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VERSION", "FAIL", "ONLY", "FIRST", "FACTOR", "NOISE"):
        monkeypatch.delenv(f"FAKE_TRTEXEC_{name}", raising=False)
    monkeypatch.setenv("FAKE_TRTEXEC_VERSION", "8.2.1")


def calls(tmp_path: Path) -> list[list[str]]:
    """Arguments of the calls of trtexec that asked for more than its version."""
    lines = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    return [arguments for line in lines if (arguments := json.loads(line)["arguments"]) != ["--help"]]


@pytest.fixture(scope="module")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return runtime_of(make_program(tmp_path_factory.mktemp("nano")), "8.2.1")


class TestTrtexecOfNano(RuntimeConformance):
    @pytest.fixture
    def runtime(self, nano: Runtime) -> Runtime:
        return nano


@pytest.mark.slow
class TestTrtexecOfOrin(RuntimeConformance):
    @pytest.fixture
    def runtime(self, program: Path) -> Runtime:
        return runtime_of(program, "10.3.0")


# --- versions ---


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_builds_times_and_profiles(program: Path, model: Path, version: str):
    runtime = runtime_of(program, version)
    with runtime.prepare(model) as session:
        samples, layers = session.time(6), session.profile(3)
    assert str(runtime.version) == version
    assert runtime.conditions().runtime_version == version
    assert samples.shape == (6,)
    named = [name for layer in layers for name in layer.nodes]
    assert set(named) == set(names_of(model))
    assert sum(layer.ms - 0.002 for layer in layers) == pytest.approx(np.median(samples), rel=0.05)


def test_times_are_those_after_the_warm_up_whether_or_not_the_file_has_it(program: Path, model: Path):
    both = [runtime_of(program, version).prepare(model).time(4).tolist() for version in ("8.2.1", "8.5.2")]
    assert both[0] == both[1]


def test_a_model_of_another_format_is_refused_by_11_before_anything_runs(program: Path, model: Path, tmp_path: Path):
    with pytest.raises(UnsupportedError, match="takes the number format from the model, which is not fp16"):
        runtime_of(program, "11.1.0", precision="fp16").prepare(model)
    assert calls(tmp_path) == []


def test_a_half_precision_model_is_taken_by_11(program: Path, tmp_path: Path):
    model = small_model(tmp_path / "half.onnx", dtype=np.float16)
    with runtime_of(program, "11.1.0", precision="fp16").prepare(model) as session:
        assert len(session.time(2)) == 2


def test_without_onnx_11_cannot_tell_the_format(program: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    runtime = runtime_of(program, "11.1.0")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"onnx, which is not installed: pip install 'scaler-nas\[export\]'"):
        runtime.prepare(model)


def test_without_onnx_older_versions_name_layers_as_tensorrt_does(program: Path, model: Path, monkeypatch):
    runtime = runtime_of(program, "8.0.1")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with runtime.prepare(model) as session:
        assert session.profile(2)[1].nodes == ("stem.conv", "stem.act")


def test_the_oldest_versions_are_refused(program: Path):
    program.write_text('#!/bin/sh\necho "&&&& RUNNING TensorRT.trtexec # $0 $@"\n')
    with pytest.raises(UnsupportedError, match=r"older than 8\.0.*JetPack 4\.6"):
        Trtexec(program)


# --- commands ---


def test_building_timing_and_profiling_are_processes_of_their_own(program: Path, model: Path, tmp_path: Path):
    with runtime_of(program).prepare(model) as session:
        session.time(5)
        session.profile(2)
    build, timing, profile = calls(tmp_path)
    assert f"--onnx={model}" in build
    assert "--workspace=512" in build
    assert not any(option.startswith("--onnx") for option in timing + profile)
    assert "--iterations=7" in timing, "two to spare"
    assert not any("rofile" in option for option in timing)
    assert "--dumpProfile" in profile


def test_the_timing_cache_is_shared_by_all_models(program: Path, model: Path, tmp_path: Path):
    runtime = runtime_of(program)
    for _ in range(2):
        runtime.prepare(model).close()
    caches = {option for arguments in calls(tmp_path) for option in arguments if "timingCacheFile" in option}
    assert caches == {f"--timingCacheFile={runtime.timing_cache}"}
    assert runtime.timing_cache.is_file()


def test_a_timing_cache_of_ones_own_stays(program: Path, model: Path, tmp_path: Path):
    runtime_of(program, timing_cache=tmp_path / "my.cache").prepare(model).close()
    assert (tmp_path / "my.cache").is_file()


def test_closing_removes_the_engine_and_the_runtime_removes_everything(program: Path, model: Path):
    runtime = runtime_of(program)
    folder = runtime.timing_cache.parent
    session = runtime.prepare(model)
    assert len(list(folder.glob("*/model.engine"))) == 1
    session.close()
    assert list(folder.glob("*/model.engine")) == []
    del runtime, session
    assert not folder.exists()


def test_a_call_leaves_no_files_of_times_behind(program: Path, model: Path):
    runtime = runtime_of(program)
    with runtime.prepare(model) as session:
        session.time(2)
        session.profile(2)
        left = {path.name for path in runtime.timing_cache.parent.glob("*/*")}
    assert left == {"model.engine"}


def test_the_gpu_is_known_after_the_first_model(program: Path, model: Path):
    runtime = runtime_of(program)
    assert runtime.conditions().processor == "unknown GPU"
    runtime.prepare(model).close()
    conditions = runtime.conditions()
    assert conditions.processor == "NVIDIA Tegra X1"
    assert conditions.precision == "fp16"
    assert "trtexec, workspace 512 MiB" in conditions.notes


# --- finding the program ---


def test_the_program_is_found_in_the_path(program: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    assert find_trtexec() == program


def test_the_program_is_found_where_jetpack_puts_it(program: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(trtexec, "JETPACK_PLACE", program)
    assert find_trtexec() == program


def test_without_the_program_the_message_says_where_it_was_sought(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(trtexec, "JETPACK_PLACE", tmp_path / "trtexec")
    with pytest.raises(UnsupportedError, match="no trtexec in PATH and none at"):
        Trtexec()


def test_a_program_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(UnsupportedError, match=r"absent: no program that can be run"):
        Trtexec(tmp_path / "absent")


@pytest.mark.parametrize(("script", "said"), [("echo hello; exit 1", "it said: hello"), ("exit 0", "it said: nothing")])
def test_another_program_is_refused(program: Path, script: str, said: str):
    program.write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(RuntimeFailedError, match=f"does not answer like trtexec; {said}"):
        Trtexec(program)


def test_a_program_that_the_system_cannot_run_is_refused(program: Path):
    program.write_bytes(b"\x7fELF not for this processor")
    with pytest.raises(RuntimeFailedError, match="cannot be run"):
        Trtexec(program)


# --- failures ---


@pytest.mark.parametrize(
    ("failure", "error", "said"),
    [
        ("parse", ModelRejectedError, "TensorRT lacks an operator: While parsing node number 212 [NonMaxSuppression]"),
        ("build", ModelRejectedError, "TensorRT has no kernel for a layer: Error Code 10"),
        ("oom", RuntimeFailedError, "out of memory; close other programs or allow a smaller workspace"),
        ("cuda", RuntimeFailedError, "CUDA failed: Error Code 1"),
        ("killed", RuntimeFailedError, "trtexec was killed, most likely because the memory ran out"),
        ("segfault", RuntimeFailedError, "trtexec crashed (SIGSEGV)"),
        ("silent", ModelRejectedError, "trtexec ended with code 3 and said no more"),
        ("no-file", RuntimeFailedError, "trtexec says that it passed but wrote no model.engine"),
    ],
)
def test_a_build_that_fails_is_told_in_one_line(program, model, monkeypatch, failure, error, said):
    runtime = runtime_of(program)
    monkeypatch.setenv("FAKE_TRTEXEC_FAIL", f"{failure}@build")
    with pytest.raises(error) as raised:
        runtime.prepare(model)
    assert type(raised.value) is error
    assert str(raised.value).startswith("small.onnx: building the engine failed")
    assert said in str(raised.value)
    assert is_one_line(raised.value)
    assert list(runtime.timing_cache.parent.glob("*/*")) == [], "nothing is left of it"


@pytest.mark.parametrize(
    ("failure", "stage", "said"),
    [
        ("cuda", "time", "CUDA failed: Error Code 1"),
        ("killed", "profile", "was killed"),
        ("silent", "time", "trtexec ended with code 3"),
        ("truncated", "time", "what trtexec wrote is damaged"),
        ("truncated", "profile", "what trtexec wrote is damaged"),
        ("no-file", "time", "says that it passed but wrote no"),
        ("no-file", "profile", "says that it passed but wrote no"),
        ("nan", "time", "what trtexec wrote is damaged"),
        ("nan", "profile", "what trtexec wrote is damaged"),
    ],
)
def test_a_run_that_fails_is_told_in_one_line_and_its_files_are_not_used(
    program, model, monkeypatch, failure, said, stage
):
    runtime = runtime_of(program)
    with runtime.prepare(model) as session:
        monkeypatch.setenv("FAKE_TRTEXEC_FAIL", f"{failure}@{stage}")
        with pytest.raises(RuntimeFailedError) as raised:
            session.time(5) if stage == "time" else session.profile(5)
        assert said in str(raised.value)
        assert is_one_line(raised.value)
        monkeypatch.delenv("FAKE_TRTEXEC_FAIL")
        assert len(session.time(5)) == 5, "the session stays usable"


def test_a_failure_concerns_only_its_model(program: Path, model: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("FAKE_TRTEXEC_FAIL", "parse")
    monkeypatch.setenv("FAKE_TRTEXEC_ONLY", "other.onnx")
    runtime = runtime_of(program)
    with pytest.raises(ModelRejectedError, match=r"other\.onnx"):
        runtime.prepare(small_model(tmp_path / "other.onnx"))
    assert len(runtime.prepare(model).time(2)) == 2


def test_an_operator_that_tensorrt_lacks_is_named(program: Path, tmp_path: Path):
    model = small_model(tmp_path / "odd.onnx", kinds={"body.swish": "GridSample"})
    with pytest.raises(ModelRejectedError, match=r"odd\.onnx: building the engine failed.*GridSample"):
        runtime_of(program).prepare(model)


def test_broken_layer_information_costs_no_times(program: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trtexec, "read_layer_info", lambda path: trtexec.read_times(path, warm_up_ms=0))
    with runtime_of(program).prepare(model) as session:
        layers = session.profile(2)
    assert [layer.kind for layer in layers] == ["Reformat", "", "", "", "", ""]
    assert layers[1].nodes == ("stem.conv", "stem.act")


def test_a_process_that_takes_too_long_is_ended(program: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    runtime = runtime_of(program, timeout=0.5)
    monkeypatch.setenv("FAKE_TRTEXEC_FAIL", "hang@build")
    with pytest.raises(RuntimeFailedError, match=r"trtexec took longer than 0\.5 s"):
        runtime.prepare(model)
    assert children_of(os.getpid()) == []


def children_of(pid: int) -> list[str]:
    found = subprocess.run(
        ["ps", "-ww", "-o", "args=", "--ppid", str(pid)], capture_output=True, text=True, check=False
    )
    return [line for line in found.stdout.splitlines() if "fake_trtexec" in line]


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_an_interrupt_ends_the_process(program: Path, model: Path, tmp_path: Path):
    script = (
        "import sys; from pathlib import Path; from scaler.runtimes.trtexec import Trtexec\n"
        "Trtexec(sys.argv[1]).prepare(Path(sys.argv[2]))\n"
    )
    environment = {**os.environ, "FAKE_TRTEXEC_FAIL": "hang@build", "PYTHONPATH": str(FAKE.parent.parent)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(program), str(model)], env=environment, stderr=subprocess.PIPE, text=True
    )
    with parent:
        waiting = time.monotonic() + 300  # a busy machine is slow to start two interpreters
        while not any("--onnx=" in child for child in children_of(parent.pid)):
            assert parent.poll() is None
            assert time.monotonic() < waiting, children_of(parent.pid)
            time.sleep(0.1)
        (child,) = [c for c in children_of(parent.pid) if "--onnx=" in c]
        parent.send_signal(signal.SIGINT)
        _, errors = parent.communicate(timeout=300)
    assert "KeyboardInterrupt" in errors
    alive = subprocess.run(
        ["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert child not in alive


def test_errors_are_the_users_to_read(program: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    runtime = runtime_of(program)
    monkeypatch.setenv("FAKE_TRTEXEC_FAIL", "oom@build")
    with pytest.raises(UserError) as raised:
        runtime.prepare(model)
    assert raised.value.exit_code == 1
