from __future__ import annotations

from collections import Counter

import pytest

from scaler.errors import FileError
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.published import YoloRetRow, yolo_ret, yolo_ret_rows


def _rows(table: str) -> list[YoloRetRow]:
    return [row for row in yolo_ret_rows() if row.table == table]


def test_every_row_of_the_paper_is_there():
    counts = {"1": 7, "2": 16, "3": 36, "4": 15, "5": 14, "6": 5, "7": 4, "figure 2": 63}
    assert Counter(row.table for row in yolo_ret_rows()) == counts


def test_headline_row_reads_as_printed():
    row = next(r for r in _rows("5") if r.variant == "0.75" and r.resolution == 320)
    assert (row.ap50_voc, row.ap50_coco, row.size_mb) == (68.75, 34.91, 5.2)
    assert (row.fps_nano, row.fps_nx, row.fps_agx) == (33.19, 71.64, 95.97)
    assert row.top1 is None
    assert row.detector() == YoloRetConfig(
        backbone="mobilenetv2", width=0.75, drop=2, neck="panet", rfcr=5, shortcut=True, resolution=320
    )
    assert row.detector(classes=80).classes == 80


def test_only_yolo_ret_detectors_of_the_normal_recipe_have_a_configuration():
    counts = Counter(row.table for row in yolo_ret_rows() if row.detector() is not None)
    assert counts == {"2": 16, "3": 36, "4": 15, "5": 9, "6": 3}


def test_cuts_and_necks_become_the_projects_names():
    efficient = next(r for r in _rows("2") if r.variant == "B3" and r.truncated).detector()
    assert (efficient.backbone, efficient.width, efficient.drop) == ("efficientnet-b3", 1.0, 3)
    necks = Counter((row.detector().neck, row.detector().repeats) for row in _rows("3"))
    assert necks == dict.fromkeys([(n, 1) for n in ("none", "fpn", "panet")] + [("bifpn", n) for n in (1, 2, 3)], 6)


def test_tables_agree_on_accuracy_and_differ_once_on_frame_rate():
    accuracy: dict[YoloRetConfig, set[float]] = {}
    nx: dict[YoloRetConfig, set[float]] = {}
    for row in yolo_ret_rows():
        config = row.detector()
        if config is not None and row.ap50_voc is not None:
            accuracy.setdefault(config, set()).add(row.ap50_voc)
        if config is not None and row.fps_nx is not None:
            nx.setdefault(config, set()).add(row.fps_nx)
    assert len(accuracy) == 61
    assert all(len(values) == 1 for values in accuracy.values())
    assert [values for values in nx.values() if len(values) > 1] == [{47.07, 44.59}]
    noted = [row for row in yolo_ret_rows() if "FPS on NX" in row.note]
    assert {row.fps_nx for row in noted} == {47.07, 44.59}


def test_inferred_rows_say_so():
    assert all("inferred" in row.note for row in _rows("1"))
    assert all("shortcut inferred" in r.note for r in _rows("3") if r.shortcut and r.neck != "panet")
    assert all("digitised" in row.note for row in _rows("figure 2"))


def test_a_damaged_file_is_one_clear_line(tmp_path, monkeypatch):
    damaged = tmp_path / "yoloret.csv"
    damaged.write_text(yolo_ret.YOLO_RET_FILE.read_text().replace("68.75", "68,75x"))
    monkeypatch.setattr(yolo_ret, "YOLO_RET_FILE", damaged)
    with pytest.raises(FileError, match=r"yoloret\.csv: line"):
        yolo_ret_rows.__wrapped__()
