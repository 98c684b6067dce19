"""Golden counts: the released YOLO-ReT code, instantiated and counted, row by row."""

import csv
from pathlib import Path

import pytest

from scaler.cost import graph_cost
from scaler.models.detectors.yolo_ret import YoloRetConfig, build

GOLDEN = Path(__file__).parent / "golden" / "yoloret_reference_counts.csv"
ROWS = list(csv.DictReader(GOLDEN.read_text().splitlines()))
DROPS = {
    "out_relu": 0,
    "block_15_add": 2,
    "head_swish": 0,
    "add_8": 2,
    "add_14": 3,
    "add_18": 1,
    "add_17": 3,
    "add_16": 4,
}


def config(row: dict[str, str]) -> YoloRetConfig:
    mobile = row["backbone"] == "MobileNetV2"
    return YoloRetConfig(
        backbone="mobilenetv2" if mobile else f"efficientnet-{row['variant'].lower()}",
        width=float(row["variant"]) if mobile else 1.0,
        drop=DROPS[row["c5_tap"]],
        neck=row["neck"].lower(),
        rfcr=5 if row["rfcr"] == "1" else 0,
        shortcut=row["shortcut"] == "1",
        resolution=320,
        classes=int(row["num_classes"]),
    )


def label(row: dict[str, str]) -> str:
    return "-".join(row[k] for k in ("variant", "c5_tap", "neck", "rfcr", "shortcut", "num_classes"))


def test_the_golden_file_holds_all_324_configurations():
    assert len(ROWS) == 324


@pytest.mark.parametrize("row", ROWS, ids=label)
def test_parameters_by_every_rule_and_macs_equal_the_released_code(row):
    cost = graph_cost(build(config(row)))

    assert cost.params == int(row["params_total"])
    assert cost.trainable_params == int(row["params_trainable"])
    assert cost.folded_params == int(row["params_bn_folded"])
    assert f"{cost.macs / 1e6:.1f}" == row["mmacs_320"]
