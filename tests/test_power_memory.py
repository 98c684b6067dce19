"""Memory of engines: published logs of TensorRT, and this process."""

from pathlib import Path

import pytest
from power_records import record

from scaler.runtimes.power_memory import EngineMemory, PeakMemory, parse_engine_memory


def test_an_engine_built_and_run_on_a_nano():
    memory = parse_engine_memory(record("trtexec_nano.txt"))
    assert memory.running == 266, "engine 186 and context 80, not the 256 while it was built"
    assert memory.building == 113 + 1112, "one memory for CPU and GPU"
    assert memory.activations == pytest.approx(22118400 / 2**20)
    assert memory.weights is None, "8.2 does not tell"


def test_an_engine_that_was_loaded_only():
    assert parse_engine_memory(record("trtexec_10_7.txt")) == EngineMemory(running=1484)


def test_newer_versions_tell_the_weights_and_a_unit():
    text = "[I] [TRT] Total Activation Memory: 62976 bytes\n[I] [TRT] Total Weights Memory: 1851804 bytes\n"
    memory = parse_engine_memory(text)
    assert memory.activations == pytest.approx(62976 / 2**20)
    assert memory.weights == pytest.approx(1851804 / 2**20)


def test_an_engine_on_the_dla_counts_the_cpus_side():
    line = "TensorRT-managed allocation in IExecutionContext creation: CPU +0, GPU +0, now: CPU 3, GPU 0 (MiB)"
    assert parse_engine_memory(line).running == 3


def test_of_several_engines_the_last_counts():
    text = record("trtexec_nano.txt") + record("trtexec_10_7.txt")
    assert parse_engine_memory(text).running == 1484
    assert parse_engine_memory(text).building == 1225, "the other one was not built"


@pytest.mark.parametrize("text", ["", "trtexec: not found", "Total Activation Memory: much"])
def test_silence_is_no_memory(text: str):
    assert parse_engine_memory(text) == EngineMemory()


def status(folder: Path, resident: int, peak: int) -> None:
    text = f"Name:\tpython3\nVmPeak:\t 9000000 kB\nVmHWM:\t {peak:7} kB\nVmRSS:\t {resident:7} kB\nThreads:\t1\n"
    (folder / "status").write_text(text, encoding="utf-8")


def test_the_rise_of_a_process_is_its_peak_above_what_it_held_before(tmp_path: Path):
    status(tmp_path, resident=200 * 1024, peak=900 * 1024)
    with PeakMemory(tmp_path) as memory:
        assert (tmp_path / "clear_refs").read_text(encoding="utf-8") == "5", "the peak before does not count"
        status(tmp_path, resident=250 * 1024, peak=340 * 1024)
    assert memory.mib == pytest.approx(140)


def test_a_process_that_gave_memory_back_rose_by_nothing(tmp_path: Path):
    status(tmp_path, resident=200 * 1024, peak=200 * 1024)
    with PeakMemory(tmp_path) as memory:
        status(tmp_path, resident=100 * 1024, peak=190 * 1024)
    assert memory.mib == 0.0


def test_a_system_that_does_not_tell_gives_none(tmp_path: Path):
    with PeakMemory(tmp_path / "missing") as memory:
        pass
    assert memory.mib is None
    with PeakMemory(tmp_path) as memory:  # the peak can be reset, but there is no status
        pass
    assert memory.mib is None


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux with clear_refs alone")
def test_this_process_rises_by_what_it_allocates():
    with PeakMemory() as memory:
        block = bytearray(64 * 2**20)
        block[::4096] = b"x" * len(block[::4096])
        del block
    assert memory.mib is None or memory.mib >= 60
