"""Energy counters of processors, on recorded trees of the system's files."""

from pathlib import Path

import pytest
from power_records import plant, reader

from scaler.runtimes.power import PowerLog
from scaler.runtimes.power_rapl import RaplPower, find_zones


class Machine:
    """A processor that takes so many watts, by folder, while the test lets time pass."""

    def __init__(self, root: Path) -> None:
        self.root = root / "sys/class/powercap"
        self.now = 50.0

    def clock(self) -> float:
        return self.now

    def run(self, seconds: float, **watts: float) -> None:
        """Rail names without the colons: `rapl0=20` for intel-rapl:0, `rapl0_2` for intel-rapl:0:2."""
        self.now += seconds
        for rail, power in watts.items():
            folder = self.root / f"intel-rapl:{rail.removeprefix('rapl').replace('_', ':')}"
            limit = int((folder / "max_energy_range_uj").read_text(encoding="utf-8"))
            counter = folder / "energy_uj"
            value = int(counter.read_text(encoding="utf-8")) + round(power * seconds * 1e6)
            counter.write_text(f"{value % limit}\n", encoding="utf-8")


@pytest.fixture
def intel(tmp_path: Path) -> Machine:
    return Machine(plant("intel", tmp_path))


@pytest.fixture
def amd(tmp_path: Path) -> Machine:
    return Machine(plant("amd", tmp_path))


def power_of(machine: Machine) -> RaplPower:
    root = machine.root.parent.parent.parent
    return RaplPower(find_zones(root), clock=machine.clock)


def test_parts_bear_the_name_of_their_package_and_the_second_interface_is_left_out(intel: Machine):
    power = power_of(intel)
    assert power.rails == ("package-0", "package-0/core", "package-0/uncore", "package-0/dram", "psys")


def test_the_whole_is_packages_and_memory_and_nothing_twice(intel: Machine, amd: Machine):
    assert power_of(intel).whole == ("package-0", "package-0/dram")
    assert (power_of(intel).source, power_of(intel).scope) == ("rapl", "processor and memory")


def test_a_processor_that_does_not_count_its_memory(amd: Machine):
    assert power_of(amd).rails == ("package-0", "package-0/core")
    assert power_of(amd).whole == ("package-0",)
    assert power_of(amd).scope == "processor"


def test_watts_are_those_since_the_last_question(intel: Machine):
    power = power_of(intel)
    assert power.sample() == {}, "a counter begins with the first question"
    intel.run(2.0, rapl0=15.0, rapl0_2=3.0)
    watts = power.sample()
    assert watts["package-0"] == pytest.approx(15.0)
    assert watts["package-0/dram"] == pytest.approx(3.0)
    assert watts["package-0/core"] == watts["psys"] == 0.0
    intel.run(0.5, rapl0=40.0)
    assert power.sample()["package-0"] == pytest.approx(40.0)
    power.close()


def test_a_counter_that_begins_again_goes_on(amd: Machine):
    power = power_of(amd)
    power.sample()
    before = int((amd.root / "intel-rapl:0/energy_uj").read_text(encoding="utf-8"))
    amd.run(10.0, rapl0=65.0, rapl0_0=40.0)
    assert int((amd.root / "intel-rapl:0/energy_uj").read_text(encoding="utf-8")) < before, "it did begin again"
    assert power.sample() == {"package-0": pytest.approx(65.0), "package-0/core": pytest.approx(40.0)}


def test_questions_at_one_moment_tell_nothing_and_lose_nothing(amd: Machine):
    power = power_of(amd)
    power.sample()
    assert power.sample() == {}
    amd.run(1.0, rapl0=20.0)
    assert power.sample()["package-0"] == pytest.approx(20.0)


def test_a_counter_that_fails_is_absent_and_comes_back_with_its_mean(amd: Machine):
    power = power_of(amd)
    power.sample()
    counter = amd.root / "intel-rapl:0/energy_uj"
    value = counter.read_text(encoding="utf-8")
    counter.write_text("broken\n", encoding="utf-8")
    amd.now += 1.0
    assert "package-0" not in power.sample()
    counter.write_text(value, encoding="utf-8")
    amd.run(1.0, rapl0=20.0)
    assert power.sample()["package-0"] == pytest.approx(10.0), "20 J in the two seconds since it last answered"


def test_the_mean_over_a_block_is_its_energy_by_its_time(amd: Machine):
    log = PowerLog(power_of(amd), 0.0, amd.clock)
    log.begin()
    for watts in range(20):
        amd.run(0.05 + 0.01 * watts, rapl0=5.0 + watts)
        log.take()
    log.end()
    joules = sum((0.05 + 0.01 * watts) * (5.0 + watts) for watts in range(20))
    reading = log.reading()
    assert reading.total_w is not None
    assert reading.total_w * reading.seconds == pytest.approx(joules, rel=1e-6)
    assert reading.samples == 20


def test_a_zone_without_name_or_range_is_left_out(intel: Machine):
    (intel.root / "intel-rapl:0:1/max_energy_range_uj").unlink()
    zones = find_zones(intel.root.parent.parent.parent, reader(forbidden="enabled"))
    assert [zone.rail for zone in zones] == ["package-0", "package-0/core", "package-0/dram", "psys"]
