"""What a device showed flows back: into the result, beside the predictions, and stays there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sample_result import nano, nano_5w, sample_result
from verified_sample import measured_of, verified_device, verified_result

from scaler.errors import UserError
from scaler.report.files import write_json
from scaler.report.recording import keep_measured, record_verified
from scaler.search.result import Candidate, Interval, SearchResult
from scaler.search.result_file import read_result
from scaler.search.verified import compared, promise_of, shown, with_verified

FRONT = nano().front
PICK = FRONT[6]


def candidate_of(result: SearchResult, device: int = 0, identity: str = PICK.id) -> Candidate:
    return next(one for one in result.devices[device].front if one.id == identity)


def compare(slower: float, **changes: object):
    return compared(PICK, measured_of(PICK, slower, **changes), "VOC AP50")


# the result


def test_a_measurement_goes_to_its_device_alone_and_learns_the_promise():
    measured = measured_of(PICK, 0.01, promise=None)
    result = with_verified(sample_result(), "nano", PICK.id, measured)

    assert candidate_of(result).verified == (replace(measured, promise=1000 / 30),)
    assert candidate_of(result, device=1).verified == ()
    assert promise_of(replace(nano(), target_fps=None)) is None


def test_the_same_measurement_twice_stands_there_once_and_later_ones_come_last():
    late, early = (measured_of(PICK, 0.01, created=f"2026-11-2{day}T10:00:00+00:00") for day in (3, 1))
    result = sample_result()
    for one in (late, early, late):
        result = with_verified(result, "nano", PICK.id, one)

    assert [one.created for one in candidate_of(result).verified] == [early.created, late.created]


@pytest.mark.parametrize(("device", "identity"), [("nano", "ffffffff"), ("nx", PICK.id)])
def test_a_measurement_of_nothing_in_the_result_is_refused(device, identity):
    with pytest.raises(UserError, match=f"no candidate '{identity}' for {device}"):
        with_verified(sample_result(), device, identity, measured_of(PICK, 0.0))


def test_the_nearest_candidate_beside_the_front_can_be_measured():
    nearest = nano_5w().nearest
    assert nearest is not None

    result = with_verified(sample_result(), "nano-5w", nearest.id, measured_of(nearest, 0.1))

    assert result.devices[1].nearest is not None
    assert result.devices[1].nearest.verified[0].promise == 1000 / 30


@pytest.mark.slow  # test_verify does so too
def test_recording_writes_the_file_and_draws_the_reports_anew(tmp_path: Path):
    path = tmp_path / "pareto.json"
    write_json(sample_result(), path)

    record_verified(path, "nano", {PICK.id: measured_of(PICK, 0.06), FRONT[2].id: measured_of(FRONT[2], 0.0)})

    read = read_result(path)
    assert candidate_of(read).verified == (measured_of(PICK, 0.06),)
    assert len(candidate_of(read, identity=FRONT[2].id).verified) == 1
    assert "promise breaks" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "verified_level_ms" in (tmp_path / "pareto.csv").read_text()
    assert (tmp_path / "pareto.png").stat().st_size > 10_000


def test_recording_what_the_result_does_not_have_changes_nothing(tmp_path: Path):
    path = tmp_path / "pareto.json"
    write_json(sample_result(), path)
    before = path.read_bytes()

    with pytest.raises(UserError, match="not recorded"):
        record_verified(path, "nano", {PICK.id: measured_of(PICK, 0.0), "ffffffff": measured_of(PICK, 0.0)})
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.html")) == []


def test_a_search_over_the_same_folder_keeps_measurements_and_judges_them_by_its_own_target(tmp_path: Path):
    path = tmp_path / "pareto.json"
    write_json(verified_result(), path)
    new = sample_result()
    faster = replace(new, devices=(replace(new.devices[0], target_fps=60.0), new.devices[1]))

    assert keep_measured(new, path) == verified_result()
    kept = candidate_of(keep_measured(faster, path)).verified
    assert [one.promise for one in kept] == [1000 / 60]
    assert keep_measured(keep_measured(new, path), path) == keep_measured(new, path)


def test_a_search_in_another_power_mode_does_not_take_over_measurements(tmp_path: Path):
    path = tmp_path / "pareto.json"
    write_json(verified_result(), path)
    new = sample_result()
    other = replace(new, devices=(replace(new.devices[0], power_mode="5W"), new.devices[1]))

    assert candidate_of(keep_measured(other, path)).verified == ()


def test_a_search_at_another_precision_does_not_take_over_measurements(tmp_path: Path):
    path = tmp_path / "pareto.json"
    write_json(verified_result(), path)
    new = sample_result()
    other = replace(new, devices=(replace(new.devices[0], precision="fp32"), new.devices[1]))

    assert candidate_of(keep_measured(other, path)).verified == ()


# beside the prediction


def test_a_comparison_says_how_far_the_prediction_was_off():
    seen = compare(0.06)

    assert seen.engine == pytest.approx(0.06)
    assert not seen.engine_inside
    assert seen.measured_fps == pytest.approx(1000 / (1.06 * PICK.engine_ms.mean + 0.9 + 2.3))
    assert seen.fps == pytest.approx(seen.measured_fps / PICK.fps.mean - 1)
    assert (seen.value, seen.accuracy) == (pytest.approx(68.4), pytest.approx(-0.6))


def test_the_whole_frame_is_what_is_judged_where_it_was_measured():
    assert (compare(0.0).holds, compare(0.0).broken) == (True, False)

    late = compare(0.06)
    assert (late.holds, late.engine_holds, late.promised, late.broken) == (False, True, True, True)

    alone = compare(0.06, frame_ms=None)
    assert (alone.holds, alone.whole, alone.broken) == (True, False, False)


def test_who_never_promised_the_target_breaks_nothing():
    slow = FRONT[-1]

    seen = compared(slow, measured_of(slow, 0.0), "VOC AP50")

    assert (seen.promised, seen.holds, seen.broken) == (False, False, False)


def test_without_a_target_nothing_is_promised_or_broken():
    seen = compare(0.5, promise=None)

    assert (seen.holds, seen.engine_holds, seen.broken) == (None, None, False)


@pytest.mark.parametrize(
    ("metric", "value", "difference"),
    [("VOC AP50", 68.4, -0.6), ("shapes AP50", 68.4, None), ("VOC AP", 0.62 * 69.0, 0.62 * 69.0 - 69.0)],
)
def test_accuracies_are_compared_on_one_data_set_and_metric_only(metric, value, difference):
    seen = compared(PICK, measured_of(PICK, 0.0), metric)

    assert seen.value == pytest.approx(value)
    assert seen.accuracy == (None if difference is None else pytest.approx(difference))


def test_an_accuracy_of_another_precision_is_not_that_of_the_candidate():
    of_int8 = replace(PICK, precision="int8")

    assert compared(of_int8, measured_of(PICK, 0.0), "VOC AP50").accuracy is None
    assert compared(of_int8, measured_of(PICK, 0.0, precision="int8"), "VOC AP50").accuracy is not None


def test_energies_are_compared_where_both_are_known():
    told = replace(PICK, energy_mj=Interval(200.0, 180.0, 220.0))

    assert compared(PICK, measured_of(PICK, 0.0), "VOC AP50").energy is None
    assert compared(told, measured_of(PICK, 0.0, energy_mj=220.0), "VOC AP50").energy == pytest.approx(0.1)
    assert compared(told, measured_of(PICK, 0.0, energy_mj=None), "VOC AP50").energy is None


def test_the_last_measurement_of_the_own_precision_and_of_a_trained_file_is_shown():
    def stamped(hour: int, **changes: object):
        return measured_of(PICK, 0.0, created=f"2026-11-22T{hour}:00:00+00:00", **changes)

    old, new = stamped(10), stamped(11)
    made_up, int8 = stamped(12, model="", ap=None, ap50=None, dataset=""), stamped(13, precision="int8")

    assert shown(PICK, nano()) is None
    assert shown(replace(PICK, verified=(old, new, made_up, int8)), nano()) == new
    assert shown(replace(PICK, verified=(made_up, int8)), nano()) == made_up
    assert shown(replace(PICK, verified=(int8,)), nano()) == int8
    assert shown(replace(PICK, precision="int8", verified=(new, int8)), nano()) == int8


def test_a_measurement_without_accuracy_shows_the_earlier_one_of_the_same_file():
    judged = measured_of(PICK, 0.0, created="2026-11-22T10:00:00+00:00")
    timed = measured_of(PICK, 0.1, created="2026-11-22T11:00:00+00:00", ap=None, ap50=None, dataset="")

    found = shown(replace(PICK, verified=(judged, timed)), verified_device())

    assert found is not None
    assert (found.level_ms, found.ap50, found.dataset) == (timed.level_ms, judged.ap50, "voc")
