"""The computer at hand: facts read from recorded texts of other computers, and from this one."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from scaler import host
from scaler.cli import run
from scaler.devices import ThreadMode, list_devices, load_device, load_host, thread_mode
from scaler.errors import UnsupportedError
from scaler.host import host_cpu, host_memory_gib, linux_cpu, macos_cpu, processor_name
from scaler.latency.estimator import load_estimator

# Texts as the machines gave them; lines that nobody reads are left out.
XEON = """\
processor	: 0
vendor_id	: GenuineIntel
cpu family	: 6
model		: 207
model name	: Intel(R) Xeon(R) Processor
cache size	: 307200 KB
physical id	: 0
core id		: 0
cpu cores	: 2
flags		: fpu vme sse sse2 ht syscall fma cx16 sse4_1 sse4_2 movbe aes xsave avx f16c hypervisor bmi1 avx2 avx512f \
avx512dq avx512cd avx512bw avx512vl avx_vnni avx512_bf16 avx512vbmi avx512_vbmi2 avx512_vnni avx512_fp16 amx_bf16 \
amx_tile amx_int8 flush_l1d

processor	: 1
vendor_id	: GenuineIntel
model name	: Intel(R) Xeon(R) Processor
core id		: 1
"""
XEON_CACHES = [
    ("1", "Data", "48K"),
    ("1", "Instruction", "32K"),
    ("2", "Unified", "2048K"),
    ("3", "Unified", "307200K"),
]
RYZEN = """\
processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 23
model		: 8
model name	: AMD Ryzen 7 2700X Eight-Core Processor
cache size	: 512 KB
flags		: fpu vme de pse tsc sse sse2 ht syscall nx pni ssse3 cx16 sse4_1 sse4_2 movbe popcnt aes xsave \
avx rdrand hypervisor lahf_lm abm sse4a fsgsbase avx2 rdseed clflushopt arat
"""
TX2 = "\n\n".join(
    f"""\
processor	: {index}
model name	: ARMv8 Processor rev 3 (v8l)
BogoMIPS	: 62.50
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x1
CPU part	: 0xd07
CPU revision	: 3"""
    for index in (0, 3, 4, 5)
)
PI_4 = (
    "\n\n".join(
        f"""\
processor	: {index}
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3"""
        for index in range(4)
    )
    + """

Hardware	: BCM2835
Revision	: d03115
Model		: Raspberry Pi 4 Model B Rev 1.5
"""
)
ORIN = """\
processor	: 0
model name	: ARMv8 Processor rev 1 (v8l)
BogoMIPS	: 62.50
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp uscat \
ilrcpc flagm paca pacg
CPU implementer	: 0x41
CPU part	: 0xd42
"""
M1 = """\
hw.ncpu: 8
hw.memsize: 17179869184
hw.perflevel0.physicalcpu: 4
hw.perflevel0.l2cachesize: 12582912
hw.perflevel1.physicalcpu: 4
hw.perflevel1.l2cachesize: 4194304
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_BF16: 0
hw.optional.arm.FEAT_I8MM: 0
hw.optional.arm.FEAT_FP16: 1
hw.optional.neon: 1
hw.optional.AdvSIMD: 1
hw.physicalcpu: 8
hw.cachesize: 3499458560 65536 4194304 0 0 0 0 0 0 0
hw.l2cachesize: 4194304
hw.osenvironment: 
machdep.cpu.brand_string: Apple M1
"""  # noqa: W291  (as macOS writes it)


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for the user's own data, so that no table of this computer is there."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setenv("SCALER_DATA_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_xeon_of_intel() -> None:
    cpu = linux_cpu(XEON, "x86_64", ["0", "1"], XEON_CACHES)

    assert (cpu.processor, cpu.architecture, cpu.cores) == ("Intel(R) Xeon(R) Processor", "x86_64", 2)
    assert (cpu.l2_kib, cpu.l3_kib) == (2048, 307200)
    assert {"fma", "avx2", "avx512f", "avx512_vnni", "amx_int8"} <= set(cpu.instruction_sets)


def test_a_ryzen_of_amd_with_two_threads_a_core() -> None:
    cpu = linux_cpu(RYZEN, "x86_64", ["0-1", "0-1", "2-3", "2-3"], [("2", "Unified", "512K"), ("3", "Unified", "16M")])

    assert cpu.processor == "AMD Ryzen 7 2700X Eight-Core Processor"
    assert cpu.instruction_sets == ("sse4_2", "avx", "avx2")
    assert (cpu.cores, cpu.l2_kib, cpu.l3_kib) == (2, 512, 16384)


@pytest.mark.parametrize(
    ("cpuinfo", "processor", "instruction_sets"),
    [
        (TX2, "ARM Cortex-A57", ("asimd",)),
        (PI_4, "ARM Cortex-A72", ("asimd",)),
        (ORIN, "ARM Cortex-A78AE", ("asimd", "asimdhp", "asimddp")),
        (
            TX2 + "\n\nprocessor: 1\nCPU implementer: 0x4e\nCPU part: 0x003",
            "ARM Cortex-A57 + NVIDIA Denver 2",
            ("asimd",),
        ),
        ("processor: 0\nCPU implementer: 0x61\nCPU part: 0x022", "ARM CPU (implementer 0x61, part 0x022)", ()),
    ],
    ids=["Jetson TX2", "Raspberry Pi 4", "Jetson AGX Orin", "Jetson TX2 with Denver", "Apple under Linux"],
)
def test_an_arm_is_named_after_its_cores(cpuinfo: str, processor: str, instruction_sets: Sequence[str]) -> None:
    cpu = linux_cpu(cpuinfo, "aarch64", ["0", "1", "2", "3"], [("2", "Unified", "2048K")])

    assert (cpu.processor, cpu.instruction_sets) == (processor, instruction_sets)
    assert (cpu.cores, cpu.l2_kib, cpu.l3_kib) == (4, 2048, None)


def test_a_mac_tells_of_its_fast_cores() -> None:
    cpu = macos_cpu(M1, "arm64")

    assert (cpu.processor, cpu.architecture, cpu.cores) == ("Apple M1", "arm64", 8)
    assert (cpu.l2_kib, cpu.l3_kib) == (12288, None)
    assert cpu.instruction_sets == ("asimd", "asimdhp", "asimddp")


@pytest.mark.parametrize(
    "text", ["", "nonsense", "processor", ":\n:", "\n\n\n", "processor : 0\nflags :\nmodel name :"]
)
def test_a_system_that_tells_nothing_still_gives_a_cpu(text: str) -> None:
    linux = linux_cpu(text, "riscv64", ["", "", ""], [("", "", ""), ("2", "Unified", "big"), ("x", "Data", "1K")])
    mac = macos_cpu(text, "arm64", logical=8)

    assert (linux.processor, linux.cores, linux.l2_kib, linux.l3_kib) == ("riscv64 CPU", 3, None, None)
    assert (mac.processor, mac.cores, mac.l2_kib, mac.l3_kib) == ("arm64 CPU", 8, None, None)
    assert linux_cpu(text, "x86_64", [], []).cores == 1


def test_windows_tells_a_name_and_logical_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.platform, "system", lambda: "Windows")
    monkeypatch.setattr(host.platform, "processor", lambda: "Intel64 Family 6 Model 158 Stepping 10, GenuineIntel")
    monkeypatch.setattr(host.platform, "machine", lambda: "AMD64")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    cpu = host_cpu.__wrapped__()

    assert cpu.processor == "Intel64 Family 6 Model 158 Stepping 10, GenuineIntel"
    assert (cpu.architecture, cpu.cores, cpu.l2_kib) == ("AMD64", 12, None)


def test_a_mac_without_sysctl_still_gives_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("sysctl")

    monkeypatch.setattr(host.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(subprocess, "run", missing)

    assert host_cpu.__wrapped__().processor.endswith(" CPU")


def test_a_linux_without_proc_and_sys_still_gives_a_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host.platform, "system", lambda: "Linux")
    monkeypatch.setattr(host, "_CPUS", tmp_path)
    monkeypatch.setattr(host, "_text", lambda _: "")

    assert host_cpu.__wrapped__().processor.endswith(" CPU")


def test_a_system_without_sysconf_tells_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf", raising=False)

    assert host_memory_gib() is None


def test_this_computer_tells_a_name_cores_and_memory() -> None:
    cpu = host_cpu()

    assert cpu.processor == processor_name()
    assert 1 <= cpu.cores <= (os.cpu_count() or 1)
    assert cpu.architecture
    assert host_memory_gib() is None or 0.1 < (host_memory_gib() or 0) < 100_000


def test_host_is_this_computer_with_a_mode_for_each_number_of_threads() -> None:
    device = load_device("host")

    assert device == load_device("HOST ")
    assert (device.id, device.cpu, device.runtimes) == ("host", host_cpu(), ("onnxruntime",))
    assert [mode.threads for mode in device.modes if isinstance(mode, ThreadMode)] == [*range(1, host_cpu().cores + 1)]
    assert device.mode() == device.mode("1") == thread_mode(1)
    assert "did not reproduce" in device.default_mode_reason


@pytest.mark.parametrize(
    ("threads", "names"), [(1, ("1-thread", "1", "1-threads")), (4, ("4-threads", "4", "4-thread"))]
)
def test_a_number_of_threads_has_one_name_and_two_aliases(threads: int, names: tuple[str, ...]) -> None:
    mode = thread_mode(threads)

    assert (mode.name, *mode.aliases) == names
    assert mode.threads == threads


def test_host_is_no_profile_but_among_the_names_that_a_typo_may_mean() -> None:
    assert "host" not in [device.id for device in list_devices()]
    with pytest.raises(Exception, match="did you mean 'host'"):
        load_device("hosst")


UNMEASURED = (
    "no latency table of host for onnxruntime fp32, 1-thread; measure one in about five minutes: "
    "scaler profile run --device host"
)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the one line of a command that fails."""
    code = run(arguments)
    line = capsys.readouterr().err.strip()
    assert len(line.splitlines()) == 1
    return code, line.removeprefix("scaler: ")


@pytest.mark.parametrize(
    "command",
    [
        ["search", "--device", "host"],
        ["search", "--device", "nano", "--device", "host", "--fps", "30"],
        ["search", "--device", "host", "--precision", "fp32"],
        ["show", "YOLO-ReT-M0.75@320", "--device", "host"],
    ],
    ids=" ".join,
)
def test_a_question_about_a_cpu_that_nobody_measured_ends_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str]
) -> None:
    assert fails(capsys, *command) == (1, UNMEASURED)
    assert not (tmp_path / "results").exists()


def test_the_way_out_names_the_mode_that_was_asked_for(own_data: Path) -> None:
    profile = 'id = "pi"\n[[modes]]\nname = "2-threads"\nthreads = 2\n'
    (own_data / "profiles").mkdir()
    (own_data / "profiles" / "pi.toml").write_text(
        'schema_version = 1\nname = "Pi"\nlatency_provenance = "measured"\nmemory_gib = 4\ndefault_mode = "1-thread"\n'
        'default_mode_reason = "so"\n' + profile + '[[modes]]\nname = "1-thread"\nthreads = 1\n'
        '[cpu]\nprocessor = "ARM"\narchitecture = "aarch64"\ncores = 4\n[sources]\ncpu = "x"\nmemory = "x"\n'
    )

    with pytest.raises(
        UnsupportedError, match=r"of pi for onnxruntime fp32, 2-threads; .* --device pi --power-mode 2-th"
    ):
        load_estimator("pi", power_mode="2-threads")


def test_a_precision_that_a_cpu_lacks_stays_an_error_when_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    code, line = fails(capsys, "search", "--device", "host", "--precision", "fp16")

    assert code == 1
    assert line == f"{load_host().name} has no FP16 in ONNX Runtime; it supports fp32, int8"


def test_each_device_takes_its_own_precision_when_none_is_named() -> None:
    assert load_estimator("nano").precision == "fp16"
    assert load_estimator("nano", precision="fp32").precision == "fp32"
    assert load_host().require_precision(None) == "fp32"


def test_the_list_shows_this_computer_with_its_processor(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices"]) == 0
    shown = capsys.readouterr().out.splitlines()
    row = next(line for line in shown if line.startswith("host"))

    assert f"{host_cpu().architecture}, {host_cpu().cores} core" in row
    assert "ONNX Runtime" in row
    assert "none yet" in row
    assert load_host().name.split()[0] in row


def test_details_of_this_computer_say_how_to_measure_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "host"]) == 0
    shown = " ".join(capsys.readouterr().out.split())

    assert "1-thread *" in shown
    assert "scaler profile run --device host" in shown
    assert "did not reproduce on shared machines" in shown


def test_a_table_of_this_computer_is_named_measured(capsys: pytest.CaptureFixture[str], own_data: Path) -> None:
    (own_data / "latency_tables" / "host").mkdir(parents=True)
    (own_data / "latency_tables" / "host" / "onnxruntime-fp32.toml").write_text("schema_version = 1")
    run(["devices"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("host"))

    assert row.rstrip().endswith("measured")


def test_json_has_the_same_names_for_every_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["devices", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)

    assert len({tuple(device) for device in listed}) == 1
    nano, this = (next(device for device in listed if device["id"] == name) for name in ("nano", "host"))
    assert (nano["kind"], nano["compute_capability"], nano["cores"]) == ("gpu", "5.3", None)
    assert (this["kind"], this["compute_capability"], this["cores"]) == ("cpu", None, host_cpu().cores)
    assert this["processor"] == processor_name()
    assert this["modes"][0]["threads"] == 1
