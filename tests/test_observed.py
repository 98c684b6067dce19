"""The file of networks that were measured whole: one a setting, the newest of each network, damage told in one line."""

import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from scaler.catalog import names
from scaler.errors import FileError, UserError
from scaler.latency.observed import Observed, observed_path, read_observed, record_observed

ROW = Observed(
    network="0a1b2c3d",
    family="yolo-ret",
    params={"backbone": "mobilenetv2", "width": 0.5, "drop": 2, "shortcut": True},
    classes=20,
    engine_ms=12.5,
    log_sd=0.015,
    how="verify",
    created="2026-11-22T19:00:00.000000+00:00",
    reference_ms=4.25,
)
OTHER = replace(ROW, network="ffff0000", how="import", reference_ms=None)


@pytest.fixture
def path(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SCALER_DATA_DIR", str(tmp_path))
    return observed_path("host", "onnxruntime", "fp32", "1-thread")


def test_it_stands_beside_the_tables_of_its_setting_and_is_none_of_them(path, tmp_path):
    assert path == tmp_path / "latency_tables" / "host" / "onnxruntime-fp32-1-thread.networks.json"
    assert observed_path("nano", "tensorrt", "int8", "MAXN") != observed_path("nano", "tensorrt", "fp16", "MAXN")
    before = names("latency_tables")
    record_observed(path, [ROW])
    assert names("latency_tables") == before


def test_what_is_recorded_is_read_back_and_no_file_is_no_network(path):
    assert read_observed(path) == ()
    record_observed(path, [ROW, OTHER])
    assert read_observed(path) == (ROW, OTHER)


def test_of_a_network_the_newest_stays_whenever_it_comes(path):
    newer = replace(ROW, engine_ms=13.0, created="2026-11-23T00:00:00.000000+00:00")
    older = replace(ROW, engine_ms=11.0, created="2026-11-21T00:00:00.000000+00:00")
    record_observed(path, [ROW])
    record_observed(path, [newer, OTHER])
    record_observed(path, [older])
    assert read_observed(path) == (newer, OTHER)


def test_other_classes_are_another_network(path):
    record_observed(path, [ROW, replace(ROW, classes=2)])
    assert len(read_observed(path)) == 2


def test_writers_take_turns_and_lose_nothing(path):
    def write(number: int) -> None:
        for place in range(5):
            record_observed(path, [replace(ROW, network=f"{number}-{place}")])

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_observed(path)) == 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"engine_ms": -1.0}, "engine_ms"),
        ({"engine_ms": "fast"}, "engine_ms"),
        ({"how": "guess"}, "expected one of"),
        ({"params": [1]}, "expected a table"),
        ({"params": {"width": None}}, "expected a table"),
        ({"classes": 0}, "classes"),
        ({"speed": 3}, "unknown key"),
    ],
)
def test_a_damaged_row_is_refused_in_one_line(path, change, said):
    record_observed(path, [ROW])
    content = json.loads(path.read_text())
    content["networks"][0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(FileError, match=said) as caught:
        read_observed(path)
    assert "\n" not in str(caught.value)
    assert "delete it to predict without" in str(caught.value)
    before = path.read_text()
    with pytest.raises(FileError):
        record_observed(path, [OTHER])
    assert path.read_text() == before


def test_a_file_of_another_kind_is_refused(path):
    path.parent.mkdir(parents=True)
    path.write_text('{"schema_version": 1, "kind": "scaler-plan", "networks": []}')
    with pytest.raises(FileError, match="scaler-observed-networks"):
        read_observed(path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot make"):
        record_observed(tmp_path / "file" / "x.networks.json", [ROW])
