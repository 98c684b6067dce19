"""Files of measured tables: round trip, refusals with their place, and which table goes for which setting."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_device import host_table

from scaler.cli import run
from scaler.devices import load_device
from scaler.errors import FileError, UnsupportedError, UserError
from scaler.latency.calibration import CALIBRATED_DEVICES, CALIBRATIONS
from scaler.latency.estimator import load_estimator
from scaler.latency.kernel_regression import FEATURES
from scaler.latency.measured import MeasuredEstimator
from scaler.latency.table import CROSS_VALIDATION, LatencyTable, find_table, list_tables, read_table, write_table

ROOT = Path(__file__).parent.parent
NAME = "host/onnxruntime-fp32-1-thread"
EXAMPLE = "xeon-vm/onnxruntime-fp32-1-thread"


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> LatencyTable:
    return host_table(tmp_path_factory.mktemp("table"), 5)


@pytest.fixture(autouse=True)
def user_data(tmp_path: Path, monkeypatch) -> Iterator[Path]:
    """The user's own data, in the beginning none."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("SCALER_DATA_DIR", str(folder))
    yield folder


@pytest.fixture
def path(table: LatencyTable, user_data: Path) -> Path:
    """The table among the user's data, where a test may damage it."""
    return write_table(table, user_data / "latency_tables")


def refusal(path: Path) -> str:
    with pytest.raises(FileError) as refused:
        read_table(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def edit(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def with_line(start: str, line: str) -> Callable[[list[str]], list[str]]:
    """Replace the line that begins like this."""

    def change(lines: list[str]) -> list[str]:
        assert any(old.startswith(start) for old in lines), start
        return [line if old.startswith(start) else old for old in lines]

    return change


def test_written_and_read_it_is_the_same_to_the_digits_written(table, path):
    again = read_table(path)
    assert list(again.entries) == list(table.entries)
    for kernel, row in table.entries.items():
        other = again.entries[kernel]
        assert other.latency_us == pytest.approx(row.latency_us, rel=1e-3)
        assert other.spread_us == pytest.approx(row.spread_us, rel=1e-2)
        assert (other.networks, other.provenance) == (row.networks, "measured")
    for field in ("device", "power_mode", "runtime", "runtime_version", "precision", "batch", "provenance", "created"):
        assert getattr(again.info, field) == getattr(table.info, field)
    for field in ("method", "networks", "sources", "processor", "conditions"):
        assert getattr(again.info, field) == getattr(table.info, field)
    assert again.info.seconds == pytest.approx(table.info.seconds, abs=0.1)
    assert again.info.validation == pytest.approx(table.info.validation, rel=0.01)
    assert set(again.info.validation) == set(CROSS_VALIDATION)
    assert again.info.model.reference == table.info.model.reference
    for field in ("factor", "exponent", "constant_ms", "residual_log_sd", "kernel_share", "reference_ms"):
        assert getattr(again.info.model, field) == pytest.approx(getattr(table.info.model, field), rel=1e-3)
    assert set(again.info.model.hypers) == set(table.info.model.hypers)
    for name, hyper in table.info.model.hypers.items():
        assert again.info.model.hypers[name].lengths == pytest.approx(hyper.lengths, rel=1e-3)
        assert again.info.model.hypers[name][:2] == pytest.approx(hyper[:2], rel=1e-3)


def test_written_once_more_it_is_the_same_byte_by_byte(path, tmp_path):
    again = write_table(read_table(path), tmp_path / "again")
    for suffix in (".toml", ".csv"):
        assert again.with_suffix(suffix).read_bytes() == path.with_suffix(suffix).read_bytes()


def test_its_name_has_the_power_mode(table, path, user_data):
    assert table.info.name == NAME
    assert path == user_data / "latency_tables" / f"{NAME}.toml"
    spaced = replace(table.info, device="agx", runtime="tensorrt", precision="fp16", power_mode="30W ALL")
    assert spaced.name == "agx/tensorrt-fp16-30w-all"


@pytest.mark.parametrize("text", ['a "quoted" \\ name', "two\nlines\tand a tab", "Ω µs · 日本", "\x7f\x01"])
def test_any_text_survives(table, tmp_path, text):
    changed = replace(table, info=replace(table.info, processor=text, conditions=(text, "another"), sources=(text,)))
    again = read_table(write_table(changed, tmp_path))
    assert (again.info.processor, again.info.conditions, again.info.sources) == (text, (text, "another"), (text,))


@pytest.mark.parametrize(
    ("start", "line", "said"),
    [
        ("factor", "", "model.factor: missing"),
        ("factor", "factor = -1.0", "model.factor: found -1.0"),
        ("factor", "factor = nan", "model.factor: found nan"),
        ("constant_ms", "constant_ms = -0.5", "model.constant_ms: found -0.5"),
        ("residual_log_sd", "residual_log_sd = 0", "model.residual_log_sd: found 0"),
        ("kernel_share", "kernel_share = 1.5", "model.kernel_share: found 1.5"),
        ("kernel_share", "kernel_share = 0.5\nanother = 1", "model.another: unknown key"),
        ("reference_ms", "", "model.reference_ms: missing"),
        ("processor", "", "processor: missing"),
        ("seconds", "seconds = -1", "seconds: found -1"),
        ("conditions", 'conditions = "quiet"', "conditions: found 'quiet'"),
        ("error", "", "validation.error: missing"),
        ("coverage", "coverage = inf", "validation.coverage: found inf"),
        ("runtime =", 'runtime = "onnxrt"', "runtime: found 'onnxrt'"),
        ("precision", 'precision = "fp33"', "did you mean 'fp32'"),
        ("provenance", 'provenance = "measures"', "did you mean 'measured'"),
        ("schema_version", "schema_version = 9", "schema_version"),
    ],
)
def test_a_wrong_value_is_refused_with_file_and_place(path, start, line, said):
    edit(path, with_line(start, line))
    message = refusal(path)
    assert str(path) in message
    assert said in message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("noise = 0.1, lengths = [{ones}]", "amplitude: missing"),
        ("amplitude = 0.1, lengths = [{ones}]", "noise: missing"),
        ("amplitude = 0.1, noise = 0.1", "lengths: missing"),
        ("amplitude = 0.1, noise = 0.1, lengths = [1.0, 2.0]", "lengths: 2 numbers; expected 10: work, pixels_out"),
        ("amplitude = 0.1, noise = 0.1, lengths = [{ones}, 1.0]", "lengths: 11 numbers"),
        ("amplitude = 0.1, noise = nan, lengths = [{ones}]", "noise: found nan"),
        ("amplitude = -0.1, noise = 0.1, lengths = [{ones}]", "amplitude: found -0.1"),
        ("amplitude = 0.1, noise = 0.1, lengths = [0.0, {ones}]", "lengths[0]: found 0.0"),
        ("amplitude = 1e300, noise = 0.1, lengths = [{ones}]", "amplitude: found 1e+300"),
    ],
)
def test_wrong_hyperparameters_are_refused_with_their_group(path, fields, said):
    ones = ", ".join(["1.0"] * len(FEATURES))
    edit(path, with_line('"conv" =', f'"conv" = {{ {fields.format(ones=ones)} }}'))
    message = refusal(path)
    assert f"model.groups.conv.{said}" in message


def test_a_measured_table_without_its_model_says_what_is_missing(path):
    edit(path, lambda lines: lines[: lines.index(next(line for line in lines if line.startswith("[model]")))])
    path.write_text(path.read_text() + "[validation]\n" + "".join(f"{name} = 1\n" for name in CROSS_VALIDATION))
    assert ": model: missing" in refusal(path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("latency_us", "nan"),
        ("latency_us", "-1"),
        ("latency_us", "0"),
        ("latency_us", ""),
        ("spread_us", "-0.1"),
        ("spread_us", "inf"),
        ("networks", "0"),
        ("networks", "1.5"),
        ("op", "convolution"),
        ("c_in", "0"),
        ("provenance", "guessed"),
    ],
)
def test_a_wrong_cell_is_refused_with_line_and_column(path, column, value):
    cells = path.with_suffix(".csv")
    rows = list(csv.DictReader(io.StringIO(cells.read_text())))
    rows[2][column] = value
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    cells.write_text(text.getvalue())
    message = refusal(path)
    assert f"{cells}: line 4, column '{column}': found '{value}'" in message


def test_a_kernel_that_stands_twice_is_refused(path):
    edit(path.with_suffix(".csv"), lambda lines: [*lines, lines[1]])
    assert "this kernel stands twice" in refusal(path)


def test_a_table_without_rows_or_without_its_csv_is_refused(path):
    edit(path.with_suffix(".csv"), lambda lines: lines[:1])
    assert "no rows" in refusal(path)
    path.with_suffix(".csv").unlink()
    assert "no such file" in refusal(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_table_cut_off_is_refused(path, share):
    for suffix in (".toml", ".csv"):
        whole = path.with_suffix(suffix).read_bytes()
        path.with_suffix(suffix).write_bytes(whole[: int(len(whole) * share)].rsplit(b",", 1)[0] + b",")
        refusal(path)
        path.with_suffix(suffix).write_bytes(whole)


class TestChoice:
    """Which table goes for which setting."""

    @pytest.mark.usefixtures("path")
    def test_a_measured_table_makes_a_measured_estimator(self):
        estimator = load_estimator("host")
        assert isinstance(estimator, MeasuredEstimator)
        assert (estimator.provenance, estimator.mode.name) == ("measured", "1-thread")
        assert find_table("host", "onnxruntime", "fp32", "1-thread") is not None

    def test_without_a_table_the_host_must_be_measured(self):
        with pytest.raises(UnsupportedError) as refused:
            load_estimator("host")
        assert "no latency table of host for onnxruntime fp32, 1-thread" in str(refused.value)
        assert "scaler profile run --device host" in str(refused.value)
        assert "there is one" not in str(refused.value)

    @pytest.mark.usefixtures("path")
    def test_another_number_of_threads_says_which_table_there_is(self, monkeypatch):
        host = load_device("host")
        two = replace(host.modes[0], name="2-threads", aliases=("2",), threads=2)
        monkeypatch.setattr("scaler.latency.estimator.load_device", lambda _: replace(host, modes=(host.modes[0], two)))
        with pytest.raises(UnsupportedError) as refused:
            load_estimator("host", power_mode="2-threads")
        assert "onnxruntime fp32, 2-threads (there is one for fp32 1-thread)" in str(refused.value)
        assert "--power-mode 2-threads" in str(refused.value)

    @pytest.mark.usefixtures("path")
    def test_another_precision_of_the_host_says_what_it_has(self):
        with pytest.raises(UserError, match="it supports fp32"):
            load_estimator("host", precision="fp16")

    def test_a_table_of_another_processor_is_refused_for_the_host(self, table, user_data):
        other = replace(table, info=replace(table.info, processor="Another CPU"))
        write_table(other, user_data / "latency_tables")
        with pytest.raises(UnsupportedError) as refused:
            load_estimator("host")
        assert "was measured on Another CPU, this computer has" in str(refused.value)
        assert "scaler profile run --device host" in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_a_measured_table_goes_over_a_calibrated_one_of_the_same_setting_only(self, table, user_data):
        mode = load_device("nano").mode().name
        facts = {"device": "nano", "runtime": "tensorrt", "precision": "fp16", "power_mode": mode}
        write_table(replace(table, info=replace(table.info, **facts)), user_data / "latency_tables")
        assert load_estimator("nano").provenance == "measured"
        assert load_estimator("nano", power_mode="5W").provenance == "estimated"
        assert load_estimator("nano", precision="fp32").provenance == "estimated"
        assert load_estimator("nx").provenance == "calibrated"
        calibrated = read_table("nano/tensorrt-fp16")
        assert load_estimator("nano", table=calibrated).provenance == "calibrated"

    @pytest.mark.usefixtures("path")
    def test_tables_that_were_there_before_are_untouched(self, user_data):
        for device in CALIBRATED_DEVICES:
            assert load_estimator(device).provenance == "calibrated"
            again = write_table(read_table(f"{device}/tensorrt-fp16"), user_data / "again")
            for suffix in (".toml", ".csv"):
                shipped = (ROOT / "latency_tables" / device / "tensorrt-fp16").with_suffix(suffix)
                assert again.with_suffix(suffix).read_bytes() == shipped.read_bytes()

    @pytest.mark.usefixtures("path")
    def test_the_catalogue_lists_it_beside_the_calibrated_ones(self):
        assert [info.name for info in list_tables()] == [
            *sorted([*(f"{device}/tensorrt-{precision}" for device, precision in CALIBRATIONS), NAME, EXAMPLE])
        ]

    @pytest.mark.usefixtures("path")
    def test_the_command_lists_it_with_its_error(self, table, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")
        assert run(["tables", "list"]) == 0
        row = next(line for line in capsys.readouterr().out.splitlines() if "host/onnxruntime-fp32" in line)
        assert "measured" in row
        assert f"{table.info.validation['error']:.1f} %" in row

    @pytest.mark.usefixtures("path")
    def test_the_command_lists_it_as_json(self, capsys):
        assert run(["tables", "list", "--json"]) == 0
        host = next(info for info in json.loads(capsys.readouterr().out) if info["device"] == "host")
        assert host["provenance"] == "measured"
        assert set(host["validation_percent"]) == set(CROSS_VALIDATION)
