"""`scaler profile` and `scaler verify` as a user types them."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from scaler.cli import run as scaler
from scaler.devices import load_host
from scaler.profiling.plan_file import read_plan

SMALL = """
schema_version = 1
name = "small"
family = "yolo-ret"
description = "small networks, quick to measure"

[parameters.backbone]
choices = ["mobilenetv2"]

[parameters.width]
choices = [0.35, 0.5]

[parameters.drop]
range = [2, 4, 1]

[parameters.neck]
choices = ["none", "fpn"]

[parameters.resolution]
range = [160, 224, 32]
"""


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of the user's data, and a working folder with a small space."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("SCALER_DATA_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    Path("small.toml").write_text(SMALL)
    return folder


def refused(capsys, *arguments: str) -> str:
    """The one line with which a command ends."""
    assert scaler(arguments) in (1, 2)
    error = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "\n".join(error)
    return error[-1]


def test_a_plan_says_what_its_networks_cover_and_is_written(data, capsys):
    assert scaler(["profile", "plan", "--device", "host", "--space", "small.toml", "-n", "5", "-o", "plan.json"]) == 0

    out = capsys.readouterr().out
    assert "one engine a kernel would be" in out
    plan = read_plan("plan.json")
    assert (plan.device, plan.power_mode, plan.runtime, plan.precision) == ("host", "1-thread", "onnxruntime", "fp32")
    assert len(plan.networks) == 5


def test_the_coverage_of_a_plan_grows_with_its_networks(data, capsys):
    assert scaler(["profile", "plan", "--device", "nano", "--space", "small.toml", "-n", "6", "--json"]) == 0

    rows = json.loads(capsys.readouterr().out)
    assert [row["networks"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for figure in ("shapes", "pairs", "kernels", "work"):
        values = [row[figure] for row in rows]
        assert values == sorted(values)
        assert 0 < values[0] <= values[-1] <= 1


def test_a_device_that_is_elsewhere_is_measured_by_a_bundle(data, capsys):
    line = refused(capsys, "profile", "run", "--device", "nano", "--space", "small.toml")

    assert "scaler profile bundle --device nano" in line


def test_a_cpu_has_no_tensorrt(data, capsys):
    assert "does not run on a CPU" in refused(capsys, "profile", "run", "--device", "host", "--runtime", "trtexec")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("profile", "run", "--device", "hosst"), "did you mean 'host'"),
        (("profile", "run", "--device", "host", "--runtime", "onnxruntim"), "did you mean 'onnxruntime'"),
        (("profile", "run", "--device", "host", "--precision", "fp16"), "fp32"),
        (("profile", "run", "--device", "host", "--power-mode", "99-threads"), "1-thread"),
        (("profile", "run", "--device", "host", "--plan", "none.json"), "no such file"),
        (("profile", "plan", "--device", "host", "--space", "nowhere"), "search space"),
        (("profile", "import", "nothing.tar.gz"), "nothing.tar.gz"),
        (("profile", "import", "small.toml"), "small.toml"),
        (("profile", "validate", "--device", "host"), "scaler profile run --device host"),
        (("profile", "validate", "--device", "nano"), "no measured table"),
        (("profile", "run", "--device", "host", "--transfer-from", "nowhere"), "nowhere"),
        (("verify", "pareto.json"), "no such file"),
    ],
)
def test_a_mistake_is_told_in_one_line(data, capsys, arguments, word):
    assert word in refused(capsys, *arguments)


def test_a_plan_of_another_device_is_refused(data, capsys):
    scaler(["profile", "plan", "--device", "nano", "--space", "small.toml", "-n", "4", "-o", "plan.json"])

    assert "plan.json is for nano" in refused(capsys, "profile", "run", "--device", "host", "--plan", "plan.json")


def test_a_plan_of_several_pictures_is_refused(data, capsys):
    scaler(["profile", "plan", "--device", "host", "--space", "small.toml", "-n", "4", "-o", "plan.json"])
    Path("plan.json").write_text(Path("plan.json").read_text().replace('"batch": 1', '"batch": 8'))

    assert "batch = 8" in refused(capsys, "profile", "run", "--device", "host", "--plan", "plan.json")


def test_a_transfer_takes_no_plan(data, capsys):
    scaler(["profile", "plan", "--device", "host", "--space", "small.toml", "-n", "4", "-o", "plan.json"])

    line = refused(capsys, "profile", "run", "--device", "host", "--transfer-from", "xeon-vm", "--plan", "plan.json")
    assert "leave --plan away" in line


def test_a_bundle_of_another_device_than_the_plan_is_refused(data, capsys):
    scaler(["profile", "plan", "--device", "nano", "--space", "small.toml", "-n", "4", "-o", "plan.json"])

    assert "plan.json is for nano" in refused(capsys, "profile", "bundle", "--device", "nx", "--plan", "plan.json")


def test_without_onnxruntime_the_extra_is_named(data, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)

    line = refused(capsys, "profile", "run", "--device", "host", "--space", "small.toml", "-n", "4")
    assert "scaler-nas[onnxruntime]" in line


def test_a_bundle_is_written_for_a_device_elsewhere(data, capsys):
    assert scaler(["profile", "bundle", "--device", "nano", "--space", "small.toml", "-n", "4", "-o", "b.tar.gz"]) == 0

    assert Path("b.tar.gz").stat().st_size > 10_000
    assert "measure.sh" in capsys.readouterr().err


@pytest.mark.alone
@pytest.mark.slow
def test_the_whole_story_on_this_computer(data, capsys):
    """Plan, run, search, verify, validate on a small space, then a table of another processor is refused."""
    assert scaler(["profile", "run", "--device", "host", "--space", "small.toml", "-n", "12"]) == 0
    table = data / "latency_tables" / "host" / "onnxruntime-fp32-1-thread.toml"
    assert 'provenance = "measured"' in table.read_text()
    assert "networks left out: mean error" in capsys.readouterr().out

    assert scaler(["profile", "run", "--device", "host", "--space", "small.toml", "-n", "12"]) == 0
    assert "measuring" not in capsys.readouterr().err  # nothing is measured twice

    assert scaler(["search", "--device", "host", "--fps", "30", "--space", "small.toml", "--out", "found"]) == 0
    result = json.loads(Path("found/pareto.json").read_text())
    assert {candidate["provenance"] for candidate in result["devices"][0]["front"]} == {"measured"}
    assert "ONNX Runtime" in result["devices"][0]["title"]
    capsys.readouterr()

    assert scaler(["verify", "found/pareto.json", "--pick", "front", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["candidates"]
    assert len(rows) == len(result["devices"][0]["front"])
    assert sum(abs(row["deviation"]["engine_ms"]) for row in rows) / len(rows) < 0.15

    assert scaler(["profile", "validate", "--device", "host", "-n", "6", "--json"]) == 0
    proof = json.loads(capsys.readouterr().out)
    assert proof["table"]["networks"] == 6

    table.write_text(table.read_text().replace(load_host().processor, "Another CPU"))
    assert "Another CPU" in refused(capsys, "search", "--device", "host", "--fps", "30", "--space", "small.toml")
    shutil.rmtree("found")
