"""Bundles measured on a device with a fake trtexec: every version, killed, crashing, without Python, without rights."""

import fcntl
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from bundle_device import NANO_FILES, FakeDevice, end_agent, python_3_6, tiny_plan

from scaler.profiling.bundle import write_bundle
from scaler.profiling.bundle_import import Refused, read_results
from scaler.profiling.plan_file import Plan

SLOW = pytest.mark.slow


def programs(*quick: bool) -> pytest.MarkDecorator:
    """Runs a test with measure.py and with the shell alone, one of them perhaps only when there is time."""
    cases = [pytest.param(p, id="python" if p else "shell", marks=() if p in quick else SLOW) for p in (True, False)]
    return pytest.mark.parametrize("python", cases)


PYTHON_FIRST, SHELL_FIRST, BOTH_SLOWLY = programs(True), programs(False), programs()


def some(quick: dict[str, bool], slow: list[str]) -> list[object]:
    """Cases by name: some with one of the two programs, all others with both when there is time."""

    def case(name: str, python: bool, *marks: pytest.MarkDecorator) -> object:
        return pytest.param(name, python, id=f"{name}-{'python' if python else 'shell'}", marks=marks)

    rest = [(name, python) for name in [*quick, *slow] for python in (True, False) if quick.get(name) is not python]
    return [case(*pair) for pair in quick.items()] + [case(*pair, SLOW) for pair in rest]


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Plan:
    return tiny_plan(tmp_path_factory.mktemp("space"))


@pytest.fixture(scope="module")
def bundle(plan, tmp_path_factory) -> Path:
    return write_bundle(plan, tmp_path_factory.mktemp("bundle") / "bundle.tar.gz").path


@pytest.fixture(scope="module")
def one(tmp_path_factory) -> Plan:
    """A plan of one network."""
    return tiny_plan(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def plain_and_typed(one, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    plain, typed = (write_bundle(one, folder / f"{typed}.tar.gz", typed=typed).path for typed in (False, True))
    return plain, typed


@pytest.fixture(scope="module")
def memory(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("memory")


@pytest.fixture
def device(bundle, memory, tmp_path) -> FakeDevice:
    return FakeDevice(tmp_path / "device", memory).unpack(bundle)


def without_python(device: FakeDevice, python: bool) -> FakeDevice:
    device.python = device.python if python else None
    return device


VERSIONS = ["8.0.1", "8.2.1", "10.3.0", "11.1.0", *(pytest.param(v, marks=SLOW) for v in ("8.4.3", "8.5.2", "8.6.2"))]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_of_tensorrt_measures_the_same_with_and_without_python(
    plain_and_typed, memory, one, tmp_path, version
):
    chosen = plain_and_typed[version.startswith("11")]
    calls, found = [], []
    for python in (True, False):
        device = FakeDevice(tmp_path / str(python), memory, version).unpack(chosen)
        assert without_python(device, python).measure().code == 0
        calls.append([[re.sub("=/.*/", "=", option) for option in call] for call in device.calls])
        found.append(read_results(device.archive, plan=one, device="nano", precision="fp16", tensorrt=version))

    assert calls[0] == calls[1]
    first, second = ([replace(m, seconds=0) for m in each.measurements] for each in found)
    assert first == second
    assert found[0].refused == ()
    assert [m.network for m in first] == [planned.network for planned in one.networks]
    for measurement in first:
        assert (measurement.error, measurement.warnings) == ("", ())
        assert measurement.conditions.runtime_version == version
        (once,) = measurement.rounds
        assert len(once.network_ms) > 10
        assert len(once.reference_ms) > 20
        assert {name for layer in measurement.layers for name in layer.nodes} >= {"backbone.stem.unit.conv"}
        layers = sum(layer.ms for layer in measurement.layers)
        assert layers == pytest.approx(sum(once.network_ms) / len(once.network_ms), rel=0.1)


@PYTHON_FIRST
def test_what_the_system_tells_is_read_back(device, python):
    device.files(NANO_FILES)
    device.tool("nvpmodel", "echo 'NV Power Mode: MAXN'; echo 0")
    device.tool(
        "jetson_clocks",
        "echo 'GPU MinFreq=921600000 MaxFreq=921600000 CurrentFreq=921600000'; "
        "echo 'EMC MinFreq=204000000 MaxFreq=1600000000 CurrentFreq=1600000000 FreqOverride=1'",
    )
    device.tool("tegrastats", "echo 'RAM 1203/3964MB CPU [2%@1479] EMC_FREQ 0%@1600 GR3D_FREQ 0%@921 GPU@31.5C'")

    done = without_python(device, python).measure("--retry-failed")

    assert done.code == 0
    for measurement in read_results(device.archive, power_mode="10W").measurements:
        conditions = measurement.conditions
        assert conditions.power_mode == "MAXN"
        assert conditions.clocks_mhz["gpu"] == 921.6
        assert conditions.clocks_mhz["emc"] == 1600
        assert conditions.clocks_pinned is True
        assert conditions.temperature_c == 41.5
        assert conditions.processor == "NVIDIA Tegra X1"
        assert "L4T 32.7.1" in conditions.notes
        assert measurement.warnings == ()


@SHELL_FIRST
def test_what_is_not_permitted_is_noted_and_does_not_stop_anything(device, python):
    device.files({**NANO_FILES, "sys/class/devfreq/57000000.gpu/min_freq": "76800000\n"})
    device.tool("nvpmodel", "echo 'NVPM ERROR: failed to read PARAM GPU' >&2; exit 13")
    device.tool("jetson_clocks", "echo 'Error: Please run as root(sudo)'; exit 1")

    done = without_python(device, python).measure()

    assert done.code == 0
    for measurement in read_results(device.archive).measurements:
        notes = measurement.conditions.notes
        assert "jetson_clocks was not permitted; it said: Error: Please run as root(sudo)" in notes
        assert "nvpmodel was not permitted; it said: NVPM ERROR: failed to read PARAM GPU" in notes
        assert "the power mode is taken to be MAXN, as planned" in notes
        assert measurement.warnings == ("the clocks were not pinned",)


REASONS = {
    "oom": "building the engine of {} failed, out of memory",
    "killed": "building the engine of {}: trtexec was killed (signal 9), probably because memory ran out",
    "segfault": "building the engine of {}: trtexec crashed (signal 11)",
    "parse": "building the engine of {} failed, TensorRT lacks an operator",
    "silent": "building the engine of {}: trtexec failed (code 3)",
    "hang": "building the engine of {}: trtexec was stopped after 1 s",
}


@pytest.mark.parametrize(
    ("kind", "python"), some({"oom": True, "killed": False}, ["segfault", "parse", "silent", "hang"])
)
def test_a_network_that_fails_is_written_down_and_left_out(device, plan, python, kind):
    first, second = (planned.network for planned in plan.networks)
    device.environment = {"FAKE_TRTEXEC_FAIL": f"{kind}@build", "FAKE_TRTEXEC_ONLY": f"{first}.onnx"}
    limit = ("--build-timeout", "1") if kind == "hang" else ()

    done = without_python(device, python).measure(*limit)

    assert done.code == 0
    failed, measured = read_results(device.archive).measurements
    assert failed.error.startswith(REASONS[kind].format(first))
    assert (failed.rounds, failed.layers) == ((), ())
    assert (measured.network, measured.error) == (second, "")
    device.environment = {}
    device.measure()
    assert device.builds[first] == 1
    device.measure("--retry-failed")
    assert [device.result(network)["error"] for network in (first, second)] == ["", ""]
    assert device.builds == {first: 2, second: 1, "reference": 1}


@pytest.mark.parametrize(("kind", "python"), some({"nan": False}, ["truncated", "no-file"]))
def test_times_that_trtexec_spoils_are_a_failure_of_the_network(device, plan, python, kind):
    first = plan.networks[0].network
    device.environment = {"FAKE_TRTEXEC_FAIL": f"{kind}@time", "FAKE_TRTEXEC_ONLY": f"{first}.engine"}

    without_python(device, python).measure()

    failed, measured = read_results(device.archive).measurements
    assert failed.error == "timing the network: trtexec wrote no usable times-network-0.json"
    assert measured.error == ""


@PYTHON_FIRST
def test_a_network_whose_profile_fails_keeps_its_times(device, plan, python):
    device.environment = {"FAKE_TRTEXEC_FAIL": "cuda@profile", "FAKE_TRTEXEC_ONLY": plan.networks[0].network}

    without_python(device, python).measure()

    first, second = read_results(device.archive).measurements
    assert (first.error, len(first.rounds), first.layers) == ("", 1, ())
    assert first.warnings == ("there are no layer times",)
    assert "profiling: trtexec failed (code 1)" in first.conditions.notes
    assert second.layers


@PYTHON_FIRST
def test_a_reference_that_fails_stops_everything_with_the_reason(device, python):
    device.environment = {"FAKE_TRTEXEC_FAIL": "oom@time", "FAKE_TRTEXEC_ONLY": "reference"}

    done = without_python(device, python).measure()

    assert done.code == 1
    assert "error: the reference cannot be measured: timing the reference: trtexec failed (code 1)" in done.err
    assert "OutOfMemory" in done.err
    assert not device.archive.exists()


def test_rounds_that_disagree_are_measured_again_and_the_steadiest_are_kept(device, plan):
    noisy = "if [ $call -lt 11 ]; then FAKE_TRTEXEC_FACTOR=$((20 + call % 3 * 10)); export FAKE_TRTEXEC_FACTOR; fi"
    device.wrapper = noisy

    done = device.measure("--rounds", "3")

    assert done.code == 0
    first, second = read_results(device.archive).measurements
    assert (first.tries, second.tries) == (2, 1)
    assert first.warnings == ()


@SLOW
def test_rounds_that_never_agree_are_flagged(device, plan):
    device.wrapper = "FAKE_TRTEXEC_FACTOR=$((20 + call % 3 * 10)); export FAKE_TRTEXEC_FACTOR"

    device.measure("--rounds", "4")

    for measurement in read_results(device.archive).measurements:
        assert measurement.tries == 3
        (warning, *_) = [text for text in measurement.warnings if "spread" in text]
        assert warning.endswith("% after 3 tries")


# --- killed ---


def resume(device: FakeDevice, plan: Plan, done_before: set[str]) -> None:
    """Run to the end; nothing that was done before is measured again, and all is there."""
    builds = device.builds
    device.wrapper = ""
    device.tool("nvpmodel", "echo 'NV Power Mode: MAXN'; echo 0")

    done = device.measure()

    assert done.code == 0, done.err
    found = read_results(device.archive, plan=plan)
    assert found.refused == ()
    assert [m.error for m in found.measurements] == ["", ""]
    assert all(device.builds[network] == builds[network] for network in done_before)
    assert all(device.builds[p.network] == builds[p.network] + 1 for p in plan.networks if p.network not in done_before)
    assert [path.name for path in (device.bundle / "results" / "work").glob("*.engine*")] == ["reference.engine"]


@pytest.mark.parametrize(
    ("call", "python"), some({"6": False, "11": True}, [str(n) for n in range(1, 16) if n not in (6, 11)])
)
def test_killed_during_any_call_of_trtexec_it_goes_on_where_it_was(device, plan, python, call):
    """Two networks take 15 calls: the probe, 2 for the reference, 6 a network."""
    without_python(device, python)
    device.wrapper = f"if [ $call = {call} ]; then {end_agent(device)}; exit 0; fi"
    killed = device.measure()
    assert killed.code in (-9, 137)

    resume(device, plan, device.finished)


@pytest.mark.parametrize(("moment", "python"), some({"2": False}, ["1", "3", "4"]))
def test_killed_while_it_notes_the_conditions_it_goes_on_where_it_was(device, plan, python, moment):
    without_python(device, python)
    count = f'echo x >>"{device.home}/asked"; [ $(wc -l <"{device.home}/asked") != {moment} ] || {end_agent(device)}'
    device.tool("nvpmodel", f"{count}; echo 'NV Power Mode: MAXN'; echo 0")
    device.measure()
    assert len(device.finished) == (int(moment) - 1) // 2

    resume(device, plan, device.finished)


@SLOW
def test_killed_while_it_packs_it_packs_again(device, plan):
    device.measure()
    whole = read_results(device.archive)
    device.archive.with_name("results.tar.gz.tmp").write_bytes(b"half an archive")
    device.archive.unlink()

    resume(device, plan, device.finished)

    assert read_results(device.archive) == whole


@PYTHON_FIRST
def test_stopped_by_the_user_it_goes_on_where_it_was(device, plan, python):
    without_python(device, python)
    device.wrapper = f"if [ $call = 6 ]; then {end_agent(device, 'TERM')}; sleep 5; fi"

    stopped = device.measure()

    assert stopped.code == 130
    assert stopped.err.endswith("stopped; run again to go on\n")
    assert not list((device.bundle / "results" / "work" / "begun").glob("*"))
    resume(device, plan, device.finished)


@BOTH_SLOWLY
def test_under_nohup_it_goes_on_when_the_terminal_goes_away(device, plan, python):
    without_python(device, python)
    device.wrapper = f"if [ $call = 6 ]; then {end_agent(device, 'HUP')}; fi"

    done = device.measure(under=(shutil.which("nohup") or "nohup",))

    assert done.code == 0
    assert device.finished == {planned.network for planned in plan.networks}
    assert len(device.calls) == 14


@SLOW
def test_what_was_damaged_meanwhile_is_measured_again(device, plan):
    device.measure()
    network = plan.networks[1].network
    (device.bundle / "results" / "networks" / network / "times-network-0.json").write_text("[]")

    resume(device, plan, {plan.networks[0].network})


@SLOW
def test_a_network_that_takes_the_device_down_is_left_out_after_three_times(device, plan):
    first = plan.networks[0].network
    device.wrapper = f'case "$*" in *{first}.onnx*) {end_agent(device)}; exit 0 ;; esac'
    for _ in range(3):
        assert device.measure().code in (-9, 137)

    done = device.measure()

    assert done.code == 0
    failed, measured = read_results(device.archive).measurements
    assert failed.error == "the device or this program died 3 times while it was measured"
    assert measured.error == ""
    assert device.builds[first] == 0  # the fake never ran


@BOTH_SLOWLY
def test_a_trtexec_that_outlives_its_caller_is_ended(device, python):
    without_python(device, python)
    alive = device.home / "alive"
    device.wrapper = f'if [ $call = 4 ]; then echo $$ >"{alive}"; {end_agent(device)}; exec sleep 60; fi'
    device.measure()
    device.wrapper = ""

    assert device.measure().code == 0

    process = Path("/proc", alive.read_text().strip(), "cmdline")
    assert not process.exists() or not process.read_bytes()  # gone, or nobody has asked yet how it ended


# --- one run at a time, of one thing ---


def test_two_runs_in_one_folder_are_refused(device):
    device.measure()
    with (device.bundle / "results" / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        done = device.measure()

    assert (done.code, done.err) == (1, f"error: another run is at work in {device.bundle}/results\n")


@SLOW
def test_two_runs_of_the_shell_in_one_folder_are_refused(device):
    without_python(device, False).measure()
    with subprocess.Popen(["sleep", "60"]) as other:
        (device.bundle / "results" / "work" / "pid").write_text(f"{other.pid}\n")
        stale = device.measure()  # the id now belongs to something else
        other.kill()
    with subprocess.Popen(["sh", "-c", "exec sh -c 'read line' measure"], stdin=subprocess.PIPE) as other:
        (device.bundle / "results" / "work" / "pid").write_text(f"{other.pid}\n")
        refused = device.measure()

    assert stale.code == 0
    assert (refused.code, refused.err) == (1, f"error: another run is at work in {device.bundle}/results\n")


@BOTH_SLOWLY
def test_results_of_another_tensorrt_or_setting_are_not_mixed(device, python):
    without_python(device, python).measure()

    other_setting = device.measure("--rounds", "2")
    device.version = "8.0.1"
    other_version = device.measure()

    for done in (other_setting, other_version):
        assert done.code == 1
        assert "name another folder with --out" in done.err


@SLOW
def test_the_shell_goes_on_where_python_was_and_the_other_way_round(device, plan):
    device.wrapper = f"if [ $call = 10 ]; then {end_agent(device)}; exit 0; fi"
    device.measure()
    before = device.finished
    device.python = None

    resume(device, plan, before)

    assert len(before) == 1


@BOTH_SLOWLY
def test_packing_alone_measures_nothing(device, plan, python):
    device.wrapper = f"if [ $call = 10 ]; then {end_agent(device)}; exit 0; fi"
    without_python(device, python).measure()
    device.wrapper = ""
    calls = len(device.calls)

    assert device.measure("--pack").code == 0

    assert len(device.calls) == calls
    found = read_results(device.archive)
    assert [m.network for m in found.measurements] == [plan.networks[0].network]
    assert found.refused == (Refused(plan.networks[1].network, "not measured"),)


# --- nothing to start with ---


@PYTHON_FIRST
def test_a_damaged_bundle_is_refused(device, python):
    without_python(device, python)
    model = device.bundle / "models" / "reference.onnx"
    model.write_bytes(model.read_bytes()[:-1])

    damaged = device.measure()
    (device.bundle / "SHA256SUMS").unlink()
    unlisted = device.measure()

    assert damaged.err == (
        "error: the bundle is damaged: models/reference.onnx is missing or changed; copy and unpack it again\n"
    )
    assert unlisted.err == (
        f"error: {device.bundle} is no whole bundle: there is no SHA256SUMS; unpack the bundle again\n"
    )
    assert (damaged.code, unlisted.code) == (1, 1)


@SHELL_FIRST
@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("exit 0", "does not tell its version; it said: "),
        ("echo 'error while loading shared libraries: libnvinfer.so.8'; exit 127", "it said: error while loading"),
        ("echo '&&&& RUNNING TensorRT.trtexec [TensorRT v7103] # trtexec'", "TensorRT 7.1.3 is too old"),
        ("echo '&&&& RUNNING TensorRT.trtexec [TensorRT v110100] [b49] # trtexec'", "write the bundle strongly typed"),
    ],
)
def test_a_trtexec_that_cannot_serve_is_refused(device, python, program, reason):
    device.tool("other", program)

    done = without_python(device, python).measure("--trtexec", str(device.bin / "other"))

    assert done.code == 1
    assert reason in done.err
    assert len(done.err.splitlines()) == 1


@SHELL_FIRST
def test_a_typed_bundle_is_refused_by_old_versions(plain_and_typed, memory, tmp_path, python):
    device = FakeDevice(tmp_path / "device", memory).unpack(plain_and_typed[1])

    done = without_python(device, python).measure()

    assert done.code == 1
    assert "this bundle is strongly typed, which TensorRT 8.2.1 does not know" in done.err


@SHELL_FIRST
def test_without_trtexec_it_says_where_it_comes_from(device, python):
    without_python(device, python)
    device.version = ""

    done = device.measure()

    assert done.code == 1
    assert done.err == (
        "error: there is no trtexec; JetPack brings it (package libnvinfer-bin); name its place with --trtexec\n"
    )


@SHELL_FIRST
@pytest.mark.parametrize("options", [("--rounds", "0"), ("--rounds", "x"), ("--unknown",), ("--duration",)])
def test_wrong_options_are_refused(device, python, options):
    done = without_python(device, python).measure(*options)

    assert done.code != 0
    assert "error:" in done.err
    assert not (device.bundle / "results").exists()


@SLOW
def test_it_runs_on_a_real_python_3_6(device, plan):
    old = python_3_6()
    if not old:
        pytest.skip("no Python 3.6: name one with SCALER_PYTHON36")
    device.python = old
    device.files(NANO_FILES)
    device.tool("nvpmodel", "echo 'NV Power Mode: MAXN'; echo 0")
    device.tool("tegrastats", "while :; do echo 'RAM 1203/3964MB GR3D_FREQ 0%@921 GPU@31.5C'; sleep 0.1; done")
    device.wrapper = f"if [ $call = 7 ]; then {end_agent(device)}; exit 0; fi"
    assert device.measure().code in (-9, 137)

    resume(device, plan, device.finished)
