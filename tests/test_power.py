"""Power over a block and energy by frame, on the fake meter; the clock is the test's wherever figures are checked."""

import math
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaler.runtimes.power import Energy, Power, PowerLog, PowerReading, PowerSampler, measure_energy
from scaler.runtimes.power_fake import FakePower


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def logged(power: Power, steps: list[float], settle: float = 0.0) -> PowerReading:
    """The reading of a block with a value after each step of so many seconds, and one at its end."""
    clock = Clock()
    log = PowerLog(power, settle, clock)
    log.begin()
    for seconds in steps[:-1]:
        clock.now += seconds
        log.take()
    clock.now += steps[-1]
    log.end()
    return log.reading()


def in_turn(*values: Mapping[str, float]) -> FakePower:
    """A meter that says these values after the question with which a block begins."""
    return FakePower(lambda question: values[max(0, question - 1)], rails=("IN", "GPU"))


def test_a_steady_load_has_its_power_as_mean_and_no_spread():
    reading = logged(FakePower({"IN": 9.0, "GPU": 4.0}), [0.05] * 40)
    assert reading.total_w == pytest.approx(9.0)
    assert reading.watts == pytest.approx({"IN": 9.0, "GPU": 4.0})
    assert reading.error_w == pytest.approx(0.0)
    assert reading.peak_w == 9.0
    assert reading.seconds == pytest.approx(2.0)
    assert (reading.samples, reading.lost, reading.notes) == (40, 0, ())
    assert (reading.source, reading.scope) == ("fake", "fake board")


def test_a_value_counts_for_the_time_since_the_value_before_it():
    reading = logged(in_turn({"IN": 10.0, "GPU": 0.0}, {"IN": 2.0, "GPU": 1.0}), [1.0, 3.0])
    assert reading.total_w == pytest.approx((10 * 1 + 2 * 3) / 4)
    assert reading.watts["GPU"] == pytest.approx(3 / 4)
    assert reading.peak_w == 10.0


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0.001, 10), st.floats(0, 100)), min_size=1, max_size=30))
def test_the_mean_times_the_seconds_is_the_energy(steps: list[tuple[float, float]]):
    values = [{"IN": watts, "GPU": 0.0} for _, watts in steps]
    reading = logged(in_turn(*values), [seconds for seconds, _ in steps])
    assert reading.total_w is not None
    joules = sum(seconds * watts for seconds, watts in steps)
    assert reading.total_w * reading.seconds == pytest.approx(joules, rel=1e-6, abs=1e-6)


def test_several_rails_may_be_the_whole_together():
    power = FakePower({"GPU": 5.0, "CPU": 2.0, "DDR": 1.0}, whole=("GPU", "CPU"))
    assert logged(power, [0.1] * 20).total_w == pytest.approx(7.0)


def test_the_beginning_of_a_block_does_not_count():
    ramp = [{"IN": 2.0, "GPU": 0.0}] * 5 + [{"IN": 12.0, "GPU": 0.0}] * 20
    reading = logged(in_turn(*ramp), [0.125] * 25, settle=0.625)
    assert reading.total_w == pytest.approx(12.0)
    assert reading.samples == 20
    assert reading.seconds == pytest.approx(25 * 0.125)


def test_a_block_that_is_over_before_the_sensors_settled_counts_whole_and_says_so():
    reading = logged(FakePower({"IN": 3.0}), [0.05] * 4, settle=0.5)
    assert reading.total_w == pytest.approx(3.0)
    assert "over before the 0.5 s" in reading.notes[0]


def test_few_values_give_a_mean_without_an_interval():
    reading = logged(FakePower({"IN": 3.0}), [0.05] * 15)
    assert reading.error_w is None
    assert reading.notes == ("15 values are too few for an interval: let the block run longer",)


def test_nothing_new_from_the_meter_lengthens_the_time_of_the_next_value():
    values = iter([{"IN": 1.0}, {}, {}, {"IN": 4.0}, {"IN": 4.0}])
    power = FakePower(lambda _: next(values), rails=("IN",))
    reading = logged(power, [0.1, 0.1, 0.1, 0.1])
    assert reading.samples == 2
    assert reading.total_w == pytest.approx(4.0)
    assert reading.lost == 0


def test_a_value_without_a_rail_of_the_whole_is_lost_but_its_other_rails_count():
    values = [{"IN": 8.0, "GPU": 3.0}, {"GPU": 5.0}, {"IN": 8.0, "GPU": 3.0}, {"GPU": 5.0}]
    reading = logged(in_turn(*values), [0.1] * 4)
    assert (reading.samples, reading.lost) == (2, 2)
    assert reading.total_w == pytest.approx(8.0)
    assert reading.watts["GPU"] == pytest.approx(4.0)


def test_a_meter_that_tells_nothing_gives_no_total_and_the_reason():
    reading = logged(FakePower(lambda _: {}, rails=("IN",)), [0.1] * 4)
    assert reading.total_w is reading.error_w is reading.peak_w is None
    assert reading.watts == {}
    assert reading.notes == ("fake told no power of the whole (IN) during the block",)


def test_rails_of_an_unknown_board_are_told_without_a_total():
    reading = logged(FakePower({"VDD_X": 2.0}, whole=()), [0.1] * 4)
    assert reading.total_w is None
    assert reading.watts == {"VDD_X": pytest.approx(2.0)}
    assert reading.notes == ("none of the rails VDD_X is known to be the whole",)


def test_the_interval_holds_the_true_mean_about_nine_times_out_of_ten():
    random, held = np.random.default_rng(0), 0
    for _ in range(400):
        noise = random.normal(10.0, 1.0, 64)
        reading = logged(in_turn(*({"IN": float(w), "GPU": 0.0} for w in noise)), [0.05] * 64)
        assert reading.total_w is not None
        assert reading.error_w is not None
        held += abs(reading.total_w - 10.0) <= reading.error_w
    assert 0.86 <= held / 400 <= 0.94


def test_a_drift_over_the_block_widens_the_interval():
    def error(values: Iterator[float]) -> float:
        reading = logged(in_turn(*({"IN": watts, "GPU": 0.0} for watts in values)), [0.05] * 64)
        assert reading.error_w is not None
        return reading.error_w

    # the same values, once as a rise and once shuffled as noise
    assert error(8 + index / 16 for index in range(64)) > 2 * error(8 + (index * 29 % 64) / 16 for index in range(64))


# --- the sampler ---


def wait_for(power: FakePower, questions: int) -> None:
    """Until the sampler asked so often; a sampler that asks no more fails the test."""
    pause = threading.Event()
    for _ in range(5000):
        if power.questions >= questions:
            return
        pause.wait(0.002)
    raise AssertionError(f"only {power.questions} questions")


def test_the_sampler_asks_while_the_block_runs_and_stops_with_it():
    power = FakePower({"IN": 6.0})
    with PowerSampler(power, interval=0.001, settle=0.0) as sampler:
        wait_for(power, 20)
    asked = power.questions
    reading = sampler.reading()
    assert reading.total_w == pytest.approx(6.0)
    assert reading.samples >= 18
    assert reading.error_w == pytest.approx(0.0)
    assert power.questions == asked
    assert "power" not in {thread.name for thread in threading.enumerate()}
    assert not power.closed, "the meter belongs to whoever opened it"


def test_a_sampler_may_be_used_again():
    power = FakePower({"IN": 6.0})
    sampler = PowerSampler(power, interval=0.001, settle=0.0)
    for _ in range(2):
        power.questions = 0
        with sampler:
            wait_for(power, 5)
        assert sampler.reading().samples <= power.questions


def test_a_block_that_fails_ends_the_sampler_and_keeps_its_error():
    power = FakePower({"IN": 6.0})
    with pytest.raises(KeyError, match="mine"), PowerSampler(power, interval=0.001):
        raise KeyError("mine")
    assert "power" not in {thread.name for thread in threading.enumerate()}


def test_a_meter_that_breaks_says_so_where_the_block_ends():
    def broken(question: int) -> dict[str, float]:
        if question == 3:
            raise RuntimeError("the meter broke")
        return {"IN": 1.0}

    power = FakePower(broken)
    with pytest.raises(RuntimeError, match="the meter broke"), PowerSampler(power, interval=0.001):
        wait_for(power, 4)


# --- energy ---


def reading(total: float | None, seconds: float = 2.0, error: float | None = 0.1) -> PowerReading:
    return PowerReading(
        source="ina3221",
        scope="module",
        seconds=seconds,
        samples=40,
        lost=0,
        watts={"VDD_IN": total, "VDD_SOC": total / 4} if total is not None else {},
        total_w=total,
        error_w=error,
        peak_w=total,
        notes=() if total is not None else ("ina3221 told nothing",),
    )


def test_the_energy_of_a_frame_is_mean_power_by_frame_time():
    energy = Energy(busy=reading(9.0), idle=reading(4.5), frames=60)
    assert energy.frame_ms == pytest.approx(1000 / 30)
    assert energy.mj == pytest.approx(300.0)
    assert energy.error_mj == pytest.approx(0.1 * 1000 / 30)
    assert energy.above_idle_mj == pytest.approx(150.0)
    assert energy.rails_mj == pytest.approx({"VDD_IN": 300.0, "VDD_SOC": 75.0})
    assert str(energy) == ("9.00 W (module, ina3221), idle 4.50 W: 300 ± 3.3 mJ a frame of 33.3 ms, 150 mJ above idle")


def test_energy_without_idle_power_says_nothing_of_it():
    energy = Energy(busy=reading(9.0, error=None), idle=None, frames=60)
    assert energy.above_idle_mj is None
    assert str(energy) == "9.00 W (module, ina3221): 300 mJ a frame of 33.3 ms"


def test_energy_that_no_meter_told_is_unknown_with_the_reason():
    energy = Energy(busy=reading(None, error=None), idle=reading(4.5), frames=60)
    assert energy.mj is energy.error_mj is energy.above_idle_mj is None
    assert str(energy) == "energy unknown; ina3221 told nothing"


def test_idle_power_is_measured_before_the_frames_and_apart():
    running = threading.Event()
    power = FakePower(lambda _: {"IN": 11.0 if running.is_set() else 5.0})

    def run() -> int:
        running.set()
        wait_for(power, power.questions + 20)
        return 10

    energy = measure_energy(power, run, idle_seconds=0.05, interval=0.001, settle=0.0)
    assert energy.idle is not None
    assert energy.idle.total_w == pytest.approx(5.0)
    assert energy.busy.total_w is not None
    assert 5.0 < energy.busy.total_w <= 11.0 + 1e-9  # the first value may be from before `running` is set
    assert energy.mj == pytest.approx(energy.busy.total_w * energy.busy.seconds / 10 * 1e3)
    assert energy.above_idle_mj == pytest.approx((energy.busy.total_w - 5.0) * energy.frame_ms)


def test_idle_power_may_be_left_out_and_no_frame_is_a_bug():
    power = FakePower({"IN": 1.0})
    assert measure_energy(power, lambda: 1, idle_seconds=0, interval=0.001).idle is None
    with pytest.raises(ValueError, match="no frame was run"):
        measure_energy(power, lambda: 0, idle_seconds=0, interval=0.001)


def test_a_nan_of_a_meter_stays_visible():
    reading = logged(FakePower({"IN": math.nan}), [0.1] * 20)
    assert reading.total_w is not None
    assert math.isnan(reading.total_w)
