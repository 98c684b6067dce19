"""Latency tables and the estimator: read and refused, no kernel at zero, honest intervals, the paper's rows."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scaler.devices import load_device
from scaler.errors import FileError, UnsupportedError, UsageError
from scaler.latency.calibration import CALIBRATED_DEVICES, CALIBRATIONS, PARAMETERS
from scaler.latency.device_model import hardware, kernel_ms, work_of
from scaler.latency.estimator import Estimator, load_estimator
from scaler.latency.fusion import graph_kernels
from scaler.latency.measurements import PAPER_DEVICES
from scaler.latency.table import Entry, LatencyTable, find_table, list_tables, read_table, table_name, write_table
from scaler.models.backbones import mobilenetv2
from scaler.models.detectors.yolo_ret import BACKBONES, YoloRetConfig, build, max_drop
from scaler.published import yolo_ret_rows

ROOT = Path(__file__).parent.parent
TABLES = ROOT / "latency_tables"
KEY_COLUMNS = 12
HEADLINE = YoloRetConfig(backbone="mobilenetv2", width=0.75, drop=2, rfcr=5, shortcut=True)
UNSEEN = YoloRetConfig(backbone="mobilenetv2", width=0.6, drop=1, rfcr=7, neck="fpn", resolution=352)
TABLE_5 = [row for row in yolo_ret_rows() if row.table == "5" and row.detector()]

calibrated = pytest.mark.parametrize("device", CALIBRATED_DEVICES)
of_the_paper = pytest.mark.parametrize("device", PAPER_DEVICES)


@pytest.fixture(autouse=True, scope="module")
def no_user_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Only the shipped tables and profiles, whatever this machine's user has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALER_DATA_DIR", str(tmp_path_factory.mktemp("no user data")))
        yield


@pytest.fixture(scope="module")
def tables() -> dict[str, LatencyTable]:
    return {device: read_table(TABLES / device / "tensorrt-fp16.toml") for device in CALIBRATED_DEVICES}


@pytest.fixture(scope="module")
def estimators() -> dict[str, Estimator]:
    return {device: load_estimator(device) for device in CALIBRATED_DEVICES}


def timed(device: str) -> set[YoloRetConfig]:
    """The published detectors with a frame rate on a device."""
    rows = [row for row in yolo_ret_rows() if getattr(row, f"fps_{device}")]
    return {config for row in rows if (config := row.detector()) is not None}


def frame_ms(estimator: Estimator, *configs: YoloRetConfig) -> np.ndarray:
    return estimator.predict([estimator.sums(build(config)) for config in configs]).frame


def log_sd(estimator: Estimator, *configs: YoloRetConfig) -> list[float]:
    return estimator.predict([estimator.sums(build(config)) for config in configs]).log_sd.tolist()


def with_entries(table: LatencyTable, entries: dict) -> LatencyTable:
    return replace(table, entries=entries)


@pytest.fixture
def table_file(tmp_path: Path, tables: dict[str, LatencyTable]) -> Path:
    """A copy of the Nano's table that a test may damage."""
    return write_table(tables["nano"], tmp_path)


def refusal(path: Path) -> str:
    with pytest.raises(FileError) as raised:
        read_table(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def edit(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    return path


class TestFiles:
    @calibrated
    def test_a_table_written_and_read_is_the_same(self, tables, device, tmp_path):
        path = write_table(tables[device], tmp_path)
        again = read_table(path)
        assert path == tmp_path / device / "tensorrt-fp16.toml"
        assert again.entries == tables[device].entries
        for name in ("device", "power_mode", "runtime", "precision", "created", "method", "sources", "validation"):
            assert getattr(again.info, name) == getattr(tables[device].info, name)
        np.testing.assert_array_equal(again.info.calibration.theta, tables[device].info.calibration.theta)
        np.testing.assert_array_equal(again.info.calibration.covariance, tables[device].info.calibration.covariance)

    @calibrated
    def test_writing_a_shipped_table_gives_its_files_byte_by_byte(self, tables, device, tmp_path):
        path = write_table(tables[device], tmp_path)
        for suffix in (".toml", ".csv"):
            shipped = (TABLES / device / "tensorrt-fp16").with_suffix(suffix)
            assert path.with_suffix(suffix).read_bytes() == shipped.read_bytes()

    def test_the_covariance_is_symmetric_and_positive(self, tables):
        for table in tables.values():
            covariance = table.info.calibration.covariance
            assert covariance.shape == (len(PARAMETERS), len(PARAMETERS))
            assert (covariance == covariance.T).all()
            assert np.linalg.eigvalsh(covariance).min() > 0

    def test_the_catalogue_lists_the_calibrated_tables_and_the_measured_example(self):
        assert {(info.device, info.runtime, info.precision, info.provenance) for info in list_tables()} == {
            *((device, "tensorrt", precision, "calibrated") for device, precision in CALIBRATIONS),
            ("xeon-vm", "onnxruntime", "fp32", "measured"),
        }
        assert find_table("nano", "tensorrt", "fp16", "MAXN") is not None
        assert find_table("nano", "tensorrt", "fp32", "MAXN") is None

    def test_the_shipped_example_says_how_it_was_measured_and_how_wrong_it_is(self):
        info = read_table("xeon-vm/onnxruntime-fp32-1-thread").info
        assert info.networks == 40
        assert 0 < info.seconds < 300
        assert info.processor == load_device("xeon-vm").processor
        assert info.validation["error"] < 3
        assert any("busy neighbour" in condition for condition in info.conditions)

    @calibrated
    def test_a_shipped_table_is_of_its_device_in_the_default_mode_and_says_that_it_is_calibrated(self, tables, device):
        info = tables[device].info
        assert (info.device, info.power_mode, info.precision) == (device, load_device(device).mode().name, "fp16")
        assert (info.provenance, info.batch) == ("calibrated", 1)
        assert "none was measured" in info.method
        assert {entry.provenance for entry in tables[device].entries.values()} == {"calibrated"}

    def test_an_unknown_table_is_refused_with_the_nearest_name(self):
        with pytest.raises(UsageError, match="did you mean 'nano/tensorrt-fp16'"):
            read_table("nano/tensorrt-fp61")


class TestRefusals:
    def test_a_kernel_that_stands_twice(self, table_file):
        rows = table_file.with_suffix(".csv")
        lines = rows.read_text().splitlines()
        other_time = ",".join([*lines[7].split(",")[:KEY_COLUMNS], "1.5", "0.1", "1", "calibrated"])
        rows.write_text("\n".join([*lines, other_time]) + "\n")
        message = refusal(table_file)
        assert message.startswith(f"{rows}: line {len(lines) + 1}: this kernel stands twice")

    def test_an_unknown_column(self, table_file):
        rows = edit(table_file.with_suffix(".csv"), "latency_us", "latency_ms")
        assert f"{rows}: line 1, column 13: unknown column 'latency_ms'" in refusal(table_file)
        assert "did you mean 'latency_us'?" in refusal(table_file)

    @pytest.mark.parametrize("column", ["op", "h_out", "inputs", "latency_us", "provenance"])
    def test_a_missing_column(self, table_file, column):
        rows = table_file.with_suffix(".csv")
        cells = [line.split(",") for line in rows.read_text().splitlines()]
        place = cells[0].index(column)
        rows.write_text("\n".join(",".join(row[:place] + row[place + 1 :]) for row in cells) + "\n")
        assert f"missing: {column}" in refusal(table_file)

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("op", "convolution"),
            ("kernel", "0"),
            ("c_in", "1.5"),
            ("h_in", "-1"),
            ("latency_us", "nan"),
            ("latency_us", "inf"),
            ("latency_us", "-3"),
            ("latency_us", "0"),
            ("latency_us", ""),
            ("spread_us", "-1"),
            ("networks", "few"),
            ("provenance", "guessed"),
        ],
    )
    def test_a_cell_that_no_kernel_can_have(self, table_file, column, value):
        rows = table_file.with_suffix(".csv")
        lines = rows.read_text().splitlines()
        cells = lines[3].split(",")
        cells[lines[0].split(",").index(column)] = value
        rows.write_text("\n".join([*lines[:3], ",".join(cells), *lines[4:]]) + "\n")
        message = refusal(table_file)
        assert message.startswith(f"{rows}: line 4, column {column!r}: found {value!r}")
        assert "expected" in message

    @pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
    @pytest.mark.parametrize("suffix", [".toml", ".csv"])
    def test_a_half_written_file(self, table_file, suffix, share):
        path = table_file.with_suffix(suffix)
        content = path.read_bytes()
        cut = int(share * len(content))
        path.write_bytes(content[: cut + (content[cut - 1 : cut + 1].count(b"\n"))])
        assert refusal(table_file).startswith(str(path))

    @pytest.mark.parametrize("suffix", [".toml", ".csv"])
    def test_an_empty_and_a_missing_file(self, table_file, suffix):
        path = table_file.with_suffix(suffix)
        path.write_text("")
        assert refusal(table_file).startswith(f"{path}: empty")
        path.unlink()
        assert refusal(table_file).startswith(f"{path}: no such file")

    @pytest.mark.parametrize(
        "key",
        [
            "schema_version", "device", "power_mode", "runtime", "runtime_version", "precision", "provenance",
            "created", "method", "batch", "networks", "sources", "residual_sd", "covariance",
            "[parameters]", "launch_us", "idle_channels", "ms_per_thousand_boxes", "toolchain_memory", "[validation]",
            "engine_sd", "largest_gmacs", "leave_one_model_out_error", "leave_one_model_out_coverage",
        ],
    )  # fmt: skip
    def test_a_missing_key(self, table_file, key):
        lines = table_file.read_text().splitlines()
        kept = [line for line in lines if not line.startswith((f"{key} =", f"{key} #") if key[0] != "[" else key)]
        assert len(kept) == len(lines) - 1
        table_file.write_text("\n".join(kept) + "\n")
        message = refusal(table_file)
        assert message.startswith(f"{table_file}: ")
        assert key.strip("[]") in message

    def test_an_unknown_key_is_refused_with_the_nearest_name(self, table_file):
        edit(table_file, "batch = 1", "batch = 1\nbacth = 1")
        assert "bacth" in refusal(table_file)
        assert "did you mean 'batch'" in refusal(table_file)

    def test_a_table_of_an_older_version_says_what_to_do(self, table_file):
        """Before other labs' protocols: with a slope over resolution, without their overheads."""
        text = table_file.read_text().replace("toolchain_memory =", "toolchain_pixels =")
        gone = ("trtutils_ms", "nms_ms", "tf_to_trt", "scaled_yolov4_ms", "torch2trt", "cache_gain", "engine_sd")
        table_file.write_text("\n".join(line for line in text.splitlines() if not line.startswith(gone)) + "\n")
        message = refusal(table_file)
        assert "of a device model of an older version" in message
        assert message.endswith("build the table again: scaler tables build")

    def test_an_unknown_parameter(self, table_file):
        edit(table_file, "launch_us =", "lunch_us = 1.0\nlaunch_us =")
        assert "parameters.lunch_us" in refusal(table_file)

    @pytest.mark.parametrize("change", [("covariance = [", "covariance = [0.1, "), (", 0.", ", ", 0)])
    def test_a_covariance_of_another_length(self, table_file, change):
        if len(change) == 2:
            edit(table_file, *change)
        else:
            text = table_file.read_text()
            start = text.index("covariance = [") + len("covariance = [")
            table_file.write_text(text[:start] + text[text.index(",", start) + 1 :])
        full = len(PARAMETERS) * (len(PARAMETERS) + 1) // 2
        count = full + 1 if len(change) == 2 else full - 1
        assert refusal(table_file) == (
            f"{table_file}: covariance: {count} numbers; expected the {full} of a lower triangle"
        )

    @pytest.mark.parametrize(("version", "todo"), [(2, "update scaler"), (0, "write the file again with this scaler")])
    def test_another_schema_version(self, table_file, version, todo):
        edit(table_file, "schema_version = 1", f"schema_version = {version}")
        assert f"schema_version: found {version}; this scaler reads 1; {todo}" in refusal(table_file)

    @pytest.mark.parametrize(
        ("old", "new", "place"),
        [
            ('precision = "fp16"', 'precision = "fp61"', "precision"),
            ('provenance = "calibrated"', 'provenance = "guessed"', "provenance"),
            ("batch = 1", "batch = 0", "batch"),
            ("residual_sd = 0", "residual_sd = -0", "residual_sd"),
            ("launch_us = 3", 'launch_us = "3" #', "parameters.launch_us"),
        ],
    )
    def test_a_value_out_of_range(self, table_file, old, new, place):
        edit(table_file, old, new)
        assert refusal(table_file).startswith(f"{table_file}: {place}: ")


@of_the_paper
class TestShippedTables:
    def test_every_kernel_of_every_published_detector_is_there(self, tables, device):
        """Those with a frame rate on this device: what was fitted or compared."""
        wanted = {kernel for config in timed(device) for kernel in graph_kernels(build(config))}
        assert len(timed(device)) > 50
        assert wanted <= tables[device].entries.keys()

    def test_times_are_those_of_the_model_within_rounding(self, tables, device):
        table = tables[device]
        kernels = list(table.entries)
        rates = hardware(load_device(device).mode(), "fp16")
        model = kernel_ms(work_of(kernels), table.info.calibration.engine, rates)
        times = [table.entries[kernel].latency_us * 1e-3 for kernel in kernels]
        np.testing.assert_allclose(times, model, rtol=6e-4)

    def test_kernels_are_sorted_so_that_changes_can_be_read(self, tables, device):
        assert list(tables[device].entries) == sorted(tables[device].entries)

    def test_a_kernel_is_counted_in_every_network_that_launches_it(self, tables, device):
        counted = Counter(k for config in timed(device) for k in set(graph_kernels(build(config))))
        other = {kernel: tables[device].entries[kernel].networks - n for kernel, n in counted.items()}
        assert max(counted.values()) == len(timed(device))
        assert min(other.values()) == 0
        assert max(other.values()) > 0  # and in classifiers and other labs' networks


class TestEstimator:
    @calibrated
    @pytest.mark.parametrize("config", [HEADLINE, UNSEEN], ids=["published", "unseen"])
    def test_no_kernel_is_counted_as_zero_where_the_table_is_empty(self, tables, device, config):
        full = load_estimator(device, table=tables[device]).estimate(build(config))
        empty = load_estimator(device, table=with_entries(tables[device], {})).estimate(build(config))
        np.testing.assert_allclose(empty.engine, full.engine, rtol=6e-4)
        np.testing.assert_allclose(empty.frame, full.frame, rtol=6e-4)
        assert empty.table_share[0] == 0.0

    def test_a_published_detector_is_covered_wholly_and_another_in_part(self, estimators):
        assert estimators["nano"].estimate(build(HEADLINE)).table_share[0] == pytest.approx(1.0)
        other = replace(HEADLINE, drop=1, rfcr=7, neck="bifpn")
        assert 0.3 < estimators["nano"].estimate(build(other)).table_share[0] < 0.999
        assert estimators["nano"].estimate(build(UNSEEN)).table_share[0] < 0.1

    def test_coverage_is_the_share_of_the_time_of_the_kernels_found(self, tables):
        kernels = graph_kernels(build(HEADLINE))
        half = {k: tables["nano"].entries[k] for k in sorted(set(kernels))[::2]}
        estimator = load_estimator("nano", table=with_entries(tables["nano"], half))
        ms, found = estimator.kernel_times(kernels)
        assert 0 < found.sum() < len(kernels)
        assert found.tolist() == [kernel in half for kernel in kernels]
        share = estimator.estimate(build(HEADLINE)).table_share[0]
        assert share == pytest.approx(ms[found].sum() / ms.sum())

    def test_a_measured_time_is_taken_for_every_launch_of_its_kernel(self, tables):
        kernels = graph_kernels(build(HEADLINE))
        kernel, launches = Counter(kernels).most_common(1)[0]
        slow = {**tables["nano"].entries, kernel: Entry(5000.0, 0.0, 1, "measured")}
        before, after = (
            load_estimator("nano", table=with_entries(tables["nano"], entries))
            for entries in (tables["nano"].entries, slow)
        )
        more = (5000.0 - tables["nano"].entries[kernel].latency_us) * 1e-3 * launches
        assert launches > 2
        gain = after.kernel_times(kernels)[0].sum() - before.kernel_times(kernels)[0].sum()
        assert gain == pytest.approx(more)
        engines = [float(e.estimate(build(HEADLINE)).engine[0]) for e in (before, after)]
        whole = toolchain(before, HEADLINE)[0 if kernel.op == "conv" else 1]
        assert engines[1] - engines[0] == pytest.approx(more * whole, rel=1e-6)

    @calibrated
    def test_the_engine_is_the_sum_of_the_kernels_in_the_authors_toolchain(self, estimators, device):
        for config in (HEADLINE, UNSEEN):
            kernels = graph_kernels(build(config))
            ms, _ = estimators[device].kernel_times(kernels)
            moves = np.array([kernel.op not in ("conv", "linear") for kernel in kernels])
            whole, moving = toolchain(estimators[device], config)
            engine = estimators[device].estimate(build(config)).engine[0]
            assert engine == pytest.approx(ms[~moves].sum() * whole + ms[moves].sum() * moving)

    @calibrated
    def test_the_frame_is_engine_and_overhead_and_the_overhead_fixed_and_per_box(self, estimators, device):
        named = estimators[device].calibration.named()
        p = estimators[device].estimate(build(HEADLINE))
        assert p.overhead[0] == pytest.approx(named["fixed_ms"] + 6.3 * named["ms_per_thousand_boxes"])
        assert p.frame[0] == pytest.approx(p.engine[0] + p.overhead[0])

    def test_many_networks_at_once_are_predicted_like_each_alone(self, estimators):
        configs = [HEADLINE, UNSEEN, replace(HEADLINE, resolution=640), replace(HEADLINE, neck="bifpn", repeats=3)]
        together = estimators["nx"].predict([estimators["nx"].sums(build(config)) for config in configs])
        for place, config in enumerate(configs):
            alone = load_estimator("nx").estimate(build(config))
            for all_of_them, one in zip(together, alone, strict=True):
                assert all_of_them[place] == pytest.approx(one[0], rel=1e-12)

    def test_thousands_of_blocks_are_kept_apart(self):
        """More blocks than the estimator makes room for at first."""
        estimator = load_estimator("nano")
        configs = [
            YoloRetConfig(backbone="mobilenetv2", width=0.35 + i / 100, resolution=32 * (5 + i % 16), classes=1 + i)
            for i in range(60)
        ]
        first = frame_ms(estimator, HEADLINE, *configs[:3])
        blocks = {placement.block for config in configs for placement in build(config).placements}
        assert len(blocks) > 1024
        together = frame_ms(estimator, *configs)
        assert frame_ms(estimator, HEADLINE, *configs[:3]).tolist() == first.tolist()
        assert together[-5:] == pytest.approx(frame_ms(load_estimator("nano"), *configs[-5:]), rel=1e-12)

    def test_a_classifier_has_no_boxes_to_pay_for(self, estimators):
        p = estimators["nano"].estimate(mobilenetv2.classifier(1.0))
        assert p.overhead[0] == pytest.approx(estimators["nano"].calibration.named()["fixed_ms"])

    def test_the_fingerprint_follows_device_mode_and_table(self, tables):
        fingerprints = {
            load_estimator("nano").fingerprint,
            load_estimator("nano", power_mode="5W").fingerprint,
            load_estimator("nano", precision="fp32").fingerprint,
            load_estimator("nx").fingerprint,
            load_estimator("nano", table=with_entries(tables["nano"], {})).fingerprint,
        }
        assert len(fingerprints) == 5
        assert load_estimator("nano").fingerprint in fingerprints


def toolchain(estimator: Estimator, config: YoloRetConfig) -> tuple[float, float]:
    """The authors' software relative to clean engine times, for one network: of kernels that compute, and of others."""
    kernels, named = graph_kernels(build(config)), estimator.calibration.named()
    weights, macs = sum(k.weights for k in kernels), sum(k.macs for k in kernels)
    slope = np.log(weights / 3e6) - np.log(macs / 9e8) / 2
    whole = np.exp(named["toolchain"] + named["toolchain_weights"] * slope)
    return float(whole), float(whole * np.exp(named["toolchain_memory"]))


class TestOverhead:
    @calibrated
    @pytest.mark.parametrize("overhead", [0.0, 2.5, 1000.0])
    def test_the_users_overhead_replaces_the_protocols_and_leaves_the_engine(self, estimators, device, overhead):
        ours = load_estimator(device, overhead_ms=overhead).estimate(build(HEADLINE))
        assert ours.engine[0] == estimators[device].estimate(build(HEADLINE)).engine[0]
        assert ours.overhead[0] == overhead
        assert ours.frame[0] == ours.engine[0] + overhead

    @of_the_paper
    def test_the_engine_alone_is_known_less_well_than_the_frame(self, estimators, device):
        """Published frames hold both; how they split is a matter of the model."""
        alone = load_estimator(device, overhead_ms=0.0)
        assert log_sd(alone, HEADLINE)[0] > 1.3 * log_sd(estimators[device], HEADLINE)[0]

    @calibrated
    def test_a_known_overhead_adds_no_uncertainty_of_its_own(self, device):
        """The larger the part that the user states, the smaller the share that a parameter moves."""
        deviations = [log_sd(load_estimator(device, overhead_ms=ms), HEADLINE)[0] for ms in (0.0, 5.0, 50.0, 1e6)]
        assert deviations == sorted(deviations, reverse=True)
        assert deviations[-1] == pytest.approx(load_estimator(device).calibration.residual_sd, rel=1e-3)


class TestIntervals:
    @pytest.mark.parametrize("device", CALIBRATED_DEVICES)
    def test_an_interval_holds_the_mean(self, estimators, device):
        p = estimators[device].predict([estimators[device].sums(build(config)) for config in (HEADLINE, UNSEEN)])
        assert (p.low < p.frame).all()
        assert (p.frame < p.high).all()
        np.testing.assert_allclose(np.log(p.high / p.low) / 2, 1.6449 * p.log_sd, rtol=1e-4)

    @of_the_paper
    def test_the_half_width_near_the_data_is_that_of_the_scatter(self, estimators, device):
        scatter = estimators[device].calibration.residual_sd
        assert scatter < log_sd(estimators[device], HEADLINE)[0] < 1.4 * scatter

    @of_the_paper
    @pytest.mark.parametrize(
        "far",
        [
            replace(HEADLINE, resolution=640),
            replace(HEADLINE, resolution=160),
            replace(HEADLINE, width=0.35, drop=4, neck="bifpn", repeats=6),
            replace(HEADLINE, backbone="efficientnet-b3", width=1.0, resolution=640, repeats=3),
        ],
        ids=lambda config: config.name,
    )
    def test_intervals_grow_far_from_the_data(self, estimators, device, far):
        near, away = log_sd(estimators[device], HEADLINE, far)
        assert away > 1.05 * near

    @of_the_paper
    def test_intervals_of_the_published_detectors_are_the_narrowest(self, estimators, device):
        published = [config for config in timed(device) if config.neck != "bifpn"]
        far = [replace(config, resolution=608) for config in published]
        assert max(log_sd(estimators[device], *published)) < min(log_sd(estimators[device], *far))


class TestProvenance:
    @calibrated
    def test_a_calibrated_device_says_so(self, estimators, device):
        estimator = estimators[device]
        assert (estimator.provenance, estimator.fallback, estimator.info.device) == ("calibrated", "model", device)

    def test_a_device_that_nobody_measured_is_estimated_with_a_wide_interval(self, tmp_path):
        estimator = load_estimator(str(own_profile(tmp_path)))
        p = estimator.estimate(build(HEADLINE))
        assert (estimator.provenance, estimator.fallback) == ("estimated", "roofline")
        assert p.table_share[0] == 0.0
        assert p.high[0] / p.frame[0] == pytest.approx(1.509, abs=0.001)

    @pytest.mark.parametrize(
        ("device", "options"),
        [
            ("nano", {"power_mode": "5W"}),
            ("nx", {"power_mode": "20W"}),
            ("nano", {"precision": "fp32"}),
            ("nx", {"precision": "int8"}),
            ("agx", {"precision": "fp32"}),
        ],
        ids=str,
    )
    def test_another_mode_or_precision_of_a_calibrated_device_is_estimated_with_a_wider_interval(
        self, estimators, device, options
    ):
        other = load_estimator(device, **options)
        assert other.provenance == "estimated"
        assert other.estimate(build(HEADLINE)).table_share[0] == 0.0
        assert log_sd(other, HEADLINE)[0] > 2 * log_sd(estimators[device], HEADLINE)[0]

    def test_the_default_mode_by_name_is_the_default(self, estimators):
        named = load_estimator("nano", power_mode="maxn")
        assert named.provenance == "calibrated"
        assert frame_ms(named, HEADLINE) == frame_ms(estimators["nano"], HEADLINE)

    def test_a_slower_mode_and_a_wider_precision_are_slower(self, estimators):
        nano = frame_ms(estimators["nano"], HEADLINE)[0]
        assert frame_ms(load_estimator("nano", power_mode="5W"), HEADLINE)[0] > 1.05 * nano
        assert frame_ms(load_estimator("nano", precision="fp32"), HEADLINE)[0] > 1.05 * nano

    def test_an_alias_is_the_device(self, estimators):
        assert frame_ms(load_estimator("jetson-nano"), HEADLINE) == frame_ms(estimators["nano"], HEADLINE)

    @pytest.mark.parametrize(
        "other",
        [("nx", {}), ("nano", {"precision": "fp32"}), ("nano", {"power_mode": "5W"})],
        ids=["device", "precision", "power mode"],
    )
    def test_a_table_of_something_else_is_never_taken_for_it(self, tables, other):
        name, options = other
        estimator = load_estimator(name, table=tables["nano"], **options)
        assert (estimator.provenance, estimator.estimate(build(HEADLINE)).table_share[0]) == ("estimated", 0.0)

    def test_the_nano_has_no_int8(self):
        with pytest.raises(UnsupportedError, match="Jetson Nano has no INT8 in TensorRT; it supports fp32, fp16"):
            load_estimator("nano", precision="int8")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"device": "nanoo"}, "unknown device 'nanoo'; did you mean 'nano'"),
            ({"device": "nano", "precision": "fp61"}, "unknown precision 'fp61'; did you mean 'fp16'"),
            ({"device": "nano", "power_mode": "6W"}, "unknown power mode of Jetson Nano '6W'"),
        ],
        ids=["device", "precision", "power mode"],
    )
    def test_an_unknown_name_is_refused_with_the_nearest(self, arguments, message):
        with pytest.raises(UsageError) as raised:
            load_estimator(**arguments)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)

    def test_a_profile_of_ones_own_without_fp16_is_estimated(self, tmp_path):
        path = own_profile(tmp_path)
        path.write_text(re.sub("(?m)^fma_per_sm_clock.*", "fma_per_sm_clock = { fp32 = 128 }", path.read_text()))
        estimator = load_estimator(str(path), precision="fp32")
        assert estimator.provenance == "estimated"
        assert np.isfinite(frame_ms(estimator, HEADLINE)[0])


def own_profile(folder: Path) -> Path:
    """A device of one's own: a Jetson Orin NX by another name, which no table is of."""
    text = (ROOT / "profiles" / "orin-nx.toml").read_text().replace('id = "orin-nx"', 'id = "mine"')
    path = folder / "mine.toml"
    path.write_text("\n".join(line for line in text.splitlines() if not line.startswith('aliases = ["jetson')))
    return path


@of_the_paper
class TestPublishedRows:
    @pytest.mark.parametrize("row", TABLE_5, ids=lambda row: row.detector().name)
    def test_frame_times_are_predicted_within_20_percent(self, estimators, device, row):
        published = 1000 / getattr(row, f"fps_{device}")
        assert frame_ms(estimators[device], row.detector())[0] == pytest.approx(published, rel=0.20)

    def test_the_headline_detector_is_predicted_within_ten_percent(self, estimators, device):
        row = next(row for row in TABLE_5 if row.detector() == HEADLINE)
        assert frame_ms(estimators[device], HEADLINE)[0] == pytest.approx(1000 / getattr(row, f"fps_{device}"), rel=0.1)

    def test_detectors_rank_like_published_ones_where_these_differ_by_a_quarter(self, estimators, device):
        rows = [(frame_ms(estimators[device], r.detector())[0], 1000 / getattr(r, f"fps_{device}")) for r in TABLE_5]
        clear = [(a, b) for a in rows for b in rows if a[1] > 1.25 * b[1]]
        assert len(rows) == 9
        assert len(clear) > 15
        assert all(a[0] > b[0] for a, b in clear)


def grow(config: YoloRetConfig) -> list[YoloRetConfig]:
    """What has strictly more to compute, a step in each direction."""
    steps = [replace(config, resolution=config.resolution + 32)] if config.resolution < 640 else []
    if config.drop:
        steps.append(replace(config, drop=config.drop - 1))
    if config.backbone == "mobilenetv2" and config.width < 1.35:
        steps.append(replace(config, width=config.width + 0.15))
    if not config.rfcr:
        steps.append(replace(config, rfcr=3))
    elif not config.shortcut:
        steps.append(replace(config, shortcut=True))
    if config.neck in ("none", "fpn"):
        steps.append(replace(config, neck={"none": "fpn", "fpn": "panet"}[config.neck]))
    if config.neck != "none":
        steps.append(replace(config, repeats=config.repeats + 1))
    return steps


def some_detectors() -> list[YoloRetConfig]:
    draw = np.random.default_rng(0)
    found = []
    for _ in range(150):
        backbone = BACKBONES[draw.integers(len(BACKBONES))]
        rfcr = int(draw.choice([0, 3, 5, 7]))
        found.append(
            YoloRetConfig(
                backbone=backbone,
                width=float(draw.choice([0.35, 0.5, 0.75, 1.0, 1.25])) if backbone == "mobilenetv2" else 1.0,
                drop=int(draw.integers(max_drop(backbone) + 1)),
                neck=str(draw.choice(["none", "fpn", "panet", "bifpn"])),
                rfcr=rfcr,
                shortcut=bool(rfcr and draw.integers(2)),
                resolution=32 * int(draw.integers(5, 20)),
            )
        )
    return found


DETECTORS = some_detectors()


class TestOrders:
    @pytest.mark.parametrize("device", CALIBRATED_DEVICES)
    def test_a_detector_with_more_blocks_pixels_channels_or_aggregation_is_never_faster(self, estimators, device):
        pairs = [(config, larger) for config in DETECTORS for larger in grow(config)]
        small = frame_ms(estimators[device], *[config for config, _ in pairs])
        large = frame_ms(estimators[device], *[config for _, config in pairs])
        faster = [f"{a.name} -> {b.name}" for (a, b), x, y in zip(pairs, small, large, strict=True) if y <= x]
        assert len(pairs) > 500
        assert faster == []

    @pytest.mark.parametrize("device", CALIBRATED_DEVICES)
    def test_a_wider_window_in_rfcr_is_not_noticeably_faster(self, estimators, device):
        """Depthwise kernels cost their bytes: 7x7 costs what 3x3 does, and by the toolchain's slope 0.01 % less."""
        pairs = [
            (replace(c, rfcr=a), replace(c, rfcr=b)) for c in DETECTORS[:40] if c.rfcr for a, b in ((3, 5), (5, 7))
        ]
        small = frame_ms(estimators[device], *[config for config, _ in pairs])
        large = frame_ms(estimators[device], *[config for _, config in pairs])
        assert (large >= 0.9999 * small).all()

    def test_devices_rank_by_their_data_sheets(self, estimators):
        ms = [frame_ms(estimators[device], HEADLINE)[0] for device in ("nano", "tx2", "nx", "agx")]
        assert ms == sorted(ms, reverse=True)


def test_a_tables_name_is_device_runtime_and_precision():
    assert table_name("nano", "tensorrt", "fp16") == "nano/tensorrt-fp16"
