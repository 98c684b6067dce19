"""`scaler tables validate`: the figures apart by source and by network, and what was left aside."""

import json
import re

import pytest

from scaler.cli import run
from scaler.latency.build import summary
from scaler.latency.validation import validate


class TestReport:
    def test_every_source_and_network_has_its_errors_and_unused_times_are_counted(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "160")
        assert run(["tables", "validate", "--device", "tx2"]) == 0
        out = capsys.readouterr().out
        report = validate("tx2")
        for name, part in report.leave_one_model_out.by("source").items():
            line = next(line for line in out.splitlines() if line.startswith(name))
            assert f"{100 * part.mean_error:.2f} %" in line
            assert f"{100 * report.leave_one_source_out.by('source')[name].mean_error:.1f} %" in line
        for name, part in report.leave_one_model_out.by("group").items():
            assert re.search(rf"(?m)^{re.escape(name)} +{len(part.rows)} +{100 * part.mean_error:.2f} %", out)
        assert "tf_to_trt (7 doubted)" in out
        assert "listed, not used: 13 times of networks outside our vocabulary (NetsPresso 5, tf_to_trt 8)" in out
        assert out.count("published times") == 2  # in FP16 and FP32

    def test_json_has_the_same(self, capsys):
        assert run(["tables", "validate", "--device", "orin-nx", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        (device,) = found["devices"]
        assert (device["device"], device["precision"]) == ("orin-nx", "fp16")
        assert device["percent"] == pytest.approx(summary(validate("orin-nx")))
        assert set(device["by_source"]) == set(device["source_left_out"]) == {"trtutils"}
        assert set(device["by_model"]) == {f"yolox-{v}" for v in ("nano", "tiny", "s", "m")} | {
            f"yolov8-{v}" for v in ("n", "s", "m")
        }
        assert sum(part["times"] for part in device["by_model"].values()) == 56
        assert device["times_of_networks_outside_our_vocabulary"] == {"trtutils": 64, "ultralytics": 5}
        assert set(found["log_error_of_leaps"]) >= {"orin-nx", "tx2 fp32"}
