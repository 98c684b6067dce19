from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.accuracy import load
from scaler.accuracy.curve import COUNT, NAMES, PRIORS, gradient
from scaler.accuracy.features import KNOTS, Features, features
from scaler.accuracy.fitting import fit, fit_coco, observations
from scaler.accuracy.model import SHIPPED_FILE, read_model
from scaler.accuracy.scores import kendall_tau
from scaler.accuracy.validation import ValidationReport, validate, write_shipped
from scaler.errors import FileError, UsageError
from scaler.models.detectors.yolo_ret import BACKBONES, YoloRetConfig, max_drop, published_drop

MODEL = load("yolo-ret", "voc")
NECKS = [("none", 1), ("fpn", 1), ("panet", 1), ("bifpn", 1), ("bifpn", 2), ("bifpn", 3)]
WIDTHS = (0.35, 0.42, 0.5, 0.6, 0.75, 0.9, 1.0, 1.2, 1.3, 1.4)
BODIES = [("mobilenetv2", width) for width in WIDTHS] + [(name, 1.0) for name in BACKBONES[1:]]
COLLECTORS = [(0, False)] + [(kernel, shortcut) for kernel in (3, 5, 7) for shortcut in (False, True)]
RESOLUTIONS = tuple(range(160, 641, 32))
PAPER = YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True)


def space(*, resolutions=(160, 320, 640), drops=None):
    """Every combination of the family at these resolutions; `drops` maps a backbone to its truncations."""
    for backbone, width in BODIES:
        for drop in range(max_drop(backbone) + 1) if drops is None else drops(backbone):
            for neck, repeats in [*NECKS, ("bifpn", 5), ("fpn", 2), ("panet", 3)]:
                for rfcr, shortcut in COLLECTORS:
                    for resolution in resolutions:
                        yield YoloRetConfig(
                            backbone=backbone, width=width, drop=drop, neck=neck, repeats=repeats, rfcr=rfcr,
                            shortcut=shortcut, resolution=resolution,
                        )  # fmt: skip


def ap(configs) -> np.ndarray:
    """Unclipped means, so that orders also hold where a detector would be useless."""
    return MODEL.fit.mean_and_variance(features(configs))[0]


def gain(configs, **changes) -> np.ndarray:
    """What changing these fields brings to each configuration."""
    return ap([replace(config, **changes) for config in configs]) - ap(configs)


@pytest.fixture(scope="module")
def report() -> ValidationReport:
    return validate()


# The bars


def test_leave_one_out_bar(report):
    score = report.voc[0].score
    assert score.n == 61
    assert score.mean_absolute_error_ap <= 0.40
    assert score.kendall_tau >= 0.93
    assert 0.85 <= score.coverage <= 0.95


def test_leave_one_backbone_out_bar(report):
    score = report.voc[1].score
    assert score.n == 61
    assert score.mean_absolute_error_ap <= 0.75
    assert score.kendall_tau >= 0.85
    assert 0.85 <= score.coverage <= 0.95


def test_each_fold_leaves_a_configuration_or_a_backbone_out_whole(report):
    assert len({row.config for row in report.voc[0].rows}) == 61
    assert len(report.voc[1].errors("group")) == 8
    data = list(observations())
    row = report.voc[1].rows[0]
    kept = [d for d in data if (d.config.backbone, d.config.width) != (row.config.backbone, row.config.width)]
    assert len(kept) < 61
    assert ap_of(fit(kept), row.config) == pytest.approx(row.predicted, abs=1e-9)


def ap_of(law, config) -> float:
    return float(law.mean_and_variance(features([config]))[0][0])


def test_coco_is_predicted_end_to_end(report):
    one, backbone = (validation.score for validation in report.coco)
    assert one.n == backbone.n == 9
    assert one.mean_absolute_error_ap <= 0.5
    assert backbone.mean_absolute_error_ap <= 0.75
    assert min(one.coverage, backbone.coverage) >= 0.85
    assert min(one.kendall_tau, backbone.kendall_tau) >= 0.85


@pytest.mark.parametrize("omitted", [("neck", "none"), ("neck", "fpn"), ("resolution", 224), ("resolution", 416)])
def test_what_was_never_shown_is_predicted_too(omitted):
    name, value = omitted
    data = observations()
    law = fit([row for row in data if getattr(row.config, name) != value])
    held = [row for row in data if getattr(row.config, name) == value]
    mean, _ = law.mean_and_variance(features(row.config for row in held))
    assert np.mean(np.abs(mean - [row.voc_ap50 for row in held])) <= 0.75


def test_worst_rows_and_noise_are_told(report):
    errors = [abs(row.error_ap) for row in report.voc[0].worst(3)]
    assert errors == sorted(errors, reverse=True)
    assert max(abs(row.error_ap) for row in report.voc[0].rows) == errors[0]
    assert "0.3 AP" in report.noise


def test_kendall_tau_is_scipys():
    from scipy.stats import kendalltau

    rng = np.random.default_rng(3)
    first, second = rng.integers(0, 9, 40).tolist(), rng.integers(0, 9, 40).tolist()
    assert kendall_tau(first, second) == pytest.approx(kendalltau(first, second).statistic)


# What ships


def test_shipped_fit_is_a_refit_of_the_shipped_rows():
    law = fit(observations())
    assert MODEL.fit.theta == pytest.approx(law.theta, abs=1e-3)
    assert np.sqrt(np.diag(MODEL.fit.covariance)) == pytest.approx(np.sqrt(np.diag(law.covariance)), rel=1e-2)
    sample = list(space(resolutions=(224, 416)))
    assert np.max(np.abs(ap(sample) - law.mean_and_variance(features(sample))[0])) < 1e-3
    assert asdict(load("yolo-ret", "coco").coco) == pytest.approx(asdict(fit_coco(observations(), law)), rel=1e-3)


def test_shipped_errors_are_those_recomputed(report):
    for dataset, pair in (("voc", report.voc), ("coco", report.coco)):
        model = load("yolo-ret", dataset)
        assert model.n_rows == pair[0].score.n
        assert asdict(model.leave_one_out) == pytest.approx(asdict(pair[0].score), abs=2e-3)
        assert asdict(model.leave_one_backbone_out) == pytest.approx(asdict(pair[1].score), abs=2e-3)


def test_writing_the_fit_again_gives_a_file_that_loads(tmp_path):
    write_shipped(tmp_path / "again.json")
    again = read_model(tmp_path / "again.json", "voc")
    assert again.predict(PAPER).mean == pytest.approx(MODEL.predict(PAPER).mean, abs=1e-3)


def test_covariance_is_one():
    assert np.array_equal(MODEL.fit.covariance, MODEL.fit.covariance.T)
    assert np.linalg.eigvalsh(MODEL.fit.covariance).min() > -1e-9


def test_parameters_lie_within_their_bounds():
    for name, prior, value in zip(NAMES, PRIORS, MODEL.fit.theta, strict=False):
        assert prior.low <= value <= prior.high, name
    assert (MODEL.fit.theta[len(PRIORS) :] >= 0.0).all()
    assert len(MODEL.fit.theta) == COUNT == len(PRIORS) + len(KNOTS)


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('"level": ', '"level": "x" , "lever": ', "parameters.level"),
        ('"ratio": ', '"ratio": -', "coco_link.ratio"),
        ('"schema_version": 2', '"schema_version": 9', "schema_version"),
        ('"kendall_tau": 0', '"kendall_tau": 7', "voc.leave_one_out.kendall_tau"),
        ('"n_rows"', '"rows"', "voc.n_rows"),
    ],
)
def test_a_malformed_fit_is_one_clear_line(tmp_path, old, new, where):
    path = tmp_path / "fit.json"
    path.write_text(SHIPPED_FILE.read_text().replace(old, new))
    with pytest.raises(FileError) as error:
        read_model(path, "voc")
    assert where in str(error.value)
    assert "fit.json" in str(error.value)


def test_a_short_row_of_the_covariance_is_refused(tmp_path):
    content = json.loads(SHIPPED_FILE.read_text())
    content["covariance"]["neck_gain"].pop()
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FileError, match=r"covariance\.neck_gain"):
        read_model(path, "coco")


def test_an_unknown_dataset_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'coco'"):
        load("yolo-ret", "cocoo")


# Orders that hold for the whole space


def test_the_ranges_of_the_sample_are_those_of_the_family():
    configs = list(space())
    assert len(configs) > 15_000
    assert np.isfinite(ap(configs)).all()


def test_more_resolution_never_hurts_and_saturates():
    for config in space(resolutions=(320,), drops=lambda b: (0, published_drop(b))):
        curve = ap([replace(config, resolution=r) for r in RESOLUTIONS])
        assert (np.diff(curve) > 0.0).all()
        assert (np.diff(curve, 2) < 0.0).all()


@pytest.mark.slow
def test_rfcr_gains_and_gains_less_where_the_neck_is_strong():
    for kernel in (3, 5, 7):
        by_neck = []
        for neck, repeats in NECKS:
            plain = [c for c in space(resolutions=(160, 320, 640)) if (c.neck, c.repeats, c.rfcr) == ("none", 1, 0)]
            plain = [replace(c, neck=neck, repeats=repeats) for c in plain]
            by_neck.append(gain(plain, rfcr=kernel))
        assert (np.min(by_neck) > 0.0).all()
        none, fpn, panet, *bifpn = by_neck
        assert (none > fpn).all()
        assert (fpn > panet).all()
        for weaker, stronger in pairwise([panet, *bifpn]):
            assert (weaker >= stronger - 1e-9).all()


def test_kernel_5_is_not_worse_than_3_and_7_brings_nothing_more():
    five = [config for config in space() if config.rfcr == 5]
    assert (gain(five, rfcr=3) < 0.0).all()
    assert gain(five, rfcr=7) == pytest.approx(0.0)


def test_the_shortcut_never_hurts():
    without = [config for config in space() if config.rfcr and not config.shortcut]
    assert (gain(without, shortcut=True) >= 0.0).all()
    assert 0.05 < gain(without[:1], shortcut=True)[0] < 0.4  # Table 4: +0.14 to +0.38


def test_truncation_hurts_narrow_backbones_more_and_less_with_rfcr():
    for neck, repeats in NECKS:
        for rfcr in (0, 5):
            mobile = [
                YoloRetConfig(backbone="mobilenetv2", width=w, neck=neck, repeats=repeats, rfcr=rfcr) for w in WIDTHS
            ]
            assert (np.diff(gain(mobile, drop=2)) > 0.0).all()
        complete = [c for c in space(drops=lambda _: (0,)) if (c.neck, c.repeats, c.rfcr) == (neck, repeats, 0)]
        with_rfcr = [replace(c, rfcr=5) for c in complete]
        for backbone in BACKBONES:
            cut = published_drop(backbone)
            plain = gain([c for c in complete if c.backbone == backbone], drop=cut)
            helped = gain([c for c in with_rfcr if c.backbone == backbone], drop=cut)
            assert (helped >= plain - 1e-9).all()


def test_the_published_cuts_come_out_as_published():
    panet = YoloRetConfig(backbone="mobilenetv2", width=0.75)
    assert gain([panet], drop=2)[0] == pytest.approx(-2.09, abs=0.3)
    assert gain([replace(panet, width=1.4)], drop=2)[0] == pytest.approx(-0.21, abs=0.3)
    assert gain([YoloRetConfig(backbone="efficientnet-b3")], drop=3)[0] == pytest.approx(0.23, abs=0.3)


def test_wider_and_bigger_backbones_never_hurt():
    for drop_of in (lambda _: 0, published_drop):
        for neck, repeats in NECKS:
            for rfcr in (0, 5):
                rest = {"neck": neck, "repeats": repeats, "rfcr": rfcr}
                widths = [round(w, 2) for w in np.arange(0.35, 1.405, 0.01)]
                mobile = [
                    YoloRetConfig(backbone="mobilenetv2", width=w, drop=drop_of("mobilenetv2"), **rest) for w in widths
                ]
                efficient = [YoloRetConfig(backbone=b, drop=drop_of(b), **rest) for b in BACKBONES[1:]]
                assert (np.diff(ap(mobile)) > 0.0).all()
                assert (np.diff(ap(efficient)) > 0.0).all()


def test_deeper_cuts_than_the_published_one_only_lose_and_are_less_sure():
    for backbone, width in BODIES:
        for neck, repeats in NECKS:
            for rfcr in (0, 3, 5):
                body = YoloRetConfig(backbone=backbone, width=width, neck=neck, repeats=repeats, rfcr=rfcr)
                drops = range(published_drop(backbone), max_drop(backbone) + 1)
                mean, variance = MODEL.fit.mean_and_variance(features(replace(body, drop=d) for d in drops))
                assert (np.diff(mean) < 0.0).all()
                assert (np.diff(variance) > 0.0).all()


def test_necks_keep_their_order():
    plain = [c for c in space() if (c.neck, c.repeats) == ("none", 1)]
    assert (gain(plain, neck="fpn") > 0.0).all()
    fpn = [replace(config, neck="fpn") for config in plain]
    assert (gain(fpn, neck="panet") > 0.0).all()
    assert (gain(plain, neck="bifpn") > 0.0).all()
    for neck in ("fpn", "panet", "bifpn"):
        by_repeats = np.array([ap([replace(c, neck=neck, repeats=n) for c in plain[:500]]) for n in (1, 2, 3, 4, 5)])
        assert (np.diff(by_repeats, axis=0) > 0.0).all()
        assert (np.diff(by_repeats, 2, axis=0) < 0.0).all()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_orders_hold_for_any_parameters_within_their_bounds(data):
    """The orders come from the form of the law, not from this fit."""
    theta = np.array([data.draw(st.floats(prior.low, prior.high)) for prior in PRIORS])
    steps = [data.draw(st.floats(0.0, 20.0)) for _ in KNOTS]
    theta = np.concatenate([theta, steps])

    def value(**fields) -> float:
        return float(gradient(theta, features([replace(PAPER, **fields)]))[0][0])

    assert value(resolution=640) > value(resolution=320) > value(resolution=160)
    assert value(neck="panet") > value(neck="fpn") > value(neck="none")
    assert value(shortcut=False, rfcr=0) < value(shortcut=False) <= value()
    assert value(rfcr=3) <= value() == value(rfcr=7)
    assert value(drop=4) < value(drop=3) < value()
    assert value(width=0.9) >= value(width=0.8) - 1e-9


# Intervals and support


def test_published_rows_lie_in_their_intervals_about_as_often_as_promised():
    data = observations()
    many = MODEL.predict_many(row.config for row in data)
    published = np.array([row.voc_ap50 for row in data])
    assert 0.88 <= np.mean((many.low <= published) & (published <= many.high)) <= 1.0
    assert many.inside.all()
    assert np.mean(np.abs(many.mean - published)) <= 0.25


def test_intervals_widen_away_from_the_data():
    def half(**fields) -> float:
        prediction = MODEL.predict(replace(PAPER, **fields))
        return (prediction.high - prediction.low) / 2.0

    assert half() < half(resolution=416) < half(resolution=512) < half(resolution=640)
    assert half() < half(resolution=224) < half(resolution=160)
    assert half() < half(width=0.5) < half(width=0.42) < half(width=0.35)
    assert half(width=0.6) > half(width=0.75)
    assert half() < half(drop=3) < half(drop=4)
    assert half() < half(rfcr=3)
    assert half(neck="panet", repeats=2) > half()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"resolution": 640}, "resolution 640 lies above the published 224..416"),
        ({"resolution": 192}, "resolution 192 lies below the published 224..416"),
        ({"width": 0.35}, "width 0.35 lies below the published 0.5..1.4"),
        ({"drop": 3}, "3 dropped blocks cut deeper than the published 2"),
        ({"rfcr": 7}, "RFCR kernel 7 has no published figure, only 5"),
        ({"neck": "bifpn", "repeats": 4}, "bifpn repeated 4 times was not published"),
        ({"neck": "panet", "repeats": 2}, "panet repeated 2 times was not published"),
    ],
)
def test_what_lies_outside_the_data_is_said(fields, reason):
    config = replace(PAPER, **fields)
    prediction = MODEL.predict(config)
    assert prediction.outside == (reason,)
    assert not prediction.inside_support
    assert not MODEL.predict_many([config]).inside[0]


@pytest.mark.parametrize(
    "fields", [{}, {"width": 0.6}, {"resolution": 288}, {"drop": 1}, {"neck": "bifpn", "repeats": 3}]
)
def test_what_lies_between_the_data_is_inside(fields):
    prediction = MODEL.predict(replace(PAPER, **fields))
    assert prediction.inside_support
    assert prediction.outside == ()


def test_several_reasons_are_all_told():
    config = replace(PAPER, width=0.4, drop=4, rfcr=3, neck="bifpn", repeats=9, resolution=608)
    assert len(MODEL.predict(config).outside) == 5


def test_one_and_many_agree_for_both_datasets():
    configs = [config for i, config in enumerate(space()) if i % 997 == 0]
    for model in (MODEL, load("yolo-ret", "coco")):
        many = model.predict_many(configs)
        for i, config in enumerate(configs):
            one = model.predict(config)
            assert (one.mean, one.low, one.high) == pytest.approx((many.mean[i], many.low[i], many.high[i]))
            assert one.inside_support == many.inside[i] == (not one.outside)
            assert 0.0 <= one.low <= one.mean <= one.high <= 100.0


def test_no_configurations_give_no_predictions():
    assert [len(values) for values in MODEL.predict_many([])] == [0, 0, 0, 0]


def test_coco_follows_voc_and_is_less_sure():
    coco = load("yolo-ret", "coco")
    assert (coco.dataset, coco.metric, coco.recipe) == ("coco", "AP50", "yolo-ret")
    configs = list(space(resolutions=(320,), drops=lambda _: (0,)))
    voc_many, coco_many = MODEL.predict_many(configs), coco.predict_many(configs)
    assert (np.argsort(voc_many.mean, kind="stable") == np.argsort(coco_many.mean, kind="stable")).all()
    relative_voc = (voc_many.high - voc_many.low) / voc_many.mean
    assert ((coco_many.high - coco_many.low) / coco_many.mean > relative_voc).all()


def test_features_are_named_once():
    assert features([PAPER])._fields == Features._fields
    assert len(features([PAPER]).inside) == 1


# Speed


def test_loading_imports_neither_scipy_nor_torch_nor_pandas():
    code = (
        "import sys; from scaler.accuracy import load; load('yolo-ret', 'voc'); load('yolo-ret', 'coco', 'ap');"
        "sys.exit(any(name in sys.modules for name in ('scipy', 'torch', 'pandas', 'optuna')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
