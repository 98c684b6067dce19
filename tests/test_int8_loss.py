"""What INT8 costs: the published figures, the law, its cross-validation, and the command that tells them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scaler.accuracy import int8_loss
from scaler.accuracy.int8_loss import Loss, fingerprint, graph_traits, predict_loss
from scaler.accuracy.int8_loss_fit import EFFECTS, Traits, fit_int8, row_traits, shipped_fit, used_rows
from scaler.accuracy.int8_loss_validation import SCHEMES, validate_int8
from scaler.cli import run
from scaler.errors import FileError
from scaler.models.detectors.families import build
from scaler.models.detectors.retinanet import RetinaNetConfig
from scaler.models.detectors.scaled_yolov4 import ScaledYoloV4Config
from scaler.models.detectors.yolo_ret import YoloRetConfig
from scaler.published import Int8Row, int8_rows
from scaler.published import int8 as published

MOBILE = YoloRetConfig(backbone="mobilenetv2", width=0.5)
EFFICIENT = YoloRetConfig(backbone="efficientnet-b0")
RETINA = RetinaNetConfig(backbone="resnet-50", resolution=512)
CSP = ScaledYoloV4Config(variant="csp", width=1, depth=1, resolution=640)
TINY = ScaledYoloV4Config(variant="tiny", width=1, depth=1, resolution=416)


@pytest.fixture(scope="module")
def validation():
    return {one.part.scheme: one for one in validate_int8()}


def published_row(network: str, metric: str = "ap", calibration: str | None = None) -> Int8Row:
    return next(
        row
        for row in int8_rows()
        if (row.network, row.metric) == (network, metric) and calibration in (None, row.calibration)
    )


def test_rows_read_as_printed_whether_scores_or_drops():
    entropy = published_row("YOLOv7", calibration="entropy")
    assert (entropy.float_score, entropy.int8_score, entropy.runtime) == (51.24, 45.73, "tensorrt")
    assert entropy.loss_points == pytest.approx(5.51)
    assert published_row("YOLOv7", calibration="mse").loss_points == pytest.approx(0.2)
    assert published_row("YOLOv8n").laboratory == "the0807"
    assert published_row("YOLOv8n").loss_points == pytest.approx(4.1)
    drop = published_row("efficientdet-d0")
    assert (drop.float_score, drop.int8_score, drop.loss_points) == (None, None, 0.62)
    assert published_row("centernet, BM1684X", "ap50").loss_points == pytest.approx(0.2)


def test_every_row_names_an_address_and_unused_ones_their_reason():
    rows = int8_rows()
    assert len(rows) == 171
    assert all(row.source.startswith("https://") for row in rows)
    assert {row.unused for row in rows if row.laboratory == "vitis-ai"} == {"made for scales that are powers of two"}
    assert len(used_rows()) == sum(not row.unused for row in rows) == 157
    assert sum(row.task == "detection" for row in used_rows()) == 120
    assert all(np.isfinite(row.loss_points) for row in rows)


def test_no_figure_stands_twice():
    keys = [(row.laboratory, row.network, row.metric, row.runtime, row.calibration, row.source) for row in int8_rows()]
    assert len(set(keys)) == len(keys)


def test_a_network_has_the_same_architecture_wherever_it_was_measured():
    seen: dict[tuple[str, bool], set[object]] = {}
    for row in int8_rows():
        if row.model != "ssd-mobilenet-v1":  # Caffe's has ReLU, TensorFlow's ReLU6
            seen.setdefault((row.model, row.reparameterised), set()).add(row_traits(row).architecture)
    assert {key: found for key, found in seen.items() if len(found) > 1} == {}


def test_a_damaged_table_is_told_with_line_and_column(tmp_path, monkeypatch):
    lines = published.INT8_FILE.read_text(encoding="utf-8").splitlines()
    lines[2] = lines[2].replace(",swish,", ",swoosh,")
    damaged = tmp_path / "int8.csv"
    damaged.write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(published, "INT8_FILE", damaged)
    with pytest.raises(FileError, match=r"line 3, column 'activation'.*did you mean 'swish'"):
        published.int8_rows.__wrapped__()


def test_traits_are_shares_of_the_networks_own_operators():
    mobile, efficient, retina, csp, tiny = (graph_traits(build(c)) for c in (MOBILE, EFFICIENT, RETINA, CSP, TINY))
    assert mobile.architecture == ("relu6", True, False, False)
    assert mobile.depthwise == 1.0
    assert 0.1 < mobile.smooth < 0.3 < mobile.relu6  # swish in the neck
    assert efficient.architecture == ("smooth", True, True, False)
    assert retina == Traits()
    assert csp == Traits(smooth=1.0)
    assert tiny == Traits(leaky=1.0)


def test_published_networks_and_built_ones_speak_of_the_same_architecture():
    assert row_traits(published_row("retina_r50_fpn")).architecture == graph_traits(build(RETINA)).architecture
    assert row_traits(published_row("efficientdet-d0")).architecture == graph_traits(build(EFFICIENT)).architecture
    assert row_traits(published_row("ssd_mobilenet_v2")).architecture == graph_traits(build(MOBILE)).architecture


def test_small_changes_of_a_network_make_no_step():
    slim = YoloRetConfig(backbone="vovnet-27-slim")
    one, other = (predict_loss(config).mean for config in (slim, replace(slim, rfcr=5)))
    assert one == pytest.approx(other, rel=0.1)


@pytest.mark.parametrize("config", [MOBILE, EFFICIENT, RETINA, CSP, TINY], ids=lambda config: config.name)
def test_a_loss_lies_in_its_interval_and_needs_no_graph(config):
    loss = predict_loss(config)
    assert isinstance(loss, Loss)
    assert loss.low < loss.mean < loss.high
    assert loss.inside_support
    assert loss == predict_loss(config, build(config))


def test_what_costs_more_is_what_was_published_to_cost_more():
    assert predict_loss(RETINA).mean < predict_loss(TINY).mean < predict_loss(CSP).mean < predict_loss(EFFICIENT).mean
    how = {method: predict_loss(CSP, calibration=method).mean for method in ("percentile", "min-max", "entropy")}
    assert how["percentile"] < how["min-max"] < how["entropy"]
    assert predict_loss(CSP, partly_float=True).mean < predict_loss(CSP).mean
    assert predict_loss(CSP, metric="ap50").mean == pytest.approx(predict_loss(CSP).mean, rel=0.2)


@pytest.mark.parametrize(
    ("config", "calibration", "lost"),
    [
        (MOBILE, "percentile", 0.77),
        (replace(MOBILE, rfcr=5), "percentile", 2.70),
        (replace(MOBILE, rfcr=5), "min-max", 3.04),
        (replace(MOBILE, rfcr=5), "entropy", 3.50),
        (replace(TINY, width=0.5), "percentile", 0.34),
    ],
)
def test_what_was_measured_here_and_never_fitted_lies_in_the_interval(config, calibration, lost):
    loss = predict_loss(config, calibration=calibration)
    assert loss.low < lost < loss.high  # docs/adr/022-int8-loss.md: generated shapes, so no row of the fit


def test_an_unpublished_architecture_is_outside_and_its_interval_wider():
    ese = predict_loss(YoloRetConfig(backbone="vovnet2-39"))
    assert not ese.inside_support
    fit = shipped_fit()
    traits = Traits(squeeze_excite=1.0)
    known = replace(fit, known=fit.known | {traits.architecture})
    _, low, high = fit.predict([traits])
    _, nearer_low, nearer_high = known.predict([traits])
    assert low < nearer_low < nearer_high < high


def test_the_fit_finds_effects_and_scatter_of_made_up_figures():
    random = np.random.default_rng(3)
    template = published_row("YOLOv5s")
    laboratories = {f"l{i}": random.normal(0.0, 0.4) for i in range(30)}
    rows = []
    for i in range(300):
        laboratory = f"l{i % 30}"
        activation = ("relu", "swish")[int(random.integers(2))]
        value = 1.0 + (0.9 if activation == "swish" else 0.0) + laboratories[laboratory] + random.normal(0.0, 0.3)
        loss = 0.3 * np.sinh(value)
        rows.append(
            replace(
                template, network=f"n{i}", model=f"n{i}", laboratory=laboratory, activation=activation, loss=float(loss)
            )
        )
    fit = fit_int8(rows)
    found = dict(zip(EFFECTS, fit.effects, strict=True))
    assert found["smooth"] == pytest.approx(0.9, abs=0.1)
    assert found["level"] == pytest.approx(1.0, abs=0.3)
    assert fit.scatters[0] == pytest.approx(0.4, abs=0.16)
    assert np.hypot.reduce(fit.scatters[1:]) == pytest.approx(0.3, abs=0.1)
    _, low, high = fit.predict([row_traits(row) for row in rows])
    inside = [a < row.loss_points < b for row, a, b in zip(rows, low, high, strict=True)]
    assert 0.84 < np.mean(inside) < 0.97


def test_nothing_published_leaves_the_prior():
    fit = fit_int8(used_rows()[:1])
    assert abs(fit.effects[EFFECTS.index("leaky")]) < 1e-9
    assert fit.deviations[EFFECTS.index("leaky")] == pytest.approx(1.0)


def test_folds_leave_out_all_that_they_name(validation):
    rows = used_rows()
    part = validation["leave-one-laboratory-out"].part
    kept = [row for row in rows if row.laboratory != "yolov6"]
    fit = fit_int8(kept, shipped_fit().scatters)
    held = [row for row in part.rows if row.group == "yolov6"]
    means, _, highs = fit.predict([row_traits(row.config) for row in held])
    assert [row.predicted for row in held] == pytest.approx(means.tolist())
    assert [row.high for row in held] == pytest.approx(highs.tolist())
    assert len(held) == sum(row.laboratory == "yolov6" for row in rows) == 11


def test_errors_and_intervals_of_networks_laboratories_and_architectures_unseen(validation):
    assert list(validation) == list(SCHEMES)
    for one in validation.values():
        assert one.part.score.n == 120
        assert 0.85 <= one.part.score.coverage <= 0.95
        assert abs(one.bias_ap) < 0.2
    assert validation["leave-one-laboratory-out"].part.score.kendall_tau > 0.3


def test_the_decision_record_tells_the_errors_as_they_are(validation):
    record = (Path(__file__).parent.parent / "docs/adr/022-int8-loss.md").read_text(encoding="utf-8")
    for scheme, one in validation.items():
        score = one.part.score
        name = scheme.removeprefix("leave-one-").removesuffix("-out")
        row = re.search(rf"^\| {name} \|(.*)\|$", record, re.MULTILINE)
        assert row is not None
        assert [cell.strip() for cell in row[1].split("|")] == [
            str(score.n),
            f"{score.mean_absolute_error_ap:.2f} AP",
            f"{score.kendall_tau:.3f}",
            f"{100 * score.coverage:.0f} %",
            f"{score.mean_half_width_ap:.2f} AP",
            f"{one.bias_ap:+.2f} AP",
            f"{one.constant_error_ap:.2f} AP",
        ]


def test_the_fingerprint_follows_the_table(tmp_path, monkeypatch):
    before = fingerprint()
    assert re.fullmatch("[0-9a-f]{8}", before)
    other = tmp_path / "int8.csv"
    other.write_bytes(published.INT8_FILE.read_bytes() + b"\n")
    monkeypatch.setattr(int8_loss, "INT8_FILE", other)
    assert fingerprint() != before


def test_the_command_tells_errors_effects_and_the_worst(capsys):
    assert run(["accuracy", "validate", "--int8"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"laboratory +120 +1\.46 AP", out)
    assert "157 figures (120 of detectors) of 16 laboratories" in out
    assert "PicoDet-s AP, paddleslim: 32.5 published" in out


def test_the_command_as_json(capsys):
    assert run(["accuracy", "validate", "--int8", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["effects"]) == list(EFFECTS)
    assert [part["scheme"] for part in told["validation"]] == list(SCHEMES)
    assert told["validation"][0]["coverage"] > 0.85
    assert told["laboratories"] == 16


def test_int8_is_of_all_families(capsys):
    assert run(["accuracy", "validate", "--int8", "--family", "retinanet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
