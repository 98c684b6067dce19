"""Calibration and its cross-validation: the bars of issue 2, no leakage, and the shipped figures recomputed."""

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scaler.devices import load_device
from scaler.latency.build import build_table, summary
from scaler.latency.calibration import (
    CALIBRATED_DEVICES,
    PARAMETERS,
    PRIORS,
    Calibration,
    Problem,
    fit,
    measurements,
    problem,
)
from scaler.latency.device_model import hardware, kernel_ms, work_of
from scaler.latency.fusion import graph_kernels
from scaler.latency.table import read_table
from scaler.latency.validation import CrossValidation, DeviceReport, cross_validate, predictions, validate
from scaler.published import yolo_ret_rows

TABLES = Path(__file__).parent.parent / "latency_tables"
NETWORK_BARS = {"nano": 0.04, "nx": 0.05, "agx": 0.055}
BACKBONE_BAR = 0.07

devices = pytest.mark.parametrize("device", CALIBRATED_DEVICES)


@pytest.fixture(scope="module")
def reports() -> dict[str, DeviceReport]:
    return {device: validate(device) for device in CALIBRATED_DEVICES}


def mask(data: Problem, wanted) -> np.ndarray:
    return np.array([wanted(row) for row in data.rows])


def poisoned(data: Problem, wanted, factor: float = 7.0) -> Problem:
    """The same problem with other measurements where `wanted`."""
    rows = tuple(replace(row, ms=row.ms * factor) if wanted(row) else row for row in data.rows)
    return replace(data, rows=rows, ms=np.array([row.ms for row in rows]))


def mean_error(part: CrossValidation) -> float:
    return sum(abs(p.predicted_ms - p.row.ms) / p.row.ms for p in part.rows) / len(part.rows)


def coverage(part: CrossValidation) -> float:
    return sum(p.low_ms <= p.row.ms <= p.high_ms for p in part.rows) / len(part.rows)


@devices
class TestBars:
    def test_each_network_left_out_is_predicted_within_the_bar(self, reports, device):
        part = reports[device].leave_one_network_out
        assert mean_error(part) <= NETWORK_BARS[device]
        assert part.mean_error == pytest.approx(mean_error(part))

    def test_each_backbone_left_out_is_predicted_within_the_bar(self, reports, device):
        part = reports[device].leave_one_backbone_out
        assert mean_error(part) <= BACKBONE_BAR
        assert part.mean_error == pytest.approx(mean_error(part))

    @pytest.mark.parametrize("kind", ["leave_one_network_out", "leave_one_backbone_out"])
    def test_ninety_percent_intervals_cover_85_to_95_percent(self, reports, device, kind):
        part = getattr(reports[device], kind)
        assert 0.85 <= coverage(part) <= 0.95
        assert part.coverage == coverage(part)

    @pytest.mark.parametrize("kind", ["leave_one_network_out", "leave_one_backbone_out"])
    def test_every_detector_of_tables_2_to_5_with_a_published_neck_is_predicted_once(self, reports, device, kind):
        published = Counter(
            (config.name, 1000 / fps)
            for row in yolo_ret_rows()
            if row.table in "2345"
            and (config := row.detector())
            and config.neck != "bifpn"
            and (fps := getattr(row, f"fps_{device}"))
        )
        predicted = Counter((p.row.graph.name, p.row.ms) for p in getattr(reports[device], kind).rows)
        assert predicted == published
        assert published.total() == 48

    def test_intervals_hold_their_prediction_and_are_symmetric_in_the_logarithm(self, reports, device):
        for p in reports[device].leave_one_network_out.rows:
            assert p.low_ms < p.predicted_ms < p.high_ms
            assert p.low_ms * p.high_ms == pytest.approx(p.predicted_ms**2)

    def test_bifpn_rows_are_reported_apart_and_all(self, reports, device):
        rows = [p.row for p in reports[device].bifpn.rows]
        assert len(rows) == 18
        assert all("bifpn" in row.graph.name and not row.fitted and not row.reported for row in rows)

    def test_a_prediction_knows_its_error(self, reports, device):
        worst = reports[device].leave_one_network_out.worst(1)[0]
        assert abs(worst.error) == max(
            abs(p.predicted_ms / p.row.ms - 1) for p in reports[device].leave_one_network_out.rows
        )


@devices
class TestFit:
    def test_no_small_step_lowers_the_objective(self, reports, device):
        """The objective written out anew: squared errors over their noise, and the priors."""
        data, theta = reports[device].problem, reports[device].calibration.theta
        fitted = mask(data, lambda row: row.fitted)
        medians = np.array([math.log(PRIORS[n][0]) if i < 10 else PRIORS[n][0] for i, n in enumerate(PARAMETERS)])
        widths = np.array([PRIORS[name][1] for name in PARAMETERS])
        noise = np.array([0.15 if row.protocol.name == "engine" else 0.05 for row in data.rows])

        def objective(at: np.ndarray) -> float:
            errors = np.log(data.predict(at)[0] / data.ms) / noise
            return float(np.sum(errors[fitted] ** 2) + np.sum(((at - medians) / widths) ** 2))

        least = objective(theta)
        for index in range(len(theta)):
            for step in (-0.02, 0.02):
                assert objective(theta + step * (np.arange(len(theta)) == index)) > least

    def test_covariance_is_the_inverse_of_the_information(self, reports, device):
        data, calibration = reports[device].problem, reports[device].calibration
        fitted = mask(data, lambda row: row.fitted)
        noise = np.where(mask(data, lambda row: row.protocol.name == "engine"), 0.15, 0.05)
        steps = 1e-5 * np.eye(len(PARAMETERS))
        slopes = np.stack(
            [
                np.log(data.predict(calibration.theta + s)[0] / data.predict(calibration.theta - s)[0]) / 2e-5
                for s in steps
            ],
            axis=1,
        )
        scaled = slopes[fitted] / noise[fitted, None]
        information = scaled.T @ scaled + np.diag([PRIORS[name][1] ** -2.0 for name in PARAMETERS])
        np.testing.assert_allclose(calibration.covariance @ information, np.eye(len(PARAMETERS)), atol=1e-4)

    def test_the_start_of_the_fit_does_not_matter(self, reports, device):
        data, calibration = reports[device].problem, reports[device].calibration
        generator = np.random.default_rng(1)
        for _ in range(3):
            start = calibration.theta + generator.uniform(-0.5, 0.5, len(PARAMETERS))
            np.testing.assert_allclose(fit(data, start=start).theta, calibration.theta, atol=2e-4)

    def test_data_narrow_the_priors(self, reports, device):
        deviations = np.sqrt(np.diag(reports[device].calibration.covariance))
        assert (deviations <= [PRIORS[name][1] for name in PARAMETERS]).all()

    def test_parameters_are_physical(self, reports, device):
        named = reports[device].calibration.named()
        assert 1 < named["launch_us"] < 60
        assert 0.2 < named["gemm_efficiency"] < 1
        assert abs(named["toolchain"]) < 0.3
        assert all(named[name] > 0 for name in PARAMETERS[:10])

    def test_bifpn_rows_are_never_fitted(self, reports, device):
        data = reports[device].problem
        again = fit(poisoned(data, lambda row: not row.fitted))
        assert mask(data, lambda row: not row.fitted).sum() == 18
        np.testing.assert_array_equal(again.theta, reports[device].calibration.theta)
        np.testing.assert_array_equal(again.covariance, reports[device].calibration.covariance)
        assert again.residual_sd == reports[device].calibration.residual_sd

    def test_every_other_row_is_fitted(self, reports, device):
        data = reports[device].problem
        theta = reports[device].calibration.theta
        for place in np.flatnonzero(mask(data, lambda row: row.fitted))[::9]:
            label = data.rows[place].label
            moved = fit(poisoned(data, lambda row, label=label: row.label == label, 2.0), start=theta).theta
            assert np.abs(moved - theta).max() > 1e-3


@devices
class TestLeakage:
    """What is left out must not be seen: its times may be anything."""

    def test_a_left_out_network_takes_all_its_rows_with_it(self, reports, device):
        """EfficientNet-B3 with everything at 320 px stands in several tables."""
        data, group = reports[device].problem, "efficientnet-b3-d3-rfcr5s-panet-320"
        assert {"Table 3", "Table 5"} <= {row.label[:7] for row in data.rows if row.group == group}
        again = cross_validate(poisoned(data, lambda row: row.group == group), "network")
        same_predictions(reports[device].leave_one_network_out, again, lambda row: row.group == group)

    @pytest.mark.parametrize("backbone", ["efficientnet-b3", "mobilenetv2-1.4"])
    def test_a_left_out_backbone_takes_all_its_rows_with_it(self, reports, device, backbone):
        data = reports[device].problem
        assert sum(row.backbone == backbone and row.fitted for row in data.rows) > 10
        again = cross_validate(poisoned(data, lambda row: row.backbone == backbone), "backbone")
        same_predictions(reports[device].leave_one_backbone_out, again, lambda row: row.backbone == backbone)

    @pytest.mark.parametrize(
        ("backbone", "network"),
        [
            ("efficientnet-b0", "efficientnet-b0"),
            ("efficientnet-b3", "efficientnet-b3"),
            ("mobilenetv2-1.4", "mobilenetv2-1.4"),
        ],
    )
    def test_the_classifier_of_a_backbone_is_left_out_with_its_detectors(self, reports, device, backbone, network):
        rows = [row for row in reports[device].problem.rows if row.label == f"Table 1: {network}"]
        assert [row.backbone for row in rows] == [backbone]

    def test_other_rows_do_see_each_other(self, reports, device):
        """The twin of the tests above: a poisoned row spoils the predictions of the others."""
        data, group = reports[device].problem, "efficientnet-b3-d3-rfcr5s-panet-320"
        spoilt = fit(
            poisoned(data, lambda row: row.group == group),
            mask(data, lambda row: row.fitted),
            reports[device].calibration.theta,
        )
        others = mask(data, lambda row: row.reported and row.group != group)
        clean = [p.predicted_ms for p in predictions(data, reports[device].calibration, others)]
        assert np.abs(np.array([p.predicted_ms for p in predictions(data, spoilt, others)]) / clean - 1).max() > 0.02

    def test_a_network_with_several_rows_has_one_group(self, reports, device):
        groups: dict[str, set[str]] = {}
        for row in reports[device].problem.rows:
            groups.setdefault(f"{row.protocol.name} {row.graph.name}", set()).add(row.group)
        assert all(len(names) == 1 for names in groups.values())
        assert len({name for names in groups.values() for name in names}) == len(groups)


def same_predictions(before: CrossValidation, after: CrossValidation, wanted) -> None:
    pairs = [(b, a) for b, a in zip(before.rows, after.rows, strict=True) if wanted(b.row)]
    assert pairs
    for b, a in pairs:
        assert a.row.ms != b.row.ms
        assert (a.predicted_ms, a.low_ms, a.high_ms) == pytest.approx((b.predicted_ms, b.low_ms, b.high_ms), rel=1e-3)


def test_one_network_has_unequal_published_rates_on_the_nx(reports):
    """47.07 and 44.59 FPS: both are kept, both are left out together."""
    rows = [r for r in reports["nx"].problem.rows if r.group == "efficientnet-b3-d3-rfcr5s-panet-320"]
    assert {round(1000 / row.ms, 2) for row in rows} == {47.07, 44.59}


@devices
class TestShippedTables:
    def test_a_refit_gives_the_shipped_parameters(self, reports, device):
        shipped, again = shipped_calibration(device), reports[device].calibration
        np.testing.assert_allclose(shipped.theta, again.theta, atol=1e-4)
        assert shipped.residual_sd == pytest.approx(again.residual_sd, rel=1e-3)
        spread = np.sqrt(np.diag(again.covariance))
        np.testing.assert_allclose(
            shipped.covariance / np.outer(spread, spread), again.covariance / np.outer(spread, spread), atol=1e-3
        )

    def test_the_shipped_validation_figures_are_the_recomputed_ones(self, reports, device):
        shipped = read_table(TABLES / device / "tensorrt-fp16.toml").info.validation
        assert shipped == pytest.approx(summary(reports[device]), rel=6e-3)

    def test_the_figures_are_percent_of_the_four_parts(self, reports, device):
        report, figures = reports[device], summary(reports[device])
        parts = {
            "leave_one_network_out": report.leave_one_network_out,
            "leave_one_backbone_out": report.leave_one_backbone_out,
            "bifpn": report.bifpn,
            "other_protocols": report.other,
        }
        assert figures == pytest.approx(
            {f"{n}_error": 100 * mean_error(p) for n, p in parts.items()}
            | {f"{n}_coverage": 100 * coverage(p) for n, p in parts.items()}
        )

    def test_building_the_table_again_gives_the_shipped_kernels(self, reports, device):
        built, shipped = build_table(reports[device]), read_table(TABLES / device / "tensorrt-fp16.toml")
        assert built.entries.keys() == shipped.entries.keys()
        for kernel, entry in built.entries.items():
            other = shipped.entries[kernel]
            assert entry.latency_us == pytest.approx(other.latency_us, rel=2e-3)
            assert entry.spread_us == pytest.approx(other.spread_us, rel=2e-2)
            assert (entry.networks, entry.provenance) == (other.networks, other.provenance)

    def test_spreads_of_kernels_are_the_parameters_share_of_the_interval(self, reports, device):
        """By sampling parameters from the posterior: half of the 5 to 95 % range, for the dearest kernels."""
        built, calibration = build_table(reports[device]), reports[device].calibration
        kernels = sorted(built.entries, key=lambda kernel: -built.entries[kernel].latency_us)[:20]
        draws = np.random.default_rng(0).multivariate_normal(calibration.theta, calibration.covariance / 100, 400)
        rates = hardware(load_device(device).mode(), "fp16")
        times = np.array([kernel_ms(work_of(kernels), np.exp(draw[:8]), rates) for draw in draws])
        sampled = 10 * times.std(axis=0) * 1.645 * 1e3
        assert [built.entries[k].spread_us for k in kernels] == pytest.approx(sampled.tolist(), rel=0.15)


def shipped_calibration(device: str) -> Calibration:
    return read_table(TABLES / device / "tensorrt-fp16.toml").info.calibration


@devices
class TestProtocols:
    def test_engine_rows_are_the_sum_of_their_kernels(self, reports, device):
        data, calibration = reports[device].problem, reports[device].calibration
        frame, gradient = data.predict(calibration.theta)
        rows = [i for i, row in enumerate(data.rows) if row.protocol.name == "engine"]
        assert len(rows) >= 3
        for place in rows:
            kernels = graph_kernels(data.rows[place].graph)
            assert frame[place] == pytest.approx(kernel_ms(work_of(kernels), calibration.engine, data.rates).sum())
            assert (gradient[place, 8:] == 0).all()

    def test_classifier_rows_have_the_fixed_overhead_only(self, reports, device):
        data, calibration = reports[device].problem, reports[device].calibration
        frame, gradient = data.predict(calibration.theta)
        rows = [i for i, row in enumerate(data.rows) if row.protocol.name == "yolo-ret classifier"]
        assert [data.rows[i].label for i in rows] == [
            "Table 1: resnet-50",
            "Table 1: mobilenetv2-1.4",
            "Table 1: efficientnet-b0",
            "Table 1: efficientnet-b3",
        ]
        for place in rows:
            kernels = graph_kernels(data.rows[place].graph)
            engine = kernel_ms(work_of(kernels), calibration.engine, data.rates).sum()
            assert frame[place] == pytest.approx(engine + calibration.named()["fixed_ms"])
            assert (gradient[place, 9:] == 0).all()

    def test_detector_rows_have_all_terms(self, reports, device):
        data, calibration = reports[device].problem, reports[device].calibration
        named = calibration.named()
        frame, _ = data.predict(calibration.theta)
        for place, row in list(enumerate(data.rows))[:60:7]:
            kernels = graph_kernels(row.graph)
            engine = kernel_ms(work_of(kernels), calibration.engine, data.rates).sum()
            weights = math.log(sum(k.weights for k in kernels) / 3e6)
            macs = math.log(sum(k.macs for k in kernels) / 9e8)
            pixels = math.log(row.graph.input_shape[1] ** 2 / 320**2)
            toolchain = math.exp(
                named["toolchain"]
                + named["toolchain_weights"] * (weights - macs / 2)
                + named["toolchain_pixels"] * pixels
            )
            overhead = named["fixed_ms"] + named["ms_per_thousand_boxes"] * row.graph.boxes / 1000
            assert row.protocol.name == "yolo-ret"
            assert frame[place] == pytest.approx(toolchain * engine + overhead)

    def test_measurements_are_of_the_default_power_mode_in_fp16(self, reports, device):
        mode = load_device(device).mode()
        assert reports[device].problem.rates == (mode.peak_macs_per_s("fp16"), mode.bandwidth_bytes_per_s, 2)


def test_a_device_without_published_times_has_no_rows_from_the_paper():
    assert {row.protocol.name for row in measurements("tx2")} == {"engine"}
    assert measurements("orin-nano") == ()


def test_a_problem_counts_every_kernel_of_every_network():
    rows = measurements("nano")
    data = problem(rows, load_device("nano").mode())
    assert data.counts.sum(axis=1).tolist() == [len(graph_kernels(row.graph)) for row in rows]
