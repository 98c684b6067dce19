from __future__ import annotations

from collections import Counter

import pytest

from scaler.errors import FileError
from scaler.models.detectors.retinanet import RetinaNetConfig
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.published import (
    LIGHTER_GAINS,
    YoloRetRow,
    backbone_rows,
    retinanet,
    retinanet_rows,
    scaled_yolov4,
    scaled_yolov4_rows,
    vovnet,
    yolo_ret,
    yolo_ret_rows,
)


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


# Scaled-YOLOv4


def test_scaled_yolov4_rows_are_used_or_say_why_not():
    rows = scaled_yolov4_rows()
    assert (len(rows), sum(not row.unused for row in rows)) == (161, 101)
    for row in rows:
        assert row.source
        assert row.ap is not None or row.ap50 is not None
        assert row.unused or (row.recipe and row.detector() is not None), row
    reasons = Counter(row.unused for row in rows if row.unused)
    assert reasons["test-time augmentation"] == 12
    assert reasons["the authors' unreleased three-level network, not AlexeyAB's tiny-3l"] == 3


def test_one_training_run_has_one_figure_a_split():
    runs = Counter((row.detector(), row.recipe, row.split) for row in scaled_yolov4_rows() if not row.unused)
    assert max(runs.values()) == 1


def test_the_same_network_spans_three_points_by_recipe():
    config = ScaledYoloV4Config(variant="csp", resolution=640)
    figures = {row.recipe: row.ap for row in scaled_yolov4_rows() if row.detector() == config and not row.unused}
    assert (figures["paper"], figures["pytorch-2021-10"]) == (47.827, 50.8)
    assert len(figures) >= 8


def test_evaluation_is_noted_for_every_scaled_yolov4_row():
    used = [row for row in scaled_yolov4_rows() if not row.unused]
    assert Counter(row.evaluation for row in used)["rectangular"] > 70
    assert {row.evaluation for row in used if row.recipe == "tensorrt-demos"} == {"square"}
    assert {row.split for row in used} == {"val2017", "test-dev", "not stated"}


def test_headline_rows_of_the_large_networks_read_as_printed():
    paper = {
        (row.variant, row.split): (row.ap, row.ap50)
        for row in scaled_yolov4_rows()
        if row.recipe == "paper" and row.resolution >= 896 and not row.unused
    }
    assert paper == {
        ("p5", "val2017"): (51.7, 70.3), ("p6", "val2017"): (54.4, 72.7), ("p7", "val2017"): (55.3, 73.3),
        ("p5", "test-dev"): (51.8, 70.3), ("p6", "test-dev"): (54.5, 72.6), ("p7", "test-dev"): (55.5, 73.4),
    }  # fmt: skip


# RetinaNet


def test_the_input_scaling_curve_reads_as_printed():
    curve = {(row.backbone, row.resolution): row.ap for row in retinanet_rows() if row.recipe == "focal-loss"}
    assert [curve["resnet-50", size] for size in (400, 500, 600, 700, 800)] == [30.5, 32.5, 34.3, 35.1, 35.7]
    assert [curve["resnet-101", size] for size in (400, 500, 600, 700, 800)] == [31.9, 34.4, 36.0, 37.1, 37.8]
    first = next(row for row in retinanet_rows() if (row.backbone, row.resolution) == ("resnet-50", 400))
    assert (first.ap50, first.ap_small, first.ap_large, first.time_ms, first.split) == (
        47.8,
        11.2,
        46.1,
        64,
        "test-dev",
    )


def test_retinanet_rows_are_used_or_say_why_not():
    rows = retinanet_rows()
    assert (len(rows), sum(not row.unused for row in rows)) == (43, 28)
    assert all(row.source and row.recipe for row in rows)
    assert all("resnext" in row.backbone for row in rows if row.unused == "another backbone")
    assert all("resnext" in row.backbone for row in rows if row.detector() is None)


def test_a_rectangular_picture_is_shown_as_large_by_a_larger_square():
    squares = {row.resolution: row.detector() for row in retinanet_rows() if row.backbone == "resnet-50"}
    assert squares[600] == RetinaNetConfig(resolution=800)
    sides = {size: config.resolution for size, config in squares.items() if config is not None}
    assert sides == {400: 544, 500: 672, 600: 800, 700: 928, 800: 1056}
    assert all(abs(0.75 * side / size - 1) < 0.021 for size, side in sides.items())


def test_the_gains_of_the_lighter_head_are_the_abstracts():
    assert [tuple(gain) for gain in LIGHTER_GAINS] == [(1.15, 0.1), (1.8, 0.3)]


# VoVNet


def test_backbone_rows_are_used_or_say_why_not():
    rows = backbone_rows()
    used = [row for row in rows if not row.unused]
    assert (len(rows), len(used)) == (90, 84)
    assert min(Counter(row.detector for row in used).values()) >= 2
    faster = {row.backbone: row.ap for row in rows if row.detector == "Faster R-CNN FPNLite, 3x"}
    assert faster == {
        "mobilenetv2-1.0": 33.0, "vovnet2-19": 38.9, "vovnet2-19-dw": 36.7, "vovnet2-19-slim": 35.2,
        "vovnet2-19-slim-dw": 32.4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name", "rows", "old", "new"),
    [
        (scaled_yolov4, "SCALED_YOLOV4_FILE", scaled_yolov4_rows, "rectangular", "rectangle"),
        (retinanet, "RETINANET_FILE", retinanet_rows, "35.7", "35,7"),
        (vovnet, "VOVNET_FILE", backbone_rows, "val2017", "val2018"),
    ],
)
def test_a_damaged_table_is_one_clear_line(tmp_path, monkeypatch, module, name, rows, old, new):
    damaged = tmp_path / "table.csv"
    damaged.write_text(getattr(module, name).read_text().replace(old, new, 1))
    monkeypatch.setattr(module, name, damaged)
    with pytest.raises(FileError, match=r"table\.csv: line"):
        rows.__wrapped__()
