"""Measurements: their files, and what follows from raw samples."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from synthetic_device import make_plan

from scaler.errors import FileError
from scaler.profiling.measurement import (
    LEAST_QUIET,
    Measurement,
    Round,
    quiet_reference_ms,
    read_measurement,
    write_measurement,
)
from scaler.profiling.plan_file import read_plan, write_plan
from scaler.runtimes.protocol import Conditions, LayerTime

CONDITIONS = Conditions(
    runtime="onnxruntime",
    runtime_version="1.2",
    precision="fp32",
    batch=1,
    processor="A processor",
    power_mode="1-thread",
    clocks_mhz={"cpu": 2500.0},
    clocks_pinned=False,
    temperature_c=45.5,
    throttled=True,
    notes=("a note",),
)
FULL = Measurement(
    network="m0-1a2b",
    params={"backbone": "mobilenetv2", "width": 0.75, "drop": 2, "shortcut": True},
    conditions=CONDITIONS,
    rounds=(Round((1.0, 1.1), (3.0, 3.25)), Round((1.0,), (2.9, 3.1, 1 / 3))),
    layers=(LayerTime("a + b", 0.1, ("a", "b"), "Conv"), LayerTime("reformat", 0.0, (), "")),
    seconds=2.5,
    tries=2,
    warnings=("the rounds spread over 12 % after 2 tries",),
)
FAILED = Measurement(network="n", params={}, conditions=CONDITIONS, error="refused: no such operator")


def with_ratios(*ratios: float, reference_ms: float = 2.0) -> Measurement:
    rounds = tuple(Round((reference_ms,) * 2, (ratio * reference_ms,) * 3) for ratio in ratios)
    return replace(FULL, rounds=rounds)


def written(folder: Path, measurement: Measurement = FULL) -> Path:
    path = folder / "measured.json"
    write_measurement(measurement, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(FileError) as refused:
        read_measurement(path)
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)
    return str(refused.value)


class TestFile:
    @pytest.mark.parametrize(
        "measurement",
        [
            FULL,
            FAILED,
            replace(FULL, conditions=replace(CONDITIONS, clocks_mhz={}, clocks_pinned=None, temperature_c=None)),
            replace(FULL, conditions=replace(CONDITIONS, throttled=None, notes=()), layers=(), warnings=()),
        ],
        ids=["full", "failed", "unknown conditions", "no layers"],
    )
    def test_written_and_read_it_is_the_same_to_the_last_bit(self, tmp_path, measurement):
        assert read_measurement(written(tmp_path, measurement)) == measurement

    @pytest.mark.parametrize(
        ("place", "value", "said"),
        [
            (("rounds", 0, "network_ms", 1), -1.0, "rounds[0].network_ms[1]"),
            (("rounds", 0, "network_ms", 1), 0.0, "rounds[0].network_ms[1]"),
            (("rounds", 1, "reference_ms", 0), 0, "rounds[1].reference_ms[0]"),
            (("rounds", 1, "reference_ms", 0), True, "rounds[1].reference_ms[0]"),
            (("rounds", 1, "reference_ms", 0), "1.0", "rounds[1].reference_ms[0]"),
            (("rounds", 1, "reference_ms"), [], "rounds[1].reference_ms"),
            (("rounds", 1, "network_ms"), None, "rounds[1].network_ms"),
            (("rounds",), [], "rounds"),
            (("layers", 0, "ms"), -0.1, "layers[0].ms"),
            (("layers", 0, "nodes"), "a", "layers[0].nodes"),
            (("seconds",), -1, "seconds"),
            (("tries",), 1.5, "tries"),
            (("kind",), "scaler-plan", "kind"),
            (("schema_version",), 2, "schema_version"),
            (("params",), {"width": [1]}, "params"),
            (("params",), [], "params"),
            (("conditions", "precision"), "fp7", "conditions.precision"),
            (("conditions", "batch"), 0, "conditions.batch"),
            (("conditions", "clocks_mhz", "cpu"), -5, "conditions.clocks_mhz.cpu"),
            (("conditions", "throttled"), 1, "conditions.throttled"),
            (("conditions", "speed"), 1, "conditions.speed"),
            (("unknown",), 1, "unknown"),
            (("error",), None, "error"),
        ],
        ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
    )
    def test_a_wrong_value_is_refused_with_its_place(self, tmp_path, place, value, said):
        path = written(tmp_path)
        content: Any = json.loads(path.read_text())
        parent = content
        for key in place[:-1]:
            parent = parent[key]
        parent[place[-1]] = value
        path.write_text(json.dumps(content))
        assert f": {said}: " in refusal(path)

    @pytest.mark.parametrize("literal", ["NaN", "Infinity", "1e999"])
    def test_times_that_are_no_numbers_are_refused(self, tmp_path, literal):
        path = written(tmp_path)
        path.write_text(path.read_text().replace("3.25", literal, 1))
        assert refusal(path)

    @pytest.mark.parametrize("key", ["network", "params", "conditions", "rounds", "layers", "seconds", "error"])
    def test_a_missing_key_is_refused_by_name(self, tmp_path, key):
        path = written(tmp_path)
        content = json.loads(path.read_text())
        del content[key]
        path.write_text(json.dumps(content))
        assert f": {key}: missing" in refusal(path)

    def test_a_file_cut_off_anywhere_is_refused(self, tmp_path):
        path = written(tmp_path)
        text = path.read_text().rstrip()
        for end in range(0, len(text), 37):
            path.write_text(text[:end])
            refusal(path)

    def test_a_time_that_is_no_number_is_never_written(self, tmp_path):
        path = written(tmp_path)
        before = path.read_bytes()
        with pytest.raises(ValueError, match="JSON compliant"):
            write_measurement(replace(FULL, seconds=float("nan")), path)
        assert path.read_bytes() == before


class TestSamples:
    def test_the_ratio_of_a_round_is_the_networks_median_over_the_mean_of_the_references_before_and_after(self):
        assert Round((1.0, 1.0, 40.0, 3.0, 80.0, 3.0), (4.0, 5.0, 60.0)).ratio == 2.5
        assert Round((2.0,), (5.0,)).ratio == 2.5

    def test_ratio_and_spread_are_median_and_middle_half_of_the_rounds(self):
        measurement = with_ratios(1.0, 2.0, 3.0, 4.0, 50.0)
        assert measurement.ratio(2.0) == 3.0
        assert measurement.spread(2.0) == pytest.approx((4.0 - 2.0) / 3.0)

    def test_equal_rounds_do_not_spread(self):
        assert with_ratios(1.5, 1.5, 1.5).spread(2.0) == 0.0

    def test_drift_cancels_in_the_ratio(self):
        rounds = tuple(Round((2.0 * f,) * 2, (6.0 * f,) * 3) for f in (1.0, 1.05, 1.1, 1.15))
        drifted = replace(FULL, rounds=rounds)
        assert drifted.ratio(2.0) == pytest.approx(3.0)
        assert drifted.spread(2.0) == pytest.approx(0.0)

    def test_rounds_beside_a_busy_neighbour_are_not_used_while_there_are_enough_others(self):
        quiet = tuple(Round((2.0,), (6.0,)) for _ in range(LEAST_QUIET))
        busy = tuple(Round((4.0,), (8.0,)) for _ in range(9))
        measurement = replace(FULL, rounds=(*busy, *quiet))
        assert measurement.quiet_rounds(2.0) == quiet
        assert measurement.ratio(2.0) == 3.0

    def test_too_few_quiet_rounds_leave_all_in_use(self):
        rounds = (*(Round((2.0,), (6.0,)) for _ in range(LEAST_QUIET - 1)), *(Round((4.0,), (8.0,)) for _ in range(9)))
        measurement = replace(FULL, rounds=rounds)
        assert measurement.quiet_rounds(2.0) == rounds
        assert measurement.ratio(2.0) == 2.0

    @pytest.mark.parametrize(("reference_ms", "quiet"), [(1.0, True), (2.39, True), (2.41, False)])
    def test_a_round_is_quiet_while_the_reference_is_about_as_fast_as_at_its_best(self, reference_ms, quiet):
        assert Round((reference_ms,), (1.0,)).is_quiet(2.0) is quiet

    def test_one_disturbed_sample_of_the_reference_does_not_make_a_round_busy(self):
        assert Round((2.0, 2.0, 2.0, 2.0, 2.0, 90.0), (1.0,)).is_quiet(2.0)

    def test_a_neighbour_that_comes_during_a_round_makes_it_busy(self):
        assert not Round((2.0,) * 5 + (3.0,) * 5, (1.0,)).is_quiet(2.0)
        assert not Round((3.0,) * 5 + (2.0,) * 5, (1.0,)).is_quiet(2.0)

    def test_the_quiet_reference_is_the_10th_percentile_over_all_rounds(self):
        measurements = [with_ratios(1.0, reference_ms=float(ms)) for ms in range(1, 12)]
        assert quiet_reference_ms(measurements) == 2.0
        assert quiet_reference_ms([FAILED, *measurements]) == 2.0, "a failed network has no rounds"

    def test_all_raw_samples_count_for_the_99th_percentile(self):
        rounds = (Round((1.0,), tuple([1.0] * 150)), Round((1.0,), (*[1.0] * 48, 9.0, 9.0)))
        measurement = replace(FULL, rounds=rounds)
        assert len(measurement.samples_ms) == 200
        assert 1.0 < measurement.p99_ms <= 9.0


class TestPlan:
    """The plan's own file."""

    def test_written_and_read_it_is_the_same(self, tmp_path):
        plan = make_plan(tmp_path, 3)
        write_plan(plan, tmp_path / "plan.json")
        assert read_plan(tmp_path / "plan.json") == plan

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ('"runtime": "onnxruntime"', '"runtime": "onnxruntim"', "runtime: found 'onnxruntim'; expected one of"),
            ('"network": "{}"', '"network": "../{}"', "networks[0].network: found '../"),
            ('"network": "{}"', '"network": "plan"', "networks[0].network: found 'plan'"),
            ('"batch": 1', '"batch": 0', "batch: found 0"),
            ('"precision": "fp32"', '"precision": "fp31"', "did you mean 'fp32'"),
        ],
        ids=["runtime", "outside the folder", "the plan's own name", "batch", "precision"],
    )
    def test_a_wrong_value_is_refused_with_its_place(self, tmp_path, old, new, said):
        plan = make_plan(tmp_path, 3)
        path = tmp_path / "plan.json"
        write_plan(plan, path)
        first = plan.networks[0].network
        text = path.read_text()
        assert old.format(first) in text
        path.write_text(text.replace(old.format(first), new.format(first), 1))
        with pytest.raises(FileError) as refused:
            read_plan(path)
        assert said in str(refused.value)
        assert "\n" not in str(refused.value)

    def test_a_network_that_stands_twice_is_refused(self, tmp_path):
        plan = make_plan(tmp_path, 2)
        write_plan(replace(plan, networks=(plan.networks[0],) * 2), tmp_path / "plan.json")
        with pytest.raises(FileError, match="a network stands twice"):
            read_plan(tmp_path / "plan.json")
